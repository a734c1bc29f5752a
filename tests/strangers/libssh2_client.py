"""libssh2 as a client of the proxy: PORT HOME. The certificate is given as the public key."""

import socket
import sys

from ssh2.session import Session

port, home = int(sys.argv[1]), sys.argv[2]
session = Session()
session.handshake(socket.create_connection(("127.0.0.1", port)))
session.userauth_publickey_fromfile("root+web-1", f"{home}/id", "", f"{home}/id-cert.pub")
channel = session.open_session()
channel.execute("cat; exit 42")
channel.write(b"by libssh2")
channel.send_eof()
said = b""
while True:
    size, part = channel.read()
    if size <= 0:
        break
    said += part
channel.wait_eof()
channel.close()
channel.wait_closed()
print(said.decode(), channel.get_exit_status())
