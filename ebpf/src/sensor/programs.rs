//! The programs: which feature each serves, where it is attached, in which tier.

use super::Tier;

/// Where a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    /// A tracepoint with BTF, by name.
    Tracepoint(&'static str),
    /// The root of cgroup2: addresses of sockets.
    CgroupAddress,
    /// The root of cgroup2: sockets.
    CgroupSocket,
}

/// One program of the object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// Its function in bpf/.
    pub(super) program: &'static str,
    pub(super) hook: Hook,
    /// What fails with it, as people read it; several programs may serve one.
    pub(super) feature: &'static str,
    /// `None`: in both.
    pub(super) tier: Option<Tier>,
    /// Without it there is no evidence at all.
    pub(super) essential: bool,
}

const fn part(program: &'static str, hook: Hook, feature: &'static str) -> Part {
    Part { program, hook, feature, tier: None, essential: false }
}

const fn essential(program: &'static str, hook: Hook, feature: &'static str) -> Part {
    Part { program, hook, feature, tier: None, essential: true }
}

/// In the order in which they are attached: who inherits, what ends and what runs before who is tagged.
pub(super) const PARTS: &[Part] = &[
    essential("session_fork", Hook::Tracepoint("sched_process_fork"), "fork"),
    essential("process_exit", Hook::Tracepoint("sched_process_exit"), "exit"),
    essential("process_exec", Hook::Tracepoint("sched_process_exec"), "exec"),
    part("network_state", Hook::Tracepoint("inet_sock_set_state"), "connections"),
    part("network_connect4", Hook::CgroupAddress, "connect deny"),
    part("network_connect6", Hook::CgroupAddress, "connect deny"),
    part("network_send4", Hook::CgroupAddress, "datagram deny"),
    part("network_send6", Hook::CgroupAddress, "datagram deny"),
    part("network_socket", Hook::CgroupSocket, "raw socket deny"),
    part("network_release", Hook::CgroupSocket, "datagram close"),
    essential("session_accept", Hook::Tracepoint("sock_recv_length"), "accept"),
];
