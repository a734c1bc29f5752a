//! `custody verify`: a log directory with its recordings, or one event with its proof, checked offline against a key.

use crate::profile::Home;
use anyhow::{Context as _, bail};
use clap::Args;
use custody_core::event::Timestamp;
use custody_core::event::hex::to_hex;
use custody_core::log::proof::ProofFile;
use custody_core::log::{VerifierKey, verify as log_verify};
use custody_core::recording::check::Point;
use custody_core::recording::{self, recording_path};
use custody_core::state::State;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::{Path, PathBuf};

/// `custody verify`
#[derive(Args)]
pub struct Verify {
    /// A data directory (or its log directory), or a proof that `custody events proof` wrote
    path: PathBuf,
    /// The log's verifier key, as `custodyd init` printed it; the one pinned at login if left out
    #[arg(long)]
    key: Option<String>,
    /// The event of the proof; PROOF.event.json if left out
    #[arg(long)]
    event: Option<PathBuf>,
}

/// Runs `custody verify`.
pub fn verify(args: &Verify) -> anyhow::Result<()> {
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
    if args.path.is_dir() { directory(&args.path, &key) } else { proof(args, &key) }
}

fn proof(args: &Verify, key: &VerifierKey) -> anyhow::Result<()> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("{} can't be read", path.display()));
    let text = String::from_utf8(read(&args.path)?)
        .with_context(|| format!("{} is no proof", args.path.display()))?;
    let event_path =
        args.event.clone().unwrap_or_else(|| PathBuf::from(format!("{}.event.json", args.path.display())));
    let event = read(&event_path)?;
    let proof = ProofFile::parse(&text)?;
    let checkpoint = proof.check(&event, key)?;
    println!("{} stands in the log {}.", event_path.display(), checkpoint.origin());
    println!("  event        {} of {}", proof.index, checkpoint.size());
    println!("  signed by    {key}");
    Ok(())
}

fn directory(path: &Path, key: &VerifierKey) -> anyhow::Result<()> {
    let log = if path.join("segments").is_dir() { path.to_owned() } else { path.join("log") };
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(
        "{msg} {wide_bar} {human_pos}/{human_len} events, {eta} left",
    )?);
    bar.set_message("verifying");
    let mut state = State::new();
    let verified = log_verify::directory(
        &log,
        key,
        &[],
        &mut |done, of| {
            bar.set_length(of);
            bar.set_position(done);
        },
        &mut |entry| {
            // What the log holds was checked; what the fold makes of it only finds the recordings' anchors.
            let _order = state.apply(entry);
        },
    );
    bar.finish_and_clear();
    let verified = verified.map_err(|error| match error.first_wrong() {
        Some(index) => anyhow::Error::new(error)
            .context(format!("the log is NOT what was signed: event {index} is the first that is wrong")),
        None => anyhow::Error::new(error).context("the log can't be verified"),
    })?;
    let time = |nanos: Option<custody_core::log::Nanos>| {
        nanos.map(|n| Timestamp::from(n).to_string()).unwrap_or_default()
    };
    println!("The log {} is what was signed.", verified.origin);
    println!("  signed by    {key}");
    println!("  events       {} signed, {} here", verified.signed, verified.entries);
    println!("  root         {}", to_hex(&verified.root.0));
    println!("  appended     {} to {}", time(verified.first_appended), time(verified.last_appended));
    println!("  segments     {}", verified.segments);
    if verified.unfinished_bytes > 0 {
        println!(
            "  unfinished   {} bytes behind the last whole write: of a crash, or of a log that is running",
            verified.unfinished_bytes
        );
    }
    let recordings = match log.parent() {
        Some(data) if data.join("recordings").is_dir() => data.join("recordings"),
        _ => {
            println!("  recordings   not here");
            return Ok(());
        }
    };
    check_recordings(&state, &recordings)
}

/// Every recording that the log speaks of, against its anchors and its seal.
pub fn check_recordings(state: &State, recordings: &Path) -> anyhow::Result<()> {
    let (mut whole, mut cut, mut bad) = (0_u64, 0_u64, 0_u64);
    for (id, session) in state.sessions().iter() {
        let known = &session.recording;
        if known.anchors.is_empty() && known.sealed.is_none() {
            continue;
        }
        let path = recording_path(recordings, id.0, id.made_at().nanos());
        let points: Vec<Point> =
            known.anchors.iter().map(|a| Point { bytes: a.bytes, head: a.head }).collect();
        let sealed = known.sealed.map(|(_, seal)| recording::Sealed {
            bytes: seal.bytes,
            head: seal.head,
            frames: seal.frames,
            sha256: seal.sha256,
        });
        let verdict = recording::check(&path, &points, sealed.as_ref())
            .with_context(|| format!("the recording {} can't be read", path.display()))?;
        if verdict.is_tampered() {
            bad += 1;
        } else if verdict.is_whole() {
            whole += 1;
            continue;
        } else {
            cut += 1;
        }
        for finding in &verdict.findings {
            println!("  recording    {id}: {finding}");
        }
    }
    println!("  recordings   {whole} whole, {cut} without an end, {bad} NOT what was recorded");
    if bad > 0 {
        bail!("{bad} recordings are not what was recorded");
    }
    Ok(())
}
