//! `custody log restore`: a backup is put back, or a damaged log gets back what a sink has of it.
//!
//! Sinks, their addresses and what they want to be shown are `custodyd`'s: it does the second itself, offline.

use super::copy;
use anyhow::{Context as _, bail};
use clap::Args;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The daemon's program, which lies beside ours.
const DAEMON: &str = "custodyd";

/// `custody log restore`
#[derive(Args)]
pub struct Restore {
    /// The folder of a backup
    #[arg(required_unless_present = "from", conflicts_with = "from", requires = "data")]
    backup: Option<PathBuf>,
    /// The data directory; its custodyd must not run. What it has already must be the beginning of the backup
    #[arg(long, conflicts_with = "from")]
    data: Option<PathBuf>,
    /// The log's verifier key; the one pinned at login, or the key store's, if left out
    #[arg(long)]
    key: Option<String>,
    /// A sink that gives back what it was delivered; may be given several times
    #[arg(long, value_name = "SINK", requires = "config")]
    from: Vec<String>,
    /// The configuration that names the sink; its custodyd must not run
    #[arg(long, requires = "from")]
    config: Option<PathBuf>,
    /// A file with a signed checkpoint, where the log has lost its own
    #[arg(long, value_name = "FILE", requires = "from")]
    checkpoint: Option<PathBuf>,
    /// When the log began, where it has lost its beginning: RFC 3339
    #[arg(long, value_name = "TIME", requires = "from")]
    since: Option<String>,
}

/// Runs `custody log restore`.
pub fn restore(args: &Restore) -> anyhow::Result<()> {
    match (&args.backup, &args.data, &args.config) {
        (Some(backup), Some(data), _) => copy::put_back(backup, data, args.key.as_deref()),
        (None, _, Some(config)) => from_sinks(args, config),
        _ => bail!("say what from: a backup's folder with --data DATA, or --from SINK with --config FILE"),
    }
}

/// Goes on as `custodyd restore`.
fn from_sinks(args: &Restore, config: &Path) -> anyhow::Result<()> {
    let ours = std::env::current_exe().context("this program's own place isn't known")?;
    let beside = ours.with_file_name(DAEMON);
    let program = if beside.is_file() { beside } else { PathBuf::from(DAEMON) };
    let mut command = Command::new(&program);
    command.arg("restore").arg("--config").arg(config);
    for sink in &args.from {
        command.arg("--from").arg(sink);
    }
    if let Some(checkpoint) = &args.checkpoint {
        command.arg("--checkpoint").arg(checkpoint);
    }
    for (name, value) in [("--key", &args.key), ("--since", &args.since)] {
        if let Some(value) = value {
            command.arg(name).arg(value);
        }
    }
    // Comes back only if it can't be begun.
    let error = command.exec();
    Err(error).with_context(|| format!("{} can't be run: it knows the sinks", program.display()))
}
