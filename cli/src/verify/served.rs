//! A log by its URL: everything that it serves is fetched, and every root that was signed is computed again.

use super::report::Report;
use super::{Verify, read_text};
use crate::client::Client;
use crate::profile::Home;
use crate::progress;
use crate::served::{Fetched, ServedLog};
use anyhow::{Context as _, bail};
use custody_core::event::hex::to_hex;
use custody_core::log::checkpoint::CheckpointError;
use custody_core::log::keys::KeyChain;
use custody_core::log::note::NoteError;
use custody_core::log::served::{Recomputed, ServedError};
use custody_core::log::tile::{Tile, parse_bundle};
use custody_core::log::{Checkpoint, VerifierKey};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

/// Tiles that are fetched at once.
const FETCHES: usize = 8;
const TOKEN_BYTES_MAX: usize = 4096;
const CA_BYTES_MAX: usize = 1 << 20;

/// Verifies it; gives the checkpoint that holds.
pub async fn verify(
    args: &Verify,
    pinned: &VerifierKey,
    known: &[Checkpoint],
    report: &mut Report,
) -> anyhow::Result<Checkpoint> {
    report.value("kind", json!("url"));
    let log = open(args)?;
    let note = log.note().await?;
    let mut to_hold = known.to_vec();
    let (newest, key) = match Checkpoint::verify(&note, pinned) {
        Ok(newest) => (newest, pinned.clone()),
        // Its keys may have been rotated since this one was pinned: the log says so itself, if it is so.
        Err(error @ CheckpointError::Note(NoteError::NotSigned(_))) => {
            let chain = key_chain(&log, &note, pinned, &error).await?;
            let (newest, key) = chain.verify(&note)?;
            to_hold.extend_from_slice(chain.handed_over());
            (newest, key.clone())
        }
        Err(error) => return Err(error.into()),
    };
    let recomputed = Recomputed::new(&newest, &to_hold).context("the log can't be verified")?;
    // Whether entries are for us shows at the first of them.
    let first = Tile::of(None, 0, recomputed.signed()).context("the log is empty")?;
    let refused = match log.tile(first).await? {
        Fetched::Bytes(_) => None,
        Fetched::Refused(why) => Some(why),
    };
    let done = recompute(&log, recomputed, refused.is_none()).await;
    done.map_err(|error| match error.downcast_ref::<ServedError>().and_then(ServedError::first_wrong) {
        Some(index) => {
            error.context(format!("the log is NOT what was signed: event {index} is the first that is wrong"))
        }
        None => error,
    })?;
    report.headline(format!("The log {} is what was signed.", newest.origin()));
    report.line("signed by", &key);
    if key != *pinned {
        report.line("which", format_args!("took over from {pinned}, as entries say that it had signed"));
    }
    report.line("events", format_args!("{} signed", newest.size()));
    report.line("root", to_hex(&newest.root().0));
    match &refused {
        None => report.line("entries", "each is the one that stands in the tree"),
        Some(why) => report.line("entries", format_args!("not read, their hashes only: {why}")),
    }
    if !known.is_empty() {
        report.line("known", format_args!("{} checkpoints from elsewhere hold", known.len()));
    }
    report.value("signed", json!(newest.size()));
    report.value("root", json!(to_hex(&newest.root().0)));
    report.value("entries", json!(if refused.is_none() { newest.size() } else { 0 }));
    Ok(newest)
}

/// With the last login's certificate where the URL is of the same API, else as anybody.
fn open(args: &Verify) -> anyhow::Result<ServedLog> {
    let token = match &args.token_file {
        Some(path) => Some(read_text(path, TOKEN_BYTES_MAX)?.trim().to_owned()),
        None => None,
    };
    if token.is_none() && args.ca.is_none() {
        let home = Home::find()?;
        let own = home.profile().is_ok_and(|profile| {
            args.target.trim_end_matches('/') == format!("{}/log", profile.api.trim_end_matches('/'))
        });
        if own {
            return Ok(Client::logged_in(&home)?.0.log());
        }
    }
    let ca = match &args.ca {
        Some(path) => Some(read_text(path, CA_BYTES_MAX)?),
        None => None,
    };
    ServedLog::open(&args.target, ca.as_deref(), token)
}

