//! Parquet by OCSF class and day, in the folders that Amazon Security Lake gives to custom sources.
//!
//! A Parquet file can't be appended to, and an event is confirmed only when it is on the disk. So events go into a spool
//! of lines first. When there are enough of them, or they are old enough, or the day ends, the spool is taken aside (one
//! rename), becomes one file for each class and day, and is removed. Whatever stops in between is done again: the same
//! lines become the same files under the same names, and what a former life has made of them, perhaps under other names, isn't
//! made again. A file is written once, and its name says which indexes it holds.

use super::columns;
use super::lines::{Appender, Part, beginning, cut_torn_tail, held};
use super::read::{Index, Sought, Turn, bytes, is_of_day};
use super::{FOLDER_MODE, MODE, claims, day};
use crate::format::Format;
use crate::sink::{Found, Held, Window};
use aws_lc_rs::digest::{SHA256, digest};
use custody_core::clock::Nanos;
use custody_core::event::hex::to_hex;
use custody_core::log::Hash;
use custody_core::log::durable::{create_directories_with, rename, sync_directory, write_file};
use custody_core::mapping::Logged;
use custody_core::mapping::ocsf::{self, Version};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Lines that aren't in Parquet yet.
const SPOOL: &str = "spool/current.ndjson";
/// Those that become Parquet right now.
const ROLLING: &str = "spool/rolling.ndjson";
/// What is before the sources' names, as the service has it.
const EXTERNAL: &str = "ext";
/// What is before a day in its folder's name.
const EVENT_DAY: &str = "eventDay=";
/// The service wants an object every five minutes at most, or large ones.
const ROLL_SECONDS: u64 = 300;
const ROLL_EVENTS: u64 = 20_000;
const ROLL_MEGABYTES: u64 = 32;

/// `lake` of `[sink.files]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What the names of the custom sources begin with; `-` and the class's number come after it.
    #[serde(default = "source")]
    pub source: String,
    /// The custom sources' version, where they were registered with one.
    pub source_version: Option<String>,
    /// The AWS region.
    pub region: String,
    /// The AWS account, or another name for where the events come from.
    pub account: String,
    /// The version of OCSF.
    #[serde(default = "ocsf_version")]
    pub ocsf_version: String,
    /// How many events become a file.
    #[serde(default = "roll_events")]
    pub roll_events: u64,
    /// How many megabytes of events, before compression.
    #[serde(default = "roll_megabytes")]
    pub roll_megabytes: u64,
    /// After how many seconds there is a file, however few events there are.
    #[serde(default = "roll_seconds")]
    pub roll_seconds: u64,
}

fn source() -> String {
    "custody".to_owned()
}

fn ocsf_version() -> String {
    Version::default().name().to_owned()
}

const fn roll_events() -> u64 {
    ROLL_EVENTS
}

const fn roll_megabytes() -> u64 {
    ROLL_MEGABYTES
}

const fn roll_seconds() -> u64 {
    ROLL_SECONDS
}

impl Settings {
    /// Whether they make sense.
    pub(super) fn check(&self) -> Result<(), String> {
        let names = [
            ("source", Some(&self.source)),
            ("source_version", self.source_version.as_ref()),
            ("region", Some(&self.region)),
            ("account", Some(&self.account)),
        ];
        for (what, name) in names {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if let Some(name) = name
                && (name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(plain))
            {
                return Err(format!("lake.{what} = \"{name}\" must be 1 to 64 letters, digits, - _ or ."));
            }
        }
        if Version::named(&self.ocsf_version).is_none() {
            let known = Version::ALL.map(Version::name).join(", ");
            return Err(format!("lake.ocsf_version = \"{}\" must be one of {known}", self.ocsf_version));
        }
        if self.roll_events == 0 || self.roll_seconds == 0 || !(1..=1_024).contains(&self.roll_megabytes) {
            return Err(
                "lake.roll_events and roll_seconds must be 1 or more, roll_megabytes 1 to 1024".to_owned()
            );
        }
        Ok(())
    }

    pub(super) fn version(&self) -> Version {
        Version::named(&self.ocsf_version).unwrap_or_default()
    }
}

/// What is in the spool.
#[derive(Default)]
struct Spooled {
    events: u64,
    bytes: u64,
    day: Option<String>,
    /// Since when.
    since: Option<Instant>,
}

