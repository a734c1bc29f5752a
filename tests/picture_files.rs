//! Dashboards, saved objects and alerts as files: whole, consistent, and of what their products know. What they ask is asked
//! of real stores elsewhere (`tests/sinks/pictures`).

use custody_core::event::TYPES;
use custody_core::search::LIMIT_MAX;
use custody_tests::pictures::{Dashboard, alerts, dashboards, fields_of, lucene, saved_objects};
use custody_tests::process::run;
use custody_tests::wait::DEADLINE;
use custody_tests::{golang, python, root};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

fn all_dashboards() -> Vec<(&'static str, Dashboard)> {
    let of = |folder: &'static str| dashboards(folder).into_iter().map(move |dashboard| (folder, dashboard));
    of("loki").chain(of("prometheus")).collect()
}

/// Grafana can't be run here; its own types can.
#[test]
fn grafana_s_own_types_take_each_dashboard_whole() {
    let files: Vec<String> = all_dashboards().iter().map(|(_, d)| d.path.display().to_string()).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let said = python::run("read_dashboards.py", &files);
    assert_eq!(said.trim(), format!("{} read, 0 wrong", files.len()));
}

#[test]
fn dashboards_have_fixed_ids_and_name_their_sources_by_variables() {
    let mut uids = BTreeSet::new();
    for (folder, dashboard) in all_dashboards() {
        let (name, json) = (dashboard.name(), &dashboard.json);
        assert!(json["schemaVersion"].as_u64().is_some_and(|version| version <= 39), "{name}");
        assert_eq!(json["uid"], format!("custody-{folder}-{name}"));
        assert!(uids.insert(json["uid"].to_string()), "{name}: its uid twice");
        assert_eq!(json["tags"], json!(["custody", folder]));
        let variables = json["templating"]["list"].as_array().unwrap();
        let source = variables.iter().find(|variable| variable["type"] == "datasource").unwrap();
        assert_eq!((&source["name"], &source["query"]), (&folder.into(), &folder.into()));
        let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
        let mut places = Vec::new();
        for panel in dashboard.panels() {
            let title = &panel["title"];
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {title}: its id twice");
            assert!(titles.insert(title.to_string()), "{name}: {title} twice");
            let wanted = json!({ "type": folder, "uid": format!("${{{folder}}}") });
            assert_eq!(panel["datasource"], wanted, "{name}: {title}");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty() && targets.iter().all(|target| target["datasource"] == wanted));
            let at = |edge: &str| panel["gridPos"][edge].as_u64().unwrap();
            let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
            assert!(x + w <= 24, "{name}: {title} stands out");
            for (ox, oy, ow, oh) in &places {
                let apart = x + w <= *ox || ox + ow <= x || y + h <= *oy || oy + oh <= y;
                assert!(apart, "{name}: {title} lies over another");
            }
            places.push((x, y, w, h));
        }
        // A query of a variable that isn't there would be asked as it stands.
        let known = variables.iter().map(|variable| variable["name"].as_str().unwrap());
        let known: BTreeSet<&str> =
            known.chain(["__range", "__auto", "__rate_interval", "__value"]).collect();
        let text = json["panels"].to_string();
        for piece in text.split('$').skip(1) {
            let piece = piece.trim_start_matches('{');
            let end = piece.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(piece.len());
            assert!(known.contains(&piece[..end]), "{name} has no variable {}", &piece[..end]);
        }
    }
}

/// Wherever a session stands in a column, its replay is one click away.
#[test]
fn each_column_of_sessions_leads_to_the_replay() {
    let mut columns = 0;
    for (_, dashboard) in all_dashboards() {
        for panel in dashboard.panels() {
            let transformed = panel["transformations"].to_string();
            if !transformed.contains("\"session\"") {
                continue;
            }
            columns += 1;
            let overrides = panel["fieldConfig"]["overrides"].to_string();
            assert!(
                overrides.contains("${api}/v1/sessions/${__value.raw}/recording?purpose=play"),
                "{}: {}",
                dashboard.name(),
                panel["title"]
            );
            // As many as the API gives at once, with the address of more.
            let events =
                format!("${{api}}/v1/events?session=${{__value.raw}}&limit={LIMIT_MAX}&envelope=page");
            assert!(overrides.contains(&events), "{}: {}", dashboard.name(), panel["title"]);
        }
    }
    assert!(columns >= 4, "only {columns} columns of sessions");
}

