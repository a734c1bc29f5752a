//! Records of files, and of what gives a session more than it had, decoded.

use super::layout::{act, file, file_event, kind, reach, subject, tried};
use super::record::{
    Denial, Subject, decode_denial, decode_subject, join, read_16, read_u16, read_u32, read_u64, until_nul,
};

/// What happened to a watched file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEvent {
    /// Who did it.
    pub who: Subject,
    /// The file, as its process sees it.
    pub path: Vec<u8>,
    /// Of a rename and of a link: the new path.
    pub renamed_to: Option<Vec<u8>>,
    /// Of a symbolic link that is made: where it leads, at most 255 bytes; of an attribute: its name.
    pub text: Option<Vec<u8>>,
    /// Its inode; 0: it has none yet.
    pub inode: u64,
    /// Its device: major << 20 | minor.
    pub device: u32,
    /// Flags of the open, the new permissions, the kind of what is made (stat(2)), or its user.
    pub mode: u32,
    /// Its new group.
    pub group: u32,
    /// How often, since the last record of the same file, process and mode.
    pub count: u64,
    /// A path lacks components after its first.
    pub cut: bool,
    /// It was refused: the file is the agent's own.
    pub refused: bool,
    /// The file isn't below the process's root.
    pub unreachable: bool,
    /// What should have been done to it, and why that may not be.
    pub denied: Option<(Tried, Denial)>,
}

/// What may not be done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// To open it; `mode` are the flags.
    Open,
    /// To give it another name, or its name to another.
    Rename,
    /// To give it a second name.
    Link,
    /// To take its name away.
    Delete,
    /// To change its permissions, to `mode`.
    Mode,
    /// To change whose it is.
    Owner,
    /// To change its length.
    Truncate,
    /// To make it.
    Create,
    /// To connect to the socket that it is.
    Connect,
}

fn decode_tried(number: u32) -> Option<Tried> {
    Some(match number {
        tried::OPEN => Tried::Open,
        tried::RENAME => Tried::Rename,
        tried::LINK => Tried::Link,
        tried::DELETE => Tried::Delete,
        tried::MODE => Tried::Mode,
        tried::OWNER => Tried::Owner,
        tried::TRUNCATE => Tried::Truncate,
        tried::CREATE => Tried::Create,
        tried::CONNECT => Tried::Connect,
        _ => return None,
    })
}

/// Ids of users or of groups (credentials(7)) before and after: real, effective, saved, and the one by which files are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdsChanged {
    /// Whose.
    pub who: Subject,
    /// Before.
    pub old: [u32; 4],
    /// After.
    pub new: [u32; 4],
}

/// A kernel module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleLoaded {
    /// Who loaded it.
    pub who: Subject,
    /// Its name.
    pub name: Vec<u8>,
}

/// A use of bpf(2) that loads or attaches a program, or would lead to objects of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpfUsed {
    /// Who used it.
    pub who: Subject,
    /// `enum bpf_cmd`.
    pub command: u32,
    /// It was refused.
    pub refused: bool,
}

/// An attach by ptrace, process_vm_writev or /proc/PID/mem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// Who attached.
    pub who: Subject,
    /// To which process.
    pub target: u32,
    /// Its name.
    pub target_comm: Vec<u8>,
    /// Its session; `None`: it is of none.
    pub target_session: Option<[u8; 16]>,
    /// It was refused: the target isn't of the same session.
    pub refused: bool,
    /// It has stopped the target.
    pub stopped: bool,
}

/// A socket that gets or sends packets which no hook sees: raw ones, packets on the wire, other families.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketMade {
    /// Who made it.
    pub who: Subject,
    /// Address family (socket(2)).
    pub family: u32,
    /// Type.
    pub kind: u32,
    /// Protocol.
    pub protocol: u32,
}

/// The kernel itself was reached, past its own rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelReached {
    /// Who reached it.
    pub who: Subject,
    /// By what: `/dev/mem`, `kexec` …
    pub by: &'static str,
}

/// The machine's clock was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockSet {
    /// Who set it.
    pub who: Subject,
    /// By what: `settimeofday` (or a call like it), or `adjtimex`.
    pub by: &'static str,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Who mounted.
    pub who: Subject,
    /// What, as it was given; of a moved mount, the name that it got.
    pub source: Vec<u8>,
    /// Type of the file system; empty: a bind mount, a remount or a moved mount.
    pub kind: Vec<u8>,
    /// Flags of mount(2).
    pub flags: u64,
    /// It was refused: it would hide the agent's files or pins, or take them away.
    pub refused: bool,
}

/// A connection to a stream socket of this host: whoever listens may do something for the session, outside of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixConnected {
    /// Who connected.
    pub who: Subject,
    /// The listener's name, as it bound it: a path, or after a NUL a name of no file.
    pub name: Vec<u8>,
}

