//! Splunk's HTTP Event Collector, with indexer acknowledgement.
//!
//! "Success" of a collector means that it took the events into its memory. Only the acknowledgement, which is asked for
//! until it comes, means that an indexer has them. One that doesn't come is no refusal: perhaps they are there, and so they
//! are looked up by Splunk's search, where that is configured, or sent again.

pub(crate) mod answer;
mod channel;
mod search;
mod sent;
#[cfg(test)]
mod tests;

use self::answer::{Acknowledged, Outcome};
use self::channel::Channel;
use self::sent::Sent;
use crate::format::{Format, logged};
use crate::http::{Answered, Endpoint, Http};
use crate::item::Item;
use crate::secret::Secrets;
use crate::sink::{Answer, Found, Limits, Sink, Trouble, Unproven, Window};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custody_core::clock::Nanos;
use custody_core::event::hex::to_hex;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, COOKIE};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often is asked whether a batch is indexed, from the first time to the last.
const ASK_FIRST: Duration = Duration::from_millis(100);
const ASK_LAST: Duration = Duration::from_secs(2);
const ACKNOWLEDGE_SECONDS: u64 = 60;
const ACKNOWLEDGE_SECONDS_MAX: u64 = 600;
/// Requests beside the asking may take so long.
const REQUEST: Duration = Duration::from_secs(30);
/// How long it may take until a search shows what an indexer has.
const SHOWN_SECONDS: u64 = 30;

/// `[sink.splunk]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The collector, `https://splunk.example:8088`.
    pub endpoint: Endpoint,
    /// Whether the token has indexer acknowledgement; without it events are lost when Splunk stops at the wrong moment.
    #[serde(default = "acknowledged")]
    pub acknowledged: bool,
    /// How long an acknowledgement may take, in seconds.
    #[serde(default = "acknowledge_seconds")]
    pub acknowledge_seconds: u64,
    /// The index; the token's own without one.
    pub index: Option<String>,
    /// What stands as source.
    #[serde(default = "source")]
    pub source: String,
    /// What stands as source type.
    #[serde(default = "sourcetype")]
    pub sourcetype: String,
    /// What stands as host; the log's origin without one.
    pub host: Option<String>,
    /// What an event holds.
    #[serde(default)]
    pub format: Format,
    /// Splunk's management interface, `https://splunk.example:8089`, by which is looked up what is there.
    pub search: Option<Endpoint>,
    /// How long it may take until a search shows what an indexer has, in seconds: until then nothing counts as missing.
    #[serde(default = "shown_seconds")]
    pub shown_seconds: u64,
}

const fn acknowledged() -> bool {
    true
}

const fn acknowledge_seconds() -> u64 {
    ACKNOWLEDGE_SECONDS
}

const fn shown_seconds() -> u64 {
    SHOWN_SECONDS
}

fn source() -> String {
    "custody".to_owned()
}

fn sourcetype() -> String {
    "custody:event".to_owned()
}

impl Settings {
    /// Whether they make sense.
    ///
    /// # Errors
    /// What doesn't.
    pub fn check(&self) -> Result<(), String> {
        let names = [
            ("index", self.index.as_ref()),
            ("source", Some(&self.source)),
            ("sourcetype", Some(&self.sourcetype)),
        ];
        for (what, name) in names {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
            if let Some(name) = name
                && (name.is_empty() || name.len() > 128 || !name.chars().all(plain))
            {
                return Err(format!("{what} = \"{name}\" must be 1 to 128 letters, digits, - _ . or :"));
            }
        }
        if !(1..=ACKNOWLEDGE_SECONDS_MAX).contains(&self.acknowledge_seconds) {
            return Err(format!("acknowledge_seconds must be 1 to {ACKNOWLEDGE_SECONDS_MAX}"));
        }
        if let Some(search) = &self.search {
            search.check().map_err(|error| format!("search: {error}"))?;
            if self.index.is_none() {
                return Err("search needs to know the index: set index".to_owned());
            }
            if self.format != Format::Custody {
                return Err("search proves events of format = \"custody\" only".to_owned());
            }
        }
        self.endpoint.check()
    }

    /// How long a batch may take, from its request to its acknowledgement.
    fn timeout(&self) -> Duration {
        REQUEST * 2 + Duration::from_secs(self.acknowledge_seconds)
    }
}

/// Delivers to a collector.
pub struct Hec {
    http: Http,
    search: Option<Http>,
    settings: Settings,
    origin: String,
    /// Channels whose last batch was acknowledged, or refused. Behind a balancer, an acknowledgement that was never fetched could be
    /// taken for a later batch's; so a channel has one batch at a time, and isn't used again when the fate of one isn't known. A
    /// channel for each batch would be simpler, but collectors keep them all unless they are told to forget them, and
    /// have room for a million.
    channels: Mutex<Vec<Channel>>,
    /// What a search may not show yet.
    sent: Sent,
}

/// An event with its time and its fields, as JSON.
pub struct Encoded {
    index: u64,
    event: Vec<u8>,
}

