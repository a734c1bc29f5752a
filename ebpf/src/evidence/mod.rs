//! From the kernel's buffer to the spool: records become events that are numbered, signed and durable on this node.
//!
//! One thread does it, the scribe. It also lets the kernel know that evidence is taken: no heartbeat, no session runs
//! anything; no room, none either.

mod booted;
mod credentials;
mod dropped;
mod groups;
mod hash;
mod names;
mod numbering;
mod scribe;
mod staging;
mod translate;

pub use numbering::Numbering;
pub use scribe::{Beat, Scribe, ScribeError, Shared, Telling, spooled_event};
