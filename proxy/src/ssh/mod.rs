//! SSH: a relay between a person's client and a target's sshd.
//!

pub mod authenticate;
pub mod certificate;
mod field;
pub mod message;
pub mod relay;
pub mod transport;
