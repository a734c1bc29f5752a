"""Opens a file or connects by io_uring: `io_uring.py MARK open PATH RING_FLAGS ENTRY_FLAGS`, or `… connect ADDRESS:PORT …`.

The ring's flag 2 (SQPOLL) has a thread of the kernel do it, the entry's flag 16 (ASYNC) a worker. Prints MARK when it was
done. Numbers are those of linux/io_uring.h.
"""

import ctypes
import errno
import mmap
import os
import socket
import struct
import sys
import time

SETUP, ENTER = 425, 426
SQPOLL, OFFSET_SQES = 2, 0x10000000
GETEVENTS, WAKEUP = 1, 2
CONNECT, OPENAT = 16, 18
AT_FDCWD = -100

mark, what, where, ring_flags, entry_flags = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
libc = ctypes.CDLL(None, use_errno=True)
params = bytearray(120)
struct.pack_into("I", params, 8, ring_flags)
ring_fd = libc.syscall(SETUP, 8, (ctypes.c_char * 120).from_buffer(params))
if ring_fd < 0:
    sys.exit("unsupported: " + os.strerror(ctypes.get_errno()))
# Offsets within the ring: head, tail, ring_mask, ring_entries, flags, dropped, array; and of the completions.
sq, cq = struct.unpack_from("7I", params, 40), struct.unpack_from("6I", params, 80)
ring = mmap.mmap(ring_fd, 4096, mmap.MAP_SHARED, offset=0)
entries = mmap.mmap(ring_fd, 4096, mmap.MAP_SHARED, offset=OFFSET_SQES)

if what == "open":
    path = ctypes.create_string_buffer(os.fsencode(where))
    operation = (OPENAT, entry_flags, 0, AT_FDCWD, 0, ctypes.addressof(path), 0, os.O_RDONLY)
else:
    host, port = where.rsplit(":", 1)
    address = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", int(port), socket.inet_aton(host))
    buffer = ctypes.create_string_buffer(address)
    connection = socket.socket()
    operation = (CONNECT, entry_flags, 0, connection.fileno(), len(address), ctypes.addressof(buffer), 0, 0)
struct.pack_into("BBHiQQII", entries, 0, *operation)
struct.pack_into("I", ring, sq[6], 0)
struct.pack_into("I", ring, sq[1], 1)
polls = ring_flags & SQPOLL
libc.syscall(ENTER, ring_fd, 1, 0 if polls else 1, GETEVENTS | (WAKEUP if polls else 0), None, 0)
while struct.unpack_from("I", ring, cq[1])[0] == struct.unpack_from("I", ring, cq[0])[0]:
    time.sleep(0.01)
result = struct.unpack_from("i", ring, cq[5] + 8)[0]
if result < 0:
    sys.exit(errno.errorcode[-result])
print(mark)
