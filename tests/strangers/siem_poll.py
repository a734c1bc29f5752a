"""A SIEM's collector as they are written: follows Link headers and knows nothing of cursors.

ARGS: URL CA TOKEN-FILE STATE COUNT. Keeps the address of the next page and the events in STATE, so that it can be
killed and started again. Ends when it has COUNT events or more; prints how many.
"""

import json
import pathlib
import sys
import time

import requests

url, ca, token_file, state, count = sys.argv[1:6]
state = pathlib.Path(state)
session = requests.Session()
session.verify = ca
session.trust_env = False
session.headers["Authorization"] = "Bearer " + pathlib.Path(token_file).read_text().strip()
session.headers["Accept"] = "application/x-ndjson"

saved = json.loads(state.read_text()) if state.exists() else {"next": url, "events": []}
deadline = time.monotonic() + 90
while time.monotonic() < deadline:
    try:
        answer = session.get(saved["next"], timeout=30)
    except requests.exceptions.RequestException:
        time.sleep(0.05)
        continue
    if answer.status_code in (429, 503):
        time.sleep(float(answer.headers.get("Retry-After", "0.2")))
        continue
    if answer.status_code != 200:
        sys.exit(f"{answer.status_code}: {answer.text}")
    # Events hold U+2028 and U+0085 as they are, which splitlines() takes for line ends.
    for line in answer.content.split(b"\n"):
        if line:
            saved["events"].append(json.loads(line))
    saved["next"] = answer.links["next"]["url"]
    # Events and place in one step: whoever keeps the one without the other loses or repeats.
    fresh = state.with_suffix(".new")
    fresh.write_text(json.dumps(saved))
    fresh.replace(state)
    events = saved["events"]
    if len(events) >= int(count):
        indexes = [event["index"] for event in events]
        assert indexes == sorted(set(indexes)), "an event came twice, or out of order"
        print(len(events))
        sys.exit(0)
sys.exit(f"only {len(saved['events'])} events came: {[e['event']['type'] for e in saved['events'][-3:]]}")
