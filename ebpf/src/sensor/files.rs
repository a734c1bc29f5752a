//! Programs and paths that a policy denies and allows, compiled to the kernel's entries.
//!
//! The kernel knows a file by device and inode, and by its name in a directory that it knows likewise; so the second holds also for
//! what will get that name. Where a path leads is looked up here, and again every now and then: only what comes to be by another way
//! than under its own name (a directory above it is made, or exchanged) is unknown until then.

use super::error::SensorError;
use super::layout::{file_key, file_rule, name_key, net};
use super::record::{put, read_u32, read_u64};
use crate::host;
use rustix::fs::{AtFlags, StatxFlags, statx};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

const MOUNTS: [&str; 2] = ["/proc/1/mountinfo", "/proc/self/mountinfo"];
const ELF: [u8; 4] = *b"\x7fELF";
/// How long it may take to find out where paths lead: less than the log waits for an answer.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How many may be looking paths up that haven't been found yet.
const LOOKING_MAX: usize = 4;

/// What a policy says of programs and paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileRules {
    /// What its sessions may not run; wins over `allowed_programs`.
    pub denied_programs: Vec<PathRule>,
    /// What its sessions may not touch: open, rename, delete, link, change.
    pub denied_paths: Vec<PathRule>,
    /// What alone they may run: a program must stand in each of these lists; none: whatever isn't denied.
    pub allowed_programs: Vec<AllowList>,
}

/// A file, or a directory with all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRule {
    /// Told by the record of a denial; from 1 to `u32::MAX - 16`.
    pub id: u32,
    /// Absolute.
    pub path: PathBuf,
}

/// Programs that may be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowList {
    /// Told by the record of a denial; from 1 to `u32::MAX - 16`.
    pub id: u32,
    /// Files, and directories with all below them on the same file system; absolute.
    pub paths: Vec<PathBuf>,
}

impl FileRules {
    /// Every path that a rule speaks of.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let denied = self.denied_programs.iter().chain(&self.denied_paths).map(|rule| &rule.path);
        denied.chain(self.allowed_programs.iter().flat_map(|list| &list.paths)).map(PathBuf::as_path)
    }

    /// Numbers of the rules that deny.
    fn denying(&self) -> BTreeSet<u32> {
        self.denied_programs.iter().chain(&self.denied_paths).map(|rule| rule.id).collect()
    }

    /// The allow lists, a bit for each.
    pub(super) fn lists(&self) -> u32 {
        (0..self.allowed_programs.len()).fold(0, |bits, index| bits | bit(index))
    }

    pub(super) fn check(&self) -> Result<(), SensorError> {
        if self.allowed_programs.len() > net::LISTS_MAX {
            let why = format!("a session has at most {} lists of programs that may be run", net::LISTS_MAX);
            return Err(SensorError::Rule { id: 0, why });
        }
        let relative = self.paths().find(|path| !path.is_absolute());
        relative.map_or(Ok(()), |path| {
            Err(SensorError::Rule { id: 0, why: format!("{} isn't an absolute path", path.display()) })
        })
    }
}

fn bit(index: usize) -> u32 {
    u32::try_from(index).ok().and_then(|index| 1_u32.checked_shl(index)).unwrap_or_default()
}

/// A file as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId {
    pub(super) inode: u64,
    /// The kernel's own number: major << 20 | minor.
    pub(super) device: u32,
}

/// Where a path leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Place {
    file: Option<FileId>,
    /// By which names: the path's own, and that of what it leads to where that is another.
    names: BTreeSet<(FileId, Vec<u8>)>,
    /// The roots of what is mounted below it and nowhere else: below it by any other mount too.
    below: BTreeSet<FileId>,
    /// It is a program of the machine's own code, so no script.
    is_elf: bool,
}

/// Where paths lead, as they were looked up last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found(BTreeMap<PathBuf, Place>);

impl Found {
    /// Looks them up; what isn't there has only its name.
    pub fn look<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Found {
        let mounts = mounts();
        let (devices, machines) = (devices_of(&mounts), mounts.first().map_or(&[][..], Vec::as_slice));
        let places = paths.into_iter().map(|path| (path.to_owned(), Place::look(path, &devices, machines)));
        Found(places.collect())
    }

    /// Looks up what rules speak of, for as long as that may take: a file system on the way may not answer, and whoever looks there
    /// can't be ended. So those who look are limited in number too.
    ///
    /// # Errors
    /// It took too long, in a line.
    pub fn of(rules: &FileRules) -> Result<Found, String> {
        static LOOKING: AtomicUsize = AtomicUsize::new(0);
        let paths: Vec<PathBuf> = rules.paths().map(ToOwned::to_owned).collect();
        if paths.is_empty() {
            return Ok(Found::default());
        }
        let silent =
            || "where its paths lead can't be found out: a file system on the way doesn't answer".to_owned();
        if LOOKING.fetch_add(1, Ordering::Relaxed) >= LOOKING_MAX {
            LOOKING.fetch_sub(1, Ordering::Relaxed);
            return Err(silent());
        }
        let (tell, found) = sync_channel(1);
        let look = move || {
            let found = Found::look(paths.iter().map(PathBuf::as_path));
            LOOKING.fetch_sub(1, Ordering::Relaxed);
            // Whoever asked may wait no longer.
            drop(tell.send(found));
        };
        std::thread::Builder::new().name("paths of a session".to_owned()).spawn(look).map_err(|error| {
            LOOKING.fetch_sub(1, Ordering::Relaxed);
            format!("where its paths lead can't be found out: {error}")
        })?;
        found.recv_timeout(LOOK_MAX).map_err(|_| silent())
    }

