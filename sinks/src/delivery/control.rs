//! What others may do with a delivery that runs.

use super::{OpenError, Shared};
use crate::dead_letters::Listing;
use crate::health::Health;
use crate::position::PositionError;
use crate::proof::prove_part;
use crate::sink::Sink;
use custody_core::delivery::{Asked, DEAD_LETTERS_LISTED, DeadLetter, Errand, Numbers, Report, Running};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// Why a delivery doesn't go on.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// Its position can't be kept.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// Its files can't be opened again.
    #[error(transparent)]
    Files(#[from] OpenError),
    /// Its dead letters can't be kept.
    #[error("dead letters can't be written: {0}")]
    DeadLetters(#[source] io::Error),
    /// The log can't be read.
    #[error(transparent)]
    Log(#[from] custody_core::log::ReadError),
    /// The log doesn't take what there is to tell.
    #[error("the log doesn't take {what}: {reason}")]
    Untold {
        /// The event's type.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// A part of it broke.
    #[error("a part of the delivery broke: {0}")]
    Broken(String),
}

/// What somebody wants of a delivery.
pub(super) enum Command {
    /// Deliver this part of the log once more.
    Replay {
        /// Which.
        indexes: Range<u64>,
        /// Answered when it has begun; `Err` says why it can't.
        begun: oneshot::Sender<Result<(), String>>,
    },
    /// Send dead letters again.
    Redrive {
        /// Answered when it is done: how many are left.
        done: oneshot::Sender<Result<usize, String>>,
    },
    /// Ends a replay or a redrive where it is.
    Cancel {
        /// Answered when it is ended; `Err` says why it can't be.
        ended: oneshot::Sender<Result<(), String>>,
    },
    /// Gives what is under way beside the delivery of what is new.
    Errand {
        /// Answered with it.
        errand: oneshot::Sender<Option<Errand>>,
    },
    /// Gives the dead letters, for whoever asks to read them.
    DeadLetters {
        /// Answered with what they are now.
        listing: oneshot::Sender<Listing>,
    },
    /// Gives the replay that is under way.
    Replaying {
        /// Answered with it: what is left of it.
        left: oneshot::Sender<Option<Range<u64>>>,
    },
}

/// The delivery's side.
pub struct Inbox {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) paused: watch::Receiver<bool>,
}

/// The others' side.
pub struct Control<S> {
    pub(crate) shared: Arc<Shared<S>>,
    commands: mpsc::Sender<Command>,
    paused: watch::Sender<bool>,
}

pub(super) fn pair<S>(shared: Arc<Shared<S>>, paused: bool) -> (Control<S>, Inbox) {
    let (sender, commands) = mpsc::channel(16);
    let (pausing, paused) = watch::channel(paused);
    (Control { shared, commands: sender, paused: pausing }, Inbox { commands, paused })
}

impl<S: Sink> Control<S> {
    /// The sink's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Its numbers.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.shared.health
    }

    /// Holds the delivery, or lets it go on. What is under way is finished.
    pub fn pause(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    async fn command(&self, command: Command) -> Result<(), String> {
        self.commands.send(command).await.map_err(|_| self.stopped())
    }

    /// Delivers a part of the log once more; what the destination has of it isn't sent.
    ///
    /// # Errors
    /// Why it can't begin.
    pub async fn replay(&self, indexes: Range<u64>) -> Result<(), String> {
        let (begun, answer) = oneshot::channel();
        self.command(Command::Replay { indexes, begun }).await?;
        answer.await.map_err(|_| self.stopped())?
    }

    /// What is left of a replay.
    ///
    /// # Errors
    /// When the delivery has stopped.
    pub async fn replaying(&self) -> Result<Option<Range<u64>>, String> {
        let (left, answer) = oneshot::channel();
        self.command(Command::Replaying { left }).await?;
        answer.await.map_err(|_| self.stopped())
    }

    /// Sends dead letters again; gives how many are left.
    ///
    /// # Errors
    /// Why it couldn't.
    pub async fn redrive(&self) -> Result<usize, String> {
        let (done, answer) = oneshot::channel();
        self.command(Command::Redrive { done }).await?;
        answer.await.map_err(|_| self.stopped())?
    }

    /// Ends a replay or a redrive where it is. What it has sent is there or isn't: whoever wants to know reads it back.
    ///
    /// # Errors
    /// When there is none.
    pub async fn cancel(&self) -> Result<(), String> {
        let (ended, answer) = oneshot::channel();
        self.command(Command::Cancel { ended }).await?;
        answer.await.map_err(|_| self.stopped())?
    }

    /// What is under way beside the delivery of what is new.
    ///
    /// # Errors
    /// When the delivery has stopped.
    pub async fn errand(&self) -> Result<Option<Errand>, String> {
        let (errand, answer) = oneshot::channel();
        self.command(Command::Errand { errand }).await?;
        answer.await.map_err(|_| self.stopped())
    }

    /// Which dead letters there are, and who reads what is said of them.
    ///
    /// # Errors
    /// When the delivery has stopped.
    pub(crate) async fn listing(&self) -> Result<Listing, String> {
        let (listing, answer) = oneshot::channel();
        self.command(Command::DeadLetters { listing }).await?;
        answer.await.map_err(|_| self.stopped())
    }

    /// The dead letters, the newest [`DEAD_LETTERS_LISTED`] of them. Whatever else the delivery does goes on meanwhile.
    ///
    /// # Errors
    /// When they can't be read, or the delivery has stopped.
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>, String> {
        let listing = self.listing().await?;
        let read = tokio::task::spawn_blocking(move || listing.read(DEAD_LETTERS_LISTED)).await;
        let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
        read.map_err(|error| {
            format!("the dead letters of the sink {} can't be read: {error}", self.shared.name)
        })
    }

    fn stopped(&self) -> String {
        let reason = self.health().numbers().trouble.unwrap_or_else(|| "see the daemon's log".to_owned());
        format!("the sink {} stands still: {reason}", self.shared.name)
    }
}

impl<S: Sink> Running for Control<S> {
    fn name(&self) -> &str {
        Control::name(self)
    }

    fn numbers(&self) -> Numbers {
        self.health().numbers()
    }

    fn pause(&self, paused: bool) {
        Control::pause(self, paused);
    }

    fn replay(&self, indexes: Range<u64>) -> Asked<'_, ()> {
        Box::pin(Control::replay(self, indexes))
    }

    fn replaying(&self) -> Asked<'_, Option<Range<u64>>> {
        Box::pin(Control::replaying(self))
    }

    fn redrive(&self) -> Asked<'_, usize> {
        Box::pin(Control::redrive(self))
    }

    fn cancel(&self) -> Asked<'_, ()> {
        Box::pin(Control::cancel(self))
    }

    fn errand(&self) -> Asked<'_, Option<Errand>> {
        Box::pin(Control::errand(self))
    }

    fn dead_letters(&self) -> Asked<'_, Vec<DeadLetter>> {
        Box::pin(Control::dead_letters(self))
    }

    fn verify<'a>(&'a self, indexes: Range<u64>, told: Box<dyn FnMut(u64) + Send + 'a>) -> Asked<'a, Report> {
        Box::pin(async move { prove_part(self, indexes, told).await.map_err(|error| error.to_string()) })
    }
}
