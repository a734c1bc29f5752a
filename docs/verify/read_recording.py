#!/usr/bin/env python3
"""Reads a Custody session recording with nothing but Python's standard library (docs/design/recording.md).

    read_recording.py FILE            lists the frames
    read_recording.py FILE CHANNEL    writes that channel's output as it was
Prints on standard error the length and head of the last sound block: what `recording.anchored` holds.
"""
import hashlib, struct, sys, uuid

def lz4_block(data, size):
    out, at = bytearray(), 0
    def length(count):
        nonlocal at
        more = count == 15
        while more:
            count += data[at]; more = data[at] == 255; at += 1
        return count
    while at < len(data):
        token = data[at]; at += 1
        literals = length(token >> 4)
        out += data[at:at + literals]; at += literals
        if at >= len(data): break
        offset = data[at] | data[at + 1] << 8; at += 2
        for _ in range(length(token & 15) + 4): out.append(out[-offset])
        if len(out) > size: raise ValueError("longer than it promises")
    if len(out) != size: raise ValueError("shorter than it promises")
    return bytes(out)

def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift; shift += 7; at += 1
        if data[at - 1] < 128: return value, at

def blocks(file):
    header = file.read(40)
    magic, version, level, _, session, started, _ = struct.unpack("<8sHBB16sQI", header)
    if (magic, version) != (b"CUSTREC\n", 1): sys.exit("not a recording of version 1")
    print(f"session {uuid.UUID(bytes=session)} level {level} started {started} ns", file=sys.stderr)
    head, end = hashlib.sha256(header).digest(), 40
    while len(block_head := file.read(48)) == 48:
        _, stored, raw, codec, _, previous = struct.unpack("<IIIB3s32s", block_head)
        payload = file.read(stored)
        if len(payload) < stored: break
        if previous != head: sys.exit(f"the chain is broken at byte {end}")
        head, end = hashlib.sha256(block_head + payload).digest(), end + 48 + stored
        yield payload if codec == 0 else lz4_block(payload, raw)
    print(f"bytes {end} head {head.hex()}", file=sys.stderr)

def frames(block):
    at = 0
    while at < len(block):
        time, at = varint(block, at)
        channel, at = varint(block, at)
        direction, kind = block[at], block[at + 1]
        length, at = varint(block, at + 2)
        yield time, channel, direction, kind, block[at:at + length]
        at += length

KINDS = "? data terminal resize shell command subsystem exit exit-signal truncated note end sealed-key sealed".split()
if __name__ == "__main__":
    wanted = int(sys.argv[2]) if len(sys.argv) > 2 else None
    for block in blocks(open(sys.argv[1], "rb")):
        for time, channel, direction, kind, body in frames(block):
            if wanted is None:
                name = KINDS[kind] if kind < len(KINDS) else str(kind)
                print(f"{time / 1e9:.6f} {channel} {'out err in control'.split()[direction]} {name} {body!r}")
            elif (channel, kind) == (wanted, 1) and direction < 2:
                sys.stdout.buffer.write(body)
