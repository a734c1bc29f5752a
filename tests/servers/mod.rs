//! One file for each real server, and the world that puts them together.

pub mod agent;
pub mod custodyd;
pub mod docker;
pub mod files;
pub mod flaky;
pub mod front;
pub mod golang;
pub mod haproxy;
pub mod http;
pub mod kafka;
pub mod loki;
pub mod node;
pub mod python;
pub mod regress;
pub mod rsyslog;
pub mod scripted;
pub mod search_node;
pub mod service;
pub mod setup;
pub mod shared;
pub mod sshd;
pub mod tls;
pub mod vm;
pub mod witness;
pub mod world;

pub use agent::Agent;
pub use custodyd::Custodyd;
pub use flaky::Flaky;
pub use kafka::Kafka;
pub use loki::Loki;
pub use rsyslog::Rsyslog;
pub use search_node::SearchNode;
pub use shared::Shared;
pub use sshd::{Host, Sshd};
pub use world::World;
