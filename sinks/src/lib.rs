//! Where the log's events are delivered to.
//!
//! [`delivery`] is the one loop that all destinations share; [`sink::Sink`] is what a destination is to it; [`proof`]
//! reads a destination back and proves that everything is there, once and unaltered; [`restore`] gives back to a log what it
//! has lost.

mod authorities;
mod backoff;
mod blocking;
pub mod dead_letters;
pub mod delivery;
mod fields;
pub mod files;
pub mod filter;
pub mod format;
pub mod health;
pub mod hec;
pub mod http;
pub mod item;
pub mod loki;
pub mod opensearch;
pub mod position;
pub mod proof;
pub mod redaction;
pub mod restore;
pub mod secret;
pub mod sink;
mod suggest;
pub mod syslog;
#[cfg(test)]
mod testing;
pub mod webhook;
