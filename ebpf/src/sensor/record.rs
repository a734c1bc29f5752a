//! What the programs tell, decoded: plain data, bytes as bytes. No input makes it fail otherwise than as [`Record::Undecoded`].

use super::act::{
    self, BpfUsed, ClockSet, FileEvent, IdsChanged, KernelReached, ModuleLoaded, Mounted, SocketMade, Traced,
    UnixConnected,
};
use super::layout::{
    self, accepted, answer, connection, exec, executed, exited, kind, net, refused, subject,
};

/// Who did it, and when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// The session's UUID.
    pub session: [u8; 16],
    /// The number of the policy that the session was opened under.
    pub policy: u32,
    /// Process, as the host's first process numbers it.
    pub pid: u32,
    /// Thread, numbered likewise.
    pub tid: u32,
    /// Parent process.
    pub ppid: u32,
    /// Real user id, as the host's first user namespace has it.
    pub uid: u32,
    /// When it happened, in boottime ns.
    pub time: u64,
    /// When the process came into being, in boottime ns: with `pid` it names the process for good.
    pub start: u64,
    /// The thread's name.
    pub comm: Vec<u8>,
}

/// Processes have a session's connection: from now on they and what they fork are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// From whom the others descend.
    pub who: Subject,
    /// The connection, as it was expected.
    pub tuple: Tuple,
}

/// A TCP connection from the node's end. IPv4 is `::ffff:a.b.c.d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The node's address.
    pub local: [u8; 16],
    /// Its port.
    pub local_port: u16,
    /// The proxy's address.
    pub remote: [u8; 16],
    /// Its port.
    pub remote_port: u16,
}

/// A program that a process of a session has begun to run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Executed {
    /// Who runs it.
    pub who: Subject,
    /// Real group id.
    pub gid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Effective group id.
    pub egid: u32,
    /// Login uid of the audit system; `u32::MAX`: none.
    pub loginuid: u32,
    /// Capabilities that it may use, a bit each (capabilities(7)).
    pub permitted: u64,
    /// Id of the cgroup in cgroup2.
    pub cgroup: u64,
    /// The file that runs (of a script: its interpreter), as its process sees it.
    pub path: Vec<u8>,
    /// Its inode.
    pub inode: u64,
    /// Its device: major << 20 | minor.
    pub device: u32,
    /// What execve was given: for a script, the script.
    pub given: Vec<u8>,
    /// The interpreter as the script's first line names it; `None`: not a script.
    pub interpreter: Option<Vec<u8>>,
    /// Working directory.
    pub cwd: Vec<u8>,
    /// The arguments, each without its NUL; the last may be cut.
    pub args: Vec<Vec<u8>>,
    /// How many arguments there are.
    pub argc: u32,
    /// How many bytes all arguments have, their NULs included.
    pub args_total: u64,
    /// How many of those bytes `args` doesn't hold.
    pub args_missing: u64,
    /// Inode number of the mount namespace.
    pub mount_namespace: u32,
    /// Name of the controlling terminal; empty: none.
    pub tty: Vec<u8>,
    /// A page of the arguments couldn't be read.
    pub args_unreadable: bool,
    /// `path` lacks components after its first.
    pub path_cut: bool,
    /// `cwd` lacks components after its first.
    pub cwd_cut: bool,
    /// No name leads to the file: deleted, or never had one.
    pub unlinked: bool,
    /// The file lives in memory only.
    pub memfd: bool,
    /// The process's root directory isn't the agent's.
    pub other_root: bool,
    /// The file or the directory can't be reached from the process's root.
    pub unreachable: bool,
    /// Why it was killed before its first instruction; `None`: it wasn't.
    pub denial: Option<Denial>,
}

