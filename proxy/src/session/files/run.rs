//! What is wanted of files: decided and durable before the target hears of it, and what became of it afterwards.

use super::path::Path;
use super::{Denied, Outcome, Right, Says, Told, Wanted, cut};
use crate::session::decide::decided;
use crate::session::{Access, Session};
use crate::ssh::relay::{ChannelId, Ticket};
use custody_core::event::{Draft, EventId, Outcome as How, decision, file};
use custody_core::log::ProducerError;
use custody_core::policy::What;
use custody_core::policy::permit::{Effect, NoPermit, PassUnparsed, Permit, Touch};
use custody_core::policy::request::Action;
use std::borrow::Cow;

/// How many wanted things are made durable at once: a batch of the log may have 4,096 events, and what is decided is
/// decided on the state of one moment.
const BATCH_MAX: usize = 64;

/// What a message of a client's wants; it waits in the relay under `ticket`.
pub struct Ask {
    /// What waits.
    pub ticket: Ticket,
    /// On which channel.
    pub channel: ChannelId,
    /// The program whose channel it is: its `command.requested`.
    pub program: EventId,
    /// In the order of the message.
    pub wanted: Vec<Wanted>,
}

/// Leave for one wanted thing.
#[must_use]
pub enum Leave {
    /// For a request.
    Touch(Permit<Touch>),
    /// For what isn't understood.
    PassUnparsed(Permit<PassUnparsed>),
}

impl Leave {
    /// The event that announced it.
    #[must_use]
    pub fn announced(&self) -> EventId {
        match self {
            Self::Touch(permit) => permit.announced(),
            Self::PassUnparsed(permit) => permit.announced(),
        }
    }
}

/// Decides on each thing, and makes the decisions and the requests durable: those of one message in one sync, unless
/// they are many.
pub async fn decide_files(access: &Access, session: &Session, ask: &Ask) -> Vec<Result<Leave, Denied>> {
    let mut verdicts = Vec::with_capacity(ask.wanted.len());
    for wanted in ask.wanted.chunks(BATCH_MAX) {
        match decide_some(access, session, ask.program, wanted).await {
            Ok(some) => verdicts.extend(some),
            Err(error) => {
                tracing::warn!(session = %session.id, "no evidence, so no file is touched: {error}");
                verdicts.extend(wanted.iter().map(|_| Err(Denied::NoEvidence)));
            }
        }
    }
    verdicts
}

type Announced<E> = (Vec<Draft<decision::Made>>, Draft<decision::Made>, Draft<<E as Effect>::Announced>);

/// Where a wanted thing's events stand in the batch.
enum Place {
    Touch,
    Unparsed,
    Denied(String),
}

async fn decide_some(
    access: &Access,
    session: &Session,
    program: EventId,
    wanted: &[Wanted],
) -> Result<Vec<Result<Leave, Denied>>, ProducerError> {
    let mut places = Vec::with_capacity(wanted.len());
    let (mut touches, mut unparsed): (Vec<Announced<Touch>>, Vec<Announced<PassUnparsed>>) =
        Default::default();
    let mut denials = Vec::new();
    for one in wanted {
        let mut decisions = decisions(access, session, program, &one.rights);
        // Every wanted thing needs some right.
        let Some(last) = decisions.pop() else {
            places.push(Place::Denied("nothing allows it".to_owned()));
            continue;
        };
        if !last.data.allowed {
            places.push(Place::Denied(last.data.reason.clone()));
            denials.extend(decisions);
            denials.push(last);
            continue;
        }
        match &one.says {
            Says::Requested(requested) => {
                let draft = session.draft((**requested).clone(), last.id).source(session.source.clone());
                touches.push((decisions, last, draft));
                places.push(Place::Touch);
            }
            Says::Unparsed(data) => {
                let draft = session.draft(data.clone(), last.id).source(session.source.clone());
                unparsed.push((decisions, last, draft));
                places.push(Place::Unparsed);
            }
        }
    }
    let (_, touches, unparsed) = access.proxy.append((denials, touches, unparsed)).await?;
    let mut touches =
        touches.into_iter().map(|(_, made, announced)| Permit::<Touch>::try_from((made, announced)));
    let mut unparsed =
        unparsed.into_iter().map(|(_, made, announced)| Permit::<PassUnparsed>::try_from((made, announced)));
    Ok(places
        .into_iter()
        .map(|place| match place {
            Place::Touch => leave(touches.next(), Leave::Touch),
            Place::Unparsed => leave(unparsed.next(), Leave::PassUnparsed),
            Place::Denied(reason) => Err(Denied::Policy(reason)),
        })
        .collect())
}

