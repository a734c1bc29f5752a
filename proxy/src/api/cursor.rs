//! Cursors: where a reader of the log goes on. Opaque, and good for the log and the question that they were made for only.
//!
//! A cursor is an index, so that nothing is skipped and nothing repeated, whatever the times of events are. Beside it
//! stand the log and the question that it belongs to, the entry that it stands behind, and a code that shows whether
//! anybody changed it: a reader whose cursor isn't right is told so, and doesn't begin from somewhere else unasked.
//!
//! ```text
//! base64url( u8 version | [8] SHA-256 of the origin | [8] SHA-256 of the question | u64 index
//!     | [8] leaf hash of entry index - 1 | [16] HMAC-SHA-256 of all before )
//! ```
//!
//! The leaf hash shows that an older copy was put in the log's place and has grown again since: its entries are others,
//! and whoever went on at the same index would never see those before it. Cursors of version 1 have none, and are
//! taken as they are: the next page's has one.

use crate::login::secrets::{SecretError, SecretStore};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use custody_core::log::tree::leaf_hash;
use custody_core::log::{Log, ReadError};
use custody_core::search::{Order, Query};
use sha2::{Digest as _, Sha256};

/// Whose secret the key is in the secret store: no user's name has a colon.
const KEY_OWNER: &str = "api:cursors";
const KEY_BYTES: usize = 32;
const VERSION: u8 = 2;
/// Of cursors that name no entry before them.
const VERSION_WITHOUT_BEFORE: u8 = 1;
/// Of a hash: enough to tell questions apart.
const SHORT_BYTES: usize = 8;
const CODE_BYTES: usize = 16;
/// What stands before the code.
const BODY_BYTES: usize = 1 + SHORT_BYTES + SHORT_BYTES + 8 + SHORT_BYTES;
/// The longest text that is looked at, in bytes.
const TEXT_BYTES_MAX: usize = 128;

type Short = [u8; SHORT_BYTES];

/// Why a cursor isn't taken. `Display` is one line for people, [`CursorError::code`] one word for programs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Nothing, as of a variable that was never set: it must not mean "from the beginning".
    #[error("the cursor is empty: leave it out to begin, or say where with from=INDEX|TIME")]
    Empty,
    /// It isn't one.
    #[error("that is no cursor of this server: take it from Custody-Cursor, or begin with from=INDEX|TIME")]
    Malformed,
    /// It was made for another log.
    #[error("the cursor belongs to another log than {origin}: begin with from=INDEX|TIME")]
    OtherLog {
        /// This log.
        origin: String,
    },
    /// Somebody changed it, or this server's secrets were lost.
    #[error(
        "the cursor isn't as this server made it: take it from Custody-Cursor, or begin with from=INDEX|TIME"
    )]
    Altered,
    /// It was made for other filters.
    #[error(
        "the cursor belongs to another question: with other filters or order, begin with from=INDEX|TIME"
    )]
    OtherQuestion,
    /// The log is shorter than when it was made.
    #[error(
        "the cursor stands at event {index}, and the log has {size}: an older copy was put in its place; tell your \
         administrator, and go on with from=INDEX|TIME"
    )]
    BeyondEnd {
        /// Where it stands.
        index: u64,
        /// How many events there are.
        size: u64,
    },
    /// What stands before it isn't what stood there when it was made.
    #[error(
        "the cursor stands at event {index}, and the event before that isn't the one that was there: an older copy of \
         the log was put in its place and has grown since; tell your administrator, and go on with from=INDEX|TIME at \
         the last event that both have"
    )]
    OtherHistory {
        /// Where it stands.
        index: u64,
    },
}

impl CursorError {
    /// One word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "cursor-empty",
            Self::Malformed => "cursor-malformed",
            Self::OtherLog { .. } => "cursor-of-another-log",
            Self::Altered => "cursor-altered",
            Self::OtherQuestion => "cursor-of-another-question",
            Self::BeyondEnd { .. } => "cursor-beyond-end",
            Self::OtherHistory { .. } => "cursor-of-another-history",
        }
    }
}

