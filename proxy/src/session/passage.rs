//! Where every message of a session passes: it is looked at, recorded, and only then delivered.
//!
//! What the recorder hands back as [`Released`] is the one thing that lets a message pass ([`deliver`]); a program
//! that is asked for waits until a [`Permit`] for it is there.
//!
//! Commands, names and variables are judged and told as OpenSSH reads them, without a zero byte at their end, and pass as
//! they came: some libraries end a command with one. With a zero byte elsewhere they are refused.

mod program;

#[cfg(test)]
mod tests;

use super::files::run::{self as file_run, Leave as FileLeave};
use super::files::{self, Decided, Denied, Files, Seen as FileSeen};
use super::forward::{self, After, Forwards, Leave, Seen};
use super::run::{Ask, End, REFUSED_STATUS};
use crate::ssh::certificate::Extensions;
use crate::ssh::field::c_string;
use crate::ssh::host_proof::HostProver;
use crate::ssh::message::{Message, Request, STDERR};
use crate::ssh::relay::{ChannelId, Exit, Gate, Gating, Passage as Place, Refusal, Side, Verdict};
use custody_core::clock::{Clock, Nanos};
use custody_core::event::ByteString;
use custody_core::event::command::{self, COMMAND_BYTES_MAX, Kind};
use custody_core::event::connection::Offer;
use custody_core::event::hex::to_hex;
use custody_core::policy::permit::{Permit, Run};
use custody_core::recording::{self, Direction, Level, Recorder, RecorderError, Released, TerminalSize};
use program::{Program, Terminal, starts_mosh, variable};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Variables of a client that are kept for the event; more are counted as an attack on memory and refused.
const VARIABLES_MAX: usize = 64;
/// How much of what a client asked for in vain is told, in bytes.
const ASKED_BYTES_MAX: usize = 1024;
/// Lines on a channel's standard error about files that were denied; more would fill a window that nobody empties.
const DENIED_LINES_MAX: usize = 8;

/// What passes, and what is known of it.
pub struct Passage {
    host_prover: Option<HostProver>,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    /// When it began: by the time of day, and by the clock that nobody sets.
    began: (Nanos, Duration),
    may_have_terminal: bool,
    force_command: Option<String>,
    /// Boxed, since the map makes room for eleven at once.
    channels: BTreeMap<ChannelId, Box<Program>>,
    forwards: Forwards,
    asks: Vec<Ask>,
    ends: Vec<End>,
    notices: Vec<(ChannelId, String)>,
    file_asks: Vec<file_run::Ask>,
    /// Channels on which the proxy has answers of its own to give.
    answering: BTreeSet<ChannelId>,
    failure: Option<RecorderError>,
}

/// The only way for a message to pass at once: with what the recorder gave back for it.
fn deliver<B>(_: Released<B>) -> Gating {
    Gating::PASS
}

/// The same for data of which others pass in their place.
fn deliver_instead(released: Released<Vec<u8>>, given_back: u32, added: u32) -> Verdict {
    Verdict::Replace { data: released.into_inner(), given_back, added }
}

fn refuse(line: &str) -> Gating {
    Gating::Decided(Verdict::Refuse(Refusal::prohibited(line)))
}

/// The end of a channel on which files pass, with a line that may stand behind what the target said.
fn end_files(line: &str) -> Verdict {
    Verdict::End { line: format!("\r\ncustody: {line}\r\n"), exit: Exit::Status(REFUSED_STATUS) }
}

impl Passage {
    /// With the session's recorder, and what the certificate that proved the person permits.
    pub fn new(recorder: Recorder, clock: Arc<dyn Clock>, certificate: &Extensions) -> Self {
        // If the clock was set back since the session was announced, what comes would be held at that.
        let wall = clock.wall().max(Nanos(recorder.last_ns()));
        Self {
            host_prover: None,
            recorder,
            began: (wall, clock.monotonic()),
            clock,
            may_have_terminal: certificate.pty,
            force_command: None,
            channels: BTreeMap::new(),
            forwards: Forwards::new(certificate.clone()),
            asks: Vec::new(),
            ends: Vec::new(),
            notices: Vec::new(),
            file_asks: Vec::new(),
            answering: BTreeSet::new(),
            failure: None,
        }
    }

