//! One connection to the log after the other.

use super::address::Address;
use super::identity::{Identity, IdentityError};
use super::obey::obey;
use crate::evidence::{Shared, Telling, spooled_event};
use crate::spool::{Spool, SpoolError};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use custody_core::clock::{Clock as _, SystemClock};
use custody_core::event::{Head, SessionId, node};
use custody_core::ingest::ALIVE_MILLISECONDS;
use custody_core::ingest::frame::FRAME_BYTES_MAX;
use custody_core::ingest::halves::{self, HalfError};
use custody_core::ingest::message::{BATCH_EVENTS_MAX, MessageError, Said, Told, encode_events};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Batches that were sent and aren't acknowledged yet.
const BATCHES_IN_FLIGHT_MAX: usize = 8;
/// Messages that wait for the network.
const WAITING_MAX: usize = 4;
/// How long it is waited before the next connection: the first time, and at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether the certificate is old.
const LOOK_AT_CERTIFICATE: Duration = Duration::from_secs(3600);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The server's address isn't one.
    #[error(
        "{0} is no address of a server: https://host:port, or of IPv6 https://[address]:port; let the agent join anew"
    )]
    Address(String),
    /// The agent's identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The network, or TLS.
    #[error("the log can't be reached: {0}")]
    Io(#[from] std::io::Error),
    /// It didn't answer.
    #[error("the log didn't answer within {} s", CONNECT_MAX.as_secs())]
    NoAnswer,
    /// The connection, once it stood.
    #[error(transparent)]
    Half(#[from] HalfError),
    /// What is to be said can't be written: a mistake in this program.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The spool can't be read.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// No evidence is taken, so the node is as good as unwatched: the log is to see that.
    #[error("{0}")]
    Still(String),
    /// The program stops.
    #[error("the agent stops")]
    Stopped,
}

/// What the link needs besides what it shares with the scribe.
pub struct Link {
    /// What it shares.
    pub shared: Arc<Shared>,
    /// Who the agent is.
    pub identity: Identity,
    /// What it says of itself at each connect.
    pub joined: node::Joined,
    /// To the scribe. Without a limit, since whoever waits here for the scribe also frees the room that the scribe may wait for.
    pub tell: Sender<Telling>,
    /// Whose words count.
    pub(super) newest: Newest,
    /// Sessions whose connections have come in, by what was sent to the log, and which weren't noted as that yet.
    accepted: Mutex<Vec<SessionId>>,
}

impl Link {
    /// One that hasn't connected yet.
    #[must_use]
    pub fn new(shared: Arc<Shared>, identity: Identity, joined: node::Joined, tell: Sender<Telling>) -> Self {
        Self { shared, identity, joined, tell, newest: Newest::default(), accepted: Mutex::default() }
    }

    /// To be noted before the log hears of it, which lets sessions begin by that. Without the lock on the sessions: these events are few, and
    /// whoever has that may wait for a disk.
    fn note_accepted(&self, events: &[Vec<u8>]) {
        let accepted: Vec<SessionId> = events.iter().filter_map(|event| accepted(event)).collect();
        if !accepted.is_empty() {
            self.accepted().extend(accepted);
        }
    }

    /// Those that were noted since the last time.
    pub(super) fn take_accepted(&self) -> Vec<SessionId> {
        std::mem::take(&mut *self.accepted())
    }

    fn accepted(&self) -> MutexGuard<'_, Vec<SessionId>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which connection's words count: the newest one's. What came over one before may still be on its way when that has ended, in a thread that
/// waits for a disk; what it says may be old by then.
#[derive(Debug, Default)]
pub(super) struct Newest(AtomicU64);

impl Newest {
    /// Another connection begins; gives its number.
    fn begin(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Leave to change sessions by what came over that connection: the lock on changes ([`Shared::changing`]), for which what a later one says
    /// has to wait then. None, where a later one has begun.
    pub(super) fn leave<'a>(
        &self,
        connection: u64,
        changing: MutexGuard<'a, ()>,
    ) -> Option<MutexGuard<'a, ()>> {
        (self.0.load(Ordering::Relaxed) == connection).then_some(changing)
    }
}

/// How an event ends that says that a session's connection has come in: the fields of events are sorted by their names.
const ACCEPTED: &[u8] = br#""type":"node.session-accepted","version":1}"#;

/// The session whose connection has come in, where an event says that.
fn accepted(event: &[u8]) -> Option<SessionId> {
    if !event.ends_with(ACCEPTED) {
        return None;
    }
    Head::parse(event).ok()?.session
}

/// Why a connection ended over which the log has said nothing, as far as can be told here.
const UNHEARD: &str = "the log has ended the connection without a word; where that goes on, this agent's certificate is over, the \
    node was removed, or another agent has joined for it: custodyd node join with a new token";

/// Connects, and connects again when that ends; as long as the program runs.
pub async fn keep_connected(link: Link) {
    let link = Arc::new(link);
    let mut pause = PAUSE_MIN;
    let (mut said_why, mut refused) = (None, false);
    loop {
        // One that nobody writes evidence for is not there.
        while stands_still(&link).is_some() {
            tokio::time::sleep(pause).await;
        }
        match connect(&link).await {
            Ok(stream) => {
                let (before, mut heard) = (link.shared.spool().first(), false);
                let ended = converse(&link, stream, refused, &mut heard).await;
                refused = matches!(ended, LinkError::Half(HalfError::Message(MessageError::Refused(_))));
                let what = if heard || refused { "the connection to the log ended" } else { UNHEARD };
                // What is refused, and what nobody answers, comes again and again.
                let again = if refused { ended.to_string() } else { what.to_owned() };
                if heard || said_why.as_ref() != Some(&again) {
                    tracing::warn!("{what}: {ended}");
                }
                said_why = (refused || !heard).then_some(again);
                // Each connection is told of: one after the other that takes nothing would fill the spool.
                let taken = link.shared.spool().first() != before;
                pause = if taken { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            }
            Err(error) => {
                let why = error.to_string();
                if said_why.as_ref() != Some(&why) {
                    tracing::warn!("{why}; will be tried again");
                    said_why = Some(why);
                }
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn connect(link: &Link) -> Result<TlsStream<TcpStream>, LinkError> {
    let server = link.identity.membership()?.server;
    let address = Address::parse(&server).ok_or(LinkError::Address(server))?;
    let tls = TlsConnector::from(link.identity.tls()?);
    let connecting = async {
        let stream = address.connect().await?;
        stream.set_nodelay(true)?;
        tls.connect(address.name(), stream).await
    };
    match tokio::time::timeout(CONNECT_MAX, connecting).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(LinkError::NoAnswer),
    }
}

/// What was sent and isn't acknowledged.
#[derive(Default)]
struct InFlight {
    /// Events sent over this connection.
    events: u64,
    /// For each batch: events sent up to its end, and the spool's position behind it and what is passed over after it.
    batches: VecDeque<(u64, u64)>,
}

impl InFlight {
    /// A batch of so many events is sent, which ends before that position.
    fn sent(&mut self, events: usize, behind: u64) {
        let count = u64::try_from(events).unwrap_or(u64::MAX);
        self.events = self.events.saturating_add(count);
        self.batches.push_back((self.events, behind));
    }

    /// What stands up to that position is never sent. It goes with the batches before it, which the log hasn't got yet.
    fn passed_over(&mut self, behind: u64, spool: &mut Spool) {
        match self.batches.back_mut() {
            Some((_, position)) => *position = behind,
            None => spool.acknowledge(behind),
        }
    }

    /// The log has so many events.
    fn acknowledged(&mut self, events: u64, spool: &mut Spool) {
        let mut behind = None;
        while let Some((_, position)) = self.batches.pop_front_if(|(up_to, _)| *up_to <= events) {
            behind = Some(position);
        }
        if let Some(position) = behind {
            spool.acknowledge(position);
        }
    }
}

/// What is sent next.
struct Outgoing {
    /// The spool's position.
    next: u64,
    /// Records from there on that were read already.
    read: VecDeque<(u64, Vec<u8>)>,
}

/// Until the connection ends. `refused`: over the one before, the log took nothing. `heard`: the log has said something over it, or where
/// it had refused, that it has taken something. Before that nobody knows whether it takes anything from this
/// agent, since it looks at the certificate when our side of TLS is done (RFC 8446, section 4.4.4).
async fn converse(
    link: &Arc<Link>,
    stream: TlsStream<TcpStream>,
    refused: bool,
    heard: &mut bool,
) -> LinkError {
    let (read, write) = tokio::io::split(stream);
    let (to_us, mut told) = mpsc::channel(WAITING_MAX);
    let (say, to_say) = mpsc::channel(WAITING_MAX);
    let (order, orders) = mpsc::channel(WAITING_MAX);
    let connection = link.newest.begin();
    // All of them end with this set, when this function returns.
    let mut tasks = JoinSet::new();
    tasks.spawn(async { halves::hear(read, to_us, Told::decode).await.into() });
    tasks.spawn(async { halves::speak(write, to_say).await.into() });
    tasks.spawn(obey(Arc::clone(link), connection, orders, say.clone()));
    let mut spooled = link.shared.spooled.subscribe();
    let mut unready = link.shared.unready.subscribe();
    unready.mark_changed();
    let mut alive = tokio::time::interval(Duration::from_millis(ALIVE_MILLISECONDS));
    let mut certificate = tokio::time::interval(LOOK_AT_CERTIFICATE);
    let mut outgoing = Outgoing { next: link.shared.spool().first(), read: VecDeque::new() };
    let mut in_flight = InFlight::default();
    loop {
        let batch = if in_flight.batches.len() < BATCHES_IN_FLIGHT_MAX {
            let batch = outgoing.batch(&mut link.shared.spool(), &mut in_flight);
            match batch {
                Ok(batch) => batch,
                Err(error) => return error.into(),
            }
        } else {
            None
        };
        let body = if let Some(events) = batch {
            link.note_accepted(&events);
            Ok(encode_events(events.iter().map(Vec::as_slice)))
        } else {
            let said = tokio::select! {
                ended = tasks.join_next() => return why(ended),
                changed = spooled.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return LinkError::Stopped,
                },
                Some(told) = told.recv() => {
                    let is_back = !refused || matches!(told, Told::Acknowledged { .. });
                    if is_back && !std::mem::replace(heard, true) {
                        tracing::info!("connected to the log");
                        // So that a log that counted this agent as lost hears that it is back.
                        link.shared.connected.store(true, Ordering::Relaxed);
                    }
                    match told {
                        Told::Alive => {}
                        Told::Acknowledged { events } => {
                            in_flight.acknowledged(events, &mut link.shared.spool());
                        }
                        told => {
                            if order.send(told).await.is_err() {
                                return why(tasks.join_next().await);
                            }
                        }
                    }
                    continue;
                },
                _ = unready.changed() => match unready.borrow_and_update().clone() {
                    Some(reason) => Said::Unready { reason },
                    None => Said::Ready,
                },
                _ = certificate.tick() => match renewal(link) {
                    Ok(Some(said)) => said,
                    Ok(None) => continue,
                    Err(error) => {
                        tracing::warn!("no new certificate can be asked for: {error}");
                        continue;
                    }
                },
                _ = alive.tick() => match stands_still(link) {
                    None => Said::Alive,
                    Some(reason) => return LinkError::Still(reason),
                },
            };
            said.encode()
        };
        let body = match body {
            Ok(body) => body,
            Err(error) => return error.into(),
        };
        if say.send(body).await.is_err() {
            return why(tasks.join_next().await);
        }
    }
}

/// Whether the scribe stands still, in a line.
fn stands_still(link: &Link) -> Option<String> {
    let still = link.shared.beat.still(SystemClock::new().monotonic())?;
    Some(format!("no evidence has been taken for {} s: a disk or the kernel doesn't answer", still.as_secs()))
}

/// Why the first of the tasks ended.
fn why(ended: Option<Result<LinkError, JoinError>>) -> LinkError {
    ended.and_then(Result::ok).unwrap_or(LinkError::Stopped)
}

impl Outgoing {
    /// The events of the next batch, once there is one: in flight from here on.
    fn batch(
        &mut self,
        spool: &mut Spool,
        in_flight: &mut InFlight,
    ) -> Result<Option<Vec<Vec<u8>>>, SpoolError> {
        let ends_batch = |(_, record): &(u64, Vec<u8>)| spooled_event(record).is_some_and(|(ends, _)| ends);
        loop {
            let Some(last) = self.read.iter().position(ends_batch) else {
                let from = self.read.back().map_or(self.next, |(position, _)| position.saturating_add(1));
                let more = spool.read(from, BATCH_EVENTS_MAX, FRAME_BYTES_MAX)?;
                if more.is_empty() {
                    return Ok(None);
                }
                self.read.extend(more);
                continue;
            };
            let batch: Vec<_> = self.read.drain(..=last).collect();
            let whole = batch.iter().zip(self.next..).all(|((position, _), expected)| *position == expected);
            self.next = batch.last().map_or(self.next, |(position, _)| position.saturating_add(1));
            if whole {
                let events = batch.iter().filter_map(|(_, record)| spooled_event(record));
                let events: Vec<_> = events.map(|(_, event)| event.to_vec()).collect();
                in_flight.sent(events.len(), self.next);
                return Ok(Some(events));
            }
            // A batch without all of its events is signed for nothing: the log sees the gap in the numbers.
            tracing::error!("the disk has lost a part of a batch of events: it can't be sent");
            in_flight.passed_over(self.next, spool);
        }
    }
}

/// A question for another certificate, when half of this one's time is over.
fn renewal(link: &Link) -> Result<Option<Said>, IdentityError> {
    let (from, until) = link.identity.validity()?;
    let now = SystemClock::new().wall().0 / 1_000_000_000;
    if now < from.midpoint(until) {
        return Ok(None);
    }
    Ok(Some(Said::Renew { signing_request: BASE64_STANDARD.encode(link.identity.signing_request()?) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::LIMIT_BYTES_MIN;
    use custody_core::event::{Actor, Draft, EventData, ProducerKind, ProducerRef, Timestamp, canonical};
    use uuid::Uuid;

    /// A thread that still does what came over a connection that has ended.
    #[test]
    fn what_came_over_an_earlier_connection_changes_nothing_when_a_later_one_has_begun() {
        let (newest, lock) = (Newest::default(), Mutex::new(()));
        let changing = || lock.lock().unwrap();
        let earlier = newest.begin();
        assert!(newest.leave(earlier, changing()).is_some());
        let later = newest.begin();
        assert!(newest.leave(earlier, changing()).is_none());
        assert!(newest.leave(later, changing()).is_some());
    }

    /// A record as the spool has it.
    fn record(ends_batch: bool) -> Vec<u8> {
        [&[u8::from(ends_batch)][..], &[0; 8], b"event"].concat()
    }

    /// Batches of one event, but for one of three records, the second of which is lost; and the spool that has them.
    fn damaged(directory: &std::path::Path) -> (Spool, Outgoing) {
        let (mut spool, _) = Spool::open(directory, LIMIT_BYTES_MIN).unwrap();
        let records = [record(true), record(false), record(false), record(true), record(true)];
        spool.append(&records.each_ref().map(Vec::as_slice)).unwrap();
        let read = (0..).zip(records).filter(|(position, _)| *position != 2).collect();
        (spool, Outgoing { next: 0, read })
    }

    /// If the connection breaks then, they are sent once more.
    #[test]
    fn what_is_in_flight_before_a_damaged_batch_stays_until_the_log_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let (mut spool, mut outgoing) = damaged(directory.path());
        let mut in_flight = InFlight::default();
        for _ in 0..2 {
            let batch = outgoing.batch(&mut spool, &mut in_flight).unwrap();
            assert_eq!(batch, Some(vec![b"event".to_vec()]));
            assert_eq!(spool.first(), 0);
        }
        assert_eq!(outgoing.batch(&mut spool, &mut in_flight).unwrap(), None);
        in_flight.acknowledged(1, &mut spool);
        assert_eq!(spool.first(), 4, "what is damaged goes with what came before it");
        in_flight.acknowledged(2, &mut spool);
        assert_eq!(spool.first(), 5);
    }

    #[test]
    fn a_damaged_batch_goes_at_once_where_nothing_is_in_flight() {
        let directory = tempfile::tempdir().unwrap();
        let (mut spool, mut outgoing) = damaged(directory.path());
        let mut in_flight = InFlight::default();
        outgoing.batch(&mut spool, &mut in_flight).unwrap();
        in_flight.acknowledged(1, &mut spool);
        assert_eq!(spool.first(), 1);
        outgoing.batch(&mut spool, &mut in_flight).unwrap();
        assert_eq!(spool.first(), 4);
    }

    #[test]
    fn that_a_connection_has_come_in_is_known_by_the_event_that_says_so() {
        fn event<D: EventData>(session: SessionId, data: D) -> Vec<u8> {
            let producer = ProducerRef {
                boot: Uuid::from_u128(1),
                id: node::producer("web-1"),
                kind: ProducerKind::Node,
                seq: 0,
            };
            let draft = Draft::new(Actor::system("test"), data).session(session);
            canonical::event_bytes(&draft.numbered(producer, Timestamp::from_seconds(1))).unwrap()
        }
        let session = SessionId::new();
        assert_eq!(accepted(&event(session, node::SessionAccepted { pid: 1 })), Some(session));
        let joined = node::Joined {
            kernel: r#"","type":"node.session-accepted","version":1}"#.to_owned(),
            limits: std::collections::BTreeMap::new(),
            program: String::new(),
            tier: node::Tier::Lsm,
        };
        assert_eq!(accepted(&event(session, joined)), None);
    }
}
