"""Checks that what nodes' agents said is signed by the nodes' own keys.

Reads the log's entries from standard input, a line of JSON each, in their order, as `custody events search --json` and the
API (`Accept: application/x-ndjson`) give them. Needs Python's `cryptography`. Says what it found, and ends with 1 when an
event isn't signed or a signature is wrong.
"""

import hashlib
import json
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def canonical(event):
    """RFC 8785, for events: their keys are ASCII, their numbers whole."""
    return json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def root(leaves):
    """RFC 6962, 2.1."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\1" + root(leaves[:split]) + root(leaves[split:])).digest()


keys, waiting, signed, batches, wrong = {}, {}, 0, 0, 0
for line in sys.stdin:
    entry = json.loads(line)
    event = entry.get("event", entry)
    data, producer = event["data"], event["producer"]
    if event["type"] == "node.enrolled" and producer["kind"] == "log":
        keys["node/" + data["name"]] = Ed25519PublicKey.from_public_bytes(bytes.fromhex(data["key"]))
    if producer["kind"] != "node":
        continue
    mine = waiting.setdefault((producer["id"], producer["boot"]), {})
    if event["type"] != "producer.signed":
        mine[producer["seq"]] = canonical(event)
        continue
    numbers = sorted(seq for seq in mine if data["first"] <= seq <= data["last"])
    covered = [mine.pop(seq) for seq in numbers]
    statement = "custody.signed/v1\n{id}\n{boot}\n{first} {last}\n{root}\n".format(**{**producer, **data})
    try:
        if not covered or root(covered).hex() != data["root"]:
            raise InvalidSignature
        keys[producer["id"]].verify(bytes.fromhex(data["signature"]), statement.encode())
        signed, batches = signed + len(covered), batches + 1
    except (InvalidSignature, KeyError):
        wrong += 1
unsigned = sum(len(events) for events in waiting.values())
print(f"{signed} events in {batches} batches are signed by their nodes; {unsigned} are not; {wrong} signatures are wrong")
sys.exit(1 if wrong or unsigned or not signed else 0)