/// A program that a process of a session wanted to run, and may not (LSM).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRefused {
    /// Who wanted it.
    pub who: Subject,
    /// What execve was given, at most 255 bytes of it; of a file that should have been mapped, its name.
    pub given: Vec<u8>,
    /// `given` may lack its end.
    pub given_cut: bool,
    /// The file, as the process sees it: of a script the script, or what should run it. Empty: a file that should have been mapped.
    pub path: Vec<u8>,
    /// `path` lacks components after its first.
    pub path_cut: bool,
    /// Why.
    pub denial: Denial,
}

/// A process of a session has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exited {
    /// Whose end; the thread is the last one.
    pub who: Subject,
    /// Wait status, as wait(2) gives it.
    pub status: u32,
    /// When its last program began to run, in boottime ns; `None`: it never ran one of its own.
    pub executed: Option<u64>,
}

/// What refused a connection, a program or a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// A rule of the deny list, by its number.
    Rule(u32),
    /// An allow list of programs, by its rule's number, which doesn't hold it.
    List(u32),
    /// Which file it is couldn't be made out, so a rule may speak of it.
    Unresolved,
    /// The policy has an allow list, which doesn't hold it.
    NotAllowed,
    /// No evidence could be kept.
    Closed,
    /// A kind of socket whose destinations can't be checked.
    Protocol,
    /// Nobody has said what the session's policy allows.
    NoPolicy,
}

/// A connection, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Who opened it, or listens.
    pub who: Subject,
    /// The node's address; zero: not known yet.
    pub local: [u8; 16],
    /// Its port.
    pub local_port: u16,
    /// The peer's address; to no address is told as to loopback.
    pub remote: [u8; 16],
    /// Its port.
    pub remote_port: u16,
    /// IP protocol: 6 TCP, 17 UDP.
    pub protocol: u32,
    /// Datagrams sent without a connect.
    pub unconnected: bool,
    /// The peer called a listener of the session.
    pub in_place: bool,
    /// By the policy this denial ends the session.
    pub ends_session: bool,
    /// Why it failed, as errno; 0: it was given up, or nothing was sent, since there was no way to the address.
    pub error: u32,
    /// What refused it.
    pub denial: Option<Denial>,
    /// Inode number of the network namespace; 0: not known.
    pub net_namespace: u32,
    /// The kernel's number of the socket.
    pub cookie: u64,
    /// When it was established, in boottime ns; 0: never.
    pub opened: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received; of datagrams those that came, whether they were read or not.
    pub received: u64,
    /// Datagrams sent without a connect.
    pub datagrams: u64,
}

/// A name server has sent something to a socket that had sent to it first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Whose socket it is.
    pub who: Subject,
    /// The message as it came, or its beginning; whatever a stranger put there.
    pub message: Vec<u8>,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A session begins on this node.
    Accepted(Accepted),
    /// A program began to run.
    Executed(Box<Executed>),
    /// A program may not begin.
    ExecRefused(ExecRefused),
    /// A process ended.
    Exited(Exited),
    /// Established, or a datagram socket that has got a peer.
    ConnectionOpened(Connection),
    /// Never established.
    ConnectionFailed(Connection),
    /// Over.
    ConnectionClosed(Connection),
    /// Established, by the peer.
    ConnectionAccepted(Connection),
    /// Refused.
    ConnectionDenied(Connection),
    /// What a session was told of a name: no evidence by itself.
    Answered(Answered),
    /// A watched file was opened: `mode` are open(2)'s flags.
    FileOpened(FileEvent),
    /// A watched file was renamed, or another to a watched name.
    FileRenamed(FileEvent),
    /// A watched file has got a second name, or another file one that is watched.
    FileLinked(FileEvent),
    /// A watched file or directory was deleted, or a pin of ours should have been.
    FileDeleted(FileEvent),
    /// A file, directory, link or device was made where files are watched: `mode` says which.
    FileCreated(FileEvent),
    /// A watched file was made shorter or longer without an open.
    FileTruncated(FileEvent),
    /// A watched file's permissions were changed to `mode`.
    FileModeChanged(FileEvent),
    /// A watched file was given to the user `mode` and the group `group`, each `u32::MAX` where it stays as it is.
    FileOwnerChanged(FileEvent),
    /// An attribute of a watched file was set or removed: `text` is its name.
    FileAttributeChanged(FileEvent),
    /// A file that may not be touched should have been: how, and why not, stands in `denied`.
    FileDenied(FileEvent),
    /// A process has got other ids of users.
    UsersChanged(IdsChanged),
    /// A process has got other ids of groups.
    GroupsChanged(IdsChanged),
    /// A kernel module was loaded.
    ModuleLoaded(ModuleLoaded),
    /// The kernel itself was reached.
    KernelReached(KernelReached),
    /// The machine's clock was set.
    ClockSet(ClockSet),
    /// BPF was used.
    BpfUsed(BpfUsed),
    /// A process reached for another's memory.
    Traced(Traced),
    /// A socket was made whose packets aren't followed.
    SocketMade(SocketMade),
    /// A daemon on this host was connected to.
    UnixConnected(UnixConnected),
    /// A file system was mounted, or a bpffs should have been unmounted.
    Mounted(Mounted),
    /// Bytes that no record has: told, so that the count stays right.
    Undecoded {
        /// The kind that it says it is.
        kind: u16,
        /// How many bytes it has.
        length: usize,
    },
}