    /// The one command that the certificate lets run, whatever is asked for. The target's server sees to it, by the
    /// certificate of this session; here it is decided and told.
    pub fn force_command(&mut self, command: Option<String>) {
        self.force_command = command;
    }

    /// Lets the client ask for proof of our host keys.
    pub fn prove_hosts(&mut self, prover: HostProver) {
        self.host_prover = Some(prover);
    }

    /// Programs that were asked for since the last call.
    pub fn take_asks(&mut self) -> Vec<Ask> {
        std::mem::take(&mut self.asks)
    }

    /// Programs that ended since the last call.
    pub fn take_ends(&mut self) -> Vec<End> {
        std::mem::take(&mut self.ends)
    }

    /// Lines for people that were left over since the last call.
    pub fn take_notices(&mut self) -> Vec<(ChannelId, String)> {
        std::mem::take(&mut self.notices)
    }

    /// The session's connections.
    pub fn forwards(&mut self) -> &mut Forwards {
        &mut self.forwards
    }

    /// Puts a line on the standard error of a channel, or of the first program where it is about none.
    pub fn tell(&mut self, channel: Option<ChannelId>, line: &str) {
        if let Some(channel) = channel.or_else(|| self.channels.keys().next().copied()) {
            self.notices.push((channel, format!("custody: {line}\r\n")));
        }
    }

    /// What is wanted of files since the last call.
    pub fn take_file_asks(&mut self) -> Vec<file_run::Ask> {
        std::mem::take(&mut self.file_asks)
    }

    /// Channels on which answers of the proxy's wait to go to the client.
    pub fn answering(&self) -> Vec<ChannelId> {
        self.answering.iter().copied().collect()
    }

    /// Answers that may go now on a channel, if its target isn't in the middle of one.
    pub fn answers(&self, channel: ChannelId) -> Option<&[u8]> {
        self.channels.get(&channel)?.files.as_ref()?.answers()
    }

    /// They went.
    pub fn answered(&mut self, channel: ChannelId) {
        self.answering.remove(&channel);
        if let Some(files) = self.channels.get_mut(&channel).and_then(|program| program.files.as_mut()) {
            files.answered();
        }
    }

    /// Why nothing can pass any more.
    pub fn failure(&self) -> Option<&RecorderError> {
        self.failure.as_ref()
    }

    /// The time for what is recorded: it goes on from the beginning by the clock that nobody sets. After a step back of
    /// the other one, all that follows would be one moment, and after a step ahead nothing would come for as long.
    pub fn now(&self) -> u64 {
        let (wall, monotonic) = self.began;
        wall.saturating_add(self.clock.monotonic().saturating_sub(monotonic)).0
    }

    /// The recorder, for anchors.
    pub fn recorder(&mut self) -> &mut Recorder {
        &mut self.recorder
    }

    /// Gives the recorder back, to be sealed; what is still running has no end that anybody saw.
    pub fn finish(mut self) -> (Recorder, Vec<End>, Vec<After>) {
        for channel in self.channels.keys().copied().chain(self.forwards.channels()).collect::<Vec<_>>() {
            self.closed(channel);
        }
        let after = self.forwards.end();
        // Who seals it knows the time of day only.
        self.recorder.reach(self.now());
        (self.recorder, self.ends, after)
    }

    /// A connection or an offer may pass: that is recorded, and what it is about is known from now on. `None`: as in
    /// [`Passage::run`].
    pub fn connect(&mut self, ask: &forward::Ask, leave: Leave) -> Option<Verdict> {
        let number = ask.channel.map_or(recording::CHANNEL_SESSION, number);
        if ask.is_connection()
            && let Err(error) = self.recorder.told_elsewhere(number)
        {
            self.failure.get_or_insert(error);
            return None;
        }
        let note = recording::Kind::Note(ask.describe().into_bytes().into());
        let released = self.recorder.release_control(self.now(), number, Direction::Control, note, ());
        let released = self.kept(released)?;
        self.forwards.leave(ask, leave);
        if let Some(program) = ask.channel.and_then(|channel| self.channels.get_mut(&channel)) {
            program.held_passes();
        }
        match deliver(released) {
            Gating::Decided(verdict) => Some(verdict),
            Gating::Hold => None,
        }
    }

