//! What holds a thread for long: a disk that is slow, much to compute.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does it. Whoever else is on this thread goes on meanwhile, where there are others.
///
/// # Panics
/// Outside a runtime.
pub(crate) fn at_length<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}
