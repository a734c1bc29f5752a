//! The dashboards, saved objects and alerts of `schemas/`, taken apart: what they ask of a store, and what they name.

use crate::{python, root};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A dashboard of Grafana.
#[derive(Clone, Debug)]
pub struct Dashboard {
    /// The file.
    pub path: PathBuf,
    /// What stands in it.
    pub json: Value,
}

/// The dashboards of a folder of `schemas/grafana`: `loki` or `prometheus`.
///
/// # Panics
/// When there are none, or one isn't JSON.
#[must_use]
pub fn dashboards(folder: &str) -> Vec<Dashboard> {
    let files = std::fs::read_dir(root().join("schemas/grafana").join(folder)).expect("dashboards");
    let mut found: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    found.sort();
    assert!(!found.is_empty(), "schemas/grafana/{folder} has no dashboard");
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a dashboard");
        let json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Dashboard { path, json }
    };
    found.into_iter().map(read).collect()
}

impl Dashboard {
    /// `logins`, as its file is called.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.file_stem().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Its panels.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn panels(&self) -> &[Value] {
        self.json["panels"].as_array().expect("panels")
    }

    /// The panel with that title.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn panel(&self, title: &str) -> &Value {
        let found = self.panels().iter().find(|panel| panel["title"] == title);
        found.unwrap_or_else(|| panic!("{} has no panel {title}", self.path.display()))
    }

    /// What its panels ask.
    #[must_use]
    pub fn queries(&self) -> Vec<Query> {
        let of_panel = |panel: &Value| -> Vec<Query> {
            let targets = panel["targets"].as_array().cloned().unwrap_or_default();
            let query = |target: &Value| Query {
                dashboard: self.name().to_owned(),
                panel: text(&panel["title"]),
                expression: text(&target["expr"]),
                instant: target["queryType"] == "instant" || target["instant"] == true,
            };
            targets.iter().map(query).collect()
        };
        self.panels().iter().flat_map(of_panel).collect()
    }

    /// The links that lead from a session's column of any of its panels elsewhere, by their titles.
    #[must_use]
    pub fn session_links(&self) -> BTreeMap<String, String> {
        let overrides = self.panels().iter().flat_map(|panel| list(&panel["fieldConfig"]["overrides"]));
        let sessions = overrides.filter(|field| field["matcher"]["options"] == "session");
        let properties = sessions.flat_map(|field| list(&field["properties"]));
        let links = properties.filter(|property| property["id"] == "links");
        links
            .flat_map(|property| list(&property["value"]))
            .map(|link| (text(&link["title"]), text(&link["url"])))
            .collect()
    }
}

/// What a panel asks.
#[derive(Clone, Debug)]
pub struct Query {
    /// The dashboard's name.
    pub dashboard: String,
    /// The panel's title.
    pub panel: String,
    /// LogQL or PromQL, with Grafana's variables.
    pub expression: String,
    /// Whether it is asked for one moment, and not for each step of a span.
    pub instant: bool,
}

/// An expression with Grafana's variables replaced.
///
/// # Panics
/// When it has one that isn't among them.
#[must_use]
pub fn substituted(expression: &str, variables: &[(&str, &str)]) -> String {
    let mut done = expression.to_owned();
    // The longest first, since one may begin like another.
    let mut sorted = variables.to_vec();
    sorted.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    for (name, value) in sorted {
        done = done.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value);
    }
    assert!(!done.contains('$'), "a variable that isn't known: {done}");
    done
}

/// The saved objects of `opensearch-dashboards` or `kibana`, with the JSON in their texts taken out of it.
///
/// # Panics
/// When a line isn't JSON.
#[must_use]
pub fn saved_objects(folder: &str) -> Vec<Value> {
    let path = root().join("schemas").join(folder).join("custody.ndjson");
    let lines = std::fs::read_to_string(&path).expect("saved objects");
    let parse = |text: &str| -> Value {
        serde_json::from_str(text).unwrap_or_else(|e| panic!("{}: {e}: {text}", path.display()))
    };
    let opened = |line: &str| {
        let mut object = parse(line);
        let attributes = object["attributes"].as_object_mut().expect("attributes");
        for name in [
            "visState",
            "panelsJSON",
            "optionsJSON",
            "fields",
            "fieldFormatMap",
            "runtimeFieldMap",
            "uiStateJSON",
        ] {
            if let Some(value) = attributes.get_mut(name) {
                *value = parse(value.as_str().expect("JSON in a text"));
            }
        }
        if let Some(meta) = attributes.get_mut("kibanaSavedObjectMeta") {
            meta["searchSourceJSON"] = parse(meta["searchSourceJSON"].as_str().expect("JSON in a text"));
        }
        object
    };
    lines.lines().map(opened).collect()
}

/// The query of a saved search or visualisation, in Lucene's language.
#[must_use]
pub fn lucene(object: &Value) -> String {
    text(&object["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"]["query"]["query"])
}

/// All fields that a saved object names: in its query, in its aggregations, as its columns.
#[must_use]
pub fn fields_of(object: &Value) -> BTreeSet<String> {
    let attributes = &object["attributes"];
    let aggregations =
        list(&attributes["visState"]["aggs"]).into_iter().map(|agg| text(&agg["params"]["field"]));
    let columns = list(&attributes["columns"]).into_iter().map(|column| text(&column));
    let mut fields: BTreeSet<String> = aggregations.chain(columns).collect();
    fields.extend(fields_of_lucene(&lucene(object)));
    fields.remove("");
    fields
}

/// What stands before a colon outside of quotes, and what `_exists_` is asked of.
fn fields_of_lucene(query: &str) -> BTreeSet<String> {
    // Every second piece stood in quotes.
    let outside: Vec<&str> = query.split('"').step_by(2).collect();
    let outside = outside.join(" ");
    let words = outside.split(|c: char| c.is_whitespace() || "()".contains(c));
    let mut fields = BTreeSet::new();
    for word in words {
        match word.split_once(':') {
            Some(("_exists_", field)) => fields.insert(field.to_owned()),
            Some((field, _)) => fields.insert(field.to_owned()),
            None => false,
        };
    }
    fields
}

/// An alert: its name, its expression, and the groups' other words.
#[derive(Clone, Debug)]
pub struct Alert {
    /// Its name.
    pub name: String,
    /// LogQL or PromQL.
    pub expression: String,
    /// All of it.
    pub json: Value,
}

/// The alerts of a file of `schemas/`.
///
/// # Panics
/// When it can't be read.
#[must_use]
pub fn alerts(file: &str) -> Vec<Alert> {
    let groups = yaml(file);
    let rules = list(&groups["groups"]).into_iter().flat_map(|group| list(&group["rules"]));
    let alerts: Vec<Alert> = rules
        .map(|rule| Alert { name: text(&rule["alert"]), expression: text(&rule["expr"]), json: rule })
        .collect();
    assert!(!alerts.is_empty(), "{file} has no alert");
    alerts
}

/// A YAML file of the work tree.
///
/// # Panics
/// When it can't be read.
#[must_use]
pub fn yaml(file: &str) -> Value {
    let path = root().join(file);
    let said = python::run("read_yaml.py", &[path.to_str().expect("a path")]);
    let documents: Value = serde_json::from_str(&said).expect("JSON");
    documents[0].clone()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}
