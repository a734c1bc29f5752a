//! `custody log …`: how the log does, its keys and its clock, and what keeps it safe: checks, backups, what brings it back.

mod check;
mod copy;
mod operate;
mod recover;
mod restore;
mod stamps;

use crate::profile::Home;
use anyhow::Context as _;
use clap::Subcommand;
use custody_core::log::VerifierKey;
use custody_core::log::embedded::import::{Import, finished};
use std::path::Path;

/// `custody log …`
#[derive(Subcommand)]
pub enum Log {
    /// Say how the log does
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what a start would find in a data directory: whether the log and its recordings are whole
    Check(check::Check),
    /// Copy a data directory, also of a running custodyd; verified on the way
    Backup(copy::Backup),
    /// Put a backup back, or give a damaged log back what a sink has of it
    Restore(restore::Restore),
    /// List the time stamps of an authority (RFC 3161), or write them into files
    Stamps(stamps::Stamps),
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
    /// Bring back what a witness has and a data directory hasn't
    Recover(recover::Recover),
    /// Make the search projection smaller
    CompactProjections,
}

/// Runs `custody log …`.
pub async fn log(command: Log) -> anyhow::Result<()> {
    match command {
        Log::Status { json } => operate::status(json).await,
        Log::Check(args) => check::check(&args),
        Log::Backup(args) => copy::backup(&args),
        Log::Restore(args) => restore::restore(&args),
        Log::Stamps(args) => stamps::stamps(&args).await,
        Log::AddKey { reason } => operate::add_key(&reason).await,
        Log::RetireKey { key, reason } => operate::retire_key(&key, &reason).await,
        Log::ConfirmClock => operate::confirm_clock().await,
        Log::Recover(args) => recover::recover(args).await,
        Log::CompactProjections => operate::compact_projections().await,
    }
}

/// The key that was given, or else the one that was pinned at login.
fn key(given: Option<&str>) -> anyhow::Result<VerifierKey> {
    let key = match given {
        Some(key) => key.to_owned(),
        None => {
            let profile = Home::find()?.profile();
            profile.context("nothing says which key to trust: give it with --key, or log in")?.log_key
        }
    };
    Ok(VerifierKey::parse(&key)?)
}

/// Takes back what was brought into the log in the directory `log` and that nothing vouches for, after it was cut off or has
/// failed.
fn take_back(log: &Path, key: &VerifierKey) -> anyhow::Result<()> {
    if finished(log).is_ok() {
        return Ok(());
    }
    let mut import = Import::begin(log, key, &mut |_, _, _| {})?;
    Ok(import.rewind_to(import.own(), &mut |_, _, _| {})?)
}