/// The folders of a lake, and its spool.
pub struct Lake {
    folder: PathBuf,
    settings: Settings,
    version: Version,
    origin: String,
    appender: Appender,
    index: Index,
    spooled: Spooled,
    /// Nothing is changed: what was taken aside is read as it is, and nothing is made of it.
    pub is_read_only: bool,
    /// Whether Parquet is made at the next look, however little there is: the spool is full, or old, or of another day, or what
    /// was due before couldn't be made.
    is_due: bool,
    /// Whether what was taken aside was so in this life: then nobody has made other files of it.
    is_own: bool,
}

impl Lake {
    pub fn new(folder: &Path, settings: Settings, origin: &str) -> Self {
        Self {
            folder: folder.to_owned(),
            version: settings.version(),
            settings,
            origin: origin.to_owned(),
            appender: Appender::default(),
            index: Index::default(),
            spooled: Spooled::default(),
            is_read_only: false,
            is_due: false,
            is_own: false,
        }
    }

    /// What is known of another folder says nothing of the one that is there now.
    pub fn forget(&mut self) {
        (self.appender, self.index, self.spooled) =
            (Appender::default(), Index::default(), Spooled::default());
        (self.is_due, self.is_own) = (false, false);
    }

    fn spool(&self) -> PathBuf {
        self.folder.join(SPOOL)
    }

    fn rolling(&self) -> PathBuf {
        self.folder.join(ROLLING)
    }

    /// Makes the folders what they should be after whatever happened. What was due and still can't be made Parquet is in the way.
    pub fn prepare(&mut self) -> io::Result<()> {
        self.appender.mend()?;
        if let Some(folder) = self.spool().parent() {
            create_directories_with(folder, FOLDER_MODE)?;
        }
        self.spooled = self.counted()?;
        self.roll_if_due()
    }

    /// What the spool holds; it is as old as was known of it.
    fn counted(&self) -> io::Result<Spooled> {
        let spool = self.spool();
        if !spool.exists() {
            return Ok(Spooled::default());
        }
        cut_torn_tail(&spool)?;
        let lines = std::fs::read(&spool)?;
        let held = held(&lines, Format::Custody, &self.origin)?;
        let Some(last) = held.last() else { return Ok(Spooled::default()) };
        Ok(Spooled {
            events: held.len() as u64,
            bytes: lines.len() as u64,
            day: last.appended.map(day),
            since: self.spooled.since.or_else(|| Some(Instant::now())),
        })
    }

    /// Appends durably to the spool, or not at all. A lake that can't be written takes nothing more: whoever delivers has to
    /// learn of it, and its spool doesn't fill the disk.
    pub fn append(&mut self, part: &Part) -> io::Result<()> {
        self.is_due |= self.spooled.day.as_ref().is_some_and(|day| *day != part.day);
        self.roll_if_due()?;
        let spool = self.spool();
        let (before, after) = self.appender.append(&spool, &part.bytes)?;
        self.index.appended(&spool, before, after);
        self.spooled.events += part.events;
        self.spooled.bytes += part.bytes.len() as u64;
        self.spooled.day = Some(part.day.clone());
        self.spooled.since.get_or_insert_with(Instant::now);
        if self.is_full() {
            // What is in the spool is safe; it is tried again before the next event, and at the next look, which says so.
            self.roll_if_due().ok();
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.spooled.events >= self.settings.roll_events
            || self.spooled.bytes >= self.settings.roll_megabytes << 20
    }

    /// Makes Parquet of what is due, and of what couldn't be made Parquet before.
    pub fn roll_if_due(&mut self) -> io::Result<()> {
        let age = Duration::from_secs(self.settings.roll_seconds);
        self.is_due |= self.is_full() || self.spooled.since.is_some_and(|since| since.elapsed() >= age);
        let rolled = if self.is_due { self.roll() } else { self.complete() };
        self.is_due = rolled.is_err();
        rolled.map_err(|error| io::Error::new(error.kind(), format!("no Parquet is written: {error}")))
    }

    fn roll(&mut self) -> io::Result<()> {
        self.appender.mend()?;
        self.complete()?;
        if self.spooled.events == 0 {
            return Ok(());
        }
        if let Err(error) = rename(&self.spool(), &self.rolling()) {
            // It may be named otherwise already, and its name not be on the disk yet.
            self.spooled = self.counted()?;
            return Err(error);
        }
        self.spooled = Spooled::default();
        self.is_own = true;
        self.complete()
    }

    /// Makes Parquet of the lines that were taken aside, if there are any.
    fn complete(&self) -> io::Result<()> {
        let rolling = self.rolling();
        let lines = match std::fs::read(&rolling) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            lines => lines?,
        };
        let mut groups = self.grouped(&lines);
        if !self.is_own {
            let made = self.made(&groups)?;
            for rows in groups.values_mut() {
                rows.retain(|row| !made.contains(&(row.index, row.leaf)));
            }
        }
        for ((class, day), rows) in groups {
            let (Some(first), Some(last)) =
                (rows.iter().map(|row| row.index).min(), rows.iter().map(|row| row.index).max())
            else {
                continue;
            };
            let documents: Vec<&[u8]> = rows.iter().map(|row| row.document.as_slice()).collect();
            let file = columns::write(class, &documents).map_err(io::Error::other)?;
            let hash = to_hex(digest(&SHA256, &file).as_ref());
            let hash = hash.get(..16).unwrap_or(&hash);
            let folder = self.day_folder(class, &day);
            create_directories_with(&folder, FOLDER_MODE)?;
            let path = folder.join(format!("{first:012}-{last:012}-{hash}.parquet"));
            // The hash is in its name: what has it is this file. Whether its name is on the disk isn't known of one that was there.
            if path.exists() {
                sync_directory(&folder)?;
            } else {
                write_file(&path, &file, MODE)?;
            }
        }
        std::fs::remove_file(&rolling)?;
        sync_directory(rolling.parent().unwrap_or(&self.folder))
    }

