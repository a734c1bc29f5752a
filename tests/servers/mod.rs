//! One file for each real server, and the world that puts them together.

pub mod custodyd;
pub mod golang;
pub mod node;
pub mod python;
pub mod sshd;
pub mod witness;
pub mod world;

pub use custodyd::Custodyd;
pub use sshd::{Host, Sshd};
pub use world::World;
