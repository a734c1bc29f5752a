//! What requests wait for, and what they have opened.

use super::super::content::{Content, EARLY_BYTES_MAX};
use super::super::{Outcome, Told};
use super::awaited::{Awaited, Unanswered};
use custody_core::event::file::{self, Operation, Protocol};
use custody_core::event::{ByteString, EventId};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Open files and directories of a channel that are followed; more are told when they are opened, and no further.
/// OpenSSH's server opens as many as it may have descriptors, 1,024 by default.
pub(super) const OPEN_MAX: usize = 4_096;
/// The handles of all that are followed, in bytes: [`OPEN_MAX`] of the draft's longest. Longer ones are few.
pub(super) const HANDLES_BYTES_MAX: usize = OPEN_MAX * 256;
/// Handles that are used before the target gives them, or once more behind their CLOSE: those of files that were closed while they were
/// read ahead, or twice.
const GUESSED_MAX: usize = 16;
/// Requests of a channel whose answers are waited for. paramiko asks for a whole file at once, 32 KiB at a time.
pub(super) const AWAITED_MAX: usize = 65_536;
/// How much of what the target said is told, in bytes.
const REASON_BYTES_MAX: usize = 512;

/// What is known of requests and what they opened.
pub(super) struct Requests {
    pub channel: u32,
    pub awaited: Unanswered,
    /// More were asked than are followed.
    pub overflowed: bool,
    /// The target has given handles that aren't followed, or may have: one that isn't known may be one of them.
    pub unfollowed: bool,
    /// Such a one may have been closed before it was given: none that comes is followed.
    blind: bool,
    /// What handles stand for, from when they are given until their CLOSE.
    pub handles: HashMap<Box<[u8]>, u64>,
    /// The numbers of files that get these handles, if any does.
    guessed: HashMap<Box<[u8]>, u64>,
    /// Handles by which something was written, listed, copied, changed or closed that may be another file's by then: whichever gets one
    /// isn't followed.
    tainted: HashSet<Box<[u8]>>,
    /// All that are followed, until the answers to their CLOSEs.
    pub opened: BTreeMap<u64, Opened>,
    opened_count: u64,
    handles_bytes: usize,
    /// What is left of [`EARLY_BYTES_MAX`].
    room: usize,
    /// Where the target's relative paths count from.
    pub home: Option<Vec<u8>>,
}

/// What an event told.
pub(super) struct Touched {
    pub requested: EventId,
    pub about: Box<file::Requested>,
}

/// What a handle stands for.
pub(super) struct Opened {
    pub touched: Touched,
    handle: Box<[u8]>,
    read: Content,
    written: Content,
    pub entries: u64,
    failure: Option<Failure>,
}

#[derive(Debug)]
pub(super) struct Failure {
    pub status: Option<u32>,
    pub reason: Vec<u8>,
}

impl Requests {
    pub fn new(channel: u32) -> Self {
        Self {
            channel,
            awaited: Unanswered::default(),
            overflowed: false,
            unfollowed: false,
            blind: false,
            handles: HashMap::new(),
            guessed: HashMap::new(),
            tainted: HashSet::new(),
            opened: BTreeMap::new(),
            opened_count: 0,
            handles_bytes: 0,
            room: EARLY_BYTES_MAX,
            home: None,
        }
    }

    /// A request has passed: waits for its answer; gives back what can't be followed.
    pub fn expect(&mut self, id: u32, awaited: Awaited) -> Result<(), Awaited> {
        if let Awaited::Read { opened, offset } = &awaited {
            self.asked(*opened, *offset);
        }
        if self.awaited.len() >= AWAITED_MAX {
            return Err(awaited);
        }
        self.awaited.push(id, awaited);
        Ok(())
    }

    /// Answers will come whose requests aren't known: what they move can't be told.
    pub fn overflow(&mut self) {
        if !std::mem::replace(&mut self.overflowed, true) {
            self.unfollowed = true;
            for opened in self.opened.values_mut() {
                opened.read.break_up(&mut self.room);
            }
        }
    }

    fn asked(&mut self, opened: u64, offset: u64) {
        if let Some(opened) = self.opened.get_mut(&opened) {
            opened.read.begins(offset);
        }
    }

    pub fn written(&mut self, opened: u64, offset: u64, data: &[u8]) {
        if let Some(opened) = self.opened.get_mut(&opened) {
            opened.written.moved(offset, data, &mut self.room);
        }
    }

    pub fn read(&mut self, opened: u64, offset: u64, data: &[u8]) {
        if let Some(opened) = self.opened.get_mut(&opened) {
            opened.read.moved(offset, data, &mut self.room);
        }
    }

    pub fn opened(&mut self, touched: Touched, handle: &[u8], told: &mut Vec<Told>) {
        if let Some(before) = self.handles.get(handle).copied() {
            let reason = "the target gave its handle away again";
            self.closed(before, Some(Failure { status: None, reason: reason.into() }), told);
        }
        let handles_bytes = self.handles_bytes + handle.len();
        let is_followed = !self.blind && !self.tainted.contains(handle);
        if !is_followed || self.opened.len() >= OPEN_MAX || handles_bytes > HANDLES_BYTES_MAX {
            self.unfollowed = true;
            told.push(touched.completed(self.channel, None, None, None));
            return;
        }
        self.handles_bytes = handles_bytes;
        let id = self.guessed.remove(handle).unwrap_or_else(|| self.number());
        let mut opened = Opened {
            touched,
            handle: handle.into(),
            read: Content::default(),
            written: Content::default(),
            entries: 0,
            failure: None,
        };
        if self.unfollowed {
            // What is moved by a handle that isn't known may be of this file.
            opened.read.break_up(&mut self.room);
            opened.written.break_up(&mut self.room);
        }
        self.handles.insert(handle.into(), id);
        self.opened.insert(id, opened);
    }

