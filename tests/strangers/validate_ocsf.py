"""Holds OCSF events (one JSON object a line on standard input) against the schema of their own version, compiled by its
publishers, and against an independent implementation's models where it has that version."""

import copy
import importlib
import importlib.resources
import json
import sys

from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from pydantic.errors import PydanticUserError

# The versions that pydantic-ocsf has models for.
MODELS = ("1.4.0", "1.5.0", "1.6.0", "1.7.0")

schemas = {}
validators = {}
models = {}


def schema(version):
    if version not in schemas:
        schemas[version] = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=version))
    return schemas[version]


def validator(version, class_uid, profiles):
    key = (version, class_uid, tuple(profiles))
    if key not in validators:
        name = "base_event" if class_uid == 0 else schema(version).lookup_class_name_from_uid(class_uid)
        validators[key] = Draft202012Validator(schema(version).get_class_schema(name, list(profiles)))
        models[key] = model(version, name)
    return validators[key], models[key]


def model(version, name):
    if version not in MODELS:
        return None
    events = importlib.import_module(f"ocsf.v{version.replace('.', '_')}.events")
    # One class's name has a typing error in the schema, which the models repeat in their own way.
    wanted = name.replace("_", "")
    found = [n for n in dir(events) if n.lower() in (wanted, wanted.replace("actvity", "activity"))]
    return getattr(events, found[0]) if found else None


def without_device_types(value):
    """The models have lost the kinds of devices that the schema knows, and take only 0 and 99."""
    if isinstance(value, list):
        return [without_device_types(item) for item in value]
    if not isinstance(value, dict):
        return value
    inner = {key: without_device_types(item) for key, item in value.items()}
    device = inner.get("device")
    if isinstance(device, dict) and "type_id" in device:
        device["type_id"] = 99
    return inner


def complaints(event):
    """What is wrong with an event; an empty list if nothing is."""
    try:
        version, profiles = event["metadata"]["version"], event["metadata"]["profiles"]
        validate, stranger = validator(version, event["class_uid"], profiles)
    except (KeyError, TypeError, ValueError) as error:
        return [repr(error)]
    found = [f"{'/'.join(map(str, e.path))}: {e.message[:200]}" for e in validate.iter_errors(event)]
    if event.get("type_uid") != event["class_uid"] * 100 + event.get("activity_id", -1):
        found.append("type_uid isn't class_uid * 100 + activity_id")
    if event.get("category_uid") != event["class_uid"] // 1000:
        found.append("category_uid isn't the class's")
    if stranger and not found:
        try:
            stranger.model_validate(without_device_types(event))
        except PydanticUserError:
            # A model that its package can't put together.
            models[version, event["class_uid"], tuple(profiles)] = None
        except ValueError as error:
            found.append(f"models of {version}: {error}")
    return found


events = [json.loads(line) for line in sys.stdin.buffer.read().split(b"\n") if line]
wrong = 0
said = set()
for event in events:
    found = complaints(event)
    wrong += bool(found)
    for complaint in found:
        line = f"{event['metadata'].get('version')} class {event['class_uid']}: {complaint}"
        if line not in said and len(said) < 100:
            print(f"{event['metadata'].get('event_code')}: {line}", file=sys.stderr)
        said.add(line)

# A validator that takes everything would prove nothing.
broken = []
for change in (
    {"class_uid": 4242},
    {"activity_id": 77},
    {"severity_id": 9},
    {"time": "yesterday"},
    {"metadata": {"version": "1.7.0"}},
    {"user": {"nickname": "al"}},
    {"src_endpoint": {"ip": "localhost"}},
    {"nonsense": 1},
):
    broken.append({**copy.deepcopy(events[0]), **change})
refused = sum(bool(complaints(event)) for event in broken)
held = sum(1 for m in models.values() if m)
print(f"{len(events)} events, {wrong} wrong; {refused} of {len(broken)} broken ones are refused; {held} classes by models too")
sys.exit(1 if wrong else 0)
