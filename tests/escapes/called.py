"""Lets itself be called from an address: `called.py MARK ADDRESS`. Prints MARK when the caller isn't cut off in ten seconds."""

import socket
import sys

mark, address = sys.argv[1:]
server = socket.create_server(("127.0.0.1", 0))
caller = socket.create_connection(server.getsockname(), source_address=(address, 0))
called = server.accept()[0]
called.settimeout(10)
try:
    called.recv(1)
except TimeoutError:
    print(mark)
except OSError as error:
    sys.exit(str(error))
