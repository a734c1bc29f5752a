//! The configured sinks: opens each, and lets it run until the stop. One that can't go on is told and stands still; the
//! others and the log don't notice.

use crate::data::DataDir;
use crate::still::Still;
use custody_core::clock::{Clock, Nanos};
use custody_core::delivery::Running;
use custody_core::log::{Log, Producer};
use custody_core::state::follow::Replica;
use custody_core::state::sinks::Stall;
use custody_sinks::delivery::{Delivery, Parts, ToldStall, stored_next};
use custody_sinks::files::{self, Files};
use custody_sinks::filter::Filter;
use custody_sinks::hec::{self, Hec};
use custody_sinks::loki::{self, Loki};
use custody_sinks::opensearch::{self, OpenSearch};
use custody_sinks::redaction::{Redaction, Rule};
use custody_sinks::restore::Archive;
use custody_sinks::secret::Secrets;
use custody_sinks::sink::Sink;
use custody_sinks::syslog::{self, Syslog};
use custody_sinks::webhook::{self, Webhook};
use custody_sinks_kafka::{self as kafka, Kafka};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// `[[sink]]`: with one table that says what the destination is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Its name, of which its position and its dead letters have theirs.
    pub name: String,
    /// Which events it gets.
    #[serde(default)]
    pub filter: Filter,
    /// What is taken out of them.
    #[serde(default)]
    pub redact: Vec<Rule>,
    /// The name of the secret with which redacted values are hashed.
    pub redaction_secret: Option<String>,
    /// After how long without success it counts as stalled, in seconds.
    #[serde(default = "default_stall_seconds")]
    pub stall_seconds: u64,
    /// Grafana Loki.
    pub loki: Option<loki::Settings>,
    /// OpenSearch or Elasticsearch.
    pub opensearch: Option<opensearch::Settings>,
    /// Kafka.
    pub kafka: Option<kafka::Settings>,
    /// A syslog receiver.
    pub syslog: Option<syslog::Settings>,
    /// Splunk's HTTP Event Collector.
    pub splunk: Option<hec::Settings>,
    /// A webhook.
    pub webhook: Option<webhook::Settings>,
    /// Files.
    pub files: Option<files::Settings>,
}

const fn default_stall_seconds() -> u64 {
    10
}

impl Settings {
    /// Whether they make sense.
    pub fn check(&self) -> Result<(), String> {
        let named = |error| format!("sink {}: {error}", self.name);
        if !custody_core::state::change::is_name(&self.name) {
            return Err(format!(
                "sink.name = \"{}\" must be 1 to 63 lower-case letters, digits, - _ or .",
                self.name
            ));
        }
        if self.stall_seconds == 0 {
            return Err(named("stall_seconds must be 1 or more".to_owned()));
        }
        self.filter.check().map_err(named)?;
        // The rules may hash as long as a secret is named: what it holds is seen at the start.
        let key = self.redaction_secret.as_deref().map(str::as_bytes);
        Redaction::new(self.redact.clone(), key).map_err(named)?;
        match self.destination().map_err(named)? {
            Destination::Loki(loki) => loki.check().map_err(named),
            Destination::OpenSearch(opensearch) => opensearch.check().map_err(named),
            Destination::Kafka(kafka) => kafka.check().map_err(named),
            Destination::Syslog(syslog) => syslog.check().map_err(named),
            Destination::Splunk(splunk) => splunk.check().map_err(named),
            Destination::Webhook(webhook) => webhook.check().map_err(named),
            Destination::Files(files) => files.check().map_err(named),
        }
    }

    /// The one destination that is named.
    fn destination(&self) -> Result<Destination, String> {
        let mut named = [
            self.loki.clone().map(Destination::Loki),
            self.opensearch.clone().map(Destination::OpenSearch),
            self.kafka.clone().map(Destination::Kafka),
            self.syslog.clone().map(Destination::Syslog),
            self.splunk.clone().map(Destination::Splunk),
            self.webhook.clone().map(Destination::Webhook),
            self.files.clone().map(Destination::Files),
        ]
        .into_iter()
        .flatten();
        match (named.next(), named.next()) {
            (Some(destination), None) => Ok(destination),
            _ => Err("say where to, once: [sink.loki], opensearch, kafka, syslog, splunk, webhook or files"
                .to_owned()),
        }
    }
}

/// Where to, with that destination's own settings.
enum Destination {
    Loki(loki::Settings),
    OpenSearch(opensearch::Settings),
    Kafka(kafka::Settings),
    Syslog(syslog::Settings),
    Splunk(hec::Settings),
    Webhook(webhook::Settings),
    Files(files::Settings),
}

/// What all sinks are given.
pub struct Around<'a> {
    pub data: &'a DataDir,
    pub log: &'a Arc<dyn Log>,
    pub producer: &'a Arc<Producer>,
    pub replica: &'a Replica,
    pub clock: &'a Arc<dyn Clock>,
    pub stop: watch::Receiver<bool>,
}

