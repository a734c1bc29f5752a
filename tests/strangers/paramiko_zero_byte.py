"""paramiko asks for sftp with a zero byte behind its name, and puts a file: PORT HOME FOLDER."""

import sys

import paramiko

port, home, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
key = paramiko.Ed25519Key.from_private_key_file(f"{home}/id")
key.load_certificate(f"{home}/id-cert.pub")
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect("127.0.0.1", port, "root+web-1", pkey=key, allow_agent=False, look_for_keys=False, timeout=20)
channel = client.get_transport().open_session()
channel.invoke_subsystem("sftp\0")
sftp = paramiko.SFTPClient(channel)
try:
    sftp.put(f"{folder}/file", f"{folder}/put", confirm=False)
    print("put")
except PermissionError as error:
    print(error.strerror)
client.close()
