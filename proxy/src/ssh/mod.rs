//! SSH: a relay between a person's client and a target's sshd.
//!
//! The way of a connection: [`accept`] → [`client`] (the person proves who he is) → `session::open` (decided and
//! durable) → [`target`] (connected with leave) → [`pump`] (messages pass) → `session::close`.

pub mod accept;
pub mod authenticate;
pub mod certificate;
pub mod client;
mod field;
pub mod message;
pub mod pump;
pub mod relay;
pub mod socket;
pub mod target;
pub mod transport;
