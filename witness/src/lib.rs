//! Witnesses: nobody guards himself, so somebody else remembers how long the log was and what it held.
//!
//! Both sides of C2SP tlog-witness: [`client`] submits checkpoints, [`serve`] answers. A witness ([`watched`]) cosigns
//! a checkpoint only if it is consistent with all that it has cosigned of that log; one that keeps a copy cosigns only
//! what it has copied ([`copy`]) and found in order ([`inspect`]), reads the log again and again, and raises an alarm
//! ([`alarm`]) when the log forks, is rewritten, shrinks or falls silent.

pub mod add_checkpoint;
pub mod alarm;
pub mod client;
pub mod copy;
pub mod head;
pub mod inspect;
pub mod serve;
pub mod source;
pub mod watched;

use custody_core::event::hex::to_hex;
use sha2::{Digest as _, Sha256};

/// The name under which a witness keeps and serves a log: the SHA-256 of its origin, in hex.
#[must_use]
pub fn origin_hash(origin: &str) -> String {
    to_hex(&Sha256::digest(origin.as_bytes()))
}