/// A sink that runs, and its end.
pub struct Started {
    pub running: Arc<dyn Running>,
    pub ended: JoinHandle<()>,
}

/// What a destination is made for, whichever it is.
trait Purpose {
    type Outcome;
    fn serve<S: Sink>(self, sink: S) -> Self::Outcome;
}

impl Destination {
    /// Makes what is configured.
    fn make<P: Purpose>(
        self,
        name: &str,
        secrets: Secrets,
        origin: &str,
        clock: &Arc<dyn Clock>,
        purpose: P,
    ) -> P::Outcome {
        match self {
            Self::Loki(loki) => purpose.serve(Loki::new(loki, secrets, origin, Arc::clone(clock))),
            Self::OpenSearch(opensearch) => purpose.serve(OpenSearch::new(opensearch, secrets, origin)),
            Self::Kafka(kafka) => purpose.serve(Kafka::new(kafka, secrets, name, origin)),
            Self::Syslog(syslog) => purpose.serve(Syslog::new(syslog, secrets, origin)),
            Self::Splunk(splunk) => purpose.serve(Hec::new(splunk, secrets, origin)),
            Self::Webhook(webhook) => {
                purpose.serve(Webhook::new(webhook, secrets, origin, Arc::clone(clock)))
            }
            Self::Files(files) => purpose.serve(Files::new(files, origin)),
        }
    }
}

/// To be read from.
struct ToRead;

impl Purpose for ToRead {
    type Outcome = Box<dyn Archive>;

    fn serve<S: Sink>(self, sink: S) -> Box<dyn Archive> {
        Box::new(sink)
    }
}

/// To be delivered to.
struct ToDeliver<'a, 'b> {
    around: &'a Around<'b>,
    settings: Settings,
}

impl Purpose for ToDeliver<'_, '_> {
    type Outcome = anyhow::Result<Started>;

    fn serve<S: Sink>(self, sink: S) -> anyhow::Result<Started> {
        self.around.deliver(self.settings, sink)
    }
}

/// The destination of a sink that isn't running, to be read from.
pub fn archive(
    settings: &Settings,
    data: &DataDir,
    origin: &str,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Box<dyn Archive>> {
    let destination = settings.destination().map_err(anyhow::Error::msg)?;
    Ok(destination.make(&settings.name, Secrets::new(&data.sink_secrets()), origin, clock, ToRead))
}

impl Around<'_> {
    /// Starts a sink. One that can't begin stands still.
    pub fn start(&self, settings: Settings) -> Started {
        let name = settings.name.clone();
        self.begin(settings).unwrap_or_else(|error| self.stands_still(Still::new(&name, &error)))
    }

    fn stands_still(&self, still: Still) -> Started {
        let next = stored_next(&self.data.sinks().join(still.name()));
        let told = self.replica.read(|state| state.sinks().stall(still.name()));
        let is_told = told.is_some_and(|told| is_current(told, next));
        let (stalled, producer) =
            (still.stalled(stands_at(next, self.log.size())), Arc::clone(self.producer));
        tracing::error!("the sink {} stands still: {}", still.name(), still.reason());
        let ended = tokio::spawn(async move {
            // Else each start would tell of a stall that one end is told of.
            if !is_told && let Err(error) = producer.append(stalled).await {
                tracing::error!("the log doesn't take that a sink stands still: {error}");
            }
        });
        Started { running: Arc::new(still), ended }
    }

    /// What is wrong with its files or its secrets is told here; what is wrong with its destination isn't wrong at the
    /// start.
    fn begin(&self, settings: Settings) -> anyhow::Result<Started> {
        let destination = settings.destination().map_err(anyhow::Error::msg)?;
        let name = settings.name.clone();
        let purpose = ToDeliver { around: self, settings };
        destination.make(&name, self.secrets(), self.log.origin(), self.clock, purpose)
    }

    fn secrets(&self) -> Secrets {
        Secrets::new(&self.data.sink_secrets())
    }

    fn deliver<S: Sink>(&self, settings: Settings, sink: S) -> anyhow::Result<Started> {
        let name = settings.name.clone();
        let key = match &settings.redaction_secret {
            Some(secret) => Some(self.secrets().read(secret).map_err(anyhow::Error::msg)?),
            None => None,
        };
        let key = key.as_ref().map(|key| key.as_bytes());
        let redaction = Redaction::new(settings.redact, key).map_err(anyhow::Error::msg)?;
        let (paused, stalled) = self.replica.read(|state| {
            let sinks = state.sinks();
            (sinks.paused(&name).is_some(), sinks.stall(&name))
        });
        let now = self.clock.wall();
        let delivery = Delivery::open(Parts {
            sink: Arc::new(sink),
            log: Arc::clone(self.log),
            producer: Arc::clone(self.producer),
            filter: settings.filter,
            redaction,
            directory: self.data.sinks().join(&name),
            stall: Duration::from_secs(settings.stall_seconds),
            name: settings.name,
        })?
        .told_to_stall(stalled.map(|Stall { next, since }| {
            let before = now.saturating_since(Nanos(since.nanos()));
            ToldStall { before, next }
        }));
        let (control, inbox) = delivery.control(paused);
        let stop = self.stop.clone();
        let ended = tokio::spawn(async move {
            if let Err(error) = delivery.run(inbox, stop).await {
                tracing::error!("the sink {name} has stopped, and goes on at the next start: {error}");
            }
        });
        Ok(Started { running: Arc::new(control), ended })
    }
}

