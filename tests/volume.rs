//! A small disk of one's own: an image in memory, a loop device over it, a file system on that. It can fill up, it can
//! fail (an image that gets no more memory takes no more blocks), and it can lose power.

use crate::process::run;
use crate::wait::{self, DEADLINE};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Before the process id and a number: by this name what a killed test left behind is found.
const PREFIX: &str = "custody-volume-";

/// The file systems' blocks; bytes.
const BLOCK: u64 = 4_096;

/// A mounted file system that goes away with this value.
#[derive(Debug)]
pub struct Volume {
    /// `memory/` holds the image, `disk/` is where it is mounted.
    base: PathBuf,
}

/// How the file system is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// As everybody has it.
    With,
    /// Then failing blocks of data are all that fails: a journal that fails makes the whole read-only.
    Without,
}

impl Volume {
    /// A file system of `disk_mib` on an image that gets `memory_mib` of memory.
    ///
    /// # Panics
    /// When this machine can't mount: these tests need root and loop devices, and say so.
    #[must_use]
    pub fn new(disk_mib: u32, memory_mib: u32, journal: Journal) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        clean_up();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let base = std::env::temp_dir().join(format!("{PREFIX}{}-{number}", std::process::id()));
        let volume = Self { base };
        for folder in ["memory", "disk"] {
            std::fs::create_dir_all(volume.base.join(folder)).expect("a folder to mount on");
        }
        let size = format!("size={memory_mib}m");
        let memory = volume.base.join("memory");
        system("mount", &["-t", "tmpfs", "-o", &size, "custody-test", text(&memory)]);
        let image = std::fs::File::create(volume.image()).expect("an image");
        image.set_len(u64::from(disk_mib) << 20).expect("a sparse image");
        let features = match journal {
            Journal::With => "has_journal",
            Journal::Without => "^has_journal",
        };
        system("mkfs.ext4", &["-q", "-F", "-b", "4096", "-m", "0", "-O", features, text(&volume.image())]);
        volume.mount(&volume.image(), &volume.disk());
        volume
    }

    /// Where it is mounted.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.base.join("disk")
    }

    /// Takes what is left of the space on the disk, to the last block: until the guard goes, it is full.
    ///
    /// # Panics
    /// When no file can be made on it.
    #[must_use]
    pub fn fill(&self) -> Ballast {
        Ballast::take(self.disk().join("ballast"))
    }

    /// Takes what is left of the image's memory: blocks of the disk that were never written can't be any more. The same
    /// happens to the blocks of `file` that lie wholly behind byte `end`, which must hold zeroes.
    ///
    /// # Panics
    /// When there are no such blocks.
    #[must_use]
    pub fn wear_out(&self, file: &Path, end: u64) -> Ballast {
        self.forget_zeroes(file, end);
        Ballast::take(self.base.join("memory/ballast"))
    }

    /// Takes the memory back of those blocks of `file` that lie wholly behind byte `end`: they read as zeroes, as before.
    fn forget_zeroes(&self, file: &Path, end: u64) {
        // `filefrag -v` writes extents as `number: first..last: first..last: length: …`, file and disk in blocks.
        let said = run(Command::new("filefrag").args(["-e", "-s", "-b4096", text(file)]), b"", DEADLINE);
        assert_eq!(said.code, 0, "filefrag: {}", said.err);
        let first = end.div_ceil(BLOCK);
        let mut forgotten = 0;
        for line in said.text().lines() {
            let fields: Vec<&str> = line.split(':').map(str::trim).collect();
            let [number, at, on_disk, ..] = fields.as_slice() else { continue };
            let blocks = |range: &str| -> Option<(u64, u64)> {
                let (first, last) = range.split_once("..")?;
                Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
            };
            let (Ok(_), Some(at), Some(on_disk)) = (number.parse::<u32>(), blocks(at), blocks(on_disk))
            else {
                continue;
            };
            let skipped = first.saturating_sub(at.0);
            let Some(length) = (at.1 + 1 - at.0).checked_sub(skipped).filter(|length| *length > 0) else {
                continue;
            };
            let offset = ((on_disk.0 + skipped) * BLOCK).to_string();
            let bytes = (length * BLOCK).to_string();
            system(
                "fallocate",
                &["--punch-hole", "--offset", &offset, "--length", &bytes, text(&self.image())],
            );
            forgotten += length;
        }
        assert!(forgotten > 0, "{} has no zeroes behind byte {end}: {}", file.display(), said.text());
    }

    /// What would be found if the power failed now: the same disk, from the image alone, without what is in memory.
    ///
    /// # Panics
    /// When it can't be mended.
    #[must_use]
    pub fn after_power_loss(&self) -> Snapshot<'_> {
        let (image, disk) = (self.base.join("copy.image"), self.base.join("copy"));
        std::fs::create_dir_all(&disk).expect("a folder to mount on");
        system("cp", &["--sparse=always", text(&self.image()), text(&image)]);
        // Without a journal a machine checks the file system before it mounts it: 1 means that something was mended.
        let checked = run(Command::new("e2fsck").args(["-fy", text(&image)]), b"", DEADLINE);
        assert!(checked.code <= 1, "e2fsck: {}{}", checked.err, checked.text());
        self.mount(&image, &disk);
        Snapshot { disk, image, _of: self }
    }

    fn image(&self) -> PathBuf {
        self.base.join("memory/image")
    }

    fn mount(&self, image: &Path, at: &Path) {
        system("mount", &["-t", "ext4", "-o", "loop,noatime,errors=continue", text(image), text(at)]);
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        release(&self.base);
    }
}

