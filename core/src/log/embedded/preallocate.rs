//! Space that is written with zeroes ahead of the writer.
//!
//! Overwriting blocks that exist needs no commit of the file system's journal for the file's new length: half of what a
//! small sync costs. And what lies ready is a reserve: on a full disk the log can still say that it is full. Reserving
//! space without writing it (`fallocate`) gives neither: its first use is a change of the file's map again.
//!
//! The end of the log is thus a length of zero, not the end of the file; closing cuts the space off.
//!
//! The writer makes the space itself, right before a write that comes too near its end, and the sync of that write
//! covers both. A second thread would save it a millisecond now and then, and would write into the same file at the
//! same time: zeroes over a record must not even be thinkable.

use std::io;
use std::time::{Duration, Instant};

use super::durable::Disk;
use super::recover::OpenSegment;

/// What lies ready behind each write, for the log's own last words; bytes.
pub const RESERVE_BYTES: u64 = 256 << 10;
/// What is made ready at once: little for a log in which little happens, and more when it is used up fast; bytes.
pub(super) const EXTENT_BYTES_MIN: u64 = 256 << 10;
const EXTENT_BYTES_MAX: u64 = 4 << 20;
/// An extent that lasts less than this gets a larger successor.
const EXTENT_LASTS: Duration = Duration::from_millis(100);
/// Behind a write of so many bytes only the reserve is made: its sync takes so long that the journal's commit hardly
/// counts, while the disk would be given twice the bytes.
const ZEROES_PAY_BYTES: u64 = 64 << 10;

static ZEROES: [u8; 256 << 10] = [0; 256 << 10];

/// Makes space ready at the rate at which it is used.
#[derive(Debug, Default)]
pub(super) struct Preallocation {
    extent: u64,
    last: Option<Instant>,
}

impl Preallocation {
    /// Makes the reserve stand behind a write of `bytes` at the segment's end, and more if that could not be done the
    /// last time (`full`): whether there is room again is only known when some was got. What the write itself will
    /// cover isn't written twice. Nothing is synced.
    ///
    /// # Errors
    /// What the system says. The space that was ready before is as it was, and what lies behind it reads as zeroes.
    pub fn provide(
        &mut self,
        disk: &dyn Disk,
        segment: &mut OpenSegment,
        bytes: u64,
        full: bool,
    ) -> io::Result<()> {
        let behind = segment.end.saturating_add(bytes);
        let kept = RESERVE_BYTES + if full { EXTENT_BYTES_MIN } else { 0 };
        let needed = behind.saturating_add(kept);
        if needed <= segment.ready {
            return Ok(());
        }
        let now = Instant::now();
        let soon = self.last.is_some_and(|last| now.duration_since(last) < EXTENT_LASTS);
        let extent = if soon { self.extent.saturating_mul(2) } else { EXTENT_BYTES_MIN };
        let extent = extent.clamp(EXTENT_BYTES_MIN, EXTENT_BYTES_MAX);
        let ready = needed.saturating_add(if bytes < ZEROES_PAY_BYTES { extent } else { 0 });
        let mut at = segment.ready.max(behind);
        while at < ready {
            let length = usize::try_from(ready - at).unwrap_or(ZEROES.len()).min(ZEROES.len());
            disk.write_at(&segment.file, ZEROES.get(..length).unwrap_or(&ZEROES), at)?;
            at += length as u64;
        }
        (self.extent, self.last, segment.ready) = (extent, Some(now), ready);
        Ok(())
    }
}

/// Cuts off what lies ready behind the segment's end. It proves nothing and costs only room, so a failure changes
/// nothing: the next opening does it again.
pub(super) fn give_back(disk: &dyn Disk, segment: &mut OpenSegment) {
    if segment.ready <= segment.end {
        return;
    }
    segment.ready = segment.end;
    if let Err(error) = disk.truncate(&segment.file, segment.end) {
        let path = segment.path.display();
        tracing::warn!(%error, %path, "the space behind the log's end couldn't be given back");
    }
}
