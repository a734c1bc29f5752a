//! Events of the kernel's records.

use super::booted::Booted;
use super::credentials;
use super::groups::{Group, Groups};
use super::hash::{Hashes, Latest, Ran};
use super::names::Names;
use super::numbering::Batch;
use crate::host;
use crate::sensor::{
    Accepted, Connection, Denial, ExecRefused, Executed, Exited, FileEvent, Record, Subject, Tried,
};
use crate::sessions::{Restriction, Session, Sessions};
use custody_core::event::command::{self, COMMAND_BYTES_MAX, Users};
use custody_core::event::file::PATH_BYTES_MAX;
use custody_core::event::node::{KernelChange, KernelChanged, SessionAccepted};
use custody_core::event::node_file::{self, Access, Named};
use custody_core::event::process::{Executable, Process};
use custody_core::event::socket::{self, Direction, Endpoint, Ends, Protocol};
use custody_core::event::{
    Actor, ByteString, Draft, EventData, Outcome, SessionId, Target, Timestamp, canonical::CanonicalError,
    node,
};
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The bits of open(2)'s flags that say what for.
const O_ACCMODE: u32 = 3;

/// The bits of stat(2)'s mode that say what it is.
const S_IFMT: u32 = 0o170_000;

/// `IPPROTO_MPTCP`.
const MULTIPATH: u32 = 262;

/// An owner that stays (chown(2)).
const UNCHANGED: u32 = u32::MAX;

/// Bytes of a text that comes with a file, at most.
const TEXT_MAX: usize = 255;

/// Bytes of a control group's path, at most: it is no part of the kernel's record, and a session may choose it.
const GROUP_PATH_MAX: usize = 512;

/// The number of the audit system's login user where there is none.
const NO_LOGIN: u32 = u32::MAX;

/// What was learnt of the machine so far.
#[derive(Debug, Default)]
pub struct Known {
    /// Of program files.
    pub hashes: Hashes,
    /// Of control groups.
    pub groups: Groups,
    /// By which names sessions know addresses.
    pub names: Names,
    /// The mount namespace of the machine's first process, where that can be told.
    pub mounts: Option<u32>,
}

impl Known {
    /// Nothing yet; of processes, `latest` is asked.
    pub fn of_this_machine(latest: Option<Arc<dyn Latest>>) -> Self {
        Self {
            hashes: Hashes::asking(latest),
            groups: Groups::of_this_machine(),
            mounts: host::mounts(),
            ..Self::default()
        }
    }

    fn program(&mut self, executed: &Executed, ran: Ran) -> Program {
        let path = Path::new(OsStr::from_bytes(&executed.path));
        Program {
            sha256: self.hashes.of(executed.who.pid, path, (executed.device(), executed.inode), ran),
            group: self.groups.of(executed.who.pid, executed.cgroup).cloned(),
        }
    }
}

/// What is known of a program besides what the kernel told.
#[derive(Default)]
struct Program {
    sha256: Option<String>,
    group: Option<Group>,
}

/// How many bytes of what a session chose an event may hold. A byte that JSON must escape takes six times its room, so
/// what doesn't fit is tried with less.
#[derive(Clone, Copy)]
struct Room {
    /// Of all arguments.
    arguments: usize,
    /// Of each path.
    path: usize,
}

impl Room {
    const WHOLE: Self = Self { arguments: COMMAND_BYTES_MAX, path: PATH_BYTES_MAX };

    /// Half of what takes most; `None`: there is nothing left to leave out.
    fn less(self) -> Option<Self> {
        match self {
            Self { arguments: 0, path: 0 } => None,
            Self { arguments, path } if arguments > path => Some(Self { arguments: arguments / 2, path }),
            Self { arguments, path } => Some(Self { arguments, path: path / 2 }),
        }
    }

    /// A path, or its end, and whether that isn't all: the end says more of a file than the beginning.
    fn end_of(self, path: &[u8]) -> (ByteString, bool) {
        let beyond = path.len().saturating_sub(self.path);
        (ByteString::from(path.get(beyond..).unwrap_or_default()), beyond > 0)
    }
}

