//! The programs: which feature each serves, where it is attached, in which tier.

use super::Tier;
use aya::programs::CgroupSkbAttachType::{self, Egress, Ingress};

/// Where a program is attached.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hook {
    /// A tracepoint with BTF, by name.
    Tracepoint(&'static str),
    /// A hook of the Linux security modules, by name.
    Lsm(&'static str),
    /// The end of one of the kernel's functions, by name.
    Return(&'static str),
    /// The root of cgroup2: addresses of sockets.
    CgroupAddress,
    /// The root of cgroup2: sockets.
    CgroupSocket,
    /// The root of cgroup2: what becomes of TCP's sockets.
    CgroupTcp,
    /// The root of cgroup2: packets.
    CgroupPacket(CgroupSkbAttachType),
}

/// One program of the object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// Its function in bpf/.
    pub(super) program: &'static str,
    /// Stands in where the kernel doesn't take the first.
    pub(super) fallback: Option<&'static str>,
    /// Sees what the kernel skips this one for, which therefore loses nothing.
    pub(super) twin: Option<&'static str>,
    pub(super) hook: Hook,
    /// What fails with it, as people read it; several programs may serve one.
    pub(super) feature: &'static str,
    /// What else fails with it.
    pub(super) also: &'static [&'static str],
    /// `None`: in both.
    pub(super) tier: Option<Tier>,
    /// Without it there is no evidence at all.
    pub(super) essential: bool,
    /// Kernels without the hook do by another what it is asked for.
    pub(super) may_lack_hook: bool,
}

impl Part {
    const fn new(program: &'static str, hook: Hook, feature: &'static str) -> Part {
        Part {
            program,
            fallback: None,
            twin: None,
            hook,
            feature,
            also: &[],
            tier: None,
            essential: false,
            may_lack_hook: false,
        }
    }

    const fn only(self, tier: Tier) -> Part {
        Part { tier: Some(tier), ..self }
    }

    const fn serving(self, also: &'static [&'static str]) -> Part {
        Part { also, ..self }
    }

    const fn essential(self) -> Part {
        Part { essential: true, ..self }
    }

    const fn where_there_is(self) -> Part {
        Part { may_lack_hook: true, ..self }
    }

    const fn or(self, fallback: &'static str) -> Part {
        Part { fallback: Some(fallback), ..self }
    }

    const fn beside(self, twin: &'static str) -> Part {
        Part { twin: Some(twin), ..self }
    }
}

