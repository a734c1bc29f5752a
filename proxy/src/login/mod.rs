//! What stands between a person and his first certificate: passwords, where their hashes live, and how often one
//! may guess.

pub mod password;
pub mod prove;
pub mod rate;
pub mod secrets;
pub mod token;