    /// What the forwards say of a message, and the recorder's word that it may pass.
    fn seen(&mut self, channel: Option<ChannelId>, direction: Direction, seen: &Seen) -> Gating {
        match seen {
            Seen::Passes => {
                let number = channel.map_or(recording::CHANNEL_SESSION, number);
                let released = self.recorder.release_bare(number, direction, ());
                self.kept(released).map_or(Gating::Hold, deliver)
            }
            Seen::Waits => Gating::Hold,
            Seen::Refused(line) => refuse(&format!("custody: {line}")),
        }
    }

    fn offer(&mut self, place: Place, channel: ChannelId, offer: Offer, name: &[u8]) -> Gating {
        let seen = self.forwards.see_offer(place.ticket, (channel, number(channel)), offer, name);
        match &seen {
            Seen::Refused(line) => self.refuse_aloud(channel, line),
            seen => self.seen(Some(channel), Direction::Input, seen),
        }
    }

    /// A program is allowed and its event durable: its start is recorded, and its request may pass. `None` when it
    /// can't be recorded: [`Passage::failure`] says why, and the session must end.
    pub fn run(&mut self, ask: &Ask, permit: Permit<Run>) -> Option<Verdict> {
        let requested = permit.announced();
        let in_event = ask.requested.command.as_ref().map(|c| c.as_bytes());
        let whole = ask.whole.as_deref().or(in_event).unwrap_or_default();
        let kind = match ask.requested.kind {
            Kind::Shell => recording::Kind::ShellStarted,
            Kind::Exec => recording::Kind::CommandStarted(whole.into()),
            Kind::Subsystem => recording::Kind::SubsystemStarted(whole.into()),
        };
        let released =
            self.recorder.release_control(self.now(), number(ask.channel), Direction::Input, kind, ());
        let released = self.kept(released)?;
        let (kind, forced) = (ask.requested.kind, ask.requested.asked.is_some());
        let files = Files::of_program(number(ask.channel), kind, whole, forced);
        let is_sftp = files.as_ref().is_some_and(Files::is_sftp);
        if is_sftp && let Err(error) = self.recorder.told_elsewhere(number(ask.channel)) {
            self.failure.get_or_insert(error);
            return None;
        }
        // What sftp says is told file by file; what is denied of it never reaches the program.
        let hashed = kind == Kind::Exec && !is_sftp && self.recorder.level() != Level::None;
        if let Some(program) = self.channels.get_mut(&ask.channel) {
            program.running = Some(requested);
            program.files = files;
            program.is_sftp = is_sftp;
            program.input = hashed.then(Sha256::new);
            program.held_passes();
        }
        match deliver(released) {
            Gating::Decided(verdict) => Some(verdict),
            Gating::Hold => None,
        }
    }

    /// What was decided about files: with the leaves that the log's evidence gave, what may pass. `None`: as in
    /// [`Passage::run`].
    pub fn files_decided(
        &mut self,
        ask: &file_run::Ask,
        verdicts: Vec<Result<FileLeave, Denied>>,
    ) -> Option<Verdict> {
        let channel = ask.channel;
        let program = self.channels.get_mut(&channel);
        let Some((lines_told, files)) = program.and_then(|program| {
            let Program { files, denied_lines, .. } = &mut **program;
            Some((denied_lines, files.as_mut()?))
        }) else {
            // The channel is gone, and with it what waited.
            for (wanted, verdict) in ask.wanted.iter().zip(&verdicts) {
                let told = verdict.as_ref().ok();
                if let Some(told) = told.and_then(|leave| file_run::never_passed(wanted, leave.announced())) {
                    self.ends.push(End::File { program: ask.program, told });
                }
            }
            return Some(Verdict::Refuse(Refusal::prohibited("the channel is gone")));
        };
        let verdicts = verdicts.into_iter().map(|verdict| verdict.map(|leave| leave.announced())).collect();
        let decided = files.decided(verdicts);
        let answers = files.has_answers();
        let (data, given_back, lines) = match decided {
            Decided::Pass { data, given_back, lines } => (data, given_back, lines),
            Decided::End(line) => return Some(end_files(&line)),
        };
        for line in lines {
            if *lines_told < DENIED_LINES_MAX {
                *lines_told += 1;
                self.notices.push((channel, format!("custody: {line}\r\n")));
            }
        }
        if answers {
            self.answering.insert(channel);
        }
        self.take_told(channel);
        let released = self.recorder.release(self.now(), number(channel), Direction::Input, data);
        Some(deliver_instead(self.kept(released)?, given_back, 0))
    }

