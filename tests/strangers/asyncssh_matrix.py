"""asyncssh through the proxy with each key exchange, cipher and MAC that both have, keys renewed at 1 MiB: PORT HOME."""

import asyncio
import sys

import asyncssh
from asyncssh_login import options

KEX = [
    "mlkem768x25519-sha256",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
]
PROTECTIONS = [
    ("aes256-gcm@openssh.com", None),
    ("aes128-gcm@openssh.com", None),
    ("chacha20-poly1305@openssh.com", None),
    ("aes256-ctr", "hmac-sha2-256-etm@openssh.com"),
    ("aes256-ctr", "hmac-sha2-512-etm@openssh.com"),
    ("aes128-ctr", "hmac-sha2-256-etm@openssh.com"),
    ("aes128-ctr", "hmac-sha2-512-etm@openssh.com"),
]
DATA = (bytes(range(251)) * 12_000)[:2_500_000]


async def through(port, home, kex, cipher, mac):
    own = {
        "rekey_bytes": 1 << 20,
        "kex_algs": [kex],
        "encryption_algs": [cipher],
        "mac_algs": [mac] if mac else ["hmac-sha2-256-etm@openssh.com"],
    }
    async with asyncssh.connect("127.0.0.1", port, **options(home), **own) as connection:
        done = await connection.run("cat", input=DATA, encoding=None)
        assert done.stdout == DATA, (kex, cipher, mac, len(done.stdout))
        used = connection.get_extra_info("send_cipher"), connection.get_extra_info("recv_cipher")
        assert used == (cipher, cipher), used


async def main():
    port, home = int(sys.argv[1]), sys.argv[2]
    count = 0
    for kex in KEX:
        for cipher, mac in PROTECTIONS:
            await through(port, home, kex, cipher, mac)
            count += 1
    print("combinations", count)


asyncio.run(asyncio.wait_for(main(), 110))
