"""paramiko closes a file while it is read ahead, and opens others: PORT HOME FOLDER."""

import sys

from paramiko_proxy import connect

port, home, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
client = connect(port, home)
sftp = client.open_sftp()
with open(f"{folder}/file", "rb") as file:
    whole = file.read()
for _ in range(20):
    there = sftp.open(f"{folder}/file", "rb")
    there.prefetch(len(whole))
    there.close()
    # Answers to what was read ahead come behind those to this: paramiko passes over them.
    with sftp.open(f"{folder}/small", "rb") as small:
        assert small.read() == b"small"
client.close()
print("read")
