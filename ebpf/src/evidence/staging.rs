//! Where records lie between the kernel's buffer and the spool.
//!
//! A record is written here before it leaves the kernel's buffer, so that an agent that is killed at any moment loses
//! none: what lies here and isn't in the spool is taken up at the next start. No record is synced: a kernel that dies takes
//! its own buffer along. The file has an epoch, which goes up when its records are in the spool; the spool's last record
//! says which epoch it holds, so that nothing is taken up twice, also where a machine that died left an older file. The
//! times of records count from a start of the machine: when that was stands in the file too.
//!
//! And which start it was. Where the next one finds another there, nobody knows whether the kernel's buffer had been read to
//! its end: that has to be told. An agent that has read it to its end, while nothing was of a session, names none when it stops.

use super::booted::Booted;
use crate::sensor::layout::LAYOUT_VERSION;
use custody_core::log::durable;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use uuid::Uuid;

const MAGIC: [u8; 8] = *b"custody\x02";
const HEADER_BYTES: usize = 48;

/// In the place of a start of the machine: none of which anything could be missing.
const NONE: Uuid = Uuid::nil();
/// One of which nobody knows which it was.
const UNKNOWN: Uuid = Uuid::max();

/// The file.
#[derive(Debug)]
pub struct Staging {
    file: File,
    /// How long it is, in bytes: up to its last whole record.
    bytes: u64,
    epoch: u64,
    /// Which start of the machine this is.
    boot: Uuid,
}

/// What an earlier run left.
#[derive(Debug, PartialEq, Eq)]
pub struct Left {
    /// Records that aren't in the spool, in their order.
    pub records: Vec<Vec<u8>>,
    /// When the machine was started, for those records, where it was started again since.
    pub booted: Option<Booted>,
    /// The last record of all, in the spool or not: the kernel's buffer may still hold it too.
    pub last: Option<Vec<u8>>,
    /// Records that can't be read, since they are of another version of the programs; a part of one at the end isn't
    /// counted, for it is still in the kernel's buffer.
    pub unreadable: bool,
    /// The machine was started again since, and what its kernel's buffer may have held is lost: how much, and whether anything, isn't
    /// known. True at each start until it was told, with what lies here ([`Staging::spooled`]).
    pub lost: bool,
}

impl Staging {
    /// Opens the file; `spooled` is the epoch that the spool's last record holds. The machine was started at `booted`,
    /// which start has the number `boot`.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path, spooled: Option<u64>, boot: Uuid, booted: Booted) -> io::Result<(Self, Left)> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if let Some(directory) = path.parent() {
            durable::sync_directory(directory)?;
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // From 1 on: what is only a part of what lies here names the epoch before.
        let next = spooled.map_or(1, |epoch| epoch.saturating_add(1));
        // A process that is killed leaves a header, but for the first: without one a machine has died, or somebody removed the file.
        let was = start_in(&bytes).or(spooled.map(|_| UNKNOWN)).unwrap_or(boot);
        let lost = was != boot && was != NONE;
        let mut left = Left { records: Vec::new(), booted: None, last: None, unreadable: false, lost };
        let mut epoch = next;
        if let Some(header) = bytes.get(..HEADER_BYTES) {
            let of = u64_at(header, 16);
            let records = records(bytes.get(HEADER_BYTES..).unwrap_or_default());
            let readable = header.starts_with(&MAGIC) && u64_at(header, 8) == LAYOUT_VERSION;
            let untold = spooled.is_none_or(|spooled| of > spooled);
            if readable {
                let elsewhere = was != boot;
                // A kernel's buffer dies with it.
                left.last = records.last().filter(|_| !elsewhere).cloned();
                if untold {
                    left.records = records;
                    left.booted = elsewhere.then(|| Booted::from_nanos(u64_at(header, 24)));
                    epoch = of;
                }
            } else {
                left.unreadable = untold && !records.is_empty();
            }
        }
        let whole = left.records.iter().map(|record| 4 + record.len()).sum::<usize>() + HEADER_BYTES;
        let mut staging = Self { file, bytes: u64::try_from(whole).unwrap_or(u64::MAX), epoch, boot };
        if left.records.is_empty() {
            staging.begin(next, booted, if lost { was } else { boot })?;
            // No machine that dies may bring back what says that nothing can be missing.
            staging.file.sync_data()?;
        } else {
            staging.cut()?;
        }
        Ok((staging, left))
    }

    /// The epoch that a batch of all that lies here is to name.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Adds a record: when this returns it survives the death of this process.
    ///
    /// # Errors
    /// The system's: the record must stay in the kernel's buffer, and what was written of it is taken back.
    pub fn add(&mut self, record: &[u8]) -> io::Result<()> {
        let length = u32::try_from(record.len()).map_err(io::Error::other)?;
        let mut framed = Vec::with_capacity(4 + record.len());
        framed.extend_from_slice(&length.to_le_bytes());
        framed.extend_from_slice(record);
        if let Err(error) = self.file.write_all(&framed) {
            // What comes next would else stand behind a part of a record, and not be found.
            self.cut()?;
            return Err(error);
        }
        self.bytes = self.bytes.saturating_add(u64::try_from(framed.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// All that lies here is in the spool. What comes next counts from `booted` on.
    ///
    /// # Errors
    /// The system's.
    pub fn spooled(&mut self, booted: Booted) -> io::Result<()> {
        self.begin(self.epoch.saturating_add(1), booted, self.boot)
    }

    /// All that lay here is in the spool, the kernel's buffer is empty, and nothing is left that could fill it: whatever becomes of
    /// the machine, nothing is missing. Durable when this returns.
    ///
    /// # Errors
    /// The system's: the next start may then say that something is lost.
    pub fn ended(&mut self, booted: Booted) -> io::Result<()> {
        self.begin(self.epoch, booted, NONE)?;
        self.file.sync_data()
    }

    /// Removes what stands behind the last whole record.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.bytes)?;
        self.file.seek(SeekFrom::Start(self.bytes)).map(drop)
    }

    /// First the records go, then the header changes, in its place: whoever is killed in between leaves the one before, of an epoch that is
    /// in the spool.
    fn begin(&mut self, epoch: u64, booted: Booted, start: Uuid) -> io::Result<()> {
        self.bytes = u64::try_from(HEADER_BYTES).unwrap_or(u64::MAX);
        self.cut()?;
        self.file.rewind()?;
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&LAYOUT_VERSION.to_le_bytes());
        header.extend_from_slice(&epoch.to_le_bytes());
        header.extend_from_slice(&booted.nanos().to_le_bytes());
        header.extend_from_slice(start.as_bytes());
        self.file.write_all(&header)?;
        self.epoch = epoch;
        Ok(())
    }
}