/// Decodes one record of the ring.
pub fn decode(bytes: &[u8]) -> Record {
    let number = read_u16(bytes, subject::KIND).unwrap_or_default();
    let decoded = match number {
        kind::ACCEPTED => decode_accepted(bytes).map(Record::Accepted),
        kind::EXECUTED => decode_executed(bytes).map(|executed| Record::Executed(Box::new(executed))),
        kind::EXEC_REFUSED => decode_refused(bytes).map(Record::ExecRefused),
        kind::EXITED => decode_exited(bytes).map(Record::Exited),
        kind::CONNECTION_OPENED => decode_connection(bytes, false).map(Record::ConnectionOpened),
        kind::CONNECTION_FAILED => decode_connection(bytes, false).map(Record::ConnectionFailed),
        kind::CONNECTION_CLOSED => decode_connection(bytes, false).map(Record::ConnectionClosed),
        kind::CONNECTION_ACCEPTED => decode_connection(bytes, false).map(Record::ConnectionAccepted),
        kind::CONNECTION_DENIED => decode_connection(bytes, true).map(Record::ConnectionDenied),
        kind::ANSWERED => decode_answered(bytes).map(Record::Answered),
        kind::FILE_OPENED => act::decode_file(bytes).map(Record::FileOpened),
        kind::FILE_RENAMED => act::decode_file(bytes).map(Record::FileRenamed),
        kind::FILE_LINKED => act::decode_file(bytes).map(Record::FileLinked),
        kind::FILE_DELETED => act::decode_file(bytes).map(Record::FileDeleted),
        kind::FILE_MODE => act::decode_file(bytes).map(Record::FileModeChanged),
        kind::FILE_CREATED => act::decode_file(bytes).map(Record::FileCreated),
        kind::FILE_OWNER => act::decode_file(bytes).map(Record::FileOwnerChanged),
        kind::FILE_TRUNCATED => act::decode_file(bytes).map(Record::FileTruncated),
        kind::FILE_ATTRIBUTE => act::decode_file(bytes).map(Record::FileAttributeChanged),
        kind::FILE_DENIED => act::decode_file(bytes).map(Record::FileDenied),
        kind::USERS => act::decode_ids(bytes).map(Record::UsersChanged),
        kind::GROUPS => act::decode_ids(bytes).map(Record::GroupsChanged),
        kind::MODULE => act::decode_module(bytes).map(Record::ModuleLoaded),
        kind::KERNEL => act::decode_kernel(bytes)
            .map(Record::KernelReached)
            .or_else(|| act::decode_clock(bytes).map(Record::ClockSet)),
        kind::BPF => act::decode_bpf(bytes).map(Record::BpfUsed),
        kind::PTRACE => act::decode_traced(bytes).map(Record::Traced),
        kind::SOCKET => act::decode_socket(bytes).map(Record::SocketMade),
        kind::UNIX => act::decode_unix(bytes).map(Record::UnixConnected),
        kind::MOUNT => act::decode_mount(bytes).map(Record::Mounted),
        _ => None,
    };
    decoded.unwrap_or(Record::Undecoded { kind: number, length: bytes.len() })
}

