"""Forwards with paramiko: PORT USER KEY CERTIFICATE FAR (the port of a server that echoes)."""

import socket
import sys
import time

import paramiko

port, user, key_file, certificate, far = sys.argv[1:]
key = paramiko.Ed25519Key.from_private_key_file(key_file)
if certificate:
    key.load_certificate(certificate)
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect("127.0.0.1", int(port), user, pkey=key, allow_agent=False, look_for_keys=False, timeout=20)
transport = client.get_transport()


def ask(stream, shutdown):
    stream.settimeout(20)
    stream.sendall(b"hello")
    shutdown()
    said = b""
    while part := stream.recv(100):
        said += part
    stream.close()
    return said.decode()


channel = transport.open_channel("direct-tcpip", ("127.0.0.1", int(far)), ("127.0.0.1", 1))
print("direct", ask(channel, channel.shutdown_write))
try:
    transport.open_channel("direct-tcpip", ("127.0.0.1", 1), ("127.0.0.1", 1))
except paramiko.ChannelException as error:
    print("refused", error.code)

told = transport.request_port_forward("localhost", 0)
near = socket.create_connection(("127.0.0.1", told), timeout=20)
came = transport.accept(20)
came.settimeout(20)
near.sendall(b"hello")
print("remote", came.recv(100).decode())
near.close()
came.close()
transport.cancel_port_forward("localhost", told)
for _ in range(200):
    try:
        socket.create_connection(("127.0.0.1", told), timeout=20).close()
    except OSError:
        print("cancelled")
        break
    time.sleep(0.05)
client.close()
