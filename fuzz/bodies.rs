//! The targets' bodies lie with the tests, which run them briefly.
#![allow(dead_code, reason = "each program runs one of them")]

#[path = "../tests/fuzz/files.rs"]
pub mod files;
#[path = "../tests/fuzz/records.rs"]
pub mod records;
#[path = "../tests/fuzz/ssh.rs"]
pub mod ssh;
#[path = "../tests/fuzz/targets.rs"]
pub mod targets;