impl Record {
    /// Who did it; `None` where the bytes couldn't be decoded.
    pub fn who(&self) -> Option<&Subject> {
        match self {
            Record::Accepted(record) => Some(&record.who),
            Record::Executed(record) => Some(&record.who),
            Record::ExecRefused(record) => Some(&record.who),
            Record::Exited(record) => Some(&record.who),
            Record::ConnectionOpened(record)
            | Record::ConnectionFailed(record)
            | Record::ConnectionClosed(record)
            | Record::ConnectionAccepted(record)
            | Record::ConnectionDenied(record) => Some(&record.who),
            Record::Answered(record) => Some(&record.who),
            Record::FileOpened(record)
            | Record::FileRenamed(record)
            | Record::FileLinked(record)
            | Record::FileDeleted(record)
            | Record::FileCreated(record)
            | Record::FileTruncated(record)
            | Record::FileModeChanged(record)
            | Record::FileOwnerChanged(record)
            | Record::FileAttributeChanged(record)
            | Record::FileDenied(record) => Some(&record.who),
            Record::UsersChanged(record) | Record::GroupsChanged(record) => Some(&record.who),
            Record::ModuleLoaded(record) => Some(&record.who),
            Record::KernelReached(record) => Some(&record.who),
            Record::ClockSet(record) => Some(&record.who),
            Record::BpfUsed(record) => Some(&record.who),
            Record::Traced(record) => Some(&record.who),
            Record::SocketMade(record) => Some(&record.who),
            Record::UnixConnected(record) => Some(&record.who),
            Record::Mounted(record) => Some(&record.who),
            Record::Undecoded { .. } => None,
        }
    }
}

impl Executed {
    /// The file's device, as stat(2) tells it: major, minor.
    #[must_use]
    pub fn device(&self) -> (u32, u32) {
        (self.device >> 20, self.device & 0xf_ffff)
    }
}

impl Tuple {
    /// As the programs have it.
    pub fn encode(&self) -> [u8; layout::tuple::SIZE] {
        let mut bytes = [0; layout::tuple::SIZE];
        put(&mut bytes, layout::tuple::LOCAL, &self.local);
        put(&mut bytes, layout::tuple::REMOTE, &self.remote);
        put(&mut bytes, layout::tuple::LOCAL_PORT, &self.local_port.to_ne_bytes());
        put(&mut bytes, layout::tuple::REMOTE_PORT, &self.remote_port.to_ne_bytes());
        bytes
    }

    /// A connection between two sockets, from the node's end.
    pub fn new(local: std::net::SocketAddr, remote: std::net::SocketAddr) -> Tuple {
        Tuple {
            local: mapped(local.ip()),
            local_port: local.port(),
            remote: mapped(remote.ip()),
            remote_port: remote.port(),
        }
    }
}

/// Sixteen bytes for each address: IPv4 as `::ffff:a.b.c.d`.
pub fn mapped(address: std::net::IpAddr) -> [u8; 16] {
    match address {
        std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(v6) => v6.octets(),
    }
}

/// Puts a field into a struct of `layout`; what doesn't fit is left out, which the layout's test rules out.
pub(super) fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + field.len()) {
        place.copy_from_slice(field);
    }
}

fn decode_accepted(bytes: &[u8]) -> Option<Accepted> {
    let at = accepted::TUPLE;
    let tuple = Tuple {
        local: read_16(bytes, at + layout::tuple::LOCAL)?,
        local_port: read_u16(bytes, at + layout::tuple::LOCAL_PORT)?,
        remote: read_16(bytes, at + layout::tuple::REMOTE)?,
        remote_port: read_u16(bytes, at + layout::tuple::REMOTE_PORT)?,
    };
    Some(Accepted { who: decode_subject(bytes)?, tuple })
}