/// The keys that the log has had since `pinned` signed it, by all its entries. What they are worth stands with
/// [`KeyChain::verify`], since the server could show others when it is asked again, and with the roots of
/// [`KeyChain::handed_over`].
async fn key_chain(
    log: &ServedLog,
    note: &str,
    pinned: &VerifierKey,
    not_signed: &CheckpointError,
) -> anyhow::Result<KeyChain> {
    let size = Checkpoint::claimed_size(note).context("the log's checkpoint says no size")?;
    let bar = progress::events("reading its keys")?;
    bar.set_length(size);
    let mut chain = KeyChain::new(pinned.clone());
    let mut bundles = stream::iter(Tile::all(None, size))
        .map(async |tile: Tile| (tile, log.tile(tile).await))
        .buffered(FETCHES);
    while let Some((tile, fetched)) = bundles.next().await {
        let bytes = match fetched? {
            Fetched::Bytes(bytes) => bytes,
            Fetched::Refused(why) => bail!(
                "{not_signed}; if the key was rotated, the log's own entries prove it to whoever may read them (log in, or \
                 --token-file), but {why}"
            ),
        };
        for entry in parse_bundle(&bytes, tile.width).with_context(|| tile.to_string())? {
            chain.see_event(entry);
        }
        bar.set_position(chain.size());
    }
    bar.finish_and_clear();
    Ok(chain)
}

async fn recompute(log: &ServedLog, mut recomputed: Recomputed, entries: bool) -> anyhow::Result<()> {
    let bar = progress::events("verifying")?;
    bar.set_length(recomputed.signed());
    let mut fetched = stream::iter(Tile::all(Some(0), recomputed.signed()))
        .map(async |tile: Tile| {
            let hashes = log.hashes(tile).await?;
            let bundle = if entries { Some(bundle(log, tile).await?) } else { None };
            anyhow::Ok((tile, hashes, bundle))
        })
        .buffered(FETCHES);
    while let Some((tile, hashes, bundle)) = fetched.try_next().await? {
        recomputed.take(tile, &hashes, bundle.as_deref())?;
        bar.set_position(recomputed.done());
    }
    let mut fetched = stream::iter(recomputed.upper())
        .map(async |tile: Tile| anyhow::Ok((tile, log.hashes(tile).await?)))
        .buffered(FETCHES);
    while let Some((tile, hashes)) = fetched.try_next().await? {
        recomputed.compare_upper(tile, &hashes)?;
    }
    bar.finish_and_clear();
    Ok(())
}