    /// Data of a channel that may carry files.
    fn see_data(&mut self, place: Place, channel: ChannelId, direction: Direction, data: &[u8]) -> Gating {
        let program = self.channels.entry(channel).or_default();
        let (Some(files), Some(running)) = (program.files.as_mut(), program.running) else {
            return self.pass_data(channel, direction, data);
        };
        let gating = match place.from {
            Side::Client => match files.client(data) {
                FileSeen::Passes => self.pass_data(channel, direction, data),
                FileSeen::Instead(instead) => self.pass_instead(channel, direction, data, instead, 0),
                FileSeen::Wants(wanted) => {
                    program.bytes_in += data.len() as u64;
                    self.file_asks.push(file_run::Ask {
                        ticket: place.ticket,
                        channel,
                        program: running,
                        wanted,
                    });
                    Gating::Hold
                }
                FileSeen::Ends(line) => Gating::Decided(end_files(&line)),
            },
            Side::Target => match files.target(data) {
                None => self.pass_data(channel, direction, data),
                Some((instead, added)) => {
                    self.answering.remove(&channel);
                    self.pass_instead(channel, direction, data, instead, added)
                }
            },
        };
        self.take_told(channel);
        gating
    }

    /// Whether the client sends something before it has asked for a program.
    fn is_early(&self, from: Side, channel: ChannelId) -> bool {
        let program = self.channels.get(&channel);
        from == Side::Client && program.is_some_and(|program| program.running.is_none())
    }

    /// A target that keeps what comes early would give it to the program, and nobody would have judged or hashed it. No client
    /// is known that does so; of one that does, the first is told.
    fn refuse_early(&mut self, channel: ChannelId) -> Gating {
        let line = "what is sent before a program is asked for is dropped";
        let first = self
            .channels
            .get_mut(&channel)
            .is_some_and(|program| !std::mem::replace(&mut program.early, true));
        if first { self.refuse_aloud(channel, line) } else { refuse(line) }
    }

    /// `data` came, and `instead` passes.
    fn pass_instead(
        &mut self,
        channel: ChannelId,
        direction: Direction,
        data: &[u8],
        instead: Vec<u8>,
        added: u32,
    ) -> Gating {
        self.count(channel, direction, data);
        let released = self.recorder.release(self.now(), number(channel), direction, instead);
        match self.kept(released) {
            Some(released) => Gating::Decided(deliver_instead(released, 0, added)),
            None => Gating::Hold,
        }
    }

    fn take_told(&mut self, channel: ChannelId) {
        let Some(program) = self.channels.get_mut(&channel) else { return };
        if let (Some(files), Some(program)) = (program.files.as_mut(), program.running) {
            let ends = files.take_told().into_iter().map(|told| End::File { program, told });
            self.ends.extend(ends);
        }
    }

    /// After a failure of the recorder nothing passes: everything is held until the session ends, which is at once.
    fn kept<B>(&mut self, released: Result<Released<B>, RecorderError>) -> Option<Released<B>> {
        match released {
            Ok(released) => Some(released),
            Err(error) => {
                self.failure.get_or_insert(error);
                None
            }
        }
    }

