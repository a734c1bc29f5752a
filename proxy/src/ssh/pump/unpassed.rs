//! What was allowed and never passed, since its session ended meanwhile. The event that announced it is in the log, or on
//! its way there: so it gets its end, too.

use super::{Known, Tasks};
use crate::session::files::{self, Outcome};
use crate::session::forward;
use crate::session::run::{self, Ask, End};
use crate::session::{Access, Session};
use custody_core::event::{EventId, command};
use custody_core::log::ProducerError;
use futures_util::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;

/// How long the end of a session waits for what was still being decided: it comes behind that in the log, which it waits for
/// itself. What takes longer is told all the same, behind the session's end.
pub(super) const DECIDED_TIMEOUT: Duration = Duration::from_secs(60);

const WHY: &str = "the session ended before it could pass";

/// Waits at most for `limit` for what is still being decided, and says of what is allowed that it never passed.
pub(super) async fn tell(access: &Arc<Access>, session: &Arc<Session>, mut tasks: Tasks, limit: Duration) {
    if tasks.is_empty() {
        return;
    }
    let (access, session) = (Arc::clone(access), Arc::clone(session));
    let telling = tokio::spawn(async move {
        while let Some(known) = tasks.next().await {
            tell_known(&access, &session, known);
        }
    });
    let _told_in_time = tokio::time::timeout(limit, telling).await;
}

fn tell_known(access: &Access, session: &Session, known: Known) {
    match known {
        Known::Run(ask, Ok(permit)) => tell_run(access, session, &ask, permit.announced()),
        Known::Forward(ask, Ok(leave)) => tell_forward(access, session, &ask, leave.announced()),
        Known::Files(ask, verdicts) => {
            for (wanted, verdict) in ask.wanted.iter().zip(verdicts) {
                let Ok(leave) = verdict else { continue };
                let Some(mut told) = files::run::never_passed(wanted, leave.announced()) else { continue };
                if let Outcome::Failed(failed) = &mut told.outcome {
                    failed.reason = WHY.into();
                }
                warn_unless(session, run::ended(access, session, End::File { program: ask.program, told }));
            }
        }
        Known::Run(_, Err(_)) | Known::Forward(_, Err(_)) => {}
    }
}

/// Says of a program that it never ran.
pub(super) fn tell_run(access: &Access, session: &Session, ask: &Ask, requested: EventId) {
    let failed = command::Failed { channel: ask.requested.channel, reason: WHY.to_owned() };
    warn_unless(session, run::ended(access, session, End::Program { requested, outcome: Err(failed) }));
}

/// Says of a connection or an offer that it never came about.
pub(super) fn tell_forward(access: &Access, session: &Session, ask: &forward::Ask, requested: EventId) {
    let after = forward::never_passed(ask, requested, WHY);
    warn_unless(session, forward::told(access, session, after));
}

fn warn_unless(session: &Session, told: Result<(), ProducerError>) {
    if let Err(error) = told {
        tracing::warn!(session = %session.id, "the end of what never passed could not be recorded: {error}");
    }
}
