//! The projection itself: one SQLite file that a thread of its own keeps up with the log.
//!
//! Position and rows are written in one transaction, so whatever a crash leaves is a correct prefix. WAL with
//! `synchronous=NORMAL` syncs at checkpoints only, so appending stays cheap and a power failure loses a tail, not
//! the file's integrity: with `OFF` it could keep answering from a damaged file without anyone noticing.

use super::row::Row;
use super::{Effort, SearchError, query};
use crate::log::{Entry, Log};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// The file's name inside `projections/`.
pub const DATABASE_NAME: &str = "search.db";

/// Changes with every change of the tables or of [`Row`]; another number means: rebuild.
const SCHEMA_VERSION: i64 = 3;

const SCHEMA: &str = "
CREATE TABLE position (one INTEGER PRIMARY KEY CHECK (one = 1), origin TEXT NOT NULL,
    next INTEGER NOT NULL, tip BLOB NOT NULL);
CREATE TABLE entry (idx INTEGER PRIMARY KEY, appended INTEGER NOT NULL, type TEXT NOT NULL, family TEXT NOT NULL,
    user TEXT, session BLOB, target TEXT, outcome TEXT);
CREATE INDEX entry_type ON entry (type, idx);
CREATE INDEX entry_family ON entry (family, idx);
CREATE INDEX entry_user ON entry (user, idx) WHERE user IS NOT NULL;
CREATE INDEX entry_session ON entry (session, idx) WHERE session IS NOT NULL;
CREATE INDEX entry_target ON entry (target, idx) WHERE target IS NOT NULL;
CREATE INDEX entry_outcome ON entry (outcome, idx) WHERE outcome IS NOT NULL;
CREATE TABLE family (name TEXT PRIMARY KEY, entries INTEGER NOT NULL) WITHOUT ROWID;
CREATE VIRTUAL TABLE word USING fts5 (text, content='', columnsize=0, detail=none, tokenize='ascii');
";

/// Entries in one transaction, at most.
const BATCH_ENTRIES_MAX: usize = 4096;
/// Bytes of events in one transaction, at most (a longer first one comes alone).
const BATCH_BYTES_MAX: usize = 8 << 20;
/// For so long entries gather before they are indexed, unless a search waits for them: a transaction costs more than what
/// it indexes, and while sessions are busy the log and they need the time more.
const GATHER: Duration = Duration::from_millis(500);
/// How long it waits before it tries again after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// Searches at once; others wait.
const SEARCHES_AT_ONCE: usize = 4;

/// How far the projection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The next entry to be indexed: all before it are.
    pub next: u64,
    /// Why it doesn't go on, if it doesn't; it tries again every few seconds.
    pub stopped: Option<String>,
}

/// What a compaction did: bytes before and after.
type Compacted = oneshot::Sender<Result<(u64, u64), SearchError>>;

/// The projection, open and following the log until it is dropped.
pub struct Search {
    pub(super) log: Arc<dyn Log>,
    path: PathBuf,
    progress: watch::Receiver<Progress>,
    /// The size of the log that searches wait for.
    wanted: watch::Sender<u64>,
    readers: Arc<Readers>,
    pub(super) at_once: Arc<Semaphore>,
    pub(super) effort: Effort,
    stop: watch::Sender<bool>,
    compact: mpsc::Sender<Compacted>,
    /// Which file a search has found damaged.
    damaged: mpsc::Sender<u64>,
    thread: Option<JoinHandle<()>>,
}

impl Search {
    /// Opens `directory/search.db`, makes it anew where it doesn't belong to this log, and starts to follow.
    ///
    /// # Errors
    /// When the file can't be made, or the thread can't be started.
    pub fn open(directory: &Path, log: Arc<dyn Log>) -> Result<Self, SearchError> {
        std::fs::create_dir_all(directory)?;
        let path = directory.join(DATABASE_NAME);
        let readers = Arc::new(Readers { path: path.clone(), idle: Mutex::new(Idle::default()) });
        let writer = Writer::open(path.clone(), log.clone(), readers.clone())?;
        let (progress, seen) = watch::channel(Progress { next: writer.next, stopped: None });
        let (stop, stopped) = watch::channel(false);
        let (compact, compacting) = mpsc::channel(1);
        let (damaged, found_damaged) = mpsc::channel(1);
        let (wanted, asked) = watch::channel(0);
        let thread = std::thread::Builder::new().name("search-index".to_owned()).spawn(move || {
            Follower { progress, wanted: asked, stopped, compacting, found_damaged }.run(writer);
        })?;
        Ok(Self {
            log,
            path,
            progress: seen,
            wanted,
            readers,
            at_once: Arc::new(Semaphore::new(SEARCHES_AT_ONCE)),
            effort: Effort::default(),
            stop,
            compact,
            damaged,
            thread: Some(thread),
        })
    }

