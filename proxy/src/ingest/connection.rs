//! One agent's connection: what it says is read and checked, what is durable is acknowledged in its order, and what it
//! is to know is told.

use super::agents::Linked;
use super::intake::{Durably, IntakeError, Taken};
use super::refusals::Refusal;
use super::serve::Ingest;
use crate::session::live::EndCause;
use custody_core::event::ProducerRef;
use custody_core::event::session::EndReason;
use custody_core::ingest::ALIVE_MILLISECONDS;
use custody_core::ingest::halves::{self, HalfError};
use custody_core::ingest::message::{FromAgent, MessageError, Said, Told, encode_refusal, one_line};
use custody_core::ingest::signature::claimed;
use custody_core::log::SubmitError;
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

/// Batches that wait for the log's sync; an agent that sends more waits.
const BATCHES_WAITING_MAX: usize = 16;

/// Messages read and not yet looked at.
const MESSAGES_WAITING_MAX: usize = 4;

/// How long a log that is overloaded is left alone.
const OVERLOADED: Duration = Duration::from_millis(20);

/// How long an agent of which nothing is taken has to hear why.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The agent, or the network.
    #[error(transparent)]
    Half(#[from] HalfError),
    /// What is to be said can't be written: a mistake in this program.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Its events can't be taken now.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// What it sends is never taken, and it would send the same again.
    #[error("{0}")]
    Refused(Refusal),
    /// Another connection of the same agent took its place.
    #[error("the agent has connected anew")]
    Replaced,
    /// The program stops.
    #[error("the connection's tasks have ended")]
    Stopped,
}

/// Who an agent is, as its certificate and the log say.
pub(super) struct Who {
    pub node: String,
    pub key: [u8; 32],
}

/// Serves an agent until the connection ends. One of which nothing is taken hears why.
pub(super) async fn serve<S>(ingest: &Ingest, who: &Who, linked: &mut Linked, stream: S) -> Ended
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(stream);
    let (to_us, mut messages) = mpsc::channel(MESSAGES_WAITING_MAX);
    let (say, to_say) = mpsc::channel(MESSAGES_WAITING_MAX);
    // Both end with this set.
    let mut tasks = JoinSet::new();
    tasks.spawn(halves::hear(read, to_us, FromAgent::decode));
    tasks.spawn(halves::speak(write, to_say));
    let ended = converse(ingest, who, linked, &mut messages, &say, &mut tasks).await;
    if let Ended::Refused(refusal) = &ended {
        // Meanwhile it counts as gone already.
        tokio::spawn(say_why(refusal.reason.clone(), messages, say, tasks));
    }
    ended
}

async fn converse(
    ingest: &Ingest,
    who: &Who,
    linked: &mut Linked,
    messages: &mut mpsc::Receiver<FromAgent>,
    say: &mpsc::Sender<Vec<u8>>,
    tasks: &mut JoinSet<HalfError>,
) -> Ended {
    let mut waiting = FuturesOrdered::new();
    let mut acknowledged = 0_u64;
    // A batch isn't taken: nothing that comes after it may overtake it.
    let mut is_over = false;
    let mut alive = tokio::time::interval(Duration::from_millis(ALIVE_MILLISECONDS));
    loop {
        let told = tokio::select! {
            ended = tasks.join_next() => return why(ended),
            Some(message) = messages.recv(), if waiting.len() < BATCHES_WAITING_MAX && !is_over => match message {
                FromAgent::Events(events) => {
                    let taken = take(ingest, who, &events).await;
                    is_over = taken.is_err();
                    let first = taken.is_err().then(|| claimed(&events)).flatten();
                    // In its turn, also where it isn't taken: what came before it is acknowledged first.
                    waiting.push_back(durable(ingest, taken, first));
                    continue;
                }
                FromAgent::Said(said) => match take_word(ingest, who, linked, said).await {
                    Some(answer) => answer,
                    None => continue,
                },
            },
            Some(durable) = waiting.next(), if !waiting.is_empty() => match durable {
                Ok(Durably { events, seen }) => {
                    acknowledged = acknowledged.saturating_add(u64::try_from(events).unwrap_or(u64::MAX));
                    linked.taken();
                    seen.into_iter().for_each(|session| linked.seen(session));
                    Told::Acknowledged { events: acknowledged }
                }
                Err(ended) => return ended,
            },
            told = linked.told.recv() => match told {
                Some(told) => told,
                None => return Ended::Replaced,
            },
            _ = alive.tick() => Told::Alive,
        };
        let body = match told.encode() {
            Ok(body) => body,
            Err(error) => return error.into(),
        };
        if say.send(body).await.is_err() {
            return why(tasks.join_next().await);
        }
    }
}

