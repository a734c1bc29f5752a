//! `custody log …`: how the log does, its keys and its clock, and what keeps it safe: checks, backups, what brings it back.

mod operate;

use clap::Subcommand;

/// `custody log …`
#[derive(Subcommand)]
pub enum Log {
    /// Say how the log does
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a further key sign the checkpoints, beside those that do: the first half of a rotation
    AddKey {
        /// Why; it stands in the log
        #[arg(long)]
        reason: String,
    },
    /// Let a key sign no longer: the second half of a rotation
    RetireKey {
        /// The verifier key, as `custody log status` shows it
        key: String,
        /// Why; it stands in the log
        #[arg(long)]
        reason: String,
    },
    /// Say that the machine's clock is right after it leapt ahead
    ConfirmClock,
    /// Make the search projection smaller
    CompactProjections,
}

/// Runs `custody log …`.
pub async fn log(command: Log) -> anyhow::Result<()> {
    match command {
        Log::Status { json } => operate::status(json).await,
        Log::AddKey { reason } => operate::add_key(&reason).await,
        Log::RetireKey { key, reason } => operate::retire_key(&key, &reason).await,
        Log::ConfirmClock => operate::confirm_clock().await,
        Log::CompactProjections => operate::compact_projections().await,
    }
}