    fn pass(&mut self, channel: ChannelId, direction: Direction) -> Gating {
        let released = self.recorder.release_bare(number(channel), direction, ());
        self.kept(released).map_or(Gating::Hold, deliver)
    }

    fn count(&mut self, channel: ChannelId, direction: Direction, data: &[u8]) {
        let program = self.channels.entry(channel).or_default();
        let count = match direction {
            Direction::Input => &mut program.bytes_in,
            Direction::ErrorOutput => &mut program.bytes_err,
            Direction::Output | Direction::Control => &mut program.bytes_out,
        };
        *count += data.len() as u64;
        if let (Direction::Input, Some(input)) = (direction, &mut program.input) {
            input.update(data);
        }
    }

    fn pass_data(&mut self, channel: ChannelId, direction: Direction, data: &[u8]) -> Gating {
        self.count(channel, direction, data);
        let released = self.recorder.release(self.now(), number(channel), direction, data);
        self.kept(released).map_or(Gating::Hold, deliver)
    }

    fn pass_control(
        &mut self,
        channel: ChannelId,
        direction: Direction,
        kind: recording::Kind<'_>,
    ) -> Gating {
        let released = self.recorder.release_control(self.now(), number(channel), direction, kind, ());
        self.kept(released).map_or(Gating::Hold, deliver)
    }

    /// A program that is refused: it "runs", says why not on standard error, and ends.
    fn end_with(line: &str) -> Gating {
        let line = format!("custody: {line}\r\n");
        Gating::Decided(Verdict::End { line, exit: Exit::Status(REFUSED_STATUS) })
    }

    /// A refusal of something that isn't a program and has no text of its own in the protocol: the line goes to
    /// standard error, and the program that is asked for next runs without it.
    fn refuse_aloud(&mut self, channel: ChannelId, line: &str) -> Gating {
        self.notices.push((channel, format!("custody: {line}\r\n")));
        refuse(line)
    }

    fn see_request(&mut self, place: Place, channel: ChannelId, request: &Request<'_>) -> Gating {
        let direction = if place.from == Side::Client { Direction::Input } else { Direction::Output };
        if self.forwards.has(channel) && !matches!(request, Request::EndOfWrite | Request::KeepAlive) {
            return refuse("a connection runs no program");
        }
        match (place.from, request) {
            (Side::Client, Request::Pty { term, columns, rows, width, height, .. }) => {
                if !self.may_have_terminal {
                    return self.refuse_aloud(channel, "your certificate permits no terminal");
                }
                let program = self.channels.entry(channel).or_default();
                if program.asked || program.terminal != Terminal::None {
                    return refuse("a terminal is asked for once, and before the program");
                }
                program.terminal = Terminal::Asked;
                let size = TerminalSize { cols: *columns, rows: *rows, width_px: *width, height_px: *height };
                let kind = recording::Kind::TerminalStarted { term: (*term).into(), size };
                self.pass_control(channel, direction, kind)
            }
            (Side::Client, Request::WindowChange { columns, rows, width, height }) => {
                let size = TerminalSize { cols: *columns, rows: *rows, width_px: *width, height_px: *height };
                self.pass_control(channel, direction, recording::Kind::Resize(size))
            }
            (Side::Client, Request::Env { name, value }) => {
                let (Some(name), Some(value)) = (c_string(name), c_string(value)) else {
                    return refuse("a zero byte stands in a variable");
                };
                let program = self.channels.entry(channel).or_default();
                if program.environment.len() >= VARIABLES_MAX {
                    return refuse("too many environment variables");
                }
                program.environment.push(variable(name, value));
                self.pass(channel, direction)
            }
            (Side::Client, Request::Shell) => self.ask(place, channel, Kind::Shell, None),
            (Side::Client, Request::Exec { command }) => self.ask(place, channel, Kind::Exec, Some(command)),
            (Side::Client, Request::Subsystem { name }) => {
                self.ask(place, channel, Kind::Subsystem, Some(name))
            }
            (Side::Client, Request::AuthAgent) => self.offer(place, channel, Offer::Agent, request.name()),
            (Side::Client, Request::X11 { .. }) => self.offer(place, channel, Offer::X11, request.name()),
            (Side::Target, Request::ExitStatus { status }) => {
                self.channels.entry(channel).or_default().exit_status = Some(*status);
                self.pass_control(channel, direction, recording::Kind::Exit(*status))
            }
            (Side::Target, Request::ExitSignal { name, .. }) => {
                self.channels.entry(channel).or_default().signal = Some(ByteString::cut(name, 64));
                self.pass_control(channel, direction, recording::Kind::ExitSignal((*name).into()))
            }
            (
                _,
                Request::Signal { .. } | Request::EndOfWrite | Request::KeepAlive | Request::XonXoff { .. },
            ) => self.pass(channel, direction),
            // Allowed by name only: what isn't understood can't be audited. A stock sshd answers it the same.
            _ => refuse("this request isn't understood and is refused"),
        }
    }