    /// The same with another effort for each page.
    #[must_use]
    pub fn with_effort(mut self, effort: Effort) -> Self {
        self.effort = effort;
        self
    }

    /// The database's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How far it is, and each change of that.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits until all entries below `size` are indexed.
    ///
    /// # Errors
    /// [`SearchError::Behind`] after `patience`, [`SearchError::Stopped`] when it has stopped meanwhile.
    pub async fn at_least(&self, size: u64, patience: Duration) -> Result<(), SearchError> {
        self.wanted.send_if_modified(|wanted| {
            let more = size > *wanted;
            *wanted = size.max(*wanted);
            more
        });
        let mut progress = self.progress.clone();
        let there = progress.wait_for(|progress| progress.next >= size || progress.stopped.is_some());
        // Whichever it is, and that it is neither, is seen below.
        drop(tokio::time::timeout(patience, there).await);
        self.reached(size)
    }

    /// Whether all entries below `size` are indexed now, as [`Search::at_least`] without waiting.
    ///
    /// # Errors
    /// [`SearchError::Behind`] when they aren't yet, [`SearchError::Stopped`] when nobody is about to.
    pub fn reached(&self, size: u64) -> Result<(), SearchError> {
        let now = self.progress.borrow().clone();
        let has_ended = self.progress.has_changed().is_err();
        match now.stopped {
            _ if now.next >= size => Ok(()),
            Some(reason) => Err(SearchError::Stopped { at: now.next, reason }),
            None if has_ended => {
                Err(SearchError::Stopped { at: now.next, reason: "its thread has ended".to_owned() })
            }
            None => Err(SearchError::Behind { at: now.next, wanted: size }),
        }
    }

    /// Merges the full-text index and gives unused space back to the system. Searches go on meanwhile; what is
    /// appended becomes searchable afterwards. Gives the bytes before and after.
    ///
    /// # Errors
    /// See [`SearchError`]: no room for the copy that it makes, for one.
    pub async fn compact(&self) -> Result<(u64, u64), SearchError> {
        let ended =
            || SearchError::Stopped { at: self.progress.borrow().next, reason: "it has ended".into() };
        let (answer, done) = oneshot::channel();
        self.compact.send(answer).await.map_err(|_| ended())?;
        done.await.map_err(|_| ended())?
    }

    /// How many indexed entries each family has; those that are no events of ours have none. Blocks on the disk.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub fn families(&self) -> Result<Vec<(String, u64)>, SearchError> {
        let reader = self.reader()?;
        let families = families(&reader.connection);
        self.give_back(reader, families.as_ref().err());
        families
    }

    pub(super) fn reader(&self) -> Result<Reader, SearchError> {
        self.readers.take()
    }

    /// Keeps a connection for the next search, unless this one met an `error` that says that the file is damaged: then the
    /// file is made anew.
    pub(super) fn give_back(&self, reader: Reader, error: Option<&SearchError>) {
        if error.is_some_and(is_corrupt) {
            tracing::error!("the search projection is damaged: rebuilding it");
            // One that says so is enough.
            self.damaged.try_send(reader.file).ok();
        } else {
            self.readers.give_back(reader);
        }
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the search projection's thread panicked");
        }
    }
}

/// Connections for searches, kept for the next one.
struct Readers {
    path: PathBuf,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// Counts the files: connections to one that was replaced are thrown away.
    file: u64,
    connections: Vec<Connection>,
}

pub(super) struct Reader {
    pub connection: Connection,
    file: u64,
}

