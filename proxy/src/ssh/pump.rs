//! The relay at work: one task owns both legs, and moves what comes in on one to the other.

mod heard;
mod unpassed;

#[cfg(test)]
mod tests;

use super::relay::{self, Ending, Exit, Refusal, Relay, RelayError, Said, Side, Ticket, Verdict};
use super::socket::{LegSocket, SocketError};
use super::transport::error::Error as LegError;
use super::transport::leg::Incoming;
use super::transport::reason;
use super::vigil::{Due, EXCHANGE_TIMEOUT, Vigil};
use crate::session::decide::Refused;
use crate::session::files;
use crate::session::forward::{self, Leave};
use crate::session::live::EndCause;
use crate::session::passage::{Passage, number};
use crate::session::run::{self, Ask, REFUSED_STATUS};
use crate::session::{Access, Session};
use custody_core::event::hex::to_hex;
use custody_core::event::session::EndReason;
use custody_core::event::{Draft, Outcome, recording};
use custody_core::log::ProducerError;
use custody_core::policy::permit::{Permit, Run};
use custody_core::recording::{Direction, Kind, PendingAnchor, RecorderError};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use heard::{Both, Heard};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

/// How often a recording that grew is anchored in the log.
const ANCHOR_EVERY: Duration = Duration::from_secs(1);
/// How long the farewell to a client may take.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);
/// What may wait for one side, in bytes, while the other one's answer to our KEXINIT is awaited: before that comes what was
/// on its way, as much as windows allow, and OpenSSH's are of 2 MiB a channel.
const BEFORE_KEXINIT_BYTES_MAX: usize = 4 << 20;
/// What may wait for a side that doesn't take it, in bytes, before that side isn't heard any more: each of its requests may
/// cost an answer. One decision may let go all that the relay holds.
const UNTAKEN_BYTES_MAX: usize = relay::HELD_BYTES_MAX + (1 << 20);

/// How a session went, for its end's event.
pub struct Course {
    /// Why it ended.
    pub end: EndCause,
    /// Bytes of SSH payload from the client.
    pub bytes_in: u64,
    /// Bytes of SSH payload to the client.
    pub bytes_out: u64,
}

/// What is decided while the legs go on.
enum Known {
    Run(Box<Ask>, Result<Permit<Run>, Refused>),
    Forward(Box<forward::Ask>, Result<Leave, Refused>),
    Files(Box<files::run::Ask>, Vec<Result<files::run::Leave, files::Denied>>),
}

/// What is being decided.
type Tasks = FuturesUnordered<BoxFuture<'static, Known>>;

enum AnchorError {
    Log(ProducerError),
    Recorder(RecorderError),
}

/// Where what is heard lies.
#[derive(Clone, Copy)]
enum Lies {
    /// The leg read it during login and kept it.
    InLeg,
    /// The socket has it.
    InSocket,
}

struct Pump<'a> {
    access: &'a Arc<Access>,
    session: &'a Arc<Session>,
    legs: [LegSocket; 2],
    relay: Relay,
    passage: &'a mut Passage,
    tasks: Tasks,
    /// At most one.
    anchors: FuturesUnordered<BoxFuture<'static, Result<(), AnchorError>>>,
    bytes_in: u64,
    bytes_out: u64,
    /// Since when the log has failed to take anchors.
    log_down: Option<Instant>,
    vigils: [Vigil; 2],
    /// How much waited for the other side, by side, at the last tick.
    waited: [Option<usize>; 2],
}

fn at(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Target => 1,
    }
}

/// Relays until one side ends it, or `end` says why it must end. Tells the client the reason.
pub async fn relay(
    access: &Arc<Access>,
    session: &Arc<Session>,
    client: LegSocket,
    target: LegSocket,
    passage: &mut Passage,
    mut end: watch::Receiver<Option<EndCause>>,
) -> Course {
    let mut pump = Pump::new(access, session, [client, target], passage);
    let cause = pump.run(&mut end).await;
    pump.farewell(&cause).await;
    let (bytes_in, bytes_out) = (pump.bytes_in, pump.bytes_out);
    let tasks = pump.let_go();
    Box::pin(unpassed::tell(access, session, tasks, unpassed::DECIDED_TIMEOUT)).await;
    Course { end: cause, bytes_in, bytes_out }
}

