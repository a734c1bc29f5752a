//! A log by its URL: everything that it serves is fetched, and every root that was signed is computed again.

use super::report::Report;
use super::{Verify, read_text};
use crate::client::Client;
use crate::profile::Home;
use crate::progress;
use crate::served::{Fetched, ServedLog};
use anyhow::{Context as _, bail};
use custody_core::event::hex::to_hex;
use custody_core::log::served::{Recomputed, ServedError};
use custody_core::log::tile::Tile;
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
    key: &VerifierKey,
    known: &[Checkpoint],
    report: &mut Report,
) -> anyhow::Result<Checkpoint> {
    report.value("kind", json!("url"));
    let log = open(args)?;
    let newest = log.checkpoint(key).await?;
    let recomputed = Recomputed::new(&newest, known).context("the log can't be verified")?;
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
    report.line("signed by", key);
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
