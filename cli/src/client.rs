//! The API as the client sees it: HTTPS with the person's own certificate, and errors as the server words them.

use crate::profile::{Home, Profile};
use crate::served::ServedLog;
use anyhow::{Context as _, anyhow, bail};
use reqwest::{Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// A connection to one Custody.
pub struct Client {
    http: reqwest::Client,
    api: String,
}

impl Client {
    /// With the certificate of the last login.
    pub fn logged_in(home: &Home) -> anyhow::Result<(Self, Profile)> {
        // A login at this moment would leave its key beside the certificate of the one before.
        let _unchanged = home.reading()?;
        let profile = home.profile()?;
        profile.in_time()?;
        let pem = format!("{}\n{}", home.read("client.pem")?, home.read("client.key")?);
        let identity = reqwest::Identity::from_pem(pem.as_bytes())
            .context("the client certificate of the last login is damaged: log in again")?;
        let client = Self::build(&profile.api, &home.read("ca.pem")?, Some(identity))?;
        Ok((client, profile))
    }

    /// Without one, before login.
    pub fn anonymous(api: &str, ca: &str) -> anyhow::Result<Self> {
        Self::build(api, ca, None)
    }

    fn build(api: &str, ca: &str, identity: Option<reqwest::Identity>) -> anyhow::Result<Self> {
        if !api.starts_with("https://") {
            bail!("{api} is no API address: it starts with https://");
        }
        let certificates = reqwest::Certificate::from_pem_bundle(ca.as_bytes())
            .context("the CA file holds no PEM certificate")?;
        let mut builder = reqwest::Client::builder()
            .tls_certs_only(certificates)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10));
        if let Some(identity) = identity {
            builder = builder.identity(identity);
        }
        Ok(Self { http: builder.build()?, api: api.trim_end_matches('/').to_owned() })
    }

    /// The log as it is served to everyone, asked with this person's certificate.
    pub fn log(&self) -> ServedLog {
        ServedLog::new(self.http.clone(), &format!("{}/log", self.api), None)
    }

    /// Asks; any status but success is an error with the server's own words.
    pub async fn get(&self, path: &str, query: &[(&str, String)], accept: &str) -> anyhow::Result<Response> {
        let request = self.http.get(self.url(path, query)?).header("accept", accept);
        self.checked(Method::GET, path, request).await
    }

    fn url(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<reqwest::Url> {
        let mut url: reqwest::Url =
            format!("{}{path}", self.api).parse().context("the API's address is no URL")?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// Asks for JSON.
    pub async fn get_json<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> anyhow::Result<T> {
        self.get(path, query, "application/json")
            .await?
            .json()
            .await
            .with_context(|| format!("{path}: the answer isn't what it should be"))
    }

    /// Sends JSON and reads JSON.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        let response = self.send(path, body).await?;
        response.json().await.with_context(|| format!("{path}: the answer isn't what it should be"))
    }

    /// Sends JSON, for an answer that isn't JSON.
    pub async fn send(&self, path: &str, body: &impl Serialize) -> anyhow::Result<Response> {
        let request = self.http.post(format!("{}{path}", self.api)).json(body);
        self.checked(Method::POST, path, request).await
    }

    async fn checked(
        &self,
        method: Method,
        path: &str,
        request: reqwest::RequestBuilder,
    ) -> anyhow::Result<Response> {
        let response = request.send().await.map_err(|error| unreachable_line(&self.api, &error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        let said = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|body| body.get("error").and_then(|e| e.as_str().map(str::to_owned)));
        Err(match (said, status) {
            (Some(said), _) => anyhow!("{said}"),
            (None, StatusCode::UNAUTHORIZED) => {
                anyhow!("the server doesn't know this certificate: log in again with `custody login`")
            }
            (None, status) => anyhow!("{method} {path} was answered with {status}"),
        })
    }
}

/// One line for people; TLS trouble is told apart from a server that isn't there.
pub fn unreachable_line(api: &str, error: &reqwest::Error) -> anyhow::Error {
    let mut root: &dyn std::error::Error = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    if error.is_timeout() {
        return anyhow!("{api} didn't answer in time");
    }
    anyhow!("{api} can't be reached: {root}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_that_ran_out_is_told_as_that() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        let profile = |until: &str| Profile {
            api: "https://127.0.0.1:1".to_owned(),
            user: "bob".to_owned(),
            roles: Vec::new(),
            valid_until: until.to_owned(),
            ssh_address: "127.0.0.1:2".to_owned(),
            tls: false,
            key: None,
            log_key: "custody.test/log+0+key".to_owned(),
        };
        for (until, says) in [
            ("2020-01-01T00:00:00Z", "ran out at 2020-01-01T00:00:00Z: `custody login`"),
            ("2500-01-01T00:00:00Z", "client.pem can't be read"),
        ] {
            let text = toml::to_string(&profile(until)).unwrap();
            home.writing().unwrap().put("profile.toml", text.as_bytes()).unwrap();
            let error = Client::logged_in(&home).err().unwrap().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
