//! The relay at work: one task owns both legs, and moves what comes in on one to the other.

use super::relay::{Ending, Exit, Outbox, Refusal, Relay, RelayError, Side, Ticket, Verdict};
use super::socket::{LegSocket, SocketError};
use super::transport::error::Error as LegError;
use super::transport::leg::{Event, Incoming, Leg};
use super::transport::reason;
use super::vigil::{Due, EXCHANGE_TIMEOUT, Vigil};
use crate::session::decide::Refused;
use crate::session::files;
use crate::session::forward::{self, Leave};
use crate::session::live::EndCause;
use crate::session::passage::Passage;
use crate::session::run::{self, Ask, REFUSED_STATUS};
use crate::session::{Access, Session};
use custody_core::event::hex::to_hex;
use custody_core::event::session::EndReason;
use custody_core::event::{Draft, Outcome, recording};
use custody_core::log::ProducerError;
use custody_core::policy::permit::{Permit, Run};
use custody_core::recording::{PendingAnchor, RecorderError};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

/// How often a recording that grew is anchored in the log.
const ANCHOR_EVERY: Duration = Duration::from_secs(1);
/// How long the farewell to a client may take.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// How a session went, for its end's event.
pub struct Course {
    /// Why it ended.
    pub end: EndCause,
    /// Bytes of SSH payload from the client.
    pub bytes_in: u64,
    /// Bytes of SSH payload to the client.
    pub bytes_out: u64,
}

/// What becomes known while the legs go on.
enum Known {
    Run(Box<Ask>, Result<Permit<Run>, Refused>),
    Forward(Box<forward::Ask>, Result<Leave, Refused>),
    Files(Box<files::run::Ask>, Vec<Result<files::run::Leave, files::Denied>>),
    Anchored(Result<(), AnchorError>),
}

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
    tasks: FuturesUnordered<BoxFuture<'static, Known>>,
    bytes_in: u64,
    bytes_out: u64,
    /// Since when the log has failed to take anchors.
    log_down: Option<Instant>,
    anchoring: bool,
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
    let mut pump = Pump {
        access,
        session,
        legs: [client, target],
        relay: Relay::new(),
        passage,
        tasks: FuturesUnordered::new(),
        bytes_in: 0,
        bytes_out: 0,
        log_down: None,
        anchoring: false,
        vigils: std::array::from_fn(|_| Vigil::new(access.clock.monotonic())),
        waited: [None; 2],
    };
    for side in Side::BOTH {
        if !pump.legs[at(side)].leg.peer_is_openssh() {
            pump.relay.set_stranger(side);
        }
    }
    let cause = pump.run(&mut end).await;
    pump.farewell(&cause).await;
    Course { end: cause, bytes_in: pump.bytes_in, bytes_out: pump.bytes_out }
}