/// Which entry stands right before a place in the log: the beginning of its leaf hash; zeros at the log's beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before(Short);

impl Before {
    /// Right behind the entry with these bytes.
    #[must_use]
    pub fn after(entry: &[u8]) -> Self {
        Self(short(&leaf_hash(entry).0))
    }

    /// At `index` of `log`. Blocks on the disk when that isn't about the newest entries.
    ///
    /// # Errors
    /// See [`ReadError`]: without that entry nobody can say whether a cursor is of this history.
    pub fn at(log: &dyn Log, index: u64) -> Result<Self, ReadError> {
        let Some(last) = index.checked_sub(1) else { return Ok(Self::default()) };
        match log.read(last, 1, 0)?.first() {
            Some(entry) => Ok(Self::after(&entry.bytes)),
            None => Err(ReadError::OutOfRange { wanted: last, size: log.size() }),
        }
    }
}

/// A cursor as this server made it, for this log and question. It is an index only where the log's history is still the
/// one that it was made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Standing {
    index: u64,
    before: Option<Before>,
}

impl Standing {
    /// Where to look up what the log has before it.
    #[must_use]
    pub const fn place(&self) -> u64 {
        self.index
    }

    /// The index to go on at, when the log has `now` before it.
    ///
    /// # Errors
    /// [`CursorError::OtherHistory`] when that isn't what stood there.
    pub fn index_behind(self, now: Before) -> Result<u64, CursorError> {
        match self.before {
            Some(before) if before != now => Err(CursorError::OtherHistory { index: self.index }),
            _ => Ok(self.index),
        }
    }
}

/// What makes cursors and reads them.
pub struct Cursors {
    key: hmac::Key,
    origin: String,
    short: Short,
}

