#!/usr/bin/env python3
"""Checks what `custody prove` wrote with nothing but Python's standard library and openssl 3.

    verify.py FOLDER VERIFIER-KEY
The key is an argument and not read from the folder: whoever made up the folder would have put his own into it.
"""
import base64, hashlib, json, pathlib, subprocess, sys, tempfile, uuid

def sha256(*parts): return hashlib.sha256(b"".join(parts)).digest()
def check(holds, why): holds or sys.exit(f"NOT proved: {why}")

def ed25519(public, signature, message):
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder, name) for name in ("key", "signature", "message")]
        for file, content in zip(files, (bytes.fromhex("302a300506032b6570032100") + public, signature, message)):
            file.write_bytes(content)
        command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER", "-inkey", files[0]]
        return subprocess.run([*command, "-sigfile", files[1], "-in", files[2]], capture_output=True).returncode == 0

def signed_checkpoint(note, key):  # c2sp.org/signed-note, c2sp.org/tlog-checkpoint
    name, key_id, public = key.strip().split("+", 2)
    public = base64.b64decode(public)
    check(public[0] == 1 and sha256(f"{name}\n".encode(), public).hex()[:8] == key_id, "that is no verifier key")
    text, _, signatures = note.rpartition("\n\n")
    parts = [line.split(" ") for line in signatures.splitlines()]
    found = [base64.b64decode(last) for _, signer, last in parts if signer == name]
    found = [signature[4:] for signature in found if signature[:4].hex() == key_id]
    check(found and all(ed25519(public[1:], one, f"{text}\n".encode()) for one in found), f"not signed by {name}")
    origin, size, root = text.split("\n")[:3]
    check(origin == name, f"the checkpoint is of another log: {origin}")
    return int(size), base64.b64decode(root)

def root_of(node, at, size, path):  # RFC 9162, section 2.1.3.2
    last = size - 1
    check(at <= last, "the event is beyond the checkpoint")
    for sibling in path:
        check(last > 0, "the path is too long")
        if at & 1 or at == last:
            node = sha256(b"\1", sibling, node)
            while at and not at & 1: at, last = at >> 1, last >> 1
        else: node = sha256(b"\1", node, sibling)
        at, last = at >> 1, last >> 1
    return node if last == 0 else None

def read_recording(path):  # its SHA-256, and its first bytes; docs/design/recording.md
    whole, first = hashlib.sha256(), b""
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            first = first or piece[:28]
            whole.update(piece)
    return whole.hexdigest(), first

def verify(folder, key):
    note = (folder / "checkpoint").read_text()
    size, root = signed_checkpoint(note, key)
    files = sorted(folder.glob("[0-9]*.json"), key=lambda file: int(file.stem))
    check(files and len(files) == len(list(folder.glob("[0-9]*.tlog-proof"))), "an event or a proof is missing")
    for file in files:  # c2sp.org/tlog-proof
        head, _, checkpoint = file.with_suffix(".tlog-proof").read_text().partition("\n\n")
        check(checkpoint == note, f"the proof of {file.name} is for another checkpoint")
        check(head.split("\n")[:2] == ["c2sp.org/tlog-proof@v1", f"index {file.stem}"], f"no proof of {file.name}")
        path = [base64.b64decode(line) for line in head.split("\n")[2:]]
        leaf = sha256(b"\0", file.read_bytes())
        check(root_of(leaf, int(file.stem), size, path) == root, f"{file.name} isn't event {file.stem} of this log")
    events = [json.loads(file.read_bytes()) for file in files]
    sessions = {str(event["session"]) if "session" in event else "none" for event in events}
    check(len(sessions) == 1, "its events aren't all of one session")
    session = uuid.UUID(sessions.pop())
    sealed = {event["data"]["sha256"] for event in events if event["type"] == "recording.sealed"}
    sums = set()
    if (folder / "recording").exists():
        whole, first = read_recording(folder / "recording")
        sums.add(whole)
    check(sums == sealed, "the recording is missing, or isn't the one that was sealed")
    check(not sums or first == b"CUSTREC\n" + first[8:12] + session.bytes, "the recording is of another session")
    print(f"proved: {len(files)} events of the session {session}, {events[0]['type']} to {events[-1]['type']},"
          f" of the {size} that were signed")

if __name__ == "__main__":
    check(len(sys.argv) == 3, "usage: verify.py FOLDER VERIFIER-KEY")
    try: verify(pathlib.Path(sys.argv[1]), sys.argv[2])
    except (ValueError, KeyError, TypeError, IndexError, OSError) as error: check(False, error)
