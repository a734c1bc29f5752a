"""paramiko renews the keys of a connection to the proxy while a stream comes and another channel goes to and fro: PORT HOME.

No channel closes meanwhile: see paramiko_matrix.py.
"""

import sys
import threading

from paramiko_proxy import connect

port, home = int(sys.argv[1]), sys.argv[2]
client = connect(port, home)
transport = client.get_transport()

stream = transport.open_session()
stream.exec_command("while echo abcdefgh; do :; done")
came = threading.Semaphore(0)
broken = []


def read():
    rest = b""
    while part := stream.recv(65536):
        *lines, rest = (rest + part).split(b"\n")
        broken.extend(line for line in lines if line != b"abcdefgh")
        came.release()


reader = threading.Thread(target=read, daemon=True)
reader.start()

talk = transport.open_session()
talk.exec_command("cat")
session, hashes = transport.session_id, {transport.H}
for n in range(3):
    transport.renegotiate_keys()
    hashes.add(transport.H)
    talk.sendall(f"{n}\n".encode())
    assert talk.recv(100) == f"{n}\n".encode()
    # What is in the way by now came under the old keys: some more.
    for _ in range(20):
        assert came.acquire(timeout=30)
assert transport.session_id == session
assert not broken, broken[:3]
print("exchanges", len(hashes))
client.close()
