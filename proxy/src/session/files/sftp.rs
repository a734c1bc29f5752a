//! The sftp subsystem: a client's requests and a target's answers, matched by their ids.
//!
//! A packet of the client's that opens or changes something goes to the target whole or not at all, so the beginning of
//! one is kept back until its end is there. The data of a WRITE pass as they come, and so does all that the target says.
//!
//! A packet of a type or with an extension that isn't known can be let through alone. A stream of which nobody knows where
//! its packets begin, or which answer gives which handle, can't: each path in it would go by undecided. So it ends there.

mod answers;
mod awaited;
mod requests;
mod wanting;

#[cfg(test)]
mod tests;

use super::path::Path;
use super::sftp_packet::{
    self as packet, Head, REQUEST_BYTES_MAX, Request, WRITE_BYTES_MAX, kind, request, write_head,
};
use super::{Decided, Denied, Outcome, Right, Says, Seen, Told, Wanted, without};
use answers::Answers;
use awaited::Awaited;
use custody_core::event::file::{self, Protocol};
use custody_core::event::{ByteString, EventId};
use requests::{Failure, Requests, Touched};
use std::collections::HashMap;
use std::ops::Range;

/// Answers of our own that wait for the target to end a packet, in bytes; a client that has more to come is let go.
const ANSWERS_BYTES_MAX: usize = 256 * 1024;

/// One channel.
pub struct Sftp {
    channel: u32,
    /// Why packets are no longer followed, on either side.
    lost: Option<String>,
    /// Whether a packet that isn't known was allowed: that is told once.
    unparsed_allowed: bool,
    /// The beginning of a packet of the client's.
    withheld: Vec<u8>,
    /// The data of a WRITE that are still to come.
    write: Option<Write>,
    held: Option<Held>,
    target: Answers,
    /// Answers of our own.
    ours: Vec<u8>,
    requests: Requests,
    told: Vec<Told>,
}

struct Write {
    opened: Option<u64>,
    offset: u64,
    left: usize,
    /// Bytes of the packet behind the data.
    behind: usize,
}

/// Data of a WRITE, where they lie in a message.
struct Written {
    opened: u64,
    offset: u64,
    range: Range<usize>,
}

/// A message of the client's that waits for decisions.
struct Held {
    data: Vec<u8>,
    asked: Vec<Asked>,
    written: Vec<Written>,
}

/// A request in a message.
enum Asked {
    /// One that needs no leave, by its id.
    Passes(u32, Awaited),
    /// One that needs leave, and where it lies.
    Wants(Range<usize>, Then),
}

impl Asked {
    /// Its id, and whether others may have that before it is answered.
    fn id(&self) -> Option<(u32, bool)> {
        match self {
            Self::Passes(id, awaited) => Some((*id, awaited.shares_its_id())),
            Self::Wants(_, Then::Open(id, _)) => Some((*id, false)),
            Self::Wants(_, Then::Change(id, _) | Then::Unparsed(Some(id))) => Some((*id, true)),
            Self::Wants(_, Then::Unparsed(None)) => None,
        }
    }
}

enum Then {
    /// An answer with a handle is awaited.
    Open(u32, Box<file::Requested>),
    /// A status is awaited.
    Change(u32, Box<file::Requested>),
    /// A packet that isn't known, with its id if it has one.
    Unparsed(Option<u32>),
}

/// What comes next of the client's.
enum Next {
    /// So many bytes, which pass.
    Passes(usize),
    /// The same, of which the first are data of an opened file.
    Writes { count: usize, opened: u64, offset: u64, bytes: usize },
    /// So many bytes, which pass, and an answer with this id is awaited then.
    Asks(usize, u32, Awaited),
    /// A packet of so many bytes, which wants leave.
    Wants(usize, Box<(Wanted, Then)>),
    /// The beginning of a packet.
    Short,
    /// Nothing that is understood.
    Lost(String),
}

impl Sftp {
    pub(super) fn new(channel: u32) -> Self {
        Self {
            channel,
            lost: None,
            unparsed_allowed: false,
            withheld: Vec::new(),
            write: None,
            held: None,
            target: Answers::default(),
            ours: Vec::new(),
            requests: Requests::new(channel),
            told: Vec::new(),
        }
    }

