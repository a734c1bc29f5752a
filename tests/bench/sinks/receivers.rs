//! Receivers that only answer, where no real ones run here: beside them is seen what the sink costs, not what a destination takes.

use super::{Http, ORIGIN, Store, endpoint, no_secrets};
use crate::cores::begun;
use custody_core::clock::SystemClock;
use custody_sinks::hec::Hec;
use custody_sinks::secret::Secrets;
use custody_sinks::webhook::{Webhook, make};
use custody_tests::servers::scripted::{Answer, Asked, Scripted};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;

/// The name of the secret that signs.
const KEY: &str = "webhook";
/// Where is asked what is indexed.
const ACKNOWLEDGES: &str = "/services/collector/ack";

/// A webhook's.
pub struct Hook {
    receiver: Scripted<()>,
    secrets: Secrets,
}

impl Http for Hook {
    const STORES: &'static str = "POST ";
}

impl Store for Hook {
    type Sink = Webhook;
    const NAME: &'static str = "webhook";

    fn start(dir: &Path) -> Self {
        let secrets = Secrets::new(&dir.join("secrets"));
        secrets.put(KEY, &make().expect("a key")).expect("a secret");
        Self { receiver: begun(|| Scripted::start((), |_, _| Answer::new(200, ""))), secrets }
    }

    fn port(&self) -> u16 {
        self.receiver.port
    }

    fn sink(&self, port: u16) -> Webhook {
        let settings = json!({ "endpoint": { "url": endpoint(port).url }, "sign_with": [KEY] });
        let settings = serde_json::from_value(settings).expect("settings");
        Webhook::new(settings, self.secrets.clone(), ORIGIN, Arc::new(SystemClock::new()))
    }
}

/// Splunk's, which has indexed whatever it is asked for.
pub struct Collector(Scripted<u64>);

impl Http for Collector {
    const STORES: &'static str = "/services/collector/event";
}

impl Store for Collector {
    type Sink = Hec;
    const NAME: &'static str = "Splunk's collector, played";

    fn start(_: &Path) -> Self {
        Self(begun(|| Scripted::start(0, collects)))
    }

    fn port(&self) -> u16 {
        self.0.port
    }

    fn sink(&self, port: u16) -> Hec {
        let settings = json!({ "endpoint": { "url": endpoint(port).url } });
        Hec::new(serde_json::from_value(settings).expect("settings"), no_secrets(), ORIGIN)
    }
}

fn collects(batches: &mut u64, asked: &Asked) -> Answer {
    let said = if asked.path.starts_with(ACKNOWLEDGES) {
        let question: Value = serde_json::from_slice(&asked.body).expect("a question");
        let numbers = question["acks"].as_array().expect("numbers of batches");
        let indexed: Map<String, Value> = numbers.iter().map(|id| (id.to_string(), true.into())).collect();
        json!({ "acks": indexed })
    } else {
        *batches += 1;
        json!({ "text": "Success", "code": 0, "ackId": *batches })
    };
    Answer::new(200, said.to_string())
}
