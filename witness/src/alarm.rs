//! Alarms: raised once, told everywhere, and standing until somebody has looked.
//!
//! A standing alarm is a file, `alarms/<kind>.json`, beside what proves it in `evidence/`. So it survives a restart; and
//! whoever has looked into it moves the file away.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use custody_core::event::Timestamp;
use custody_core::log::durable;
use serde::{Deserialize, Serialize};

use crate::source::in_one_line;

const MODE: u32 = 0o644;
/// Between two tries to tell a webhook: doubled each time up to the second of these.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Tries before a webhook is given up: about a day.
const TRIES_MAX: u32 = 1_440;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Two checkpoints, both signed by the log's key, that aren't of one history.
    Fork,
    /// What the log serves isn't what it was.
    Rewrite,
    /// The log serves an older checkpoint than it did.
    Shrink,
    /// An event that no log of Custody holds.
    BadEvent,
    /// An event that may be honest, and that somebody should look at: numbers that are missing before it.
    OddEvent,
    /// What the log serves as its checkpoint isn't signed by its key.
    BadCheckpoint,
    /// Nothing is heard of the log.
    Silence,
}

/// The name in files, metrics and messages.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Fork => "fork",
            Kind::Rewrite => "rewrite",
            Kind::Shrink => "shrink",
            Kind::BadEvent => "bad-event",
            Kind::OddEvent => "odd-event",
            Kind::BadCheckpoint => "bad-checkpoint",
            Kind::Silence => "silence",
        })
    }
}

/// An alarm as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// What is wrong.
    pub alarm: Kind,
    /// When it was raised, by the witness's clock.
    pub at: Timestamp,
    /// Files in `evidence/` that prove it.
    pub evidence: Vec<String>,
    /// The first entry that is concerned, where it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub index: Option<u64>,
    /// The log's origin.
    pub log: String,
    /// What happened, in a sentence.
    pub message: String,
    /// The witness.
    pub witness: String,
}

/// Who is told.
#[derive(Clone)]
pub struct Webhook {
    /// A client that trusts whoever it should.
    pub http: reqwest::Client,
    /// Where alarms are POSTed as JSON.
    pub url: String,
}

/// The alarms about one log.
pub struct Alarms {
    directory: PathBuf,
    log: String,
    witness: String,
    webhook: Option<Webhook>,
    standing: Mutex<BTreeMap<Kind, Alarm>>,
    raised: AtomicU64,
    /// Webhooks that aren't delivered yet.
    untold: Arc<AtomicU64>,
}

impl Alarms {
    /// With those that stand in `directory` since an earlier run.
    ///
    /// # Errors
    /// When the directory can't be made or read.
    pub fn open(
        directory: &Path,
        log: &str,
        witness: &str,
        webhook: Option<Webhook>,
    ) -> std::io::Result<Alarms> {
        for part in ["alarms", "evidence"] {
            durable::create_directories(&directory.join(part))?;
        }
        let mut standing = BTreeMap::new();
        for item in std::fs::read_dir(directory.join("alarms"))? {
            let path = item?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Ok(alarm) = serde_json::from_slice::<Alarm>(&std::fs::read(&path)?)
            {
                tracing::error!(log, kind = %alarm.alarm, at = %alarm.at, "an alarm still stands: {}", alarm.message);
                standing.insert(alarm.alarm, alarm);
            }
        }
        Ok(Alarms {
            directory: directory.to_owned(),
            log: log.to_owned(),
            witness: witness.to_owned(),
            webhook,
            standing: Mutex::new(standing),
            raised: AtomicU64::new(0),
            untold: Arc::default(),
        })
    }

