//! `custody log recover --from-witness`: what a witness has and this directory hasn't is brought back, offline, under
//! the log's own signature and the witness's.

use crate::progress;
use anyhow::{Context as _, bail};
use clap::Args;
use custody_core::log::embedded::import::Import;
use custody_core::log::tree::verify_consistency;
use custody_core::log::{Checkpoint, CosignerKey, Log as _, VerifierKey, durable};
use custody_witness::copy::first_difference;
use custody_witness::origin_hash;
use custody_witness::source::{Source, http_client};
use std::path::PathBuf;

/// The note for the next `custodyd run`: what the log came back from.
const RESTORED: &str = "restored";

/// `custody log recover`
#[derive(Args)]
pub struct Recover {
    /// The witness's URL, as the log's configuration has it
    #[arg(long, value_name = "URL")]
    from_witness: String,
    /// The log's verifier key, as `custodyd init` printed it
    #[arg(long, value_name = "KEY")]
    key: String,
    /// The witness's verifier key
    #[arg(long, value_name = "KEY")]
    witness: String,
    /// The data directory, of a custodyd that doesn't run
    #[arg(long)]
    data: PathBuf,
    /// A file with the token that lets the witness's copy be read
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// A PEM file with the authorities that the witness's certificate is checked against
    #[arg(long)]
    ca: Option<PathBuf>,
}

/// Runs `custody log recover`.
///
/// What is here must be the beginning of what the witness has. Nothing is changed before that is known; entries that
/// were fetched stay when this is cut off, and it goes on with them the next time.
pub async fn recover(args: Recover) -> anyhow::Result<()> {
    let key = VerifierKey::parse(&args.key)?;
    let witness = CosignerKey::parse(&args.witness)?;
    let token = match &args.token_file {
        Some(path) => Some(
            std::fs::read_to_string(path)
                .with_context(|| format!("the token in {} can't be read", path.display()))?,
        ),
        None => None,
    };
    let url = format!("{}/{}", args.from_witness.trim_end_matches('/'), origin_hash(key.name()));
    let source = Source::new(http_client(args.ca.as_deref())?, &url, token.as_deref())?;

    let note = source.checkpoint().await?;
    let checkpoint = Checkpoint::verify(&note, &key).context("what the witness has isn't this log")?;
    let cosigned = witness.verify(checkpoint.note()).context("what the witness has isn't cosigned by it")?;
    let log = args.data.join("log");
    let mut import = Import::begin(&log, &key, &mut |_, _, _| {})?;
    let (ours, theirs) = (import.size(), checkpoint.size());
    if ours >= theirs {
        if import.root_at(theirs)? != checkpoint.root() {
            bail!("{}", other_history(&import, &source, theirs).await);
        }
        if let Some(lost) = import.lost() {
            bail!("{}", still_lost(witness.name(), ours, lost));
        }
        println!(
            "Nothing is missing: the witness {} has cosigned {theirs} entries, here are {ours}.",
            witness.name()
        );
        return Ok(());
    }
    let proof = source.consistency(ours, theirs).await?;
    if !verify_consistency(ours, &import.root(), theirs, &checkpoint.root(), &proof) {
        bail!("{}", other_history(&import, &source, theirs).await);
    }

    let bar = progress::events("bringing back")?;
    bar.set_length(theirs);
    bar.set_position(ours);
    while import.size() < theirs {
        for entry in source.next(import.size(), theirs).await? {
            import.push(entry.appended, &entry.bytes)?;
        }
        bar.set_position(import.size());
    }
    bar.finish_and_clear();
    if import.root() != checkpoint.root() {
        import.rewind_to(ours, &mut |_, _, _| {})?;
        bail!("what the witness serves isn't what it has cosigned: nothing of it was kept");
    }
    if let Some(lost) = import.lost().filter(|lost| lost.size() > theirs) {
        let line = still_lost(witness.name(), theirs, lost);
        import.flush()?;
        bail!("{} entries were brought back, but {line}", theirs - ours);
    }
    // First the note: if this is cut off in between, the log says one time too many that it was brought back.
    durable::write_file(&log.join(RESTORED), b"witness\n", 0o600)
        .context("the note for custodyd can't be left")?;
    import.seal(&checkpoint)?;
    println!("{} entries were brought back: {theirs} are here now.", theirs - ours);
    println!("  cosigned by  {} at {}", witness.name(), cosigned.at());
    println!("  root         {}", checkpoint.root());
    println!("Next: `custodyd run`, which says in the log that they came from a witness.");
    Ok(())
}

/// One line: what even the witness doesn't have.
fn still_lost(witness: &str, have: u64, lost: &Checkpoint) -> String {
    format!(
        "the log has signed {} entries, and the witness {witness} has no more than the {have} that are here: go on without \
         the others with `custodyd new-epoch`",
        lost.size()
    )
}

/// One line: why what is here can't be completed with what the witness has.
async fn other_history(import: &Import, source: &Source, size: u64) -> String {
    let mut line = "what is here isn't the beginning of what the witness has".to_owned();
    if let Some(copy) = import.log()
        && let Ok(Some(index)) = first_difference(&copy, source, size).await
    {
        line = format!("{line}: entry {index} is the first that differs (of {} here)", copy.size());
    }
    format!("{line}. Nothing was changed: keep this directory as evidence, and recover into an empty one")
}