pub(super) fn decode_subject(bytes: &[u8]) -> Option<Subject> {
    Some(Subject {
        session: read_16(bytes, subject::SESSION)?,
        policy: read_u32(bytes, subject::POLICY)?,
        pid: read_u32(bytes, subject::PID)?,
        tid: read_u32(bytes, subject::TID)?,
        ppid: read_u32(bytes, subject::PPID)?,
        uid: read_u32(bytes, subject::UID)?,
        time: read_u64(bytes, subject::TIME)?,
        start: read_u64(bytes, subject::START)?,
        comm: until_nul(bytes.get(subject::COMM..subject::COMM + 16)?).to_vec(),
    })
}

fn decode_refused(bytes: &[u8]) -> Option<ExecRefused> {
    let given = bytes.get(refused::GIVEN..refused::SIZE)?;
    let flags = read_u32(bytes, refused::FLAGS)?;
    let path_len = usize::try_from(read_u32(bytes, refused::PATH_LEN)?).ok()?;
    let path = bytes.get(refused::SIZE..)?.get(..path_len)?;
    Some(ExecRefused {
        who: decode_subject(bytes)?,
        given: until_nul(given).to_vec(),
        // Its last byte ends it in any case.
        given_cut: until_nul(given).len() + 1 >= given.len(),
        path: if path.is_empty() { Vec::new() } else { join(path, flags & exec::MEMFD != 0) },
        path_cut: flags & exec::PATH_CUT != 0,
        denial: decode_denial(read_u32(bytes, refused::RULE)?, flags & exec::NOT_ALLOWED != 0),
    })
}

fn decode_exited(bytes: &[u8]) -> Option<Exited> {
    let executed = read_u64(bytes, exited::EXECUTED)?;
    Some(Exited {
        who: decode_subject(bytes)?,
        status: read_u32(bytes, exited::STATUS)?,
        executed: (executed != 0).then_some(executed),
    })
}

/// `list`: the rule is an allow list's.
pub(super) fn decode_denial(rule: u32, list: bool) -> Denial {
    match rule {
        net::NOT_ALLOWED => Denial::NotAllowed,
        net::CLOSED => Denial::Closed,
        net::PROTOCOL => Denial::Protocol,
        net::NO_POLICY => Denial::NoPolicy,
        net::UNRESOLVED => Denial::Unresolved,
        rule if list => Denial::List(rule),
        rule => Denial::Rule(rule),
    }
}

pub(super) fn decode_connection(bytes: &[u8], denied: bool) -> Option<Connection> {
    let flags = read_u32(bytes, connection::FLAGS)?;
    let denial = decode_denial(read_u32(bytes, connection::RULE)?, false);
    Some(Connection {
        who: decode_subject(bytes)?,
        local: read_16(bytes, connection::LOCAL)?,
        local_port: read_u16(bytes, connection::LOCAL_PORT)?,
        remote: read_16(bytes, connection::REMOTE)?,
        remote_port: read_u16(bytes, connection::REMOTE_PORT)?,
        protocol: read_u32(bytes, connection::PROTOCOL)?,
        unconnected: flags & net::UNCONNECTED != 0,
        in_place: flags & net::IN_PLACE != 0,
        ends_session: flags & net::ENDS_SESSION != 0,
        error: read_u32(bytes, connection::ERROR)?,
        denial: denied.then_some(denial),
        net_namespace: read_u32(bytes, connection::NET_NAMESPACE)?,
        cookie: read_u64(bytes, connection::COOKIE)?,
        opened: read_u64(bytes, connection::OPENED)?,
        sent: read_u64(bytes, connection::SENT)?,
        received: read_u64(bytes, connection::RECEIVED)?,
        datagrams: read_u64(bytes, connection::DATAGRAMS)?,
    })
}

