//! The node agent: BPF programs beside a stock sshd tie every process to the proxy's session, tell what ran and connected, and refuse
//! what isn't allowed. [`sensor`] loads them and gives their records.

pub mod sensor;
