"""paramiko closes a file while it is read ahead, and opens others: PORT HOME FOLDER."""

import sys

import paramiko

port, home, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
key = paramiko.Ed25519Key.from_private_key_file(f"{home}/id")
key.load_certificate(f"{home}/id-cert.pub")
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect("127.0.0.1", port, "root+web-1", pkey=key, allow_agent=False, look_for_keys=False, timeout=20)
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