    /// What is Parquet already of rows that a former life has taken aside. It may have been of another version, whose mapping had other
    /// classes or columns, or had other settings, and so other folders: names don't tell, but for the days and the indexes.
    fn made(&self, groups: &BTreeMap<(u64, String), Vec<Row>>) -> io::Result<BTreeSet<(u64, Hash)>> {
        let mut made = BTreeSet::new();
        let indexes = || groups.values().flatten().map(|row| row.index);
        let (Some(first), Some(last)) = (indexes().min(), indexes().max()) else { return Ok(made) };
        let window = Window { indexes: first..last.saturating_add(1), appended: Nanos(0)..Nanos(0) };
        let days: BTreeSet<String> = groups.keys().map(|(_, day)| day_name(day)).collect();
        let mut files = BTreeSet::new();
        let may_have = |name: &str| !name.starts_with(EVENT_DAY) || days.contains(name);
        walk(&self.folder.join(EXTERNAL), &may_have, &mut files)?;
        for path in files.iter().filter(|path| may_hold(path, &window)) {
            let read = File::open(path)
                .and_then(|file| columns::read(&file, &self.origin, &(0..0)).map_err(io::Error::other));
            let held = read.map_err(|error| {
                let what = "it may have some of this already and can't be read; mend it, or move it away";
                io::Error::new(error.kind(), format!("{}: {what}: {error}", path.display()))
            })?;
            let before = made.len();
            made.extend(held.iter().filter_map(|held| Some((held.index?, held.leaf?))));
            // Whether its name is on the disk isn't known of one that was there.
            if let Some(folder) = path.parent().filter(|_| made.len() > before) {
                sync_directory(folder)?;
            }
        }
        Ok(made)
    }

