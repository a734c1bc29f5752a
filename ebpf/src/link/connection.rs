//! One connection to the log after the other.

use super::identity::{Identity, IdentityError};
use crate::evidence::{Shared, Telling, spooled_event};
use crate::sensor::{SensorError, TakenDown};
use crate::spool::SpoolError;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use custody_core::clock::{Clock as _, SystemClock};
use custody_core::event::{SessionId, node};
use custody_core::ingest::frame::{self, FRAME_BYTES_MAX, TooLong};
use custody_core::ingest::message::{BATCH_EVENTS_MAX, Expected, MessageError, Said, Told, encode_events};
use custody_core::ingest::{ALIVE_MILLISECONDS, SILENCE_MILLISECONDS_MAX};
use custody_core::policy::networks::Reach;
use rustls::pki_types::ServerName;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
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
const SILENCE: Duration = Duration::from_millis(SILENCE_MILLISECONDS_MAX);
/// How often it is looked whether the certificate is old.
const LOOK_AT_CERTIFICATE: Duration = Duration::from_secs(3600);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The server's address isn't one.
    #[error("{0} is no address of a server: https://host:port")]
    Address(String),
    /// The agent's identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The network, or TLS.
    #[error("the log can't be reached: {0}")]
    Io(#[from] std::io::Error),
    /// It didn't answer.
    #[error("nothing was heard of the log for {} s", SILENCE.as_secs())]
    Silence,
    /// It sent what no log sends.
    #[error(transparent)]
    Frame(#[from] TooLong),
    /// It sent what no log sends.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The spool can't be read.
    #[error(transparent)]
    Spool(#[from] SpoolError),
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
    /// To the scribe.
    pub tell: SyncSender<Telling>,
}

/// Connects, and connects again when that ends; as long as the program runs.
pub async fn keep_connected(link: Link) {
    let mut pause = PAUSE_MIN;
    let mut said_why = None;
    loop {
        match connect(&link).await {
            Ok(stream) => {
                tracing::info!("connected to the log");
                let ended = converse(&link, stream).await;
                tracing::warn!("the connection to the log ended: {ended}");
                pause = PAUSE_MIN;
                said_why = None;
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
    let wrong = || LinkError::Address(server.clone());
    let authority = server.strip_prefix("https://").ok_or_else(wrong)?.trim_end_matches('/');
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name).map_err(|_| wrong())?;
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:443") };
    let tls = TlsConnector::from(link.identity.tls()?);
    let connecting = async {
        let stream = TcpStream::connect(&address).await?;
        stream.set_nodelay(true)?;
        tls.connect(name, stream).await
    };
    match tokio::time::timeout(CONNECT_MAX, connecting).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(LinkError::Silence),
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

/// What comes in, and what is done by the way.
enum Happened {
    Told(Told),
    Answer(Said),
}

async fn converse(link: &Link, stream: TlsStream<TcpStream>) -> LinkError {
    let (read, write) = tokio::io::split(stream);
    let (to_us, mut happened) = mpsc::channel(WAITING_MAX);
    let (say, to_say) = mpsc::channel::<Vec<u8>>(WAITING_MAX);
    // All of them end with this set, when this function returns.
    let mut tasks = JoinSet::new();
    tasks.spawn(hear(read, to_us.clone()));
    tasks.spawn(speak(write, to_say));
    // Asked after the connection stands, so that a log that counted this agent as lost hears that it is back.
    if link.tell.try_send(Telling::Joined(link.joined.clone())).is_err() {
        return LinkError::Stopped;
    }
    let mut spooled = link.shared.spooled.subscribe();
    let mut unready = link.shared.unready.subscribe();
    unready.mark_changed();
    let mut alive = tokio::time::interval(Duration::from_millis(ALIVE_MILLISECONDS));
    let mut certificate = tokio::time::interval(LOOK_AT_CERTIFICATE);
    let mut next = link.shared.spool().first();
    let mut in_flight = InFlight::default();
    loop {
        let may_send = in_flight.batches.len() < BATCHES_IN_FLIGHT_MAX;
        if may_send {
            match read_batch(link, next) {
                Ok(Some((events, behind))) => {
                    let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
                    let body = encode_events(events.iter().map(Vec::as_slice));
                    next = behind;
                    in_flight.events = in_flight.events.saturating_add(count);
                    in_flight.batches.push_back((in_flight.events, behind));
                    if let Err(error) = send(&say, body).await {
                        return ended(&mut tasks, error).await;
                    }
                    continue;
                }
                Ok(None) => {}
                Err(error) => return error.into(),
            }
        }
        let said = tokio::select! {
            ended = tasks.join_next() => return match ended {
                Some(Ok(ended)) => ended,
                Some(Err(_)) | None => LinkError::Stopped,
            },
            changed = spooled.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return LinkError::Stopped,
            },
            Some(happened) = happened.recv() => match happened {
                Happened::Answer(said) => said,
                Happened::Told(Told::Acknowledged { events }) => {
                    acknowledged(link, &mut in_flight, events);
                    continue;
                }
                Happened::Told(told) => {
                    take_word(link, told, to_us.clone());
                    continue;
                }
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
            _ = alive.tick() => Said::Alive,
        };
        let sent = match said.encode() {
            Ok(body) => send(&say, body).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = sent {
            return ended(&mut tasks, error).await;
        }
    }
}

/// Why the tasks ended, where they have.
async fn ended(tasks: &mut JoinSet<LinkError>, error: LinkError) -> LinkError {
    match error {
        LinkError::Stopped => match tasks.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(_)) | None => LinkError::Stopped,
        },
        other => other,
    }
}

async fn send(say: &mpsc::Sender<Vec<u8>>, body: Vec<u8>) -> Result<(), LinkError> {
    match tokio::time::timeout(SILENCE, say.send(body)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(LinkError::Stopped),
        Err(_) => Err(LinkError::Silence),
    }
}

/// A batch's events, and the spool's position behind it.
type SpooledBatch = (Vec<Vec<u8>>, u64);

/// The batch that begins at `from`, or behind what the disk has lost of it, and the position behind it.
fn read_batch(link: &Link, from: u64) -> Result<Option<SpooledBatch>, SpoolError> {
    let mut spool = link.shared.spool();
    let mut from = from;
    loop {
        let records = spool.read(from, BATCH_EVENTS_MAX, FRAME_BYTES_MAX)?;
        let Some((first, _)) = records.first() else { return Ok(None) };
        let mut expected = *first;
        let mut events = Vec::new();
        let mut whole = *first == from;
        for (position, record) in &records {
            whole &= *position == expected;
            expected = position.saturating_add(1);
            let Some((is_last, event)) = spooled_event(record) else {
                whole = false;
                continue;
            };
            events.push(event.to_vec());
            if is_last {
                break;
            }
        }
        if whole {
            return Ok(Some((events, expected)));
        }
        // A batch without all of its events is signed for nothing: the log sees the gap in the numbers.
        tracing::error!("the disk has lost a part of a batch of events: it can't be sent");
        spool.acknowledge(expected);
        from = expected;
    }
}

fn acknowledged(link: &Link, in_flight: &mut InFlight, events: u64) {
    let mut behind = None;
    while let Some((up_to, position)) =
        in_flight.batches.front().copied().filter(|(up_to, _)| *up_to <= events)
    {
        debug_assert!(up_to <= events);
        in_flight.batches.pop_front();
        behind = Some(position);
    }
    if let Some(position) = behind {
        link.shared.spool().acknowledge(position);
    }
}

/// Does what the log says; an answer goes to `answers`.
fn take_word(link: &Link, told: Told, answers: mpsc::Sender<Happened>) {
    let shared = Arc::clone(&link.shared);
    let (identity, tell) = (link.identity.clone(), link.tell.clone());
    // Files are written and synced.
    tokio::task::spawn_blocking(move || match told {
        Told::Expect(expected) => {
            let session = expected.session;
            let answer = match expect(&shared, *expected) {
                Ok(()) => Said::Expecting { session },
                Err(reason) => Said::Refused { session, reason },
            };
            // A connection that is gone gets its sessions' answers no more: they aren't opened.
            let _gone = answers.blocking_send(Happened::Answer(answer));
        }
        Told::Over { session } => over(&shared, session),
        Told::Reach { session, reach } => match set_reach(&shared, session, reach) {
            Ok(taken) => taken.into_iter().for_each(|taken| tell_taken(&tell, taken)),
            Err(error) => {
                tracing::error!(%session, "what the session may reach couldn't be changed: {error}");
            }
        },
        Told::Certificate { certificate } => match identity.certified(&certificate) {
            Ok(()) => tracing::info!("got a new certificate"),
            Err(error) => tracing::error!("the new certificate can't be kept: {error}"),
        },
        Told::Alive | Told::Acknowledged { .. } => {}
    });
}

/// Has the kernel wait for a session's connection.
fn expect(shared: &Shared, expected: Expected) -> Result<(), String> {
    let id = expected.session;
    let mut sessions = shared.sessions();
    let rules = sessions.rules(&expected.reach);
    let forgotten = sessions.expect(expected).map_err(|error| format!("it can't be remembered: {error}"))?;
    let session = sessions.get(id).ok_or("it was forgotten")?;
    let mut sensor = shared.sensor();
    let mut watch = || {
        sensor.set_policy(session.policy, &rules)?;
        sensor.expect(session.tuple(), id.0.into_bytes(), session.policy)?;
        for policy in &forgotten {
            sensor.drop_policy(*policy)?;
        }
        Ok::<_, SensorError>(())
    };
    watch().map_err(|error| error.to_string())
}

fn over(shared: &Shared, id: SessionId) {
    let mut sessions = shared.sessions();
    sessions.over(id);
    let Some(session) = sessions.get(id) else { return };
    if let Err(error) = shared.sensor().forget(&session.tuple()) {
        tracing::error!(session = %id, "the session's connection is still waited for: {error}");
    }
}

/// Holds a session to what it may reach now, and takes down what it has open elsewhere.
fn set_reach(shared: &Shared, id: SessionId, reach: Reach) -> Result<Vec<TakenDown>, String> {
    let mut sessions = shared.sessions();
    let rules = sessions.rules(&reach);
    let Some(policy) = sessions.get(id).map(|session| session.policy) else { return Ok(Vec::new()) };
    sessions.reach(id, reach).map_err(|error| error.to_string())?;
    let mut sensor = shared.sensor();
    let set = sensor.set_policy(policy, &rules).and_then(|()| sensor.take_down(policy));
    set.map_err(|error| error.to_string())
}

fn tell_taken(tell: &SyncSender<Telling>, taken: TakenDown) {
    if let Err(why) = taken.ended {
        return tracing::error!("a connection to a network that is denied now goes on: {why}");
    }
    if tell.send(Telling::TakenDown(Box::new(taken.connection))).is_err() {
        tracing::error!("a connection was taken down, and nobody is there to tell it");
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

async fn hear<S: AsyncRead>(mut read: ReadHalf<S>, to: mpsc::Sender<Happened>) -> LinkError {
    loop {
        let told = match tokio::time::timeout(SILENCE, next(&mut read)).await {
            Ok(Ok(told)) => told,
            Ok(Err(ended)) => return ended,
            Err(_) => return LinkError::Silence,
        };
        if to.send(Happened::Told(told)).await.is_err() {
            return LinkError::Stopped;
        }
    }
}

async fn next<S: AsyncRead>(read: &mut ReadHalf<S>) -> Result<Told, LinkError> {
    let mut head = [0; 4];
    read.read_exact(&mut head).await?;
    let mut body = vec![0; frame::length(head)?];
    read.read_exact(&mut body).await?;
    Ok(Told::decode(&body)?)
}

async fn speak<S: AsyncWrite>(mut write: WriteHalf<S>, mut from: mpsc::Receiver<Vec<u8>>) -> LinkError {
    while let Some(body) = from.recv().await {
        let said = async {
            write.write_all(&frame::encode(&body)?).await?;
            write.flush().await?;
            Ok::<_, LinkError>(())
        };
        match tokio::time::timeout(SILENCE, said).await {
            Ok(Ok(())) => {}
            Ok(Err(ended)) => return ended,
            Err(_) => return LinkError::Silence,
        }
    }
    LinkError::Stopped
}
