//! HAProxy, which passes TCP on and says by PROXY protocol v2 whose connection it is.

use crate::process::{Running, free_port, listens};
use crate::wait;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// A balancer that runs.
#[derive(Debug)]
pub struct Haproxy {
    /// Where it listens: one port for each that it leads to, in their order.
    pub ports: Vec<u16>,
    _process: Running,
}

impl Haproxy {
    /// Leads to these ports, from an address of its own.
    ///
    /// # Panics
    /// When it doesn't start.
    #[must_use]
    pub fn start(dir: &Path, address: &str, to: &[u16]) -> Self {
        std::fs::create_dir_all(dir).expect("a folder for HAProxy");
        let ports: Vec<u16> = to.iter().map(|_| free_port()).collect();
        let mut config =
            "defaults\n mode tcp\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n"
                .to_owned();
        for (port, to) in ports.iter().zip(to) {
            let written = write!(
                config,
                "listen to-{to}\n bind 127.0.0.1:{port}\n server custody 127.0.0.1:{to} source {address} send-proxy-v2\n"
            );
            written.expect("a text");
        }
        let file = dir.join("haproxy.cfg");
        std::fs::write(&file, config).expect("haproxy.cfg");
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        let process = Running::start("haproxy", &mut command);
        let pid = process.pid();
        wait::until_true("HAProxy listens", wait::DEADLINE, || ports.iter().all(|port| listens(pid, *port)));
        Self { ports, _process: process }
    }
}
