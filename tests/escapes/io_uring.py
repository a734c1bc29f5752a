"""Does something by io_uring: `io_uring.py MARK open PATH RING_FLAGS ENTRY_FLAGS`, or `… connect ADDRESS:PORT …`, or `… socket FAMILY …`,
or `… memory PID …`, which writes to a process's memory.

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
CONNECT, OPENAT, SOCKET = 16, 18, 45
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

if what in ("open", "memory"):
    path, mode = (where, os.O_RDONLY) if what == "open" else (f"/proc/{where}/mem", os.O_RDWR)
    path = ctypes.create_string_buffer(os.fsencode(path))
    operation = (OPENAT, entry_flags, 0, AT_FDCWD, 0, ctypes.addressof(path), 0, mode)
elif what == "socket":
    operation = (SOCKET, entry_flags, 0, int(where), socket.SOCK_RAW, 0, 0, 0)
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
if result == -errno.EINVAL and what == "socket":
    sys.exit("unsupported: a kernel before 5.19")
if result < 0:
    sys.exit(errno.errorcode[-result])
if what == "memory":
    with open(f"/proc/{where}/maps") as maps:
        line = next(line for line in maps if "[stack]" in line)
    os.pwrite(result, b"\0", int(line.split("-")[0], 16))
print(mark)
