"""paramiko asks for sftp with a zero byte behind its name, and puts a file: PORT HOME FOLDER."""

import sys

import paramiko
from paramiko_proxy import connect

port, home, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
client = connect(port, home)
channel = client.get_transport().open_session()
channel.invoke_subsystem("sftp\0")
sftp = paramiko.SFTPClient(channel)
try:
    sftp.put(f"{folder}/file", f"{folder}/put", confirm=False)
    print("put")
except PermissionError as error:
    print(error.strerror)
client.close()
