"""Speaks nonsense within TLS (ALPN custody-ssh) and then neither reads nor leaves. Arguments: port, CA file, connections."""

import socket
import ssl
import sys

port, ca, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
context = ssl.create_default_context(cafile=ca)
context.set_alpn_protocols(["custody-ssh"])
kept = []
for _ in range(count):
    stream = context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1")
    stream.sendall(b"GET / HTTP/1.1\r\n\r\n" * 20)
    kept.append(stream)
print("there", flush=True)
sys.stdin.read()
