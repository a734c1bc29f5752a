//! The `log` role's side of nodes' agents: they join ([`join`]), connect ([`serve`]), their events are checked
//! ([`intake`]) and appended, and the proxy opens no session to a node before its agent waits for it ([`agents`]).

pub mod agents;
mod connection;
pub mod intake;
pub mod join;
mod refusals;
pub mod serve;
