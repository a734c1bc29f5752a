"""Holds each example event against its JSON Schema with an independent validator, and a broken copy of it."""

import copy
import json
import pathlib
import sys

from jsonschema import Draft202012Validator

folder = pathlib.Path(sys.argv[1])
# That of earlier versions' is the same.
envelope = next(path for path in (folder / "envelope.json", folder.parent / "envelope.json") if path.exists())
envelope = Draft202012Validator(json.loads(envelope.read_text()))
valid = refused = 0
for path in sorted((folder / "examples").glob("*.json")):
    schema = json.loads((folder / path.name).read_text())
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    event = json.loads(path.read_bytes())
    validator.validate(event)
    envelope.validate(event)
    valid += 1
    broken = []
    for change in ({"type": "other.thing"}, {"version": event["version"] + 1}, {"producer": {}}, {"time": 7}, {"data": "text"}):
        broken.append({**copy.deepcopy(event), **change})
    broken.append({k: v for k, v in event.items() if k != "actor"})
    refused += all(not validator.is_valid(b) for b in broken)
print(f"{valid} examples are valid, {refused} broken ones are not")
