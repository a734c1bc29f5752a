//! A log's directory with its recordings, offline.

use super::report::Report;
use crate::progress;
use anyhow::{Context as _, bail};
use custody_core::event::Timestamp;
use custody_core::event::hex::to_hex;
use custody_core::log::cosigned::CosignedCheckpoints;
use custody_core::log::{Checkpoint, Nanos, VerifierKey, verify as log_verify};
use custody_core::recording::check::Point;
use custody_core::recording::{self, recording_path};
use custody_core::state::State;
use serde_json::json;
use std::path::{Path, PathBuf};

/// A data directory, or the log directory in it. Gives the state that the log holds.
pub fn verify(
    path: &Path,
    key: &VerifierKey,
    known: &[Checkpoint],
    report: &mut Report,
) -> anyhow::Result<State> {
    let log = log(path);
    report.value("kind", json!("directory"));
    let bar = progress::events("verifying")?;
    let mut state = State::new();
    let verified = log_verify::directory(
        &log,
        key,
        known,
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
    let time = |nanos: Option<Nanos>| nanos.map(|n| Timestamp::from(n).to_string()).unwrap_or_default();
    report.headline(format!("The log {} is what was signed.", verified.origin));
    report.line("signed by", key);
    report.line("events", format_args!("{} signed, {} here", verified.signed, verified.entries));
    report.line("root", to_hex(&verified.root.0));
    let (first, last) = (time(verified.first_appended), time(verified.last_appended));
    report.line("appended", format_args!("{first} to {last}"));
    report.line("segments", verified.segments);
    report.value("signed", json!(verified.signed));
    report.value("entries", json!(verified.entries));
    report.value("root", json!(to_hex(&verified.root.0)));
    report.value("appended", json!([first, last]));
    report.value("checkpoints", json!(verified.checkpoints));
    report.value("unfinished_bytes", json!(verified.unfinished_bytes));
    if !known.is_empty() {
        report.line("known", format_args!("{} checkpoints from elsewhere hold", known.len()));
    }
    if verified.unfinished_bytes > 0 {
        report.line(
            "unfinished",
            format_args!(
                "{} bytes behind the last whole write: of a crash, or of a log that is running",
                verified.unfinished_bytes
            ),
        );
    }
    match log.parent() {
        Some(data) if data.join("recordings").is_dir() => {
            check_recordings(&state, &data.join("recordings"), report)?;
        }
        _ => report.line("recordings", "not here"),
    }
    Ok(state)
}

/// The log directory that is meant: `path`, or the one in it.
pub fn log(path: &Path) -> PathBuf {
    if path.join("segments").is_dir() { path.to_owned() } else { path.join("log") }
}

/// The newest checkpoint with cosignatures that the directory holds, if it does: to be verified with the rest.
pub fn cosigned(path: &Path, key: &VerifierKey) -> anyhow::Result<Option<Checkpoint>> {
    let log = log(path);
    let kept = CosignedCheckpoints::open(&log, key)
        .with_context(|| format!("the cosigned checkpoint in {} can't be read", log.display()))?;
    Ok(kept.newest())
}

/// Every recording that the log speaks of, against its anchors and its seal.
pub fn check_recordings(state: &State, recordings: &Path, report: &mut Report) -> anyhow::Result<()> {
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
            report.line("recording", format_args!("{id}: {finding}"));
        }
    }
    report
        .line("recordings", format_args!("{whole} whole, {cut} without an end, {bad} NOT what was recorded"));
    report.value("recordings", json!({ "whole": whole, "without_end": cut, "wrong": bad }));
    if bad > 0 {
        bail!("{bad} recordings are not what was recorded");
    }
    Ok(())
}