/// Types that a picture or an alert names, in any language of theirs: words in quotes with a dot in them.
pub fn types_in(query: &str) -> BTreeSet<String> {
    let quoted = query.split('"').skip(1).step_by(2);
    // `sink[.](stalled|rejected)` is what Loki's regular expressions make of two.
    let regular = |word: &str| -> Vec<String> {
        let mut names = Vec::new();
        let mut rest = word;
        while let Some((family, after)) = rest.split_once("[.]") {
            let family = family.trim_start_matches('|');
            let (prefix, after) = after.split_once('(').unwrap_or(("", after));
            let (kinds, left) = after.split_once(')').unwrap_or((after, ""));
            names.extend(kinds.split('|').map(|kind| format!("{family}.{prefix}{kind}")));
            rest = left;
        }
        names
    };
    let plain = |word: &str| {
        let is_type = word.contains('.') && word.chars().all(|c| c.is_ascii_lowercase() || "-.".contains(c));
        (is_type && !word.starts_with("data.")).then(|| word.to_owned())
    };
    quoted.flat_map(|word| regular(word).into_iter().chain(plain(word)).collect::<Vec<_>>()).collect()
}

#[test]
fn the_types_of_events_that_are_named_exist() {
    let known: BTreeSet<&str> = TYPES.iter().map(|info| info.name).collect();
    let mut queries: Vec<String> =
        dashboards("loki").iter().flat_map(Dashboard::queries).map(|query| query.expression).collect();
    queries.extend(alerts("schemas/loki/alerts.yaml").into_iter().map(|alert| alert.expression));
    queries.extend(saved_objects("opensearch-dashboards").iter().map(lucene));
    let mut named = BTreeSet::new();
    for query in queries {
        for kind in types_in(&query) {
            assert!(known.contains(kind.as_str()), "there is no type {kind}: {query}");
            named.insert(kind);
        }
    }
    assert!(named.len() > 25, "{named:?}");
}

/// What is taken out of a line gets another name in Loki where a label or a metadata name is the same, and a query goes on with
/// the old one.
#[test]
fn what_is_taken_out_of_lines_has_names_of_its_own() {
    let taken: BTreeSet<&str> = [
        "job",
        "family",
        "outcome",
        "producer",
        "origin",
        "hour",
        "log_index",
        "log_leaf",
        "log_origin",
        "event_id",
        "event_time",
        "type",
        "version",
        "producer_id",
        "user",
        "session",
        "cause",
        "source",
        "target",
        "target_kind",
        "login",
    ]
    .into();
    let sources = ["sinks/src/loki/mod.rs", "sinks/src/loki/stream.rs"]
        .map(|path| std::fs::read_to_string(root().join(path)).unwrap())
        .concat();
    for name in &taken {
        let said = [format!("\"{name}\""), format!("{name}=\\\"")];
        assert!(
            said.iter().any(|said| sources.contains(said)),
            "the sink sets no {name}: this list is stale"
        );
    }
    let mut queries: Vec<String> =
        dashboards("loki").iter().flat_map(Dashboard::queries).map(|query| query.expression).collect();
    queries.extend(alerts("schemas/loki/alerts.yaml").into_iter().map(|alert| alert.expression));
    let mut found = 0;
    for query in &queries {
        for stage in query.split("| json ").skip(1) {
            let stage = stage.split('|').next().unwrap_or_default();
            for name in stage.split(',').filter_map(|pair| pair.split_once('=')) {
                found += 1;
                assert!(!taken.contains(name.0.trim()), "{} is a name of the sink's: {query}", name.0.trim());
            }
        }
    }
    assert!(found > 20, "only {found} names");
}

/// A leaf's path and its definition.
fn leaves(properties: &Value, prefix: &str, found: &mut BTreeMap<String, Value>) {
    for (name, definition) in properties.as_object().into_iter().flatten() {
        let path = format!("{prefix}{name}");
        match definition.get("properties") {
            Some(inner) => leaves(inner, &format!("{path}."), found),
            None => {
                leaves(&definition["fields"], &format!("{path}."), found);
                found.insert(path, definition.clone());
            }
        }
    }
}

fn index_fields() -> BTreeMap<String, Value> {
    let text = std::fs::read_to_string(root().join("schemas/opensearch/mappings.json")).unwrap();
    let template: Value = serde_json::from_str(&text).unwrap();
    let mut found = BTreeMap::new();
    leaves(&template["template"]["mappings"]["properties"], "", &mut found);
    found
}

/// What a saved object may name beside the index's own fields.
const PLAY: &str = "custody.session.play";

