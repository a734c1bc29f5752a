"""Elasticsearch 7 with x-pack, 8 or 9 as far as its documentation says what it takes and answers: for what can't be had as a server.

elasticsearch.py PORT VERSION

Documents are kept by stream, in backing indices that roll over on demand. What the documentation forbids is answered 400.
The first bulk request is answered with one item of each kind; what it was asked is told at /_asked. Before 8.5, no index has a mode.
In 9, whoever asks first which indices a stream has after it has rolled over, asks a node that hasn't heard of the new one.
"""

import http.server
import json
import re
import sys
import threading
import urllib.parse

PORT, VERSION = int(sys.argv[1]), sys.argv[2]
lock = threading.Lock()
templates, components, policies, streams, asked = {}, {}, {}, {}, []
lagging = set()
bulks = 0
HAS_MODES = tuple(map(int, VERSION.split(".")[:2])) >= (8, 5)


def types(mapping):
    """All types of fields in a mapping."""
    for field in mapping.get("properties", {}).values():
        if "type" in field:
            yield field["type"]
        yield from types(field)


def template_of(stream):
    names = [n for n, t in templates.items() if any(
        re.fullmatch(re.escape(p).replace(r"\*", ".*"), stream) for p in t["index_patterns"])]
    return max(names, key=lambda n: templates[n].get("priority", 0), default=None)


def properties_of(stream):
    """The fields that its template maps."""
    properties = {}
    for component in templates[template_of(stream)]["composed_of"]:
        properties.update(components[component]["template"].get("mappings", {}).get("properties", {}))
    return properties


def refuse(kind, reason, status=400):
    return status, {"error": {"type": kind, "reason": reason, "root_cause": []}, "status": status}


def matches(query, source):
    """Of the query language what is needed: bool, term, terms, range, exists."""
    (kind, body), = query.items()
    if kind == "bool":
        must = body.get("must", []) + body.get("filter", [])
        should = body.get("should", [])
        no = body.get("must_not", [])
        as_list = lambda x: x if isinstance(x, list) else [x]
        return (all(matches(q, source) for q in as_list(must))
                and (not should or any(matches(q, source) for q in as_list(should)))
                and not any(matches(q, source) for q in as_list(no)))
    if kind == "match_all":
        return True
    if kind == "exists":
        return lookup(source, body["field"]) is not None
    (field, wanted), = ((k, v) for k, v in body.items() if k != "boost")
    value = lookup(source, field)
    if kind == "term":
        return value == (wanted["value"] if isinstance(wanted, dict) else wanted)
    if kind == "terms":
        return value in wanted
    if kind == "range":
        if value is None:
            return False
        low, high = wanted.get("gte", wanted.get("gt")), wanted.get("lt", wanted.get("lte"))
        return ((low is None or (value > low if "gt" in wanted else value >= low))
                and (high is None or (value <= high if "lte" in wanted else value < high)))
    raise ValueError(f"unknown query {kind}")


def lookup(source, path):
    for part in path.split("."):
        if not isinstance(source, dict) or part not in source:
            return None
        source = source[part]
    return source


def bulk(stream, lines):
    global bulks
    bulks += 1
    items, errors = [], False
    for number, (action, source) in enumerate(zip(lines[::2], lines[1::2])):
        (operation, target), = json.loads(action).items()
        if "_index" in target:
            return refuse("illegal_argument_exception", "explicit index in bulk is not allowed")
        identity, source = target["_id"], json.loads(source)
        if operation != "create":
            return refuse("illegal_argument_exception", "only write ops with an op_type of create are allowed in data streams")
        if stream not in streams:
            return refuse("index_not_found_exception", f"no such index [{stream}]", 404)
        if bulks == 1 and number == 1:
            # There already: somebody's first try.
            streams[stream][-1][identity] = source
        if bulks == 1 and number == 2:
            error = {"type": "document_parsing_exception", "reason": "[1:2] failed to parse field [a]"}
            items.append({"create": {"_index": stream, "_id": identity, "status": 400, "error": error}})
            errors = True
            continue
        if bulks == 1 and number == 3:
            error = {"type": "es_rejected_execution_exception", "reason": "rejected execution of coordinating operation"}
            items.append({"create": {"_index": stream, "_id": identity, "status": 429, "error": error}})
            errors = True
            continue
        if "@timestamp" not in source:
            return refuse("document_parsing_exception", "data stream timestamp field [@timestamp] is missing")
        newest = streams[stream][-1]
        if identity in newest:
            error = {"type": "version_conflict_engine_exception", "reason": "document already exists"}
            items.append({"create": {"_index": stream, "_id": identity, "status": 409, "error": error}})
            errors = True
            continue
        newest[identity] = source
        items.append({"create": {"_index": f".ds-{stream}-{len(streams[stream]):06}", "_id": identity, "status": 201, "result": "created"}})
    return 200, {"took": 1, "errors": errors, "items": items}


