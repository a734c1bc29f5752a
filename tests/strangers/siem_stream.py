"""A reader of server-sent events (the WHATWG's EventSource, in short) that comes again with Last-Event-ID.

ARGS: URL CA TOKEN-FILE OUT COUNT. Appends the index of each event to OUT as it comes, until there are COUNT.
"""

import json
import pathlib
import sys
import time

import requests


def lines(answer):
    """A stream's lines as they come. Events hold U+2028 and U+0085 as they are, which iter_lines() takes for line ends."""
    rest = b""
    for chunk in answer.iter_content(chunk_size=None):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode()


url, ca, token_file, out, count = sys.argv[1:6]
headers = {
    "Authorization": "Bearer " + pathlib.Path(token_file).read_text().strip(),
    "Accept": "text/event-stream",
}
seen, last, wait = 0, None, 0.05
session = requests.Session()
session.verify = ca
session.trust_env = False
deadline = time.monotonic() + 120
with open(out, "a", encoding="utf-8") as sink:
    while seen < int(count) and time.monotonic() < deadline:
        if last is not None:
            headers["Last-Event-ID"] = last
        try:
            with session.get(url, headers=headers, stream=True, timeout=20) as answer:
                if answer.status_code in (429, 503):
                    time.sleep(0.2)
                    continue
                if answer.status_code != 200:
                    sys.exit(f"{answer.status_code}: {answer.text}")
                name, data, identity = "message", [], None
                for line in lines(answer):
                    if line == "":
                        # Only a whole event counts, with the blank line behind it.
                        if data and name == "message":
                            sink.write(f"{json.loads(''.join(data))['index']}\n")
                            sink.flush()
                            seen += 1
                            last = identity
                        name, data, identity = "message", [], None
                        if seen >= int(count):
                            break
                    elif line.startswith("data: "):
                        data.append(line[6:])
                    elif line.startswith("id: "):
                        identity = line[4:]
                    elif line.startswith("event: "):
                        name = line[7:]
        except requests.exceptions.RequestException:
            pass
        time.sleep(wait)
if seen < int(count):
    sys.exit(f"only {seen} events came")
print(seen)
