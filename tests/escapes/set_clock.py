"""Sets the machine's clock to what it shows, in one of two ways: `set_clock.py MARK settime|adjust`. Prints MARK when it could."""

import ctypes
import sys
import time

ADJ_TICK = 0x4000

mark, how = sys.argv[1:]
if how == "settime":
    time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_REALTIME))
else:
    adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    # struct timex: its first number says what is set; nothing at first.
    timex = ctypes.create_string_buffer(512)
    adjtimex(timex)
    timex[0:4] = ADJ_TICK.to_bytes(4, sys.byteorder)
    if adjtimex(timex) < 0:
        sys.exit(f"adjtimex: {ctypes.get_errno()}")
print(mark)
