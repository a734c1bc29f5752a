//! The log for everybody's tools: C2SP tlog-tiles under `/log/`.
//!
//! Checkpoints and hashes are for anyone: they prove, and tell nothing. Entries are for those who may read the whole
//! log, and for readers from outside that are named in the configuration by the hash of a token.

use super::error::ApiError;
use super::identity::{Peer, source};
use super::reading::Telling;
use super::refused::{Refused, Why, refuse};
use super::subscriber::bearer;
use super::{Api, Caller, blocking};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::Extension;
use axum::extract::State as Shared;
use axum::http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use custody_core::log::ReadError;
use custody_core::log::tile::{Tile, render};
use custody_core::policy::What;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};
use std::io::Write as _;
use std::sync::Arc;

/// Tiles that are made at once: each may read 256 entries of 64 KiB.
pub(super) const RENDERS_AT_ONCE: usize = 4;
/// A tile never changes.
const FOREVER: &str = "public, max-age=31536000, immutable";
/// Nor do entries, but no cache that others share may keep them.
pub(super) const FOREVER_FOR_ONE: &str = "private, max-age=31536000, immutable";
/// A checkpoint is soon an old one.
const MOMENT: &str = "public, max-age=1";

/// Somebody outside who keeps a copy of the log: a witness, a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Its name, for the events that tell of its reading.
    pub name: String,
    /// The SHA-256 of the token that it shows.
    pub token_sha256: [u8; 32],
}

/// `GET /log/checkpoint`: the newest signed checkpoint, with the cosignatures that it has got so far. It never shrinks.
pub async fn checkpoint(Shared(api): Shared<Arc<Api>>) -> impl IntoResponse {
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, MOMENT)];
    (headers, api.context.cosigned.complete(api.context.log.checkpoint()).to_string())
}

/// `GET /log/tile/<L>/<N>[.p/<W>]` and `GET /log/tile/entries/<N>[.p/<W>]`
pub async fn tile(
    Shared(api): Shared<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    caller: Result<Caller, ApiError>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    // The path as it was sent: a tile has one name.
    let path = uri.path().strip_prefix("/log/").unwrap_or_default();
    let tile = Tile::parse(path).ok_or_else(|| {
        ApiError::Missing("that is no tile: see c2sp.org/tlog-tiles for their names".to_owned())
    })?;
    if tile.level.is_none() {
        may_read_entries(&api, &peer, caller, &headers).await?;
    }
    let place = Arc::clone(&api.rendering).acquire_owned().await;
    let log = Arc::clone(&api.context.log);
    let covered = log.checkpoint().size();
    let is_packed = tile.level.is_none() && accepts_gzip(&headers);
    let bytes = blocking("made a tile", move || {
        // It is made to its end, also for a client that is gone.
        let _place = place;
        let bytes = render(&*log, tile, covered)?;
        Ok::<_, ReadError>(bytes.map(|bytes| if is_packed { pack(&bytes) } else { bytes }))
    });
    let bytes = bytes.await??.ok_or_else(|| {
        ApiError::Missing(format!("{path} isn't there yet: the newest checkpoint covers {covered} entries"))
    })?;
    let cached = if tile.level.is_none() { FOREVER_FOR_ONE } else { FOREVER };
    let mut response =
        ([(CONTENT_TYPE, "application/octet-stream"), (CACHE_CONTROL, cached)], bytes).into_response();
    if tile.level.is_none() {
        response.headers_mut().insert(VARY, HeaderValue::from_name(ACCEPT_ENCODING));
    }
    if is_packed {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

/// A person by certificate and policy, or a configured reader by token; told either way, and so is a token of no reader.
pub(super) async fn may_read_entries(
    api: &Arc<Api>,
    peer: &Peer,
    caller: Result<Caller, ApiError>,
    headers: &HeaderMap,
) -> Result<(), ApiError> {
    match (bearer(headers), caller) {
        (Some(token), _) => match known(&api.context.readers, token) {
            Some(reader) => api.read_as_reader(&reader.name, "entries").await,
            None => {
                let answer = ApiError::Unproved("that token is of no reader that is configured here");
                let refused = Refused { name: None, why: Why::NoReader, answer };
                Err(refuse(api, refused, source(peer.address, headers)).await)
            }
        },
        (None, Ok(caller)) => {
            api.read(&caller, What::ReadLog, "entries", "tile/entries", Telling::Aggregated).await
        }
        (None, Err(error)) => Err(error),
    }
}

/// Looks at all of them and at every byte: the time that it takes says nothing.
fn known<'r>(readers: &'r [Reader], token: &str) -> Option<&'r Reader> {
    let shown = Sha256::digest(token.as_bytes());
    readers.iter().fold(None, |found, reader| {
        let is_his = verify_slices_are_equal(&reader.token_sha256, &shown).is_ok();
        if is_his { Some(reader) } else { found }
    })
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        // `q=0` in any of its forms is a refusal.
        is_gzip && !parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)))
    })
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing into memory can't fail.
    let _infallible = packer.write_all(bytes);
    packer.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_is_its_readers() {
        let reader = |name: &str, token: &str| Reader {
            name: name.to_owned(),
            token_sha256: Sha256::digest(token.as_bytes()).into(),
        };
        let readers = [reader("north", "one"), reader("south", "two")];
        assert_eq!(known(&readers, "one").unwrap().name, "north");
        assert_eq!(known(&readers, "two").unwrap().name, "south");
        for token in ["", "One", "one ", "onetwo"] {
            assert_eq!(known(&readers, token), None, "{token}");
        }
        assert_eq!(known(&[], ""), None);
    }

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        let with =
            |value: &'static str| HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))]);
        for value in ["gzip", "br, GZIP;q=0.5", "deflate,gzip ; q=1"] {
            assert!(accepts_gzip(&with(value)), "{value}");
        }
        for value in ["", "br", "gzip;q=0", "gzip; q=0.000", "identity", "xgzip"] {
            assert!(!accepts_gzip(&with(value)), "{value}");
        }
    }
}