impl Readers {
    fn idle(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Result<Reader, SearchError> {
        let mut idle = self.idle();
        let connection = match idle.connections.pop() {
            Some(connection) => connection,
            None => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let connection = Connection::open_with_flags(&self.path, flags)?;
                connection.busy_timeout(Duration::from_secs(5))?;
                connection
            }
        };
        Ok(Reader { connection, file: idle.file })
    }

    fn give_back(&self, reader: Reader) {
        let mut idle = self.idle();
        if idle.file == reader.file && idle.connections.len() < SEARCHES_AT_ONCE {
            idle.connections.push(reader.connection);
        }
    }

    /// Whether this is the present file.
    fn is_current(&self, file: u64) -> bool {
        self.idle().file == file
    }

    /// Removes the file while nobody can open it.
    fn replace(&self) -> std::io::Result<()> {
        let mut idle = self.idle();
        idle.file += 1;
        idle.connections.clear();
        for suffix in ["", "-wal", "-shm"] {
            let mut name = self.path.clone().into_os_string();
            name.push(suffix);
            match std::fs::remove_file(&name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The one connection that writes.
struct Writer {
    connection: Connection,
    log: Arc<dyn Log>,
    path: PathBuf,
    readers: Arc<Readers>,
    next: u64,
}

impl Writer {
    fn open(path: PathBuf, log: Arc<dyn Log>, readers: Arc<Readers>) -> Result<Self, SearchError> {
        if path.exists() {
            match resume(&path, &*log) {
                Ok(Some((connection, next))) => return Ok(Self { connection, log, path, readers, next }),
                Ok(None) => {
                    tracing::info!("the search projection belongs to another log or version: rebuilding it")
                }
                Err(error) => tracing::warn!(%error, "the search projection is damaged: rebuilding it"),
            }
        }
        Self::anew(path, log, readers)
    }

    /// On a new file, whatever there was before.
    fn anew(path: PathBuf, log: Arc<dyn Log>, readers: Arc<Readers>) -> Result<Self, SearchError> {
        readers.replace()?;
        let connection = create(&path, &*log)?;
        Ok(Self { connection, log, path, readers, next: 0 })
    }

    /// Indexes the next entries; false when there are none.
    fn step(&mut self) -> Result<bool, SearchError> {
        let entries = self.log.read(self.next, BATCH_ENTRIES_MAX, BATCH_BYTES_MAX)?;
        let Some(last) = entries.last() else { return Ok(false) };
        let next = last.index + 1;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut families: BTreeMap<String, i64> = BTreeMap::new();
        for entry in &entries {
            *families.entry(insert(&transaction, entry)?).or_default() += 1;
        }
        for (family, entries) in families {
            transaction
                .prepare_cached(
                    "INSERT INTO family VALUES (?1, ?2)
                     ON CONFLICT (name) DO UPDATE SET entries = entries + excluded.entries",
                )?
                .execute(params![family, entries])?;
        }
        transaction
            .prepare_cached("UPDATE position SET next = ?1, tip = ?2")?
            .execute(params![query::number(next), tip(last)])?;
        transaction.commit()?;
        self.next = next;
        Ok(true)
    }
}

fn families(connection: &Connection) -> Result<Vec<(String, u64)>, SearchError> {
    let mut statement = connection.prepare_cached("SELECT name, entries FROM family ORDER BY name")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
    let families = rows.map(|row| row.map(|(name, entries)| (name, u64::try_from(entries).unwrap_or(0))));
    Ok(families.collect::<rusqlite::Result<_>>()?)
}

fn compacted(writer: &Writer) -> Result<(u64, u64), SearchError> {
    let bytes = || -> Result<u64, SearchError> {
        writer.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
        Ok(std::fs::metadata(&writer.path)?.len())
    };
    let before = bytes()?;
    writer.connection.execute_batch("INSERT INTO word (word) VALUES ('optimize'); VACUUM")?;
    Ok((before, bytes()?))
}

/// A fingerprint of the newest entry indexed: a log restored from an old copy and grown again has another one there.
fn tip(entry: &Entry) -> Vec<u8> {
    Sha256::digest(&entry.bytes).to_vec()
}

/// Gives the entry's family.
fn insert(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<String> {
    let row = Row::of(entry);
    let index = query::number(entry.index);
    transaction.prepare_cached("INSERT INTO entry VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?.execute(
        params![
            index,
            query::number(entry.appended.0),
            row.kind,
            row.family,
            row.user,
            row.session,
            row.target,
            row.outcome
        ],
    )?;
    transaction
        .prepare_cached("INSERT INTO word (rowid, text) VALUES (?1, ?2)")?
        .execute(params![index, row.text])?;
    Ok(row.family)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 4000)
}

fn create(path: &Path, log: &dyn Log) -> Result<Connection, SearchError> {
    let mut connection = Connection::open(path)?;
    configure(&connection)?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.execute("INSERT INTO position VALUES (1, ?1, 0, x'')", params![log.origin()])?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()?;
    Ok(connection)
}

/// The existing file with its position, if it is this log's.
fn resume(path: &Path, log: &dyn Log) -> Result<Option<(Connection, u64)>, SearchError> {
    let connection = Connection::open(path)?;
    configure(&connection)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version != SCHEMA_VERSION {
        return Ok(None);
    }
    let stored = connection
        .query_row("SELECT origin, next, tip FROM position", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?))
        })
        .optional()?;
    let Some((origin, next, stored_tip)) = stored else { return Ok(None) };
    let Ok(next) = u64::try_from(next) else { return Ok(None) };
    if origin != log.origin() || next > log.size() {
        return Ok(None);
    }
    if let Some(last) = next.checked_sub(1) {
        let entries = log.read(last, 1, 1)?;
        if entries.first().map(tip) != Some(stored_tip) {
            return Ok(None);
        }
    }
    Ok(Some((connection, next)))
}

/// What the follower waits for.
enum Awaited {
    Entries,
    Compact(Compacted),
    Damaged(u64),
    End,
}

struct Follower {
    progress: watch::Sender<Progress>,
    wanted: watch::Receiver<u64>,
    stopped: watch::Receiver<bool>,
    compacting: mpsc::Receiver<Compacted>,
    found_damaged: mpsc::Receiver<u64>,
}

impl Follower {
    /// The thread, until `stopped` says so or is gone.
    fn run(mut self, writer: Writer) {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else {
            self.progress.send_modify(|p| p.stopped = Some("its thread can't wait: no runtime".to_owned()));
            return;
        };
        let mut writer = Some(writer);
        while !*self.stopped.borrow() {
            let Some(mut open) = writer.take() else { return };
            let error = match self.follow(&runtime, &mut open) {
                Ok(()) => return,
                Err(error) => error,
            };
            tracing::error!(%error, at = open.next, "the search projection has stopped; it tries again");
            self.progress.send_modify(|p| p.stopped = Some(error.to_string()));
            self.pause(&runtime);
            writer = match (is_corrupt(&error), is_damage(&error)) {
                (true, _) => self.rebuilt(&runtime, open),
                (_, true) => Some(self.reopened(open)),
                _ => Some(open),
            };
        }
    }

