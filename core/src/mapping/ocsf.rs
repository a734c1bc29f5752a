//! Events of the Open Cybersecurity Schema Framework (`schemas/ocsf/mapping.json`).
//!
//! `time` is the time of appending; the producer's clock is `metadata.original_time`. The canonical event stands whole
//! in `raw_data`; what has no attribute is under `unmapped.custody`, with the log's origin, the index, the leaf hash, the
//! version of the mapping, and whether something was taken out of the event.
//!
//! A class has attributes that it can't be without. So each type has one class or several, of which the first that an
//! event is complete enough for is taken, and the base event, which asks for nothing, is behind them all.

use super::Logged;
use super::json::{Object, Value};
use super::message::{Message, Severity};
use super::plain::{Plain, plain, plain_fields};
use super::rule::{Field, Path, Rule, Rules};
use super::version;
use super::view::View;
use crate::event::hex::to_hex;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

const FILE: &str = include_str!("../../../schemas/ocsf/mapping.json");
/// What text in `unmapped` is cut to; `raw_data` has the whole.
const UNMAPPED_BYTES_MAX: usize = 1_024;
/// The activity that a class has no number for.
const OTHER: u64 = 99;

static MAPPING: LazyLock<Mapping> =
    // A part of the program; a test holds that it can be read and knows every type.
    LazyLock::new(|| serde_json::from_str(FILE).unwrap_or_default());

/// A release of the schema. The mapping keeps to what all of these have in common; they differ in what they are called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// 1.4.0.
    V1_4,
    /// 1.5.0.
    V1_5,
    /// 1.6.0.
    V1_6,
    /// 1.7.0, of November 2025.
    #[default]
    V1_7,
    /// 1.8.0, of March 2026.
    V1_8,
}