fn decode_answered(bytes: &[u8]) -> Option<Answered> {
    let length = usize::try_from(read_u32(bytes, answer::LENGTH)?).ok()?;
    let message = bytes.get(answer::MESSAGE..answer::SIZE)?.get(..length)?.to_vec();
    Some(Answered { who: decode_subject(bytes)?, message })
}

fn decode_executed(bytes: &[u8]) -> Option<Executed> {
    let flags = read_u32(bytes, executed::FLAGS)?;
    let has = |flag: u32| flags & flag != 0;
    let mut rest = bytes.get(executed::SIZE..)?;
    let mut take = |field: usize| {
        let length = usize::try_from(read_u32(bytes, field)?).ok()?;
        let (taken, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(taken)
    };
    let path = take(executed::PATH_LEN)?;
    let given = take(executed::GIVEN_LEN)?;
    let interpreter = take(executed::INTERPRETER_LEN)?;
    let cwd = take(executed::CWD_LEN)?;
    let args = take(executed::ARGS_LEN)?;
    let rule = read_u32(bytes, executed::RULE)?;
    let args_total = read_u64(bytes, executed::ARGS_TOTAL)?;
    let args_missing = args_total.saturating_sub(u64::try_from(args.len()).ok()?);
    Some(Executed {
        who: decode_subject(bytes)?,
        gid: read_u32(bytes, executed::GID)?,
        euid: read_u32(bytes, executed::EUID)?,
        egid: read_u32(bytes, executed::EGID)?,
        loginuid: read_u32(bytes, executed::LOGINUID)?,
        permitted: read_u64(bytes, executed::PERMITTED)?,
        cgroup: read_u64(bytes, executed::CGROUP)?,
        path: join(path, has(exec::MEMFD)),
        inode: read_u64(bytes, executed::INODE)?,
        device: read_u32(bytes, executed::DEVICE)?,
        given: until_nul(given).to_vec(),
        interpreter: has(exec::SCRIPT).then(|| until_nul(interpreter).to_vec()),
        cwd: join(cwd, false),
        args: split_args(args),
        argc: read_u32(bytes, executed::ARGC)?,
        args_total,
        args_missing,
        mount_namespace: read_u32(bytes, executed::MOUNT_NAMESPACE)?,
        tty: until_nul(bytes.get(executed::TTY..executed::TTY + 24)?).to_vec(),
        args_unreadable: has(exec::ARGS_UNREADABLE),
        path_cut: has(exec::PATH_CUT),
        cwd_cut: has(exec::CWD_CUT),
        unlinked: has(exec::UNLINKED),
        memfd: has(exec::MEMFD),
        other_root: has(exec::OTHER_ROOT),
        unreachable: has(exec::UNREACHABLE),
        denial: has(exec::REFUSED).then_some(decode_denial(rule, has(exec::NOT_ALLOWED))),
    })
}

/// A path from its components, leaf first, each ended by NUL. `alone`: a name outside of any directory, without a slash.
pub(super) fn join(components: &[u8], alone: bool) -> Vec<u8> {
    let Some(components) = components.strip_suffix(&[0]) else {
        return if components.is_empty() && !alone { b"/".to_vec() } else { components.to_vec() };
    };
    if alone {
        return components.to_vec();
    }
    let mut path = Vec::with_capacity(components.len() + 1);
    for component in components.split(|byte| *byte == 0).rev() {
        path.push(b'/');
        path.extend_from_slice(component);
    }
    path
}

fn split_args(bytes: &[u8]) -> Vec<Vec<u8>> {
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.strip_suffix(&[0]).unwrap_or(bytes).split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn read<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(super) fn read_16(bytes: &[u8], at: usize) -> Option<[u8; 16]> {
    read(bytes, at)
}

pub(super) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    read(bytes, at).map(u16::from_ne_bytes)
}

pub(super) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    read(bytes, at).map(u32::from_ne_bytes)
}

pub(super) fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    read(bytes, at).map(u64::from_ne_bytes)
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
