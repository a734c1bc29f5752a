//! Which product it is, and what that one is told of our documents.

use serde::Deserialize;
use serde_json::{Value, json};

const OPENSEARCH: [&str; 4] = [
    include_str!("../../../schemas/opensearch/mappings.json"),
    include_str!("../../../schemas/opensearch/settings.json"),
    include_str!("../../../schemas/opensearch/index-template.json"),
    include_str!("../../../schemas/opensearch/lifecycle.json"),
];
const ELASTICSEARCH: [&str; 4] = [
    include_str!("../../../schemas/elasticsearch/mappings.json"),
    include_str!("../../../schemas/elasticsearch/settings.json"),
    include_str!("../../../schemas/elasticsearch/index-template.json"),
    include_str!("../../../schemas/elasticsearch/lifecycle.json"),
];

const MAPPINGS: &str = "/_component_template/custody-mappings";

/// What it is and can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    pub is_opensearch: bool,
    /// Data streams, and what else Elasticsearch has by its x-pack.
    pub has_streams: bool,
    /// The setting that names an index's mode, which Elasticsearch has had for a shorter time than data streams.
    pub has_modes: bool,
}

impl Product {
    /// From the answer to `GET /`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn of(body: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct About {
            #[serde(default)]
            tagline: String,
            version: Version,
        }
        #[derive(Deserialize)]
        struct Version {
            number: String,
            distribution: Option<String>,
        }
        let About { tagline, version } = serde_json::from_slice(body)
            .map_err(|_| "that is neither OpenSearch nor Elasticsearch: check the url".to_owned())?;
        // Where it passes for Elasticsearch 7 (compatibility.override_main_response_version), that alone tells.
        let is_opensearch =
            version.distribution.as_deref() == Some("opensearch") || tagline.contains("OpenSearch");
        let major: u32 = version.number.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        if !is_opensearch && major < 7 {
            return Err(format!(
                "it is version {}: Elasticsearch 7 or later, or OpenSearch, is needed",
                version.number
            ));
        }
        Ok(Self { is_opensearch, has_streams: true, has_modes: true })
    }

    /// The same product without data streams, or without modes, if that is what it complains about.
    pub fn poorer(self, reason: &str) -> Option<Self> {
        let names = |lack: &str| reason.contains(lack);
        if self.is_opensearch {
            None
        } else if self.has_streams && ["data_stream", "[flattened]", "index.lifecycle"].into_iter().any(names)
        {
            Some(Self { has_streams: false, ..self })
        } else if self.has_modes && names("index.mode") {
            Some(Self { has_modes: false, ..self })
        } else {
            None
        }
    }
}

/// What is put there, in this order: paths and bodies.
pub struct Templates {
    pub lifecycle: Option<(String, Value)>,
    pub components: Vec<(String, Value)>,
    /// The fields that the mappings among them have.
    pub fields: Value,
}

impl Templates {
    /// For a stream of that name.
    ///
    /// # Errors
    /// Never with the files that this program was built with.
    pub fn of(product: Product, stream: &str) -> Result<Self, String> {
        let files = if product.is_opensearch { OPENSEARCH } else { ELASTICSEARCH };
        let read = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| error.to_string());
        let [mut mappings, mut settings, mut index, mut lifecycle] =
            [read(files[0])?, read(files[1])?, read(files[2])?, read(files[3])?];
        let patterns = if product.has_streams { json!([stream]) } else { json!([format!("{stream}-*")]) };
        put(&mut index, "/index_patterns", patterns.clone());
        put(&mut lifecycle, "/policy/ism_template/0/index_patterns", patterns);
        if !product.has_streams {
            put(
                &mut mappings,
                "/template/mappings/properties/custody/properties/data",
                json!({ "type": "object", "enabled": false }),
            );
            remove(&mut settings, "/template/settings/index", "lifecycle");
            remove(&mut index, "", "data_stream");
        }
        if !(product.has_streams && product.has_modes) {
            remove(&mut settings, "/template/settings/index", "mode");
        }
        // What names a stream is named by it: several streams, of several logs, may be in one place.
        let path = if product.is_opensearch {
            format!("/_plugins/_ism/policies/{}", template(stream))
        } else {
            "/_ilm/policy/custody".to_owned()
        };
        Ok(Self {
            fields: mappings.pointer("/template/mappings/properties").cloned().unwrap_or_default(),
            lifecycle: product.has_streams.then_some((path, lifecycle)),
            components: vec![
                ("/_component_template/custody-settings".to_owned(), settings),
                (MAPPINGS.to_owned(), mappings),
                (format!("/_index_template/{}", template(stream)), index),
            ],
        })
    }
}

/// Whether what somebody has changed in a template stays, as long as it has this program's version. The mappings follow from what
/// this program writes, and are its alone: what they lack is put there.
pub fn is_kept(path: &str) -> bool {
    path != MAPPINGS
}

/// The version of the one template that an answer shows, where it has one.
pub fn version(body: &[u8]) -> Option<u64> {
    let shown: Value = serde_json::from_slice(body).ok()?;
    let places =
        ["/component_templates/0/component_template/version", "/index_templates/0/index_template/version"];
    places.iter().find_map(|place| shown.pointer(place)?.as_u64())
}

/// The index template's name: each stream has its own, so that two logs in one cluster don't take each other's away.
fn template(stream: &str) -> String {
    if stream == super::stream() { "custody-events".to_owned() } else { format!("custody-events.{stream}") }
}

fn put(body: &mut Value, pointer: &str, value: Value) {
    if let Some(place) = body.pointer_mut(pointer) {
        *place = value;
    }
}

fn remove(body: &mut Value, pointer: &str, key: &str) {
    if let Some(Value::Object(object)) = body.pointer_mut(pointer) {
        object.remove(key);
    }
}
