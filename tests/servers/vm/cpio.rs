//! The archive that a Linux kernel unpacks into memory as its first file system: cpio's format "newc", as in the
//! kernel's Documentation/driver-api/early-userspace/buffer-format.rst.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Files by their paths, without the first slash. All belong to root.
#[derive(Debug, Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
enum Entry {
    Directory,
    /// Bytes, and the permission.
    Bytes(Vec<u8>, u32),
    /// A file of this machine, as it is when the archive is written.
    Copy(PathBuf),
    Link(String),
    /// Major and minor number of a character device.
    Device(u32, u32),
}

/// Permissions and file types as stat(2) has them.
const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
const DEVICE: u32 = 0o020_600;

impl Archive {
    /// A directory. Those above whatever is put in come by themselves.
    pub fn directory(&mut self, at: &str) {
        self.put(at, Entry::Directory);
    }

    /// A file with these bytes and this permission.
    pub fn file(&mut self, at: &str, bytes: impl Into<Vec<u8>>, mode: u32) {
        self.put(at, Entry::Bytes(bytes.into(), mode));
    }

    /// A file of this machine.
    pub fn copy(&mut self, at: &str, from: &Path) {
        self.put(at, Entry::Copy(from.to_owned()));
    }

    /// A symbolic link.
    pub fn link(&mut self, at: &str, to: &str) {
        self.put(at, Entry::Link(to.to_owned()));
    }

    /// A character device.
    pub fn device(&mut self, at: &str, major: u32, minor: u32) {
        self.put(at, Entry::Device(major, minor));
    }

    fn put(&mut self, at: &str, entry: Entry) {
        let at = at.trim_start_matches('/');
        for (slash, _) in at.match_indices('/') {
            self.entries.entry(at[..slash].to_owned()).or_insert(Entry::Directory);
        }
        self.entries.insert(at.to_owned(), entry);
    }

    /// Writes it.
    ///
    /// # Errors
    /// When a file can't be read, or `out` can't be written.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        // By name, so a directory comes before what is in it.
        for (number, (name, entry)) in (1..).zip(&self.entries) {
            match entry {
                Entry::Directory => header(out, number, name, DIRECTORY, 0, (0, 0))?,
                Entry::Bytes(bytes, mode) => {
                    header(out, number, name, REGULAR | mode, bytes.len() as u64, (0, 0))?;
                    padded(out, bytes.as_slice(), bytes.len() as u64)?;
                }
                Entry::Copy(from) => {
                    let file = File::open(from)?;
                    let about = file.metadata()?;
                    let mode = REGULAR | (about.permissions().mode() & 0o7777);
                    header(out, number, name, mode, about.len(), (0, 0))?;
                    padded(out, file, about.len())?;
                }
                Entry::Link(to) => {
                    header(out, number, name, LINK, to.len() as u64, (0, 0))?;
                    padded(out, to.as_bytes(), to.len() as u64)?;
                }
                Entry::Device(major, minor) => header(out, number, name, DEVICE, 0, (*major, *minor))?,
            }
        }
        header(out, 0, "TRAILER!!!", 0, 0, (0, 0))
    }
}

/// A header with a name, up to the next multiple of four bytes.
fn header(
    out: &mut impl Write,
    inode: u32,
    name: &str,
    mode: u32,
    size: u64,
    device: (u32, u32),
) -> io::Result<()> {
    let size =
        u32::try_from(size).map_err(|_| io::Error::other(format!("{name} is too large for an archive")))?;
    let name_bytes = name.len() as u32 + 1;
    // inode, mode, user, group, links, time, size, device of the file, device that it is, name, checksum (unused).
    let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_bytes, 0];
    out.write_all(b"070701")?;
    for field in fields {
        write!(out, "{field:08x}")?;
    }
    out.write_all(name.as_bytes())?;
    let end = 6 + 8 * fields.len() + name_bytes as usize;
    out.write_all(&[0; 4][..1 + padding(end as u64)])
}

/// All of `from`, which has this length, up to the next multiple of four bytes.
fn padded(out: &mut impl Write, from: impl Read, length: u64) -> io::Result<()> {
    let copied = io::copy(&mut from.take(length), out)?;
    if copied < length {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "a file became shorter while it was archived",
        ));
    }
    out.write_all(&[0; 4][..padding(length)])
}

/// How many bytes it is from here to the next multiple of four.
fn padding(length: u64) -> usize {
    (length.wrapping_neg() % 4) as usize
}
