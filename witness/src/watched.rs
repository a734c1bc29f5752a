//! One log that is watched: what it submits is judged, what it serves is read again and again.
//!
//! Order of a submission: check, copy, persist, answer. A crash anywhere leaves either the old head or the new one, and
//! no cosignature was given out that the head doesn't know of. The copy may be longer than the head: it is under the
//! log's own signature, and nobody was told.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use custody_core::clock::Clock;
use custody_core::event::Timestamp;
use custody_core::log::checkpoint::CheckpointError;
use custody_core::log::embedded::OpenError;
use custody_core::log::embedded::import::CopiedLog;
use custody_core::log::note::NoteError;
use custody_core::log::tree::verify_consistency;
use custody_core::log::{Checkpoint, Cosigner, Log as _, VerifierKey};
use tokio::task::block_in_place;

use crate::add_checkpoint::{AddCheckpoint, Refusal, judge};
use crate::alarm::{Alarms, Kind, Webhook};
use crate::copy::{CopyError, LogCopy, differs_in, first_difference};
use crate::head::{Head, HeadError};
use crate::source::{BUNDLE_ENTRIES, Source};

/// How long a submission waits for what has to be copied first. The copying goes on when it is over.
const COPY_PATIENCE: Duration = Duration::from_secs(20);
/// How long a log may serve an older checkpoint than it submitted: its own readers may cache it for some seconds.
const SHRUNK_PATIENCE: Duration = Duration::from_secs(15);
/// Signed checkpoints of sizes that the copy hasn't reached yet, kept to be held against it later.
const SUSPECTS_MAX: usize = 32;
/// Entries that are read again in each round, in bundles of 256: a small log whole within ten rounds.
const RECHECK_BUNDLES_MAX: u64 = 16;
const RECHECK_ROUNDS: u64 = 10;

/// Which log is watched, and how.
pub struct Watch {
    /// Its key; the name is its origin.
    pub key: VerifierKey,
    /// Where it is served, for reading it.
    pub source: Option<Source>,
    /// Whether its entries are copied and looked at before they are cosigned; needs `source`.
    pub copy: bool,
    /// Broken events that somebody has looked at and accepted.
    pub accepted: Vec<u64>,
    /// How long nothing may be heard of it.
    pub silence: Duration,
}

/// What was answered to a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200: the signature line.
    Cosigned(String),
    /// 400.
    Malformed(&'static str),
    /// 403.
    NotSigned,
    /// 409 with the size that is known.
    Conflict(u64),
    /// 422.
    Unprocessable(String),
    /// 500: what is known couldn't be made durable.
    Failed,
    /// 503: not now.
    NotYet(String),
}

/// What is told of a log.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Entries that are cosigned.
    pub cosigned: u64,
    /// Entries that are copied.
    pub copied: u64,
    /// Cosignatures since the start.
    pub cosignatures: u64,
    /// Seconds since the last submission that was cosigned, since the start if there was none.
    pub submitted_seconds_ago: u64,
    /// Seconds since the log's own checkpoint was last read, since the start if it never was.
    pub read_seconds_ago: u64,
    /// Why the last round didn't get further.
    pub trouble: Option<String>,
}

/// Why a log can't be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// What was cosigned.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The copy.
    #[error(transparent)]
    Copy(#[from] OpenError),
    /// Alarms can't be kept.
    #[error("{path}: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A copy needs somewhere to copy from.
    #[error("the log {0} is to be copied, and has no url to copy it from")]
    NoSource(String),
}

/// A log that is watched.
pub struct Watched {
    watch: Watch,
    cosigner: Cosigner,
    clock: Arc<dyn Clock>,
    alarms: Alarms,
    /// Held from the check of a submission to its answer: check and persist are one step.
    head: tokio::sync::Mutex<Head>,
    /// Held while the copy grows or is compared.
    copy: Option<tokio::sync::Mutex<LogCopy>>,
    /// What readers see.
    shown: Mutex<Shown>,
    suspects: Mutex<VecDeque<Checkpoint>>,
    cosignatures: AtomicU64,
}

