//! The end of a session: exactly one event says it, also for sessions whose proxy died.

use super::live::EndCause;
use super::{Access, Session};
use custody_core::event::hex::to_hex;
use custody_core::event::session::{EndReason, Ended};
use custody_core::event::{Actor, Draft, EventId, Outcome, SessionId, Target, recording};
use custody_core::log::ProducerError;
use custody_core::recording::{Recorder, Sealed};

/// Bytes that a session moved.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moved {
    /// From the client.
    pub bytes_in: u64,
    /// To the client.
    pub bytes_out: u64,
}

/// Seals the recording, if there is one, and says the end. Both in one batch. That there is no seal is said too.
///
/// # Errors
/// When the log can't take it: the next start will say that the session was cut.
pub async fn close(
    access: &Access,
    session: &Session,
    cause: &EndCause,
    moved: Moved,
    recorder: Option<Recorder>,
) -> Result<(), ProducerError> {
    let sealed = match recorder {
        None => Ok(None),
        Some(recorder) => seal(recorder).await.map(Some),
    };
    let ended = match &sealed {
        Ok(_) => ended_draft(session, cause, moved),
        Err(why) => {
            tracing::error!(session = %session.id, "the recording has no seal: {why}");
            ended_draft(session, &without_seal(cause, why), moved)
        }
    };
    match sealed {
        Ok(Some(sealed)) => {
            let data = recording::Sealed {
                bytes: sealed.bytes,
                frames: sealed.frames,
                head: to_hex(&sealed.head),
                sha256: to_hex(&sealed.sha256),
            };
            let sealed = Draft::new(session.actor.clone(), data)
                .cause(session.announced)
                .session(session.id)
                .outcome(Outcome::Success);
            access.proxy.append((sealed, ended)).await.map(drop)
        }
        Ok(None) | Err(_) => access.proxy.append(ended).await.map(drop),
    }
}

/// At the time that the recorder was told last: the time of day isn't the recording's.
async fn seal(recorder: Recorder) -> Result<Sealed, String> {
    let now = recorder.last_ns();
    match tokio::task::spawn_blocking(move || recorder.seal(now)).await {
        Ok(sealed) => sealed.map_err(|error| error.to_string()),
        // The runtime is shutting down.
        Err(error) => Err(error.to_string()),
    }
}

/// Of a session that ended in order this is the reason: whoever looks at reasons would take its recording for whole. What ended
/// another one stays its reason.
fn without_seal(cause: &EndCause, why: &str) -> EndCause {
    let reason = match cause.reason {
        // It says so already.
        EndReason::RecordingFailed => return cause.clone(),
        reason if outcome(reason) == Outcome::Success => EndReason::RecordingFailed,
        reason => reason,
    };
    let detail = format!("{}; its recording has no seal: {why}", cause.detail);
    EndCause { reason, detail, cause: cause.cause }
}

fn ended_draft(session: &Session, cause: &EndCause, moved: Moved) -> Draft<Ended> {
    let data = Ended {
        bytes_in: moved.bytes_in,
        bytes_out: moved.bytes_out,
        detail: cause.detail.clone(),
        last_evidence: None,
        reason: cause.reason,
    };
    Draft::new(session.actor.clone(), data)
        .cause(cause.cause.unwrap_or(session.announced))
        .session(session.id)
        .source(session.source.clone())
        .target(session.target.clone())
        .outcome(outcome(cause.reason))
}

/// How an end counts.
fn outcome(reason: EndReason) -> Outcome {
    match reason {
        EndReason::ClientClosed | EndReason::TargetClosed | EndReason::ProxyStopped => Outcome::Success,
        EndReason::Locked => Outcome::Denied,
        _ => Outcome::Failure,
    }
}

/// A session that an earlier run of the proxy left without an end.
#[derive(Clone, Debug)]
pub struct Orphan {
    /// The session.
    pub session: SessionId,
    /// Whose it was.
    pub actor: Actor,
    /// Where to.
    pub target: Option<Target>,
    /// What opened it.
    pub cause: EventId,
    /// The index of its last event.
    pub last_evidence: u64,
}

/// Says the end of sessions whose proxy died. To be called at start, before the first new session.
///
/// # Errors
/// When the log can't take it: the proxy must not start.
pub async fn close_orphans(access: &Access, orphans: Vec<Orphan>) -> Result<usize, ProducerError> {
    let count = orphans.len();
    let drafts = orphans.into_iter().map(|orphan| {
        let data = Ended {
            bytes_in: 0,
            bytes_out: 0,
            detail: format!(
                "the proxy died; the last evidence of the session is event {}",
                orphan.last_evidence
            ),
            last_evidence: Some(orphan.last_evidence),
            reason: EndReason::ProxyCrashed,
        };
        let mut draft = Draft::new(orphan.actor, data)
            .cause(orphan.cause)
            .session(orphan.session)
            .outcome(Outcome::Failure);
        draft.target = orphan.target;
        draft
    });
    let drafts: Vec<_> = drafts.collect();
    if !drafts.is_empty() {
        let _durable = access.proxy.append(drafts).await?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_seal_no_session_ended_in_order() {
        for (reason, told) in [
            (EndReason::ClientClosed, EndReason::RecordingFailed),
            (EndReason::TargetClosed, EndReason::RecordingFailed),
            (EndReason::ProxyStopped, EndReason::RecordingFailed),
            (EndReason::Locked, EndReason::Locked),
            (EndReason::LogUnavailable, EndReason::LogUnavailable),
        ] {
            let event = Some(EventId::new());
            let ended = EndCause { reason, detail: "so it ended".to_owned(), cause: event };
            let detail = "so it ended; its recording has no seal: the disk is broken".to_owned();
            assert_eq!(
                without_seal(&ended, "the disk is broken"),
                EndCause { reason: told, detail, cause: event }
            );
        }
        let failed =
            EndCause { reason: EndReason::RecordingFailed, detail: "it can't be".to_owned(), cause: None };
        assert_eq!(without_seal(&failed, "it failed earlier"), failed);
    }
}
