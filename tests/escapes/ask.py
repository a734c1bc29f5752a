"""Asks a name server for a name's address and prints it: `ask.py udp|tcp|tls NAME SERVER`."""

import socket
import ssl
import struct
import sys

how, name, server = sys.argv[1:]
labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
question = struct.pack("!6H", 1, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)

if how == "udp":
    connection = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    connection.sendto(question, (server, 53))
    answer = connection.recv(512)
else:
    connection = socket.create_connection((server, 853 if how == "tls" else 53))
    if how == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = context.wrap_socket(connection)
    connection.sendall(struct.pack("!H", len(question)) + question)
    answer = connection.makefile("rb").read()
# The address stands last.
print(socket.inet_ntoa(answer[-4:]))
