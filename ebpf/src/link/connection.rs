//! One connection to the log after the other.

use super::address::Address;
use super::identity::{Identity, IdentityError};
use crate::evidence::{Shared, Telling, spooled_event};
use crate::sensor::{Found, PolicyRules, SensorError, TakenDown, Tuple};
use crate::sessions::{Session, Sessions};
use crate::spool::SpoolError;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use custody_core::clock::{Clock as _, SystemClock};
use custody_core::event::{SessionId, node};
use custody_core::ingest::ALIVE_MILLISECONDS;
use custody_core::ingest::frame::FRAME_BYTES_MAX;
use custody_core::ingest::halves::{self, HalfError};
use custody_core::ingest::message::{BATCH_EVENTS_MAX, Expected, MessageError, Said, Told, encode_events};
use custody_core::policy::files;
use custody_core::policy::networks::{self, Reach};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use uuid::Uuid;

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
    /// For each batch: events sent up to its end, and the spool's position behind it.
    batches: VecDeque<(u64, u64)>,
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
    // All of them end with this set, when this function returns.
    let mut tasks = JoinSet::new();
    tasks.spawn(async { halves::hear(read, to_us, Told::decode).await.into() });
    tasks.spawn(async { halves::speak(write, to_say).await.into() });
    tasks.spawn(obey(Arc::clone(link), orders, say.clone()));
    let mut spooled = link.shared.spooled.subscribe();
    let mut unready = link.shared.unready.subscribe();
    unready.mark_changed();
    let mut alive = tokio::time::interval(Duration::from_millis(ALIVE_MILLISECONDS));
    let mut certificate = tokio::time::interval(LOOK_AT_CERTIFICATE);
    let mut outgoing = Outgoing { next: link.shared.spool().first(), read: VecDeque::new() };
    let mut in_flight = InFlight::default();
    loop {
        let batch = if in_flight.batches.len() < BATCHES_IN_FLIGHT_MAX {
            match outgoing.batch(&link.shared) {
                Ok(batch) => batch,
                Err(error) => return error.into(),
            }
        } else {
            None
        };
        let body = if let Some(events) = batch {
            let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
            in_flight.events = in_flight.events.saturating_add(count);
            in_flight.batches.push_back((in_flight.events, outgoing.next));
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
                        Told::Acknowledged { events } => acknowledged(link, &mut in_flight, events),
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
    /// The events of the next batch, once there is one.
    fn batch(&mut self, shared: &Shared) -> Result<Option<Vec<Vec<u8>>>, SpoolError> {
        let ends_batch = |(_, record): &(u64, Vec<u8>)| spooled_event(record).is_some_and(|(ends, _)| ends);
        let mut spool = shared.spool();
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
                return Ok(Some(events.map(|(_, event)| event.to_vec()).collect()));
            }
            // A batch without all of its events is signed for nothing: the log sees the gap in the numbers.
            tracing::error!("the disk has lost a part of a batch of events: it can't be sent");
            spool.acknowledge(self.next);
        }
    }
}

fn acknowledged(link: &Link, in_flight: &mut InFlight, events: u64) {
    let mut behind = None;
    while let Some((_, position)) = in_flight.batches.pop_front_if(|(up_to, _)| *up_to <= events) {
        behind = Some(position);
    }
    if let Some(position) = behind {
        link.shared.spool().acknowledge(position);
    }
}

/// Does what the log says, one thing after the other: of two words about a session the later must hold.
async fn obey(link: Arc<Link>, mut orders: mpsc::Receiver<Told>, say: mpsc::Sender<Vec<u8>>) -> LinkError {
    while let Some(told) = orders.recv().await {
        let link = Arc::clone(&link);
        // Files are written and synced.
        let said = match tokio::task::spawn_blocking(move || take_word(&link, told)).await {
            Ok(Some(said)) => said,
            Ok(None) => continue,
            Err(_) => return LinkError::Stopped,
        };
        let body = match said.encode() {
            Ok(body) => body,
            Err(error) => return error.into(),
        };
        if say.send(body).await.is_err() {
            return LinkError::Stopped;
        }
    }
    LinkError::Stopped
}

