"""paramiko as a client of the proxy: PORT HOME."""

import hashlib
import sys
import threading

from paramiko_proxy import connect

port, home = int(sys.argv[1]), sys.argv[2]
client = connect(port, home)

_, out, err = client.exec_command("echo out; echo err >&2; exit 42", timeout=20)
print("exec", out.read().decode().strip(), err.read().decode().strip(), out.channel.recv_exit_status())

data = bytes(range(256)) * 7813
data = data[:2_000_000]
stdin, out, _ = client.exec_command("cat", timeout=60)
back = bytearray()
reader = threading.Thread(target=lambda: back.extend(out.read()))
reader.start()
stdin.write(data)
stdin.channel.shutdown_write()
reader.join()
assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()
print("bytes", len(back))

channels = [client.exec_command(f"read x; echo {n}", timeout=20) for n in range(8)]
for stdin, _, _ in channels:
    stdin.write("go\n")
    stdin.flush()
print("channels", len({out.read().decode().strip() for _, out, _ in channels}))

channel = client.get_transport().open_session()
channel.get_pty("xterm", 80, 24)
channel.exec_command("read x; stty size")
channel.resize_pty(111, 33)
channel.sendall(b"\n")
shown = b""
while part := channel.recv(4096):
    shown += part
print("terminal", *shown.decode().split()[-2:])

try:
    client.open_sftp()
    print("sftp taken")
except Exception:  # paramiko has no one type for it
    print("sftp refused")
client.close()
