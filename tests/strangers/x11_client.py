"""An X11 program, as far as a greeting (X11 protocol, 8): shows the cookie of its display, prints what it is told."""

import os
import socket
import struct
import subprocess

display = os.environ["DISPLAY"]
host, number = display.rsplit(":", 1)
number = int(number.split(".")[0])
listed = subprocess.run(["xauth", "nlist", display], capture_output=True, check=True, text=True)
cookie = bytes.fromhex(listed.stdout.split()[-1])
name = b"MIT-MAGIC-COOKIE-1"
greeting = struct.pack("<cxHHHHxx", b"l", 11, 0, len(name), len(cookie)) + name + b"\0\0" + cookie
with socket.create_connection((host or "localhost", 6000 + number), timeout=20) as server:
    server.sendall(greeting)
    told = b""
    while part := server.recv(100):
        told += part
print(told.decode())