pub(super) fn decode_file(bytes: &[u8]) -> Option<FileEvent> {
    let flags = read_u32(bytes, file_event::FLAGS)?;
    let has = |flag: u32| flags & flag != 0;
    let rest = bytes.get(file_event::SIZE..)?;
    let (path, rest) =
        rest.split_at_checked(usize::try_from(read_u32(bytes, file_event::PATH_LEN)?).ok()?)?;
    let denial = decode_denial(read_u32(bytes, file_event::RULE)?, false);
    let second = rest.get(..usize::try_from(read_u32(bytes, file_event::SECOND_LEN)?).ok()?)?;
    let is_text = matches!(read_u16(bytes, subject::KIND)?, kind::FILE_CREATED | kind::FILE_ATTRIBUTE);
    let there = !second.is_empty();
    Some(FileEvent {
        who: decode_subject(bytes)?,
        path: join(path, false),
        renamed_to: (there && !is_text).then(|| join(second, false)),
        text: (there && is_text).then(|| until_nul(second).to_vec()),
        inode: read_u64(bytes, file_event::INODE)?,
        device: read_u32(bytes, file_event::DEVICE)?,
        mode: read_u32(bytes, file_event::MODE)?,
        group: read_u32(bytes, file_event::GROUP)?,
        count: read_u64(bytes, file_event::COUNT)?,
        cut: has(file::CUT),
        refused: has(file::REFUSED),
        unreachable: has(file::UNREACHABLE),
        denied: decode_tried(read_u32(bytes, file_event::TRIED)?).map(|tried| (tried, denial)),
    })
}

pub(super) fn decode_ids(bytes: &[u8]) -> Option<IdsChanged> {
    let four = |from: usize| {
        Some([
            number(bytes, from)?,
            number(bytes, from + 1)?,
            number(bytes, from + 2)?,
            number(bytes, from + 3)?,
        ])
    };
    Some(IdsChanged { who: decode_subject(bytes)?, old: four(0)?, new: four(4)? })
}

pub(super) fn decode_module(bytes: &[u8]) -> Option<ModuleLoaded> {
    Some(ModuleLoaded { who: decode_subject(bytes)?, name: first(bytes)? })
}

pub(super) fn decode_bpf(bytes: &[u8]) -> Option<BpfUsed> {
    Some(BpfUsed { who: decode_subject(bytes)?, command: number(bytes, 0)?, refused: number(bytes, 1)? != 0 })
}

pub(super) fn decode_traced(bytes: &[u8]) -> Option<Traced> {
    let session = read_16(bytes, act::SESSION)?;
    Some(Traced {
        who: decode_subject(bytes)?,
        target: number(bytes, 0)?,
        target_comm: first(bytes)?,
        target_session: (session != [0; 16]).then_some(session),
        refused: number(bytes, 1)? != 0,
        stopped: number(bytes, 2)? != 0,
    })
}

pub(super) fn decode_socket(bytes: &[u8]) -> Option<SocketMade> {
    Some(SocketMade {
        who: decode_subject(bytes)?,
        family: number(bytes, 0)?,
        kind: number(bytes, 1)?,
        protocol: number(bytes, 2)?,
    })
}

pub(super) fn decode_kernel(bytes: &[u8]) -> Option<KernelReached> {
    Some(KernelReached { who: decode_subject(bytes)?, by: name(&reach::NAMES, bytes)? })
}

pub(super) fn decode_clock(bytes: &[u8]) -> Option<ClockSet> {
    Some(ClockSet { who: decode_subject(bytes)?, by: name(&reach::CLOCK, bytes)? })
}

/// Of the first number.
fn name(of: &[(u32, &'static str)], bytes: &[u8]) -> Option<&'static str> {
    let wanted = number(bytes, 0)?;
    of.iter().find(|(number, _)| *number == wanted).map(|(_, name)| *name)
}

pub(super) fn decode_unix(bytes: &[u8]) -> Option<UnixConnected> {
    let name = bytes.get(act::SECOND..act::SIZE)?;
    let length = usize::try_from(number(bytes, 0)?).ok()?;
    let name = name.get(..length).unwrap_or_default();
    // Paths may be ended by NULs, names of no file hold what they hold.
    let name = if name.first() == Some(&0) { name } else { until_nul(name) };
    Some(UnixConnected { who: decode_subject(bytes)?, name: name.to_vec() })
}

pub(super) fn decode_mount(bytes: &[u8]) -> Option<Mounted> {
    Some(Mounted {
        who: decode_subject(bytes)?,
        source: until_nul(bytes.get(act::SECOND..act::SIZE)?).to_vec(),
        kind: first(bytes)?,
        flags: u64::from(number(bytes, 0)?) | u64::from(number(bytes, 1)?) << 32,
        refused: number(bytes, 2)? != 0,
    })
}

fn number(bytes: &[u8], index: usize) -> Option<u32> {
    read_u32(bytes, act::NUMBER + index * 4)
}

fn first(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(until_nul(bytes.get(act::FIRST..act::SECOND)?).to_vec())
}
