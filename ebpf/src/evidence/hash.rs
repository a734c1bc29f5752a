//! SHA-256 of program files, each read once as long as it stays as it is.
//!
//! Which files these are, and what answers for them, is chosen by those who are watched: a thread of its own looks at them,
//! and the scribe doesn't wait longer for it than it may.

use crate::host;
use crate::sensor::{Executions, is_at};
use custody_core::clock::{Clock as _, SystemClock};
use custody_core::event::Timestamp;
use custody_core::event::hex::to_hex;
use rustix::fs::{FileType, FsWord, Mode, OFlags, Stat, fstat, fstatfs, major, minor, open, stat};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
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

/// File systems that get their files from elsewhere: a server, or another machine at the same disk, decides with each read what is in
/// them, and says what their times are. By their numbers in statfs(2).
const SERVED: [FsWord; 18] = [
    0x6573_5546, // FUSE, and so virtiofs
    0x6969,      // NFS
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB 2 and 3
    0x517b,      // SMB
    0x0102_1997, // 9p
    0x00c3_6400, // Ceph
    0x5346_414f, // AFS
    0x6b41_4653, // AFS, as it names itself since
    0x7375_7245, // Coda
    0x564c,      // NCP
    0x786f_4256, // VirtualBox's shared folders
    0x2003_0528, // OrangeFS
    0x0bd0_0bd0, // Lustre
    0x4750_4653, // GPFS
    0x1983_0326, // BeeGFS
    0x0116_1970, // GFS2
    0x7461_636f, // OCFS2
];

/// Which file it is, and how it is.
type State = (u64, u64, i64, i64, i64);

/// When a program began to run.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    /// By the time of day.
    pub at: Timestamp,
    /// By the kernel's clock, in nanoseconds since the machine was started, as it told it.
    pub since_boot: u64,
}

/// Knows since when processes run what they run now.
pub trait Latest: Debug + Send + Sync {
    /// When a process began its latest program, as [`Ran::since_boot`].
    fn latest(&self, pid: u32) -> Option<u64>;
}

impl Latest for Executions {
    fn latest(&self, pid: u32) -> Option<u64> {
        Executions::latest(self, pid)
    }
}

/// What is known of program files.
#[derive(Debug, Default)]
pub struct Hashes {
    latest: Option<Arc<dyn Latest>>,
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
    ran: Ran,
    /// Until when it is of use, by the monotonic clock.
    until: Duration,
}

