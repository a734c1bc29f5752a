//! Files that pass on a channel: what is asked for, before the target hears of it, and what became of it.
//!
//! [`sftp`] understands the sftp subsystem: each request that opens or changes something waits for its decision and its
//! event, and one that is denied is answered in the target's place. [`scp`] understands what `scp -t` and `scp -f` say to
//! each other on the channel of a command, which was decided as such; it only listens. Neither does I/O, and both keep
//! what they hold bounded.

mod content;
mod path;
pub mod run;
mod scp;
mod sftp;
mod sftp_packet;

use custody_core::event::command::Kind;
use custody_core::event::{ByteString, EventId, file};
use path::Path;
use std::ops::Range;

/// What is understood of one channel.
pub enum Files {
    /// The sftp subsystem.
    Sftp(Box<sftp::Sftp>),
    /// A command that is `scp -t` or `scp -f`.
    Scp(Box<scp::Scp>),
}

/// What a message of the client's says.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// It may pass as it is.
    Passes,
    /// These bytes may pass in its place: the end of it waits for what follows, or what waited goes before it.
    Instead(Vec<u8>),
    /// It must wait for decisions about these, in this order.
    Wants(Vec<Wanted>),
    /// It doesn't pass, nor does anything behind it: the channel must end with this line.
    Ends(String),
}

/// Something that needs leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What its event says.
    pub says: Says,
    /// What must be allowed: reading or writing, each of a path.
    rights: Vec<(Right, Path)>,
}

/// What the event of a wanted thing says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// `file.requested`
    Requested(Box<file::Requested>),
    /// `file.unparsed`
    Unparsed(file::Unparsed),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    Read,
    Write,
}

/// Why a wanted thing isn't done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Policy or a lock says no.
    Policy(String),
    /// The log can't take the evidence.
    NoEvidence,
}

/// What may pass after the decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    /// These bytes; `given_back` of the sender's are dropped.
    Pass {
        /// What the target gets.
        data: Vec<u8>,
        /// Bytes that it doesn't get.
        given_back: u32,
        /// One line for each thing that was denied.
        lines: Vec<String>,
    },
    /// Nothing more: the channel must end with this line.
    End(String),
}

/// What became of something, for its event.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The `file.requested` that it belongs to, or the command's event.
    pub cause: Option<EventId>,
    /// What happened.
    pub outcome: Outcome,
}

/// The events that come afterwards.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// `file.completed`
    Completed(file::Completed),
    /// `file.failed`
    Failed(file::Failed),
    /// `file.unparsed`
    Unparsed(file::Unparsed),
}

impl Files {
    /// For the channel numbered `channel` whose program is this; `None` where it carries no files that are understood.
    pub fn of_program(channel: u32, kind: Kind, command: &[u8], forced: bool) -> Option<Self> {
        if is_sftp(kind, command, forced) {
            return Some(Self::Sftp(Box::new(sftp::Sftp::new(channel))));
        }
        match kind {
            Kind::Exec => scp::Scp::of_command(channel, command).map(|scp| Self::Scp(Box::new(scp))),
            Kind::Subsystem | Kind::Shell => None,
        }
    }

    /// Whether nothing but files passes.
    pub fn is_sftp(&self) -> bool {
        matches!(self, Self::Sftp(_))
    }

    /// Sees data of the client's, before they pass.
    pub fn client(&mut self, data: &[u8]) -> Seen {
        match self {
            Self::Sftp(sftp) => sftp.client(data),
            Self::Scp(scp) => {
                scp.client(data);
                Seen::Passes
            }
        }
    }

    /// Sees data of the target's, before they pass; what passes in their place, where answers of the proxy's go among
    /// them, and how many bytes of it those are.
    pub fn target(&mut self, data: &[u8]) -> Option<(Vec<u8>, u32)> {
        match self {
            Self::Sftp(sftp) => sftp.target(data),
            Self::Scp(scp) => {
                scp.target(data);
                None
            }
        }
    }

    /// What was decided about the things that the last message of the client's wanted, in their order.
    pub fn decided(&mut self, verdicts: Vec<Result<EventId, Denied>>) -> Decided {
        match self {
            Self::Sftp(sftp) => sftp.decided(verdicts),
            Self::Scp(_) => Decided::Pass { data: Vec::new(), given_back: 0, lines: Vec::new() },
        }
    }

    /// Answers of the proxy's that may go to the client now.
    pub fn answers(&self) -> Option<&[u8]> {
        match self {
            Self::Sftp(sftp) => sftp.answers(),
            Self::Scp(_) => None,
        }
    }

    /// Whether there are answers that haven't gone.
    pub fn has_answers(&self) -> bool {
        match self {
            Self::Sftp(sftp) => sftp.has_answers(),
            Self::Scp(_) => false,
        }
    }

    /// They went.
    pub fn answered(&mut self) {
        if let Self::Sftp(sftp) = self {
            sftp.answered();
        }
    }

    /// What became of things since the last call.
    pub fn take_told(&mut self) -> Vec<Told> {
        match self {
            Self::Sftp(sftp) => sftp.take_told(),
            Self::Scp(scp) => scp.take_told(),
        }
    }

    /// The channel is gone: what is unfinished will have no other end.
    pub fn end(self) -> Vec<Told> {
        match self {
            Self::Sftp(sftp) => sftp.end(),
            Self::Scp(scp) => scp.end(),
        }
    }
}

/// Whether a program speaks SFTP and nothing else: the subsystem, or the server's own (sshd_config's `internal-sftp`) where
/// a certificate forces that as a command.
pub fn is_sftp(kind: Kind, command: &[u8], forced: bool) -> bool {
    match kind {
        Kind::Subsystem => command == b"sftp",
        Kind::Exec => forced && command.split(u8::is_ascii_whitespace).next() == Some(b"internal-sftp"),
        Kind::Shell => false,
    }
}

/// A path for an event, and its full length if that is more.
fn cut(path: &[u8]) -> (ByteString, Option<u64>) {
    let whole = path.len() <= file::PATH_BYTES_MAX;
    (ByteString::cut(path, file::PATH_BYTES_MAX), (!whole).then_some(path.len() as u64))
}

fn octal(mode: u32) -> String {
    format!("{:04o}", mode & 0o7777)
}

/// The bytes without those of `ranges`, which are in order and don't overlap; and how many went.
fn without(bytes: Vec<u8>, ranges: &[Range<usize>]) -> (Vec<u8>, u32) {
    if ranges.is_empty() {
        return (bytes, 0);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    for range in ranges {
        out.extend_from_slice(bytes.get(at..range.start).unwrap_or_default());
        at = range.end;
    }
    out.extend_from_slice(bytes.get(at..).unwrap_or_default());
    let gone = u32::try_from(bytes.len() - out.len()).unwrap_or(u32::MAX);
    (out, gone)
}