    fn pause(&mut self, runtime: &tokio::runtime::Runtime) {
        runtime.block_on(async {
            // Either way `stopped` is looked at again.
            let _woken = tokio::time::timeout(RETRY, self.stopped.changed()).await;
        });
    }

    /// On a new file: its header may be whole and what lies behind it is not, so nothing of the old one is believed. `None`
    /// when it is to stop before that works.
    fn rebuilt(&mut self, runtime: &tokio::runtime::Runtime, old: Writer) -> Option<Writer> {
        let (path, log, readers) = (old.path.clone(), old.log.clone(), old.readers.clone());
        // First of all: closing it may still touch what lies under its name.
        drop(old);
        while !*self.stopped.borrow() {
            match Writer::anew(path.clone(), log.clone(), readers.clone()) {
                Ok(new) => {
                    self.progress.send_replace(Progress { next: new.next, stopped: None });
                    return Some(new);
                }
                Err(error) => {
                    tracing::error!(%error, "the search projection can't be made anew; it is tried again");
                    self.progress.send_replace(Progress { next: 0, stopped: Some(error.to_string()) });
                    self.pause(runtime);
                }
            }
        }
        None
    }

    /// Another connection, on a file that is made anew if need be; the old one when that fails too.
    fn reopened(&self, old: Writer) -> Writer {
        match Writer::open(old.path.clone(), old.log.clone(), old.readers.clone()) {
            Ok(new) => {
                self.progress.send_modify(|progress| progress.next = new.next);
                new
            }
            Err(error) => {
                tracing::error!(%error, "the search projection can't be opened");
                old
            }
        }
    }

