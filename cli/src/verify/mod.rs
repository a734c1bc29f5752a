//! `custody verify`: a log by its URL or its directory, a folder or a proof that `custody prove` wrote, checked against a
//! key that was pinned before. Nothing to check is a failure.

mod bundle;
pub mod directory;
pub mod report;
mod served;
#[cfg(test)]
pub mod stub;

use crate::profile::Home;
pub use directory::check_recordings;
pub use report::Report;

use anyhow::{Context as _, bail};
use clap::Args;
use custody_core::log::cosignature::CosignerKey;
use custody_core::log::note::NOTE_BYTES_MAX;
use custody_core::log::{Checkpoint, VerifierKey};
use serde_json::json;
use std::path::{Path, PathBuf};

/// `custody verify`
#[derive(Args)]
pub struct Verify {
    /// A log's URL (https://HOST/log), a data directory or its log directory, or a folder or a proof that `custody prove`
    /// wrote
    target: String,
    /// The log's verifier key, as `custodyd init` printed it; the one pinned at login if left out
    #[arg(long)]
    key: Option<String>,
    /// A checkpoint of this log from elsewhere (a witness, an older copy): the log must still hold it. May be repeated
    #[arg(long, value_name = "CHECKPOINT-FILE")]
    known: Vec<PathBuf>,
    /// The key of a witness that must have cosigned what is verified: the log's newest checkpoint, or a known one. May be
    /// repeated
    #[arg(long, value_name = "VERIFIER-KEY")]
    witness: Vec<String>,
    /// The event of a proof; the file beside it if left out
    #[arg(long)]
    event: Option<PathBuf>,
    /// For a URL: the authorities that its server's certificate may come from, PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// For a URL: a file with the token of a reader, for the entries
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `custody verify`.
pub async fn verify(args: &Verify) -> anyhow::Result<()> {
    let mut report = Report::default();
    let outcome = check(args, &mut report).await;
    report.print(&outcome, args.json);
    outcome
}

async fn check(args: &Verify, report: &mut Report) -> anyhow::Result<()> {
    let key = match &args.key {
        Some(key) => key.clone(),
        None => {
            Home::find()?
                .profile()
                .context("nothing says which key to trust: give it with --key, or log in")?
                .log_key
        }
    };
    let key = VerifierKey::parse(&key)?;
    report.value("key", json!(key.to_string()));
    report.value("origin", json!(key.name()));
    let witnesses: Vec<CosignerKey> = args
        .witness
        .iter()
        .map(|key| CosignerKey::parse(key).with_context(|| format!("«{key}» is no witness's key")))
        .collect::<anyhow::Result<_>>()?;
    let mut known: Vec<Checkpoint> =
        args.known.iter().map(|path| known_checkpoint(path, &key)).collect::<anyhow::Result<_>>()?;
    let sizes: Vec<u64> = known.iter().map(Checkpoint::size).collect();
    report.value("known", json!(sizes));
    if args.target.starts_with("http://") || args.target.starts_with("https://") {
        known.push(served::verify(args, &key, &known, report).await?);
        return require_witnesses(&witnesses, &known, report);
    }
    let path = Path::new(&args.target);
    let is_log = path.join("segments").is_dir() || path.join("log").is_dir();
    let checkpoint = if path.is_dir() && is_log {
        if !witnesses.is_empty() {
            known.extend(directory::cosigned(path, &key)?);
        }
        drop(directory::verify(path, &key, &known, report)?);
        return require_witnesses(&witnesses, &known, report);
    } else if path.is_dir() {
        bundle::folder(path, &key, report)?
    } else {
        bundle::proof(path, args.event.as_deref(), &key, report)?
    };
    compare_offline(&checkpoint, &known, report)?;
    known.push(checkpoint);
    require_witnesses(&witnesses, &known, report)
}

/// Each witness must have cosigned one of the checkpoints that hold; how far it has followed the log is told.
fn require_witnesses(
    witnesses: &[CosignerKey],
    holding: &[Checkpoint],
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut told = Vec::new();
    for witness in witnesses {
        let cosigned = holding
            .iter()
            .filter_map(|checkpoint| Some((checkpoint.size(), witness.verify(checkpoint.note()).ok()?.at())));
        let Some((size, at)) = cosigned.max_by_key(|(size, _)| *size) else {
            bail!("the witness {} has cosigned none of the checkpoints that hold", witness.name());
        };
        report.line("witness", format_args!("{} cosigned {size} entries at {at}", witness.name()));
        told.push(json!({ "name": witness.name(), "size": size, "at": at }));
    }
    report.value("witnesses", json!(told));
    Ok(())
}

/// A bundle or a proof has one checkpoint, and nothing that leads from it to another size.
fn compare_offline(checkpoint: &Checkpoint, known: &[Checkpoint], report: &mut Report) -> anyhow::Result<()> {
    for other in known {
        if other.size() != checkpoint.size() {
            bail!(
                "the checkpoints of {} and {} entries can't be compared without the log: verify its URL or a copy of it",
                checkpoint.size(),
                other.size()
            );
        }
        if other.root() != checkpoint.root() {
            bail!("the log was forked: two checkpoints of {} entries have two roots", other.size());
        }
        report.line("known", format_args!("{} entries, the same", other.size()));
    }
    Ok(())
}

/// A checkpoint in a file, if `key` signed it.
pub fn known_checkpoint(path: &Path, key: &VerifierKey) -> anyhow::Result<Checkpoint> {
    let text = read_text(path, NOTE_BYTES_MAX)?;
    Checkpoint::verify(&text, key)
        .with_context(|| format!("the known checkpoint {} isn't believed", path.display()))
}

fn read_text(path: &Path, bytes_max: usize) -> anyhow::Result<String> {
    let bytes = read(path, bytes_max)?;
    String::from_utf8(bytes).with_context(|| format!("{} is no text", path.display()))
}

fn read(path: &Path, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    let unreadable = || format!("{} can't be read", path.display());
    if std::fs::metadata(path).with_context(unreadable)?.len() > bytes_max as u64 {
        bail!("{} is too long for what it should be", path.display());
    }
    std::fs::read(path).with_context(unreadable)
}