/// In the order in which they are attached: who inherits, what ends and what runs before who is tagged.
pub(super) const PARTS: &[Part] = &[
    Part::new("session_fork_lsm", Hook::Lsm("task_alloc"), "fork deny").only(Tier::Lsm).essential(),
    Part::new("session_fork", Hook::Tracepoint("sched_process_fork"), "fork")
        .essential()
        .beside("session_fork_again"),
    Part::new("session_fork_again", Hook::Tracepoint("sched_process_fork"), "fork"),
    Part::new("process_exit", Hook::Tracepoint("sched_process_exit"), "exit")
        .essential()
        .beside("process_exit_again"),
    Part::new("process_exit_again", Hook::Tracepoint("sched_process_exit"), "exit"),
    Part::new("process_exec", Hook::Tracepoint("sched_process_exec"), "exec")
        .essential()
        .beside("process_exec_again"),
    Part::new("process_exec_again", Hook::Tracepoint("sched_process_exec"), "exec"),
    Part::new("process_check_lsm", Hook::Lsm("bprm_check_security"), "exec deny").only(Tier::Lsm).essential(),
    Part::new("socket_follow", Hook::CgroupTcp, "connections"),
    Part::new("socket_change", Hook::Tracepoint("inet_sock_set_state"), "connections")
        .beside("socket_change_again"),
    Part::new("socket_change_again", Hook::Tracepoint("inet_sock_set_state"), "connections")
        .beside("socket_follow"),
    Part::new("network_connect4", Hook::CgroupAddress, "connect deny").or("network_connect4_table"),
    Part::new("network_connect6", Hook::CgroupAddress, "connect deny").or("network_connect6_table"),
    Part::new("network_send4", Hook::CgroupAddress, "datagram deny").or("network_send4_table"),
    Part::new("network_send6", Hook::CgroupAddress, "datagram deny").or("network_send6_table"),
    Part::new("network_socket", Hook::CgroupSocket, "raw socket deny").or("network_socket_table"),
    Part::new("socket_release", Hook::CgroupSocket, "datagram close"),
    Part::new("datagram_in", Hook::CgroupPacket(Ingress), "datagram bytes and names"),
    Part::new("datagram_out", Hook::CgroupPacket(Egress), "datagram bytes and names"),
    Part::new("network_family_lsm", Hook::Lsm("socket_create"), "packet socket deny").only(Tier::Lsm),
    Part::new("file_open_lsm", Hook::Lsm("file_open"), "file open").only(Tier::Lsm),
    Part::new("file_rename_lsm", Hook::Lsm("path_rename"), "file rename").only(Tier::Lsm),
    Part::new("file_link_lsm", Hook::Lsm("path_link"), "file link").only(Tier::Lsm),
    Part::new("touch_unlink_lsm", Hook::Lsm("path_unlink"), "file delete").only(Tier::Lsm),
    Part::new("touch_rmdir_lsm", Hook::Lsm("path_rmdir"), "file delete").only(Tier::Lsm),
    Part::new("touch_mode_lsm", Hook::Lsm("path_chmod"), "file permissions").only(Tier::Lsm),
    Part::new("touch_owner_lsm", Hook::Lsm("path_chown"), "file owner").only(Tier::Lsm),
    Part::new("touch_truncate_lsm", Hook::Lsm("path_truncate"), "file truncate").only(Tier::Lsm),
    Part::new("touch_mknod_lsm", Hook::Lsm("path_mknod"), "file create").only(Tier::Lsm),
    Part::new("touch_mkdir_lsm", Hook::Lsm("path_mkdir"), "file create").only(Tier::Lsm),
    Part::new("touch_symlink_lsm", Hook::Lsm("path_symlink"), "file create").only(Tier::Lsm),
    Part::new("touch_attribute_lsm", Hook::Lsm("inode_setxattr"), "file attributes").only(Tier::Lsm),
    Part::new("touch_attribute_gone_lsm", Hook::Lsm("inode_removexattr"), "file attributes").only(Tier::Lsm),
    Part::new("touch_acl_lsm", Hook::Lsm("inode_set_acl"), "file attributes")
        .only(Tier::Lsm)
        .where_there_is(),
    Part::new("touch_acl_gone_lsm", Hook::Lsm("inode_remove_acl"), "file attributes")
        .only(Tier::Lsm)
        .where_there_is(),
    Part::new("touch_flags_lsm", Hook::Lsm("inode_file_setattr"), "file attributes")
        .only(Tier::Lsm)
        .where_there_is(),
    Part::new("touch_map_lsm", Hook::Lsm("mmap_file"), "program map deny").only(Tier::Lsm),
    Part::new("act_module", Hook::Tracepoint("module_load"), "module load"),
    Part::new("act_setuid_lsm", Hook::Lsm("task_fix_setuid"), "privilege change").only(Tier::Lsm),
    Part::new("act_setgid_lsm", Hook::Lsm("task_fix_setgid"), "privilege change").only(Tier::Lsm),
    Part::new("act_bpf_lsm", Hook::Lsm("bpf"), "bpf deny").only(Tier::Lsm),
    Part::new("act_reach_lsm", Hook::Lsm("locked_down"), "reach into the kernel").only(Tier::Lsm),
    Part::new("act_clock_set", Hook::Return("do_settimeofday64"), "clock set").only(Tier::Lsm),
    Part::new("act_clock_adjust", Hook::Return("do_adjtimex"), "clock set").only(Tier::Lsm),
    Part::new("act_ptrace_lsm", Hook::Lsm("ptrace_access_check"), "ptrace deny").only(Tier::Lsm),
    Part::new("act_mount_lsm", Hook::Lsm("sb_mount"), "mount").only(Tier::Lsm),
    Part::new("act_move_mount_lsm", Hook::Lsm("move_mount"), "mount").only(Tier::Lsm),
    Part::new("act_unix_lsm", Hook::Lsm("unix_stream_connect"), "unix connect").only(Tier::Lsm),
    Part::new("act_unix_send_lsm", Hook::Lsm("unix_may_send"), "unix datagram deny").only(Tier::Lsm),
    Part::new("act_umount_lsm", Hook::Lsm("sb_umount"), "unmount deny").only(Tier::Lsm),
    Part::new("call_enter", Hook::Tracepoint("sys_enter"), "ptrace deny")
        .serving(&["bpf deny", "packet socket deny", "privilege change"])
        .only(Tier::Tracepoint),
    Part::new("call_exit", Hook::Tracepoint("sys_exit"), "ptrace deny")
        .serving(&["clock set", "mount", "privilege change", "reach into the kernel", "unix connect"])
        .only(Tier::Tracepoint),
    Part::new("session_graft_lsm", Hook::Lsm("sock_graft"), "listeners").only(Tier::Lsm),
    Part::new("network_listen_lsm", Hook::Lsm("socket_listen"), "listeners").only(Tier::Lsm),
    Part::new("session_accept_lsm", Hook::Lsm("socket_recvmsg"), "accept").only(Tier::Lsm).essential(),
    Part::new("session_accept", Hook::Tracepoint("sock_recv_length"), "accept")
        .only(Tier::Tracepoint)
        .essential(),
];
