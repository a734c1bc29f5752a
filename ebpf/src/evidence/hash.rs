//! SHA-256 of program files, each read once as long as it stays as it is.
//!
//! Which files these are, and what answers for them, is chosen by those who are watched: a thread of its own looks at them,
//! and the scribe doesn't wait longer for it than it may.

use crate::host;
use crate::sensor::is_at;
use custody_core::clock::{Clock as _, SystemClock};
use custody_core::event::Timestamp;
use custody_core::event::hex::to_hex;
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, major, minor, open, stat};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// How many files are remembered; then all are forgotten.
const REMEMBERED_MAX: usize = 4_096;

/// A longer file isn't read; bytes.
const FILE_BYTES_MAX: i64 = 256 << 20;

/// How long the evidence of others may be held up by hashing, in each batch: less than any heartbeat's limit.
const WAIT_MAX: Duration = Duration::from_millis(800);

/// A file's times are those of the last tick of the clock: by so many nanoseconds a write may be later than they say.
const CTIME_NANOS: u64 = 10_000_000;

/// Which file it is, and how it is.
type State = (u64, u64, i64, i64, i64);

/// What is known of program files.
#[derive(Debug, Default)]
pub struct Hashes {
    hasher: Option<Hasher>,
    /// Until when this batch may wait, by the monotonic clock.
    until: Duration,
}

/// The thread that looks at files; it ends with this.
#[derive(Debug)]
struct Hasher {
    ask: SyncSender<Wanted>,
    answers: Receiver<Option<String>>,
    /// An answer that nobody waits for any more is still to come.
    late: bool,
}

/// The file that a process runs.
#[derive(Debug)]
struct Wanted {
    pid: u32,
    path: PathBuf,
    /// Major, minor.
    device: (u32, u32),
    inode: u64,
    /// When it began to.
    ran: Timestamp,
    /// Until when it is of use, by the monotonic clock.
    until: Duration,
}

impl Hashes {
    /// A batch begins, which may wait for as long as any.
    pub fn begin_batch(&mut self) {
        self.until = SystemClock::new().monotonic().saturating_add(WAIT_MAX);
    }

    /// SHA-256 of the file that process `pid` has run since `ran`, in hex, if it is still the one with that device (major, minor) and
    /// inode, and certainly as it was; it is looked for by the process, and by its path. None, too, if there is no time left for it.
    pub fn of(
        &mut self,
        pid: u32,
        path: &Path,
        (device, inode): ((u32, u32), u64),
        ran: Timestamp,
    ) -> Option<String> {
        if self.hasher.is_none() {
            self.hasher = Hasher::begin();
        }
        let wanted = Wanted { pid, path: host::path(path), device, inode, ran, until: self.until };
        let left = self.until.saturating_sub(SystemClock::new().monotonic());
        match self.hasher.as_mut()?.of(wanted, left) {
            Ok(hash) => hash,
            Err(Ended) => {
                self.hasher = None;
                None
            }
        }
    }
}

/// The thread is gone.
struct Ended;

impl Hasher {
    fn begin() -> Option<Self> {
        let (ask, asked) = sync_channel::<Wanted>(1);
        let (answer, answers) = sync_channel(1);
        let hash = move || {
            let mut files = Files::default();
            while let Ok(wanted) = asked.recv() {
                if answer.send(files.of(&wanted)).is_err() {
                    return;
                }
            }
        };
        match std::thread::Builder::new().name("hashes".to_owned()).spawn(hash) {
            Ok(_) => Some(Self { ask, answers, late: false }),
            Err(error) => {
                tracing::error!("no program file is hashed: no thread can be started: {error}");
                None
            }
        }
    }

    fn of(&mut self, wanted: Wanted, left: Duration) -> Result<Option<String>, Ended> {
        if self.late {
            match self.answers.recv_timeout(Duration::ZERO) {
                Ok(_) => self.late = false,
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err(Ended),
            }
        }
        if left.is_zero() {
            return Ok(None);
        }
        let path = wanted.path.clone();
        self.ask.send(wanted).map_err(|_| Ended)?;
        match self.answers.recv_timeout(left) {
            Ok(hash) => Ok(hash),
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("{} couldn't be read in time: its event has no hash", path.display());
                self.late = true;
                Ok(None)
            }
            Err(RecvTimeoutError::Disconnected) => Err(Ended),
        }
    }
}