def answer(method, path, query, body):
    parts = [urllib.parse.unquote(p) for p in path.strip("/").split("/")]
    if path == "/":
        return 200, {"name": "n1", "cluster_name": "c", "version": {"number": VERSION, "build_flavor": "default"},
                     "tagline": "You Know, for Search"}
    if parts[0] == "_asked":
        return 200, {"asked": asked, "templates": templates, "components": components, "policies": policies,
                     "counts": {s: sum(map(len, b)) for s, b in streams.items()}}
    if parts[0] == "_ilm" and method == "GET":
        known = policies.get(parts[2])
        return (200, {parts[2]: known}) if known else (404, {"status": 404})
    if parts[0] == "_ilm" and method == "PUT":
        policies[parts[2]] = json.loads(body)
        return 200, {"acknowledged": True}
    if parts[0] == "_plugins":
        return refuse("invalid_index_name_exception", "Invalid index name [_plugins], must not start with '_'")
    if parts[0] == "_component_template" and method == "GET":
        known = components.get(parts[1])
        return ((200, {"component_templates": [{"name": parts[1], "component_template": known}]}) if known
                else refuse("resource_not_found_exception", f"component template matching [{parts[1]}] not found", 404))
    if parts[0] == "_component_template" and method == "PUT":
        component = json.loads(body)
        if not HAS_MODES and "mode" in component["template"].get("settings", {}).get("index", {}):
            return refuse("illegal_argument_exception", "unknown setting [index.mode] did you mean [index.codec]?")
        found = list(types(component["template"].get("mappings", {})))
        if "flat_object" in found:
            return refuse("mapper_parsing_exception", "No handler for type [flat_object]")
        components[parts[1]] = component
        return 200, {"acknowledged": True}
    if parts[0] == "_index_template" and method == "PUT":
        template = json.loads(body)
        missing = [c for c in template.get("composed_of", []) if c not in components]
        if missing:
            return refuse("invalid_index_template_exception", f"component templates {missing} don't exist")
        templates[parts[1]] = template
        return 200, {"acknowledged": True}
    if parts[0] == "_data_stream":
        name = parts[1]
        if method == "GET":
            indices = [{"index_name": f".ds-{name}-{n + 1:06}"} for n in range(len(streams.get(name, [])))]
            if name in lagging:
                lagging.remove(name)
                indices.pop()
            return (200, {"data_streams": [{"name": name, "indices": indices}]}) if name in streams else refuse("index_not_found_exception", f"no such index [{name}]", 404)
        template = template_of(name)
        if template is None or "data_stream" not in templates[template]:
            return refuse("illegal_argument_exception", f"no matching index template found for data stream [{name}]")
        if name in streams:
            return refuse("resource_already_exists_exception", f"data_stream [{name}] already exists")
        streams[name] = [{}]
        return 200, {"acknowledged": True}
    if parts[-1] == "_bulk":
        return bulk(parts[0], [line for line in body.split(b"\n") if line])
    if parts[-1] == "_rollover":
        streams[parts[0]].append({})
        if VERSION.startswith("9"):
            lagging.add(parts[0])
        return 200, {"acknowledged": True, "rolled_over": True}
    if path == "/_tasks" and query == "actions=indices:data/write/bulk*&group_by=none":
        # One request is answered at a time.
        return 200, {"tasks": []}
    if parts[-1] == "_flush" and VERSION.startswith("9"):
        # As the serverless ones do without it.
        return refuse("api_not_available_exception", "Request for uri [/_flush] with method [POST] exists but is not available", 410)
    if len(parts) == 4 and parts[1:3] == ["_mapping", "field"]:
        properties, fields = properties_of(parts[0]), {}
        for name in parts[3].split(","):
            found = {"properties": properties}
            for part in name.split("."):
                found = found.get("properties", {}).get(part, {})
            if "type" in found:
                fields[name] = {"full_name": name, "mapping": {name.split(".")[-1]: found}}
        return 200, {f".ds-{parts[0]}-{n + 1:06}": {"mappings": fields} for n in range(len(streams[parts[0]]))}
    backing = re.fullmatch(r"\.ds-(.*)-\d{6}", parts[0])
    if backing and parts[1:] == ["_mapping"] and method == "GET":
        return 200, {parts[0]: {"mappings": {"dynamic": "false", "properties": properties_of(backing[1])}}}
    if parts[-1] in ("_flush", "_refresh"):
        return 200, {"_shards": {"total": 1, "successful": 1, "failed": 0}}
    if parts[-1] == "_search":
        asked_for = json.loads(body)
        found = [{"_index": parts[0], "_id": i, "_source": s} for b in streams[parts[0]] for i, s in b.items()
                 if matches(asked_for["query"], s)]
        hits = found[: asked_for.get("size", 10)]
        return 200, {"took": 1, "timed_out": False, "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0},
                     "hits": {"total": {"value": len(found), "relation": "eq"}, "hits": hits}}
    return refuse("invalid_request", f"{method} {path} isn't documented here")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def serve(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        url = urllib.parse.urlsplit(self.path)
        with lock:
            if not url.path.startswith("/_asked"):
                asked.append(f"{self.command} {url.path}")
            try:
                status, value = answer(self.command, url.path, url.query, body)
            except Exception as error:  # noqa: BLE001 - told to whoever asked, as a server's own mistake
                status, value = 500, {"error": {"type": type(error).__name__, "reason": str(error)}, "status": 500}
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("X-elastic-product", "Elasticsearch")
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = serve

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