/// Why the first of the halves ended. What an agent says and can't be read, it would say again.
fn why(ended: Option<Result<HalfError, JoinError>>) -> Ended {
    match ended {
        Some(Ok(HalfError::Message(error))) => {
            Ended::Refused(Refusal { boot: None, reason: one_line(&error.to_string()) })
        }
        Some(Ok(half)) => half.into(),
        Some(Err(_)) | None => Ended::Stopped,
    }
}

/// Says why nothing is taken, and leaves the agent a moment to read it and to end the connection. What is still on its way is read and
/// left, or the kernel would tear the connection down before the word is read: the agent sends it again.
async fn say_why(
    reason: String,
    mut messages: mpsc::Receiver<FromAgent>,
    say: mpsc::Sender<Vec<u8>>,
    mut tasks: JoinSet<HalfError>,
) {
    let said = async {
        if say.send(encode_refusal(&reason)).await.is_err() {
            return;
        }
        drop(say);
        while messages.recv().await.is_some() {}
        while tasks.join_next().await.is_some() {}
    };
    if tokio::time::timeout(LAST_WORD, said).await.is_err() {
        tracing::debug!("an agent didn't end its connection when it was told that nothing is taken of it");
    }
}

/// Waits until a batch is durable; if it isn't, for why the connection ends.
async fn durable(
    ingest: &Ingest,
    taken: Result<Taken, IntakeError>,
    first: Option<ProducerRef>,
) -> Result<Durably, Ended> {
    let durable = match taken {
        Ok(taken) => ingest.intake.durable(taken).await,
        Err(error) => Err(error),
    };
    durable.map_err(|error| match error.refusal(first.as_ref()) {
        Some(refusal) => Ended::Refused(refusal),
        None => Ended::Intake(error),
    })
}

/// Hands a batch to the log, as soon as that takes it.
async fn take(ingest: &Ingest, who: &Who, events: &[Vec<u8>]) -> Result<Taken, IntakeError> {
    loop {
        match ingest.intake.take(&who.node, &who.key, events) {
            Err(IntakeError::Log(SubmitError::Overloaded { .. })) => tokio::time::sleep(OVERLOADED).await,
            taken => return taken,
        }
    }
}