impl Pump<'_> {
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
            let [client, target] = &self.legs;
            let outcome = tokio::select! {
                biased;
                ended = end.wait_for(Option::is_some) => Err(match ended {
                    Ok(cause) => cause.clone().unwrap_or_else(stopped),
                    Err(_) => stopped(),
                }),
                Some(known) = self.tasks.next() => self.learn(known),
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

    /// A leg in key exchange must always be read. Otherwise one is read while the other's socket has taken all: in the
    /// kernel lies enough that the peer needn't wait, and here no more than one read.
    fn may_read(&self, side: Side) -> bool {
        let [this, other] = [&self.legs[at(side)].leg, &self.legs[at(side.other())].leg];
        this.in_exchange() || (other.can_send() && other.output().is_empty())
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
            return Err(EndCause {
                reason: EndReason::RecordingFailed,
                detail: format!("the session can't be recorded: {failure}"),
                cause: None,
            });
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

    fn write(&mut self, side: Side) -> Result<(), EndCause> {
        self.legs[at(side)].write().map_err(|error| socket_end(side, &error.into()))
    }

    fn learn(&mut self, known: Known) -> Result<(), EndCause> {
        match known {
            Known::Run(ask, Ok(permit)) => {
                // On failure the passage knows why, and `settle` ends the session.
                match self.passage.run(&ask, permit) {
                    Some(verdict) => self.release(ask.ticket, verdict),
                    None => Ok(()),
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
            Known::Forward(ask, Ok(leave)) => match self.passage.connect(&ask, leave) {
                Some(verdict) => self.release(ask.ticket, verdict),
                None => Ok(()),
            },
            Known::Forward(ask, Err(refused)) => {
                let line = refused.to_string();
                if !ask.is_connection() {
                    // Neither a global request nor one of a channel has room for a text.
                    self.passage.tell(ask.channel, &line);
                }
                let refusal = Refusal::prohibited(format!("custody: {line}"));
                self.release(ask.ticket, Verdict::Refuse(refusal))
            }
            Known::Anchored(outcome) => {
                self.anchoring = false;
                match outcome {
                    Ok(()) => self.log_down = None,
                    Err(AnchorError::Log(error)) => {
                        tracing::warn!(session = %self.session.id, "the recording could not be anchored: {error}");
                        self.log_down.get_or_insert_with(Instant::now);
                    }
                    Err(AnchorError::Recorder(error)) => {
                        return Err(EndCause {
                            reason: EndReason::RecordingFailed,
                            detail: format!("the session can't be recorded: {error}"),
                            cause: None,
                        });
                    }
                }
                Ok(())
            }
        }
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
        if !self.anchoring {
            match self.passage.recorder().pending_anchor() {
                Ok(Some(anchor)) => {
                    self.anchoring = true;
                    let (access, session) = (Arc::clone(self.access), Arc::clone(self.session));
                    self.tasks.push(Box::pin(async move {
                        Known::Anchored(anchored(&access, &session, anchor).await)
                    }));
                }
                Ok(None) => {}
                Err(error) => return self.learn(Known::Anchored(Err(AnchorError::Recorder(error)))),
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
}

/// Syncs and then appends: an anchor in the log speaks of bytes on the disk.
async fn anchored(access: &Access, session: &Session, pending: PendingAnchor) -> Result<(), AnchorError> {
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

/// Hears one side's messages, one by one.
struct Heard<'a> {
    relay: &'a mut Relay,
    passage: &'a mut Passage,
    other: &'a mut Leg,
    side: Side,
    /// Payloads for the side that is being heard, each after its length: its leg is borrowed by the message.
    back: &'a mut Vec<u8>,
    bytes: &'a mut u64,
}

impl Heard<'_> {
    fn all(&mut self, leg: &mut Leg, incoming: &mut Incoming<'_>) -> Result<(), EndCause> {
        let side = self.side;
        loop {
            let moved = match leg.next(incoming).map_err(|error| leg_end(side, &error))? {
                None => return Ok(()),
                Some(Event::Message(payload)) => {
                    *self.bytes += payload.len() as u64;
                    let mut out =
                        Towards { side: side.other(), leg: self.other, back: self.back, failed: None };
                    let moved = self.relay.accept(side, payload, self.passage, &mut out);
                    if let Some(error) = out.failed {
                        return Err(leg_end(side.other(), &error));
                    }
                    moved
                }
                Some(Event::Ready | Event::HostKey(_)) => Ok(()),
            };
            match moved {
                Ok(()) => {}
                Err(RelayError::Unimplemented { .. }) => {
                    // RFC 4253, 11.4. The sequence number is the transport's to know; a peer that sends such a
                    // message after login gets nothing from an answer, and stock sshd's clients don't wait for it.
                    tracing::debug!("a message that isn't implemented was passed over");
                }
                Err(error) => return Err(relay_end(&error)),
            }
            let mut rest = self.back.as_slice();
            while let Some((length, behind)) = rest.split_first_chunk::<4>() {
                let length = u32::from_le_bytes(*length) as usize;
                let (payload, behind) = behind.split_at(length.min(behind.len()));
                leg.send(payload).map_err(|error| leg_end(side, &error))?;
                rest = behind;
            }
            self.back.clear();
        }
    }
}

/// What the relay says while one leg is being heard.
struct Towards<'a> {
    side: Side,
    leg: &'a mut Leg,
    back: &'a mut Vec<u8>,
    failed: Option<LegError>,
}

impl Outbox for Towards<'_> {
    fn put(&mut self, to: Side, payload: &[u8]) {
        if to == self.side {
            if let Err(error) = self.leg.send(payload) {
                self.failed.get_or_insert(error);
            }
        } else if let Ok(length) = u32::try_from(payload.len()) {
            self.back.extend_from_slice(&length.to_le_bytes());
            self.back.extend_from_slice(payload);
        }
    }
}

/// What the relay says while neither leg is being heard.
struct Both<'a> {
    legs: &'a mut [LegSocket; 2],
    failed: Option<(Side, LegError)>,
}

impl<'a> Both<'a> {
    fn new(legs: &'a mut [LegSocket; 2]) -> Self {
        Self { legs, failed: None }
    }

    fn end(self) -> Result<(), EndCause> {
        self.failed.map_or(Ok(()), |(side, error)| Err(leg_end(side, &error)))
    }
}

impl Outbox for Both<'_> {
    fn put(&mut self, to: Side, payload: &[u8]) {
        if let Err(error) = self.legs[at(to)].leg.send(payload) {
            self.failed.get_or_insert((to, error));
        }
    }
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
