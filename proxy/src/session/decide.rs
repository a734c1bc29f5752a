//! A decision within a session: what was decided and what follows from it are durable in one sync, and only then is
//! there leave.

use super::{Access, Session};
use custody_core::event::{Draft, EventId, Outcome, Timestamp, decision};
use custody_core::log::ProducerError;
use custody_core::policy::permit::{Effect, NoPermit, Permit};
use custody_core::policy::{Circumstances, Request, What, decide};

/// Why there is no leave. `Display` is for the person.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Policy or a lock says no.
    #[error("denied: {0}")]
    Denied(String),
    /// The log can't take the evidence.
    #[error("the audit log takes no evidence, so nothing was done: tell your administrator")]
    NoEvidence(#[source] ProducerError),
    /// A mistake in this program.
    #[error("{0}")]
    Permit(String),
}

/// What policy says of `what` at this moment, following from `cause`; still to be made durable.
pub fn decided(access: &Access, session: &Session, cause: EventId, what: What) -> Draft<decision::Made> {
    let now = access.clock.wall().0;
    let circumstances = Circumstances {
        certificate_seconds: (now / 1_000_000_000).saturating_sub(session.proved_since),
        time: Timestamp::from_nanos(now),
        ..session.circumstances
    };
    let request = Request { user: session.user.clone(), what, session: Some(session.id), circumstances };
    let decision = access.replica.read(|state| decide(state, &request));
    let outcome = if decision.allowed() { Outcome::Success } else { Outcome::Denied };
    session.draft(decision.made, cause).source(session.source.clone()).outcome(outcome)
}

/// Decides about `what`, and makes the decision and the event that announces the effect durable. A denial is durable,
/// too, when this returns.
///
/// # Errors
/// See [`Refused`].
pub async fn permit<E: Effect>(
    access: &Access,
    session: &Session,
    what: What,
    announced: E::Announced,
) -> Result<Permit<E>, Refused> {
    let decided = decided(access, session, session.announced, what);
    if !decided.data.allowed {
        let reason = decided.data.reason.clone();
        let _durable = access.proxy.append(decided).await.map_err(Refused::NoEvidence)?;
        return Err(Refused::Denied(reason));
    }
    let requested = session.draft(announced, decided.id).source(session.source.clone());
    let durable = access.proxy.append((decided, requested)).await.map_err(Refused::NoEvidence)?;
    Permit::try_from(durable).map_err(|error| match error {
        NoPermit::Denied(reason) => Refused::Denied(reason),
        unrelated => Refused::Permit(unrelated.to_string()),
    })
}