/// Which start of the machine a file is of.
fn start_in(file: &[u8]) -> Option<Uuid> {
    let header = file.get(..HEADER_BYTES).filter(|header| header.starts_with(&MAGIC))?;
    Uuid::from_slice(header.get(32..)?).ok()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// Whole records; what is behind them isn't whole.
fn records(mut rest: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let Some((head, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
        let Some((record, after)) = after.split_at_checked(length) else { break };
        records.push(record.to_vec());
        rest = after;
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: Uuid = Uuid::from_u128(1);

    fn open(path: &Path, spooled: Option<u64>) -> io::Result<(Staging, Left)> {
        Staging::open(path, spooled, BOOT, Booted::from_nanos(7))
    }

    #[test]
    fn what_another_start_of_the_machine_left_keeps_its_time_and_nothing_old_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("staging");
        let (mut staging, _) = open(&path, Some(8)).unwrap();
        staging.add(b"one").unwrap();
        assert_eq!(staging.epoch(), 9);
        drop(staging);
        let now = Booted::from_nanos(1_000);
        let (staging, left) = Staging::open(&path, Some(8), Uuid::from_u128(2), now).unwrap();
        assert_eq!((left.records, left.last), (vec![b"one".to_vec()], None));
        assert_eq!((left.booted, staging.epoch()), (Some(Booted::from_nanos(7)), 9));
        drop(staging);
        // The spool was synced and went on, and the file wasn't.
        let (staging, left) = Staging::open(&path, Some(12), Uuid::from_u128(2), now).unwrap();
        assert_eq!((left.records.len(), left.booted, staging.epoch()), (0, None, 13));
    }

    #[test]
    fn what_is_not_in_the_spool_is_there_after_any_death_and_nothing_twice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("staging");
        let (mut staging, left) = open(&path, None).unwrap();
        assert_eq!((left.records.len(), staging.epoch()), (0, 1));
        staging.add(b"one").unwrap();
        staging.add(b"two").unwrap();
        drop(staging);
        // Killed before the spool had it.
        let (mut staging, left) = open(&path, None).unwrap();
        assert_eq!(left.records, [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(left.last.as_deref(), Some(&b"two"[..]));
        staging.add(b"three").unwrap();
        let epoch = staging.epoch();
        drop(staging);
        // Killed after the spool had it, and before the file was begun anew.
        let (staging, left) = open(&path, Some(epoch)).unwrap();
        assert_eq!((left.records.len(), left.last.as_deref()), (0, Some(&b"three"[..])));
        assert_eq!(staging.epoch(), epoch + 1);
        drop(staging);
        // Killed after its records were removed, and before the header was changed.
        let header = std::fs::read(&path).unwrap();
        let (staging, left) = open(&path, Some(epoch + 1)).unwrap();
        assert_eq!((header.len(), left.records.len(), left.lost), (HEADER_BYTES, 0, false));
        assert_eq!(staging.epoch(), epoch + 2);
        drop(staging);
        // Killed while the first one was written.
        for written in [0, 3, HEADER_BYTES] {
            std::fs::File::create(&path).unwrap().write_all(&vec![0; written]).unwrap();
            let (staging, left) = open(&path, None).unwrap();
            assert_eq!(
                (left.records.len(), left.lost, left.unreadable, staging.epoch()),
                (0, false, false, 1)
            );
        }
    }

    #[test]
    fn what_a_machine_that_died_may_not_have_told_is_lost_until_that_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("staging");
        let start = |of: u128, spooled| {
            Staging::open(&path, spooled, Uuid::from_u128(of), Booted::from_nanos(7)).unwrap()
        };
        let lost = |of: u128, spooled| start(of, spooled).1.lost;
        assert!(!lost(1, None), "its first start");
        assert!(!lost(1, Some(1)), "the agent was started again, and has the same buffer");
        assert!(lost(2, Some(1)));
        // Killed, or without power once more, before the spool had that.
        assert!(lost(2, Some(1)) && lost(3, Some(1)));
        let (mut staging, _) = start(3, Some(1));
        staging.add(b"one").unwrap();
        drop(staging);
        // With records of this start too: they are told together.
        let (mut staging, left) = start(3, Some(1));
        assert_eq!((left.records.len(), left.lost), (1, true));
        staging.spooled(Booted::from_nanos(7)).unwrap();
        drop(staging);
        assert!(!lost(3, Some(2)), "it is told once");
        // The machine died before any of it was on the disk but the spool.
        assert!(lost(4, Some(9)));
        let (mut staging, _) = start(4, Some(9));
        staging.spooled(Booted::from_nanos(7)).unwrap();
        staging.ended(Booted::from_nanos(7)).unwrap();
        drop(staging);
        // The agent had ended in order, and began again before the machine went.
        assert!(!lost(4, Some(10)));
        assert!(lost(5, Some(10)));
        let (mut staging, _) = start(5, Some(10));
        staging.spooled(Booted::from_nanos(7)).unwrap();
        staging.ended(Booted::from_nanos(7)).unwrap();
        drop(staging);
        assert!(!lost(6, Some(11)), "nothing could be missing");
        // Without a header, as a machine that died may leave it.
        for written in [0, 3, HEADER_BYTES] {
            std::fs::File::create(&path).unwrap().write_all(&vec![0; written]).unwrap();
            assert!(lost(6, Some(12)));
        }
    }

    #[test]
    fn a_record_that_is_not_whole_is_still_in_the_kernels_buffer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("staging");
        let (mut staging, _) = open(&path, None).unwrap();
        staging.add(b"first").unwrap();
        staging.add(b"second").unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::File::create(&path).unwrap().write_all(&whole[..cut]).unwrap();
            let (_, left) = open(&path, None).unwrap();
            let wanted = usize::from(cut >= HEADER_BYTES + 9);
            assert_eq!(left.records.len(), wanted, "cut at {cut}");
        }
    }

    #[test]
    fn what_a_full_disk_took_of_a_record_is_taken_back() {
        let mounted = tempfile::tempdir().unwrap();
        let mount = |arguments: &[&str]| {
            let mut command = std::process::Command::new(arguments[0]);
            assert!(command.args(&arguments[1..]).arg(mounted.path()).status().unwrap().success());
        };
        mount(&["mount", "-t", "tmpfs", "-o", "size=64k", "staging"]);
        let path = mounted.path().join("staging");
        let (mut staging, _) = open(&path, None).unwrap();
        staging.add(b"before").unwrap();
        let refused = staging.add(&[7; 100_000]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        staging.add(b"after").unwrap();
        drop(staging);
        let (staging, left) = open(&path, None).unwrap();
        drop(staging);
        mount(&["umount"]);
        assert_eq!(left.records, [b"before".to_vec(), b"after".to_vec()]);
    }
}
