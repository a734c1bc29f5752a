//! What faces users and targets: listeners, certificate authorities, logins, the API and one folder for each protocol.

pub mod api;
pub mod balancer;
pub mod ca;
pub mod descriptors;
pub mod ingest;
pub mod login;
pub mod session;
pub mod ssh;
