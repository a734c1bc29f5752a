//! The sensor against the kernel that this runs on, as root: sessions made by a listener that starts a shell for each connection, and by
//! the real sshd. CUSTODY_TIER=lsm or tracepoint chooses the tier; without it, the best that the kernel has.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod call;
mod closed;
mod crowd;
mod datagram;
mod file;
mod network;
mod node;
mod process;
mod programs;
mod restart;
mod server;
mod session;
mod socket;
mod sshd;
