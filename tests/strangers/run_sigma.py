"""Runs Sigma rules on documents. The argument is a pipeline's file. Standard input has a JSON object a line: in the first one which
fields of the documents are `flattened`, and which may have several values; then each time a rule's file, whether it is for ES|QL,
whether it should fire, and the documents. pySigma turns the rule into SQL, and SQLite runs it on a table of the documents; and it is
turned into what Elasticsearch and OpenSearch take, which must at least succeed, and be what they can answer."""

import itertools
import json
import re
import sqlite3
import sys

from sigma.backends.elasticsearch import ESQLBackend, LuceneBackend
from sigma.backends.opensearch import OpensearchLuceneBackend
from sigma.backends.sqlite import sqliteBackend
from sigma.collection import SigmaCollection
from sigma.correlations import SigmaCorrelationRule
from sigma.processing.pipeline import ProcessingPipeline
from sigma.rule import SigmaDetection

INDEX = "logs-custody.events-*"
# What Lucene's language can ask of a field below a flattened one, beside what its value is.
BELOW_FLATTENED = {"SigmaStartswithModifier", "SigmaExistsModifier"}


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


def named(detection):
    """The fields of a detection, and what is asked of each."""
    for item in detection.detection_items:
        if isinstance(item, SigmaDetection):
            yield from named(item)
        else:
            yield item.field, {modifier.__name__ for modifier in item.modifiers}


def languages(file, text, esql, correlates, fields):
    """Turns a rule into each language that it is for; says how many that are."""
    asked = [
        one
        for rule in SigmaCollection.from_yaml(text).rules
        if not isinstance(rule, SigmaCorrelationRule)
        for detection in rule.detection.detections.values()
        for one in named(detection)
    ]
    below = [one for one in asked if any(one[0].startswith(f"{root}.") for root in fields["flattened"])]
    hidden = {name for name, _ in below} | {name for name, _ in asked if name in fields["several"]}
    assert esql != bool(hidden), f"{file}: {'' if esql else 'not '}for ES|QL, and names {hidden or 'nothing else'}"
    assert esql or not correlates, f"{file}: nothing but ES|QL counts"
    for name, modifiers in below:
        assert modifiers <= BELOW_FLATTENED, f"{file}: {name} is below a flattened field: {modifiers}"

    def convert(backend):
        with open(sys.argv[1]) as pipeline:
            converts = backend(ProcessingPipeline.from_yaml(pipeline.read()))
        (query,) = converts.convert(SigmaCollection.from_yaml(text))
        return query

    done = 0
    if esql:
        assert convert(ESQLBackend).startswith(f"from {INDEX} "), f"{file}: it asks another index"
        done += 1
    if not correlates:
        done += len([convert(LuceneBackend), convert(OpensearchLuceneBackend)])
    return done


ids = {}
right = wrong = converted = 0
first, *lines = [line for line in sys.stdin.buffer.read().split(b"\n") if line]
fields = json.loads(first)
for line in lines:
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
    converted += languages(case["rule"], text, case["esql"], correlation, fields)
print(f"{right} right, {wrong} wrong, {converted} converted")
sys.exit(1 if wrong else 0)