    fn ask(&mut self, place: Place, channel: ChannelId, kind: Kind, what: Option<&[u8]>) -> Gating {
        let program = self.channels.entry(channel).or_default();
        if std::mem::replace(&mut program.asked, true) {
            return refuse("this channel has its program already");
        }
        let what = match what.map(c_string) {
            Some(None) => {
                return Self::end_with(
                    "a zero byte stands in what is asked for, which servers read in different ways",
                );
            }
            what => what.flatten(),
        };
        let asked = self.force_command.is_some().then(|| command::Asked {
            command: what.map(|what| ByteString::cut(what, ASKED_BYTES_MAX)),
            kind,
        });
        let (kind, what) = match &self.force_command {
            Some(forced) => (Kind::Exec, Some(forced.as_bytes())),
            None => (kind, what),
        };
        if kind == Kind::Exec && what.is_some_and(starts_mosh) {
            return Self::end_with(
                "mosh would go on by UDP past the proxy, where nobody could say what was done: use ssh",
            );
        }
        let has_terminal = program.terminal != Terminal::None;
        // A terminal would change the bytes between what is judged here and what the server reads.
        if has_terminal && files::is_sftp(kind, what.unwrap_or_default(), asked.is_some()) {
            return Self::end_with("sftp takes no terminal");
        }
        let cut = what.filter(|w| w.len() > COMMAND_BYTES_MAX);
        let requested = command::Requested {
            asked,
            channel: number(channel),
            command: what.map(|w| ByteString::cut(w, COMMAND_BYTES_MAX)),
            command_bytes: cut.map(|w| w.len() as u64),
            command_sha256: cut.map(|w| to_hex(&Sha256::digest(w))),
            environment: program.environment.clone(),
            kind,
            terminal: has_terminal,
        };
        let whole = cut.map(<[u8]>::to_vec);
        self.asks.push(Ask { ticket: place.ticket, channel, requested, whole });
        Gating::Hold
    }

    fn see_global(&mut self, place: Place, message: &Message<'_>) -> Gating {
        match message {
            Message::GlobalRequest { name, want_reply, data } => {
                let asked = (place.from, place.ticket);
                if let Some(seen) = self.forwards.see_listening(asked, (name, *want_reply), data) {
                    return self.seen(None, Direction::Control, &seen);
                }
                let passes = match place.from {
                    Side::Client => {
                        matches!(*name, b"keepalive@openssh.com" | b"no-more-sessions@openssh.com")
                    }
                    Side::Target => *name == b"keepalive@openssh.com",
                };
                if !passes {
                    // `hostkeys-00@openssh.com` speaks of the target's keys where the client knows the proxy's.
                    return refuse("this request isn't understood and is refused");
                }
                if place.from == Side::Client && *want_reply {
                    self.forwards.awaits_reply();
                }
            }
            Message::RequestSuccess { data } if place.from == Side::Target => {
                self.forwards.see_reply(Some(data))
            }
            Message::RequestFailure if place.from == Side::Target => self.forwards.see_reply(None),
            _ => {}
        }
        self.seen(None, Direction::Control, &Seen::Passes)
    }
}

