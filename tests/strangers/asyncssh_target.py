"""An SSH target made of asyncssh that trusts Custody's target CA: PORT HOST_KEY CA."""

import asyncio
import sys

import asyncssh


class Server(asyncssh.SSHServer):
    def begin_auth(self, username):
        return True

    def public_key_auth_supported(self):
        return True

    def validate_ca_key(self, username, key):
        return key == asyncssh.read_public_key(sys.argv[3])


def say(process):
    process.stdout.write(f"you said: {process.command}\n")
    process.exit(3)


async def main():
    await asyncssh.listen(
        "127.0.0.1",
        int(sys.argv[1]),
        server_factory=Server,
        server_host_keys=[sys.argv[2]],
        process_factory=say,
    )
    await asyncio.Event().wait()


asyncio.run(main())