/// Up to where a sink that stands still has delivered, as it is told. Where nobody can read that, it is no less than it may be: as one that
/// has come further since, the sink would be told to go on after no time at all.
fn stands_at(next: Option<u64>, size: u64) -> u64 {
    next.unwrap_or(size)
}

/// Whether a stall that was told is what keeps a sink from delivering now, whose position is `next` as far as that can be read: one that
/// has come further was well in between.
fn is_current(told: Stall, next: Option<u64>) -> bool {
    next.is_none_or(|next| next <= told.next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Configured {
        sink: Vec<Settings>,
    }

    /// What the documentation shows can be copied.
    #[test]
    fn every_example_of_the_documentation_is_a_sink() {
        let pages = [
            include_str!("../../docs/sinks.md"),
            include_str!("../../docs/sinks-kafka.md"),
            include_str!("../../docs/sinks-others.md"),
        ];
        let blocks = pages.iter().flat_map(|page| page.split("```").skip(1).step_by(2));
        let mut seen = 0;
        for block in blocks.chain([include_str!("../../docker/custody.toml")]) {
            if !block.contains("[sink.") {
                continue;
            }
            let head = if block.contains("[[sink]]") { "" } else { "[[sink]]\nname = \"shown\"\n" };
            let configured: Configured =
                toml::from_str(&format!("{head}{block}")).unwrap_or_else(|error| panic!("{error}{block}"));
            for sink in configured.sink {
                assert_eq!(sink.check(), Ok(()), "{block}");
                seen += 1;
            }
        }
        assert!(seen >= 11, "{seen} examples");
    }

    /// Nobody can use a setting that no page names, or count on a default that isn't one.
    #[test]
    fn each_setting_of_loki_and_opensearch_is_documented_with_its_default() {
        let page = include_str!("../../docs/sinks.md");
        let row = |setting: &str| {
            let row = page.lines().find_map(|line| line.strip_prefix(&format!("| `{setting}` | ")));
            row.unwrap_or_else(|| panic!("docs/sinks.md has no row for {setting}"))
        };
        for kind in ["loki", "opensearch"] {
            let unknown = format!("[[sink]]\nname = \"x\"\n[sink.{kind}]\nunheard_of = 1\n");
            let refused = toml::from_str::<Configured>(&unknown).err().unwrap().to_string();
            let (_, known) = refused.split_once("expected").unwrap();
            let settings: Vec<_> = known.split('`').skip(1).step_by(2).map(row).collect();
            assert!(settings.len() >= 2, "{refused}");
        }
        let endpoint = "endpoint = { url = \"https://a.example\" }";
        let least = format!(
            "[[sink]]\nname = \"a\"\n[sink.loki]\n{endpoint}\n[[sink]]\nname = \"b\"\n[sink.opensearch]\n{endpoint}\n"
        );
        let configured: Configured = toml::from_str(&least).unwrap();
        let (sink, loki) = (&configured.sink[0], configured.sink[0].loki.as_ref().unwrap());
        for (setting, default) in [
            ("stall_seconds", sink.stall_seconds.to_string()),
            ("job", loki.job.clone()),
            ("sends_old_again", loki.sends_old_again.to_string()),
            ("stream", configured.sink[1].opensearch.as_ref().unwrap().stream.clone()),
        ] {
            let said = row(setting).split(" | ").next().unwrap();
            assert_eq!(said.trim_matches('`'), default, "{setting}");
        }
    }

    #[test]
    fn a_stall_that_a_sink_has_left_behind_is_not_the_one_that_keeps_it_now() {
        let told = Stall { next: 5, since: custody_core::event::Timestamp::from_seconds(1) };
        let known = [None, Some(0), Some(5), Some(6)].map(|next| is_current(told, next));
        assert_eq!(known, [true, true, true, false]);
    }

    #[test]
    fn one_whose_position_can_not_be_read_has_not_come_further_when_it_can() {
        assert_eq!(stands_at(Some(7), 5_000), 7);
        let since = custody_core::event::Timestamp::from_seconds(1);
        let told = Stall { next: stands_at(None, 5_000), since };
        let known = [None, Some(0), Some(4_321), Some(5_000), Some(5_001)];
        assert_eq!(known.map(|next| is_current(told, next)), [true, true, true, true, false]);
    }

    #[test]
    fn a_sink_has_one_destination() {
        let two = "[[sink]]\nname = \"x\"\n[sink.files]\nfolder = \"/x\"\n[sink.syslog]\nserver = \"localhost:6514\"\n";
        let configured: Configured = toml::from_str(two).unwrap();
        assert!(configured.sink[0].check().unwrap_err().contains("say where to, once"));
    }
}
