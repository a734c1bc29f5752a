//! A log that is served to everyone (C2SP tlog-tiles), as a client fetches it.

use crate::client::unreachable_line;
use anyhow::{Context as _, anyhow, bail};
use custody_core::log::tile::Tile;
use custody_core::log::{Checkpoint, VerifierKey};
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

    async fn fetch(&self, path: &str) -> anyhow::Result<Fetched> {
        let mut request = self.http.get(format!("{}/{path}", self.base)).timeout(PATIENCE);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let mut response = request.send().await.map_err(|error| unreachable_line(&self.base, &error))?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) =
            response.chunk().await.with_context(|| format!("{path} broke off on its way: try again"))?
        {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                bail!("{path}: the server sends more than belongs there");
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
            _ => Err(anyhow!("{path}: {said}")),
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
