//! Buffers that belong to the worker thread: a leg has one only while something lies in it.
//!
//! A buffer of its own for each leg would grow in each transfer and be given back after it, at a time of its own, among
//! small things that stay. No allocator gives such holes back to the system: what many sessions moved at once would be
//! memory for good.

use std::cell::Cell;
use std::thread::LocalKey;

/// A thread's buffer that nobody uses.
pub type Room = Cell<Vec<u8>>;

/// Longer ones aren't kept by the thread: one read of the other leg, sealed again, fits.
const KEPT_BYTES_MAX: usize = 512 * 1024;

thread_local! {
    /// For what is to be written.
    pub static OUT: Room = const { Cell::new(Vec::new()) };
    /// For the start of a packet that hasn't come whole.
    pub static PARTIAL: Room = const { Cell::new(Vec::new()) };
}

/// The thread's buffer, empty; a new one if it is lent already.
pub fn take(room: &'static LocalKey<Room>) -> Vec<u8> {
    room.take()
}

/// Gives a buffer to the thread, whichever thread lent it. Of two the thread keeps the larger.
pub fn give_back(room: &'static LocalKey<Room>, mut bytes: Vec<u8>) {
    bytes.clear();
    let kept = room.take();
    let larger =
        if bytes.capacity() > kept.capacity() && bytes.capacity() <= KEPT_BYTES_MAX { bytes } else { kept };
    room.set(larger);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_the_largest_that_is_not_too_large() {
        give_back(&OUT, Vec::with_capacity(1000));
        give_back(&OUT, vec![7; 3000]);
        give_back(&OUT, Vec::with_capacity(2000));
        give_back(&OUT, Vec::with_capacity(KEPT_BYTES_MAX + 1));
        let lent = take(&OUT);
        assert!(lent.is_empty() && lent.capacity() == 3000);
        assert_eq!(take(&OUT).capacity(), 0, "it is lent");
    }
}
