//! What `custody prove` wrote, offline: a folder with a session, or one event with its proof.

use super::report::Report;
use super::{read, read_text};
use crate::progress;
use crate::prove::{RECORDING, event_path, file_sha256};
use anyhow::{Context as _, bail};
use custody_core::log::note::NOTE_BYTES_MAX;
use custody_core::log::proof::ProofFile;
use custody_core::log::{Checkpoint, EVENT_BYTES_MAX, VerifierKey, bundle};
use custody_core::recording::Reader;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use uuid::Uuid;

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
    let session = session(path, &parsed)?;
    let recording = recording(path, &parsed, session)?;
    let kinds: Vec<&str> = parsed.iter().filter_map(|event| event.get("type")?.as_str()).collect();
    report.headline(format!("{} stands in the log {}.", path.display(), checkpoint.origin()));
    report.line("signed by", key);
    report.line("events", format_args!("{} of {}", events.len(), checkpoint.size()));
    if let (Some(first), Some(last)) = (kinds.first(), kinds.last()) {
        report.line("story", format_args!("{first} to {last}"));
    }
    report.line("session", session);
    report.line("recording", recording.as_deref().unwrap_or("none"));
    report.value("signed", json!(checkpoint.size()));
    report.value("events", json!(events.keys().collect::<Vec<_>>()));
    report.value("sessions", json!([session]));
    report.value("recording", json!(recording));
    Ok(checkpoint)
}

/// The session that all events are of: each is proved by itself, and with another's beside them they would tell a story that
/// never was.
fn session(folder: &Path, events: &[Value]) -> anyhow::Result<Uuid> {
    let named: BTreeSet<Option<&str>> =
        events.iter().map(|event| event.get("session").and_then(Value::as_str)).collect();
    let mut named = named.into_iter();
    match (named.next().flatten(), named.next()) {
        (Some(id), None) => id.parse().with_context(|| format!("«{id}» is no session")),
        _ => bail!("{} is NOT proved: its events aren't all of one session", folder.display()),
    }
}

/// The SHA-256 of the recording, which must be the one that was sealed, and of the same session; `None` if none was and none
/// is there.
fn recording(folder: &Path, events: &[Value], session: Uuid) -> anyhow::Result<Option<String>> {
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
    let recorded = Reader::open(&path)?.header().session;
    if recorded != session {
        bail!("{} is of the session {recorded} and NOT of {session}", path.display());
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

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::recording::{Level, Recorder};

    const OURS: Uuid = Uuid::from_u128(1);
    const ANOTHER: Uuid = Uuid::from_u128(2);

    #[test]
    fn events_are_of_one_session() {
        let folder = Path::new("folder");
        let event = |session: Uuid| json!({ "session": session, "type": "session.started" });
        let (ours, of_none) = (event(OURS), json!({ "type": "log.sealed" }));
        assert_eq!(session(folder, &[ours.clone(), ours.clone()]).unwrap(), OURS);
        let strange = json!({ "session": 7, "type": "session.started" });
        for others in [event(ANOTHER), of_none, strange, json!([])] {
            assert!(session(folder, &[ours.clone(), others.clone()]).is_err(), "{others}");
            assert!(session(folder, &[others.clone(), ours.clone()]).is_err(), "{others}");
        }
        assert!(session(folder, &[]).is_err());
        assert!(session(folder, &[json!({ "session": "none" })]).is_err());
    }

    #[test]
    fn a_recording_is_of_its_events_session() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::create(dir.path(), OURS, 0, Level::Terminal).unwrap();
        std::fs::rename(recorder.path(), dir.path().join(RECORDING)).unwrap();
        recorder.seal(1).unwrap();
        let sum = file_sha256(&dir.path().join(RECORDING)).unwrap();
        let sealed = [json!({ "type": "recording.sealed", "data": { "sha256": sum } })];
        assert_eq!(recording(dir.path(), &sealed, OURS).unwrap(), Some(sum));
        let error = recording(dir.path(), &sealed, ANOTHER).unwrap_err().to_string();
        assert!(error.contains(&OURS.to_string()) && error.contains(&ANOTHER.to_string()), "{error}");
        assert!(recording(dir.path(), &[], OURS).is_err());
    }
}
