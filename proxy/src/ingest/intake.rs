//! What an agent sends is looked at before it is appended: it is signed with the node's key, is what an agent may say,
//! and speaks of this node and of sessions that were opened to it.

use super::refusals::Refusal;
use bytes::Bytes;
use custody_core::event::hex::to_hex;
use custody_core::event::who::may_say_type;
use custody_core::event::{
    Actor, Draft, Event, Family, Outcome, Payload, ProducerKind, ProducerRef, SessionId, canonical, node,
    producer,
};
use custody_core::ingest::message::one_line;
use custody_core::ingest::signature::{self, BatchError};
use custody_core::log::{
    AppendError, Log, Pending, Producer, ProducerError, ProducerKey, Record, SubmitError,
};
use custody_core::state::State;
use custody_core::state::follow::Replica;
use std::sync::Arc;

/// So deep what an agent sends may be nested: half of what readers of JSON go, since many of them get it within something
/// else.
const LEVELS_MAX: usize = 64;

/// Where agents' events go.
pub struct Intake {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The `log` role's own events.
    pub producer: Arc<Producer>,
    /// State, folded from the log.
    pub replica: Arc<Replica>,
}

/// Why a batch isn't taken, and the connection ends.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// It isn't the agent's.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The log doesn't know the agent's key (any more).
    #[error("the key is not the one that joined for {0}: let the agent join anew")]
    Key(String),
    /// The log takes nothing.
    #[error(transparent)]
    Log(#[from] SubmitError),
    /// The log failed, or has other events under these numbers.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// What was refused couldn't be told.
    #[error(transparent)]
    Refusal(#[from] ProducerError),
}

impl IntakeError {
    /// What is refused, where it is the batch that can't be taken: the agent would send the same again for ever. `first` is who
    /// numbered it, as it says itself. Everything else passes, or ends with the agent's key.
    ///
    /// Such a batch isn't acknowledged: the agent has the only copy of it, and where the log has other bytes under its numbers, no
    /// gap would ever show that it is gone.
    pub(super) fn refusal(&self, first: Option<&ProducerRef>) -> Option<Refusal> {
        let (boot, reason) = match self {
            Self::Append(
                AppendError::Conflict { producer, .. } | AppendError::Backwards { producer, .. },
            ) => (Some(producer.boot), self.to_string()),
            Self::Batch(_) | Self::Log(SubmitError::Invalid { .. }) => match first {
                Some(ProducerRef { boot, id, seq, .. }) => {
                    (Some(*boot), format!("{self}; by its own word it begins with {id}/{boot}/{seq}"))
                }
                None => (None, self.to_string()),
            },
            Self::Log(SubmitError::Overloaded { .. } | SubmitError::DiskFull | SubmitError::Stopped(_))
            | Self::Append(AppendError::DiskFull | AppendError::Stopped(_) | AppendError::Unknown(_))
            | Self::Key(_)
            | Self::Refusal(_) => return None,
        };
        Some(Refusal { boot, reason: one_line(&reason) })
    }
}

/// A batch on its way into the log.
#[must_use = "it is durable only when this says so"]
pub struct Taken {
    events: usize,
    pending: Option<Pending>,
    refused: Vec<producer::Refused>,
    seen: Vec<SessionId>,
}

/// A batch that is durable.
pub struct Durably {
    /// How many events it had, those among them that were refused for good.
    pub events: usize,
    /// Sessions whose connections the node's kernel has seen come in.
    pub seen: Vec<SessionId>,
}

impl Intake {
    /// Checks a batch of the agent of `node`, whose key is `key`, and hands it to the log.
    ///
    /// # Errors
    /// See [`IntakeError`]; [`SubmitError::Overloaded`] passes.
    pub fn take(&self, node: &str, key: &[u8; 32], events: &[Vec<u8>]) -> Result<Taken, IntakeError> {
        let checked = signature::check(events, &node::producer(node), key)?;
        self.replica.read(|state| {
            if !is_agent(state, node, key) {
                return Err(IntakeError::Key(node.to_owned()));
            }
            let mut taken =
                Taken { events: events.len(), pending: None, refused: Vec::new(), seen: Vec::new() };
            let mut records = Vec::with_capacity(events.len());
            for (event, bytes) in checked.events() {
                match record(state, node, event, bytes, &mut taken.seen) {
                    Ok(record) => records.push(record),
                    Err((attempted, reason)) => taken.refused.push(producer::Refused {
                        attempted,
                        producer: node::producer(node),
                        reason: reason.to_owned(),
                    }),
                }
            }
            if !records.is_empty() {
                taken.pending = Some(self.log.submit(records)?);
            }
            Ok(taken)
        })
    }

    /// Waits until a batch is durable.
    ///
    /// # Errors
    /// When it isn't: the agent will send it again.
    pub async fn durable(&self, taken: Taken) -> Result<Durably, IntakeError> {
        if let Some(pending) = taken.pending {
            let _receipts = pending.await?;
        }
        for refused in taken.refused {
            tracing::warn!("{} may not say {}: {}", refused.producer, refused.attempted, refused.reason);
            let draft = Draft::new(Actor::system("custodyd"), refused).outcome(Outcome::Denied);
            let _told = self.producer.append(draft).await?;
        }
        Ok(Durably { events: taken.events, seen: taken.seen })
    }
}

/// Whether the log knows this key as that of the node's agent.
pub(super) fn is_agent(state: &State, node: &str, key: &[u8; 32]) -> bool {
    state.nodes().get(node).and_then(|node| node.agent_key.as_deref()) == Some(to_hex(key).as_str())
}

/// An event as the log takes it; sessions whose connection it says to have come in are added to `seen`.
fn record(
    state: &State,
    node: &str,
    event: Option<&Event>,
    bytes: &[u8],
    seen: &mut Vec<SessionId>,
) -> Result<Record, (String, &'static str)> {
    let event = event.ok_or((String::new(), "it is no event"))?;
    let refused = |reason| (event.kind.chars().take(64).collect::<String>(), reason);
    // The envelope has its fields and no others; of the data, whatever a later version adds is kept as it is. All of it is
    // looked at together, as a witness does, who cosigns no log that holds what it doesn't take.
    let canonical = canonical::is_canonical_within(bytes, LEVELS_MAX)
        && canonical::event_bytes(event).is_ok_and(|written| written == bytes);
    if !canonical {
        return Err(refused("its bytes aren't the canonical ones"));
    }
    let family = Family::of(&event.kind).ok_or_else(|| refused("its family is unknown"))?;
    if !may_say_type(ProducerKind::Node, family, &event.kind) {
        return Err(refused("a node may not say it"));
    }
    let payload = event.payload();
    if matches!(payload, Payload::Unknown) {
        return Err(refused("its type or shape is unknown here"));
    }
    if event.target.as_ref().is_some_and(|target| target.kind != "node" || target.name != node) {
        return Err(refused("it speaks of another node"));
    }
    if let Some(id) = event.session {
        let session = state.sessions().get(id).ok_or_else(|| refused("there is no such session"))?;
        if session.opened.node != node {
            return Err(refused("the session was opened to another node"));
        }
        if session.opened.actor != event.actor {
            return Err(refused("the session is somebody else's"));
        }
        if matches!(payload, Payload::NodeSessionAccepted(_)) {
            seen.push(id);
        }
    } else if event.actor != Actor::system(&node::producer(node)) {
        return Err(refused("without a session it names somebody else than the node itself"));
    }
    let producer =
        ProducerKey { id: event.producer.id.clone(), boot: event.producer.boot, seq: event.producer.seq };
    Ok(Record { producer, tag: family.tag(), bytes: Bytes::copy_from_slice(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::event::{EventId, Timestamp};
    use uuid::Uuid;

    /// What becomes of an event that a node's agent sends with these bytes.
    fn taken(text: &str) -> Result<(), &'static str> {
        let event = Event::parse(text.as_bytes()).ok();
        let record = record(&State::new(), "web-1", event.as_ref(), text.as_bytes(), &mut Vec::new());
        record.map(drop).map_err(|(_, reason)| reason)
    }

    #[test]
    fn what_the_log_never_takes_is_refused_and_what_it_cannot_take_now_is_not() {
        let boot = Uuid::from_u128(5);
        let key = || ProducerKey { id: "node/web-1".into(), boot, seq: 7 };
        let first = ProducerRef { boot, id: "node/web-0".into(), kind: ProducerKind::Node, seq: 3 };
        let refusal = |error: IntakeError| error.refusal(Some(&first));
        for (error, says) in [
            (BatchError::Stranger(0).into(), format!("node/web-0/{boot}/3")),
            (BatchError::WrongKey.into(), format!("node/web-0/{boot}/3")),
            (AppendError::Conflict { producer: key(), index: 9 }.into(), format!("node/web-1/{boot}/7")),
            (AppendError::Backwards { producer: key(), last: 9 }.into(), format!("node/web-1/{boot}/7")),
            (SubmitError::Invalid { position: 0, reason: "no" }.into(), format!("node/web-0/{boot}/3")),
        ] {
            let refused = refusal(error).unwrap();
            assert_eq!(refused.boot, Some(boot));
            assert!(refused.reason.contains(&says), "{}", refused.reason);
        }
        assert_eq!(
            IntakeError::from(BatchError::Empty).refusal(None).map(|refused| refused.boot),
            Some(None)
        );
        for passes in [
            IntakeError::Key("web-1".into()),
            SubmitError::Overloaded { queued_bytes: 1 }.into(),
            SubmitError::DiskFull.into(),
            SubmitError::Stopped("a test".into()).into(),
            AppendError::DiskFull.into(),
            AppendError::Stopped("a test".into()).into(),
            AppendError::Unknown("a test".into()).into(),
        ] {
            let what = passes.to_string();
            assert_eq!(refusal(passes), None, "{what}");
        }
    }

    #[test]
    fn without_a_session_a_node_speaks_for_itself_alone() {
        let by = |actor: &str| {
            let mut draft = Draft::new(Actor::system(actor), node::SessionAccepted { pid: 1 });
            draft.id = EventId(Uuid::from_u128(1));
            let producer =
                ProducerRef { boot: Uuid::nil(), id: "node/web-1".into(), kind: ProducerKind::Node, seq: 0 };
            let event = draft.numbered(producer, Timestamp::from_seconds(1));
            taken(&String::from_utf8(canonical::event_bytes(&event).unwrap()).unwrap())
        };
        assert_eq!(by("node/web-1"), Ok(()));
        for other in ["node/web-2", "custodyd", "web-1", ""] {
            assert!(by(other).is_err(), "{other}");
        }
    }

    /// An event of the node's whose data are these.
    fn accepted(data: &str) -> String {
        let mut draft = Draft::new(Actor::system("node/web-1"), node::SessionAccepted { pid: 1 });
        draft.id = EventId(Uuid::from_u128(1));
        let producer =
            ProducerRef { boot: Uuid::nil(), id: "node/web-1".into(), kind: ProducerKind::Node, seq: 0 };
        let bytes = canonical::event_bytes(&draft.numbered(producer, Timestamp::from_seconds(1))).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("{\"pid\":1}"), "{text}");
        text.replace("{\"pid\":1}", data)
    }

    /// A witness looks at all of an event: data that are just not too deep by themselves would keep it from cosigning.
    #[test]
    fn what_is_nested_too_deep_with_all_around_it_is_refused() {
        let nested = |levels: usize| {
            accepted(&format!("{{\"note\":{}{},\"pid\":1}}", "[".repeat(levels), "]".repeat(levels)))
        };
        let inside = LEVELS_MAX - 2;
        assert_eq!(taken(&nested(inside)), Ok(()));
        for levels in [inside + 1, 124, 125, 126, 127] {
            assert_eq!(taken(&nested(levels)), Err("its bytes aren't the canonical ones"), "{levels}");
        }
        assert!(canonical::is_canonical(format!("{}{}", "[".repeat(127), "]".repeat(127)).as_bytes()));
    }

    proptest::proptest! {
        /// What a witness asks of the bytes, and what any reader does with them.
        #[test]
        fn whatever_is_taken_is_canonical_as_a_whole_and_can_be_read(
            levels in 0_usize..140, objects: u128, odd in proptest::option::of("[\"\\\\a-c0\u{e4} {}\\[\\]:,]{0,6}"),
        ) {
            let is_object = |level: usize| (objects >> (level % 128)) & 1 == 1;
            let opens = |level| if is_object(level) { "{\"a\":" } else { "[" };
            let closes = |level| if is_object(level) { "}" } else { "]" };
            let open: String = (0..levels).map(opens).collect();
            let close: String = (0..levels).rev().map(closes).collect();
            let inner = odd.unwrap_or_else(|| "1".to_owned());
            let text = accepted(&format!("{{\"note\":{open}{inner}{close},\"pid\":1}}"));
            if taken(&text).is_ok() {
                proptest::prop_assert!(canonical::is_canonical(text.as_bytes()));
                let read = serde_json::from_slice::<serde_json::Value>(text.as_bytes());
                proptest::prop_assert!(read.is_ok(), "{:?}", read);
            }
        }
    }

    #[test]
    fn what_reads_differently_by_two_readers_is_refused_wherever_it_stands() {
        let text = accepted("{\"pid\":1}");
        assert_eq!(taken(&text), Ok(()));
        for (part, other) in [
            ("{\"pid\":1}", "{\"pid\":1 }"),
            ("{\"pid\":1}", "{\"pid\":1,\"note\":1,\"note\":2}"),
            ("{\"pid\":1}", "{\"pid\":1,\"note\":0.5}"),
            ("{\"pid\":1}", "{\"pid\":1,\"note\":\"\\u0041\"}"),
            ("{\"pid\":1}", "{\"note\":1,\"\\u006eote\":2,\"pid\":1}"),
            ("\"version\"", "\"unknown\":1,\"version\""),
            ("\"seq\":0", "\"seq\": 0"),
        ] {
            assert!(text.contains(part), "{text}");
            let refused = taken(&text.replace(part, other));
            assert_eq!(refused, Err("its bytes aren't the canonical ones"), "{other}");
        }
        // What a later version says beside is kept.
        assert_eq!(taken(&text.replace("{\"pid\":1}", "{\"note\":2,\"pid\":1}")), Ok(()));
    }
}
