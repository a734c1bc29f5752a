"""Forwards with asyncssh: PORT USER KEY CERTIFICATE FAR (the port of a server that echoes)."""

import asyncio
import sys

import asyncssh


async def ask(reader, writer):
    writer.write(b"hello")
    writer.write_eof()
    said = await reader.read()
    writer.close()
    return said.decode()


async def main():
    port, user, key, certificate, far = sys.argv[1:]
    options = {
        "username": user,
        "client_keys": [(key, certificate) if certificate else key],
        "known_hosts": None,
        "agent_path": None,
        "config": None,
    }
    async with asyncssh.connect("127.0.0.1", int(port), **options) as connection:
        print("direct", await ask(*await connection.open_connection("127.0.0.1", int(far), encoding=None)))
        try:
            await connection.open_connection("127.0.0.1", 1)
        except asyncssh.ChannelOpenError as error:
            print("refused", error.code)

        listener = await connection.forward_remote_port("localhost", 0, "127.0.0.1", int(far))
        told = listener.get_port()
        print("remote", await ask(*await asyncio.open_connection("127.0.0.1", told)))
        listener.close()
        await listener.wait_closed()
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", told)
                writer.close()
            except OSError:
                print("cancelled")
                break
            await asyncio.sleep(0.05)
        again = await connection.forward_remote_port("localhost", told, "127.0.0.1", int(far))
        print("again", await ask(*await asyncio.open_connection("127.0.0.1", told)))
        again.close()


asyncio.run(asyncio.wait_for(main(), 90))