/// Does one thing that the log says; there may be an answer.
fn take_word(link: &Link, told: Told) -> Option<Said> {
    let shared = &link.shared;
    match told {
        Told::Expect(expected) => {
            let session = expected.session;
            let expected = able(&link.joined, &expected.reach).and_then(|()| expect(shared, *expected));
            return Some(match expected {
                Ok(()) => Said::Expecting { session },
                Err(reason) => Said::Refused { session, reason },
            });
        }
        Told::Live { sessions } => only(shared, &sessions),
        Told::Over { session } => over(shared, session),
        Told::Reach { change, session, reach } => {
            let able = able(&link.joined, &reach);
            let taken = set_reach(shared, session, reach);
            let told = taken.and_then(|taken| tell_taken(&link.tell, taken));
            return Some(match able.and(told).and_then(|()| followed(shared, session)) {
                Ok(()) => Said::Held { change, session },
                Err(reason) => {
                    tracing::error!(%session, "what the session may reach now isn't enforced: {reason}");
                    Said::Unheld { change, reason, session }
                }
            });
        }
        Told::Certificate { certificate } => match link.identity.certified(&certificate) {
            Ok(()) => tracing::info!("got a new certificate"),
            Err(error) => tracing::error!("the new certificate can't be kept: {error}"),
        },
        Told::Alive | Told::Acknowledged { .. } => {}
    }
    None
}

/// Whether the kernel can hold a session to that: the log asks only for what it can, as this agent has said of it.
fn able(joined: &node::Joined, reach: &Reach) -> Result<(), String> {
    if !reach.files.deny_paths.is_empty() {
        files::keeps_paths(joined.tier, &joined.limits)
            .map_err(|why| format!("it can't keep files from it: {why}"))?;
    }
    if reach.allow.is_some() || !reach.deny.is_empty() {
        networks::keeps_networks(&joined.limits)
            .map_err(|why| format!("it can't keep networks from it: {why}"))?;
    }
    Ok(())
}

/// Has the kernel wait for a session's connection.
fn expect(shared: &Shared, expected: Expected) -> Result<(), String> {
    let id = expected.session;
    let (rules, found) = looked_up(shared, &expected.reach)?;
    let _changing = shared.changing();
    let policy = shared.sessions().new_policy();
    // Before it is remembered: each start would else try what can't be.
    shared.sensor().set_policy_of(policy, &rules, &found).map_err(|error| error.to_string())?;
    let running = || {
        let tagged = shared.sensor().tagged();
        tagged.map(|of| of.into_keys().map(|id| SessionId(Uuid::from_bytes(id))).collect())
    };
    let forgotten = shared.sessions().expect(expected, policy, running);
    if let Err(error) = remember(shared) {
        shared.sessions().unexpect(id);
        let dropped = shared.sensor().drop_policy(policy).err().map(|error| format!("; {error}"));
        return Err(format!("{error}{}", dropped.unwrap_or_default()));
    }
    let tuple = shared.sessions().get(id).map(Session::tuple);
    let tuple = tuple.ok_or("it was forgotten")?;
    let watched = await_connection(shared, id, tuple, policy, &forgotten);
    if watched.is_err() {
        shared.sessions().over(id);
    }
    watched.map_err(|error| error.to_string())
}

/// From here on the kernel waits for it, and no longer knows what nobody needs any more.
fn await_connection(
    shared: &Shared,
    id: SessionId,
    tuple: Tuple,
    policy: u32,
    forgotten: &[u32],
) -> Result<(), SensorError> {
    let mut sensor = shared.sensor();
    sensor.expect(tuple, id.0.into_bytes(), policy)?;
    forgotten.iter().try_for_each(|policy| sensor.drop_policy(*policy))
}

