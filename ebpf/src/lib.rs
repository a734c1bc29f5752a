//! The node agent: BPF programs beside a stock sshd tie every process to the proxy's session, tell what ran and
//! connected, and refuse what isn't allowed.
//!
//! The way of a record: [`sensor`] reads it from the kernel's buffer, [`evidence`] makes a numbered and signed event of
//! it, [`spool`] keeps that on disk, and [`link`] sends it until the log has said that it is durable. The other way come
//! the sessions that are about to be opened ([`sessions`]), and reach the sensor before their connections do.

pub mod agent;
pub mod evidence;
pub(crate) mod host;
pub mod link;
pub mod sensor;
pub mod sessions;
pub mod spool;
