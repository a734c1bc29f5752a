//! What `custody prove` wrote, offline: a folder with a session, or one event with its proof.

use super::report::Report;
use super::{read, read_text};
use crate::progress;
use crate::prove::{RECORDING, event_path, file_sha256};
use anyhow::{Context as _, bail};
use custody_core::log::note::NOTE_BYTES_MAX;
use custody_core::log::proof::ProofFile;
use custody_core::log::{Checkpoint, EVENT_BYTES_MAX, VerifierKey, bundle};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// A folder.
pub fn folder(path: &Path, key: &VerifierKey, report: &mut Report) -> anyhow::Result<Checkpoint> {
    report.value("kind", json!("bundle"));
    let bar = progress::events("verifying")?;
    let found = bundle::verify(path, key, &mut |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let bundle::Bundle { checkpoint, events } =
        found.with_context(|| format!("{} is NOT proved", path.display()))?;
    let parsed: Vec<Value> = events
        .iter()
        .map(|(index, bytes)| {
            serde_json::from_slice(bytes).with_context(|| format!("event {index} is no JSON"))
        })
        .collect::<anyhow::Result<_>>()?;
    let recording = recording(path, &parsed)?;
    let kinds: Vec<&str> = parsed.iter().filter_map(|event| event.get("type")?.as_str()).collect();
    let sessions: BTreeSet<&str> = parsed.iter().filter_map(|event| event.get("session")?.as_str()).collect();
    report.headline(format!("{} stands in the log {}.", path.display(), checkpoint.origin()));
    report.line("signed by", key);
    report.line("events", format_args!("{} of {}", events.len(), checkpoint.size()));
    if let (Some(first), Some(last)) = (kinds.first(), kinds.last()) {
        report.line("story", format_args!("{first} to {last}"));
    }
    for session in &sessions {
        report.line("session", session);
    }
    report.line("recording", recording.as_deref().unwrap_or("none"));
    report.value("signed", json!(checkpoint.size()));
    report.value("events", json!(events.keys().collect::<Vec<_>>()));
    report.value("sessions", json!(sessions));
    report.value("recording", json!(recording));
    Ok(checkpoint)
}

/// The SHA-256 of the recording, which must be the one that was sealed; `None` if none was and none is there.
fn recording(folder: &Path, events: &[Value]) -> anyhow::Result<Option<String>> {
    let sealed: BTreeSet<&str> = events
        .iter()
        .filter(|event| event.get("type").is_some_and(|kind| kind == "recording.sealed"))
        .filter_map(|event| event.pointer("/data/sha256")?.as_str())
        .collect();
    let path = folder.join(RECORDING);
    let sum = match file_sha256(&path) {
        Ok(sum) => sum,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && sealed.is_empty() => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("{} can't be read", path.display())),
    };
    if !sealed.contains(sum.as_str()) {
        bail!("{} is NOT the recording that was sealed", path.display());
    }
    Ok(Some(sum))
}

/// One event with its proof.
pub fn proof(
    path: &Path,
    event: Option<&Path>,
    key: &VerifierKey,
    report: &mut Report,
) -> anyhow::Result<Checkpoint> {
    report.value("kind", json!("proof"));
    let text = read_text(path, NOTE_BYTES_MAX)?;
    let event_path = event.map_or_else(|| event_path(path), Path::to_owned);
    let event = read(&event_path, EVENT_BYTES_MAX)?;
    let proof = ProofFile::parse(&text)?;
    let checkpoint = proof.check(&event, key)?;
    report.headline(format!("{} stands in the log {}.", event_path.display(), checkpoint.origin()));
    report.line("event", format_args!("{} of {}", proof.index, checkpoint.size()));
    report.line("signed by", key);
    report.value("events", json!([proof.index]));
    report.value("signed", json!(checkpoint.size()));
    Ok(checkpoint)
}
