//! Is this the newest copy of the log? A directory can't know; a witness can. Asked before the first append.
//!
//! The witness is shown a checkpoint of the size that it has cosigned, signed for this purpose: it answers with a
//! cosignature if the entries here are the same, and with a conflict if they aren't. So nothing has to be copied, and
//! nothing is changed on either side.

use crate::config::AtStart;
use custody_core::event::log::Unwitnessed;
use custody_core::event::{Actor, Draft};
use custody_core::log::checkpoint::CheckpointError;
use custody_core::log::{Checkpoint, Log, ReadError, Signer};
use custody_witness::client::{Answer, AskError, Witness};
use std::time::Duration;

/// A witness that can't be reached is asked so often before it counts as such.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// Why the log isn't opened for appending. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum NotNewest {
    /// An older copy.
    #[error(
        "the witness {witness} has cosigned {theirs} entries, here are {ours}: bring them back with \
         `custody log recover --from-witness`, or go on without them with `custodyd new-epoch`"
    )]
    Short {
        /// The witness.
        witness: String,
        /// What it has cosigned.
        theirs: u64,
        /// What is here.
        ours: u64,
    },
    /// Another history.
    #[error(
        "the log has forked: the witness {witness} has cosigned other entries than the first {size} that are here. \
         Keep this directory as evidence; bring the witness's entries back into an empty one with \
         `custody log recover --from-witness`, or go on with these under another origin with `custodyd new-epoch`"
    )]
    Forked {
        /// The witness.
        witness: String,
        /// How many entries it has cosigned.
        size: u64,
    },
    /// Nobody can say.
    #[error("{0}. Start without asking: `custodyd run --without-witness`, and the log will say so")]
    Unanswered(AskError),
    /// The log can't be read, or its key can't sign.
    #[error("the witness can't be asked: {0}")]
    Read(#[from] ReadError),
    /// The key can't sign.
    #[error("the witness can't be asked: {0}")]
    Signing(#[from] CheckpointError),
}

/// Asks each witness whether `log` is the newest copy. Gives, for each that couldn't be asked and needn't be, what the
/// log will say of it.
///
/// # Errors
/// See [`NotNewest`].
pub async fn check(
    witnesses: &[(Witness, AtStart)],
    log: &dyn Log,
    signer: &dyn Signer,
    without: bool,
) -> Result<Vec<Draft<Unwitnessed>>, NotNewest> {
    let mut unasked = Vec::new();
    for (witness, at_start) in witnesses {
        let may_be_silent = without || *at_start == AtStart::Warn;
        let tries = if may_be_silent { 1 } else { TRIES };
        match patiently(witness, log, signer, tries).await {
            Ok(size) => tracing::info!("the witness {} has cosigned {size} of these entries", witness.name()),
            Err(NotNewest::Unanswered(error)) if may_be_silent => {
                tracing::warn!("{error}; the log goes on without its word");
                let data = Unwitnessed {
                    reason: error.to_string(),
                    size: log.size(),
                    witness: witness.name().to_owned(),
                };
                unasked.push(Draft::new(Actor::system("custodyd"), data));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(unasked)
}

async fn patiently(
    witness: &Witness,
    log: &dyn Log,
    signer: &dyn Signer,
    tries: u32,
) -> Result<u64, NotNewest> {
    let mut left = tries;
    loop {
        left -= 1;
        match ask(witness, log, signer).await {
            Err(NotNewest::Unanswered(error @ AskError::Unreachable { .. })) if left > 0 => {
                tracing::warn!("{error}; asking again");
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// How many of the entries the witness has cosigned: all of them the same as here.
async fn ask(witness: &Witness, log: &dyn Log, signer: &dyn Signer) -> Result<u64, NotNewest> {
    let ours = log.size();
    let name = || witness.name().to_owned();
    let mut size = ours;
    // The first answer may be that it knows another size; at that size it says yes or no.
    for _ in 0..2 {
        let checkpoint = Checkpoint::sign(size, log.root(size)?, signer)?;
        match witness.ask(size, Vec::new(), &checkpoint).await.map_err(NotNewest::Unanswered)? {
            Answer::Cosigned(_) => return Ok(size),
            Answer::Conflict(0) if size > 0 => return Ok(0),
            Answer::Conflict(theirs) if theirs > ours => {
                return Err(NotNewest::Short { witness: name(), theirs, ours });
            }
            Answer::Conflict(theirs) if theirs != size => size = theirs,
            Answer::Conflict(_) | Answer::BadProof => {
                return Err(NotNewest::Forked { witness: name(), size });
            }
        }
    }
    Err(NotNewest::Unanswered(AskError::Unreachable {
        witness: name(),
        reason: "its size changed while it was asked: is another copy of this log running?".to_owned(),
    }))
}
