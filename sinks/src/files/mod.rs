//! Files: a line for each event in a file for each day, or Parquet by OCSF class in the folders of a security lake.
//!
//! What is confirmed is on the disk: appended and synced. How far a file has come is what stands in it: so what is in
//! doubt is read back from the files, and nothing arrives twice. A write that fails is taken back before anything else
//! happens, since after a failed sync the kernel shows what never reached the disk.

mod claims;
mod columns;
mod lake;
mod lines;
mod read;
mod stamp;
#[cfg(test)]
mod tests;

pub use self::lake::Settings as LakeSettings;

use self::lake::Lake;
use self::lines::Lines;
use self::read::{Sought, Turn};
use crate::fields::{of_ecs, of_ocsf};
use crate::format::{Format, envelope, logged};
use crate::item::Item;
use crate::sink::{Answer, Fields, Found, Held, Limits, Sink, Trouble, Unproven, Window};
use custody_core::clock::Nanos;
use custody_core::log::durable::create_directories_with;
use custody_core::mapping::ocsf::Version;
use serde::Deserialize;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Held by whoever writes into a folder: two writers would cut each other's lines.
const LOCK: &str = ".custody-sink.lock";
/// Permissions of files: a forwarder in the owner's group may read them.
const MODE: u32 = 0o640;
/// Permissions of the folders that are made here: whoever may read the files has to get to them.
const FOLDER_MODE: u32 = 0o750;
/// Events that are synced at once.
const BATCH_EVENTS: usize = 5_000;
/// How often is looked whether the spool is old enough for Parquet.
const LOOK: Duration = Duration::from_secs(1);

/// `[sink.files]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the files lie: a folder of this sink's own.
    pub folder: PathBuf,
    /// What a line holds; without `lake`.
    #[serde(default)]
    pub format: Format,
    /// Parquet by OCSF class instead of lines by day.
    pub lake: Option<LakeSettings>,
}

impl Settings {
    /// Whether they make sense.
    ///
    /// # Errors
    /// What doesn't.
    pub fn check(&self) -> Result<(), String> {
        if !self.folder.is_absolute() {
            return Err(format!("folder = \"{}\" must be a whole path", self.folder.display()));
        }
        if self.format == Format::Cef {
            return Err(
                "format = \"cef\": a CEF line doesn't hold the event; take custody, ecs or ocsf".to_owned()
            );
        }
        match &self.lake {
            Some(_) if self.format != Format::default() => {
                Err("a lake holds OCSF in Parquet: leave format out, or lake".to_owned())
            }
            Some(lake) => lake.check(),
            None => Ok(()),
        }
    }
}

/// Delivers to files.
pub struct Files {
    origin: String,
    form: Form,
    /// A batch isn't longer than what a lake makes a file of.
    batch_events: usize,
    folder: Arc<Folder>,
}

/// What stands in the files at last.
#[derive(Clone, Copy)]
enum Form {
    Lines(Format),
    /// Columns of this version of OCSF.
    Columns(Version),
}

/// What only one at a time may touch. Whoever waits for it holds no thread: where a file system hangs, one thread hangs with
/// it, however often it is tried again.
struct Folder {
    path: PathBuf,
    store: Arc<tokio::sync::Mutex<Store>>,
    /// Whoever looks after the spool's age.
    watcher: Mutex<Option<JoinHandle<()>>>,
    /// What that one has met with last.
    trouble: Mutex<Option<String>>,
}

struct Store {
    /// The lock, once it is ours.
    lock: Option<File>,
    /// Whether nothing may be changed: then the lock is shared with others who only read.
    is_read_only: bool,
    kind: Kind,
}

enum Kind {
    Lines(Lines),
    Lake(Box<Lake>),
}

/// An event as a file takes it.
pub struct Encoded {
    appended: Nanos,
    line: Vec<u8>,
}

impl Files {
    /// For the log with that origin.
    #[must_use]
    pub fn new(settings: Settings, origin: &str) -> Self {
        let path = settings.folder;
        let form = match &settings.lake {
            None => Form::Lines(settings.format),
            Some(lake) => Form::Columns(lake.version()),
        };
        let roll_events = settings.lake.as_ref().map_or(u64::MAX, |lake| lake.roll_events);
        let batch_events =
            usize::try_from(roll_events).map_or(BATCH_EVENTS, |events| events.min(BATCH_EVENTS));
        let kind = match settings.lake {
            None => Kind::Lines(Lines::new(&path, settings.format, origin)),
            Some(lake) => Kind::Lake(Box::new(Lake::new(&path, lake, origin))),
        };
        let store = Arc::new(tokio::sync::Mutex::new(Store { lock: None, is_read_only: false, kind }));
        let folder = Arc::new(Folder { path, store, watcher: Mutex::default(), trouble: Mutex::default() });
        Self { origin: origin.to_owned(), form, batch_events, folder }
    }

