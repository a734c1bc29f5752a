//! A file for each UTC day of appending, a line for each event (NDJSON).

use super::MODE;
use super::claims;
use super::read::{Index, Sought, Turn, bytes, is_of_day};
use super::stamp::Stamp;
use crate::format::{Format, envelope};
use crate::sink::{Found, Held, Window};
use custody_core::clock::Nanos;
use custody_core::event::Timestamp;
use custody_core::log::durable::sync_directory;
use custody_core::mapping::Logged;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const PREFIX: &str = "custody-";
const SUFFIX: &str = ".ndjson";
/// How much of a file's end is looked at, at once, for the end of its last whole line.
const TAIL_BYTES: u64 = 128 << 10;

/// Lines of one day.
pub struct Part {
    pub day: String,
    pub events: u64,
    pub bytes: Vec<u8>,
}

/// The daily files of a folder.
pub struct Lines {
    folder: PathBuf,
    format: Format,
    origin: String,
    appender: Appender,
    index: Index,
}

impl Lines {
    pub fn new(folder: &Path, format: Format, origin: &str) -> Self {
        Self {
            folder: folder.to_owned(),
            format,
            origin: origin.to_owned(),
            appender: Appender::default(),
            index: Index::default(),
        }
    }

    /// Makes the files what they should be after whatever happened.
    pub fn prepare(&mut self) -> io::Result<()> {
        self.appender.mend()?;
        for (_, path) in self.files()? {
            cut_torn_tail(&path).map_err(|error| named(&path, &error))?;
        }
        Ok(())
    }

    /// What is known of another folder says nothing of the one that is there now.
    pub fn forget(&mut self) {
        (self.appender, self.index) = (Appender::default(), Index::default());
    }

    /// Appends durably, or not at all.
    pub fn append(&mut self, part: &Part) -> io::Result<()> {
        let path = self.folder.join(format!("{PREFIX}{}{SUFFIX}", part.day));
        let (before, after) = self.appender.append(&path, &part.bytes)?;
        self.index.appended(&path, before, after);
        Ok(())
    }

    /// Nothing where the turn is over before all is known.
    pub fn read_back(
        &mut self,
        window: &Window,
        sought: Sought,
        turn: &mut Turn,
    ) -> io::Result<Option<Found>> {
        self.appender.mend()?;
        let mut found = Vec::new();
        let (format, origin) = (self.format, &self.origin);
        // Who asks by time alone restores a log, and compares no fields.
        let compares = sought == Sought::Any && !window.indexes.is_empty();
        let mut files = self.files()?;
        if sought == Sought::Sent {
            // A line stands in the file of the day on which its event was appended.
            files.retain(|(since, _)| is_of_day(window, *since));
        }
        for (since, path) in files {
            let read = |file: &mut File, part| {
                let bytes = bytes(file, part)?;
                if compares { held_whole(&bytes, format, origin) } else { held(&bytes, format, origin) }
            };
            match self.index.find(&path, window, since, false, turn, &read)? {
                Some(held) => found.extend(held),
                None => return Ok(None),
            }
        }
        Ok(Some(found.into()))
    }

    /// Ours, with the beginnings of their days.
    fn files(&self) -> io::Result<Vec<(Nanos, PathBuf)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let day = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX));
            if let Some(since) = day.and_then(beginning) {
                files.push((since, entry.path()));
            }
        }
        files.sort();
        Ok(files)
    }
}

/// When a day begins, `2026-11-27`.
pub fn beginning(day: &str) -> Option<Nanos> {
    let time: Timestamp = format!("{day}T00:00:00.000000000Z").parse().ok()?;
    Some(Nanos(time.nanos()))
}

/// An event's line, with its end.
pub fn line(format: Format, logged: &Logged<'_>, redacted: bool) -> Vec<u8> {
    let mut line = match format {
        Format::Custody => envelope(logged, redacted),
        other => other.of(logged).into_owned(),
    };
    line.push(b'\n');
    line
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// What lines claim; a part of a line at the end claims nothing.
pub fn held(bytes: &[u8], format: Format, origin: &str) -> io::Result<Vec<Held>> {
    Ok(lines(bytes).filter_map(|line| claims::of_line(line, format, origin)).collect())
}

/// The same with the lines themselves: all that stands in them is compared with what was sent.
fn held_whole(bytes: &[u8], format: Format, origin: &str) -> io::Result<Vec<Held>> {
    let whole = |line: &[u8]| {
        let held = claims::of_line(line, format, origin)?;
        Some(Held { document: Some(line.to_vec()), ..held })
    };
    Ok(lines(bytes).filter_map(whole).collect())
}

/// An error with the name of the file that it is about; where that lies, whoever asked says.
fn named(path: &Path, error: &io::Error) -> io::Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    io::Error::new(error.kind(), format!("{name}: {error}"))
}

/// Appends so that what is there is durable, and takes back what isn't.
#[derive(Default)]
pub struct Appender {
    /// A file that was written to and not synced, and how long it was before.
    pub(super) torn: Option<(PathBuf, u64)>,
}

impl Appender {
    /// Takes back what a failed write has left: the kernel may show what isn't on the disk.
    pub fn mend(&mut self) -> io::Result<()> {
        if let Some((path, length)) = &self.torn {
            take_back(path, *length).map_err(|error| named(path, &error))?;
            self.torn = None;
        }
        Ok(())
    }

    /// Appends and syncs. Gives the file's stamps before and after.
    pub fn append(&mut self, path: &Path, bytes: &[u8]) -> io::Result<(Stamp, Stamp)> {
        self.mend()?;
        self.write(path, bytes).map_err(|error| named(path, &error))
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<(Stamp, Stamp)> {
        let mut file = OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
        let metadata = file.metadata()?;
        // Its name may not be on the disk yet: it was made just now, or by somebody who couldn't say so any more.
        if metadata.len() == 0
            && let Some(folder) = path.parent()
        {
            sync_directory(folder)?;
        }
        let before = Stamp::of(&metadata);
        self.torn = Some((path.to_owned(), metadata.len()));
        if let Err(error) = file.write_all(bytes).and_then(|()| file.sync_data()) {
            drop(file);
            // If it can't be taken back now, it is before anything else happens.
            if let Err(error) = self.mend() {
                tracing::warn!("{}: what was not written whole stays there for now: {error}", path.display());
            }
            return Err(error);
        }
        self.torn = None;
        Ok((before, Stamp::of(&file.metadata()?)))
    }
}

/// Makes a file as long as it was.
fn take_back(path: &Path, length: u64) -> io::Result<()> {
    let file = match OpenOptions::new().write(true).open(path) {
        // Somebody has removed it, to make room perhaps: with it went what there was to take back.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    // One that somebody has emptied would become as long by zeros.
    if file.metadata()?.len() > length {
        file.set_len(length)?;
    }
    file.sync_data()
}

/// Cuts what a crash left of a line at the end, and syncs what was read but perhaps never synced.
/// One that is whole is only read: a day that is over may be kept from being changed (chattr(1)).
pub fn cut_torn_tail(path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let (mut end, mut whole) = (length, 0);
    while end > 0 {
        let start = end.saturating_sub(TAIL_BYTES);
        let tail = bytes(&mut file, start..end)?;
        if let Some(at) = tail.iter().rposition(|byte| *byte == b'\n') {
            whole = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if whole < length {
        OpenOptions::new().write(true).open(path)?.set_len(whole)?;
    }
    file.sync_data()
}
