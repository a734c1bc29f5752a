"""Reads Grafana dashboards by Grafana's own types (grafana-foundation-sdk) and writes them again: what is lost or different
then, no Grafana knows. Arguments are files; it prints how many it read, and complains of the rest."""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard


def differences(given, again, place=""):
    """What of `given` isn't in `again`; defaults that were added are no difference, nor is what is null."""
    if isinstance(given, dict) and isinstance(again, dict):
        for key, value in given.items():
            if value is None:
                continue
            if key in again:
                yield from differences(value, again[key], f"{place}.{key}")
            else:
                yield f"{place}.{key} isn't known"
    elif isinstance(given, list) and isinstance(again, list) and len(given) == len(again):
        for number, (one, other) in enumerate(zip(given, again)):
            yield from differences(one, other, f"{place}[{number}]")
    elif given != again:
        yield f"{place} is {given!r}, and was read as {again!r}"


register_default_plugins()
wrong = []
for file in sys.argv[1:]:
    with open(file) as text:
        given = json.load(text)
    dashboard = Dashboard.from_json(given)
    for panel in dashboard.panels:
        # A type of panel that isn't known keeps its options as they are, and would show no difference.
        if isinstance(panel.options, dict) or any(isinstance(target, dict) for target in panel.targets):
            wrong.append(f"{file}: the panel {panel.title} is of no known type")
    again = json.loads(json.dumps(dashboard, cls=JSONEncoder))
    wrong += [f"{file}: {difference}" for difference in differences(given, again)]
print("\n".join([*wrong, f"{len(sys.argv) - 1} read, {len(wrong)} wrong"]))