struct Shown {
    cosigned: Option<Checkpoint>,
    copied: Option<CopiedLog>,
    submitted: Duration,
    read: Duration,
    shrunk: Option<Duration>,
    foreign: bool,
    trouble: Option<String>,
    /// The next bundle to be read again.
    recheck: u64,
}

impl Watched {
    /// Begins to watch, or goes on, with what `directory` holds of this log.
    ///
    /// # Errors
    /// See [`WatchError`].
    pub fn open(
        directory: &Path,
        watch: Watch,
        cosigner: Cosigner,
        clock: Arc<dyn Clock>,
        webhook: Option<Webhook>,
    ) -> Result<Watched, WatchError> {
        let origin = watch.key.name().to_owned();
        if watch.copy && watch.source.is_none() {
            return Err(WatchError::NoSource(origin));
        }
        let head = Head::open(directory, &watch.key)?;
        let copy = if watch.copy {
            Some(LogCopy::open(&directory.join("log"), &watch.key, watch.accepted.clone())?)
        } else {
            None
        };
        let alarms = Alarms::open(directory, &origin, cosigner.key().name(), webhook)
            .map_err(|source| WatchError::Io { path: directory.to_owned(), source })?;
        let now = clock.monotonic();
        let shown = Shown {
            cosigned: head.newest().cloned(),
            copied: copy.as_ref().and_then(LogCopy::log),
            submitted: now,
            read: now,
            shrunk: None,
            foreign: false,
            trouble: None,
            recheck: 0,
        };
        Ok(Watched {
            watch,
            cosigner,
            clock,
            alarms,
            head: tokio::sync::Mutex::new(head),
            copy: copy.map(tokio::sync::Mutex::new),
            shown: Mutex::new(shown),
            suspects: Mutex::new(VecDeque::new()),
            cosignatures: AtomicU64::new(0),
        })
    }