impl Version {
    /// All of them, the oldest first.
    pub const ALL: [Self; 5] = [Self::V1_4, Self::V1_5, Self::V1_6, Self::V1_7, Self::V1_8];

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.name() == name)
    }

    /// As it stands in `metadata.version`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1_4 => "1.4.0",
            Self::V1_5 => "1.5.0",
            Self::V1_6 => "1.6.0",
            Self::V1_7 => "1.7.0",
            Self::V1_8 => "1.8.0",
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mapping {
    /// Categories by their numbers.
    categories: BTreeMap<u64, String>,
    /// Classes by their numbers.
    classes: BTreeMap<u64, Class>,
    /// Rules for every event.
    every: Rules,
    /// Rules for attributes that only some classes take, by the attribute.
    shared: BTreeMap<String, Rules>,
    /// Objects with the keys of which one must be there, inner ones first; an object without any is left out.
    objects: Vec<(Field, Vec<String>)>,
    /// What is added to an object that is there, where it has no such key.
    complete: Rules,
    /// What each type becomes: the first that is complete.
    types: BTreeMap<String, Vec<Candidate>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Class {
    name: String,
    /// Attributes without which there is no event of this class.
    #[serde(default)]
    needs: Vec<String>,
    /// Shared attributes that it takes.
    #[serde(default)]
    takes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Candidate {
    class: u64,
    activity: Activity,
    /// What the activity is called, where the class has no number for it.
    #[serde(default)]
    name: Option<String>,
    /// Where the event itself has no outcome.
    #[serde(default)]
    status: Status,
    #[serde(default)]
    fields: Rules,
    /// For attributes that are absent after the rules before.
    #[serde(default)]
    otherwise: Rules,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Activity {
    Always(u64),
    By(Rule),
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    #[default]
    Unknown,
    Success,
    Failure,
}

/// What an event becomes whose type isn't known or that isn't complete enough for its own class.
static BASE: Candidate = Candidate {
    class: 0,
    activity: Activity::Always(OTHER),
    name: None,
    status: Status::Unknown,
    fields: Rules::new(),
    otherwise: Rules::new(),
};

/// What attributes events of a class may have, by their paths: `actor.user.name`, `resources[0].uid`. Those that every event
/// has whatever its class is (`class_uid`, `message`, `raw_data` …) aren't among them.
#[must_use]
pub fn attributes(class: u64) -> BTreeSet<&'static str> {
    let of_class = MAPPING.classes.get(&class).into_iter();
    let shared = of_class.flat_map(|class| &class.takes).filter_map(|name| MAPPING.shared.get(name));
    let candidates = MAPPING.types.values().flatten().filter(|candidate| candidate.class == class);
    let own = candidates.flat_map(|candidate| [&candidate.fields, &candidate.otherwise]);
    let mut found: BTreeSet<&str> = std::iter::once(&MAPPING.every)
        .chain(shared)
        .chain(own)
        .flat_map(|rules| rules.keys())
        .map(|field| field.name.as_str())
        .collect();
    let parent = |name: &str| name.rsplit_once('.').map(|(object, _)| format!("{object}."));
    for field in MAPPING.complete.keys() {
        let object = parent(&field.name);
        if object.is_some_and(|object| found.iter().any(|name| name.starts_with(&object))) {
            found.insert(&field.name);
        }
    }
    found
}

/// The classes that events become, by their numbers; 0 is the base event.
pub fn classes() -> impl Iterator<Item = u64> {
    MAPPING.classes.keys().copied()
}

/// Which version of the mapping makes these events.
static MAPPED_BY: LazyLock<String> =
    LazyLock::new(|| version::of(|example| made(example, Version::default(), "")));

/// The OCSF event of an entry, as JSON. It is the same however often one version of the mapping makes it.
#[must_use]
pub fn event(entry: &Logged<'_>, version: Version) -> Vec<u8> {
    made(entry, version, &MAPPED_BY)
}

fn made(entry: &Logged<'_>, version: Version, mapped_by: &str) -> Vec<u8> {
    let view = View::new(entry);
    let known = view.text("type").and_then(|name| MAPPING.types.get(name));
    let mut event = known
        .into_iter()
        .flatten()
        .find_map(|candidate| Attributes::complete(candidate, &view))
        .unwrap_or_else(|| Attributes::filled(&BASE, &view));
    event.tree.set("metadata.version", version.name());
    event.say(&view);
    event.keep(entry, &view);
    event.tree.set("unmapped.custody.mapping", mapped_by);
    Value::from(event.tree).to_json().into_bytes()
}

struct Attributes<'v> {
    tree: Object<'v>,
    /// Paths of the event whose values have an attribute.
    taken: Vec<&'static Path>,
}

impl<'v> Attributes<'v> {
    /// The attributes, if none is missing that the class needs.
    fn complete(candidate: &'static Candidate, view: &'v View<'_>) -> Option<Self> {
        let filled = Self::filled(candidate, view);
        let class = MAPPING.classes.get(&candidate.class)?;
        class.needs.iter().all(|name| filled.tree.contains_key(name)).then_some(filled)
    }

    fn filled(candidate: &'static Candidate, view: &'v View<'_>) -> Self {
        let mut this = Self { tree: Object::new(), taken: Vec::new() };
        this.put(&MAPPING.every, view);
        let class = MAPPING.classes.get(&candidate.class);
        for rules in class.iter().flat_map(|c| &c.takes).filter_map(|name| MAPPING.shared.get(name)) {
            this.put(rules, view);
        }
        this.put(&candidate.fields, view);
        this.prune();
        let absent = |field: &Field| !this.tree.contains_key(field.top());
        let missing: Vec<_> = candidate.otherwise.iter().filter(|(field, _)| absent(field)).collect();
        for (field, rule) in missing {
            if let Some(value) = rule.value(view, &mut this.taken) {
                field.put(&mut this.tree, value);
            }
        }
        for (field, rule) in &MAPPING.complete {
            if let Some(value) = rule.value(view, &mut Vec::new()) {
                field.complete(&mut this.tree, value);
            }
        }
        this.classify(candidate, class, view);
        this
    }

    fn put(&mut self, rules: &'static Rules, view: &'v View<'_>) {
        for (field, rule) in rules {
            if let Some(value) = rule.value(view, &mut self.taken) {
                field.put(&mut self.tree, value);
            }
        }
    }

    /// Takes out objects that name nothing.
    fn prune(&mut self) {
        for (object, keys) in &MAPPING.objects {
            let there = object.get(&self.tree).and_then(Value::as_object);
            if there.is_some_and(|there| !keys.iter().any(|key| there.contains_key(key))) {
                object.remove(&mut self.tree);
            }
        }
    }

    fn classify(&mut self, candidate: &'static Candidate, class: Option<&'static Class>, view: &View<'_>) {
        let activity = match &candidate.activity {
            Activity::Always(number) => *number,
            Activity::By(rule) => {
                rule.value(view, &mut Vec::new()).as_ref().and_then(Value::as_u64).unwrap_or(OTHER)
            }
        };
        let category = candidate.class / 1_000;
        self.tree.set("activity_id", activity);
        if activity == OTHER {
            self.tree.set("activity_name", candidate.name.as_deref().unwrap_or("Other"));
        }
        self.tree.set("category_uid", category);
        self.tree.set("category_name", MAPPING.categories.get(&category).map_or("", String::as_str));
        self.tree.set("class_uid", candidate.class);
        self.tree.set("class_name", class.map_or("", |c| c.name.as_str()));
        self.tree.set("type_uid", candidate.class * 100 + activity);
        let status = match view.text("outcome") {
            Some("success") => Status::Success,
            Some("failure" | "denied") => Status::Failure,
            _ => candidate.status,
        };
        let (number, name) = match status {
            Status::Unknown => (0, "Unknown"),
            Status::Success => (1, "Success"),
            Status::Failure => (2, "Failure"),
        };
        self.tree.set("status_id", number);
        self.tree.set("status", name);
    }

    fn say(&mut self, view: &View<'_>) {
        let Message { line, severity, .. } = Message::of(view);
        self.tree.set("message", line);
        self.tree.set("severity_id", severity.ocsf());
        self.tree.set("severity", caption(severity));
    }

    /// The evidence, and what has no attribute.
    fn keep(&mut self, entry: &Logged<'v>, view: &'v View<'_>) {
        let names = ["cause", "id", "outcome", "producer", "session", "target", "type", "version"];
        let envelope = names.into_iter().filter_map(|name| Some((name, view.field(name)?)));
        let Plain { values: mut left, mut cut } = plain_fields(envelope, UNMAPPED_BYTES_MAX);
        if let Some(data) = view.field("data") {
            let data = plain(data, &self.taken, UNMAPPED_BYTES_MAX);
            cut |= data.cut;
            if !data.values.is_empty() {
                left.insert("data", data.values);
            }
        }
        if cut {
            left.insert("cut", true);
        }
        if view.is_redacted() {
            left.insert("redacted", true);
        }
        left.set("log.appended", entry.appended.to_string());
        left.set("log.index", entry.index);
        left.set("log.leaf", to_hex(&entry.leaf.0));
        left.set("log.origin", entry.origin);
        match str::from_utf8(entry.bytes) {
            Ok(text) => self.tree.set("raw_data", text),
            // JSON can't hold these bytes; the log takes them all the same.
            Err(_) => left.insert("original_base64", STANDARD.encode(entry.bytes)),
        }
        self.tree.set("unmapped.custody", left);
    }
}

/// As OCSF writes it.
const fn caption(severity: Severity) -> &'static str {
    match severity {
        Severity::Informational => "Informational",
        Severity::Low => "Low",
        Severity::Medium => "Medium",
        Severity::High => "High",
        Severity::Critical => "Critical",
    }
}

#[cfg(test)]
#[path = "ocsf_tests.rs"]
mod tests;