impl Gate for Passage {
    fn see(&mut self, place: Place, message: &Message<'_>) -> Gating {
        if let Some(answer) = self.host_prover.as_mut().and_then(|prover| prover.see(place.from, message)) {
            return answer;
        }
        if self.failure.is_some() {
            return Gating::Hold;
        }
        let Some(channel) = place.channel else { return self.see_global(place, message) };
        let direction = if place.from == Side::Client { Direction::Input } else { Direction::Output };
        match message {
            Message::ChannelOpen { kind: b"session", .. } if place.from == Side::Client => {
                self.channels.insert(channel, Box::default());
                self.pass(channel, direction)
            }
            Message::ChannelOpen { kind, data, .. } => {
                let (asked, id) = ((place.from, place.ticket), (channel, number(channel)));
                let seen = self.forwards.see_open(asked, id, kind, data);
                self.seen(Some(channel), direction, &seen)
            }
            Message::ChannelOpenConfirmation { .. } => {
                self.forwards.confirmed(channel, self.clock.monotonic());
                self.pass(channel, direction)
            }
            Message::ChannelOpenFailure { reason, description, .. } => {
                self.forwards.failed(channel, *reason, description);
                self.pass(channel, direction)
            }
            Message::Data { data, .. } if self.forwards.has(channel) => {
                self.forwards.moved(channel, place.from, data);
                let released = self.recorder.release(self.now(), number(channel), direction, data);
                self.kept(released).map_or(Gating::Hold, deliver)
            }
            Message::Data { .. } | Message::ExtendedData { .. } if self.is_early(place.from, channel) => {
                self.refuse_early(channel)
            }
            Message::Data { data, .. } => self.see_data(place, channel, direction, data),
            Message::ExtendedData { stream: STDERR, data, .. }
                if place.from == Side::Target && !self.forwards.has(channel) =>
            {
                self.pass_data(channel, Direction::ErrorOutput, data)
            }
            // OpenSSH drops all others, so events and recording would tell of what nobody was shown or given.
            Message::ExtendedData { .. } => refuse("nobody takes this stream"),
            Message::ChannelRequest { request, want_reply, .. } => {
                let gating = self.see_request(place, channel, request);
                if place.from == Side::Client
                    && let Some(program) = self.channels.get_mut(&channel)
                {
                    match gating {
                        Gating::Decided(Verdict::Pass) => {
                            program.passes(matches!(request, Request::Pty { .. }), *want_reply);
                        }
                        Gating::Hold => program.held_wants_reply = *want_reply,
                        Gating::Decided(_) => {}
                    }
                }
                gating
            }
            Message::ChannelSuccess { .. } | Message::ChannelFailure { .. } => {
                if place.from == Side::Target
                    && let Some(program) = self.channels.get_mut(&channel)
                {
                    program.replied(matches!(message, Message::ChannelSuccess { .. }));
                }
                self.pass(channel, direction)
            }
            _ => self.pass(channel, direction),
        }
    }

    fn closed(&mut self, channel: ChannelId) {
        let mut program = self.channels.remove(&channel);
        if program.is_none() && !self.forwards.has(channel) {
            return;
        }
        self.forwards.closed(channel, number(channel), self.clock.monotonic());
        self.answering.remove(&channel);
        if let Some(Program { files, running: Some(program), .. }) = program.as_deref_mut()
            && let Some(files) = files.take()
        {
            let program = *program;
            self.ends.extend(files.end().into_iter().map(|told| End::File { program, told }));
        }
        let now = self.now();
        let output = self.recorder.output_sha256(number(channel));
        let cuts = self.recorder.close_channel(now, number(channel)).unwrap_or_else(|error| {
            self.failure.get_or_insert(error);
            Vec::new()
        });
        let Some((program, requested)) = program.and_then(|p| p.running.map(|r| (p, r))) else { return };
        let outcome = program.end(number(channel), &cuts, output);
        self.ends.push(End::Program { requested, outcome });
    }
}

/// The channel's number in events and recordings. A connection of four billion channels ends before this wraps:
/// its transport's sequence numbers do.
pub(crate) fn number(channel: ChannelId) -> u32 {
    u32::try_from(channel.serial()).unwrap_or(u32::MAX)
}
