//! A log that is served to everyone (C2SP tlog-tiles), as a client fetches it.

use crate::client::unreachable_line;
use anyhow::{Context as _, anyhow, bail};
use custody_core::log::tile::Tile;
use custody_core::log::{Checkpoint, VerifierKey};
use custody_witness::source::{PAUSE, may_pass, status_may_pass};
use reqwest::StatusCode;
use std::time::Duration;

/// A bundle has at most 256 entries of 64 KiB, and their lengths.
const ANSWER_BYTES_MAX: usize = 256 * (65_535 + 2);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A log by its URL.
#[derive(Clone)]
pub struct ServedLog {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// What was asked for, or that it isn't for us.
pub enum Fetched {
    /// It.
    Bytes(Vec<u8>),
    /// Not for us; the server's own words.
    Refused(String),
}

/// Why one try has brought nothing.
struct Failure {
    error: anyhow::Error,
    may_pass: bool,
}

impl ServedLog {
    /// At `base`, asked by `http`; `token` is shown to it.
    pub fn new(http: reqwest::Client, base: &str, token: Option<String>) -> Self {
        Self { http, base: base.trim_end_matches('/').to_owned(), token }
    }

    /// Without anybody's certificate. `ca` is a PEM bundle; the system's own authorities if it is left out.
    pub fn open(base: &str, ca: Option<&str>, token: Option<String>) -> anyhow::Result<Self> {
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10));
        if let Some(ca) = ca {
            let certificates = reqwest::Certificate::from_pem_bundle(ca.as_bytes())
                .context("the CA file holds no PEM certificate")?;
            builder = builder.tls_certs_only(certificates);
        }
        if token.is_some() && base.starts_with("http://") && !is_loopback(base) {
            bail!("{base} would show the token to everybody on the way: use https");
        }
        Ok(Self::new(builder.build()?, base, token))
    }

    /// The newest checkpoint, believed if `key` signed it.
    pub async fn checkpoint(&self, key: &VerifierKey) -> anyhow::Result<Checkpoint> {
        Checkpoint::verify(&self.note().await?, key).map_err(anyhow::Error::from)
    }

    /// The newest checkpoint as it was sent.
    pub async fn note(&self) -> anyhow::Result<String> {
        match self.fetch("checkpoint").await? {
            Fetched::Bytes(bytes) => String::from_utf8(bytes).context("the log's checkpoint is no text"),
            Fetched::Refused(why) => bail!("the log's checkpoint: {why}"),
        }
    }

    /// A tile or a bundle.
    pub async fn tile(&self, tile: Tile) -> anyhow::Result<Fetched> {
        self.fetch(&tile.to_string()).await
    }

    /// A tile of hashes: these are for everybody.
    pub async fn hashes(&self, tile: Tile) -> anyhow::Result<Vec<u8>> {
        match self.tile(tile).await? {
            Fetched::Bytes(bytes) => Ok(bytes),
            Fetched::Refused(why) => bail!("{tile}: {why}"),
        }
    }

    /// Tries twice where that may help: a log is some thousands of questions.
    async fn fetch(&self, path: &str) -> anyhow::Result<Fetched> {
        let answer = match self.ask(path).await {
            Err(Failure { may_pass: true, .. }) => {
                tokio::time::sleep(PAUSE).await;
                self.ask(path).await
            }
            answer => answer,
        };
        answer.map_err(|failure| failure.error)
    }

    async fn ask(&self, path: &str) -> Result<Fetched, Failure> {
        let mut request = self.http.get(format!("{}/{path}", self.base)).timeout(PATIENCE);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let unreachable = |error: reqwest::Error| Failure {
            may_pass: may_pass(&error),
            error: unreachable_line(&self.base, &error),
        };
        let broke_off = |error: reqwest::Error| Failure {
            may_pass: may_pass(&error),
            error: anyhow::Error::new(error).context(format!("{path} broke off on its way: try again")),
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broke_off)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                let error = anyhow!("{path}: the server sends more than belongs there");
                return Err(Failure { error, may_pass: false });
            }
        }
        if status.is_success() {
            return Ok(Fetched::Bytes(bytes));
        }
        let said = serde_json::from_slice::<serde_json::Value>(&bytes)
            .ok()
            .and_then(|body| Some(body.get("error")?.as_str()?.to_owned()))
            .unwrap_or_else(|| format!("answered with {status}"));
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(Fetched::Refused(said)),
            _ => Err(Failure { error: anyhow!("{path}: {said}"), may_pass: status_may_pass(status) }),
        }
    }
}

fn is_loopback(base: &str) -> bool {
    let host = reqwest::Url::parse(base).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.is_some_and(|host| {
        let address: Option<std::net::IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        host == "localhost" || address.is_some_and(|address| address.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::stub::{self, Answer};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_connection_that_breaks_is_no_end_if_the_next_one_holds() {
        for (broken, missing, wanted) in
            [(0, false, Ok(1)), (1, false, Ok(2)), (2, false, Err(2)), (0, true, Err(1))]
        {
            let asked = Arc::<AtomicUsize>::default();
            let counted = Arc::clone(&asked);
            let url = stub::serve(move |_| match counted.fetch_add(1, Ordering::SeqCst) {
                number if number < broken => Answer::Nothing,
                _ if missing => Answer::Missing,
                _ => Answer::Body(b"a note".to_vec()),
            });
            let log = ServedLog::open(&url, None, None).unwrap();
            let answer = log.note().await;
            let times = asked.load(Ordering::SeqCst);
            match answer {
                Ok(note) => assert_eq!((note.as_str(), Ok(times)), ("a note", wanted)),
                Err(error) => assert_eq!(Err(times), wanted, "{error:#}"),
            }
        }
    }
}
