//! Alarms: raised once, told everywhere, and standing until somebody has looked.
//!
//! A standing alarm is a file, `alarms/<kind>.json`, beside what proves it in `evidence/`. So it survives a restart; and
//! whoever has looked into it moves the file away. The file also says whether the webhook has taken it: one that wasn't
//! taken is told again after a restart.

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

/// An alarm as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    alarm: Alarm,
    /// Whether a webhook has taken it. A file that doesn't say so may be of one that never did: twice is better than not
    /// at all.
    #[serde(default)]
    told: bool,
}

impl Kept {
    fn write(&self, path: &Path) -> std::io::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(std::io::Error::other)?;
        durable::write_file(path, &bytes, MODE)
    }
}

type Standing = BTreeMap<Kind, Kept>;

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
    standing: Arc<Mutex<Standing>>,
    raised: AtomicU64,
    /// Webhooks that aren't delivered yet.
    untold: Arc<AtomicU64>,
}

impl Alarms {
    /// With those that stand in `directory` since an earlier run; the webhook is told of those that it hasn't taken, which
    /// needs a runtime.
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
        let mut standing = Standing::new();
        for item in std::fs::read_dir(directory.join("alarms"))? {
            let path = item?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Ok(kept) = serde_json::from_slice::<Kept>(&std::fs::read(&path)?)
            {
                let Alarm { alarm, at, message, .. } = &kept.alarm;
                tracing::error!(log, kind = %alarm, %at, "an alarm still stands: {message}");
                standing.insert(kept.alarm.alarm, kept);
            }
        }
        let untold: Vec<Alarm> =
            standing.values().filter(|kept| !kept.told).map(|kept| kept.alarm.clone()).collect();
        let alarms = Alarms {
            directory: directory.to_owned(),
            log: log.to_owned(),
            witness: witness.to_owned(),
            webhook,
            standing: Arc::new(Mutex::new(standing)),
            raised: AtomicU64::new(0),
            untold: Arc::default(),
        };
        untold.into_iter().for_each(|alarm| alarms.tell(alarm));
        Ok(alarms)
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
        let kept = Kept { alarm: alarm.clone(), told: false };
        if let Err(error) = kept.write(&self.path(kind)) {
            tracing::error!(log = self.log, "the alarm can't be kept: {error}");
        }
        standing.insert(kind, kept);
        self.raised.fetch_add(1, Relaxed);
        self.tell(alarm);
    }

    /// Tells the webhook, if there is one, in a task of its own.
    fn tell(&self, alarm: Alarm) {
        let Some(webhook) = self.webhook.clone() else { return };
        self.untold.fetch_add(1, Relaxed);
        let (untold, standing, path) =
            (Arc::clone(&self.untold), Arc::clone(&self.standing), self.path(alarm.alarm));
        tokio::spawn(async move {
            if tell(&webhook, &alarm).await {
                taken(&standing, &alarm, &path);
            }
            untold.fetch_sub(1, Relaxed);
        });
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
        self.lock().values().map(|kept| kept.alarm.clone()).collect()
    }

    /// How many were raised since the start, and how many the webhook hasn't taken yet: of these, and of those before.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.raised.load(Relaxed), self.untold.load(Relaxed))
    }

    fn path(&self, kind: Kind) -> PathBuf {
        self.directory.join("alarms").join(format!("{kind}.json"))
    }

    /// Held while an alarm is raised or put away, so that each is told once.
    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The webhook has taken the alarm: it isn't told again after a restart. One that was put away meanwhile stays away.
fn taken(standing: &Mutex<Standing>, alarm: &Alarm, path: &Path) {
    let mut standing = standing.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(kept) = standing.get_mut(&alarm.alarm).filter(|kept| kept.alarm == *alarm) else { return };
    kept.told = true;
    if path.exists()
        && let Err(error) = kept.write(path)
    {
        tracing::error!(kind = %alarm.alarm, "that the webhook has taken the alarm can't be kept: {error}");
    }
}

/// Whether the webhook took it in the end.
async fn tell(webhook: &Webhook, alarm: &Alarm) -> bool {
    let mut pause = RETRY.0;
    for _ in 0..TRIES_MAX {
        let failure = match webhook.http.post(&webhook.url).json(alarm).send().await {
            Ok(answer) if answer.status().is_success() => return true,
            Ok(answer) => format!("answered with {}", answer.status()),
            Err(error) => in_one_line(&error),
        };
        tracing::warn!(kind = %alarm.alarm, "the webhook didn't take the alarm: {failure}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
    tracing::error!(kind = %alarm.alarm, "the webhook never took the alarm");
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::http_client;
    use axum::Router;
    use axum::extract::State;
    use axum::routing::post;

    /// Takes what is POSTed; gives how it is reached.
    async fn webhook(heard: Arc<Mutex<Vec<String>>>) -> Webhook {
        let hear = |State(heard): State<Arc<Mutex<Vec<String>>>>, body: String| async move {
            heard.lock().unwrap().push(body);
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let routes = Router::new().route("/", post(hear)).with_state(heard);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Webhook { http: http_client(None).unwrap(), url }
    }

    async fn until_told(alarms: &Alarms) {
        let told = async {
            while alarms.counts().1 > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), told).await.expect("the webhook takes it");
    }

    #[tokio::test]
    async fn what_the_webhook_has_not_taken_is_told_after_a_restart_and_what_it_has_is_not() {
        let scratch = tempfile::TempDir::new().unwrap();
        let open = |webhook| {
            Alarms::open(scratch.path(), "custody.example/log", "w.example", Some(webhook)).unwrap()
        };
        let nobody = Webhook { http: http_client(None).unwrap(), url: "http://127.0.0.1:9/".to_owned() };
        let before = open(nobody.clone());
        raise(&before, 5);
        assert_eq!(before.counts(), (1, 1));
        drop(before);

        let heard = Arc::new(Mutex::new(Vec::new()));
        let hook = webhook(Arc::clone(&heard)).await;
        let again = open(hook.clone());
        until_told(&again).await;
        let told: Alarm = serde_json::from_str(&heard.lock().unwrap()[0]).unwrap();
        assert_eq!(again.standing(), [told]);
        assert_eq!(again.counts(), (0, 0));
        drop(again);
        assert_eq!(open(nobody).counts(), (0, 0), "it was taken");

        // As witnesses wrote it that didn't keep that.
        let path = scratch.path().join("alarms/fork.json");
        let kept = std::fs::read_to_string(&path).unwrap();
        let old = kept.replace(",\"told\":true", "");
        assert_ne!(old, kept);
        durable::write_file(&path, old.as_bytes(), MODE).unwrap();
        let last = open(hook);
        until_told(&last).await;
        assert_eq!(heard.lock().unwrap().len(), 2);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), kept);
    }

    #[tokio::test]
    async fn what_was_put_away_while_it_was_told_stays_away() {
        let scratch = tempfile::TempDir::new().unwrap();
        let hook = webhook(Arc::default()).await;
        let alarms = Alarms::open(scratch.path(), "custody.example/log", "w.example", Some(hook)).unwrap();
        raise(&alarms, 5);
        // The webhook's task runs only when this one waits.
        let path = scratch.path().join("alarms/fork.json");
        std::fs::remove_file(&path).unwrap();
        until_told(&alarms).await;
        assert!(!path.exists());
    }

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