fn leave<E: Effect>(
    permit: Option<Result<Permit<E>, NoPermit>>,
    made: impl Fn(Permit<E>) -> Leave,
) -> Result<Leave, Denied> {
    match permit {
        Some(Ok(permit)) => Ok(made(permit)),
        Some(Err(error)) => Err(Denied::Policy(error.to_string())),
        None => Err(Denied::NoEvidence),
    }
}

/// A decision for each right, up to the first that denies.
fn decisions(
    access: &Access,
    session: &Session,
    program: EventId,
    rights: &[(Right, Path)],
) -> Vec<Draft<decision::Made>> {
    let mut decisions = Vec::with_capacity(rights.len());
    for (right, path) in rights {
        let (name, longer) = cut(&as_policies_see(&path.bytes));
        let what = What::Sftp {
            node: session.target.name.clone(),
            login: session.target.login.clone().unwrap_or_default(),
            action: match right {
                Right::Read => Action::SftpRead,
                Right::Write => Action::SftpWrite,
            },
            path: name,
            absolute: !path.relative,
            cut: longer.is_some(),
        };
        let draft = decided(access, session, program, what);
        let allowed = draft.data.allowed;
        decisions.push(draft);
        if !allowed {
            break;
        }
    }
    decisions
}

/// A name that counts from a directory that isn't known begins with `./`, so that a pattern like `*/.ssh/*` fits it too.
fn as_policies_see(path: &[u8]) -> Cow<'_, [u8]> {
    match path.first() {
        None | Some(b'/') => Cow::Borrowed(path),
        Some(_) => Cow::Owned([b"./", path].concat()),
    }
}

/// Says what became of something. Nothing waits for it to be durable.
///
/// # Errors
/// When the log doesn't take it.
pub fn told(access: &Access, session: &Session, program: EventId, told: Told) -> Result<(), ProducerError> {
    let cause = told.cause.unwrap_or(program);
    match told.outcome {
        Outcome::Completed(data) => {
            let _pending = access.proxy.submit(session.draft(data, cause).outcome(How::Success))?;
        }
        Outcome::Failed(data) => {
            let _pending = access.proxy.submit(session.draft(data, cause).outcome(How::Failure))?;
        }
        Outcome::Unparsed(data) => {
            let _pending = access.proxy.submit(session.draft(data, cause))?;
        }
    }
    Ok(())
}

/// The end of something that was allowed and whose channel was gone before it could pass.
pub fn never_passed(wanted: &Wanted, requested: EventId) -> Option<Told> {
    let Says::Requested(about) = &wanted.says else { return None };
    let failed = file::Failed {
        channel: about.channel,
        name: None,
        operation: about.operation,
        path: about.path.clone(),
        protocol: about.protocol,
        read: None,
        reason: "the channel was closed before it could pass".into(),
        relative: about.relative,
        status: None,
        to: about.to.clone(),
        written: None,
    };
    Some(Told { cause: Some(requested), outcome: Outcome::Failed(failed) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_counts_from_an_unknown_directory_fits_patterns_of_what_lies_in_any() {
        for (path, seen) in [
            (".ssh/authorized_keys", "./.ssh/authorized_keys"),
            ("../.ssh/x", "./../.ssh/x"),
            ("/root/.ssh/x", "/root/.ssh/x"),
            ("", ""),
        ] {
            assert_eq!(as_policies_see(path.as_bytes()), seen.as_bytes());
        }
    }
}