impl Hashes {
    /// None yet. Without `latest`, what was changed within 10 ms before it ran, or in some other way than its content since, has none.
    pub fn asking(latest: Option<Arc<dyn Latest>>) -> Self {
        Self { latest, ..Self::default() }
    }

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
        ran: Ran,
    ) -> Option<String> {
        if self.hasher.is_none() {
            self.hasher = Hasher::begin(self.latest.clone());
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
    fn begin(latest: Option<Arc<dyn Latest>>) -> Option<Self> {
        let (ask, asked) = sync_channel::<Wanted>(1);
        let (answer, answers) = sync_channel(1);
        let hash = move || {
            let mut files = Files { latest, ..Files::default() };
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
struct Files {
    known: BTreeMap<State, String>,
    latest: Option<Arc<dyn Latest>>,
}

impl Files {
    /// One that is known by its path isn't read.
    fn of(&mut self, wanted: &Wanted) -> Option<String> {
        if let Some(known) = self.known(wanted) {
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
        if !regular || stat.st_size > FILE_BYTES_MAX || stat.st_ino != wanted.inode || !is_local(&found) {
            return None;
        }
        if !is(&stat, wanted) && !is_at(&found, wanted.device, wanted.inode) {
            return None;
        }
        if !self.is_as_it_ran(&stat, wanted) {
            return None;
        }
        if let Some(known) = self.known.get(&state(&stat)) {
            return Some(known.clone());
        }
        // Before it is read: whoever writes to it from now on changes its ctime.
        let settled = is_settled(&stat, SystemClock::new().wall().into());
        let same = format!("/proc/self/fd/{}", found.as_raw_fd());
        let file = open(same, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let hash = read(File::from(file), wanted.until)?;
        // Also what the process runs is asked again: only until now could nobody write to it.
        if state(&fstat(&found).ok()?) != state(&stat) || !self.is_as_it_ran(&stat, wanted) {
            return None;
        }
        if settled {
            self.remember(state(&stat), &hash);
        }
        Some(hash)
    }

    fn remember(&mut self, state: State, hash: &str) {
        if self.known.len() >= REMEMBERED_MAX {
            self.known.clear();
        }
        self.known.insert(state, hash.to_owned());
    }

    fn known(&self, wanted: &Wanted) -> Option<String> {
        let found = open(&wanted.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let stat = fstat(&found).ok()?;
        let hash = self.known.get(&state(&stat))?;
        // What a file system that is gone had as its device, another may have by now.
        let same = is(&stat, wanted) && is_local(&found) && self.is_as_it_ran(&stat, wanted);
        same.then(|| hash.clone())
    }

    /// Whether nobody can have written to the file since it was run: nobody may while it runs (ETXTBSY), and whoever does changes its
    /// ctime, which nobody can set.
    fn is_as_it_ran(&self, now: &Stat, wanted: &Wanted) -> bool {
        is_settled(now, wanted.ran.at) || self.runs_still(now, wanted)
    }

    /// Whether the process has run that file all the time since. That it runs it now doesn't do: it may have run another one in between,
    /// while somebody wrote to this one. So the kernel is asked when the process began its latest program, and that after what it
    /// runs was looked at: whatever began before that look is told by then.
    fn runs_still(&self, now: &Stat, wanted: &Wanted) -> bool {
        let Some(latest) = &self.latest else { return false };
        stat(format!("/proc/{}/exe", wanted.pid)).is_ok_and(|runs| state(&runs) == state(now))
            && latest.latest(wanted.pid) == Some(wanted.ran.since_boot)
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

/// Whether the file was certainly changed before that time, so that a change since has changed its ctime too.
fn is_settled(stat: &Stat, at: Timestamp) -> bool {
    u64::try_from(changed(stat)).unwrap_or_default().saturating_add(CTIME_NANOS) < at.nanos()
}

/// Whether the kernel here decides what is read of a file.
fn is_local(found: &OwnedFd) -> bool {
    fstatfs(found).is_ok_and(|about| !is_served(about.f_type))
}

fn is_served(file_system: FsWord) -> bool {
    SERVED.contains(&file_system)
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
    const LATER: Ran = Ran { at: Timestamp::from_nanos(u64::MAX), since_boot: 0 };

    /// All processes have begun their latest programs then.
    #[derive(Debug)]
    struct Since(u64);

    impl Latest for Since {
        fn latest(&self, _pid: u32) -> Option<u64> {
            Some(self.0)
        }
    }

    fn written(path: &Path) -> ((u32, u32), u64) {
        write(path, b"abc");
        place(path)
    }

    fn write(path: &Path, bytes: &[u8]) {
        std::io::Write::write_all(&mut File::create(path).unwrap(), bytes).unwrap();
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
        let before = Ran { at: before, since_boot: 0 };
        let mut hashes = begun();
        assert_eq!(hashes.of(NONE, &path, (device, inode), before), None);
        assert_eq!(hashes.of(NONE, &path, (device, inode), LATER).as_deref(), Some(ABC));
        assert_eq!(hashes.of(NONE, &path, (device, inode), before), None, "also when it is known");
    }

    /// Nobody can write to what runs: it may have been written a moment before. But what runs may be another program by now, in the same
    /// file.
    #[test]
    fn what_was_written_just_before_it_ran_has_a_hash_as_long_as_the_process_runs_nothing_else() {
        let runs = std::env::current_exe().unwrap();
        let (device, inode) = place(&runs);
        let at = Timestamp::from_nanos(1);
        let mut hashes = Hashes::asking(Some(Arc::new(Since(7))));
        let mut of = |since_boot| {
            hashes.begin_batch();
            hashes.of(std::process::id(), &runs, (device, inode), Ran { at, since_boot })
        };
        assert!(of(7).is_some());
        assert_eq!(of(6), None, "it has run something since, and then the same file again");
        // Where the kernel can't be asked.
        let mut hashes = begun();
        assert_eq!(hashes.of(std::process::id(), &runs, (device, inode), Ran { at, since_boot: 7 }), None);
    }

    /// Two changes within one tick of the clock leave the same times.
    #[test]
    fn what_was_changed_a_moment_ago_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let mut hashes = begun();
        for _ in 0..50 {
            let (device, inode) = written(&path);
            assert_eq!(hashes.of(NONE, &path, (device, inode), LATER).as_deref(), Some(ABC));
            write(&path, b"xyz");
            let other = hashes.of(NONE, &path, (device, inode), LATER);
            assert_ne!(other.unwrap(), ABC);
            hashes.begin_batch();
        }
        // Once it has settled it is known.
        let (device, inode) = written(&path);
        std::thread::sleep(Duration::from_millis(30));
        let monotonic = SystemClock::new().monotonic();
        let until = monotonic.saturating_add(WAIT_MAX);
        let wanted = Wanted { pid: NONE, path: path.clone(), device, inode, ran: LATER, until };
        let mut files = Files::default();
        assert_eq!(files.of(&wanted).as_deref(), Some(ABC));
        assert_eq!(files.known.len(), 1);
        // Without any time to read it.
        assert_eq!(files.of(&Wanted { until: Duration::ZERO, ..wanted }).as_deref(), Some(ABC));
    }

    #[test]
    fn a_file_system_whose_server_decides_what_is_read_is_none_of_ours() {
        for (name, number) in [("fuse", 0x6573_5546), ("nfs", 0x6969), ("9p", 0x0102_1997)] {
            assert!(is_served(number), "{name}");
        }
        for (name, number) in [("ext4", 0xef53), ("tmpfs", 0x0102_1994), ("overlay", 0x794c_7630)] {
            assert!(!is_served(number), "{name}");
        }
        let directory = tempfile::tempdir().unwrap();
        let own = open(directory.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        assert!(is_local(&own));
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
            ..Hashes::default()
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
