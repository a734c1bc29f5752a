//! Saved objects of OpenSearch Dashboards and Kibana: each search and each visualisation, asked as the products ask it.

use super::day::{Day, STREAM};
use super::expected::SAVED;
use crate::opensearch::two;
use custody_core::event::Timestamp;
use custody_tests::pictures::{lucene, saved_objects};
use serde_json::{Map, Value, json};

/// The query of an object about the whole day.
fn filter(day: &Day, query: &str) -> Value {
    let time = |nanos: u64| Timestamp::from_nanos(nanos).to_string();
    let span =
        json!({ "gte": time(day.first), "lte": time(day.last), "format": "strict_date_optional_time_nanos" });
    let mut filters = vec![json!({ "range": { "@timestamp": span } })];
    if !query.is_empty() {
        filters.push(json!({ "query_string": { "query": query, "analyze_wildcard": true } }));
    }
    json!({ "bool": { "filter": filters } })
}

fn search(body: &Value) -> Result<Value, String> {
    let answer = two().ask("POST", &format!("{STREAM}/_search"), &body.to_string())?;
    let json = answer.json();
    if answer.status != 200 || json["_shards"]["failed"] != 0 {
        return Err(format!("status {}: {json}", answer.status));
    }
    Ok(json)
}

/// A visualisation's aggregations as the product asks them: buckets one in another, in the innermost the metrics.
fn aggregations(aggs: &[Value]) -> Value {
    let (metrics, buckets): (Vec<&Value>, Vec<&Value>) = aggs
        .iter()
        .partition(|agg| ["metric", "radius"].contains(&agg["schema"].as_str().unwrap_or_default()));
    let mut inner = Map::new();
    for metric in metrics {
        let kind = metric["type"].as_str().expect("a type");
        if kind != "count" {
            inner.insert(id(metric), json!({ kind: { "field": metric["params"]["field"] } }));
        }
    }
    for bucket in buckets.into_iter().rev() {
        let params = &bucket["params"];
        let mut asked = match bucket["type"].as_str() {
            Some("terms") => {
                let by = params["orderBy"].as_str().expect("an order");
                // What the first metric is, which may be the count that each bucket has.
                let by = if by.starts_with('_') || inner_has(&inner, by) { by } else { "_count" };
                let mut terms = json!({ "field": params["field"], "size": params["size"], "order": { by: params["order"] } });
                if params["missingBucket"] == true {
                    terms["missing"] = json!("__missing__");
                }
                json!({ "terms": terms })
            }
            Some("date_histogram") => {
                json!({ "date_histogram": { "field": params["field"], "fixed_interval": "1m", "min_doc_count": 1 } })
            }
            other => panic!("an aggregation that isn't known here: {other:?}"),
        };
        if !inner.is_empty() {
            asked["aggs"] = Value::Object(inner);
        }
        inner = Map::from_iter([(id(bucket), asked)]);
    }
    Value::Object(inner)
}

fn id(agg: &Value) -> String {
    agg["id"].as_str().expect("an id").to_owned()
}

fn inner_has(inner: &Map<String, Value>, id: &str) -> bool {
    inner.get(id).is_some_and(|asked| asked.get("terms").is_none())
}

/// How many documents lie in the innermost buckets.
fn documents(found: &Value) -> u64 {
    let buckets: Vec<&Value> = found
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, each)| each["buckets"].as_array())
        .flatten()
        .collect();
    buckets
        .iter()
        .map(|bucket| {
            let inner: Map<String, Value> = bucket
                .as_object()
                .expect("a bucket")
                .iter()
                .filter(|(_, value)| value.get("buckets").is_some())
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            if inner.is_empty() {
                bucket["doc_count"].as_u64().expect("a count")
            } else {
                documents(&Value::Object(inner))
            }
        })
        .sum()
}

