"""Reads the Parquet files below a folder with DuckDB, as an analyst would, and holds each class against the schema that OCSF
publishes. Prints one JSON object: the events of each class, and what is wrong."""

import json
import pathlib
import sys

import duckdb
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

root = pathlib.Path(sys.argv[1])
connection = duckdb.connect()
schemas = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=sys.argv[2]))


def rows_of(query):
    return connection.execute(query).fetchall()


wrong = []
classes = {}
events = {}
for folder in sorted((root / "ext").iterdir()):
    uid = int(folder.name.rsplit("-", 1)[1])
    name = "base_event" if uid == 0 else schemas.lookup_class_name_from_uid(uid)
    required = schemas.get_class_schema(name, ["host", "security_control"])["required"]
    files = f"{folder}/**/*.parquet"
    table = f"read_parquet('{files}', hive_partitioning = true)"
    columns = {row[0]: row[1] for row in rows_of(f"describe select * from {table}")}
    for attribute in required:
        if attribute not in columns:
            wrong.append(f"{name} requires {attribute}, and there is no such column")
            continue
        missing = rows_of(f"select count(*) from {table} where {attribute} is null")[0][0]
        if missing:
            wrong.append(f"{name}: {missing} events without {attribute}, which is required")
    others = rows_of(f"select count(*) from {table} where class_uid <> {uid} or type_uid // 100 <> {uid}")[0][0]
    if others:
        wrong.append(f"{name}: {others} events of other classes")
    days = rows_of(
        f"select count(*) from {table} where strftime(make_timestamp(time * 1000), '%Y%m%d') <> \"eventDay\"::varchar"
    )[0][0]
    if days:
        wrong.append(f"{name}: {days} events in another day's folder")
    codecs = rows_of(f"select distinct compression from parquet_metadata('{files}')")
    if codecs != [("ZSTD",)]:
        wrong.append(f"{name}: compressed by {codecs}")
    for path in folder.rglob("*.parquet"):
        times = [row[0] for row in rows_of(f"select time from '{path}'")]
        if times != sorted(times):
            wrong.append(f"{path}: its rows aren't in the order of time")
    rows = rows_of(
        f"""select (unmapped->>'$.custody.log.index')::bigint, unmapped->>'$.custody.log.leaf', raw_data,
                   metadata.event_code, metadata.version from {table}"""
    )
    classes[name] = len(rows)
    for index, leaf, raw, code, version in rows:
        if version != sys.argv[2]:
            wrong.append(f"event {index} is of OCSF {version}")
        events.setdefault(index, []).append({"leaf": leaf, "raw": raw, "type": code})
json.dump({"classes": classes, "events": events, "wrong": wrong}, sys.stdout)