    /// The log's origin.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.watch.key.name()
    }

    /// The alarms about it.
    #[must_use]
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// The newest checkpoint that was cosigned, with both signatures.
    #[must_use]
    pub fn cosigned(&self) -> Option<Checkpoint> {
        self.shown().cosigned.clone()
    }

    /// The copy, as far as it is sealed.
    #[must_use]
    pub fn copied(&self) -> Option<CopiedLog> {
        self.shown().copied.clone()
    }

    /// How it stands.
    #[must_use]
    pub fn told(&self) -> Told {
        let now = self.clock.monotonic();
        let shown = self.shown();
        Told {
            cosigned: shown.cosigned.as_ref().map_or(0, Checkpoint::size),
            copied: shown.copied.as_ref().map_or(0, CopiedLog::size),
            cosignatures: self.cosignatures.load(Relaxed),
            submitted_seconds_ago: now.saturating_sub(shown.submitted).as_secs(),
            read_seconds_ago: now.saturating_sub(shown.read).as_secs(),
            trouble: shown.trouble.clone(),
        }
    }

    /// Judges a submission, and cosigns it if it is in order. Needs a runtime with several threads.
    pub async fn add_checkpoint(self: &Arc<Self>, request: AddCheckpoint) -> Answer {
        let new = match Checkpoint::verify(&request.note, &self.watch.key) {
            Ok(new) => new,
            Err(CheckpointError::Note(NoteError::NotSigned(_) | NoteError::BadSignature(_))) => {
                return Answer::NotSigned;
            }
            Err(_) => return Answer::Malformed("its checkpoint can't be read"),
        };
        let mut head = self.head.lock().await;
        if let Err(refusal) = judge(head.known(), request.old, &request.proof, &new) {
            return self.refuse(refusal, head.newest().cloned(), new);
        }
        if head.known().is_none_or(|(size, _)| size < new.size())
            && let Err(answer) = self.copied_first(&new, head.known()).await
        {
            return answer;
        }
        let now = Timestamp::from(self.clock.wall());
        let cosigned = match self.cosigner.cosign(new.note(), now) {
            Ok(cosigned) => cosigned,
            Err(error) => {
                tracing::error!(log = self.origin(), "no cosignature can be made: {error}");
                return Answer::Failed;
            }
        };
        if let Err(error) = block_in_place(|| head.advance(new, &cosigned)) {
            tracing::error!(
                log = self.origin(),
                "a cosigned checkpoint can't be kept, so it isn't given out: {error}"
            );
            return Answer::Failed;
        }
        self.cosignatures.fetch_add(1, Relaxed);
        let mut shown = self.shown();
        shown.cosigned = head.newest().cloned();
        shown.submitted = self.clock.monotonic();
        Answer::Cosigned(format!("{}\n", cosigned.line()))
    }

    fn refuse(&self, refusal: Refusal, known: Option<Checkpoint>, new: Checkpoint) -> Answer {
        match refusal {
            Refusal::OldTooLarge => Answer::Malformed("its old size is larger than its checkpoint's"),
            Refusal::OtherRoot(size) => {
                if let Some(known) = known {
                    self.forked(&known, &new, None);
                }
                Answer::Conflict(size)
            }
            Refusal::OtherSize(size) => {
                self.suspect(new);
                Answer::Conflict(size)
            }
            Refusal::BadProof => {
                self.suspect(new);
                Answer::Unprocessable("the proof doesn't lead to this checkpoint".to_owned())
            }
        }
    }

    /// Makes sure that what is to be cosigned is copied and in order, in a copying witness.
    async fn copied_first(
        self: &Arc<Self>,
        new: &Checkpoint,
        known: Option<(u64, custody_core::log::Hash)>,
    ) -> Result<(), Answer> {
        if self.copy.is_none() {
            return Ok(());
        }
        let (this, target) = (self.clone(), new.clone());
        // A task of its own: when the submitter has lost his patience it goes on.
        let copying = tokio::spawn(async move { this.grow(&target).await });
        match tokio::time::timeout(COPY_PATIENCE, copying).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(reason))) => return Err(reason),
            Ok(Err(_)) => return Err(Answer::Failed),
            Err(_) => return Err(Answer::NotYet("what it covers is still being copied".to_owned())),
        }
        let copied = self.copied().ok_or(Answer::Failed)?;
        for (size, root) in known.into_iter().chain([(new.size(), new.root())]) {
            match block_in_place(|| copied.root(size)) {
                Ok(ours) if ours == root => {}
                Ok(_) => {
                    self.forked(&copied.checkpoint(), new, None);
                    return Err(Answer::Unprocessable("it isn't the log that was copied".to_owned()));
                }
                Err(error) => {
                    tracing::error!(log = self.origin(), "the copy can't be read: {error}");
                    return Err(Answer::Failed);
                }
            }
        }
        Ok(())
    }

    /// Brings the copy up to `target`; raises what it meets.
    async fn grow(&self, target: &Checkpoint) -> Result<(), Answer> {
        let (Some(copy), Some(source)) = (&self.copy, &self.watch.source) else { return Ok(()) };
        let mut copy = copy.lock().await;
        let grown = copy.up_to(source, target, &*self.clock).await;
        self.shown().copied = copy.log();
        drop(copy);
        match grown {
            Ok(noticed) => {
                if let Some(first) = noticed.first() {
                    let more = match noticed.len() {
                        1 => String::new(),
                        n => format!(" (and {} more)", n - 1),
                    };
                    let message = format!("entry {}: {}{more}", first.index, first.what);
                    self.raise(Kind::OddEvent, Some(first.index), message, &[]);
                }
                self.trouble(None);
                Ok(())
            }
            Err(CopyError::Broken { index, reason }) => {
                let message = format!("entry {index} is no event that this log could hold: {reason}");
                self.raise(Kind::BadEvent, Some(index), message, &[("checkpoint", target.to_string())]);
                Err(Answer::Unprocessable(format!("entry {index} is not in order: {reason}")))
            }
            Err(error @ CopyError::Rewritten { .. }) => {
                self.rewritten(source, target).await;
                Err(Answer::Unprocessable(error.to_string()))
            }
            Err(error) => {
                self.trouble(Some(error.to_string()));
                Err(Answer::NotYet("what it covers can't be copied now".to_owned()))
            }
        }
    }

    /// The log's signature is over something else than what was copied: says from which entry on.
    async fn rewritten(&self, source: &Source, signed: &Checkpoint) {
        let copied = self.copied();
        let difference = match &copied {
            Some(copied) => first_difference(copied, source, signed.size()).await.unwrap_or_default(),
            None => None,
        };
        let have = copied.as_ref().map_or(0, CopiedLog::size);
        let index = difference.unwrap_or(have.min(signed.size()));
        let message = match difference {
            Some(index) => format!(
                "the log was rewritten from entry {index} on: what it serves and signs now isn't what is copied here"
            ),
            None => format!(
                "what the log has signed for {} entries isn't what it serves; the first {index} are as they were",
                signed.size()
            ),
        };
        let mut evidence = vec![("signed", signed.to_string())];
        if let Some(copied) = copied {
            evidence.push(("copied", copied.checkpoint().to_string()));
        }
        self.raise(Kind::Rewrite, Some(index), message, &evidence);
    }

    /// Two checkpoints of one size under the log's key, or of two sizes and not of one history.
    fn forked(&self, one: &Checkpoint, other: &Checkpoint, index: Option<u64>) {
        let message = format!(
            "the log has signed two histories: one of {} entries and one of {}",
            one.size(),
            other.size()
        );
        self.raise(Kind::Fork, index, message, &[("known", one.to_string()), ("other", other.to_string())]);
    }

    /// Somebody submitted what the log has signed and what doesn't follow by his proof. The proof may be his own
    /// mistake or lie, so that proves nothing; the checkpoint itself is held against the copy.
    fn suspect(&self, signed: Checkpoint) {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        if suspects.iter().any(|known| known.note().text() == signed.note().text()) {
            return;
        }
        if suspects.len() == SUSPECTS_MAX {
            suspects.pop_front();
        }
        suspects.push_back(signed);
    }

    /// One look at the log as it serves itself.
    pub async fn round(&self) {
        self.alarms.reread();
        if let Some(source) = &self.watch.source {
            match source.checkpoint().await {
                Ok(note) => self.read(source, &note).await,
                Err(error) => self.trouble(Some(error.to_string())),
            }
        }
        block_in_place(|| self.hold_suspects());
        self.listen();
    }

    async fn read(&self, source: &Source, note: &str) {
        let served = match Checkpoint::verify(note, &self.watch.key) {
            Ok(served) => served,
            Err(error) => {
                // Once may be an answer that was cut off.
                if std::mem::replace(&mut self.shown().foreign, true) {
                    let message = format!("what the log serves as its checkpoint isn't believed: {error}");
                    self.raise(Kind::BadCheckpoint, None, message, &[("served", note.to_owned())]);
                }
                return;
            }
        };
        {
            let mut shown = self.shown();
            shown.foreign = false;
            shown.read = self.clock.monotonic();
        }
        let cosigned = self.cosigned();
        if let Some(known) = &cosigned {
            self.shrunk(known, &served);
        }
        if self.copy.is_none() {
            return self.compare(source, cosigned, &served).await;
        }
        let Some(copied) = self.copied() else {
            drop(self.grow(&served).await);
            return;
        };
        if served.size() > copied.size() {
            drop(self.grow(&served).await);
        } else {
            match block_in_place(|| copied.root(served.size())) {
                Ok(root) if root == served.root() => self.recheck(source, &copied, &served).await,
                Ok(_) => self.rewritten(source, &served).await,
                Err(error) => self.trouble(Some(error.to_string())),
            }
        }
    }

    /// Without a copy: whether what is served continues what was cosigned, by the log's own tiles.
    async fn compare(&self, source: &Source, cosigned: Option<Checkpoint>, served: &Checkpoint) {
        let Some(known) = cosigned.filter(|known| known.size() <= served.size()) else {
            return self.trouble(None);
        };
        let (old, new) = (known.size(), served.size());
        let proof = match source.consistency(old, new).await {
            Ok(proof) => proof,
            Err(error) => return self.trouble(Some(error.to_string())),
        };
        if verify_consistency(old, &known.root(), new, &served.root(), &proof) {
            return self.trouble(None);
        }
        let message = format!("what the log serves doesn't continue the {old} entries that were cosigned");
        let evidence = [("signed", served.to_string()), ("cosigned", known.to_string())];
        self.raise(Kind::Rewrite, None, message, &evidence);
    }

    fn shrunk(&self, known: &Checkpoint, served: &Checkpoint) {
        let now = self.clock.monotonic();
        let since = {
            let mut shown = self.shown();
            shown.shrunk = if served.size() < known.size() { shown.shrunk.or(Some(now)) } else { None };
            shown.shrunk
        };
        match since {
            Some(since) if now.saturating_sub(since) >= SHRUNK_PATIENCE => {
                let message = format!(
                    "the log serves {} entries, and {} were cosigned: an older copy was put in its place",
                    served.size(),
                    known.size()
                );
                let evidence = [("served", served.to_string()), ("cosigned", known.to_string())];
                self.raise(Kind::Shrink, Some(served.size()), message, &evidence);
            }
            Some(_) => {}
            None => self.alarms.clear(Kind::Shrink),
        }
    }

    /// Reads a part of what was copied once more: it must be the same for ever.
    async fn recheck(&self, source: &Source, copied: &CopiedLog, served: &Checkpoint) {
        let bundles = copied.size().min(served.size()).div_ceil(BUNDLE_ENTRIES);
        let count = bundles.div_ceil(RECHECK_ROUNDS).min(RECHECK_BUNDLES_MAX);
        for _ in 0..count {
            let number = {
                let mut shown = self.shown();
                let number = if shown.recheck < bundles { shown.recheck } else { 0 };
                shown.recheck = number + 1;
                number
            };
            match differs_in(copied, source, number, served.size()).await {
                Ok(None) => self.trouble(None),
                Ok(Some(index)) => {
                    let message = format!(
                        "the log serves another entry {index} than it did, though its checkpoint is the same"
                    );
                    let evidence =
                        [("signed", served.to_string()), ("copied", copied.checkpoint().to_string())];
                    return self.raise(Kind::Rewrite, Some(index), message, &evidence);
                }
                Err(error) => return self.trouble(Some(error.to_string())),
            }
        }
    }

    /// Holds what somebody submitted against the copy, once it is long enough.
    fn hold_suspects(&self) {
        let Some(copied) = self.copied() else { return };
        let due: Vec<Checkpoint> = {
            let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
            let (due, later): (Vec<_>, Vec<_>) =
                suspects.drain(..).partition(|suspect| suspect.size() <= copied.size());
            suspects.extend(later);
            due
        };
        for suspect in due {
            match copied.root(suspect.size()) {
                Ok(root) if root == suspect.root() => {}
                Ok(_) => self.forked(&copied.checkpoint(), &suspect, None),
                Err(error) => self.trouble(Some(error.to_string())),
            }
        }
    }

    /// Silence is an alarm too. What is submitted could be an old checkpoint that a stranger sends again, so a log that
    /// can be read must be readable as well.
    fn listen(&self) {
        let now = self.clock.monotonic();
        let (submitted, read) = {
            let shown = self.shown();
            (now.saturating_sub(shown.submitted), now.saturating_sub(shown.read))
        };
        let message = if submitted > self.watch.silence {
            format!("the log has submitted nothing for {} s", submitted.as_secs())
        } else if self.watch.source.is_some() && read > self.watch.silence {
            format!("the log can't be read for {} s", read.as_secs())
        } else {
            return self.alarms.clear(Kind::Silence);
        };
        self.raise(Kind::Silence, None, message, &[]);
    }

    fn raise(&self, kind: Kind, index: Option<u64>, message: String, evidence: &[(&str, String)]) {
        self.alarms.raise(kind, Timestamp::from(self.clock.wall()), index, message, evidence);
    }

    fn trouble(&self, trouble: Option<String>) {
        let mut shown = self.shown();
        if let Some(now) = &trouble
            && shown.trouble != trouble
        {
            tracing::warn!(log = self.origin(), "the log can't be read: {now}");
        }
        shown.trouble = trouble;
    }

    /// Never held over anything that waits.
    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "watched_tests.rs"]
mod tests;