/// A record becomes an event of its session: what is needed for it besides the record.
pub struct Translation<'a> {
    /// The node.
    pub node: &'a str,
    /// The sessions that are known here.
    pub sessions: &'a Sessions,
    /// What is known besides.
    pub known: &'a mut Known,
    /// When the machine was started.
    pub booted: Booted,
}

impl Translation<'_> {
    /// Adds the event of a record to a batch.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn tell(&mut self, record: &Record, batch: &mut Batch) -> Result<(), CanonicalError> {
        let program = match record {
            Record::Executed(executed) if executed.denial.is_none() => {
                let since_boot = executed.who.time;
                self.known.program(executed, Ran { at: self.booted.at(since_boot), since_boot })
            }
            Record::Answered(of) => {
                self.known.names.learn(of.who.session, &of.message, of.who.time);
                return Ok(());
            }
            _ => Program::default(),
        };
        let mut room = Room::WHOLE;
        loop {
            match self.told(record, &program, room, batch) {
                Err(error @ CanonicalError::TooLong { .. }) => room = room.less().ok_or(error)?,
                done => return done,
            }
        }
    }

    fn told(
        &self,
        record: &Record,
        program: &Program,
        room: Room,
        batch: &mut Batch,
    ) -> Result<(), CanonicalError> {
        match record {
            Record::Accepted(Accepted { who, .. }) => {
                self.push(batch, who, SessionAccepted { pid: who.pid }, Outcome::Success)
            }
            Record::Executed(executed) if executed.denial.is_some() => self.killed(batch, executed, room),
            Record::Executed(executed) => self.executed(batch, executed, program, room),
            Record::Exited(exited) => {
                let data = ended(exited);
                let outcome = if data.exit_status == Some(0) { Outcome::Success } else { Outcome::Failure };
                self.push(batch, &exited.who, data, outcome)
            }
            Record::ConnectionOpened(of) => {
                let data = socket::Opened { ends: self.ends(of), process: process(&of.who) };
                self.push(batch, &of.who, data, Outcome::Success)
            }
            Record::ConnectionAccepted(of) => {
                let data = socket::Accepted { ends: self.ends(of), process: process(&of.who) };
                self.push(batch, &of.who, data, Outcome::Success)
            }
            Record::ConnectionFailed(of) => {
                let data =
                    socket::Unreached { ends: self.ends(of), errno: of.error, process: process(&of.who) };
                self.push(batch, &of.who, data, Outcome::Failure)
            }
            Record::ConnectionClosed(of) => {
                let lasted = of.who.time.saturating_sub(of.opened);
                let data = socket::Closed {
                    bytes_in: of.received,
                    bytes_out: of.sent,
                    direction: Some(direction(of)),
                    duration_us: if of.opened == 0 { 0 } else { lasted / 1_000 },
                    ends: self.ends(of),
                    process: process(&of.who),
                };
                self.push(batch, &of.who, data, Outcome::Success)
            }
            Record::ConnectionDenied(of) => {
                let data = self.denied(of);
                self.push(batch, &of.who, data, Outcome::Denied)
            }
            Record::ExecRefused(refused) => self.refused(batch, refused, room),
            Record::FileDenied(of) => self.kept_from(batch, of, room),
            Record::FileOpened(of) => {
                let access = match of.mode & O_ACCMODE {
                    0 => Access::Read,
                    1 => Access::Write,
                    _ => Access::ReadWrite,
                };
                let data = node_file::Opened {
                    access,
                    count: of.count,
                    file: named(of, room),
                    process: process(&of.who),
                };
                self.push(batch, &of.who, data, unless(of.refused))
            }
            Record::FileRenamed(of) => {
                let (to, to_cut) = room.end_of(of.renamed_to.as_deref().unwrap_or_default());
                let data =
                    node_file::Renamed { file: named(of, room), process: process(&of.who), to, to_cut };
                self.push(batch, &of.who, data, unless(of.refused))
            }
            Record::FileLinked(of) => {
                let (to, to_cut) = room.end_of(of.renamed_to.as_deref().unwrap_or_default());
                let data = node_file::Linked { file: named(of, room), process: process(&of.who), to, to_cut };
                self.push(batch, &of.who, data, unless(of.refused))
            }
            Record::UnixConnected(of) => {
                let data = socket::DaemonReached {
                    path: ByteString::cut(&of.name, PATH_BYTES_MAX),
                    process: process(&of.who),
                };
                self.push(batch, &of.who, data, Outcome::Success)
            }
            Record::FileDeleted(of) => {
                let data = node_file::Deleted { file: named(of, room), process: process(&of.who) };
                self.push(batch, &of.who, data, unless(of.refused))
            }
            Record::FileCreated(of) => {
                let (leads_to, leads_to_cut) = room.end_of(of.text.as_deref().unwrap_or_default());
                let data = node_file::Created {
                    file: named(of, room),
                    kind: kind(of.mode),
                    leads_to: of.text.as_ref().map(|_| leads_to),
                    leads_to_cut: leads_to_cut || of.text.as_ref().is_some_and(|text| text.len() == TEXT_MAX),
                    process: process(&of.who),
                };
                self.push(batch, &of.who, data, unless(of.refused))
            }
            Record::FileTruncated(of) => {
                let data = node_file::Truncated { file: named(of, room), process: process(&of.who) };
                self.push(batch, &of.who, data, unless(of.refused))
            }
            Record::FileOwnerChanged(of) => {
                let given = |id: u32| (id != UNCHANGED).then_some(id);
                let data = node_file::OwnerChanged {
                    file: named(of, room),
                    gid: given(of.group),
                    process: process(&of.who),
                    uid: given(of.mode),
                };
                self.push(batch, &of.who, data, unless(of.refused))
            }
            Record::FileAttributeChanged(of) => {
                let data = node_file::AttributeChanged {
                    attribute: ByteString::from(of.text.as_deref().unwrap_or_default()),
                    file: named(of, room),
                    process: process(&of.who),
                };
                self.push(batch, &of.who, data, unless(of.refused))
            }
            Record::FileModeChanged(of) => {
                let mode = format!("{:04o}", of.mode & 0o7777);
                let data =
                    node_file::PermissionChanged { file: named(of, room), mode, process: process(&of.who) };
                self.push(batch, &of.who, data, unless(of.refused))
            }
            Record::UsersChanged(of) => self.changed(
                batch,
                &of.who,
                KernelChange::UsersChanged,
                credentials::change(of).as_bytes(),
                false,
            ),
            Record::GroupsChanged(of) => self.changed(
                batch,
                &of.who,
                KernelChange::GroupsChanged,
                credentials::change(of).as_bytes(),
                false,
            ),
            Record::ModuleLoaded(of) => {
                self.changed(batch, &of.who, KernelChange::ModuleLoaded, &of.name, false)
            }
            Record::KernelReached(of) => {
                self.changed(batch, &of.who, KernelChange::KernelReached, of.by.as_bytes(), false)
            }
            Record::ClockSet(of) => {
                self.changed(batch, &of.who, KernelChange::ClockSet, of.by.as_bytes(), false)
            }
            Record::BpfUsed(of) => {
                let on = format!("bpf command {}", of.command);
                self.changed(batch, &of.who, KernelChange::ProgramLoaded, on.as_bytes(), of.refused)
            }
            Record::Traced(of) => {
                let on = [&*of.target_comm, format!(" [{}]", of.target).as_bytes()].concat();
                self.changed(batch, &of.who, KernelChange::Traced, &on, of.refused)
            }
            Record::SocketMade(of) => {
                let on = format!("family {}, type {}, protocol {}", of.family, of.kind, of.protocol);
                self.changed(batch, &of.who, KernelChange::SocketMade, on.as_bytes(), false)
            }
            Record::Mounted(of) => {
                let on = if of.source.is_empty() { &of.kind } else { &of.source };
                self.changed(batch, &of.who, KernelChange::Mounted, on, of.refused)
            }
            // The one is no evidence, the other told as dropped by whoever counts.
            Record::Answered(_) | Record::Undecoded { .. } => Ok(()),
        }
    }

    /// Adds the event of a connection that was taken down at that time, when its network became denied.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn taken_down(
        &self,
        of: &Connection,
        at: Timestamp,
        batch: &mut Batch,
    ) -> Result<(), CanonicalError> {
        let data = socket::Denied { reason: socket::Denial::TakenDown, ..self.denied(of) };
        self.push_at(batch, &of.who, data, Outcome::Denied, at)
    }

    /// A program that was refused before it began.
    fn refused(&self, batch: &mut Batch, refused: &ExecRefused, room: Room) -> Result<(), CanonicalError> {
        let (given, given_cut) = room.end_of(&refused.given);
        let (path, path_cut) = room.end_of(&refused.path);
        let data = command::Denied {
            given,
            given_cut: given_cut || refused.given_cut,
            path: (!refused.path.is_empty()).then_some(path),
            path_cut: path_cut || refused.path_cut,
            ..self.program_denied(&refused.who, refused.denial)
        };
        self.push(batch, &refused.who, data, Outcome::Denied)
    }

    /// A program that was killed before its first instruction.
    fn killed(&self, batch: &mut Batch, executed: &Executed, room: Room) -> Result<(), CanonicalError> {
        let (arguments, arguments_cut) = arguments(&executed.args, room.arguments);
        let (given, given_cut) = room.end_of(&executed.given);
        let (path, path_cut) = room.end_of(&executed.path);
        let data = command::Denied {
            arguments,
            arguments_cut: arguments_cut || executed.args_missing > 0,
            given,
            given_cut,
            path: Some(path),
            path_cut: path_cut || executed.path_cut,
            ..self.program_denied(&executed.who, executed.denial.unwrap_or(Denial::Closed))
        };
        self.push(batch, &executed.who, data, Outcome::Denied)
    }

    /// Who may not run a program, and why not.
    fn program_denied(&self, who: &Subject, denial: Denial) -> command::Denied {
        let restriction = self.restriction(denial);
        command::Denied {
            arguments: Vec::new(),
            arguments_cut: false,
            ends_session: restriction.is_some_and(|restriction| restriction.ends_session),
            given: ByteString::default(),
            given_cut: false,
            path: None,
            path_cut: false,
            process: process(who),
            reason: match denial {
                Denial::Rule(_) => command::Denial::Denied,
                Denial::Unresolved => command::Denial::Unresolved,
                Denial::List(_) | Denial::NotAllowed | Denial::NoPolicy => command::Denial::NotAllowed,
                Denial::Closed | Denial::Protocol => command::Denial::NoEvidence,
            },
            restriction: restriction.map(|restriction| restriction.name.clone()),
        }
    }

    /// A file that may not be touched.
    fn kept_from(&self, batch: &mut Batch, of: &FileEvent, room: Room) -> Result<(), CanonicalError> {
        let (tried, denial) = of.denied.unwrap_or((Tried::Open, Denial::Unresolved));
        let restriction = self.restriction(denial);
        let data = node_file::Denied {
            ends_session: restriction.is_some_and(|restriction| restriction.ends_session),
            file: named(of, room),
            process: process(&of.who),
            reason: match denial {
                Denial::Rule(_) | Denial::List(_) => node_file::Denial::Denied,
                Denial::NoPolicy | Denial::NotAllowed => node_file::Denial::NotAllowed,
                Denial::Unresolved | Denial::Closed | Denial::Protocol => node_file::Denial::Unresolved,
            },
            restriction: restriction.map(|restriction| restriction.name.clone()),
            tried: match tried {
                Tried::Open if of.mode & O_ACCMODE == 0 => node_file::Tried::Read,
                Tried::Open => node_file::Tried::Write,
                Tried::Rename => node_file::Tried::Rename,
                Tried::Link => node_file::Tried::Link,
                Tried::Delete => node_file::Tried::Delete,
                Tried::Mode => node_file::Tried::ChangePermission,
                Tried::Owner => node_file::Tried::ChangeOwner,
                Tried::Truncate => node_file::Tried::Truncate,
                Tried::Create => node_file::Tried::Create,
                Tried::Connect => node_file::Tried::Connect,
            },
        };
        self.push(batch, &of.who, data, Outcome::Denied)
    }

    /// The restriction that a denial comes from.
    fn restriction(&self, denial: Denial) -> Option<&Restriction> {
        match denial {
            Denial::Rule(rule) | Denial::List(rule) => self.sessions.restriction(rule),
            _ => None,
        }
    }

    fn changed(
        &self,
        batch: &mut Batch,
        who: &Subject,
        change: KernelChange,
        on: &[u8],
        refused: bool,
    ) -> Result<(), CanonicalError> {
        let data = KernelChanged { change, on: ByteString::cut(on, PATH_BYTES_MAX), process: process(who) };
        self.push(batch, who, data, unless(refused))
    }

    fn executed(
        &self,
        batch: &mut Batch,
        executed: &Executed,
        program: &Program,
        room: Room,
    ) -> Result<(), CanonicalError> {
        let (arguments, arguments_cut) = arguments(&executed.args, room.arguments);
        let (directory, directory_cut) = room.end_of(&executed.cwd);
        let (given, given_cut) = room.end_of(&executed.given);
        let (interpreter, _) = room.end_of(executed.interpreter.as_deref().unwrap_or_default());
        let (path, path_cut) = room.end_of(&executed.path);
        let group = program.group.as_ref();
        let group_path = group.filter(|group| group.path.len() <= GROUP_PATH_MAX);
        let group_path = group_path.map(|group| room.end_of(&group.path)).filter(|(_, cut)| !cut);
        let (major, minor) = executed.device();
        let data = command::Executed {
            arguments,
            arguments_bytes: executed.args_total,
            arguments_count: Some(executed.argc.into()),
            arguments_cut: arguments_cut || executed.args_missing > 0,
            arguments_unreadable: executed.args_unreadable,
            capabilities: credentials::capabilities(executed),
            cgroup: executed.cgroup.to_string(),
            cgroup_path: group_path.map(|(path, _)| path),
            container: group.and_then(|group| group.container.clone()).map(Box::new),
            directory: Some(directory),
            directory_cut: directory_cut || executed.cwd_cut,
            executable: Executable {
                device: format!("{major}:{minor}"),
                inode: executed.inode.to_string(),
                path,
                path_cut: path_cut || executed.path_cut,
                sha256: program.sha256.clone(),
                unlinked: executed.unlinked || executed.memfd,
            },
            given,
            given_cut,
            interpreter: executed.interpreter.is_some().then_some(interpreter),
            mount_namespace: (self.known.mounts != Some(executed.mount_namespace))
                .then_some(executed.mount_namespace),
            other_root: executed.other_root,
            process: process(&executed.who),
            terminal: (!executed.tty.is_empty()).then(|| ByteString::from(&*executed.tty).to_text().into()),
            users: Users {
                egid: executed.egid,
                euid: executed.euid,
                gid: executed.gid,
                login_uid: (executed.loginuid != NO_LOGIN).then_some(executed.loginuid),
                uid: executed.who.uid,
            },
        };
        self.push(batch, &executed.who, data, Outcome::Success)
    }

    fn denied(&self, of: &Connection) -> socket::Denied {
        let session = self.session(&of.who);
        let (reason, rule) = match of.denial {
            Some(Denial::Rule(rule) | Denial::List(rule)) => (socket::Denial::Denied, Some(rule)),
            Some(Denial::NotAllowed | Denial::Protocol | Denial::NoPolicy | Denial::Unresolved) => {
                (socket::Denial::NotAllowed, None)
            }
            Some(Denial::Closed) | None => (socket::Denial::NoEvidence, None),
        };
        let restriction = rule.and_then(|rule| self.sessions.restriction(rule));
        let ends_session = match restriction {
            Some(restriction) => restriction.ends_session,
            None => {
                // Programs ask for it first and go on with TCP where they don't get it: that is no way around anything.
                let is_preferred = of.protocol == MULTIPATH;
                reason == socket::Denial::NotAllowed
                    && !is_preferred
                    && session.is_some_and(|session| session.reach.ends_session)
            }
        };
        socket::Denied {
            direction: Some(direction(of)),
            ends: self.ends(of),
            ends_session,
            process: process(&of.who),
            reason,
            restriction: restriction.map(|restriction| restriction.name.clone()),
        }
    }

    fn ends(&self, of: &Connection) -> Ends {
        let endpoint = |address: [u8; 16], port| Endpoint { address: canonical(address).to_string(), port };
        let known = of.local != [0; 16] || of.local_port != 0;
        let began = if of.opened == 0 { of.who.time } else { of.opened };
        Ends {
            local: known.then(|| endpoint(of.local, of.local_port)),
            name: self.known.names.of(of.who.session, of.remote, began).map(str::to_owned),
            protocol: match of.protocol {
                6 | MULTIPATH => Protocol::Tcp,
                17 => Protocol::Udp,
                _ => Protocol::Other,
            },
            remote: endpoint(of.remote, of.remote_port),
        }
    }

    fn session(&self, who: &Subject) -> Option<&Session> {
        self.sessions.get(SessionId(Uuid::from_bytes(who.session)))
    }

    fn push<D: EventData>(
        &self,
        batch: &mut Batch,
        who: &Subject,
        data: D,
        outcome: Outcome,
    ) -> Result<(), CanonicalError> {
        self.push_at(batch, who, data, outcome, self.booted.at(who.time))
    }

    fn push_at<D: EventData>(
        &self,
        batch: &mut Batch,
        who: &Subject,
        data: D,
        outcome: Outcome,
        at: Timestamp,
    ) -> Result<(), CanonicalError> {
        let mut target = Target { kind: "node".to_owned(), name: self.node.to_owned(), ..Target::default() };
        let mut draft = match self.session(who) {
            Some(session) => {
                target.login = Some(ByteString::from(session.login.as_str()));
                Draft::new(session.actor.clone(), data).session(SessionId(Uuid::from_bytes(who.session)))
            }
            // Of a session that this agent's files don't know (any more).
            None => Draft::new(Actor::system(&node::producer(self.node)), data),
        };
        draft.target = Some(target);
        draft.outcome = Some(outcome);
        batch.push(draft, at)
    }
}