    /// The rows of each class and day, in the order of time.
    fn grouped(&self, lines: &[u8]) -> BTreeMap<(u64, String), Vec<Row>> {
        let mut groups: BTreeMap<(u64, String), Vec<Row>> = BTreeMap::new();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let claimed = claims::of_line(line, Format::Custody, &self.origin);
            let Some(Held {
                index: Some(index),
                leaf: Some(leaf),
                original: Some(bytes),
                appended: Some(appended),
                ..
            }) = claimed
            else {
                tracing::warn!("{}: a line of it is no event and is left out", self.rolling().display());
                continue;
            };
            let origin = &self.origin;
            let logged = Logged { origin, index, appended: appended.into(), leaf, bytes: &bytes };
            let (class, document) = mapped(&logged, self.version);
            groups.entry((class, day(appended))).or_default().push(Row { appended, index, leaf, document });
        }
        for rows in groups.values_mut() {
            rows.sort_by_key(|row| (row.appended, row.index));
        }
        groups
    }

    /// `ext/custody-3002/region=…/accountId=…/eventDay=20261127`
    fn day_folder(&self, class: u64, day: &str) -> PathBuf {
        let Settings { source, source_version, region, account, .. } = &self.settings;
        let mut folder = self.folder.join(EXTERNAL).join(format!("{source}-{class}"));
        if let Some(version) = source_version {
            folder.push(version);
        }
        folder.push(format!("region={region}"));
        folder.push(format!("accountId={account}"));
        folder.push(day_name(day));
        folder
    }

    /// A file that can't be read hides what it may hold. Who asks by time alone restores a log, and has to get what the others
    /// hold all the same: whether that is everything, the log's own hashes say. Nothing where the turn is over before all is known.
    pub fn read_back(
        &mut self,
        window: &Window,
        sought: Sought,
        turn: &mut Turn,
    ) -> io::Result<Option<Found>> {
        let mut lines = vec![self.spool()];
        if self.is_read_only {
            // An event may be in both then, the lines and a file of some class: for who restores it is one.
            lines.push(self.rolling());
        } else {
            self.appender.mend()?;
            self.complete()?;
        }
        let origin = &self.origin;
        let mut found = Found::default();
        for path in lines.iter().filter(|path| path.exists()) {
            let read = |file: &mut File, part| held(&bytes(file, part)?, Format::Custody, origin);
            match self.index.find(path, window, Nanos(0), false, turn, &read)? {
                Some(held) => found.documents.extend(held),
                None => return Ok(None),
            }
        }
        let mut files = BTreeSet::new();
        walk(&self.folder.join(EXTERNAL), &|_| true, &mut files)?;
        self.index.keep(|path| lines.iter().any(|line| line == path) || files.contains(path));
        for path in files {
            if sought == Sought::Sent && !may_hold(&path, window) {
                continue;
            }
            let since = day_of(&path).unwrap_or_default();
            let whole = &window.indexes;
            let read = |file: &mut File, _| columns::read(file, origin, whole).map_err(io::Error::other);
            match self.index.find(&path, window, since, true, turn, &read) {
                Ok(Some(held)) => found.documents.extend(held),
                Ok(None) => return Ok(None),
                Err(error) if turn.found_too_much() => return Err(error),
                // What a damaged file may hold isn't known; what it may not hold is.
                Err(error) if may_hold(&path, window) => {
                    let reason = format!("{}: {error}", path.display());
                    if !window.indexes.is_empty() {
                        return Err(io::Error::new(error.kind(), reason));
                    }
                    found.perhaps_more.get_or_insert(reason);
                }
                Err(_) => {}
            }
        }
        Ok(Some(found))
    }
}

/// What becomes of an entry, and its class.
fn mapped(logged: &Logged<'_>, version: Version) -> (u64, Vec<u8>) {
    let document = ocsf::event(logged, version);
    let class = serde_json::from_slice::<Class>(&document).map_or(0, |class| class.class_uid);
    (class, document)
}

/// What is read of an entry out of the columns that were written of it, as JSON.
pub fn as_read(logged: &Logged<'_>, version: Version) -> Result<Vec<u8>, columns::ColumnError> {
    let (class, document) = mapped(logged, version);
    columns::as_read(class, &document)
}

/// A line on its way into a file.
struct Row {
    appended: Nanos,
    index: u64,
    leaf: Hash,
    document: Vec<u8>,
}

#[derive(Deserialize)]
struct Class {
    class_uid: u64,
}

/// The Parquet files below a folder, in those folders that `enters` says yes to.
fn walk(folder: &Path, enters: &dyn Fn(&str) -> bool, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if path.is_dir() {
            if enters(&entry.file_name().to_string_lossy()) {
                walk(&path, enters, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            found.insert(path);
        }
    }
    Ok(())
}

/// The folder's name of a day, `eventDay=20261127`.
fn day_name(day: &str) -> String {
    format!("{EVENT_DAY}{}", day.replace('-', ""))
}

/// When the day of a file begins, by its folder.
fn day_of(path: &Path) -> Option<Nanos> {
    let folder = path.parent()?.file_name()?.to_str()?;
    let digits = folder.strip_prefix(EVENT_DAY).filter(|digits| digits.len() == 8)?;
    beginning(&format!("{}-{}-{}", digits.get(..4)?, digits.get(4..6)?, digits.get(6..)?))
}

/// Whether a file may hold something of a window, by the indexes in its name, or by its day where none are asked for; one
/// with another name may hold anything.
fn may_hold(path: &Path, window: &Window) -> bool {
    if window.indexes.is_empty() {
        return day_of(path).is_none_or(|since| is_of_day(window, since));
    }
    fn indexes(path: &Path) -> Option<Range<u64>> {
        let mut parts = path.file_stem()?.to_str()?.split('-');
        let (first, last) = (parts.next()?.parse::<u64>().ok()?, parts.next()?.parse::<u64>().ok()?);
        Some(first..last.saturating_add(1))
    }
    indexes(path).is_none_or(|held| held.start < window.indexes.end && window.indexes.start < held.end)
}