/// What is wrong with them.
pub fn wrong(day: &Day) -> Vec<String> {
    two().ask("POST", &format!("{STREAM}/_refresh"), "").expect("an answer").ok();
    let mut wrong = Vec::new();
    let mut counted = 0;
    let objects = saved_objects("opensearch-dashboards");
    for object in &objects {
        let kind = object["type"].as_str().expect("a type");
        let state = &object["attributes"]["visState"];
        if !["search", "visualization"].contains(&kind) || state["type"] == "markdown" {
            continue;
        }
        let name = object["id"].as_str().expect("an id");
        let aggs = state["aggs"].as_array().cloned().unwrap_or_default();
        let mut body = json!({ "query": filter(day, &lucene(object)), "track_total_hits": true, "size": 0 });
        if kind == "search" {
            body["size"] = json!(500);
            body["sort"] = json!([{ "@timestamp": { "order": "desc" } }]);
            body["fields"] = object["attributes"]["columns"].clone();
        } else if !aggs.is_empty() {
            body["aggs"] = aggregations(&aggs);
        }
        let found = match search(&body) {
            Ok(found) => found,
            Err(reason) => {
                wrong.push(format!("{name}: {reason}"));
                continue;
            }
        };
        let hits = found["hits"]["total"]["value"].as_u64().expect("a total");
        let in_buckets = documents(&found["aggregations"]);
        let has_buckets =
            aggs.iter().any(|agg| ["terms", "date_histogram"].iter().any(|t| agg["type"] == *t));
        if hits == 0 || (has_buckets && in_buckets == 0) {
            wrong.push(format!("{name} shows nothing: {hits} hits, {in_buckets} in buckets"));
            continue;
        }
        if let Some((_, wanted)) = SAVED.iter().find(|(id, _)| *id == name) {
            counted += 1;
            let (shown, expected) = (if has_buckets { in_buckets } else { hits }, day.count(wanted));
            if shown != expected || expected == 0 {
                wrong.push(format!("{name} shows {shown}, and the log has {expected}"));
            }
        }
        // No column is always empty.
        for column in body["fields"].as_array().into_iter().flatten() {
            let column = column.as_str().expect("a field");
            let hits = found["hits"]["hits"].as_array().expect("hits");
            let filled = hits.iter().any(|hit| hit["fields"].get(column).is_some());
            if column != "custody.session.play" && !filled {
                wrong.push(format!("{name}: the column {column} is always empty"));
            }
        }
    }
    if counted != SAVED.len() {
        wrong.push(format!("{counted} objects were counted: expected.rs names others"));
    }
    wrong.extend(wrong_links(day, &objects[0]["attributes"]));
    wrong
}

/// The two ways to a session's replay: its id leads to the API, and a field that is made by a script says what to type.
fn wrong_links(day: &Day, pattern: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let fields = pattern["fields"].as_array().expect("fields");
    let scripted = fields.iter().find(|field| field["scripted"] == true).expect("a scripted field");
    let kibana = saved_objects("kibana")[0]["attributes"]["runtimeFieldMap"]["custody.session.play"].clone();
    // Kibana's runtime field is what OpenSearch calls a derived one; both emit.
    let body = json!({
        "query": filter(day, "custody.type:\"recording.sealed\""),
        "size": 1,
        "_source": ["custody.session.id"],
        "derived": { "typed": { "type": "keyword", "script": kibana["script"] } },
        "fields": ["typed"],
        "script_fields": { "play": { "script": { "lang": scripted["lang"], "source": scripted["script"] } } },
    });
    let hit = match search(&body) {
        Ok(found) => found["hits"]["hits"][0].clone(),
        Err(reason) => return vec![format!("the scripts: {reason}")],
    };
    let session = hit["_source"]["custody"]["session"]["id"].as_str().expect("a session").to_owned();
    for name in ["play", "typed"] {
        if hit["fields"][name][0] != format!("custody play {session}") {
            wrong.push(format!("{name}: {hit}"));
        }
    }
    // Where nothing belongs to a session the scripts say nothing, and don't fail.
    let mut other = body;
    other["query"] = filter(day, "custody.type:\"log.created\"");
    if let Err(reason) = search(&other) {
        wrong.push(format!("the scripts, without a session: {reason}"));
    }
    let template = pattern["fieldFormatMap"]["custody.session.id"]["params"]["urlTemplate"].as_str();
    let url = template.unwrap_or_default().replace("{{value}}", &session);
    let path = url.strip_prefix("https://127.0.0.1:3080").unwrap_or_default();
    let answer = day.world.admin.request(path, &[]);
    if answer.status != 200 || answer.body.is_empty() {
        wrong.push(format!("{url}: {} {}", answer.status, answer.text()));
    }
    wrong
}