impl Hec {
    /// For the log with that origin.
    #[must_use]
    pub fn new(settings: Settings, secrets: Secrets, origin: &str) -> Self {
        let shown = Duration::from_secs(settings.shown_seconds);
        // A comparison waits for a search twice as long as a delivery.
        let sent = Sent::new(shown, settings.timeout().saturating_mul(2), Instant::now());
        Self {
            http: Http::new(settings.endpoint.clone(), secrets.clone()),
            search: settings.search.clone().map(|endpoint| Http::new(endpoint, secrets)),
            settings,
            origin: origin.to_owned(),
            channels: Mutex::default(),
            sent,
        }
    }

    /// A channel that no batch is under way in.
    fn channel(&self) -> Channel {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_else(Channel::new)
    }

    /// Nothing is open in it: it may be used again.
    fn give_back(&self, channel: Channel) {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
    }

    /// Sends a request of a channel.
    async fn send_in(&self, channel: &mut Channel, path: &str, body: Vec<u8>) -> Result<Answered, Trouble> {
        let mut request = self
            .http
            .request(Method::POST, path)?
            .header(CONTENT_TYPE, "application/json")
            .header("x-splunk-request-channel", channel.id.to_string())
            .timeout(REQUEST)
            .body(body);
        if let Some(cookie) = channel.cookie() {
            request = request.header(COOKIE, cookie);
        }
        let answered = self.http.answer(request).await?;
        channel.heard(&answered.headers);
        Ok(answered)
    }

    /// Asks what is acknowledged of these numbers.
    async fn ask(&self, channel: &mut Channel, ids: &[u64]) -> Result<Answered, Trouble> {
        let path = format!("/services/collector/ack?channel={}", channel.id);
        let question = serde_json::json!({ "acks": ids }).to_string().into_bytes();
        self.send_in(channel, &path, question).await
    }

    /// Asks until an indexer has the batch.
    async fn acknowledgement(&self, channel: &mut Channel, id: u64) -> Result<(), Trouble> {
        let limit = Duration::from_secs(self.settings.acknowledge_seconds);
        let (begun, mut pause, mut wait) = (Instant::now(), ASK_FIRST, ASK_FIRST);
        loop {
            tokio::time::sleep(wait).await;
            let (instead, retry_after) = match answer::acknowledged(self.ask(channel, &[id]).await, id)? {
                Acknowledged::Yes => return Ok(()),
                Acknowledged::NotYet => (String::new(), None),
                Acknowledged::Unsaid { reason, retry_after } => (format!(": {reason}"), retry_after),
            };
            let left = limit.saturating_sub(begun.elapsed());
            if left.is_zero() {
                let seconds = limit.as_secs();
                return Err(Trouble::unclear(format!(
                    "no indexer has acknowledged it in {seconds} s{instead}"
                )));
            }
            pause = (pause * 2).min(ASK_LAST);
            wait = pause.max(retry_after.unwrap_or_default()).min(left);
        }
    }

    async fn deliver(&self, batch: &[&Encoded]) -> Result<Vec<Answer>, Trouble> {
        let body = batch.iter().flat_map(|encoded| encoded.event.iter().copied()).collect();
        let mut channel = self.channel();
        let answered = self.send_in(&mut channel, "/services/collector/event", body).await;
        let taken = answered.and_then(|answered| answer::outcome(&answered));
        if taken.as_ref().is_err_and(|trouble| !trouble.leaves_doubt()) {
            // Where a balancer leads back to this collector, another one may take what this one doesn't.
            self.give_back(channel.clone().led_nowhere());
        }
        match taken? {
            Outcome::Taken(acknowledgement) => {
                if self.settings.acknowledged {
                    // It had acknowledgement when it was made ready: it will be asked again before anything else is sent.
                    let id = acknowledgement.ok_or_else(|| {
                        Trouble::unclear("the batch was taken without an acknowledgement to come")
                    })?;
                    self.acknowledgement(&mut channel, id).await?;
                }
                self.give_back(channel);
                Ok(vec![Answer::Stored; batch.len()])
            }
            // What stands before it may have been taken. With a search that is looked up.
            Outcome::Invalid { reason, .. } if self.search.is_some() && batch.len() > 1 => {
                Err(Trouble::Poisoned { reason })
            }
            Outcome::Invalid { event: Some(event), reason } if event < batch.len() => {
                let others = || Answer::Later(format!("another event of the batch is invalid: {reason}"));
                let mut answers: Vec<Answer> = batch.iter().map(|_| others()).collect();
                if let Some(answer) = answers.get_mut(event) {
                    *answer = Answer::Rejected(reason.clone());
                }
                Ok(answers)
            }
            Outcome::Invalid { reason, .. } => Err(Trouble::Poisoned { reason }),
        }
    }
}

