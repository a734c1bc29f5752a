"""asyncssh does much at once, some of it denied: PORT HOME FOLDER."""

import asyncio
import sys

import asyncssh
from asyncssh_login import options


async def main():
    port, home, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    async with asyncssh.connect("127.0.0.1", port, **options(home)) as connection:
        async with connection.start_sftp_client() as sftp:

            async def read(n):
                async with sftp.open(f"{folder}/yes/file-{n}", "rb") as file:
                    return await file.read() == bytes([n]) * 1_000_000

            async def write(n):
                async with sftp.open(f"{folder}/yes/new-{n}", "wb") as file:
                    await file.write(bytes([n]) * 200_000)
                return True

            async def denied(n):
                try:
                    if n % 2:
                        await sftp.remove(f"{folder}/no/file-{n % 20}")
                    else:
                        async with sftp.open(f"{folder}/no/file-{n % 20}", "rb"):
                            pass
                except asyncssh.SFTPPermissionDenied as error:
                    return str(error).startswith("custody: denied: ")
                return False

            tasks = [denied(n) for n in range(200)]
            tasks[0:0] = [read(n) for n in range(20)] + [write(n) for n in range(20)]
            done = await asyncio.gather(*tasks)
            print("read", sum(done[:20]), "denied", sum(done[40:]), "written", sum(done[20:40]))


asyncio.run(asyncio.wait_for(main(), 90))