impl<'a> Pump<'a> {
    /// With the client's leg and the target's.
    fn new(
        access: &'a Arc<Access>,
        session: &'a Arc<Session>,
        legs: [LegSocket; 2],
        passage: &'a mut Passage,
    ) -> Self {
        let mut relay = Relay::new();
        for side in Side::BOTH {
            if !legs[at(side)].leg.peer_is_openssh() {
                relay.set_stranger(side);
            }
        }
        Self {
            access,
            session,
            legs,
            relay,
            passage,
            tasks: FuturesUnordered::new(),
            anchors: FuturesUnordered::new(),
            bytes_in: 0,
            bytes_out: 0,
            log_down: None,
            vigils: std::array::from_fn(|_| Vigil::new(access.clock.monotonic())),
            waited: [None; 2],
        }
    }

    async fn run(&mut self, end: &mut watch::Receiver<Option<EndCause>>) -> EndCause {
        let mut tick = tokio::time::interval(ANCHOR_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What the legs read behind the login and kept.
        for side in Side::BOTH {
            if let Err(cause) = self.hear(side, Lies::InLeg) {
                return cause;
            }
        }
        loop {
            let (reads, writes) =
                ([self.may_read(Side::Client), self.may_read(Side::Target)], self.has_output());
            // A decision may let go more than a leg keeps while it exchanges keys.
            let may_pass = self.legs.iter().all(|socket| socket.leg.can_send());
            let [client, target] = &self.legs;
            let outcome = tokio::select! {
                biased;
                ended = end.wait_for(Option::is_some) => Err(match ended {
                    Ok(cause) => cause.clone().unwrap_or_else(stopped),
                    Err(_) => stopped(),
                }),
                Some(known) = self.tasks.next(), if may_pass => self.learn(known),
                Some(outcome) = self.anchors.next() => self.anchored(outcome),
                _ = tick.tick() => self.tick(),
                _ = client.stream.writable(), if writes[0] => self.write(Side::Client),
                _ = target.stream.writable(), if writes[1] => self.write(Side::Target),
                _ = client.stream.readable(), if reads[0] => self.read(Side::Client),
                _ = target.stream.readable(), if reads[1] => self.read(Side::Target),
            };
            if let Err(cause) = outcome.and_then(|()| self.settle()) {
                return cause;
            }
        }
    }

    /// One side is read while the other's socket has taken all: in the kernel lies enough that the peer needn't wait, and
    /// here no more than one read.
    ///
    /// In a key exchange a side is read whatever the other one does, once its KEXINIT is there: nothing comes behind that but
    /// the exchange, and no exchange may wait for the other side. Until it is there, what comes first must go somewhere.
    fn may_read(&self, side: Side) -> bool {
        let [this, other] = [&self.legs[at(side)].leg, &self.legs[at(side.other())].leg];
        if this.output().len() > UNTAKEN_BYTES_MAX {
            return false;
        }
        if this.awaits_kexinit() {
            other.can_send() && other.output().len() <= BEFORE_KEXINIT_BYTES_MAX
        } else {
            this.in_exchange() || (other.can_send() && other.output().is_empty())
        }
    }

    fn has_output(&self) -> [bool; 2] {
        [!self.legs[0].leg.output().is_empty(), !self.legs[1].leg.output().is_empty()]
    }

    fn read(&mut self, side: Side) -> Result<(), EndCause> {
        self.hear(side, Lies::InSocket)
    }

    /// Hears a side.
    fn hear(&mut self, side: Side, lies: Lies) -> Result<(), EndCause> {
        let Self { legs, relay, passage, bytes_in, bytes_out, access, .. } = self;
        let [client, target] = legs;
        let (this, other) = match side {
            Side::Client => (client, target),
            Side::Target => (target, client),
        };
        let bytes = match side {
            Side::Client => bytes_in,
            Side::Target => bytes_out,
        };
        let mut back = Vec::new();
        let mut heard = Heard { relay, passage, other: &mut other.leg, side, back: &mut back, bytes };
        let outcome = match lies {
            Lies::InSocket => match this.read(|leg, mut incoming| heard.all(leg, &mut incoming)) {
                Ok(outcome) => outcome.unwrap_or(Ok(())),
                Err(error) => Err(socket_end(side, &error)),
            },
            Lies::InLeg => {
                let now = access.clock.monotonic();
                heard.all(&mut this.leg, &mut Incoming::new(&mut [], now))
            }
        };
        self.vigils[at(side)].heard(self.access.clock.monotonic());
        outcome
    }

    /// After anything has happened: what the passage left over is dealt with, and what can be written is.
    fn settle(&mut self) -> Result<(), EndCause> {
        if let Some(failure) = self.passage.failure() {
            return Err(unrecorded(failure));
        }
        for ask in self.passage.take_asks() {
            let (access, session) = (Arc::clone(self.access), Arc::clone(self.session));
            self.tasks.push(Box::pin(async move {
                let decided = run::decide_run(&access, &session, &ask).await;
                Known::Run(Box::new(ask), decided)
            }));
        }
        for ask in self.passage.forwards().take_asks() {
            let (access, session) = (Arc::clone(self.access), Arc::clone(self.session));
            self.tasks.push(Box::pin(async move {
                let decided = forward::decide(&access, &session, &ask).await;
                Known::Forward(Box::new(ask), decided)
            }));
        }
        for ask in self.passage.take_file_asks() {
            let (access, session) = (Arc::clone(self.access), Arc::clone(self.session));
            self.tasks.push(Box::pin(async move {
                let decided = files::run::decide_files(&access, &session, &ask).await;
                Known::Files(Box::new(ask), decided)
            }));
        }
        for channel in self.passage.answering() {
            let mut out = Both::new(&mut self.legs);
            let went = self
                .passage
                .answers(channel)
                .is_some_and(|answers| self.relay.insert(channel, answers, &mut out));
            out.end()?;
            if went {
                self.passage.answered(channel);
            }
        }
        for (channel, line) in self.passage.take_notices() {
            let mut out = Both::new(&mut self.legs);
            self.relay.notice(channel, &line, &mut out);
            out.end()?;
        }
        self.record_said()?;
        for ended in self.passage.take_ends() {
            // Evidence that comes after: nothing waits for it, and what can't be taken shows as a gap.
            if let Err(error) = run::ended(self.access, self.session, ended) {
                tracing::warn!(session = %self.session.id, "the end of a command could not be recorded: {error}");
            }
        }
        for after in self.passage.forwards().take_after() {
            if let Err(error) = forward::told(self.access, self.session, after) {
                tracing::warn!(session = %self.session.id, "the end of a connection could not be recorded: {error}");
            }
        }
        let now = self.access.clock.monotonic();
        for side in Side::BOTH {
            // One leg at a time: two could each wait for room in the other.
            let other_idle = !self.legs[at(side.other())].leg.in_exchange();
            let leg = &mut self.legs[at(side)].leg;
            if other_idle && leg.wants_rekey(now) {
                leg.start_rekey().map_err(|error| leg_end(side, &error))?;
            }
            self.write(side)?;
        }
        Ok(())
    }

    /// Records what the proxy itself has said to the client, before that is written.
    fn record_said(&mut self) -> Result<(), EndCause> {
        let said = self.relay.take_said();
        if said.is_empty() {
            return Ok(());
        }
        let (now, recorder) = (self.passage.now(), self.passage.recorder());
        for Said { channel, on_stderr, bytes } in said {
            let direction = if on_stderr { Direction::ErrorOutput } else { Direction::Output };
            let recorded = recorder.record(now, number(channel), direction, Kind::Data(bytes.into()));
            recorded.map_err(|error| unrecorded(&error))?;
        }
        recorder.flush().map_err(|error| unrecorded(&error))
    }

    fn write(&mut self, side: Side) -> Result<(), EndCause> {
        self.legs[at(side)].write().map_err(|error| socket_end(side, &error.into()))
    }

    fn learn(&mut self, known: Known) -> Result<(), EndCause> {
        match known {
            Known::Run(ask, Ok(permit)) => {
                let requested = permit.announced();
                match self.passage.run(&ask, permit) {
                    Some(verdict) => self.release(ask.ticket, verdict),
                    // The passage knows why, and `settle` ends the session.
                    None => {
                        unpassed::tell_run(self.access, self.session, &ask, requested);
                        Ok(())
                    }
                }
            }
            Known::Files(ask, verdicts) => match self.passage.files_decided(&ask, verdicts) {
                Some(verdict) => self.release(ask.ticket, verdict),
                None => Ok(()),
            },
            Known::Run(ask, Err(refused)) => {
                // A client that is told failure quits without showing what stands on standard error: so the program
                // "runs", says why not, and ends.
                let line = format!("custody: {refused}\r\n");
                self.release(ask.ticket, Verdict::End { line, exit: Exit::Status(REFUSED_STATUS) })
            }
            Known::Forward(ask, Ok(leave)) => {
                let requested = leave.announced();
                match self.passage.connect(&ask, leave) {
                    Some(verdict) => self.release(ask.ticket, verdict),
                    None => {
                        unpassed::tell_forward(self.access, self.session, &ask, requested);
                        Ok(())
                    }
                }
            }
            Known::Forward(ask, Err(refused)) => {
                let line = refused.to_string();
                if !ask.is_connection() {
                    // Neither a global request nor one of a channel has room for a text.
                    self.passage.tell(ask.channel, &line);
                }
                let refusal = Refusal::prohibited(format!("custody: {line}"));
                self.release(ask.ticket, Verdict::Refuse(refusal))
            }
        }
    }

    fn anchored(&mut self, outcome: Result<(), AnchorError>) -> Result<(), EndCause> {
        match outcome {
            Ok(()) => self.log_down = None,
            Err(AnchorError::Log(error)) => {
                tracing::warn!(session = %self.session.id, "the recording could not be anchored: {error}");
                self.log_down.get_or_insert_with(Instant::now);
            }
            Err(AnchorError::Recorder(error)) => return Err(unrecorded(&error)),
        }
        Ok(())
    }

    fn release(&mut self, ticket: Ticket, verdict: Verdict) -> Result<(), EndCause> {
        let mut out = Both::new(&mut self.legs);
        let moved = self.relay.release(ticket, verdict, self.passage, &mut out);
        out.end()?;
        // A request whose channel is gone meanwhile never reached the target; its event says so when it is closed.
        let _gone = moved.map_err(|error| relay_end(&error))?;
        Ok(())
    }

    fn tick(&mut self) -> Result<(), EndCause> {
        let now = Instant::now();
        if let Some(since) = self.log_down
            && now.duration_since(since) >= self.access.log_outage
        {
            return Err(EndCause {
                reason: EndReason::LogUnavailable,
                detail: "the audit log takes no evidence; the session can't go on unrecorded".to_owned(),
                cause: None,
            });
        }
        if self.anchors.is_empty() {
            match self.passage.recorder().pending_anchor() {
                Ok(Some(pending)) => {
                    let (access, session) = (Arc::clone(self.access), Arc::clone(self.session));
                    self.anchors.push(Box::pin(async move { anchor(&access, &session, pending).await }));
                }
                Ok(None) => {}
                Err(error) => return Err(unrecorded(&error)),
            }
        } else {
            // An append that doesn't come back is an outage too.
            self.log_down.get_or_insert(now);
        }
        for side in Side::BOTH {
            let [this, other] = [&self.legs[at(side)], &self.legs[at(side.other())]];
            let waits = other.leg.output().len();
            let stands = self.waited[at(side)].replace(waits) == Some(waits);
            if !self.may_read(side) && hung_up(this, side, stands) {
                return Err(socket_end(side, &SocketError::Closed));
            }
            self.watch(side)?;
        }
        Ok(())
    }

    /// Asks a silent peer whether it is there, and ends the session of one that isn't.
    fn watch(&mut self, side: Side) -> Result<(), EndCause> {
        let now = self.access.clock.monotonic();
        let (listening, in_exchange) = (self.may_read(side), self.legs[at(side)].leg.in_exchange());
        let due = self.vigils[at(side)].due(now, listening, in_exchange);
        let reason = if side == Side::Client { EndReason::ClientClosed } else { EndReason::TargetClosed };
        let detail = match due {
            Due::Nothing => return Ok(()),
            Due::Ask => {
                let mut out = Both::new(&mut self.legs);
                self.relay.keep_alive(side, &mut out).map_err(|error| relay_end(&error))?;
                out.end()?;
                return self.write(side);
            }
            Due::Gone => format!("the {side} doesn't answer any more"),
            Due::ExchangeOverdue => {
                format!("the {side} didn't end a key exchange within {} seconds", EXCHANGE_TIMEOUT.as_secs())
            }
        };
        Err(EndCause { reason, detail, cause: None })
    }

    /// Tells the client why, on each of its channels and in the disconnect; the target is just let go.
    async fn farewell(&mut self, cause: &EndCause) {
        let ours = !matches!(cause.reason, EndReason::ClientClosed | EndReason::TargetClosed);
        let mut out = Both::new(&mut self.legs);
        if ours {
            let line = format!("\r\ncustody: {}\r\n", cause.detail);
            let ending = Ending { line: &line, exit: Exit::Silent };
            let ended = self.relay.end_all(&ending, self.passage, &mut out);
            if let Err(error) = ended {
                tracing::debug!(session = %self.session.id, "channels could not be ended in order: {error}");
            }
            if let Err(end) = self.record_said() {
                // The person must hear why all the same: it may be this.
                tracing::warn!(session = %self.session.id, "what was said at last isn't recorded: {}", end.detail);
            }
        }
        for side in Side::BOTH {
            let leg = &mut self.legs[at(side)].leg;
            if !leg.is_closed() {
                let text = if side == Side::Client { cause.detail.as_str() } else { "the session has ended" };
                // A leg that can't even say goodbye is gone.
                let _gone = leg.disconnect(reason::BY_APPLICATION, text);
            }
        }
        let [client, target] = &mut self.legs;
        // Both peers may be gone; after the time is up they are let go.
        let _late = tokio::time::timeout(FAREWELL_TIMEOUT, async {
            let _gone = tokio::join!(client.flush(), target.flush());
        })
        .await;
    }

    /// Closes the connections: nobody holds them while the log is waited for. Gives what is still being decided.
    fn let_go(self) -> Tasks {
        self.tasks
    }
}

/// Syncs and then appends: an anchor in the log speaks of bytes on the disk.
async fn anchor(access: &Access, session: &Session, pending: PendingAnchor) -> Result<(), AnchorError> {
    let anchor = match tokio::task::spawn_blocking(move || pending.sync()).await {
        Ok(synced) => synced.map_err(AnchorError::Recorder)?,
        // The runtime is shutting down: the session ends with it.
        Err(_) => return Ok(()),
    };
    let data = recording::Anchored { bytes: anchor.bytes, head: to_hex(&anchor.head) };
    let draft = Draft::new(session.actor.clone(), data)
        .session(session.id)
        .cause(session.announced)
        .outcome(Outcome::Success);
    access.proxy.append(draft).await.map(drop).map_err(AnchorError::Log)
}

/// Whether the peer is gone though its last bytes aren't read yet. Those of a target are the client's as long as that is there; those of a
/// client that has left are let go once the target has taken nothing for a tick.
fn hung_up(socket: &LegSocket, side: Side, stands: bool) -> bool {
    let gone = match side {
        Side::Client if stands => PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR,
        Side::Client | Side::Target => PollFlags::HUP | PollFlags::ERR,
    };
    let mut fds = [PollFd::new(&socket.stream, PollFlags::RDHUP)];
    let polled = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    polled.is_ok_and(|count| count > 0) && fds.iter().any(|fd| fd.revents().intersects(gone))
}

fn stopped() -> EndCause {
    EndCause { reason: EndReason::ProxyStopped, detail: "the proxy stops".to_owned(), cause: None }
}

fn unrecorded(error: &RecorderError) -> EndCause {
    EndCause {
        reason: EndReason::RecordingFailed,
        detail: format!("the session can't be recorded: {error}"),
        cause: None,
    }
}

fn socket_end(side: Side, error: &SocketError) -> EndCause {
    match error {
        SocketError::Leg(error) => leg_end(side, error),
        SocketError::Closed | SocketError::Io(_) => EndCause {
            reason: if side == Side::Client { EndReason::ClientClosed } else { EndReason::TargetClosed },
            detail: format!("the {side} closed the connection"),
            cause: None,
        },
    }
}

fn leg_end(side: Side, error: &LegError) -> EndCause {
    let closed = if side == Side::Client { EndReason::ClientClosed } else { EndReason::TargetClosed };
    match error {
        LegError::PeerDisconnected { text, .. } => {
            EndCause { reason: closed, detail: format!("the {side} disconnected: {text}"), cause: None }
        }
        error => EndCause {
            reason: EndReason::ProtocolError,
            detail: format!("the connection to the {side} broke: {error}"),
            cause: None,
        },
    }
}

fn relay_end(error: &RelayError) -> EndCause {
    EndCause { reason: EndReason::ProtocolError, detail: error.to_string(), cause: None }
}