#[test]
fn saved_objects_refer_to_each_other_and_name_fields_that_the_index_has() {
    let fields = index_fields();
    for folder in ["opensearch-dashboards", "kibana"] {
        let objects = saved_objects(folder);
        let mut there = BTreeSet::new();
        for object in &objects {
            let (kind, id) = (object["type"].as_str().unwrap(), object["id"].as_str().unwrap());
            assert!(id.starts_with("custody-"), "{id}: others have objects too");
            assert!(there.insert((kind.to_owned(), id.to_owned())), "{id} twice");
            assert!(object["migrationVersion"][kind].is_string(), "{id}: of which version is it?");
            let title = &object["attributes"]["title"];
            if kind == "visualization" {
                assert_eq!(&object["attributes"]["visState"]["title"], title, "{id}");
            }
            for field in fields_of(object) {
                assert!(field == PLAY || fields.contains_key(&field), "{id}: there is no field {field}");
                let aggregated = object["attributes"]["visState"]["aggs"].to_string();
                if aggregated.contains(&format!("\"{field}\"")) {
                    let kind = fields[&field]["type"].as_str().unwrap();
                    assert!(!["text", "flat_object"].contains(&kind), "{id}: {field} can't be counted by");
                }
            }
        }
        let mut shown = BTreeSet::new();
        for object in &objects {
            let id = &object["id"];
            for reference in object["references"].as_array().unwrap() {
                let key = (
                    reference["type"].as_str().unwrap().to_owned(),
                    reference["id"].as_str().unwrap().to_owned(),
                );
                assert!(there.contains(&key), "{id} refers to {key:?}, which isn't there");
                shown.insert(key);
            }
            for panel in object["attributes"]["panelsJSON"].as_array().into_iter().flatten() {
                let names = object["references"].as_array().unwrap().iter().map(|r| &r["name"]);
                assert!(names.into_iter().any(|name| name == &panel["panelRefName"]), "{id}: {panel}");
                let grid = &panel["gridData"];
                assert!(grid["x"].as_u64().unwrap() + grid["w"].as_u64().unwrap() <= 48, "{id}: {grid}");
            }
        }
        let lost: Vec<_> = there.iter().filter(|key| key.0 != "dashboard" && !shown.contains(*key)).collect();
        assert!(lost.is_empty(), "{folder}: on no dashboard: {lost:?}");
    }
}

/// OpenSearch Dashboards takes the fields from the object; Kibana asks the index.
#[test]
fn the_index_pattern_has_the_fields_of_the_index() {
    let objects = saved_objects("opensearch-dashboards");
    let pattern = objects.iter().find(|object| object["type"] == "index-pattern").unwrap();
    let listed = pattern["attributes"]["fields"].as_array().unwrap();
    let by_name: BTreeMap<&str, &Value> =
        listed.iter().map(|field| (field["name"].as_str().unwrap(), field)).collect();
    let fields = index_fields();
    let names: BTreeSet<&str> = by_name.keys().copied().filter(|name| *name != PLAY).collect();
    assert_eq!(names, fields.keys().map(String::as_str).collect(), "schemas/opensearch-dashboards is stale");
    for (name, definition) in &fields {
        assert_eq!(by_name[name.as_str()]["esTypes"], json!([definition["type"]]), "{name}");
    }
    assert_eq!(by_name[PLAY]["scripted"], true);
}

#[test]
fn both_products_have_the_same_objects_but_for_the_link_to_the_replay() {
    let without_pattern = |folder: &str| -> Vec<Value> {
        saved_objects(folder).into_iter().filter(|object| object["type"] != "index-pattern").collect()
    };
    assert_eq!(without_pattern("opensearch-dashboards"), without_pattern("kibana"));
    let pattern = |folder: &str| saved_objects(folder).remove(0)["attributes"].clone();
    let (opensearch, kibana) = (pattern("opensearch-dashboards"), pattern("kibana"));
    for name in ["title", "timeFieldName", "fieldFormatMap"] {
        assert_eq!(opensearch[name], kibana[name]);
    }
    assert!(kibana["runtimeFieldMap"][PLAY]["script"]["source"].is_string());
}

#[test]
fn each_alert_on_metrics_fires_and_is_silent_as_its_tests_say() {
    let mut promql = golang::reader("promql");
    promql.arg("rules").arg(root().join("schemas/prometheus/tests.yaml"));
    let said = run(&mut promql, b"", DEADLINE).ok().text();
    let count = alerts("schemas/prometheus/alerts.yaml").len();
    assert_eq!(said.trim(), format!("{count} alerts fire and are silent as they should"));
}

#[test]
fn each_alert_says_how_bad_it_is_and_what_to_do() {
    for file in ["schemas/loki/alerts.yaml", "schemas/prometheus/alerts.yaml"] {
        let mut names = BTreeSet::new();
        for alert in alerts(file) {
            assert!(names.insert(alert.name.clone()), "{file}: {} twice", alert.name);
            assert!(alert.name.starts_with("Custody"), "{file}: {}", alert.name);
            let severity = alert.json["labels"]["severity"].as_str().unwrap();
            assert!(["info", "warning", "critical"].contains(&severity), "{file}: {}", alert.name);
            for part in ["summary", "description"] {
                assert!(alert.json["annotations"][part].is_string(), "{file}: {} has no {part}", alert.name);
            }
        }
    }
    // Alerts on events have test events, as detection rules have.
    let files = std::fs::read_dir(root().join("schemas/loki/tests")).unwrap();
    let tested: BTreeSet<String> =
        files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    let named: BTreeSet<String> =
        alerts("schemas/loki/alerts.yaml").into_iter().map(|alert| alert.name).collect();
    assert_eq!(tested, named, "an alert without test events, or the reverse");
}
