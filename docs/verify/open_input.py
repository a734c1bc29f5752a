#!/usr/bin/env python3
"""Opens the sealed input of a Custody session recording with an auditor's key (docs/design/recording.md).

    open_input.py FILE KEY CHANNEL    writes what went into that channel as it was
KEY is the private key in PEM, as `openssl genpkey -algorithm X25519` makes it. Needs the package `cryptography`.
"""
import hashlib, sys
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from read_recording import blocks, frames

path, channel = sys.argv[1], int(sys.argv[3])
private = serialization.load_pem_private_key(open(sys.argv[2], "rb").read(), None)
public = private.public_key().public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
auditor, session = hashlib.sha256(public).digest(), open(path, "rb").read(28)[12:]
suite, key = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM), None
for block in blocks(open(path, "rb")):
    for _, number, _, kind, body in frames(block):
        if kind == 12 and body[:32] == auditor:
            key = AESGCM(suite.decrypt(body[32:], private, info=b"custody recording input v1" + session))
        if kind == 13 and number == channel:
            if key is None: sys.exit("it is sealed to other keys than this one")
            nonce = bytes(4) + body[7::-1]
            sys.stdout.buffer.write(key.decrypt(nonce, body[8:], session + number.to_bytes(4, "little")))