/// Files that were read.
#[derive(Debug, Default)]
struct Files(BTreeMap<State, String>);

impl Files {
    /// One that is known by its path isn't opened.
    fn of(&mut self, wanted: &Wanted) -> Option<String> {
        if let Some(known) = stat(&wanted.path).ok().and_then(|stat| self.known(&stat, wanted)) {
            return Some(known);
        }
        let by_process = PathBuf::from(format!("/proc/{}/exe", wanted.pid));
        self.at(&by_process, OFlags::empty(), wanted)
            .or_else(|| self.at(&wanted.path, OFlags::NOFOLLOW, wanted))
    }

    /// What lies at a path by now may be anything: it is opened only once it is known to be that file, since to open some
    /// devices does something, and to open a pipe may take for ever.
    fn at(&mut self, path: &Path, follow: OFlags, wanted: &Wanted) -> Option<String> {
        let found = open(path, OFlags::PATH | OFlags::CLOEXEC | follow, Mode::empty()).ok()?;
        let stat = fstat(&found).ok()?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !regular || stat.st_size > FILE_BYTES_MAX || stat.st_ino != wanted.inode {
            return None;
        }
        if !is(&stat, wanted) && !is_at(&found, wanted.device, wanted.inode) {
            return None;
        }
        if let Some(known) = self.0.get(&state(&stat)) {
            return is_as_it_ran(&stat, wanted).then(|| known.clone());
        }
        let same = format!("/proc/self/fd/{}", found.as_raw_fd());
        let file = open(same, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let hash = read(File::from(file), wanted.until)?;
        if state(&fstat(&found).ok()?) != state(&stat) {
            return None;
        }
        if self.0.len() >= REMEMBERED_MAX {
            self.0.clear();
        }
        self.0.insert(state(&stat), hash.clone());
        is_as_it_ran(&stat, wanted).then_some(hash)
    }

    fn known(&self, stat: &Stat, wanted: &Wanted) -> Option<String> {
        self.0.get(&state(stat)).filter(|_| is(stat, wanted) && is_as_it_ran(stat, wanted)).cloned()
    }
}

/// SHA-256 of a file in hex, if it can be read until then.
fn read(mut file: File, until: Duration) -> Option<String> {
    let clock = SystemClock::new();
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    while clock.monotonic() < until {
        match file.read(&mut buffer).ok()? {
            0 => return Some(to_hex(&hash.finalize())),
            count => hash.update(buffer.get(..count)?),
        }
    }
    None
}

/// Whether nobody can have written to the file since it was run: nobody may while it runs (ETXTBSY), and whoever does changes its ctime,
/// which nobody can set.
fn is_as_it_ran(now: &Stat, wanted: &Wanted) -> bool {
    let changed = u64::try_from(changed(now)).unwrap_or_default();
    changed.saturating_add(CTIME_NANOS) < wanted.ran.nanos()
        || stat(format!("/proc/{}/exe", wanted.pid)).is_ok_and(|runs| state(&runs) == state(now))
}

fn is(stat: &Stat, wanted: &Wanted) -> bool {
    (major(stat.st_dev), minor(stat.st_dev)) == wanted.device && stat.st_ino == wanted.inode
}

fn changed(stat: &Stat) -> i64 {
    stat.st_ctime.wrapping_mul(1_000_000_000).wrapping_add(stat.st_ctime_nsec.cast_signed())
}

fn state(stat: &Stat) -> State {
    // Whoever writes to a file changes its ctime, which nobody can set.
    (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime, changed(stat))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, mknodat};
    use std::os::unix::fs::MetadataExt as _;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    /// No process has this number.
    const NONE: u32 = u32::MAX;
    const LATER: Timestamp = Timestamp::from_nanos(u64::MAX);

