//! `custody prove`: an event or a whole session with all that proves it, for people who have nothing of ours.
//!
//! The proofs are made here, from the tiles that the log serves to everyone, and checked before they are written: a
//! server that lies is found now and not in court.

mod session;

use crate::client::Client;
use crate::profile::Home;
use crate::served::ServedLog;
use anyhow::{Context as _, bail};
use clap::Args;
use custody_core::event::hex::to_hex;
use custody_core::log::bundle::{EVENT_SUFFIX, PROOF_SUFFIX};
use custody_core::log::proof::ProofFile;
use custody_core::log::served::Prover;
use custody_core::log::tree::leaf_hash;
use custody_core::log::{Checkpoint, Hash, VerifierKey};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// What a session's recording is called in its folder.
pub const RECORDING: &str = "recording";
/// Events in one page.
const PAGE_EVENTS: usize = 1000;
/// Tiles that are fetched at once.
const FETCHES: usize = 8;
/// A checkpoint covers what is durable within a tenth of a second.
const COVERED_WITHIN: Duration = Duration::from_secs(10);

/// `custody prove`
#[derive(Args)]
pub struct Prove {
    /// An event's index or id, or a session's id
    what: String,
    /// For an event the proof's file (its event goes beside it), for a session a new folder; named after what is proved
    /// if left out
    #[arg(long, short)]
    output: Option<PathBuf>,
}

/// What is to be proved.
enum What {
    Event(u64),
    Session(Uuid),
}

/// Runs `custody prove`.
pub async fn prove(args: Prove) -> anyhow::Result<()> {
    let (client, profile) = Client::logged_in(&Home::find()?)?;
    let key = VerifierKey::parse(&profile.log_key)?;
    match find(&client, &args.what).await? {
        What::Event(index) => {
            let output = args.output.unwrap_or_else(|| PathBuf::from(format!("{index}{PROOF_SUFFIX}")));
            event(&client, &key, index, &output).await
        }
        What::Session(id) => {
            let output = args.output.unwrap_or_else(|| PathBuf::from(format!("session-{id}")));
            session::write(&client, &key, id, &output).await
        }
    }
}

/// Writes one event with its proof.
pub async fn event(client: &Client, key: &VerifierKey, index: u64, output: &Path) -> anyhow::Result<()> {
    let line = client.get(&format!("/v1/events/{index}"), &[], "application/json").await?.text().await?;
    let Entry { event, .. } = Entry::parse(&line)?;
    let leaf = leaf_hash(event.get().as_bytes());
    let log = client.log();
    let checkpoint = covering(&log, key, index).await?;
    let (_, proof) = Proofs::fetch(&log, checkpoint, &[(index, leaf)]).await?.of(index, &leaf)?;
    let event_path = event_path(output);
    put(&event_path, event.get().as_bytes())?;
    put(output, proof.as_bytes())?;
    println!("{} and {}", output.display(), event_path.display());
    println!("Check them anywhere:  custody verify {} --key '{key}'", output.display());
    Ok(())
}

/// Where the event of a proof lies: `5.json` beside `5.tlog-proof`, else the proof's name with `.event.json` behind it.
pub fn event_path(proof: &Path) -> PathBuf {
    let name = proof.as_os_str().to_string_lossy();
    match name.strip_suffix(PROOF_SUFFIX) {
        Some(stem) => PathBuf::from(format!("{stem}{EVENT_SUFFIX}")),
        None => PathBuf::from(format!("{name}.event.json")),
    }
}

/// An index is a number; a session and an event both have UUIDs.
async fn find(client: &Client, what: &str) -> anyhow::Result<What> {
    if let Ok(index) = what.parse() {
        return Ok(What::Event(index));
    }
    let Ok(id) = what.parse::<Uuid>() else {
        bail!("«{what}» is neither an index nor the id of an event or a session");
    };
    let of_session = vec![("session", id.to_string()), ("limit", "1".to_owned())];
    if !page(client, of_session).await?.0.is_empty() {
        return Ok(What::Session(id));
    }
    // Whatever mentions the id is found, also those that it caused: the one that has it is the first.
    let (mut lines, mut cursor) = page(client, vec![("text", id.to_string())]).await?;
    while !lines.is_empty() {
        for line in lines.lines() {
            let entry = Entry::parse(line)?;
            #[derive(serde::Deserialize)]
            struct Id {
                id: Uuid,
            }
            if serde_json::from_str::<Id>(entry.event.get()).is_ok_and(|event| event.id == id) {
                return Ok(What::Event(entry.index));
            }
        }
        (lines, cursor) = page(client, vec![("text", id.to_string()), ("cursor", cursor)]).await?;
    }
    bail!("no session and no event has the id {id}")
}

