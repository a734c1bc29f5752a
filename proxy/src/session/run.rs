//! A program within a session: decided and durable before the target hears of it, and its end afterwards.

use super::decide::{Refused, permit};
use super::files::{self, Told};
use super::{Access, Session};
use crate::ssh::relay::{ChannelId, Ticket};
use custody_core::event::command::{self, Kind};
use custody_core::event::{EventId, Outcome};
use custody_core::log::ProducerError;
use custody_core::policy::What;
use custody_core::policy::permit::{Permit, Run};

/// The exit status of a program that was refused: what shells say of a command that may not be run (POSIX, 2.8.2).
pub const REFUSED_STATUS: u32 = 126;

/// A program that a client asks for; its request waits in the relay under `ticket`.
pub struct Ask {
    /// What waits.
    pub ticket: Ticket,
    /// On which channel.
    pub channel: ChannelId,
    /// What the event says of it.
    pub requested: command::Requested,
    /// The whole command, where the event can't hold it: the recording does.
    pub whole: Option<Vec<u8>>,
}

/// What is over, for its event.
pub enum End {
    /// A program.
    Program {
        /// The `command.requested` that it belongs to.
        requested: EventId,
        /// What became of it.
        outcome: Result<command::Completed, command::Failed>,
    },
    /// Something that was done to a file.
    File {
        /// The `command.requested` of its program.
        program: EventId,
        /// What became of it.
        told: Told,
    },
}

/// Decides on a program, and makes the decision and the request durable in one sync.
///
/// # Errors
/// See [`Refused`].
pub async fn decide_run(access: &Access, session: &Session, ask: &Ask) -> Result<Permit<Run>, Refused> {
    let asked = &ask.requested;
    let node = session.target.name.clone();
    let login = session.target.login.clone().unwrap_or_default();
    let terminal = asked.terminal;
    let what = match (asked.kind, asked.command.clone().unwrap_or_default()) {
        (Kind::Shell, _) => What::Shell { node, login, terminal },
        (Kind::Exec, command) => What::Exec { node, login, terminal, command },
        (Kind::Subsystem, subsystem) => What::Subsystem { node, login, subsystem },
    };
    permit(access, session, what, asked.clone()).await
}

/// Says how something ended. Nothing waits for it to be durable.
///
/// # Errors
/// When the log doesn't take it.
pub fn ended(access: &Access, session: &Session, end: End) -> Result<(), ProducerError> {
    let (requested, outcome) = match end {
        End::Program { requested, outcome } => (requested, outcome),
        End::File { program, told } => return files::run::told(access, session, program, told),
    };
    match outcome {
        Ok(completed) => {
            let success = completed.exit_status == Some(0);
            let draft = session.draft(completed, requested);
            let _pending = access.proxy.submit(draft.outcome(if success {
                Outcome::Success
            } else {
                Outcome::Failure
            }))?;
        }
        Err(failed) => {
            let _pending = access.proxy.submit(session.draft(failed, requested).outcome(Outcome::Failure))?;
        }
    }
    Ok(())
}
