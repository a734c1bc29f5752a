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

/// The keys that the log has had since `pinned` signed it, by all its entries. What they are worth stands with the roots of
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
    let mut index = 0;
    while let Some((tile, fetched)) = bundles.next().await {
        let bytes = match fetched? {
            Fetched::Bytes(bytes) => bytes,
            Fetched::Refused(why) => bail!(
                "{not_signed}; if the key was rotated, the log's own entries prove it to whoever may read them (log in, or \
                 --token-file), but {why}"
            ),
        };
        for entry in parse_bundle(&bytes, tile.width).with_context(|| tile.to_string())? {
            chain.see_event(index, entry);
            index += 1;
        }
        bar.set_position(index);
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