async fn take_word(ingest: &Ingest, who: &Who, linked: &Linked, said: Said) -> Option<Told> {
    match said {
        Said::Alive => {}
        Said::Expecting { session } => linked.expecting(session),
        Said::Refused { session, reason } => linked.refused(session, one_line(&reason)),
        Said::Held { change, session } => linked.held(session, change),
        Said::Unheld { reason, session, .. } => {
            let reason = one_line(&reason);
            if linked.unheld(session, &reason) {
                let detail = format!("{} can't hold it to what it may do now: {reason}", who.node);
                tracing::warn!(%session, "the session ends: {detail}");
                ingest.live.end(session, EndCause { reason: EndReason::Locked, detail, cause: None });
            }
        }
        Said::Unready { reason } => {
            let reason = one_line(&reason);
            tracing::warn!("the agent of {} can't watch new sessions: {reason}", who.node);
            linked.ready(Some(reason));
        }
        Said::Ready => linked.ready(None),
        Said::Renew { signing_request } => match ingest.joining.renew(who, &signing_request).await {
            Ok(certificate) => return Some(Told::Certificate { certificate }),
            Err(error) => tracing::warn!("the agent of {} gets no new certificate: {error}", who.node),
        },
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tls::Shown;
    use crate::ca::Authorities;
    use crate::ca::store::FileKeyStore;
    use crate::ingest::agents::Agents;
    use crate::ingest::intake::{Intake, is_agent};
    use crate::ingest::join::Joining;
    use crate::ingest::serve::server_config;
    use crate::login::secrets::SecretStore;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use custody_core::clock::{Clock, SystemClock};
    use custody_core::event::hex::to_hex;
    use custody_core::event::{
        Actor, Draft, EventData, ProducerKind, Timestamp, canonical, log, node, producer,
    };
    use custody_core::ingest::message::{REASON_CHARS_MAX, encode_events};
    use custody_core::ingest::{frame, signature};
    use custody_core::log::embedded::{EmbeddedLog, Options};
    use custody_core::log::note::Ed25519Signer;
    use custody_core::log::{Log, Numbering, Producer};
    use custody_core::policy::defaults::genesis;
    use custody_core::state::follow::Replica;
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;
    use uuid::Uuid;

    const NODE: &str = "web-1";
    const BOOT: Uuid = Uuid::from_u128(3);

    /// The end of a session and its recording's seal are one batch: what makes the one too long keeps both out of the log.
    #[test]
    fn what_an_agent_says_is_as_short_and_plain_as_it_may_stand_in_an_event() {
        let said = format!("it can't\n\x1b[2J{}", "\u{fc}".repeat(70_000));
        let told = one_line(&said);
        assert_eq!(told.chars().count(), REASON_CHARS_MAX);
        assert!(told.starts_with("it can't  [2J\u{fc}"), "{told}");
    }

    /// What agents reach, with a log that knows this key as that of the node's agent.
    async fn ingest(dir: &Path, key: &[u8; 32]) -> Ingest {
        let at = |name: &str| dir.join(name);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let signer = Arc::new(Ed25519Signer::from_seed("custody.test/log", &[7; 32]).unwrap());
        let options = Options::new(signer, Arc::clone(&clock));
        let shared: Arc<dyn Log> = Arc::new(EmbeddedLog::open(&at("log"), options).unwrap());
        let created =
            log::Created { origin: shared.origin().into(), verifier_key: shared.verifier_key().to_string() };
        let first = genesis(created, "root", 1);
        let decided = first.decision.id;
        let actor = || Actor::system("custodyd");
        let added = node::Added {
            address: "192.0.2.1:22".into(),
            agent: node::Agent::Required,
            host_key: None,
            labels: BTreeMap::new(),
            name: NODE.into(),
        };
        let token = node::TokenCreated {
            expires: Timestamp::from_seconds(4_000_000_000),
            name: NODE.into(),
            secret_version: 1,
        };
        let token = Draft::new(actor(), token).cause(decided);
        let enrolled = node::Enrolled { key: to_hex(key), name: NODE.into() };
        let enrolled = Draft::new(actor(), enrolled).cause(token.id);
        let begun = ((first.created, first.decision, first.role), (first.policy, first.user, first.password));
        let nodes = (Draft::new(actor(), added).cause(decided), token, enrolled);
        let numbering = Numbering {
            log: Arc::clone(&shared),
            clock: Arc::clone(&clock),
            id: "custody".into(),
            kind: ProducerKind::Log,
            previous: None,
            program: "test".into(),
        };
        let producer = Arc::new(Producer::start(numbering, (begun, nodes)).await.unwrap());
        let replica = Arc::new(Replica::new());
        replica.catch_up(&*shared, |_, _| ()).unwrap();
        assert!(
            replica.read(|state| is_agent(state, NODE, key)),
            "{:?}",
            replica.read(|s| s.refused().clone())
        );

        let keys = Arc::new(FileKeyStore::open(&at("keys")).unwrap());
        let now = clock.wall().0 / 1_000_000_000;
        let authorities = Authorities::open(keys, &at("ca"), now).unwrap();
        let server = authorities.x509_server.issue(now, &["localhost".to_owned()], &[], 3600).unwrap();
        let shown = Arc::new(Shown::new(server).unwrap());
        let joining = Joining {
            authority: authorities.x509_agent.clone(),
            secrets: Arc::new(SecretStore::open(&at("secrets")).unwrap()),
            producer: Arc::clone(&producer),
            replica: Arc::clone(&replica),
            clock: Arc::clone(&clock),
            joining: tokio::sync::Mutex::new(()),
        };
        Ingest {
            tls: server_config(&shown, &authorities.x509_agent).unwrap(),
            agents: Arc::new(Agents::default()),
            intake: Intake { log: shared, producer, replica },
            joining: Arc::new(joining),
            live: Arc::default(),
            clock,
        }
    }

    fn numbered<D: EventData>(data: D, seq: u64) -> Vec<u8> {
        let id = node::producer(NODE);
        let draft = Draft::new(Actor::system(&id), data);
        let producer = ProducerRef { boot: BOOT, id, kind: ProducerKind::Node, seq };
        canonical::event_bytes(&draft.numbered(producer, Timestamp::from_seconds(1))).unwrap()
    }

    /// A batch of the node's agent with one event and its signature, as a frame has it; never the same twice.
    fn batch(pair: &Ed25519KeyPair, seq: u64) -> Vec<u8> {
        let event = numbered(node::SessionAccepted { pid: 1 }, seq);
        let root = signature::root([event.as_slice()]);
        let text = signature::statement(&node::producer(NODE), BOOT, seq, seq, &root);
        let signature = to_hex(pair.sign(&text).as_ref());
        let signed = numbered(producer::Signed { first: seq, last: seq, root, signature }, seq + 1);
        encode_events([event.as_slice(), signed.as_slice()])
    }

    /// What becomes of an agent that sends this.
    struct Became {
        ended: Ended,
        /// Events that were acknowledged, and that the log has got.
        acknowledged: u64,
        appended: u64,
        /// The last word that it hears.
        heard: String,
    }

    async fn send(pair: &Ed25519KeyPair, bodies: &[Vec<u8>]) -> Became {
        let dir = tempfile::tempdir().unwrap();
        let key: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
        let ingest = ingest(dir.path(), &key).await;
        let before = ingest.intake.log.size();
        let who = Who { node: NODE.into(), key };
        let mut linked = ingest.agents.connected(NODE, ingest.clock.monotonic());
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let agent = async {
            for body in bodies {
                frame::write(&mut theirs, body).await.unwrap();
            }
            let mut acknowledged = 0;
            loop {
                match Told::decode(&frame::read(&mut theirs).await.unwrap()) {
                    Ok(Told::Acknowledged { events }) => acknowledged = events,
                    Ok(_) => {}
                    Err(error) => return (acknowledged, error.to_string()),
                }
            }
        };
        let (ended, (acknowledged, heard)) = tokio::join!(serve(&ingest, &who, &mut linked, ours), agent);
        Became { ended, acknowledged, appended: ingest.intake.log.size() - before, heard }
    }

    #[tokio::test]
    async fn what_comes_before_a_refused_batch_is_acknowledged_and_what_comes_after_it_is_not_taken() {
        let [pair, other] = [7, 8].map(|seed| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap());
        for (refused, why) in [(batch(&other, 2), "another key"), (batch(&pair, 0), "with other bytes")] {
            let is_conflict = why == "with other bytes";
            let mut bodies = vec![batch(&pair, 0), refused];
            // A conflict is found when later batches are on their way into the log.
            bodies.extend((!is_conflict).then(|| batch(&pair, 4)));
            let became = send(&pair, &bodies).await;
            let Ended::Refused(refusal) = &became.ended else { panic!("{}", became.ended) };
            assert_eq!(refusal.boot, Some(BOOT));
            assert!(refusal.reason.contains(why), "{refusal}");
            assert_eq!((became.acknowledged, became.appended), (2, 2), "{why}");
            assert!(became.heard.contains(why), "{}", became.heard);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_refused_and_the_agent_hears_why() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let became = send(&pair, &[vec![77]]).await;
        assert!(matches!(&became.ended, Ended::Refused(Refusal { boot: None, .. })), "{}", became.ended);
        assert_eq!((became.acknowledged, became.appended), (0, 0));
        assert!(became.heard.contains("unknown kind 77"), "{}", became.heard);
    }
}
