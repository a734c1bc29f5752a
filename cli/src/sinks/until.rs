//! Up to where a destination is compared with the log: a size, a time, or a checkpoint that somebody has kept.

use super::place;
use crate::served::ServedLog;
use crate::verify::known_checkpoint;
use anyhow::{Context as _, bail};
use custody_core::log::served::Prover;
use custody_core::log::tree::verify_consistency;
use custody_core::log::{Checkpoint, VerifierKey};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use std::path::Path;

/// Tiles that are fetched at once.
const FETCHES: usize = 8;

/// Up to where.
#[derive(Debug)]
pub enum Until {
    /// A size or a time, as the API has it.
    Place(Value),
    /// What a signed checkpoint covers.
    Known(Checkpoint),
}

impl Until {
    /// Digits are a size, what reads as a time is one, and everything else is a file with a checkpoint, which `key` must have
    /// signed.
    pub fn parse(text: &str, key: &VerifierKey) -> anyhow::Result<Self> {
        if let Ok(place) = place(text) {
            return Ok(Self::Place(place));
        }
        let path = Path::new(text);
        if !path.exists() {
            bail!(
                "«{text}» is no size of the log, no time (2026-11-25T09:30:00Z, or how long ago: 90m, 36h), and no file with a \
                 checkpoint"
            );
        }
        known_checkpoint(path, key).map(Self::Known).context(
            "nothing was compared (a checkpoint of an older key is for `custody verify URL --key OLD --known FILE`)",
        )
    }
}

/// What the server is asked to compare. With a checkpoint it is told the root too, and refuses where its log has another: since
/// it was asked for the proof it may have been started again with another log.
pub fn asked(from: Option<&Value>, until: Option<&Until>, repair: bool) -> Value {
    match until {
        None => json!({ "from": from, "repair": repair }),
        Some(Until::Place(to)) => json!({ "from": from, "to": to, "repair": repair }),
        Some(Until::Known(known)) => {
            json!({ "from": from, "to": known.size(), "root": known.root().to_base64(), "repair": repair })
        }
    }
}