    async fn read(&self, window: &Window, sought: Sought) -> Result<Found, Unproven> {
        let window = window.clone();
        let found = self.with(move |store, folder| {
            if !store.is_read_only {
                store.open(folder)?;
            }
            if let Kind::Lake(lake) = &mut store.kind {
                lake.is_read_only = store.is_read_only;
            }
            store.kind.shown(&window, sought, Turn::begin())
        });
        found.await.map_err(Unproven::Now)?
    }

    /// Does something with the files, on a thread that may wait for a disk.
    async fn with<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Store, &Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let folder = Arc::clone(&self.folder);
        let mut store = Arc::clone(&folder.store).lock_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            what(&mut store, &folder.path).map_err(|error| format!("{}: {error}", folder.path.display()))
        });
        done.await.map_err(|error| error.to_string())?
    }
}

impl Folder {
    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has somebody look after the spool as long as the sink lives, unless somebody does.
    fn watch(self: &Arc<Self>) {
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if watcher.as_ref().is_none_or(JoinHandle::is_finished) {
            *watcher = Some(tokio::spawn(look_after(Arc::downgrade(self))));
        }
    }
}

/// Makes Parquet of what is due, also where nothing new arrives, and goes on whatever came of it. What is wrong is said when it
/// changes and not at each look.
async fn look_after(folder: Weak<Folder>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(folder) = Weak::upgrade(&folder) else { return };
        let mut store = Arc::clone(&folder.store).lock_owned().await;
        let path = folder.path.join(LOCK);
        let looked = tokio::task::spawn_blocking(move || -> io::Result<()> {
            let Store { lock: Some(lock), is_read_only: false, kind: Kind::Lake(lake) } = &mut *store else {
                return Ok(());
            };
            // Where another folder is by now, that is made ours when there is something to write.
            if is_there(lock, &path)? { lake.roll_if_due() } else { Ok(()) }
        });
        let trouble = match looked.await {
            Ok(rolled) => rolled.err().map(|error| error.to_string()),
            Err(_) => Some("looking after the spool broke".to_owned()),
        };
        let mut said = folder.trouble();
        if trouble != *said {
            match &trouble {
                Some(trouble) => tracing::warn!("{}: {trouble}; trying again", folder.path.display()),
                None => tracing::info!("{}: Parquet is written again", folder.path.display()),
            }
            *said = trouble;
        }
    }
}

impl Kind {
    /// Makes the files what they should be after whatever happened.
    fn prepare(&mut self) -> io::Result<()> {
        match self {
            Self::Lines(lines) => lines.prepare(),
            Self::Lake(lake) => lake.prepare(),
        }
    }

    /// What the files hold of a window, or why that isn't known where nothing is wrong with them.
    fn shown(
        &mut self,
        window: &Window,
        sought: Sought,
        mut turn: Turn,
    ) -> io::Result<Result<Found, Unproven>> {
        let read = match self {
            Self::Lines(lines) => lines.read_back(window, sought, &mut turn),
            Self::Lake(lake) => lake.read_back(window, sought, &mut turn),
        };
        match read {
            Err(error) if turn.found_too_much() => Ok(Err(Unproven::TooMuch(error.to_string()))),
            Err(error) => Err(error),
            Ok(None) => Ok(Err(Unproven::Unfinished("its files are still being read".to_owned()))),
            Ok(Some(found)) => Ok(Ok(found)),
        }
    }

    /// Another folder is there.
    fn forget(&mut self) {
        match self {
            Self::Lines(lines) => lines.forget(),
            Self::Lake(lake) => lake.forget(),
        }
    }
}

/// Whether an open file is the one that lies there.
fn is_there(open: &File, path: &Path) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        there => {
            let (open, there) = (open.metadata()?, there?);
            Ok((open.dev(), open.ino()) == (there.dev(), there.ino()))
        }
    }
}

impl Store {
    /// Makes the folder ours; and what is in it what it should be, where it is another one than before.
    fn open(&mut self, folder: &Path) -> io::Result<()> {
        if self.lock(folder)? { self.kind.prepare() } else { Ok(()) }
    }

