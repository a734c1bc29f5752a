"""Reaches an address: `send.py MARK HOW ADDRESS PORT`. Prints MARK when it could."""

import ctypes
import socket
import sys

mark, how, address, port = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
to = (address, port)
MULTIPATH = 262

try:
    if how == "connect":
        socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET).connect(to)
    elif how == "multipath":
        try:
            connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, MULTIPATH)
        except PermissionError:
            raise
        except OSError as error:
            sys.exit(f"unsupported: {error}")
        connection.connect(to)
    elif how == "fast-open":
        socket.socket().sendto(b"x", socket.MSG_FASTOPEN, to)
    elif how == "datagram":
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        socket.socket(family, socket.SOCK_DGRAM).sendto(b"x", to)
    elif how == "connected-datagram":
        connection = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        connection.connect(to)
        connection.send(b"x")
    elif how == "disconnected-datagram":
        connection = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        connection.connect(("127.0.0.1", 9))
        ctypes.CDLL(None).connect(connection.fileno(), b"\0" * 16, 16)
        connection.sendto(b"x", to)
    elif how == "raw":
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).sendto(b"x", to)
    elif how == "packet":
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)).bind(("lo", 0))
    elif how == "daemon":
        # A daemon's socket: it runs for whoever connects.
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        connection.sendall(f"/bin/echo {mark}\n".encode())
        connection.shutdown(socket.SHUT_WR)
        sys.stdout.write(connection.makefile().read())
        sys.exit()
except PermissionError as error:
    sys.exit(str(error))
print(mark)
