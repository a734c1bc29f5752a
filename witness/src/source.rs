//! A log as others serve it (C2SP tlog-tiles), and one thing more: when each entry was appended, which the tree doesn't
//! hold ([`times`]). Nothing that is fetched is believed here.

use std::io;
use std::path::Path;
use std::time::Duration;

use custody_core::log::served::Prover;
use custody_core::log::tile::{Tile, parse_bundle, parse_hashes};
use custody_core::log::{EVENT_BYTES_MAX, Hash, Nanos, times};
use futures_util::stream::{self, StreamExt as _};
use reqwest::StatusCode;
use reqwest::header::AUTHORIZATION;

/// Entries in a full bundle.
pub const BUNDLE_ENTRIES: u64 = 256;
/// The longest bundle, in bytes.
const BUNDLE_BYTES_MAX: usize = BUNDLE_ENTRIES as usize * (2 + EVENT_BYTES_MAX);
const NOTE_BYTES_MAX: usize = custody_core::log::note::NOTE_BYTES_MAX;
const HASH_BYTES: usize = 32;
const TIME_BYTES: usize = 8;
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(20);
/// How long until what failed in passing is asked for again.
pub const PAUSE: Duration = Duration::from_millis(250);
/// Bundles that are under way at once.
const BUNDLES_AT_ONCE: usize = 4;

/// Why something can't be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url}: {reason}")]
pub struct FetchError {
    /// What was asked for.
    pub url: String,
    /// What happened.
    pub reason: String,
}

/// A client that trusts the machine's authorities, or only those in the PEM file `ca`.
///
/// # Errors
/// When the file can't be read, or holds no certificate.
pub fn http_client(ca: Option<&Path>) -> io::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .timeout(ANSWER)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    if let Some(path) = ca {
        let named = |reason: String| io::Error::other(format!("{}: {reason}", path.display()));
        let pem = std::fs::read(path).map_err(|error| named(error.to_string()))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|_| named("no PEM certificate in it".to_owned()))?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|error| io::Error::other(in_one_line(&error)))
}

/// The innermost reason: what went wrong, without the path to it.
pub(crate) fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    root.to_string()
}

/// Whether the same question may well be answered if it is asked again: there was no connection, or it broke. An answer that was
/// waited for in vain isn't waited for twice.
#[must_use]
pub fn may_pass(error: &reqwest::Error) -> bool {
    !error.is_timeout() && !error.is_builder()
}

/// The same of an answer: whoever stands before the log has lost it for a moment, or it is being started.
#[must_use]
pub fn status_may_pass(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// Why one try has brought nothing.
struct Failure {
    error: FetchError,
    may_pass: bool,
}

/// An entry as it was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// When the log says that it appended it.
    pub appended: Nanos,
    /// The event.
    pub bytes: Vec<u8>,
}

/// A log at a URL.
#[derive(Clone)]
pub struct Source {
    http: reqwest::Client,
    url: String,
    /// `Bearer …`
    authorization: Option<reqwest::header::HeaderValue>,
}

impl Source {
    /// The log whose routes lie below `url`; entries are asked for with the bearer `token`.
    ///
    /// # Errors
    /// [`FetchError`] if the token can't stand in a header.
    pub fn new(http: reqwest::Client, url: &str, token: Option<&str>) -> Result<Source, FetchError> {
        let url = url.trim_end_matches('/').to_owned();
        let authorization = token
            .map(|token| {
                let value = reqwest::header::HeaderValue::from_str(&format!("Bearer {}", token.trim()));
                value.map(|mut value| {
                    value.set_sensitive(true);
                    value
                })
            })
            .transpose()
            .map_err(|_| FetchError {
                url: url.clone(),
                reason: "the token has a forbidden character".to_owned(),
            })?;
        Ok(Source { http, url, authorization })
    }

