//! A session's folder: its events, their proofs under one checkpoint, the recording, and how to check all of it.

use super::{Entry, PAGE_EVENTS, Proofs, RECORDING, covering, file_sha256, page, put};
use crate::client::Client;
use crate::progress;
use crate::sessions::save_recording;
use anyhow::{Context as _, bail};
use custody_core::log::bundle::{CHECKPOINT, EVENT_SUFFIX, PROOF_SUFFIX};
use custody_core::log::tree::leaf_hash;
use custody_core::log::{Hash, VerifierKey};
use custody_core::recording::Reader;
use custody_core::recording::asciicast;
use serde_json::Value;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The script that is put into each folder; docs/verify.md explains it.
const SCRIPT: &str = include_str!("../../../docs/verify/verify.py");
const README: &str = include_str!("readme.md");

/// What the folder tells of itself.
#[derive(Default)]
struct Story {
    /// Indices and leaf hashes.
    events: Vec<(u64, Hash)>,
    first_kind: String,
    last_kind: String,
    /// Whether its end is among them; the end of something in it may stand behind.
    ended: bool,
    sealed: Option<String>,
}

/// Writes the folder; it is there whole or not at all.
pub async fn write(client: &Client, key: &VerifierKey, id: Uuid, output: &Path) -> anyhow::Result<()> {
    if output.exists() {
        bail!("{} is there already: name another folder with -o", output.display());
    }
    let folder = PathBuf::from(format!("{}.unfinished", output.display()));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("{} can't be removed", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("{} can't be made", folder.display()))?;
    let story = events(client, id, &folder).await?;
    let (last, _) = story.events.last().with_context(|| format!("the session {id} has no event"))?;
    let log = client.log();
    let checkpoint = covering(&log, key, *last).await?;
    let signed = checkpoint.size();
    put(&folder.join(CHECKPOINT), checkpoint.to_string().as_bytes())?;
    let proofs = Proofs::fetch(&log, checkpoint, &story.events).await?;
    let bar = progress::endless("proving")?;
    for (index, leaf) in bar.wrap_iter(story.events.iter()) {
        let (index, proof) = proofs.of(*index, leaf)?;
        put(&folder.join(format!("{index}{PROOF_SUFFIX}")), proof.as_bytes())?;
    }
    let recording = recording(id, &story, &folder).await?;
    put(&folder.join("log-key"), format!("{key}\n").as_bytes())?;
    put(&folder.join("verify.py"), SCRIPT.as_bytes())?;
    let text = readme(id, key, signed, &story, &recording);
    put(&folder.join("README.md"), text.as_bytes())?;
    std::fs::rename(&folder, output).with_context(|| format!("{} can't be written", output.display()))?;
    println!("{}: {} events, {recording}", output.display(), story.events.len());
    if !story.ended {
        println!("The session has not ended: what comes later isn't in there.");
    }
    println!("Check it anywhere:  {}/README.md says how", output.display());
    Ok(())
}

/// All events of the session, into files as they come.
async fn events(client: &Client, id: Uuid, folder: &Path) -> anyhow::Result<Story> {
    let bar = progress::endless("fetching")?;
    let mut story = Story::default();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("session", id.to_string()), ("limit", PAGE_EVENTS.to_string())];
        query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let (lines, next) = page(client, query).await?;
        if lines.is_empty() {
            bar.finish_and_clear();
            return Ok(story);
        }
        for line in lines.lines() {
            let entry = Entry::parse(line)?;
            let bytes = entry.event.get();
            put(&folder.join(format!("{}{EVENT_SUFFIX}", entry.index)), bytes.as_bytes())?;
            let event: Value =
                serde_json::from_str(bytes).context("the server sent an event that is none")?;
            let kind = event.get("type").and_then(Value::as_str).unwrap_or_default();
            if story.events.is_empty() {
                story.first_kind = kind.to_owned();
            }
            if kind == "recording.sealed" {
                story.sealed = event.pointer("/data/sha256").and_then(Value::as_str).map(str::to_owned);
            }
            story.ended |= kind == "session.ended";
            story.last_kind = kind.to_owned();
            story.events.push((entry.index, leaf_hash(bytes.as_bytes())));
            bar.inc(1);
        }
        cursor = Some(next);
    }
}

/// The recording, if it was sealed, and what it showed as a cast; says in a few words what there is.
async fn recording(id: Uuid, story: &Story, folder: &Path) -> anyhow::Result<String> {
    let Some(sealed) = &story.sealed else {
        return Ok("no recording: none was sealed".to_owned());
    };
    let path = folder.join(RECORDING);
    let mut file = File::create(&path).with_context(|| format!("{} can't be written", path.display()))?;
    save_recording(&id.to_string(), "export", &mut file).await?;
    if file_sha256(&path)? != *sealed {
        bail!("the recording that the server sent isn't the one that was sealed");
    }
    // For players; a session that showed nothing has none.
    let cast = folder.join("recording.cast");
    let mut out = BufWriter::new(File::create(&cast)?);
    let exported = asciicast::export(&mut Reader::new(BufReader::new(File::open(&path)?))?, None, &mut out);
    out.flush()?;
    drop(out);
    if exported.is_err() {
        std::fs::remove_file(&cast)?;
    }
    Ok("with its recording".to_owned())
}

fn readme(id: Uuid, key: &VerifierKey, signed: u64, story: &Story, recording: &str) -> String {
    let completeness = if story.ended {
        "It has ended"
    } else {
        "It had not ended when this was written, so later events are not in here"
    };
    let values = [
        ("{session}", id.to_string()),
        ("{origin}", key.name().to_owned()),
        ("{events}", story.events.len().to_string()),
        ("{first}", story.events.first().map(|(index, _)| index.to_string()).unwrap_or_default()),
        ("{first_kind}", story.first_kind.clone()),
        ("{last_kind}", story.last_kind.clone()),
        ("{signed}", signed.to_string()),
        ("{recording}", recording.to_owned()),
        ("{ended}", completeness.to_owned()),
    ];
    values.iter().fold(README.to_owned(), |text, (name, value)| text.replace(name, value))
}
