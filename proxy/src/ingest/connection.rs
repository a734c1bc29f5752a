//! One agent's connection: what it says is read and checked, what is durable is acknowledged in its order, and what it
//! is to know is told.

use super::agents::Linked;
use super::intake::{Durably, IntakeError};
use super::serve::Ingest;
use crate::session::live::EndCause;
use custody_core::event::session::EndReason;
use custody_core::ingest::ALIVE_MILLISECONDS;
use custody_core::ingest::halves::{self, HalfError};
use custody_core::ingest::message::{FromAgent, MessageError, Said, Told};
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

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The agent, or the network.
    #[error(transparent)]
    Half(#[from] HalfError),
    /// What is to be said can't be written: a mistake in this program.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Its events can't be taken.
    #[error(transparent)]
    Intake(#[from] IntakeError),
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

/// Serves an agent until the connection ends.
pub(super) async fn serve<S>(ingest: &Ingest, who: &Who, linked: &mut Linked, stream: S) -> Ended
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(stream);
    let (to_us, mut messages) = mpsc::channel(MESSAGES_WAITING_MAX);
    let (say, to_say) = mpsc::channel(MESSAGES_WAITING_MAX);
    // Both end with this set, when this function returns.
    let mut tasks = JoinSet::new();
    tasks.spawn(halves::hear(read, to_us, FromAgent::decode));
    tasks.spawn(halves::speak(write, to_say));
    let mut waiting = FuturesOrdered::new();
    let mut acknowledged = 0_u64;
    let mut alive = tokio::time::interval(Duration::from_millis(ALIVE_MILLISECONDS));
    loop {
        let told = tokio::select! {
            ended = tasks.join_next() => return why(ended),
            Some(message) = messages.recv(), if waiting.len() < BATCHES_WAITING_MAX => match message {
                FromAgent::Events(events) => match take(ingest, who, &events).await {
                    Ok(taken) => {
                        waiting.push_back(ingest.intake.durable(taken));
                        continue;
                    }
                    Err(error) => return error.into(),
                },
                FromAgent::Said(said) => match take_word(ingest, who, linked, said).await {
                    Some(answer) => answer,
                    None => continue,
                },
            },
            Some(durable) = waiting.next(), if !waiting.is_empty() => match durable {
                Ok(Durably { events, seen }) => {
                    acknowledged = acknowledged.saturating_add(u64::try_from(events).unwrap_or(u64::MAX));
                    seen.into_iter().for_each(|session| linked.seen(session));
                    Told::Acknowledged { events: acknowledged }
                }
                Err(error) => return error.into(),
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

/// Why the first of the halves ended.
fn why(ended: Option<Result<HalfError, JoinError>>) -> Ended {
    match ended {
        Some(Ok(half)) => half.into(),
        Some(Err(_)) | None => Ended::Stopped,
    }
}

/// Hands a batch to the log, as soon as that takes it.
async fn take(ingest: &Ingest, who: &Who, events: &[Vec<u8>]) -> Result<super::intake::Taken, IntakeError> {
    loop {
        match ingest.intake.take(&who.node, &who.key, events) {
            Err(IntakeError::Log(SubmitError::Overloaded { .. })) => tokio::time::sleep(OVERLOADED).await,
            taken => return taken,
        }
    }
}

/// The longest reason of an agent that is passed on, in characters: the node's root may be anybody, and what is too long for an event
/// would keep a session's end out of the log.
const REASON_CHARS_MAX: usize = 500;

/// An agent's reason as it may stand in events, lines of the log and on a person's terminal.
fn reason(said: &str) -> String {
    said.chars().take(REASON_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

async fn take_word(ingest: &Ingest, who: &Who, linked: &Linked, said: Said) -> Option<Told> {
    match said {
        Said::Alive => {}
        Said::Expecting { session } => linked.expecting(session),
        Said::Refused { session, reason: said } => linked.refused(session, reason(&said)),
        Said::Held { change, session } => linked.held(session, change),
        Said::Unheld { reason: said, session, .. } if linked.watches(session) => {
            let detail = format!("{} can't hold it to what it may do now: {}", who.node, reason(&said));
            tracing::warn!(%session, "the session ends: {detail}");
            ingest.live.end(session, EndCause { reason: EndReason::Locked, detail, cause: None });
        }
        Said::Unheld { .. } => {}
        Said::Unready { reason: said } => {
            let reason = reason(&said);
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

    /// The end of a session and its recording's seal are one batch: what makes the one too long keeps both out of the log.
    #[test]
    fn what_an_agent_says_is_as_short_and_plain_as_it_may_stand_in_an_event() {
        let said = format!("it can't\n\x1b[2J{}", "\u{fc}".repeat(70_000));
        let told = reason(&said);
        assert_eq!(told.chars().count(), REASON_CHARS_MAX);
        assert!(told.starts_with("it can't  [2J\u{fc}"), "{told}");
    }
}