async fn bundle(log: &ServedLog, leaves: Tile) -> anyhow::Result<Vec<u8>> {
    let place = Tile { level: None, ..leaves };
    match log.tile(place).await? {
        Fetched::Bytes(bytes) => Ok(bytes),
        Fetched::Refused(why) => bail!("{place}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::stub::{self, Answer};
    use custody_core::event::log::{KeyAdded, KeyRetired};
    use custody_core::event::{Actor, Draft, EventData, ProducerKind, ProducerRef, Timestamp, canonical};
    use custody_core::log::note::Ed25519Signer;
    use custody_core::log::tree::{Tree, leaf_hash};
    use custody_core::log::{Hash, Signer as _};
    use std::collections::HashMap;

    const ORIGIN: &str = "custody.test/log";

    fn signer(seed: u8) -> Ed25519Signer {
        Ed25519Signer::from_seed(ORIGIN, &[seed; 32]).unwrap()
    }

    fn event<D: EventData>(data: D, seq: u64) -> Vec<u8> {
        let producer =
            ProducerRef { boot: uuid::Uuid::nil(), id: "log".into(), kind: ProducerKind::Log, seq };
        let draft = Draft::new(Actor::system("test"), data).numbered(producer, Timestamp::from_seconds(1));
        canonical::event_bytes(&draft).unwrap()
    }

    fn added(key: &Ed25519Signer, seq: u64) -> Vec<u8> {
        event(KeyAdded { reason: "test".into(), verifier_key: key.verifier_key().to_string() }, seq)
    }

    fn retired(key: &Ed25519Signer, checkpoint: &Checkpoint, seq: u64) -> Vec<u8> {
        let (checkpoint, verifier_key) = (checkpoint.to_string(), key.verifier_key().to_string());
        event(KeyRetired { checkpoint, reason: "test".into(), verifier_key }, seq)
    }

    fn root(entries: &[Vec<u8>]) -> Hash {
        let mut tree = Tree::new();
        entries.iter().for_each(|entry| tree.push(leaf_hash(entry)));
        tree.root()
    }

    fn bundle(entries: &[Vec<u8>]) -> Vec<u8> {
        let with_length = |entry: &Vec<u8>| {
            let length = u16::try_from(entry.len()).unwrap();
            [&length.to_be_bytes()[..], entry.as_slice()].concat()
        };
        entries.iter().flat_map(with_length).collect()
    }

    /// Serves the log of `entries` (fewer than a full tile) whose newest checkpoint is `note`; but whoever asks for the
    /// bundle for the first time gets `first`. Gives its URL.
    fn serve(note: String, first: &[Vec<u8>], entries: &[Vec<u8>]) -> String {
        let count = entries.len();
        let bundle_path = format!("/tile/entries/000.p/{count}");
        let hashes = entries.iter().flat_map(|entry| leaf_hash(entry).0).collect();
        let mut answers: HashMap<String, Vec<u8>> = HashMap::from([
            ("/checkpoint".to_owned(), note.into_bytes()),
            (format!("/tile/0/000.p/{count}"), hashes),
            (bundle_path.clone(), bundle(first)),
        ]);
        let genuine = bundle(entries);
        stub::serve(move |path| {
            let answer = answers.get(path).cloned();
            if path == bundle_path {
                answers.insert(bundle_path.clone(), genuine.clone());
            }
            answer.map_or(Answer::Missing, Answer::Body)
        })
    }

    async fn verified(url: String, pinned: &Ed25519Signer) -> anyhow::Result<Checkpoint> {
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        custody_core::log::durable::write_file(&token, b"a reader's", 0o600).unwrap();
        let args = Verify {
            target: url,
            key: None,
            known: Vec::new(),
            witness: Vec::new(),
            event: None,
            ca: None,
            token_file: Some(token),
            json: false,
        };
        verify(&args, &pinned.verifier_key(), &[], &mut Report::default()).await
    }

    #[tokio::test]
    async fn a_key_that_took_over_is_followed() {
        let (old, new) = (signer(1), signer(2));
        let mut entries = vec![b"{}".to_vec(), added(&new, 1)];
        let covers = Checkpoint::sign(2, root(&entries), &old).unwrap();
        entries.push(retired(&old, &covers, 2));
        let newest = Checkpoint::sign(3, root(&entries), &new).unwrap();
        let url = serve(newest.to_string(), &entries, &entries);
        assert_eq!(verified(url, &old).await.unwrap(), newest);
    }

    /// A server that shows one log to whoever asks which keys to trust, and another one to whoever checks it.
    #[tokio::test]
    async fn a_key_that_only_the_first_answers_speak_of_is_not_believed() {
        let (old, forger) = (signer(1), signer(9));
        let genuine = [b"{\"n\":0}".to_vec(), b"{\"n\":1}".to_vec()];
        let signed = Checkpoint::sign(2, root(&genuine), &old).unwrap();
        let forged = [added(&forger, 0), genuine[1].clone(), retired(&old, &signed, 2)];
        let shown = [&genuine[..], &[b"{\"anything\":1}".to_vec()]].concat();
        let newest = Checkpoint::sign(3, root(&shown), &forger).unwrap();
        let url = serve(newest.to_string(), &forged, &shown);
        let error = verified(url, &old).await.unwrap_err();
        assert!(format!("{error:#}").contains("something else was shown"), "{error:#}");
    }
}
