"""Has the kernel run a program, as it does for a process that crashes: `crash.py FOLDER`. Prints $MARK when it ran, which is its
argument and nobody else's."""

import os
import signal
import sys
import time

PATTERN = "/proc/sys/kernel/core_pattern"
mark, folder = os.environ["MARK"], sys.argv[1]
program, ran = f"{folder}/c.py", f"{folder}/crashed"
with open(program, "w") as file:
    # It must read what it is given, or the crash waits for it.
    file.write(f"#!{os.path.realpath(sys.executable)}\nimport sys\nsys.stdin.buffer.read()\nopen({ran!r}, 'w').close()\n")
os.chmod(program, 0o700)
with open(PATTERN) as file:
    before = file.read()
with open(PATTERN, "w") as file:
    file.write(f"|{program} {mark}")
try:
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGSEGV)
    os.waitpid(child, 0)
    until = time.monotonic() + 30
    while not os.path.exists(ran) and time.monotonic() < until:
        time.sleep(0.05)
finally:
    with open(PATTERN, "w") as file:
        file.write(before)
if os.path.exists(ran):
    print(mark)
else:
    print("unsupported")