    fn follow(&mut self, runtime: &tokio::runtime::Runtime, writer: &mut Writer) -> Result<(), SearchError> {
        let mut size = writer.log.follow();
        loop {
            while !*self.stopped.borrow() && writer.step()? {
                let next = writer.next;
                self.progress.send_replace(Progress { next, stopped: None });
            }
            let next = writer.next;
            let awaited = runtime.block_on(async {
                tokio::select! {
                    awaited = gathered(&mut size, &mut self.wanted, next) => awaited,
                    _ = self.stopped.changed() => Awaited::End,
                    Some(answer) = self.compacting.recv() => Awaited::Compact(answer),
                    Some(file) = self.found_damaged.recv() => Awaited::Damaged(file),
                }
            });
            match awaited {
                Awaited::Entries => {}
                // Who asked and doesn't wait any more has what he asked for.
                Awaited::Compact(answer) => drop(answer.send(compacted(writer))),
                Awaited::Damaged(file) if writer.readers.is_current(file) => return Err(corrupt()),
                Awaited::Damaged(_) => {}
                Awaited::End => return self.at_the_end(runtime, writer),
            }
        }
    }

    /// The log has stopped, or we are asked to: what is durable is indexed, and there is nothing more to follow.
    fn at_the_end(
        &mut self,
        runtime: &tokio::runtime::Runtime,
        writer: &mut Writer,
    ) -> Result<(), SearchError> {
        while !*self.stopped.borrow() && writer.step()? {
            let next = writer.next;
            self.progress.send_replace(Progress { next, stopped: None });
        }
        if !*self.stopped.borrow() {
            runtime.block_on(async {
                // An error says that its owner is gone: the same.
                let _stop = self.stopped.changed().await;
            });
        }
        Ok(())
    }
}

/// Waits until there are entries from `next` on, and either enough of them, or a search that waits, or time has passed.
async fn gathered(size: &mut watch::Receiver<u64>, wanted: &mut watch::Receiver<u64>, next: u64) -> Awaited {
    if size.wait_for(|size| *size > next).await.is_err() {
        return Awaited::End;
    }
    let batch = u64::try_from(BATCH_ENTRIES_MAX).unwrap_or(u64::MAX);
    tokio::select! {
        ended = size.wait_for(|size| *size >= next.saturating_add(batch)) => match ended {
            Ok(_) => Awaited::Entries,
            Err(_) => Awaited::End,
        },
        // Whoever asks is gone with the projection: its owner says stop.
        _ = wanted.wait_for(|wanted| *wanted > next) => Awaited::Entries,
        () = tokio::time::sleep(GATHER) => Awaited::Entries,
    }
}

/// What a search met, as the database says it.
fn corrupt() -> SearchError {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, None).into()
}

/// Whether what lies in the file isn't what was written: it won't pass, however often the file is opened.
fn is_corrupt(error: &SearchError) -> bool {
    use rusqlite::ErrorCode as Code;
    match error {
        SearchError::Database(error) => matches!(
            error.sqlite_error_code(),
            Some(Code::DatabaseCorrupt | Code::NotADatabase | Code::ConstraintViolation)
        ),
        _ => false,
    }
}

/// Whether the file itself is the trouble, and not the disk's room or somebody's lock.
fn is_damage(error: &SearchError) -> bool {
    use rusqlite::ErrorCode as Code;
    match error {
        SearchError::Database(error) => !matches!(
            error.sqlite_error_code(),
            Some(
                Code::DiskFull
                    | Code::DatabaseBusy
                    | Code::DatabaseLocked
                    | Code::OutOfMemory
                    | Code::SystemIoFailure
            )
        ),
        _ => false,
    }
}
