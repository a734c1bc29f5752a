//! The sftp subsystem: a client's requests and a target's answers, matched by their ids.
//!
//! A packet of the client's that opens or changes something goes to the target whole or not at all, so the beginning of
//! one is kept back until its end is there. The data of a WRITE pass as they come, and so does all that the target says.
//!
//! A packet of a type or with an extension that isn't known can be let through alone. A stream of which nobody knows where
//! its packets begin, or which answer is to what, can't: each path in it would go by undecided. So it ends there.

mod answers;
mod requests;
mod wanting;

#[cfg(test)]
mod tests;

use super::path::Path;
use super::sftp_packet::{
    self as packet, Head, PACKET_BYTES_MAX, REQUEST_BYTES_MAX, Request, kind, request, write_head,
};
use super::{Decided, Denied, Outcome, Right, Says, Seen, Told, Wanted, without};
use answers::Answers;
use custody_core::event::file::{self, Protocol};
use custody_core::event::{ByteString, EventId};
use requests::{Awaited, Failure, Requests, Touched};
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

/// A message of the client's that waits for decisions.
struct Held {
    data: Vec<u8>,
    wants: Vec<Want>,
}

struct Want {
    range: Range<usize>,
    then: Then,
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
        let (mut wanted, mut wants) = (Vec::new(), Vec::new());
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.next(rest, &wants) {
                Next::Passes(count) => at += count,
                Next::Wants(count, want) => {
                    let (what, then) = *want;
                    wanted.push(what);
                    wants.push(Want { range: at..at + count, then });
                    at += count;
                }
                Next::Short => break,
                // What stands before it in this message doesn't pass either: there is one answer to a message.
                Next::Lost(reason) => return Seen::Ends(self.lose(reason)),
            }
        }
        self.withheld = bytes.get(at..).unwrap_or_default().to_vec();
        let passing = bytes.get(..at).unwrap_or_default();
        if !wants.is_empty() {
            self.held = Some(Held { data: passing.to_vec(), wants });
            return Seen::Wants(wanted);
        }
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
        let Some(Held { data, wants }) = self.held.take() else {
            return Decided::Pass { data: Vec::new(), given_back: 0, lines: Vec::new() };
        };
        if let Some(line) = self.ending() {
            self.never_passed(wants, verdicts);
            return Decided::End(line);
        }
        let mut verdicts = verdicts.into_iter();
        let (mut dropped, mut lines) = (Vec::new(), Vec::new());
        for Want { range, then } in wants {
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
    fn never_passed(&mut self, wants: Vec<Want>, verdicts: Vec<Result<EventId, Denied>>) {
        for (want, verdict) in wants.into_iter().zip(verdicts) {
            if let (Then::Open(_, about) | Then::Change(_, about), Ok(requested)) = (want.then, verdict) {
                let reason = "the channel ended before it could pass";
                let failure = Failure { status: None, reason: reason.into() };
                self.told.push(Touched { requested, about }.failed(self.channel, failure, None, None));
            }
        }
    }

    fn await_answer(&mut self, id: u32, awaited: Awaited) {
        let Err(awaited) = self.requests.expect(id, awaited) else { return };
        self.requests.overflow();
        if let Awaited::Open(touched) | Awaited::Change(touched) = awaited {
            let reason = "more requests wait for an answer than are followed";
            let failure = Failure { status: None, reason: reason.into() };
            self.told.push(touched.failed(self.channel, failure, None, None));
        }
    }

    fn next(&mut self, rest: &[u8], wants: &[Want]) -> Next {
        if let Some(write) = &mut self.write {
            let data = rest.get(..write.left.min(rest.len())).unwrap_or_default();
            self.requests.written(write.opened, write.offset, data);
            write.offset = write.offset.saturating_add(data.len() as u64);
            write.left -= data.len();
            let behind = write.behind.min(rest.len() - data.len());
            write.behind -= behind;
            let count = data.len() + behind;
            if write.left == 0 && write.behind == 0 {
                self.write = None;
            }
            return Next::Passes(count);
        }
        let Some(([a, b, c, d, kind], _)) = rest.split_first_chunk::<5>() else { return Next::Short };
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let longest = if *kind == kind::WRITE { PACKET_BYTES_MAX } else { REQUEST_BYTES_MAX };
        if length == 0 || length > longest {
            return Next::Lost(format!("a packet of type {kind} and {length} bytes isn't expected"));
        }
        if *kind == kind::WRITE {
            return self.next_write(rest, wants);
        }
        let Some(packet) = rest.get(4..4 + length) else { return Next::Short };
        match request(packet) {
            Some(request) => self.next_request(4 + length, request, wants),
            None => Next::Lost(format!("a packet of type {kind} isn't what it says")),
        }
    }

    fn next_write(&mut self, rest: &[u8], wants: &[Want]) -> Next {
        match write_head(rest) {
            Head::Short => Next::Short,
            Head::Wrong => Next::Lost("a packet of type 6 isn't what it says".to_owned()),
            Head::Whole(head) => {
                if self.is_used(head.id, wants) {
                    return used_twice(head.id);
                }
                let opened = self.requests.handles.get(head.handle).copied();
                let awaited = opened.map_or(Awaited::Look, Awaited::Write);
                if self.requests.expect(head.id, awaited).is_err() {
                    self.requests.overflow();
                }
                let (left, behind) = (head.data_bytes as usize, head.behind_bytes as usize);
                if left > 0 || behind > 0 {
                    self.write = Some(Write { opened, offset: head.offset, left, behind });
                }
                Next::Passes(head.head_bytes)
            }
        }
    }

    fn is_used(&self, id: u32, wants: &[Want]) -> bool {
        self.requests.awaited.contains_key(&id)
            || wants.iter().any(|want| match &want.then {
                Then::Open(other, _) | Then::Change(other, _) | Then::Unparsed(Some(other)) => *other == id,
                Then::Unparsed(None) => false,
            })
    }

    fn next_request(&mut self, count: usize, request: Request<'_>, wants: &[Want]) -> Next {
        let unknown = |this: &Self, id: Option<u32>, reason: String| {
            if this.unparsed_allowed {
                return None;
            }
            Some(Next::Wants(count, Box::new((unparsed(this.channel, reason), Then::Unparsed(id)))))
        };
        let id = match request {
            Request::Init => return Next::Passes(count),
            Request::UnknownType(kind) => {
                let reason = format!("a packet of type {kind} isn't known");
                return unknown(self, None, reason).unwrap_or(Next::Passes(count));
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
        if self.is_used(id, wants) {
            return used_twice(id);
        }
        let known = |handle: &[u8]| self.requests.handles.get(handle).copied();
        let awaited = match request {
            Request::Close { handle, .. } => known(handle).map_or(Awaited::Look, Awaited::Close),
            Request::ReadDir { handle, .. } => known(handle).map_or(Awaited::Look, Awaited::ReadDir),
            Request::Read { handle, offset, .. } => match known(handle) {
                Some(opened) => {
                    self.requests.asked(opened, offset);
                    Awaited::Read { opened, offset }
                }
                None => Awaited::Look,
            },
            Request::RealPath { path: b"." | b"", .. } => Awaited::Home,
            Request::RealPath { .. } | Request::Look { .. } => Awaited::Look,
            Request::UnknownExtension { name, .. } => {
                let name = ByteString::cut(name, 64);
                let reason = format!("the extension {name} isn't known");
                match unknown(self, Some(id), reason) {
                    Some(next) => return next,
                    None => Awaited::Look,
                }
            }
            wanting => return self.wanting(count, id, wanting),
        };
        if self.requests.expect(id, awaited).is_err() {
            self.requests.overflow();
        }
        Next::Passes(count)
    }
}

fn used_twice(id: u32) -> Next {
    Next::Lost(format!("the request id {id} is used again before its answer"))
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
