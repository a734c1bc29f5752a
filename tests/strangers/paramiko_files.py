"""paramiko moves files through the proxy: PORT HOME FOLDER."""

import filecmp
import shutil
import sys
import time

from paramiko_proxy import connect

port, home, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
client = connect(port, home)
sftp = client.open_sftp()
sftp.put(f"{folder}/file", f"{folder}/put")
# As get() with prefetch, but all is asked for before the first answer is looked at: paramiko takes an answer that comes
# before its next question for the last one, and then reads the whole file once more.
size = sftp.stat(f"{folder}/put").st_size
with sftp.open(f"{folder}/put", "rb") as there, open(f"{folder}/got", "wb") as here:
    there.prefetch(size)
    while len(there._prefetch_extents) < -(-size // there.MAX_REQUEST_SIZE):
        time.sleep(0.01)
    shutil.copyfileobj(there, here)
print("equal" if filecmp.cmp(f"{folder}/file", f"{folder}/got", shallow=False) else "different")
try:
    sftp.open(f"{folder}/missing", "r")
except FileNotFoundError:
    print("missing")
print("listed" if "put" in sftp.listdir(folder) else "not listed")
client.close()