    pub(super) fn has(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }
}

impl Place {
    fn look(path: &Path, devices: &BTreeMap<u64, u32>, mounts: &[Mount]) -> Place {
        let named = |path: &Path| {
            let directory = identify(&host::find(path.parent()?).ok()?, devices).ok()?;
            Some((directory, path.file_name()?.as_bytes().to_vec()))
        };
        let found = host::find(path).ok();
        let real = found.as_ref().and_then(|found| std::fs::read_link(host::again(found)).ok());
        let names = named(path).into_iter().chain(real.as_deref().and_then(named));
        let points = mounted_below(real.as_deref().unwrap_or(path), mounts);
        let root = |point: &Path| identify(&host::find(point).ok()?, devices).ok();
        Place {
            below: points.into_iter().filter_map(root).collect(),
            file: found.as_ref().and_then(|found| identify(found, devices).ok()),
            names: names.collect(),
            is_elf: found.as_ref().is_some_and(is_elf),
        }
    }
}

/// A file's device is that of the mount that it is on: on btrfs and overlays stat(2) tells another.
pub(super) fn identify(found: &OwnedFd, devices: &BTreeMap<u64, u32>) -> io::Result<FileId> {
    let stat = statx(found, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
    let told = stat.stx_dev_major << 20 | stat.stx_dev_minor;
    Ok(FileId { inode: stat.stx_ino, device: devices.get(&stat.stx_mnt_id).copied().unwrap_or(told) })
}

/// Whether an open file is the one that the kernel knows by that device (major, minor) and inode, whatever stat(2) tells of its device.
pub(crate) fn is_at(found: &OwnedFd, (major, minor): (u32, u32), inode: u64) -> bool {
    let wanted = FileId { inode, device: major << 20 | minor };
    identify(found, &devices()).is_ok_and(|id| id == wanted)
}

/// A mount.
struct Mount {
    id: u64,
    /// The kernel's own number: major << 20 | minor.
    device: u32,
    point: PathBuf,
}

/// `ID PARENT MAJOR:MINOR ROOT POINT …` (proc_pid_mountinfo(5)).
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut text = |at| str::from_utf8(fields.nth(at)?).ok();
    let (id, device) = (text(0)?.parse().ok()?, text(1)?);
    let (major, minor) = device.split_once(':')?;
    let device = major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?;
    Some(Mount { id, device, point: PathBuf::from(OsString::from_vec(unescaped(fields.nth(1)?))) })
}

/// The mounts of each list that can be read: of this machine's first process, and our own.
fn mounts() -> Vec<Vec<Mount>> {
    let read = MOUNTS.iter().filter_map(|mounts| std::fs::read(mounts).ok());
    read.map(|text| text.split(|byte| *byte == b'\n').filter_map(mount).collect()).collect()
}

fn devices_of(mounts: &[Vec<Mount>]) -> BTreeMap<u64, u32> {
    mounts.iter().flatten().map(|mount| (mount.id, mount.device)).collect()
}

/// The devices of this machine's mounts, by their numbers. In a container, both its own and those of the machine's first process.
pub(super) fn devices() -> BTreeMap<u64, u32> {
    devices_of(&mounts())
}

/// Blanks and the like stand there as three octal digits.
fn unescaped(mut text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    while let [first, rest @ ..] = text {
        let octal = rest.get(..3).filter(|_| *first == b'\\');
        let code = octal.and_then(|octal| u8::from_str_radix(str::from_utf8(octal).ok()?, 8).ok());
        plain.push(code.unwrap_or(*first));
        text = rest.get(if code.is_some() { 3 } else { 0 }..).unwrap_or_default();
    }
    plain
}

/// Where file systems are mounted below a directory that are mounted nowhere else. What is elsewhere too (a directory of programs
/// that a chroot has as well) is let alone: a rule would hold there.
fn mounted_below<'a>(directory: &Path, mounts: &'a [Mount]) -> Vec<&'a Path> {
    let is_below = |mount: &&Mount| mount.point != directory && mount.point.starts_with(directory);
    let (below, others): (Vec<_>, Vec<_>) = mounts.iter().partition(is_below);
    let is_elsewhere = |mount: &&Mount| others.iter().any(|other| other.device == mount.device);
    below.into_iter().filter(|mount| !is_elsewhere(mount)).map(|mount| mount.point.as_path()).collect()
}

fn is_elf(found: &OwnedFd) -> bool {
    let path = host::again(found);
    let mut magic = [0; ELF.len()];
    let is_file = path.metadata().is_ok_and(|about| about.is_file());
    is_file && File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == ELF
}