fn named(of: &FileEvent, room: Room) -> Named {
    let (path, path_cut) = room.end_of(&of.path);
    Named {
        device: format!("{}:{}", of.device >> 20, of.device & 0xf_ffff),
        inode: of.inode.to_string(),
        path,
        path_cut: path_cut || of.cut || of.unreachable,
    }
}

const fn kind(mode: u32) -> node_file::Kind {
    match mode & S_IFMT {
        0o040_000 => node_file::Kind::Directory,
        0o120_000 => node_file::Kind::SymbolicLink,
        0o010_000 => node_file::Kind::Pipe,
        0o140_000 => node_file::Kind::Socket,
        0o020_000 | 0o060_000 => node_file::Kind::Device,
        _ => node_file::Kind::File,
    }
}

const fn unless(refused: bool) -> Outcome {
    if refused { Outcome::Denied } else { Outcome::Success }
}

const fn direction(of: &Connection) -> Direction {
    if of.in_place { Direction::Inbound } else { Direction::Outbound }
}

fn process(who: &Subject) -> Process {
    Process {
        name: ByteString::from(&*who.comm),
        parent: who.ppid,
        pid: who.pid,
        started_us: who.start / 1_000,
        uid: who.uid,
    }
}

/// What a wait status says (wait(2)).
fn ended(exited: &Exited) -> command::Exited {
    let signal = exited.status & 0x7f;
    command::Exited {
        core_dumped: signal != 0 && exited.status & 0x80 != 0,
        duration_us: Duration::from_nanos(exited.who.time.saturating_sub(exited.who.start))
            .as_micros()
            .try_into()
            .unwrap_or(u64::MAX),
        exit_status: (signal == 0).then_some(exited.status >> 8 & 0xff),
        process: process(&exited.who),
        signal: (signal != 0).then_some(signal),
    }
}

/// As many arguments as fit into so many bytes, the last of them cut, and whether that isn't all.
fn arguments(all: &[Vec<u8>], bytes_max: usize) -> (Vec<ByteString>, bool) {
    let mut left = bytes_max;
    let mut taken = Vec::new();
    for argument in all {
        if left == 0 {
            return (taken, true);
        }
        taken.push(ByteString::cut(argument, left));
        if argument.len() > left {
            return (taken, true);
        }
        // An empty one takes room as well: its quotes.
        left = left.saturating_sub(argument.len().max(1));
    }
    (taken, false)
}

fn canonical(address: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(address)).to_canonical()
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
