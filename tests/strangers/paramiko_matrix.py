"""paramiko through the proxy with each key exchange, cipher and MAC that both have: PORT HOME.

Keys aren't renewed here: a channel that closes meanwhile makes paramiko's thread wait for itself (_handle_close), in front of
OpenSSH's sshd as well.
"""

import socket
import sys
import threading

import paramiko

PREFIXES = ("mlkem768x25519", "curve25519", "ecdh-sha2-nistp")
CIPHERS = ("aes128-ctr", "aes256-ctr", "aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
DATA = (bytes(range(251)) * 6_000)[:1_250_000]

port, home = int(sys.argv[1]), sys.argv[2]
key = paramiko.Ed25519Key.from_private_key_file(f"{home}/id")
key.load_certificate(f"{home}/id-cert.pub")


def echoed(transport):
    channel = transport.open_session()
    channel.exec_command("cat")
    back = bytearray()

    def read():
        while part := channel.recv(65536):
            back.extend(part)

    reader = threading.Thread(target=read)
    reader.start()
    channel.sendall(DATA)
    channel.shutdown_write()
    reader.join(60)
    assert channel.recv_exit_status() == 0
    return bytes(back)


def through(kex, cipher, mac):
    transport = paramiko.Transport(socket.create_connection(("127.0.0.1", port)))
    options = transport.get_security_options()
    options.kex, options.ciphers, options.digests = [kex], [cipher], [mac]
    transport.connect(username="root+web-1", pkey=key)
    back = echoed(transport)
    assert back == DATA, (kex, cipher, mac, len(back))
    transport.close()


methods = [kex for kex in paramiko.Transport._preferred_kex if kex.startswith(PREFIXES)]
ciphers = [cipher for cipher in paramiko.Transport._preferred_ciphers if cipher in CIPHERS]
for kex in methods:
    for cipher in ciphers:
        # A cipher that authenticates has no MAC: one is as good as another.
        for mac in MACS if cipher.endswith("ctr") else MACS[:1]:
            through(kex, cipher, mac)
print("methods", len(methods), "ciphers", len(ciphers))
