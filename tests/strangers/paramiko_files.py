"""paramiko moves files through the proxy: PORT HOME FOLDER."""

import filecmp
import sys

import paramiko

port, home, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
key = paramiko.Ed25519Key.from_private_key_file(f"{home}/id")
key.load_certificate(f"{home}/id-cert.pub")
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect("127.0.0.1", port, "root+web-1", pkey=key, allow_agent=False, look_for_keys=False, timeout=20)
sftp = client.open_sftp()
sftp.put(f"{folder}/file", f"{folder}/put")
sftp.get(f"{folder}/put", f"{folder}/got", prefetch=True)
print("equal" if filecmp.cmp(f"{folder}/file", f"{folder}/got", shallow=False) else "different")
try:
    sftp.open(f"{folder}/missing", "r")
except FileNotFoundError:
    print("missing")
print("listed" if "put" in sftp.listdir(folder) else "not listed")
client.close()
