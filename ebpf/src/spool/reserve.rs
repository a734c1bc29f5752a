//! Room on the disk for the start of an agent whose own spool has filled it: only a spool that is open can be sent, and so make room.

use super::{Recovery, Spool, SpoolError};
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// How much is kept: a batch and what else a start writes.
pub const RESERVE_BYTES: u64 = 8 << 20;

/// [`Spool::open`], on a full disk with the room of the file `reserve`, if that was kept. Keeps so many bytes for the next time, as soon
/// as there are so many.
///
/// # Errors
/// See [`Spool::open`].
pub fn open(
    directory: &Path,
    limit_bytes: u64,
    reserve: &Path,
    bytes: u64,
) -> Result<(Spool, Recovery), SpoolError> {
    let opened = match Spool::open(directory, limit_bytes) {
        Err(SpoolError::DiskFull { .. }) if fs::remove_file(reserve).is_ok() => {
            tracing::warn!("the disk is full: the room that was kept for that is used");
            Spool::open(directory, limit_bytes)?
        }
        opened => opened?,
    };
    if let Err(error) = keep(reserve, bytes) {
        tracing::warn!("{}: no room is kept for a start on a full disk: {error}", reserve.display());
    }
    Ok(opened)
}

fn keep(reserve: &Path, bytes: u64) -> io::Result<()> {
    if fs::metadata(reserve).is_ok_and(|about| about.len() >= bytes) {
        return Ok(());
    }
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(reserve)?;
    let kept = fallocate(&file, FallocateFlags::empty(), 0, bytes).map_err(io::Error::from);
    if kept.is_err() {
        fs::remove_file(reserve)?;
    }
    kept
}