    /// The newest checkpoint's text.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn checkpoint(&self) -> Result<String, FetchError> {
        let bytes = self.get("checkpoint", NOTE_BYTES_MAX).await?;
        String::from_utf8(bytes).map_err(|_| self.error("checkpoint", "it isn't UTF-8"))
    }

    /// The hashes of a tile.
    ///
    /// # Errors
    /// See [`FetchError`]; another number of hashes than the tile's width is one.
    pub async fn hashes(&self, level: u8, number: u64, width: u16) -> Result<Vec<Hash>, FetchError> {
        let path = Tile { level: Some(level), number, width }.to_string();
        let bytes = self.get(&path, usize::from(width) * HASH_BYTES).await?;
        parse_hashes(&bytes, width).map_err(|error| self.error(&path, &error.to_string()))
    }

    /// The proof that the first `old` entries are a beginning of the log as it is served with `size` entries, made of its
    /// tiles. Whether it proves anything shows when it is checked.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn consistency(&self, old: u64, size: u64) -> Result<Vec<Hash>, FetchError> {
        let mut prover = Prover::new(size);
        for tile in prover.wanted_for_consistency(old) {
            let path = tile.to_string();
            let bytes = self.get(&path, usize::from(tile.width) * HASH_BYTES).await?;
            prover.insert(tile, &bytes).map_err(|error| self.error(&path, &error.to_string()))?;
        }
        prover
            .consistency(old)
            .ok_or_else(|| self.error("checkpoint", "it covers fewer entries than were asked for"))
    }

    /// The entries of a bundle.
    ///
    /// # Errors
    /// See [`FetchError`]; another number of entries than the bundle's width is one.
    pub async fn entries(&self, number: u64, width: u16) -> Result<Vec<Vec<u8>>, FetchError> {
        let path = Tile { level: None, number, width }.to_string();
        let bytes = self.get(&path, BUNDLE_BYTES_MAX).await?;
        let entries = parse_bundle(&bytes, width).map_err(|error| self.error(&path, &error.to_string()))?;
        Ok(entries.into_iter().map(<[u8]>::to_vec).collect())
    }

    /// When the entries of a bundle were appended.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn appended(&self, number: u64, width: u16) -> Result<Vec<Nanos>, FetchError> {
        let path = times::path(number, width);
        let bytes = self.get(&path, usize::from(width) * TIME_BYTES).await?;
        times::parse(&bytes, width)
            .ok_or_else(|| self.error(&path, &format!("{} bytes are not {width} times", bytes.len())))
    }

    /// Entries from `from` on with their times, of a log of `size` entries: those of the next few bundles.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn next(&self, from: u64, size: u64) -> Result<Vec<Fetched>, FetchError> {
        let first = from / BUNDLE_ENTRIES;
        let last = size.div_ceil(BUNDLE_ENTRIES).min(first + BUNDLES_AT_ONCE as u64);
        let mut bundles = stream::iter(first..last)
            .map(|number| async move {
                let width = width(number, size);
                let (entries, times) =
                    tokio::try_join!(self.entries(number, width), self.appended(number, width))?;
                Ok::<_, FetchError>((number, entries, times))
            })
            .buffered(BUNDLES_AT_ONCE);
        let mut all = Vec::new();
        while let Some(bundle) = bundles.next().await {
            let (number, entries, times) = bundle?;
            let index = number * BUNDLE_ENTRIES;
            let known = usize::try_from(from.saturating_sub(index)).unwrap_or(usize::MAX);
            let entries = entries.into_iter().zip(times).skip(known);
            all.extend(entries.map(|(bytes, appended)| Fetched { appended, bytes }));
        }
        Ok(all)
    }

    /// Tries twice where that may help: of thousands of questions each would be the end of all otherwise.
    async fn get(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>, FetchError> {
        let answer = match self.ask(path, bytes_max).await {
            Err(Failure { may_pass: true, .. }) => {
                tokio::time::sleep(PAUSE).await;
                self.ask(path, bytes_max).await
            }
            answer => answer,
        };
        answer.map_err(|failure| failure.error)
    }

    async fn ask(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>, Failure> {
        let mut request = self.http.get(format!("{}/{path}", self.url));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let failed = |error: reqwest::Error| Failure {
            may_pass: may_pass(&error),
            error: self.error(path, &in_one_line(&error)),
        };
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        if !status.is_success() {
            let error = self.error(path, &format!("answered with {status}"));
            return Err(Failure { error, may_pass: status_may_pass(status) });
        }
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            if bytes.len() + piece.len() > bytes_max {
                let error = self.error(path, "the answer is longer than it can be");
                return Err(Failure { error, may_pass: false });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    fn error(&self, path: &str, reason: &str) -> FetchError {
        FetchError { url: format!("{}/{path}", self.url), reason: reason.to_owned() }
    }
}

/// The width of bundle `number` in a log of `size` entries: full, or what there is of the last one.
#[must_use]
pub fn width(number: u64, size: u64) -> u16 {
    let left = size.saturating_sub(number.saturating_mul(BUNDLE_ENTRIES)).min(BUNDLE_ENTRIES);
    u16::try_from(left).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A log that gives these answers one after the other, each on a connection that ends with it, and counts who asks.
    fn serve(answers: &[&'static str]) -> (Source, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (mut answers, asked) = (VecDeque::from(answers.to_vec()), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let mut request = String::new();
                while !request.ends_with("\r\n\r\n") && stream.read_line(&mut request).unwrap_or(0) > 0 {}
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = answers.pop_front().unwrap();
                // Whoever asked may be gone.
                stream.get_mut().write_all(answer.as_bytes()).ok();
            }
        });
        (Source::new(http_client(None).unwrap(), &url, None).unwrap(), asked)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_fails_in_passing_is_asked_for_once_more_and_nothing_else() {
        const NOTHING: &str = "";
        const WHOLE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        const BROKEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nok";
        const LOST: &str = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        const DAMAGED: &str =
            "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        const MISSING: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        for (answers, wanted) in [
            (vec![WHOLE], Ok(())),
            (vec![NOTHING, WHOLE], Ok(())),
            (vec![BROKEN, WHOLE], Ok(())),
            (vec![LOST, WHOLE], Ok(())),
            (vec![LOST, DAMAGED], Err("500")),
            (vec![NOTHING, NOTHING], Err("checkpoint")),
            (vec![DAMAGED], Err("500")),
            (vec![MISSING], Err("404")),
        ] {
            let (source, asked) = serve(&answers);
            match (source.checkpoint().await, wanted) {
                (Ok(text), Ok(())) => assert_eq!(text, "ok", "{answers:?}"),
                (Err(error), Err(says)) => assert!(error.to_string().contains(says), "{answers:?}: {error}"),
                (got, _) => panic!("{answers:?}: {got:?}"),
            }
            assert_eq!(asked.load(Ordering::SeqCst), answers.len(), "{answers:?}");
        }
    }
}
