//! The way back: what destinations hold of a log, for a log that has lost it.
//!
//! A damaged log doesn't know what it lacks but for the indexes, and about when they were appended. So destinations are
//! walked through by time, in windows that tile it; what they show of an index is believed as far as its own leaf hash
//! goes, and whether all of it together is the log is for the signed checkpoint to say.

use crate::sink::{Found, Held, Sink, Trouble, Unproven, Window};
use custody_core::clock::Nanos;
use custody_core::log::tree::leaf_hash;
use std::collections::BTreeMap;
use std::ops::Range;
use std::pin::Pin;
use std::time::Duration;

/// The first window, the longest and the shortest one.
const STEP: Duration = Duration::from_secs(60);
const STEP_MAX: Duration = Duration::from_secs(30 * 86_400);
const STEP_MIN: Duration = Duration::from_millis(1);
/// A window with fewer documents is followed by a longer one, one with more by a shorter one.
const FEW: usize = 1_000;
const MANY: usize = 4_000;
/// How often the shortest window is asked for that can't be shown right now.
const ATTEMPTS: u32 = 5;
const PATIENCE: Duration = Duration::from_millis(200);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(120);

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A destination that is read from and never written to: any [`Sink`].
pub trait Archive: Send + Sync {
    /// As [`Sink::prepare`].
    fn prepare(&self) -> Answer<'_, Result<(), Trouble>>;
    /// As [`Sink::read_back`].
    fn read_back<'a>(&'a self, window: &'a Window) -> Answer<'a, Result<Found, Unproven>>;
}

impl<S: Sink> Archive for S {
    fn prepare(&self) -> Answer<'_, Result<(), Trouble>> {
        Box::pin(Sink::prepare(self))
    }

    fn read_back<'a>(&'a self, window: &'a Window) -> Answer<'a, Result<Found, Unproven>> {
        Box::pin(Sink::read_back(self, window))
    }
}

/// An entry as a destination gives it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// When it was appended, as the destination says: no hash covers it.
    pub appended: Nanos,
    /// Its canonical bytes; they give the leaf hash that stands beside them.
    pub bytes: Vec<u8>,
}

/// Why an entry can't be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lacking {
    /// No document claims it.
    #[error("it isn't there")]
    Absent,
    /// There are documents, and none of them will do.
    #[error("{0}")]
    Unusable(&'static str),
    /// Documents that contradict each other.
    #[error("several documents claim to be it, with different leaf hashes")]
    Contradictory,
}

/// What the documents that claim one index give.
///
/// # Errors
/// See [`Lacking`].
pub fn judge(documents: &[Held]) -> Result<Copied, Lacking> {
    let mut good: Option<Copied> = None;
    let mut reason = Lacking::Absent;
    for document in documents {
        match whole(document) {
            Ok(copied) if good.as_ref().is_some_and(|other| other.bytes != copied.bytes) => {
                return Err(Lacking::Contradictory);
            }
            Ok(copied) => good = good.or(Some(copied)),
            Err(what) => reason = Lacking::Unusable(what),
        }
    }
    good.ok_or(reason)
}

fn whole(document: &Held) -> Result<Copied, &'static str> {
    let leaf = document.leaf.ok_or("its leaf hash isn't there")?;
    let bytes = document.original.as_ref().ok_or("its bytes aren't there")?;
    if leaf_hash(bytes) != leaf {
        return Err("its bytes don't give its leaf hash");
    }
    let appended = document.appended.ok_or("when it was appended isn't there")?;
    Ok(Copied { appended, bytes: bytes.clone() })
}

/// A walk through several destinations at once, by time.
pub struct Walk<'a> {
    archives: &'a [Box<dyn Archive>],
    left: Range<Nanos>,
    step: Duration,
    /// Why a destination may hold more than it has shown.
    perhaps_more: Option<String>,
}

impl<'a> Walk<'a> {
    /// Through what was appended in `appended`.
    #[must_use]
    pub fn new(archives: &'a [Box<dyn Archive>], appended: Range<Nanos>) -> Self {
        Self { archives, left: appended, step: STEP, perhaps_more: None }
    }

    /// Why a destination may hold more than it has shown so far.
    #[must_use]
    pub fn perhaps_more(&self) -> Option<&str> {
        self.perhaps_more.as_deref()
    }

    /// The documents of the next window, by the index that they claim; `None` at the end.
    ///
    /// # Errors
    /// Why a destination doesn't show all of it.
    pub async fn next(&mut self) -> Result<Option<BTreeMap<u64, Vec<Held>>>, String> {
        let mut attempts = 0;
        while self.left.start < self.left.end {
            let until = self.left.start.saturating_add(self.step).min(self.left.end);
            match self.shown(self.left.start..until).await {
                Ok(documents) => {
                    self.left.start = until;
                    self.adapt(documents.values().map(Vec::len).sum());
                    return Ok(Some(documents));
                }
                // Too many at once for it, or trouble that passes.
                Err(_) if self.step > STEP_MIN => self.step = (self.step / 2).max(STEP_MIN),
                Err(reason) => {
                    attempts += 1;
                    if attempts >= ATTEMPTS {
                        return Err(reason);
                    }
                    tokio::time::sleep(PATIENCE * attempts).await;
                }
            }
        }
        Ok(None)
    }