/// One page of entries, a line each, and the next cursor; an empty one where nothing more matches.
async fn page(client: &Client, mut query: Vec<(&str, String)>) -> anyhow::Result<(String, String)> {
    loop {
        let response = client.get("/v1/events", &query, "application/x-ndjson").await?;
        let next = response.headers().get("custody-cursor").and_then(|value| value.to_str().ok());
        let next = next.context("the server's page names no next one")?.to_owned();
        let has_more = response.headers().get("custody-more").is_some_and(|more| more == "true");
        let lines = response.text().await?;
        if !lines.is_empty() || !has_more {
            return Ok((lines, next));
        }
        // The search takes longer than one page's time.
        query.retain(|(name, _)| *name != "cursor");
        query.push(("cursor", next));
    }
}

/// An entry as the API sends it; the event's bytes are as they were hashed.
#[derive(serde::Deserialize)]
struct Entry<'a> {
    index: u64,
    #[serde(borrow)]
    event: &'a RawValue,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> anyhow::Result<Self> {
        serde_json::from_str(line).context("the server sent a line that is no entry")
    }
}

/// A checkpoint that covers entry `last`.
async fn covering(log: &ServedLog, key: &VerifierKey, last: u64) -> anyhow::Result<Checkpoint> {
    let deadline = tokio::time::Instant::now() + COVERED_WITHIN;
    loop {
        let checkpoint = log.checkpoint(key).await?;
        if checkpoint.size() > last {
            return Ok(checkpoint);
        }
        if tokio::time::Instant::now() > deadline {
            bail!("no checkpoint covers event {last} yet: try again");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Makes proofs under one checkpoint.
struct Proofs {
    checkpoint: Checkpoint,
    prover: Prover,
}

impl Proofs {
    /// Fetches the tiles that the proofs of these events are made of.
    async fn fetch(log: &ServedLog, checkpoint: Checkpoint, events: &[(u64, Hash)]) -> anyhow::Result<Self> {
        let mut prover = Prover::new(checkpoint.size());
        let wanted = prover.wanted(events.iter().map(|(index, _)| *index));
        let mut fetched = stream::iter(wanted)
            .map(async |tile| anyhow::Ok((tile, log.hashes(tile).await?)))
            .buffer_unordered(FETCHES);
        while let Some((tile, hashes)) = fetched.try_next().await? {
            prover.insert(tile, &hashes)?;
        }
        Ok(Self { checkpoint, prover })
    }

    /// The proof for one of them, once it was checked: the index, and the file's text.
    fn of(&self, index: u64, leaf: &Hash) -> anyhow::Result<(u64, String)> {
        let hashes = self.prover.inclusion(index).with_context(|| format!("there is no event {index}"))?;
        let proof = ProofFile::new(index, hashes, &self.checkpoint);
        if !proof.leads_to(&self.checkpoint, leaf) {
            bail!("the server's tiles don't prove event {index}: it lies about one or the other");
        }
        Ok((index, proof.to_string()))
    }
}

/// The SHA-256 of a file, in hex.
pub fn file_sha256(path: &Path) -> std::io::Result<String> {
    use std::io::BufRead as _;
    let mut file = std::io::BufReader::with_capacity(1 << 16, std::fs::File::open(path)?);
    let mut hash = Sha256::new();
    loop {
        let piece = file.fill_buf()?;
        if piece.is_empty() {
            return Ok(to_hex(&hash.finalize()));
        }
        hash.update(piece);
        let read = piece.len();
        file.consume(read);
    }
}

fn put(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut file =
        std::fs::File::create(path).with_context(|| format!("{} can't be written", path.display()))?;
    file.write_all(bytes).with_context(|| format!("{} can't be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_lies_beside_its_proof() {
        assert_eq!(event_path(Path::new("a/5.tlog-proof")), Path::new("a/5.json"));
        assert_eq!(event_path(Path::new("a/proof")), Path::new("a/proof.event.json"));
    }
}
