"""An SSH target made of asyncssh that trusts Custody's target CA: PORT HOST_KEY CA [KEX CIPHER MAC].

With algorithms it takes only those, and renews keys at 1 MiB.
"""

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


async def say(process):
    if process.command == "cat":
        # Bytes, so that nothing is lost in a decoder.
        while data := await process.stdin.read(65536):
            process.stdout.write(data)
            await process.stdout.drain()
        process.exit(0)
        return
    process.stdout.write(f"you said: {process.command}\n".encode())
    process.exit(3)


async def main():
    only = {}
    if len(sys.argv) > 4:
        kex, cipher, mac = sys.argv[4:7]
        only = {"kex_algs": [kex], "encryption_algs": [cipher], "mac_algs": [mac], "rekey_bytes": 1 << 20}
    await asyncssh.listen(
        "127.0.0.1",
        int(sys.argv[1]),
        server_factory=Server,
        server_host_keys=[sys.argv[2]],
        process_factory=say,
        encoding=None,
        **only,
    )
    await asyncio.Event().wait()


asyncio.run(main())
