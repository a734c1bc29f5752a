"""Runs Sigma rules on documents. Standard input has a JSON object a line: a rule's file, whether it should fire, and the
documents. pySigma turns the rule into SQL, and SQLite runs it on a table of the documents; and it is turned into what
Elasticsearch and OpenSearch take, which must at least succeed."""

import itertools
import json
import re
import sqlite3
import sys

from sigma.backends.elasticsearch import ESQLBackend
from sigma.backends.opensearch import OpensearchLuceneBackend
from sigma.backends.sqlite import sqliteBackend
from sigma.collection import SigmaCollection
from sigma.correlations import SigmaCorrelationRule


def flat(value, name=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value


def rows(document, wanted):
    """A row for each way to choose one item of each list that the rule asks for, as an index matches any of them."""
    fields = {name: value for name, value in flat(document) if name in wanted}
    choices = [value if isinstance(value, list) else [value] for value in fields.values()]
    return [dict(zip(fields, choice)) for choice in itertools.product(*choices)]


def fires(sql, documents):
    columns = sorted(set(re.findall("`([^`]+)`", sql)) - {"rowid"})
    table = sqlite3.connect(":memory:")
    quoted = ", ".join(f"`{column}`" for column in ["timestamp", *columns])
    table.execute(f"CREATE TABLE logs ({quoted})")
    for document in documents:
        for row in rows(document, columns):
            values = [document["@timestamp"], *(row.get(column) for column in columns)]
            table.execute(f"INSERT INTO logs VALUES ({', '.join('?' * len(values))})", values)
    return bool(table.execute(sql).fetchall())


ids = {}
right = wrong = converted = 0
for line in sys.stdin.buffer.read().split(b"\n"):
    if not line:
        continue
    case = json.loads(line)
    with open(case["rule"]) as file:
        text = file.read()
    for rule in (rules := SigmaCollection.from_yaml(text)).rules:
        assert not rule.errors, f"{case['rule']}: {rule.errors}"
        assert rule.level and rule.description and rule.author and rule.date, f"{case['rule']}: not complete"
        assert ids.setdefault(rule.id, (case["rule"], rule.title)) == (case["rule"], rule.title), "an id is used twice"
    correlation = any(isinstance(rule, SigmaCorrelationRule) for rule in rules.rules)
    (sql,) = sqliteBackend().convert(rules)
    # What correlates looks at all the documents, any other rule at each.
    each = [case["documents"]] if correlation else [[document] for document in case["documents"]]
    for documents in each:
        if fires(sql, documents) == case["fires"]:
            right += 1
        else:
            wrong += 1
            print(f"{case['rule']} should {'' if case['fires'] else 'not '}fire: {sql[:300]}", file=sys.stderr)
    converted += len(ESQLBackend().convert(SigmaCollection.from_yaml(text)))
    if not correlation:
        converted += len(OpensearchLuceneBackend().convert(SigmaCollection.from_yaml(text)))
print(f"{right} right, {wrong} wrong, {converted} converted")
sys.exit(1 if wrong else 0)
