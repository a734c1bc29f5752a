//! One file for each real server, and the world that puts them together.

pub mod custodyd;
pub mod flaky;
pub mod golang;
pub mod http;
pub mod loki;
pub mod opensearch;
pub mod python;
pub mod service;
pub mod setup;
pub mod shared;
pub mod sshd;
pub mod witness;
pub mod world;

pub use custodyd::Custodyd;
pub use flaky::Flaky;
pub use loki::Loki;
pub use opensearch::OpenSearch;
pub use shared::Shared;
pub use sshd::{Host, Sshd};
pub use world::World;
