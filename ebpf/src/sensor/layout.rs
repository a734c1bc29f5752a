//! bpf/shared.h in Rust: where each field lies in what the programs write and read. A test compares it with the object's own BTF.

macro_rules! layouts {
    ($($(#[$doc:meta])* $name:ident $size:literal { $($field:ident: $at:literal, $len:literal;)* })*) => {
        $($(#[$doc])*
        #[allow(missing_docs)]
        pub mod $name {
            /// Bytes of the whole struct.
            pub const SIZE: usize = $size;
            $(pub const $field: usize = $at;)*
            /// Name in capitals, offset and length of each field.
            pub const FIELDS: &[(&str, usize, usize)] = &[$((stringify!($field), $at, $len)),*];
        })*
        /// Each struct: its name, size and fields.
        pub const ALL: &[(&str, usize, &[(&str, usize, usize)])] = &[$((stringify!($name), $size, $name::FIELDS)),*];
    };
}

layouts! {
    /// Key of `tuples`: a connection as its accepting end has it.
    tuple 36 {
        LOCAL: 0, 16;
        REMOTE: 16, 16;
        LOCAL_PORT: 32, 2;
        REMOTE_PORT: 34, 2;
    }
    /// Value of `tuples`, and of a session's connection.
    expected 24 {
        SESSION: 0, 16;
        POLICY: 16, 4;
        ACCEPTOR: 20, 4;
    }
    /// Whose a task is.
    tag 48 {
        SESSION: 0, 16;
        POLICY: 16, 4;
        EXITED: 20, 4;
        EXECUTED: 24, 8;
        UNTOLD: 32, 8;
        EXECUTION: 40, 8;
    }
    /// The head of each record.
    subject 72 {
        KIND: 0, 2;
        FLAGS: 2, 2;
        PID: 4, 4;
        TID: 8, 4;
        PPID: 12, 4;
        TIME: 16, 8;
        START: 24, 8;
        SESSION: 32, 16;
        POLICY: 48, 4;
        UID: 52, 4;
        COMM: 56, 16;
    }
    /// A session's process has its connection.
    accepted 112 {
        WHO: 0, 72;
        TUPLE: 72, 36;
        RESERVED: 108, 4;
    }
    /// A new program; five strings follow it.
    executed 184 {
        WHO: 0, 72;
        GID: 72, 4;
        EUID: 76, 4;
        EGID: 80, 4;
        LOGINUID: 84, 4;
        PERMITTED: 88, 8;
        CGROUP: 96, 8;
        INODE: 104, 8;
        DEVICE: 112, 4;
        MOUNT_NAMESPACE: 116, 4;
        ARGS_TOTAL: 120, 8;
        ARGC: 128, 4;
        PATH_LEN: 132, 4;
        GIVEN_LEN: 136, 4;
        INTERPRETER_LEN: 140, 4;
        CWD_LEN: 144, 4;
        ARGS_LEN: 148, 4;
        TTY: 152, 24;
        RULE: 176, 4;
        FLAGS: 180, 4;
    }
    /// What happened to a file; one or two paths follow it.
    file_event 120 {
        WHO: 0, 72;
        INODE: 72, 8;
        COUNT: 80, 8;
        DEVICE: 88, 4;
        MODE: 92, 4;
        FLAGS: 96, 4;
        PATH_LEN: 100, 4;
        SECOND_LEN: 104, 4;
        RULE: 108, 4;
        TRIED: 112, 4;
        GROUP: 116, 4;
    }
    /// Key of `watched_files`.
    watched_key 16 {
        INODE: 0, 8;
        DEVICE: 8, 4;
        RESERVED: 12, 4;
    }
    /// Acts of other kinds.
    act 312 {
        WHO: 0, 72;
        NUMBER: 72, 32;
        SESSION: 104, 16;
        FIRST: 120, 64;
        SECOND: 184, 128;
    }
    /// A program that may not begin; its path follows.
    refused 344 {
        WHO: 0, 72;
        RULE: 72, 4;
        FLAGS: 76, 4;
        PATH_LEN: 80, 4;
        RESERVED: 84, 4;
        GIVEN: 88, 256;
    }
    /// A process's end.
    exited 88 {
        WHO: 0, 72;
        EXECUTED: 72, 8;
        STATUS: 80, 4;
        RESERVED: 84, 4;
    }
    /// Whatever became of a connection.
    connection 168 {
        WHO: 0, 72;
        LOCAL: 72, 16;
        REMOTE: 88, 16;
        LOCAL_PORT: 104, 2;
        REMOTE_PORT: 106, 2;
        PROTOCOL: 108, 4;
        FLAGS: 112, 4;
        ERROR: 116, 4;
        RULE: 120, 4;
        NET_NAMESPACE: 124, 4;
        COOKIE: 128, 8;
        OPENED: 136, 8;
        SENT: 144, 8;
        RECEIVED: 152, 8;
        DATAGRAMS: 160, 8;
    }
    /// What a name server has answered.
    answer 1312 {
        WHO: 0, 72;
        LENGTH: 72, 4;
        RESERVED: 76, 4;
        MESSAGE: 80, 1232;
    }
    /// Value of `policies`.
    policy 80 {
        RULES: 0, 4;
        FLAGS: 4, 4;
        LISTS: 8, 4;
        LIST: 12, 64;
        RESERVED: 76, 4;
    }
    /// Key of `file_rules`.
    file_key 16 {
        INODE: 0, 8;
        DEVICE: 8, 4;
        RULES: 12, 4;
    }
    /// Key of `name_rules`.
    name_key 272 {
        DIRECTORY: 0, 16;
        NAME: 16, 256;
    }
    /// Value of `file_rules` and `name_rules`.
    file_rule 16 {
        PROGRAM: 0, 4;
        PATH: 4, 4;
        LISTS: 8, 4;
        RESERVED: 12, 4;
    }
    /// Key of `denied` and `allowed`.
    net_key 24 {
        PREFIX_LEN: 0, 4;
        RULES: 4, 4;
        ADDRESS: 8, 16;
    }
    /// Value of `denied` and `allowed`.
    net_rule 196 {
        COUNT: 0, 4;
        RANGE: 4, 192;
    }
    /// Ports of a rule.
    port_range 12 {
        LOW: 0, 2;
        HIGH: 2, 2;
        PROTOCOL: 4, 4;
        RULE: 8, 4;
    }
}

/// Raised with each change of a layout; see `CONTROL_LAYOUT`.
pub const LAYOUT_VERSION: u64 = 5;

/// Kinds of records, and slots of the counters.
pub mod kind {
    #![allow(missing_docs)]
    pub const ACCEPTED: u16 = 1;
    pub const FORKED: u16 = 2;
    pub const EXECUTED: u16 = 3;
    pub const EXITED: u16 = 4;
    pub const CONNECTION_OPENED: u16 = 5;
    pub const CONNECTION_FAILED: u16 = 6;
    pub const CONNECTION_CLOSED: u16 = 7;
    pub const CONNECTION_ACCEPTED: u16 = 8;
    pub const CONNECTION_DENIED: u16 = 9;
    pub const FILE_OPENED: u16 = 10;
    pub const FILE_RENAMED: u16 = 11;
    pub const FILE_DELETED: u16 = 12;
    pub const FILE_MODE: u16 = 13;
    pub const USERS: u16 = 14;
    pub const MODULE: u16 = 15;
    pub const BPF: u16 = 16;
    pub const PTRACE: u16 = 17;
    pub const MOUNT: u16 = 18;
    pub const EXEC_REFUSED: u16 = 19;
    pub const FILE_LINKED: u16 = 20;
    pub const UNIX: u16 = 21;
    pub const FILE_DENIED: u16 = 22;
    /// No evidence, so it isn't counted.
    pub const ANSWERED: u16 = 23;
    pub const FILE_CREATED: u16 = 24;
    pub const FILE_OWNER: u16 = 25;
    pub const FILE_TRUNCATED: u16 = 26;
    pub const FILE_ATTRIBUTE: u16 = 27;
    pub const SOCKET: u16 = 28;
    pub const KERNEL: u16 = 29;
    pub const GROUPS: u16 = 30;
    /// How many slots the counters have.
    pub const COUNT: u32 = 64;
    /// Names for people of those that are counted, by number.
    pub const NAMES: [(u16, &str); 29] = [
        (ACCEPTED, "accepted"),
        (FORKED, "forked"),
        (EXECUTED, "executed"),
        (EXITED, "exited"),
        (CONNECTION_OPENED, "connection opened"),
        (CONNECTION_FAILED, "connection failed"),
        (CONNECTION_CLOSED, "connection closed"),
        (CONNECTION_ACCEPTED, "connection accepted"),
        (CONNECTION_DENIED, "connection denied"),
        (FILE_OPENED, "file opened"),
        (FILE_RENAMED, "file renamed"),
        (FILE_DELETED, "file deleted"),
        (FILE_MODE, "file mode"),
        (USERS, "users"),
        (MODULE, "module"),
        (BPF, "bpf"),
        (PTRACE, "ptrace"),
        (MOUNT, "mount"),
        (EXEC_REFUSED, "exec refused"),
        (FILE_LINKED, "file linked"),
        (UNIX, "unix"),
        (FILE_DENIED, "file denied"),
        (FILE_CREATED, "file created"),
        (FILE_OWNER, "file owner"),
        (FILE_TRUNCATED, "file truncated"),
        (FILE_ATTRIBUTE, "file attribute"),
        (SOCKET, "socket"),
        (KERNEL, "kernel"),
        (GROUPS, "groups"),
    ];
}

/// Slots of the array `control`.
pub mod control {
    #![allow(missing_docs)]
    pub const LAYOUT: u32 = 0;
    pub const HEARTBEAT: u32 = 1;
    pub const LIMIT: u32 = 2;
    pub const CLOSED: u32 = 3;
    pub const AGENT_PID: u32 = 4;
    pub const AGENT_START: u32 = 5;
    pub const GENERATION: u32 = 6;
    pub const EXPECTED: u32 = 7;
    pub const ACCEPTED: u32 = 8;
}

/// Flags of `executed`.
pub mod exec {
    #![allow(missing_docs)]
    pub const ARGS_CUT: u32 = 1;
    pub const ARGS_UNREADABLE: u32 = 2;
    pub const PATH_CUT: u32 = 4;
    pub const CWD_CUT: u32 = 8;
    pub const UNLINKED: u32 = 16;
    pub const OTHER_ROOT: u32 = 32;
    pub const REFUSED: u32 = 64;
    pub const UNREACHABLE: u32 = 128;
    pub const SCRIPT: u32 = 256;
    pub const MEMFD: u32 = 512;
    pub const NOT_ALLOWED: u32 = 1024;
}

/// Flags of `file_event`.
pub mod file {
    #![allow(missing_docs)]
    pub const CUT: u32 = 1;
    pub const REFUSED: u32 = 2;
    pub const UNREACHABLE: u32 = 4;
}

/// Values of `watched_files`.
pub mod lies {
    #![allow(missing_docs)]
    pub const WATCHED: u32 = 1;
    pub const OWN: u32 = 2;
}

/// By what a process gets at the kernel itself.
pub mod reach {
    /// Names for people, by number.
    pub const NAMES: [(u32, &str); 10] = [
        (1, "/dev/mem"),
        (2, "/proc/kcore"),
        (3, "kexec"),
        (4, "I/O ports"),
        (5, "model-specific registers"),
        (6, "PCI"),
        (7, "ACPI tables"),
        (8, "tracefs"),
        (9, "kprobes"),
        (10, "debugfs"),
    ];
    /// By what its clock was set, by number.
    pub const CLOCK: [(u32, &str); 2] = [(11, "settimeofday"), (12, "adjtimex")];
}

/// `tried` of `file_event`.
pub mod tried {
    #![allow(missing_docs)]
    pub const OPEN: u32 = 1;
    pub const RENAME: u32 = 2;
    pub const LINK: u32 = 3;
    pub const DELETE: u32 = 4;
    pub const MODE: u32 = 5;
    pub const OWNER: u32 = 6;
    pub const TRUNCATE: u32 = 7;
    pub const CREATE: u32 = 8;
    pub const CONNECT: u32 = 9;
}

/// Flags of `connection`, and what stands in `rule` where no rule of a list decided.
pub mod net {
    #![allow(missing_docs)]
    pub const UNCONNECTED: u32 = 1;
    pub const ENDS_SESSION: u32 = 2;
    pub const IN_PLACE: u32 = 4;
    pub const NOT_ALLOWED: u32 = 0;
    pub const CLOSED: u32 = u32::MAX;
    pub const PROTOCOL: u32 = u32::MAX - 1;
    pub const NO_POLICY: u32 = u32::MAX - 2;
    pub const UNRESOLVED: u32 = u32::MAX - 3;
    /// Flags of `policy`.
    pub const ALLOW_LIST: u32 = 1;
    pub const POLICY_ENDS_SESSION: u32 = 2;
    pub const RESTRICTS: u32 = 4;
    pub const PROGRAMS: u32 = 8;
    pub const PATHS: u32 = 16;
    pub const NO_SCRIPTS: u32 = 32;
    pub const UNFOLLOWED: u32 = 64;
    pub const LISTS_MAX: usize = 16;
    pub const RANGES_MAX: usize = 16;
}

/// Policies of the self-test: neither counted nor told.
pub const POLICY_CLOSED: u32 = u32::MAX;
/// The second of them, which nobody says anything of.
pub const POLICY_SELF_TEST: u32 = u32::MAX - 1;
/// Under it programs begin, and can't be mapped.
pub const POLICY_SELF_TEST_MAPS: u32 = u32::MAX - 2;
/// Numbers from here on belong to the sensor itself.
pub const POLICY_RESERVED: u32 = POLICY_SELF_TEST_MAPS;

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
