"""Prints YAML files as JSON: a list, an item for each file that is named."""

import json
import sys

import yaml

documents = []
for file in sys.argv[1:]:
    with open(file) as text:
        documents.append(yaml.safe_load(text))
# Dates become text.
print(json.dumps(documents, default=str))