    /// Raises an alarm, unless one of its kind stands. `evidence` are texts that prove it, by what they are.
    pub fn raise(
        &self,
        kind: Kind,
        at: Timestamp,
        index: Option<u64>,
        message: String,
        evidence: &[(&str, String)],
    ) {
        let mut standing = self.lock();
        if standing.contains_key(&kind) {
            return;
        }
        let mut names = Vec::new();
        for (what, text) in evidence {
            let name = format!("{}-{kind}-{what}", at.nanos());
            match durable::write_file(&self.directory.join("evidence").join(&name), text.as_bytes(), MODE) {
                Ok(()) => names.push(name),
                Err(error) => tracing::error!(log = self.log, "evidence can't be kept: {error}"),
            }
        }
        let alarm = Alarm {
            alarm: kind,
            at,
            evidence: names,
            index,
            log: self.log.clone(),
            message,
            witness: self.witness.clone(),
        };
        tracing::error!(log = self.log, %kind, index, evidence = ?alarm.evidence, "ALARM: {}", alarm.message);
        let kept = serde_json::to_vec(&alarm)
            .map_err(std::io::Error::other)
            .and_then(|bytes| durable::write_file(&self.path(kind), &bytes, MODE));
        if let Err(error) = kept {
            tracing::error!(log = self.log, "the alarm can't be kept: {error}");
        }
        standing.insert(kind, alarm.clone());
        self.raised.fetch_add(1, Relaxed);
        if let Some(webhook) = self.webhook.clone() {
            self.untold.fetch_add(1, Relaxed);
            let untold = self.untold.clone();
            tokio::spawn(async move {
                tell(&webhook, &alarm).await;
                untold.fetch_sub(1, Relaxed);
            });
        }
    }

    /// What was wrong isn't any more, for the kinds that can end by themselves.
    pub fn clear(&self, kind: Kind) {
        if self.lock().remove(&kind).is_some() {
            tracing::warn!(log = self.log, %kind, "the alarm is over");
            if let Err(error) = std::fs::remove_file(self.path(kind))
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::error!(log = self.log, "the alarm's file can't be removed: {error}");
            }
        }
    }

    /// Forgets alarms whose file somebody moved away.
    pub fn reread(&self) {
        self.lock().retain(|kind, _| {
            let stands = self.path(*kind).exists();
            if !stands {
                tracing::warn!(log = self.log, %kind, "somebody put the alarm away");
            }
            stands
        });
    }

    /// Those that stand.
    #[must_use]
    pub fn standing(&self) -> Vec<Alarm> {
        self.lock().values().cloned().collect()
    }

    /// How many were raised since the start, and how many of them the webhook hasn't taken yet.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.raised.load(Relaxed), self.untold.load(Relaxed))
    }

    fn path(&self, kind: Kind) -> PathBuf {
        self.directory.join("alarms").join(format!("{kind}.json"))
    }

    /// Held while an alarm is raised or put away, so that each is told once.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Kind, Alarm>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn tell(webhook: &Webhook, alarm: &Alarm) {
    let mut pause = RETRY.0;
    for _ in 0..TRIES_MAX {
        let failure = match webhook.http.post(&webhook.url).json(alarm).send().await {
            Ok(answer) if answer.status().is_success() => return,
            Ok(answer) => format!("answered with {}", answer.status()),
            Err(error) => in_one_line(&error),
        };
        tracing::warn!(kind = %alarm.alarm, "the webhook didn't take the alarm: {failure}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
    tracing::error!(kind = %alarm.alarm, "the webhook never took the alarm");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raise(alarms: &Alarms, at: u64) {
        let at = Timestamp::from_seconds(at);
        alarms.raise(Kind::Fork, at, Some(7), "two histories".to_owned(), &[("ours", "a".to_owned())]);
    }

    #[test]
    fn one_stands_until_it_is_put_away_and_survives_a_restart() {
        let scratch = tempfile::TempDir::new().unwrap();
        let open = || Alarms::open(scratch.path(), "custody.example/log", "w.example", None).unwrap();
        let alarms = open();
        raise(&alarms, 5);
        raise(&alarms, 6);
        let standing = alarms.standing();
        assert_eq!(
            (standing.len(), standing[0].at, alarms.counts()),
            (1, Timestamp::from_seconds(5), (1, 0))
        );
        let evidence = scratch.path().join("evidence").join(&standing[0].evidence[0]);
        assert_eq!(std::fs::read_to_string(evidence).unwrap(), "a");
        let again = open();
        assert_eq!(again.standing(), standing);
        again.reread();
        assert_eq!(again.standing(), standing);
        std::fs::remove_file(scratch.path().join("alarms/fork.json")).unwrap();
        again.reread();
        assert_eq!(again.standing(), []);
        raise(&again, 7);
        again.clear(Kind::Fork);
        assert_eq!((again.standing(), open().standing()), (vec![], vec![]));
    }
}
