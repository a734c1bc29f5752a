"""asyncssh moves files through the proxy: PORT HOME FOLDER."""

import asyncio
import filecmp
import sys

import asyncssh


async def main():
    port, home, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    options = {
        "username": "root+web-1",
        "client_keys": [(f"{home}/id", f"{home}/id-cert.pub")],
        "known_hosts": f"{home}/known_hosts",
        "agent_path": None,
        "config": None,
    }
    async with asyncssh.connect("127.0.0.1", port, **options) as connection:
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
