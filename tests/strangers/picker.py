"""A person who picks from a list at a terminal: KEYS COMMAND…, where KEYS are words: down, up, enter, escape, interrupt,
or what is typed. Prints what the command said of it, whether the cursor is to be seen, and how it ended."""

import os
import re
import sys
import termios
import time

import pexpect

KEYS = {"down": "\x1b[B", "up": "\x1b[A", "enter": "\r", "escape": "\x1b", "interrupt": "\x03"}

os.environ["TERM"] = "xterm"
child = pexpect.spawn(sys.argv[2], sys.argv[3:], dimensions=(24, 80), timeout=30, encoding="utf-8")


def waits_for_a_key():
    return not termios.tcgetattr(child.child_fd)[3] & termios.ICANON


shown = ""
for word in sys.argv[1].split():
    for key in [KEYS[word]] if word in KEYS else word:
        # It draws the list anew after each key.
        child.expect("Node")
        shown += child.before
        until = time.monotonic() + 30
        while not waits_for_a_key():
            assert time.monotonic() < until, "the list doesn't wait for a key"
            time.sleep(0.005)
        child.send(key)
child.expect(pexpect.EOF)
shown += child.before
child.close()
for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", shown).splitlines():
    if line.startswith(("on ", "custody: ")):
        print(line)
print("cursor", "hidden" if shown.rfind("\x1b[?25l") > shown.rfind("\x1b[?25h") else "shown")
print("ended", child.exitstatus)