/// Writes the sessions as they are now to the disk, while nobody waits for the lock on them or on the sensor. They are changed, and so
/// written, by one at a time ([`Shared::changing`]): no older state takes the place of a later one.
fn remember(shared: &Shared) -> Result<(), String> {
    let snapshot = shared.sessions().snapshot();
    let kept = snapshot.and_then(|snapshot| snapshot.keep());
    kept.map_err(|error| format!("it can't be remembered: {error}"))
}

/// What the kernel is to hold a session to, and what the paths of that lead to: looked up while nobody waits for a lock.
fn looked_up(shared: &Shared, reach: &Reach) -> Result<(PolicyRules, Found), String> {
    let rules = shared.sessions().rules(reach);
    let found = Found::of(&rules.files)?;
    Ok((rules, found))
}

/// Those that the log doesn't name are over, as far as this agent didn't know that.
fn only(shared: &Shared, live: &BTreeSet<SessionId>) {
    let _changing = shared.changing();
    let mut sessions = shared.sessions();
    for id in sessions.only(live) {
        forget(shared, &sessions, id);
    }
}

fn over(shared: &Shared, id: SessionId) {
    let _changing = shared.changing();
    let mut sessions = shared.sessions();
    sessions.over(id);
    forget(shared, &sessions, id);
}

/// Has the kernel no longer wait for a session's connection.
fn forget(shared: &Shared, sessions: &Sessions, id: SessionId) {
    let Some(session) = sessions.get(id) else { return };
    if let Err(error) = shared.sensor().forget(&session.tuple()) {
        tracing::error!(session = %id, "the session's connection is still waited for: {error}");
    }
}

/// Holds a session to what it may reach now, and takes down what it has open elsewhere. One that can't be held to it may do
/// nothing any more.
fn set_reach(shared: &Shared, id: SessionId, reach: Reach) -> Result<Vec<TakenDown>, String> {
    let looked_up = looked_up(shared, &reach);
    let _changing = shared.changing();
    let policy = shared.sessions().get(id).map(|session| session.policy);
    let policy = policy.ok_or("the agent doesn't know the session")?;
    let set = looked_up.and_then(|(rules, found)| {
        let set = shared.sensor().set_policy_of(policy, &rules, &found);
        set.map_err(|error| error.to_string())
    });
    if set.is_err() {
        shared.sensor().drop_policy(policy).map_err(|error| error.to_string())?;
    }
    // In any case: at the next start, too, it is held to this, or may do nothing.
    shared.sessions().reach(id, reach);
    remember(shared)?;
    set?;
    let taken = shared.sensor().take_down(policy);
    taken.map_err(|error| error.to_string())
}

/// Whether nothing of a session leads around what networks it may reach: a socket that it made before may.
fn followed(shared: &Shared, id: SessionId) -> Result<(), String> {
    let sessions = shared.sessions();
    let restricted = sessions.get(id).filter(|of| of.reach.allow.is_some() || !of.reach.deny.is_empty());
    let Some(session) = restricted else { return Ok(()) };
    if shared.sensor().unfollowed(session.policy).map_err(|error| error.to_string())? {
        return Err("it has made sockets before whose packets can't be kept from a network".to_owned());
    }
    Ok(())
}

/// Tells what was taken down; what couldn't be goes on, which the log must hear.
fn tell_taken(tell: &Sender<Telling>, taken: Vec<TakenDown>) -> Result<(), String> {
    let mut outcome = Ok(());
    for TakenDown { connection, ended } in taken {
        if let Err(why) = ended {
            outcome = Err(format!("a connection to a network that is denied now goes on: {why}"));
        } else if tell.send(Telling::TakenDown(Box::new(connection))).is_err() {
            tracing::error!("a connection was taken down, and nobody is there to tell it");
        }
    }
    outcome
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
