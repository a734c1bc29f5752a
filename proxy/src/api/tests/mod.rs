//! Over real HTTPS on loopback, against a real log in a temporary directory.

mod access;
mod commands;
mod hostile;
mod log;
mod login;
mod operate;
mod services;
mod sessions;
mod sinks;
mod stalled;
mod subscribe;
mod tiles;
mod world;