/// What the kernel is told of a file or name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The rule by which it may not be run; 0: none.
    pub(super) program: u32,
    /// The rule by which it may not be touched; 0: none.
    pub(super) path: u32,
    /// The allow lists that it stands in.
    pub(super) lists: u32,
}

/// A set of rules, without its number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entries {
    pub(super) files: BTreeMap<FileId, Said>,
    pub(super) names: BTreeMap<(FileId, Vec<u8>), Said>,
    /// A rule may speak of a script.
    pub(super) of_scripts: bool,
}

impl Entries {
    pub(super) fn compile(rules: &FileRules, found: &Found) -> Entries {
        let mut entries = Entries { of_scripts: !rules.allowed_programs.is_empty(), ..Entries::default() };
        for rule in &rules.denied_programs {
            let is_elf = found.0.get(&rule.path).is_some_and(|place| place.is_elf);
            entries.of_scripts |= !is_elf;
            entries.add(found, &rule.path, |said| first(&mut said.program, rule.id));
            entries.add_below(found, &rule.path, |said| first(&mut said.program, rule.id));
        }
        for rule in &rules.denied_paths {
            entries.add(found, &rule.path, |said| first(&mut said.path, rule.id));
            entries.add_below(found, &rule.path, |said| first(&mut said.path, rule.id));
        }
        for (index, list) in rules.allowed_programs.iter().enumerate() {
            for path in &list.paths {
                entries.add(found, path, |said| said.lists |= bit(index));
            }
        }
        entries
    }

    fn add(&mut self, found: &Found, path: &Path, say: impl Fn(&mut Said)) {
        let Some(place) = found.0.get(path) else { return };
        if let Some(file) = place.file {
            say(self.files.entry(file).or_default());
        }
        for name in &place.names {
            say(self.names.entry(name.clone()).or_default());
        }
    }

    fn add_below(&mut self, found: &Found, path: &Path, say: impl Fn(&mut Said)) {
        let roots = found.0.get(path).into_iter().flat_map(|place| &place.below);
        roots.for_each(|root| say(self.files.entry(*root).or_default()));
    }

    /// What was denied by `before` stays denied under whatever name it has now, as long as its rule is there.
    pub(super) fn keep_denied(&mut self, before: &BTreeMap<FileId, Said>, rules: &FileRules) {
        let denying = rules.denying();
        let holds = |rule: u32| denying.contains(&rule);
        for (file, said) in before.iter().filter(|(_, said)| holds(said.program) || holds(said.path)) {
            let kept = self.files.entry(*file).or_default();
            for (kept, rule) in [(&mut kept.program, said.program), (&mut kept.path, said.path)] {
                if holds(rule) {
                    first(kept, rule);
                }
            }
        }
    }
}

/// Of several rules the first is told.
fn first(place: &mut u32, rule: u32) {
    if *place == 0 {
        *place = rule;
    }
}

impl FileId {
    pub(super) fn key(self, rules: u32) -> [u8; file_key::SIZE] {
        let mut key = [0; file_key::SIZE];
        put(&mut key, file_key::INODE, &self.inode.to_ne_bytes());
        put(&mut key, file_key::DEVICE, &self.device.to_ne_bytes());
        put(&mut key, file_key::RULES, &rules.to_ne_bytes());
        key
    }

    /// The key of a name in this directory; `None`: no file system has such a long one.
    pub(super) fn name_key(self, name: &[u8], rules: u32) -> Option<[u8; name_key::SIZE]> {
        let mut key = [0; name_key::SIZE];
        put(&mut key, name_key::DIRECTORY, &self.key(rules));
        put(&mut key, name_key::NAME, name);
        (name.len() < name_key::SIZE - name_key::NAME).then_some(key)
    }

    /// What a key of the kernel's says, with the number of its set.
    pub(super) fn of_key(key: &[u8; file_key::SIZE]) -> (FileId, u32) {
        let word = |at: usize| read_u32(key, at).unwrap_or_default();
        let inode = read_u64(key, file_key::INODE).unwrap_or_default();
        (FileId { inode, device: word(file_key::DEVICE) }, word(file_key::RULES))
    }
}

impl Said {
    pub(super) fn value(self) -> [u8; file_rule::SIZE] {
        let mut value = [0; file_rule::SIZE];
        put(&mut value, file_rule::PROGRAM, &self.program.to_ne_bytes());
        put(&mut value, file_rule::PATH, &self.path.to_ne_bytes());
        put(&mut value, file_rule::LISTS, &self.lists.to_ne_bytes());
        value
    }

    pub(super) fn of_value(value: &[u8; file_rule::SIZE]) -> Said {
        let word = |at: usize| read_u32(value, at).unwrap_or_default();
        Said { program: word(file_rule::PROGRAM), path: word(file_rule::PATH), lists: word(file_rule::LISTS) }
    }
}

/// The set that a name's key belongs to.
pub(super) fn set_of_name(key: &[u8; name_key::SIZE]) -> u32 {
    read_u32(key, name_key::DIRECTORY + file_key::RULES).unwrap_or_default()
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
