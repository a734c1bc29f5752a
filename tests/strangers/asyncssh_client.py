"""asyncssh as a client of the proxy: PORT HOME."""

import asyncio
import sys

import asyncssh
from asyncssh_login import options


async def main():
    port, home = int(sys.argv[1]), sys.argv[2]
    own = {
        "rekey_bytes": 1 << 20,
    }
    async with asyncssh.connect("127.0.0.1", port, **options(home), **own) as connection:
        done = await connection.run("echo out; echo err >&2; exit 42")
        print("exec", done.stdout.strip(), done.stderr.strip(), done.exit_status)

        data = (bytes(range(256)) * 7813)[:2_000_000]
        done = await connection.run("cat", input=data, encoding=None)
        assert done.stdout == data
        print("bytes", len(done.stdout))

        many = await asyncio.gather(*(connection.run(f"read x; echo {n}", input="go\n") for n in range(8)))
        print("channels", len({done.stdout.strip() for done in many}))

        process = await connection.create_process("read x; stty size", term_type="xterm", term_size=(80, 24))
        process.change_terminal_size(111, 33)
        process.stdin.write("\n")
        done = await process.wait()
        print("terminal", *done.stdout.split()[-2:])

        try:
            await connection.start_sftp_client()
            print("sftp taken")
        except asyncssh.Error:
            print("sftp refused")


asyncio.run(asyncio.wait_for(main(), 90))