    /// Makes the folder ours, and says whether it wasn't. Somebody may have removed the one that was, or have mounted something over
    /// it: whoever wrote there holds no lock any more on what others find there.
    fn lock(&mut self, folder: &Path) -> io::Result<bool> {
        if self.is_read_only {
            (self.lock, self.is_read_only) = (None, false);
        }
        let path = folder.join(LOCK);
        if let Some(lock) = &self.lock
            && is_there(lock, &path)?
        {
            return Ok(false);
        }
        self.lock = None;
        create_directories_with(folder, FOLDER_MODE)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(MODE).open(path)?;
        match file.try_lock() {
            Ok(()) => {
                self.lock = Some(file);
                self.kind.forget();
                Ok(true)
            }
            Err(TryLockError::WouldBlock) => Err(io::Error::other("another sink or program writes there")),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Looks into the folder and changes nothing in it: it may be one that can't be written, such as a copy mounted read-only.
    fn share(&mut self, folder: &Path) -> io::Result<()> {
        (self.lock, self.is_read_only) = (None, true);
        let file = match File::open(folder.join(LOCK)) {
            // A copy may have none; a folder there must be.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return std::fs::read_dir(folder).map(drop);
            }
            file => file?,
        };
        match file.try_lock_shared() {
            Ok(()) => {
                self.lock = Some(file);
                Ok(())
            }
            Err(TryLockError::WouldBlock) => Err(io::Error::other("another sink or program writes there")),
            // Where there are no locks nobody has one.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// The lines of one day.
fn part(batch: &[&Encoded]) -> Option<lines::Part> {
    let mut bytes = Vec::with_capacity(batch.iter().map(|encoded| encoded.line.len()).sum());
    for encoded in batch {
        bytes.extend_from_slice(&encoded.line);
    }
    Some(lines::Part { day: day(batch.first()?.appended), events: batch.len() as u64, bytes })
}

/// The day of a time, as names of files have it, `2026-11-27`.
fn day(appended: Nanos) -> String {
    let text = appended.to_string();
    text.get(..10).unwrap_or("1970-01-01").to_owned()
}

impl Sink for Files {
    type Encoded = Encoded;

    fn limits(&self) -> Limits {
        Limits {
            batch_events: self.batch_events,
            batch_bytes: 4 << 20,
            in_flight: 1,
            linger: Duration::from_millis(100),
            timeout: Duration::from_secs(120),
            ..Limits::default()
        }
    }

    async fn prepare(&self) -> Result<(), Trouble> {
        let prepared = self.with(|store, folder| {
            store.lock(folder)?;
            store.kind.prepare()
        });
        prepared.await.map_err(|reason| Trouble::Refused { reason, retry_after: None })?;
        if let Form::Columns(_) = self.form {
            self.folder.watch();
        }
        Ok(())
    }

    async fn prepare_to_read(&self) -> Result<(), Trouble> {
        let shared = self.with(|store, folder| store.share(folder));
        shared.await.map_err(|reason| Trouble::Refused { reason, retry_after: None })
    }

    fn ails(&self) -> Option<String> {
        self.folder.trouble().clone()
    }

    fn encode(&self, item: &Item) -> Result<Encoded, String> {
        let logged = logged(item, &self.origin);
        let format = match self.form {
            Form::Lines(format) => format,
            // They come from lines with the event itself.
            Form::Columns(_) => Format::Custody,
        };
        Ok(Encoded { appended: item.appended, line: lines::line(format, &logged, item.redacted) })
    }

    fn bytes(encoded: &Encoded) -> usize {
        encoded.line.len()
    }

    async fn send(&self, batch: &[&Encoded]) -> Result<Vec<Answer>, Trouble> {
        // The log's times never decrease, so a day's lines stand together.
        let number = |encoded: &Encoded| u128::from(encoded.appended.0) / read::DAY.as_nanos();
        let days = batch.chunk_by(|one, next| number(one) == number(next));
        let days: Vec<lines::Part> = days.filter_map(part).collect();
        let written = self.with(move |store, folder| {
            store.open(folder)?;
            for part in days {
                match &mut store.kind {
                    Kind::Lines(lines) => lines.append(&part)?,
                    Kind::Lake(lake) => lake.append(&part)?,
                }
            }
            Ok(())
        });
        // A part may be there; the files say which.
        written.await.map_err(Trouble::unclear)?;
        Ok(vec![Answer::Stored; batch.len()])
    }

    /// Of whole lines, or of all columns.
    fn fields(&self, item: &Item, held: &Held) -> Fields {
        let Some(stored) = &held.document else { return Fields::AsSent };
        let logged = logged(item, &self.origin);
        match self.form {
            Form::Lines(Format::Ecs) => of_ecs(stored, &Format::Ecs.of(&logged)),
            Form::Lines(Format::Ocsf) => of_ocsf(stored, &Format::Ocsf.of(&logged)),
            Form::Lines(Format::Custody) if *stored == envelope(&logged, item.redacted) => Fields::AsSent,
            Form::Lines(Format::Custody) if claims::is_envelope(stored, &self.origin) => Fields::Altered,
            // It was written while another format was configured.
            Form::Lines(_) => Fields::OfAnotherVersion,
            // What couldn't be written isn't there.
            Form::Columns(version) => {
                lake::as_read(&logged, version).map_or(Fields::Altered, |sent| of_ocsf(stored, &sent))
            }
        }
    }

    async fn look_up(&self, window: &Window) -> Result<Found, Unproven> {
        self.read(window, Sought::Sent).await
    }

    async fn read_back(&self, window: &Window) -> Result<Found, Unproven> {
        self.read(window, Sought::Any).await
    }
}
