//! The agent's side of the connection to the log: events go there until it has said that they are durable, and sessions
//! that are about to be opened come from there.

mod address;
mod connection;
pub mod identity;
pub mod join;
mod obey;

pub use connection::{Link, LinkError, keep_connected};
