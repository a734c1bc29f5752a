"""An SSH target that tries to open channels to its client which nobody asked for: PORT HOST_KEY CA."""

import asyncio
import sys

import asyncssh


class Server(asyncssh.SSHServer):
    def connection_made(self, connection):
        self.connection = connection

    def begin_auth(self, username):
        return True

    def public_key_auth_supported(self):
        return True

    def validate_ca_key(self, username, key):
        return key == asyncssh.read_public_key(sys.argv[3])


async def attempt(process):
    connection = process.get_extra_info("connection")
    session = lambda: asyncssh.SSHTCPSession()
    attempts = [
        ("forwarded-tcpip", lambda: connection.create_connection(session, "127.0.0.1", 22)),
        ("forwarded-streamlocal", lambda: connection.create_unix_connection(session, "/run/x")),
        # Its own create_agent_connection wants to be asked first.
        ("agent", lambda: connection.create_agent_channel().open(session)),
        ("x11", lambda: connection.create_x11_connection(session)),
    ]
    for name, open_channel in attempts:
        try:
            await open_channel()
            process.stdout.write(f"{name} opened\n")
        except asyncssh.ChannelOpenError as error:
            process.stdout.write(f"{name} {error.reason.removeprefix('custody: ')}\n")
    process.exit(0)


async def main():
    await asyncssh.listen(
        "127.0.0.1",
        int(sys.argv[1]),
        server_factory=Server,
        server_host_keys=[sys.argv[2]],
        process_factory=attempt,
    )
    await asyncio.Event().wait()


asyncio.run(main())
