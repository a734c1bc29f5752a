"""Holds CEF lines (standard input) against the dictionary of a CEF library: each line is taken apart, the library is given
its parts and writes a line of its own, and both say the same."""

import re
import sys

from cefevent import CEFEvent
from cefevent.extensions import extension_dictionary

# The standard has it, the library's dictionary not.
extension_dictionary["outcome"] = {"full_name": "eventOutcome", "data_type": ["String"], "length": 63}

PREFIXES = ("deviceVendor", "deviceProduct", "deviceVersion", "signatureId", "name", "severity")
ESCAPES = {"n": "\n", "r": "\r"}


def plain(text):
    return re.sub(r"\\(.)", lambda m: ESCAPES.get(m[1], m[1]), text)


def parts(line):
    version, *header, extension = re.split(r"(?<!\\)(?:\\\\)*\|", line, maxsplit=7)
    keys = list(re.finditer(r"(?:^|(?<= ))(\w+)=", extension))
    ends = [key.start() - 1 for key in keys[1:]] + [len(extension)]
    fields = {key[1]: plain(extension[key.end() : end]) for key, end in zip(keys, ends)}
    return version, [plain(part) for part in header], fields


def complaints(line):
    version, header, fields = parts(line)
    if version != "CEF:0" or len(header) != len(PREFIXES):
        return ["no CEF header"]
    event = CEFEvent(strict=True)
    try:
        for prefix, value in zip(PREFIXES, header):
            event.set_prefix(prefix, int(value) if prefix == "severity" else value)
        for key, value in fields.items():
            kinds = extension_dictionary[key]["data_type"]
            name = extension_dictionary[key]["full_name"]
            event.set_field(name, int(value) if {"Integer", "Long"} & set(kinds) else value)
    except (KeyError, ValueError) as error:
        return [repr(error)]
    theirs = parts(event.build_cef())
    same = theirs[1] == header and {k: str(v) for k, v in theirs[2].items()} == {k: v.strip() for k, v in fields.items()}
    return [] if same else [f"the library writes {theirs}, we {(version, header, fields)}"]


lines = [line for line in sys.stdin.buffer.read().decode().split("\n") if line]
wrong = 0
for line in lines:
    found = complaints(line)
    if found:
        wrong += 1
        if wrong < 20:
            print(f"{line[:200]}: {'; '.join(found)}", file=sys.stderr)
broken = [
    lines[0].replace("CEF:0", "CEF:x"),
    re.sub(r"src=\S+", "src=localhost", lines[1]) + " src=localhost",
    lines[0] + " spt=70000",
    lines[0] + " nickname=al",
    re.sub(r"\|[0-9]+\|", "|11|", lines[0]),
]
refused = sum(bool(complaints(line)) for line in broken)
print(f"{len(lines)} lines, {wrong} wrong; {refused} of {len(broken)} broken ones are refused")
sys.exit(1 if wrong else 0)
