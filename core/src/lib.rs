//! The domain of Custody: events, the tamper-evident log, state by replay, policy and recordings. No sockets.

pub mod clock;
pub mod delivery;
pub mod event;
pub mod ingest;
pub mod log;
pub mod mapping;
pub mod policy;
pub mod recording;
pub mod search;
pub mod state;