/// Whether nothing of a batch has arrived, for sure.
fn nothing_arrived(answers: &Result<Vec<Answer>, Trouble>) -> bool {
    match answers {
        Ok(answers) => answers.iter().all(|answer| matches!(answer, Answer::Rejected(_))),
        Err(trouble) => !trouble.leaves_doubt(),
    }
}

/// Seconds since the epoch with nine digits behind the point: a number for JSON, without a float's loss.
fn seconds(time: Nanos) -> String {
    format!("{}.{:09}", time.0 / 1_000_000_000, time.0 % 1_000_000_000)
}

impl Sink for Hec {
    type Encoded = Encoded;

    fn limits(&self) -> Limits {
        Limits {
            batch_events: 1_000,
            // A collector takes 1,000,000 bytes and more (`max_content_length`).
            batch_bytes: 800_000,
            // Each waits for its acknowledgement, which an indexer may take seconds for.
            in_flight: if self.settings.acknowledged { 12 } else { 2 },
            linger: Duration::from_millis(200),
            timeout: self.settings.timeout(),
            ..Limits::default()
        }
    }

    async fn prepare(&self) -> Result<(), Trouble> {
        if !self.settings.acknowledged {
            return Ok(());
        }
        // A token without acknowledgement takes events all the same: they would be sent again and again.
        let mut channel = self.channel();
        let answered = self.ask(&mut channel, &[]).await?;
        let acknowledges = answer::acknowledges(&answered);
        self.give_back(if acknowledges.is_ok() { channel } else { channel.led_nowhere() });
        acknowledges
    }

    fn encode(&self, item: &Item) -> Result<Encoded, String> {
        let logged = logged(item, &self.origin);
        let mut fields = Map::new();
        let mut field = |name: &str, value: String| drop(fields.insert(name.to_owned(), value.into()));
        field("log_appended", item.appended.to_string());
        field("log_index", item.index.to_string());
        field("log_leaf", to_hex(&item.leaf.0));
        field("log_origin", self.origin.clone());
        // Not by a name that the event has itself: Splunk would have both values of it, and count each.
        if let Some(head) = item.head() {
            field("log_type", head.kind.to_string());
        }
        if item.redacted {
            field("redacted", "true".to_owned());
        }
        // As text, so that the event stands there byte by byte: of an object Splunk makes its own.
        let text = match String::from_utf8(self.settings.format.of(&logged).into_owned()) {
            Ok(text) if !text.trim().is_empty() => text,
            Ok(text) => {
                field("encoding", "base64".to_owned());
                format!("base64:{}", STANDARD.encode(text))
            }
            Err(error) => {
                field("encoding", "base64".to_owned());
                format!("base64:{}", STANDARD.encode(error.as_bytes()))
            }
        };
        let mut event = Map::new();
        let host = self.settings.host.as_deref().unwrap_or(&self.origin);
        let about = [
            ("host", Some(host)),
            ("index", self.settings.index.as_deref()),
            ("source", Some(self.settings.source.as_str())),
            ("sourcetype", Some(self.settings.sourcetype.as_str())),
        ];
        for (name, value) in about {
            if let Some(value) = value {
                event.insert(name.to_owned(), value.into());
            }
        }
        event.insert("event".to_owned(), text.into());
        event.insert("fields".to_owned(), Value::Object(fields));
        let event = Value::Object(event).to_string();
        // The time goes in by hand: a float hasn't got so many digits.
        let rest = event.strip_prefix('{').unwrap_or_default();
        let event = format!("{{\"time\":{},{rest}\n", seconds(item.appended)).into_bytes();
        Ok(Encoded { index: item.index, event })
    }

    fn bytes(encoded: &Encoded) -> usize {
        encoded.event.len()
    }

    async fn send(&self, batch: &[&Encoded]) -> Result<Vec<Answer>, Trouble> {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return Ok(Vec::new()) };
        let under_way = self.sent.begin(first.index..last.index.saturating_add(1), Instant::now());
        let answers = self.deliver(batch).await;
        if nothing_arrived(&answers) {
            under_way.forget();
        }
        answers
    }

    async fn read_back(&self, window: &Window) -> Result<Found, Unproven> {
        let (Some(http), Some(index)) = (&self.search, &self.settings.index) else {
            return Err(Unproven::Never("no search is configured, by which Splunk would show what it holds"));
        };
        let form = search::form(window, index, &self.settings.sourcetype, &self.origin);
        let request = http
            .request(Method::POST, "/services/search/v2/jobs/export")
            .map_err(|error| Unproven::Now(error.to_string()))?
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        // By then it counts what is shown: what arrives while it is answered needn't be in the answer.
        let asked = Instant::now();
        let answered = http.shown(request).await?;
        if !answered.status.is_success() {
            return Err(Unproven::Now(answered.reason()));
        }
        let documents = search::documents(&answered.body, window, &self.origin).map_err(Unproven::Now)?;
        let hides = self.sent.hides(&window.indexes, asked);
        let perhaps_more =
            hides.then(|| "Splunk's search may not show yet what its indexers have".to_owned());
        Ok(Found { documents, perhaps_more })
    }
}