impl Cursors {
    /// For the log `origin`, with the key of the secret store, which is made at the first start: so cursors outlive
    /// restarts.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn open(secrets: &SecretStore, origin: &str) -> Result<Self, SecretError> {
        let key = match secrets.get(KEY_OWNER, 1)? {
            Some(stored) => {
                STANDARD.decode(stored.as_bytes()).ok().filter(|key| key.len() == KEY_BYTES).ok_or(
                    SecretError::Useless("the key of cursors in the secret store is damaged: remove it"),
                )?
            }
            None => {
                let mut fresh = vec![0; KEY_BYTES];
                rand::fill(&mut fresh).map_err(|_| {
                    SecretError::Useless("the system has no random bytes for the key of cursors")
                })?;
                secrets.put(KEY_OWNER, 0, &STANDARD.encode(&fresh))?;
                fresh
            }
        };
        Ok(Self::new(&key, origin))
    }

    fn new(key: &[u8], origin: &str) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        Self { key, origin: origin.to_owned(), short: short(Sha256::digest(origin.as_bytes()).as_slice()) }
    }

    /// The cursor that stands at `index` in the answer to `query`, with `before` right before it in the log.
    #[must_use]
    pub fn write(&self, query: &Query, index: u64, before: Before) -> String {
        let mut bytes = Vec::with_capacity(BODY_BYTES + CODE_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.short);
        bytes.extend_from_slice(&question(query));
        bytes.extend_from_slice(&index.to_be_bytes());
        bytes.extend_from_slice(&before.0);
        let code = self.code(&bytes);
        bytes.extend_from_slice(&code);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Where the cursor `text` stands in the answer to `query`, in a log of `size` entries.
    ///
    /// # Errors
    /// See [`CursorError`].
    pub fn read(&self, text: &str, query: &Query, size: u64) -> Result<Standing, CursorError> {
        if text.is_empty() {
            return Err(CursorError::Empty);
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(CursorError::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError::Malformed)?;
        let (body, code) = bytes.split_last_chunk::<CODE_BYTES>().ok_or(CursorError::Malformed)?;
        let parts = body.split_first_chunk::<1>().and_then(|(version, rest)| {
            let (origin, rest) = rest.split_first_chunk::<SHORT_BYTES>()?;
            let (question, rest) = rest.split_first_chunk::<SHORT_BYTES>()?;
            let (index, rest) = rest.split_first_chunk::<8>()?;
            let before = match (version, rest) {
                ([VERSION_WITHOUT_BEFORE], []) => None,
                ([VERSION], rest) => Some(Before(rest.try_into().ok()?)),
                _ => return None,
            };
            Some((origin, question, index, before))
        });
        let (origin, asked, index, before) = parts.ok_or(CursorError::Malformed)?;
        // Another log has another key: say that it is another log.
        if *origin != self.short {
            return Err(CursorError::OtherLog { origin: self.origin.clone() });
        }
        if verify_slices_are_equal(&self.code(body), code).is_err() {
            return Err(CursorError::Altered);
        }
        if *asked != question(query) {
            return Err(CursorError::OtherQuestion);
        }
        let index = u64::from_be_bytes(*index);
        if index > size {
            return Err(CursorError::BeyondEnd { index, size });
        }
        Ok(Standing { index, before })
    }

    fn code(&self, body: &[u8]) -> [u8; CODE_BYTES] {
        let tag = hmac::sign(&self.key, body);
        let mut code = [0; CODE_BYTES];
        for (to, from) in code.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        code
    }
}

/// What tells questions apart: what is found, and in which order. Not in whose words it is told, nor how much at once:
/// a reader may change that on his way.
fn question(query: &Query) -> Short {
    let Query { kind, user, session, target, outcome, text, until, order, cursor: _, limit: _ } = query;
    let mut hash = Sha256::new();
    let session = session.map(|session| session.to_string());
    let until = until.map(|until| until.nanos().to_string());
    for field in [kind, user, &session, target, outcome, text, &until] {
        match field {
            None => hash.update([0]),
            Some(value) => {
                hash.update([1]);
                hash.update((value.len() as u64).to_be_bytes());
                hash.update(value.as_bytes());
            }
        }
    }
    hash.update([u8::from(*order == Order::Descending)]);
    short(hash.finalize().as_slice())
}

fn short(hash: &[u8]) -> Short {
    hash.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::event::Timestamp;
    use proptest::prelude::*;

    fn cursors() -> Cursors {
        Cursors::new(&[7; KEY_BYTES], "custody.test/log")
    }

    /// Right behind some entry.
    fn before() -> Before {
        Before::after(b"the entry before")
    }

    fn any_query() -> impl Strategy<Value = Query> {
        let text = || proptest::option::of("[a-z.\\x00é]{0,12}");
        (text(), text(), text(), text(), proptest::option::of(any::<u64>()), any::<bool>()).prop_map(
            |(kind, user, target, text, until, descending)| Query {
                kind,
                user,
                target,
                text,
                until: until.map(Timestamp::from_nanos),
                order: if descending { Order::Descending } else { Order::Ascending },
                ..Query::default()
            },
        )
    }

    #[test]
    fn each_fault_has_its_name() {
        let (query, other) = (Query::default(), Query { kind: Some("login".into()), ..Query::default() });
        let cursor = cursors().write(&query, 40, before());
        let standing = cursors().read(&cursor, &query, 40).unwrap();
        assert_eq!((standing.place(), standing.index_behind(before())), (40, Ok(40)));
        let code = |text: &str, query: &Query, size| cursors().read(text, query, size).unwrap_err().code();
        assert_eq!(code("", &query, 40), "cursor-empty");
        for text in ["0", "41", "AAAA", "%00", &cursor[1..], &format!("{cursor}A"), &"A".repeat(4_000)] {
            assert_eq!(code(text, &query, 40), "cursor-malformed", "{text}");
        }
        assert_eq!(code(&cursor, &other, 40), "cursor-of-another-question");
        assert_eq!(code(&cursor, &query, 39), "cursor-beyond-end");
        let elsewhere = Cursors::new(&[8; KEY_BYTES], "custody.test/other");
        assert_eq!(elsewhere.read(&cursor, &query, 40).unwrap_err().code(), "cursor-of-another-log");
        let with_another_key = Cursors::new(&[8; KEY_BYTES], "custody.test/log");
        assert_eq!(with_another_key.read(&cursor, &query, 40), Err(CursorError::Altered));
    }

    #[test]
    fn a_cursor_is_good_for_the_history_that_it_was_made_in() {
        let query = Query::default();
        let standing = |index, before| {
            let cursor = cursors().write(&query, index, before);
            cursors().read(&cursor, &query, 1_000).unwrap()
        };
        let here = standing(40, before());
        let elsewhere = here.index_behind(Before::after(b"another entry")).unwrap_err();
        assert_eq!((elsewhere.code(), here.index_behind(before())), ("cursor-of-another-history", Ok(40)));
        // Nothing stands before the first entry, whatever comes.
        assert_eq!(standing(0, Before::default()).index_behind(Before::default()), Ok(0));
    }

    #[test]
    fn a_cursor_that_was_made_before_entries_were_named_is_taken() {
        let (cursors, query) = (cursors(), Query::default());
        let mut bytes = vec![VERSION_WITHOUT_BEFORE];
        bytes.extend_from_slice(&cursors.short);
        bytes.extend_from_slice(&question(&query));
        bytes.extend_from_slice(&40_u64.to_be_bytes());
        let code = cursors.code(&bytes);
        bytes.extend_from_slice(&code);
        let standing = cursors.read(&URL_SAFE_NO_PAD.encode(&bytes), &query, 40).unwrap();
        assert_eq!(standing.index_behind(before()), Ok(40));
        // Nobody makes one out of today's.
        bytes[0] = VERSION;
        let read = cursors.read(&URL_SAFE_NO_PAD.encode(&bytes), &query, 40);
        assert_eq!(read, Err(CursorError::Malformed));
    }

    #[test]
    fn the_key_outlives_restarts() {
        let scratch = tempfile::tempdir().unwrap();
        let store = SecretStore::open(&scratch.path().join("secrets")).unwrap();
        let query = Query::default();
        let cursor = Cursors::open(&store, "custody.test/log").unwrap().write(&query, 3, before());
        let again = Cursors::open(&store, "custody.test/log").unwrap().read(&cursor, &query, 3).unwrap();
        assert_eq!(again.index_behind(before()), Ok(3));
        let other = SecretStore::open(&scratch.path().join("other")).unwrap();
        let other = Cursors::open(&other, "custody.test/log").unwrap();
        assert_eq!(other.read(&cursor, &query, 3), Err(CursorError::Altered));
    }

    proptest! {
        #[test]
        fn a_cursor_comes_back_and_fits_its_question_only(query in any_query(), other in any_query(), index: u64) {
            let cursor = cursors().write(&query, index, before());
            prop_assert!(cursor.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
            let standing = cursors().read(&cursor, &query, u64::MAX).unwrap();
            prop_assert_eq!(standing.index_behind(before()), Ok(index));
            let read = cursors().read(&cursor, &other, u64::MAX);
            prop_assert_eq!(read.is_ok(), query == other);
        }

        #[test]
        fn a_changed_cursor_is_none(index: u64, at in 0..BODY_BYTES + CODE_BYTES, bit in 0..8_u8) {
            let query = Query::default();
            let mut bytes = URL_SAFE_NO_PAD.decode(cursors().write(&query, index, before())).unwrap();
            bytes[at] ^= 1 << bit;
            let read = cursors().read(&URL_SAFE_NO_PAD.encode(bytes), &query, u64::MAX);
            prop_assert!(read.is_err());
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,140}|[A-Za-z0-9_-]{50,70}") {
            prop_assert!(cursors().read(&text, &Query::default(), u64::MAX).is_err());
        }
    }
}
