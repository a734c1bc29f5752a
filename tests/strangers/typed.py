"""Logs in by keyboard-interactive with paramiko and asyncssh: port and user in the arguments, the password at the input."""

import asyncio
import sys

import asyncssh
import paramiko

port, user, password = int(sys.argv[1]), sys.argv[2], sys.stdin.read()


def typed(prompts):
    assert [shown for _, shown in prompts] == [True, False], prompts
    return [user if shown else password for _, shown in prompts]


transport = paramiko.Transport(("127.0.0.1", port))
transport.start_client()
transport.auth_interactive("root+web-1", lambda title, instructions, prompts: typed(prompts))
channel = transport.open_session()
channel.exec_command("exit 5")
print("paramiko", channel.recv_exit_status())
transport.close()


class Person(asyncssh.SSHClient):
    def kbdint_auth_requested(self):
        return ""

    def kbdint_challenge_received(self, name, instructions, lang, prompts):
        return typed(prompts)


async def main():
    options = {"known_hosts": None, "client_keys": [], "agent_path": None, "config": []}
    async with asyncssh.connect(
        "127.0.0.1", port, username="root+web-1", client_factory=Person, **options
    ) as connection:
        print("asyncssh", (await connection.run("exit 6")).exit_status)


asyncio.run(main())