    fn written(path: &Path) -> ((u32, u32), u64) {
        std::io::Write::write_all(&mut File::create(path).unwrap(), b"abc").unwrap();
        place(path)
    }

    fn place(path: &Path) -> ((u32, u32), u64) {
        let about = std::fs::symlink_metadata(path).unwrap();
        ((major(about.dev()), minor(about.dev())), about.ino())
    }

    fn begun() -> Hashes {
        let mut hashes = Hashes::default();
        hashes.begin_batch();
        hashes
    }

    #[test]
    fn a_file_is_hashed_if_it_is_that_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let (device, inode) = written(&path);
        let mut hashes = begun();
        assert_eq!(hashes.of(NONE, &path, (device, inode), LATER).as_deref(), Some(ABC));
        assert_eq!(hashes.of(NONE, &path, (device, inode), LATER).as_deref(), Some(ABC));
        assert_eq!(hashes.of(NONE, &path, (device, inode + 1), LATER), None, "another file took its name");
        assert_eq!(hashes.of(NONE, &directory.path().join("gone"), (device, inode), LATER), None);
    }

    /// A hash that is told is of what ran, or there is none.
    #[test]
    fn what_was_written_after_a_program_ran_has_no_hash() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let (device, inode) = written(&path);
        let before = Timestamp::from_nanos(SystemClock::new().wall().0 - 1_000_000_000);
        let mut hashes = begun();
        assert_eq!(hashes.of(NONE, &path, (device, inode), before), None);
        assert_eq!(hashes.of(NONE, &path, (device, inode), LATER).as_deref(), Some(ABC));
        assert_eq!(hashes.of(NONE, &path, (device, inode), before), None, "also when it is known");
        // Nobody can write to what runs: it may have been written a moment before.
        let runs = std::env::current_exe().unwrap();
        let (device, inode) = place(&runs);
        hashes.begin_batch();
        let long_ago = Timestamp::from_nanos(1);
        assert!(hashes.of(std::process::id(), &runs, (device, inode), long_ago).is_some());
    }

    #[test]
    fn what_took_the_place_of_a_program_is_not_opened() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        let (device, inode) = written(&program);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&program, &link).unwrap();
        let pipe = directory.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let mut hashes = begun();
        assert_eq!(hashes.of(NONE, &link, (device, inode), LATER), None, "a link isn't followed");
        // Whoever opened it to read would wait until somebody writes.
        assert_eq!(hashes.of(NONE, &pipe, (device, inode), LATER), None);
        let (of_pipe, inode_of_pipe) = place(&pipe);
        assert_eq!(hashes.of(NONE, &pipe, (of_pipe, inode_of_pipe), LATER), None);
        assert_eq!(
            hashes.of(NONE, &program, (device, inode), LATER).as_deref(),
            Some(ABC),
            "nothing is late"
        );
    }

    #[test]
    fn no_batch_waits_for_a_thread_that_stands_still() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let (device, inode) = written(&path);
        let (ask, asked) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        let mut hashes = Hashes {
            hasher: Some(Hasher { ask, answers, late: false }),
            until: SystemClock::new().monotonic().saturating_add(Duration::from_millis(20)),
        };
        assert_eq!(hashes.of(NONE, &path, (device, inode), LATER), None, "it has no time left");
        // With time, while it stands still: it isn't even asked.
        hashes.begin_batch();
        assert_eq!(hashes.of(NONE, &path, (device, inode), LATER), None);
        assert_eq!(asked.try_iter().count(), 1);
        // It goes on, and its late answer is nobody's.
        answer.send(Some("late".to_owned())).unwrap();
        let going_on = std::thread::spawn(move || {
            let wanted: Wanted = asked.recv().unwrap();
            answer.send(Files::default().of(&wanted)).unwrap();
        });
        hashes.begin_batch();
        assert_eq!(hashes.of(NONE, &path, (device, inode), LATER).as_deref(), Some(ABC));
        going_on.join().unwrap();
    }
}