    pub(super) fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// Sees data of the client's. After [`Seen::Wants`] none may come before [`Sftp::decided`].
    pub(super) fn client(&mut self, data: &[u8]) -> Seen {
        if let Some(line) = self.ending() {
            return Seen::Ends(line);
        }
        let carried = std::mem::take(&mut self.withheld);
        let joined;
        let bytes = if carried.is_empty() {
            data
        } else {
            joined = [carried.as_slice(), data].concat();
            joined.as_slice()
        };
        let mut at = 0;
        let (mut wanted, mut asked, mut written) = (Vec::new(), Vec::new(), Vec::new());
        // The ids of this message's requests, and whether others may have them.
        let mut ids = HashMap::new();
        // Whether one of them opens something.
        let mut opens = false;
        if !self.requests.awaited.opens() {
            self.requests.forget_guesses();
        }
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let (count, request) = match self.next(rest, opens) {
                Next::Passes(count) => (count, None),
                Next::Writes { count, opened, offset, bytes } => {
                    written.push(Written { opened, offset, range: at..at + bytes });
                    (count, None)
                }
                Next::Asks(count, id, awaited) => (count, Some(Asked::Passes(id, awaited))),
                Next::Wants(count, want) => {
                    let (what, then) = *want;
                    wanted.push(what);
                    (count, Some(Asked::Wants(at..at + count, then)))
                }
                Next::Short => break,
                // What stands before it in this message doesn't pass either: there is one answer to a message.
                Next::Lost(reason) => return Seen::Ends(self.lose(reason)),
            };
            if let Some(request) = request {
                if let Some((id, shares)) = request.id()
                    && !self.may_have(id, shares, ids.insert(id, shares))
                {
                    let reason = format!("the request id {id} is used again before its answer");
                    return Seen::Ends(self.lose(reason));
                }
                opens |= matches!(request, Asked::Wants(_, Then::Open(..)));
                asked.push(request);
            }
            at += count;
        }
        self.withheld = bytes.get(at..).unwrap_or_default().to_vec();
        let passing = bytes.get(..at).unwrap_or_default();
        if !wanted.is_empty() {
            self.held = Some(Held { data: passing.to_vec(), asked, written });
            return Seen::Wants(wanted);
        }
        for request in asked {
            if let Asked::Passes(id, awaited) = request {
                self.await_answer(id, awaited);
            }
        }
        self.count(passing, written);
        if carried.is_empty() && self.withheld.is_empty() {
            return Seen::Passes;
        }
        Seen::Instead(passing.to_vec())
    }

    /// Sees data of the target's; see [`super::Files::target`].
    pub(super) fn target(&mut self, data: &[u8]) -> Option<(Vec<u8>, u32)> {
        if self.lost.is_some() {
            return None;
        }
        let seen = self.target.see(data, &mut self.requests, &mut self.told);
        let gap = match seen {
            Ok(gap) => gap,
            Err(reason) => {
                // The client's next word ends it: what it has asked for so far was decided.
                let _line = self.lose(reason);
                return None;
            }
        };
        let gap = gap.filter(|_| !self.ours.is_empty())?;
        let (before, after) = data.split_at_checked(gap)?;
        let ours = std::mem::take(&mut self.ours);
        let added = u32::try_from(ours.len()).unwrap_or(u32::MAX);
        Some(([before, ours.as_slice(), after].concat(), added))
    }

    pub(super) fn answers(&self) -> Option<&[u8]> {
        (!self.ours.is_empty() && self.target.is_between_packets()).then_some(&self.ours)
    }

    pub(super) fn has_answers(&self) -> bool {
        !self.ours.is_empty()
    }

    pub(super) fn answered(&mut self) {
        self.ours = Vec::new();
    }

    pub(super) fn decided(&mut self, verdicts: Vec<Result<EventId, Denied>>) -> Decided {
        let Some(Held { data, asked, written }) = self.held.take() else {
            return Decided::Pass { data: Vec::new(), given_back: 0, lines: Vec::new() };
        };
        if let Some(line) = self.ending() {
            self.never_passed(asked, verdicts);
            return Decided::End(line);
        }
        let mut verdicts = verdicts.into_iter();
        let (mut dropped, mut lines) = (Vec::new(), Vec::new());
        // In the order in which the target will hear of them.
        for request in asked {
            let (range, then) = match request {
                Asked::Passes(id, awaited) => {
                    self.await_answer(id, awaited);
                    continue;
                }
                Asked::Wants(range, then) => (range, then),
            };
            // A verdict that is missing allows nothing.
            let denied = match (verdicts.next().unwrap_or(Err(Denied::NoEvidence)), then) {
                (Ok(requested), Then::Open(id, about)) => {
                    self.await_answer(id, Awaited::Open(Touched { requested, about }));
                    continue;
                }
                (Ok(requested), Then::Change(id, about)) => {
                    self.await_answer(id, Awaited::Change(Touched { requested, about }));
                    continue;
                }
                (Ok(_), Then::Unparsed(id)) => {
                    self.unparsed_allowed = true;
                    if let Some(id) = id {
                        self.await_answer(id, Awaited::Look);
                    }
                    continue;
                }
                (Err(denied), then) => (denied, then),
            };
            dropped.push(range);
            let (code, line) = match denied.0 {
                Denied::Policy(reason) => (packet::status::PERMISSION_DENIED, format!("denied: {reason}")),
                Denied::NoEvidence => {
                    let line =
                        "the audit log takes no evidence, so nothing was done: tell your administrator";
                    (packet::status::FAILURE, line.to_owned())
                }
            };
            match denied.1 {
                Then::Open(id, _) | Then::Change(id, _) | Then::Unparsed(Some(id)) => {
                    self.ours.extend(packet::refusal(id, code, &format!("custody: {line}")));
                    lines.push(line);
                }
                Then::Unparsed(None) => lines.push(line),
            }
        }
        if self.ours.len() > ANSWERS_BYTES_MAX {
            return Decided::End("too much was denied at once".to_owned());
        }
        self.count(&data, written);
        let (data, given_back) = without(data, &dropped);
        Decided::Pass { data, given_back, lines }
    }

    pub(super) fn end(mut self) -> Vec<Told> {
        self.requests.end("the channel ended before the target had answered", &mut self.told);
        self.told
    }

    /// From here on nothing is understood. Gives the line with which the channel ends.
    fn lose(&mut self, reason: String) -> String {
        self.write = None;
        self.requests.end(&format!("what passes isn't understood any more: {reason}"), &mut self.told);
        // In a stream whose packets aren't known nothing can be put between them.
        self.ours = Vec::new();
        let line = ending(&reason);
        let unparsed =
            file::Unparsed { channel: self.channel, protocol: Protocol::Sftp, reason: reason.clone() };
        self.told.push(Told { cause: None, outcome: Outcome::Unparsed(unparsed) });
        self.lost = Some(reason);
        line
    }

    /// The line with which the channel ends, if its packets are no longer followed.
    fn ending(&self) -> Option<String> {
        self.lost.as_deref().map(ending)
    }

    /// The end of what was allowed and doesn't pass, as the target's side was lost meanwhile.
    fn never_passed(&mut self, asked: Vec<Asked>, verdicts: Vec<Result<EventId, Denied>>) {
        let wants = asked.into_iter().filter_map(|request| match request {
            Asked::Passes(..) => None,
            Asked::Wants(_, then) => Some(then),
        });
        for (then, verdict) in wants.zip(verdicts) {
            if let (Then::Open(_, about) | Then::Change(_, about), Ok(requested)) = (then, verdict) {
                let reason = "the channel ended before it could pass";
                let failure = Failure { status: None, reason: reason.into() };
                self.told.push(Touched { requested, about }.failed(self.channel, failure, None, None));
            }
        }
    }

    fn await_answer(&mut self, id: u32, awaited: Awaited) {
        let Err(awaited) = self.requests.expect(id, awaited) else { return };
        self.requests.overflow();
        if matches!(awaited, Awaited::Open(_)) {
            // Its handle may be taken for that of another request with its id.
            self.requests.go_blind();
        }
        if let Awaited::Open(touched) | Awaited::Change(touched) = awaited {
            let reason = "more requests wait for an answer than are followed";
            let failure = Failure { status: None, reason: reason.into() };
            self.told.push(touched.failed(self.channel, failure, None, None));
        }
    }

    /// The data of WRITEs in a message, which passes.
    fn count(&mut self, message: &[u8], written: Vec<Written>) {
        for Written { opened, offset, range } in written {
            self.requests.written(opened, offset, message.get(range).unwrap_or_default());
        }
    }

    /// Whether a request may have this id: whichever waits for its answer or stands before it in the same message and has it too has to
    /// share it, as this one does. Where there are several, all share it.
    fn may_have(&self, id: u32, shares: bool, before: Option<bool>) -> bool {
        let awaited = self.requests.awaited.oldest(id).map(Awaited::shares_its_id);
        awaited.into_iter().chain(before).all(|other| shares && other)
    }

    /// Whether something is being opened whose handle `handle` may be: it isn't known, and nobody says which file a request by it
    /// will be about. `opens`: whether a request before it in the same message opens something.
    fn may_be_given(&self, handle: &[u8], opens: bool) -> bool {
        (opens || self.requests.awaited.opens()) && !self.requests.handles.contains_key(handle)
    }

    /// The same where all handles that the target has given are followed, so that it is none of those.
    fn is_guessed(&self, handle: &[u8], opens: bool) -> bool {
        !self.requests.unfollowed && self.may_be_given(handle, opens)
    }

    /// What comes next. `opens`: whether what stands before it in the same message opens something.
    fn next(&mut self, rest: &[u8], opens: bool) -> Next {
        if let Some(write) = &mut self.write {
            let (opened, offset) = (write.opened, write.offset);
            let bytes = write.left.min(rest.len());
            write.offset = offset.saturating_add(bytes as u64);
            write.left -= bytes;
            let behind = write.behind.min(rest.len() - bytes);
            write.behind -= behind;
            let count = bytes + behind;
            if write.left == 0 && write.behind == 0 {
                self.write = None;
            }
            return match opened {
                Some(opened) => Next::Writes { count, opened, offset, bytes },
                None => Next::Passes(count),
            };
        }
        let Some(([a, b, c, d, kind], _)) = rest.split_first_chunk::<5>() else { return Next::Short };
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let longest = if *kind == kind::WRITE { WRITE_BYTES_MAX } else { REQUEST_BYTES_MAX };
        if length == 0 || length > longest {
            return Next::Lost(format!("a packet of type {kind} and {length} bytes isn't expected"));
        }
        if *kind == kind::WRITE {
            return self.next_write(rest, opens);
        }
        let Some(packet) = rest.get(4..4 + length) else { return Next::Short };
        match request(packet) {
            Some(request) => self.next_request(4 + length, request, opens),
            None => Next::Lost(format!("a packet of type {kind} isn't what it says")),
        }
    }

    fn next_write(&mut self, rest: &[u8], opens: bool) -> Next {
        match write_head(rest) {
            Head::Short => Next::Short,
            Head::Wrong => Next::Lost("a packet of type 6 isn't what it says".to_owned()),
            Head::Whole(head) => {
                if self.is_guessed(head.handle, opens) && !self.requests.taint(head.handle) {
                    return Next::Lost(guessed(head.id));
                }
                let opened = self.requests.handles.get(head.handle).copied();
                let awaited = opened.map_or(Awaited::Look, Awaited::Write);
                let (left, behind) = (head.data_bytes as usize, head.behind_bytes as usize);
                if left > 0 || behind > 0 {
                    self.write = Some(Write { opened, offset: head.offset, left, behind });
                }
                Next::Asks(head.head_bytes, head.id, awaited)
            }
        }
    }

    fn next_request(&mut self, count: usize, request: Request<'_>, opens: bool) -> Next {
        let id = match request {
            Request::Init => return Next::Passes(count),
            Request::UnknownType(kind) => {
                let reason = format!("a packet of type {kind} isn't known");
                return self.unknown(count, None, reason).unwrap_or(Next::Passes(count));
            }
            Request::Open { id, .. }
            | Request::Close { id, .. }
            | Request::Read { id, .. }
            | Request::SetAttributes { id, .. }
            | Request::SetAttributesOf { id, .. }
            | Request::OpenDir { id, .. }
            | Request::ReadDir { id, .. }
            | Request::Remove { id, .. }
            | Request::MakeDir { id, .. }
            | Request::RemoveDir { id, .. }
            | Request::RealPath { id, .. }
            | Request::Rename { id, .. }
            | Request::Symlink { id, .. }
            | Request::Hardlink { id, .. }
            | Request::Copy { id, .. }
            | Request::Look { id }
            | Request::UnknownExtension { id, .. } => id,
        };
        let used: &[&[u8]] = match &request {
            Request::Close { handle, .. }
            | Request::ReadDir { handle, .. }
            | Request::SetAttributesOf { handle, .. } => &[handle],
            Request::Copy { from, to, .. } => &[from, to],
            _ => &[],
        };
        for handle in used {
            if self.is_guessed(handle, opens) && !self.requests.taint(handle) {
                return Next::Lost(guessed(id));
            }
        }
        if let Request::Copy { from, to, .. } = request {
            self.requests.copied(from, to);
        }
        let awaited = match request {
            Request::Close { handle, .. } => {
                if self.requests.unfollowed && self.may_be_given(handle, opens || self.requests.overflowed) {
                    self.requests.go_blind();
                }
                self.requests.closing(handle).map_or(Awaited::Look, Awaited::Close)
            }
            Request::ReadDir { handle, .. } => {
                let opened = self.requests.handles.get(handle).copied();
                opened.map_or(Awaited::Look, Awaited::ReadDir)
            }
            Request::Read { handle, offset, .. } => match self.requests.handles.get(handle).copied() {
                Some(opened) => Awaited::Read { opened, offset },
                // No client knows a handle before it has it. But paramiko goes on reading ahead in a file that it has closed,
                // and OpenSSH gives the same handle to the next one: what it sends then is read of that.
                None if self.is_guessed(handle, opens) => match self.requests.guess(handle) {
                    Some(opened) => Awaited::Guess { opened, offset },
                    None => return Next::Lost(guessed(id)),
                },
                None => Awaited::Look,
            },
            Request::RealPath { path: b"." | b"", .. } => Awaited::Home,
            Request::RealPath { .. } | Request::Look { .. } => Awaited::Look,
            Request::UnknownExtension { name, .. } => {
                let name = ByteString::cut(name, 64);
                let reason = format!("the extension {name} isn't known");
                match self.unknown(count, Some(id), reason) {
                    Some(next) => return next,
                    None => Awaited::Look,
                }
            }
            wanting => return self.wanting(count, id, wanting),
        };
        Next::Asks(count, id, awaited)
    }

    /// A packet that isn't known, with its id if it has one; `None` once such a one was allowed.
    fn unknown(&self, count: usize, id: Option<u32>, reason: String) -> Option<Next> {
        let wants = || Next::Wants(count, Box::new((unparsed(self.channel, reason), Then::Unparsed(id))));
        (!self.unparsed_allowed).then(wants)
    }
}

/// Why requests by handles that may be given only then aren't followed any more.
fn guessed(id: u32) -> String {
    format!("the request {id} uses one of too many handles that the target hasn't given")
}

fn ending(reason: &str) -> String {
    format!(
        "this isn't understood as SFTP, so nothing in it can be decided ({reason}): use a client that speaks version 3"
    )
}

/// What isn't known may read and write anything.
fn unparsed(channel: u32, reason: String) -> Wanted {
    let says = Says::Unparsed(file::Unparsed { channel, protocol: Protocol::Sftp, reason });
    let anything = || Path { bytes: Vec::new(), relative: true };
    Wanted { says, rights: vec![(Right::Read, anything()), (Right::Write, anything())] }
}
