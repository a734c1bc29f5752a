"""A person at a terminal: the command line to ssh is given; prints what each step showed."""

import os
import sys

import pexpect

for name in ("SSH_AUTH_SOCK", "LS_COLORS"):
    os.environ.pop(name, None)
os.environ["TERM"] = "xterm"
os.environ["LC_ALL"] = "C.UTF-8"
shell = pexpect.spawn(sys.argv[1], sys.argv[2:], dimensions=(24, 80), timeout=120, encoding="utf-8")
# A shell without files of its own and with a prompt that nothing else prints, nor an echo of this line.
prompt = "PS1='<prom''pt>'"
shell.sendline(f"exec env -i TERM=xterm PATH=$PATH LC_ALL=C.UTF-8 {prompt} bash --norc --noprofile --noediting -i")
shell.expect("<prompt>")
shell.sendline("stty -echo")
shell.expect("<prompt>")


def ask(line):
    shell.sendline(line)
    shell.expect("<prompt>")
    return shell.before.strip()


print("size", ask("stty size"))
shell.setwinsize(40, 120)
# The new size travels by itself: asked until it has arrived.
for _ in range(100):
    size = ask("sleep 0.05; stty size")
    if size == "40 120":
        break
print("resized", size)
# Said by the very process that is interrupted: between a shell's fork and exec a Ctrl-C can get lost.
shell.sendline("sh -c 'echo started; exec sleep 600'")
shell.expect("started")
shell.sendintr()
shell.expect("<prompt>")
print("interrupted", ask("echo $?"))
print("wide", ask("printf 'ä€𝄞\\n'"))
shell.sendline("exit 5")
shell.expect(pexpect.EOF)
shell.close()
print("ended", shell.exitstatus)