/// The disk as it would be found; unmounted with this value.
#[derive(Debug)]
pub struct Snapshot<'a> {
    disk: PathBuf,
    image: PathBuf,
    _of: &'a Volume,
}

impl Snapshot<'_> {
    /// Where it is mounted.
    #[must_use]
    pub fn disk(&self) -> &Path {
        &self.disk
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        // A child that another test is just starting holds our files too, until it is another program.
        wait::until_true("the copy isn't used any more", DEADLINE, || {
            run(Command::new("umount").arg(&self.disk), b"", DEADLINE).code == 0
        });
        std::fs::remove_file(&self.image).expect("the copy");
    }
}

/// Space that is taken.
#[derive(Debug)]
pub struct Ballast(PathBuf);

impl Ballast {
    fn take(path: PathBuf) -> Self {
        use std::io::Write as _;
        let mut file = std::fs::File::create(&path).expect("a file for ballast");
        // Large pieces first, then blocks.
        for piece in [1 << 20, 4_096] {
            while file.write_all(&vec![0xb5; piece]).is_ok() {}
        }
        // What is only promised may still be given back: now it is taken. Where that fails it is full enough.
        let _full = file.sync_all();
        Self(path)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// Unmounts and removes what is below `base`.
fn release(base: &Path) {
    for folder in ["copy", "disk", "memory"] {
        let folder = base.join(folder);
        if folder.is_dir() {
            // Lazily, as soon as nobody has files of it open: nothing of it may stay behind.
            run(Command::new("umount").arg("--lazy").arg(&folder), b"", DEADLINE);
        }
    }
    drop(std::fs::remove_dir_all(base));
}

/// Releases what tests left behind that were killed.
fn clean_up() {
    for item in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = item.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        let owner = rest.split('-').next().unwrap_or_default();
        if !owner.is_empty() && !Path::new("/proc").join(owner).exists() {
            release(&item.path());
        }
    }
}

fn system(program: &str, arguments: &[&str]) {
    let said = run(Command::new(program).args(arguments), b"", DEADLINE);
    assert_eq!(said.code, 0, "{program} {arguments:?}: {}(needs root and loop devices)", said.err);
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ASCII")
}
