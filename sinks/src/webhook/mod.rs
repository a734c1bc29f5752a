//! Webhooks as Standard Webhooks 1.0 has them: signed batches of events by POST.
//!
//! A receiver knows by the signature that Custody sent a batch, by `webhook-id` that it had this very batch before, and
//! by each event's index that it had the event before: a batch whose answer was lost is sent again, and perhaps cut in
//! another way. So `webhook-id` follows from what is in the body; one that followed from the first index alone would make
//! a receiver pass over events that it never had. To what it has had it may say 409 ([`doubt`]).

mod doubt;
mod sign;
#[cfg(test)]
mod tests;

pub use self::sign::{KeyError, make, public};

use self::doubt::Doubt;
use self::sign::{Key, Message};
use crate::format::{envelope, logged};
use crate::http::{Answered, Endpoint, Http};
use crate::item::Item;
use crate::secret::Secrets;
use crate::sink::{Answer, Found, Limits, Sink, Trouble, Unproven, Window};
use custody_core::clock::Clock;
use custody_core::event::Timestamp;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Keys that sign at once: the new one and the old one, of both kinds.
const KEYS_MAX: usize = 4;
/// Events in a batch. The standard recommends short bodies.
const EVENTS: usize = 100;
const EVENTS_MAX: usize = 5_000;
const BODY_BYTES: usize = 256 << 10;
/// `type` of the body.
const KIND: &str = "events.appended";

/// `[sink.webhook]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The receiver.
    pub endpoint: Endpoint,
    /// The names of the secrets that sign, the newest first: `whsk_…` for Ed25519 (`v1a`), `whsec_…` for HMAC-SHA256
    /// (`v1`). While a key is changed both stand here.
    pub sign_with: Vec<String>,
    /// Events in a batch at most.
    #[serde(default = "events")]
    pub events_max: usize,
}

const fn events() -> usize {
    EVENTS
}

impl Settings {
    /// Whether they make sense.
    ///
    /// # Errors
    /// What doesn't.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=KEYS_MAX).contains(&self.sign_with.len()) {
            return Err(format!("sign_with must name 1 to {KEYS_MAX} secrets: see `custodyd webhook-key`"));
        }
        if !(1..=EVENTS_MAX).contains(&self.events_max) {
            return Err(format!("events_max = {} must be 1 to {EVENTS_MAX}", self.events_max));
        }
        self.endpoint.check()
    }
}

/// Delivers to a webhook.
pub struct Webhook {
    http: Http,
    secrets: Secrets,
    sign_with: Vec<String>,
    events_max: usize,
    origin: String,
    clock: Arc<dyn Clock>,
    /// Which bodies may have arrived.
    doubt: Mutex<Doubt>,
}

/// An event as it stands in a body.
pub struct Encoded {
    index: u64,
    appended: Timestamp,
    entry: Vec<u8>,
}

impl Webhook {
    /// For the log with that origin.
    #[must_use]
    pub fn new(settings: Settings, secrets: Secrets, origin: &str, clock: Arc<dyn Clock>) -> Self {
        Self {
            http: Http::new(settings.endpoint, secrets.clone()),
            secrets,
            sign_with: settings.sign_with,
            events_max: settings.events_max,
            origin: origin.to_owned(),
            doubt: Mutex::new(Doubt::new(clock.wall().into())),
            clock,
        }
    }

    fn doubt(&self) -> MutexGuard<'_, Doubt> {
        self.doubt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body, which follows from the events alone.
    fn body(batch: &[&Encoded]) -> Vec<u8> {
        let newest = batch.last().map(|encoded| encoded.appended.to_string()).unwrap_or_default();
        let mut body =
            format!("{{\"type\":\"{KIND}\",\"timestamp\":\"{newest}\",\"data\":{{\"entries\":[").into_bytes();
        for (n, encoded) in batch.iter().enumerate() {
            if n > 0 {
                body.push(b',');
            }
            body.extend_from_slice(&encoded.entry);
        }
        body.extend_from_slice(b"]}}");
        body
    }

    /// Reads the keys anew, so that a new one counts at once.
    fn keys(&self) -> Result<Vec<Key>, Trouble> {
        let key = |name: &String| {
            let text = self.secrets.read(name)?;
            Key::parse(&text).map_err(|error| format!("the secret {name}: {error}"))
        };
        self.sign_with.iter().map(key).collect::<Result<_, _>>().map_err(|reason| Trouble::Denied { reason })
    }
}

/// What an answer means (Standard Webhooks, "Delivery success and failure").
fn settled(answered: &Answered) -> Result<(), Trouble> {
    let reason = answered.reason();
    match answered.status {
        status if status.is_success() => Ok(()),
        StatusCode::GONE => {
            Err(Trouble::Denied { reason: format!("the receiver wants no more webhooks: {reason}") })
        }
        // It would be sent to somebody who isn't configured.
        status if status.is_redirection() => {
            Err(Trouble::Denied { reason: format!("the receiver is elsewhere, set its url: {reason}") })
        }
        // The standard has us slow down at 429, 502 and 504. Somebody in between says 502 to 504 also of what the receiver took and
        // didn't answer in order, with `Retry-After` or without, so no status from 500 on says that nothing arrived.
        _ => Err(answered.trouble()),
    }
}

impl Sink for Webhook {
    type Encoded = Encoded;

    fn limits(&self) -> Limits {
        Limits {
            batch_events: self.events_max,
            batch_bytes: BODY_BYTES,
            // In the log's order.
            in_flight: 1,
            linger: Duration::from_millis(200),
            // The standard recommends 15 to 30.
            timeout: Duration::from_secs(30),
            ..Limits::default()
        }
    }

    async fn prepare(&self) -> Result<(), Trouble> {
        self.keys().map(drop)
    }

    fn encode(&self, item: &Item) -> Result<Encoded, String> {
        let logged = logged(item, &self.origin);
        let (index, appended) = (logged.index, logged.appended);
        Ok(Encoded { index, appended, entry: envelope(&logged, item.redacted) })
    }

    fn bytes(encoded: &Encoded) -> usize {
        encoded.entry.len() + 1
    }

    async fn send(&self, batch: &[&Encoded]) -> Result<Vec<Answer>, Trouble> {
        let body = Self::body(batch);
        let message = Message::new(&self.origin, self.clock.wall(), &body);
        let signature = message.signatures(&self.keys()?).map_err(|reason| Trouble::Denied { reason })?;
        let (id, timestamp) = (message.id, message.timestamp.to_string());
        let request = self
            .http
            .request(Method::POST, "")?
            .header("content-type", "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(body);
        // What stands behind it isn't reached when the time for the answer is over.
        let attempt = self.doubt().begin(id, batch);
        let ended = self.http.answer(request).await;
        self.doubt().ended(&attempt, ended)?;
        Ok(vec![Answer::Stored; batch.len()])
    }

    async fn read_back(&self, _: &Window) -> Result<Found, Unproven> {
        Err(Unproven::Never("a webhook's receiver can't be asked what it holds"))
    }
}
