//! SSH: a relay between a person's client and a target's sshd.
//!

pub mod certificate;
mod field;
pub mod transport;
