"""Clients that read what `custody login` has written for OpenSSH and don't know its ProxyUseFdpass: CONFIG HOST."""

import asyncio
import shlex
import socket
import subprocess
import sys

import asyncssh
import paramiko

config, host = sys.argv[1:]

said = paramiko.SSHConfig.from_path(config).lookup(host)
key = paramiko.Ed25519Key.from_private_key_file(said["identityfile"][0])
key.load_certificate(said["certificatefile"])
transport = paramiko.Transport(paramiko.ProxyCommand(said["proxycommand"]))
transport.start_client(timeout=60)
transport.auth_publickey("root", key)
channel = transport.open_session()
channel.exec_command("exit 5")
print("paramiko", channel.recv_exit_status())
transport.close()


async def main():
    async with asyncssh.connect(host, username="root", config=[config], agent_path=None) as connection:
        print("asyncssh", (await connection.run("exit 6")).exit_status)


asyncio.run(main())

# As libssh does it: one socket for both, as OpenSSH has it for ProxyUseFdpass, but who has it speaks at once.
ours, theirs = socket.socketpair()
ours.sendall(b"SSH-2.0-one_socket\r\n")
subprocess.Popen(shlex.split(said["proxycommand"]), stdin=theirs, stdout=theirs)
theirs.close()
ours.settimeout(60)
print("one socket", ours.makefile("rb").readline(8))
