"""asyncssh moves files through the proxy: PORT HOME FOLDER."""

import asyncio
import filecmp
import sys

import asyncssh
from asyncssh_login import options


async def main():
    port, home, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    async with asyncssh.connect("127.0.0.1", port, **options(home)) as connection:
        async with connection.start_sftp_client() as sftp:
            await sftp.put(f"{folder}/file", f"{folder}/put")
            await sftp.get(f"{folder}/put", f"{folder}/got")
            print("equal" if filecmp.cmp(f"{folder}/file", f"{folder}/got", shallow=False) else "different")
            try:
                async with sftp.open(f"{folder}/missing", "rb"):
                    pass
            except asyncssh.SFTPNoSuchFile:
                print("missing")
            print("listed" if "put" in await sftp.listdir(folder) else "not listed")


asyncio.run(asyncio.wait_for(main(), 90))
