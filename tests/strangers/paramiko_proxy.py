"""How paramiko gets through the proxy to web-1, with the key and certificate of a login."""

import paramiko


def connect(port, home):
    key = paramiko.Ed25519Key.from_private_key_file(f"{home}/id")
    key.load_certificate(f"{home}/id-cert.pub")
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect("127.0.0.1", port, "root+web-1", pkey=key, allow_agent=False, look_for_keys=False, timeout=20)
    return client