/// Whether the log that is served still begins with what `known` covers: the tiles that it serves to everybody have to lead from
/// there to the newest checkpoint, which `key` must have signed too. Nothing is believed because the server says so.
pub async fn holds(log: &ServedLog, key: &VerifierKey, known: &Checkpoint) -> anyhow::Result<()> {
    let newest = log.checkpoint(key).await.context("what the log has signed by now isn't known")?;
    let (old, new) = (known.size(), newest.size());
    if old > new {
        bail!(
            "known up to {old}, have {new}: the log was cut back, or an old copy was put in its place; nothing was compared, keep \
             that checkpoint"
        );
    }
    let mut prover = Prover::new(new);
    let wanted = prover.wanted_for_consistency(old);
    let mut fetched = stream::iter(wanted)
        .map(async |tile| anyhow::Ok((tile, log.hashes(tile).await?)))
        .buffer_unordered(FETCHES);
    while let Some((tile, hashes)) = fetched.try_next().await? {
        prover.insert(tile, &hashes)?;
    }
    let proof = prover.consistency(old).context("the log doesn't serve the tiles of that proof")?;
    if !verify_consistency(old, &known.root(), new, &newest.root(), &proof) {
        bail!(
            "the log isn't the one of that checkpoint of {old} events any more: it was forked, or an event before {old} was \
             replaced; nothing was compared, keep that checkpoint, and see `custody verify URL --known FILE`"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::stub::{self, Answer};
    use custody_core::log::durable::write_file;
    use custody_core::log::note::Ed25519Signer;
    use custody_core::log::tile::Tile;
    use custody_core::log::tree::{TILE_LEAVES, Tiles, Tree, leaf_hash};
    use custody_core::log::{Hash, Signer as _};

    const ORIGIN: &str = "custody.test/log";

    fn signer(seed: u8) -> Ed25519Signer {
        Ed25519Signer::from_seed(ORIGIN, &[seed; 32]).unwrap()
    }

    /// The leaf hashes of a log; its entries begin to be others at `fork`.
    fn leaves(size: u64, fork: u64) -> Vec<Hash> {
        let entry = |index: u64| if index < fork { format!("{index}") } else { format!("another {index}") };
        (0..size).map(|index| leaf_hash(entry(index).as_bytes())).collect()
    }

    fn signed(leaves: &[Hash], key: &Ed25519Signer) -> Checkpoint {
        let mut tree = Tree::new();
        leaves.iter().for_each(|leaf| tree.push(*leaf));
        Checkpoint::sign(tree.size(), tree.root(), key).unwrap()
    }

    /// Serves a log's checkpoint and tiles.
    fn served(leaves: &[Hash], key: &Ed25519Signer) -> ServedLog {
        let (mut tree, mut tiles, newest) = (Tree::new(), Tiles::new(), signed(leaves, key));
        for (index, leaf) in (0_u64..).zip(leaves) {
            tree.push(*leaf);
            tiles.entry(index / TILE_LEAVES).or_default().push(*leaf);
        }
        let url = stub::serve(move |path| {
            let path = path.strip_prefix('/').unwrap();
            if path == "checkpoint" {
                return Answer::Body(newest.to_string().into_bytes());
            }
            let Some(tile) = Tile::parse(path) else { return Answer::Missing };
            let numbers = tile.first()..tile.first() + u64::from(tile.width);
            let hashes = numbers.map(|number| tree.node(tile.height(), number, &tiles));
            match hashes.collect::<Result<Vec<Hash>, _>>() {
                Ok(hashes) => Answer::Body(hashes.iter().flat_map(|hash| hash.0).collect()),
                Err(_) => Answer::Missing,
            }
        });
        ServedLog::open(&url, None, None).unwrap()
    }

    #[tokio::test]
    async fn a_checkpoint_from_elsewhere_holds_where_the_log_has_only_grown() {
        let (key, all) = (signer(1), leaves(700, 700));
        let log = served(&all, &key);
        for size in [1, 5, 255, 256, 257, 512, 699, 700] {
            let known = signed(&all[..size], &key);
            holds(&log, &key.verifier_key(), &known).await.unwrap();
        }
    }

    #[tokio::test]
    async fn nothing_is_compared_with_a_log_that_is_not_the_checkpoints() {
        let (key, all) = (signer(1), leaves(700, 700));
        let known = |size, fork| signed(&leaves(size, fork), &key);
        let log = served(&all, &key);
        for (known, says) in [
            (known(300, 299), "the log isn't the one of that checkpoint of 300 events"),
            (known(256, 0), "the log isn't the one of that checkpoint of 256 events"),
            (known(700, 699), "the log isn't the one of that checkpoint of 700 events"),
            (known(701, 701), "known up to 701, have 700"),
        ] {
            let error = format!("{:#}", holds(&log, &key.verifier_key(), &known).await.unwrap_err());
            assert!(error.starts_with(says) && !error.contains('\n'), "{error}");
        }
        // A server that signs what it shows with another key.
        let log = served(&all, &signer(9));
        let error = holds(&log, &key.verifier_key(), &known(300, 700)).await.unwrap_err();
        assert!(format!("{error:#}").contains("isn't signed by"), "{error:#}");
    }

    #[test]
    fn up_to_where_is_a_size_a_time_or_a_checkpoints_file() {
        let (dir, key) = (tempfile::tempdir().unwrap(), signer(1));
        let pinned = key.verifier_key();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            write_file(&path, text.as_bytes(), 0o600).unwrap();
            path.into_os_string().into_string().unwrap()
        };
        let known = signed(&leaves(40, 40), &key);
        let mut kept = known.to_string();
        let until = |text: &str| Until::parse(text, &pinned);
        let body = |text: &str| asked(Some(&json!(3)), Some(&until(text).unwrap()), true);

        assert_eq!(body("40"), json!({ "from": 3, "to": 40, "repair": true }));
        assert!(body("2026-11-25T09:00:00Z")["to"].is_string() && body("36h")["to"].is_string());
        let root = known.root().to_base64();
        let asks = json!({ "from": 3, "to": 40, "root": root, "repair": true });
        assert_eq!(body(&file("kept", &kept)), asks);
        // What a server of before knows nothing of isn't sent to it.
        assert_eq!(asked(None, None, false), json!({ "from": null, "repair": false }));

        kept = kept.replace("\n40\n", "\n41\n");
        let of_another = signed(&leaves(40, 40), &signer(9)).to_string();
        for (text, says) in [
            (file("forged", &kept), "the signature of"),
            (file("of_another", &of_another), "isn't signed by"),
            (file("no_note", "40\n"), "isn't believed"),
            ("yesterday".to_owned(), "no file with a checkpoint"),
            ("99999999999999999999".to_owned(), "no file with a checkpoint"),
        ] {
            let error = format!("{:#}", until(&text).unwrap_err());
            assert!(error.contains(says) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