    async fn shown(&mut self, appended: Range<Nanos>) -> Result<BTreeMap<u64, Vec<Held>>, String> {
        // By time alone: a document that claims an index at another time shows when that time comes.
        let window = Window { indexes: 0..0, appended };
        let mut by_index: BTreeMap<u64, Vec<Held>> = BTreeMap::new();
        for archive in self.archives {
            let asked = tokio::time::timeout(TIMEOUT, archive.read_back(&window)).await;
            let found = asked.map_err(|_| "no answer came in time".to_owned())?;
            let Found { documents, perhaps_more } = found.map_err(|unproven| unproven.to_string())?;
            self.perhaps_more = self.perhaps_more.take().or(perhaps_more);
            for document in documents {
                if let Some(index) = document.index {
                    by_index.entry(index).or_default().push(document);
                }
            }
        }
        Ok(by_index)
    }

    fn adapt(&mut self, documents: usize) {
        if documents < FEW {
            self.step = (self.step * 4).min(STEP_MAX);
        } else if documents > MANY {
            self.step = (self.step / 2).max(STEP_MIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::log::Hash;
    use std::sync::Mutex;

    /// Shows at most so many documents at once, and fails now and then.
    struct Shelf {
        documents: Vec<Held>,
        most: usize,
        troubles: Mutex<u32>,
    }

    impl Archive for Shelf {
        fn prepare(&self) -> Answer<'_, Result<(), Trouble>> {
            Box::pin(async { Ok(()) })
        }

        fn read_back<'a>(&'a self, window: &'a Window) -> Answer<'a, Result<Found, Unproven>> {
            Box::pin(async move {
                let mut troubles = self.troubles.lock().unwrap();
                if *troubles > 0 {
                    *troubles -= 1;
                    return Err(Unproven::Now("busy".into()));
                }
                let within = |document: &&Held| window.appended.contains(&document.appended.unwrap());
                let shown: Vec<Held> = self.documents.iter().filter(within).cloned().collect();
                if shown.len() > self.most {
                    return Err(Unproven::Now(format!(
                        "it shows {} of {} documents",
                        self.most,
                        shown.len()
                    )));
                }
                Ok(shown.into())
            })
        }
    }

    fn held(index: u64, appended: u64) -> Held {
        let bytes = format!("event {index}").into_bytes();
        Held {
            index: Some(index),
            leaf: Some(leaf_hash(&bytes)),
            original: Some(bytes),
            appended: Some(Nanos(appended)),
            document: None,
        }
    }

    async fn walked(shelves: Vec<Shelf>, appended: Range<Nanos>) -> Result<Vec<(u64, usize)>, String> {
        let archives: Vec<Box<dyn Archive>> =
            shelves.into_iter().map(|shelf| Box::new(shelf) as Box<dyn Archive>).collect();
        let mut walk = Walk::new(&archives, appended);
        let mut found = Vec::new();
        while let Some(documents) = walk.next().await? {
            found.extend(documents.into_iter().map(|(index, documents)| (index, documents.len())));
        }
        Ok(found)
    }

    #[tokio::test]
    async fn everything_of_all_shelves_is_seen_once_and_in_order_however_little_is_shown_at_once() {
        let second = 1_000_000_000;
        // Dense, then a year of nothing, then dense again.
        let at = |n: u64| if n < 500 { n * second / 1_000 } else { 31_536_000 * second + n };
        let documents: Vec<Held> = (0..1_000).map(|n| held(n, at(n))).collect();
        let some = documents.iter().filter(|held| held.index.unwrap() % 3 == 0).cloned().collect();
        let shelves = vec![
            Shelf { documents, most: 600, troubles: Mutex::new(3) },
            Shelf { documents: some, most: 9_999, troubles: Mutex::new(0) },
        ];
        let found = walked(shelves, Nanos(0)..Nanos(u64::MAX)).await.unwrap();
        let wanted: Vec<(u64, usize)> = (0..1_000).map(|n| (n, 1 + usize::from(n % 3 == 0))).collect();
        assert_eq!(found, wanted);
    }

    #[tokio::test]
    async fn what_is_never_shown_is_an_error_and_no_gap() {
        let shelf = Shelf { documents: vec![held(1, 5), held(2, 5)], most: 1, troubles: Mutex::new(0) };
        let error = walked(vec![shelf], Nanos(0)..Nanos(10)).await.unwrap_err();
        assert_eq!(error, "it shows 1 of 2 documents");
    }

    #[test]
    fn a_copy_is_judged_by_its_own_leaf_hash() {
        let good = held(7, 70);
        let other =
            Held { original: Some(b"other".to_vec()), leaf: Some(leaf_hash(b"other")), ..good.clone() };
        let altered = Held { original: Some(b"altered".to_vec()), ..good.clone() };
        let copied = Copied { appended: Nanos(70), bytes: b"event 7".to_vec() };
        assert_eq!(judge(&[]), Err(Lacking::Absent));
        assert_eq!(judge(std::slice::from_ref(&good)), Ok(copied.clone()));
        assert_eq!(judge(&[altered.clone(), good.clone(), good.clone()]), Ok(copied));
        assert_eq!(judge(&[good.clone(), other]), Err(Lacking::Contradictory));
        for (document, what) in [
            (altered, "don't give its leaf hash"),
            (Held { leaf: None, ..good.clone() }, "leaf hash isn't there"),
            (Held { leaf: Some(Hash([0; 32])), ..good.clone() }, "don't give its leaf hash"),
            (Held { original: None, ..good.clone() }, "bytes aren't there"),
            (Held { appended: None, ..good }, "appended isn't there"),
        ] {
            let error = judge(&[document]).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
