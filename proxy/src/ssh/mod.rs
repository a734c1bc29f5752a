//! SSH: a relay between a person's client and a target's sshd.
//!
//! The way of a connection: [`accept`] → [`client`] (the person proves who he is) → `session::open` (decided and
//! durable) → [`target`] (connected with leave) → [`pump`] (messages pass) → `session::close`. One that names no node
//! goes to [`jump`], and what it carries comes in by [`accept`] again.

pub mod accept;
pub mod admission;
pub mod authenticate;
pub mod certificate;
pub mod client;
pub(crate) mod field;
pub mod host_proof;
pub mod jump;
pub mod message;
pub mod preamble;
pub mod pump;
pub mod relay;
pub mod socket;
pub mod stream;
pub mod target;
pub mod transport;
mod vigil;