    fn number(&mut self) -> u64 {
        let number = self.opened_count;
        self.opened_count += 1;
        number
    }

    /// The number of the file that will get `handle`; `None` when these are too many.
    pub fn guess(&mut self, handle: &[u8]) -> Option<u64> {
        if let Some(number) = self.guessed.get(handle) {
            return Some(*number);
        }
        if self.guessed.len() >= GUESSED_MAX {
            return None;
        }
        let number = self.number();
        self.guessed.insert(handle.into(), number);
        Some(number)
    }

    /// A handle that may be given is used: no file is followed that gets it. False when these are too many.
    pub fn taint(&mut self, handle: &[u8]) -> bool {
        let fits = self.tainted.len() < GUESSED_MAX || self.tainted.contains(handle);
        if fits {
            self.tainted.insert(handle.into());
        }
        fits
    }

    /// No file is being opened: none will get a handle that was used.
    pub fn forget_guesses(&mut self) {
        self.guessed.clear();
        self.tainted.clear();
    }

    /// The target may move something from one file to another by itself: what passes here isn't all of it.
    pub fn copied(&mut self, from: &[u8], to: &[u8]) {
        let room = &mut self.room;
        let number = |handle: &[u8]| self.handles.get(handle).copied();
        let (from, to) = (number(from), number(to));
        if let Some(from) = from.and_then(|from| self.opened.get_mut(&from)) {
            from.read.break_up(room);
        }
        if let Some(to) = to.and_then(|to| self.opened.get_mut(&to)) {
            to.written.break_up(room);
        }
    }

    /// A CLOSE of what is followed. The target may give its handle to another file before it answers.
    pub fn closing(&mut self, handle: &[u8]) -> Option<u64> {
        self.handles.remove(handle)
    }

    /// A CLOSE by a handle that isn't known while a file is being opened, which may get it and have it no more.
    pub fn go_blind(&mut self) {
        self.blind = true;
    }

    pub fn failed(&mut self, opened: u64, failure: Failure) {
        if let Some(opened) = self.opened.get_mut(&opened) {
            opened.failure.get_or_insert(failure);
        }
    }

    /// A file is no longer open: what passed by its handle is told. One that the target refuses to close counts as closed, as
    /// OpenSSH has it.
    pub fn closed(&mut self, id: u64, failure: Option<Failure>, told: &mut Vec<Told>) {
        let Some(Opened { touched, handle, read, written, entries, failure: earlier }) =
            self.opened.remove(&id)
        else {
            return;
        };
        self.handles_bytes = self.handles_bytes.saturating_sub(handle.len());
        if self.handles.get(&handle) == Some(&id) {
            self.handles.remove(&handle);
        }
        let operation = touched.about.operation;
        let (reads, writes) = match operation {
            Operation::Read => (true, false),
            Operation::Write => (false, true),
            Operation::ReadWrite => (true, true),
            _ => (false, false),
        };
        let (read, written) = (read.end(&mut self.room), written.end(&mut self.room));
        // What is moved the way that wasn't asked for is refused by the target; it is told all the same.
        let read = (reads || read.bytes > 0).then_some(read);
        let written = (writes || written.bytes > 0).then_some(written);
        told.push(match earlier.or(failure) {
            Some(failure) => touched.failed(self.channel, failure, read, written),
            None => {
                let entries = (operation == Operation::List).then_some(entries);
                touched.completed(self.channel, entries, read, written)
            }
        });
    }

    /// No answer will come, or none that is understood.
    pub fn end(&mut self, reason: &str, told: &mut Vec<Told>) {
        let failure = || Failure { status: None, reason: reason.into() };
        for awaited in self.awaited.take_all() {
            if let Awaited::Open(touched) | Awaited::Change(touched) = awaited {
                told.push(touched.failed(self.channel, failure(), None, None));
            }
        }
        while let Some((&id, _)) = self.opened.first_key_value() {
            self.closed(id, Some(failure()), told);
        }
    }
}

impl Touched {
    pub fn completed(
        self,
        channel: u32,
        entries: Option<u64>,
        read: Option<file::Moved>,
        written: Option<file::Moved>,
    ) -> Told {
        let file::Requested { attributes, operation, path, relative, to, .. } = *self.about;
        let completed = file::Completed {
            channel,
            entries,
            mode: attributes.mode,
            name: None,
            operation,
            path,
            protocol: Protocol::Sftp,
            read,
            relative,
            to,
            written,
        };
        Told { cause: Some(self.requested), outcome: Outcome::Completed(completed) }
    }

    pub fn failed(
        self,
        channel: u32,
        failure: Failure,
        read: Option<file::Moved>,
        written: Option<file::Moved>,
    ) -> Told {
        let file::Requested { operation, path, relative, to, .. } = *self.about;
        let failed = file::Failed {
            channel,
            name: None,
            operation,
            path,
            protocol: Protocol::Sftp,
            read,
            reason: ByteString::cut(&failure.reason, REASON_BYTES_MAX),
            relative,
            status: failure.status,
            to,
            written,
        };
        Told { cause: Some(self.requested), outcome: Outcome::Failed(failed) }
    }
}
