//! Destinations that speak HTTP: credentials and authorities that are read anew, and what an answer means.

use crate::authorities::Version;
use crate::secret::Secrets;
use crate::sink::{Trouble, Unproven};
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const CONNECT: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 20;
const TOO_LONG: &str = "its answer is too long";
/// What is told of an answer that wasn't expected, in characters.
const REASON_CHARS_MAX: usize = 300;

/// Where a destination is and what it wants to be shown.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Its address, `https://…` or `http://…`.
    pub url: String,
    /// A PEM file with the authorities that its certificate is checked against; the machine's own without one.
    pub ca: Option<PathBuf>,
    /// What it wants to be shown.
    pub auth: Option<Auth>,
}

/// What a destination wants to be shown. The secrets themselves lie in the secret store, by name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Auth {
    /// User and password.
    Basic {
        /// The user.
        user: String,
        /// The password's name.
        secret: String,
    },
    /// `Authorization: Bearer …`
    Bearer {
        /// The token's name.
        secret: String,
    },
    /// `Authorization: ApiKey …`, as Elasticsearch has it.
    ApiKey {
        /// The key's name.
        secret: String,
    },
    /// `Authorization: Splunk …`
    Splunk {
        /// The token's name.
        secret: String,
    },
}

impl Endpoint {
    /// Whether it can be one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        match reqwest::Url::parse(&self.url) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                Err(format!("url = \"{}\" must begin with https:// or http://", self.url))
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                Err("the url holds a user or a password: put it into the secret store and name it in auth"
                    .into())
            }
            Ok(url) if url.scheme() == "http" && self.auth.is_some() && !is_this_machine(&url) => {
                Err(format!(
                    "url = \"{}\" shows what is in auth to the network: use https://, or http:// to this machine only (127.0.0.1, ::1, localhost)",
                    self.url
                ))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(format!("url = \"{}\": {error}", self.url)),
        }
    }
}

fn is_this_machine(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Speaks to one endpoint.
pub struct Http {
    endpoint: Endpoint,
    secrets: Secrets,
    /// The client, and the authorities that it was made with.
    client: Mutex<Option<(Version, Client)>>,
}

/// A whole answer.
pub struct Answered {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

impl Http {
    /// To that endpoint.
    #[must_use]
    pub fn new(endpoint: Endpoint, secrets: Secrets) -> Self {
        Self { endpoint, secrets, client: Mutex::new(None) }
    }

    /// The endpoint's address, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> &str {
        self.endpoint.url.trim_end_matches('/')
    }

    /// Begins a request to `path`, which begins with a slash; without one to the address as it is written, since what has a slash
    /// at its end may be another place for a receiver than what has none.
    ///
    /// # Errors
    /// [`Trouble::Denied`] when a file or a secret isn't as it should be.
    pub fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, Trouble> {
        let denied = |reason| Trouble::Denied { reason };
        let client = self.client().map_err(denied)?;
        let address =
            if path.is_empty() { self.endpoint.url.clone() } else { format!("{}{path}", self.url()) };
        let request = client.request(method, address);
        let secret = |name: &str| self.secrets.read(name).map_err(denied);
        Ok(match &self.endpoint.auth {
            None => request,
            Some(Auth::Basic { user, secret: name }) => request.basic_auth(user, Some(&*secret(name)?)),
            Some(Auth::Bearer { secret: name }) => request.bearer_auth(&*secret(name)?),
            Some(Auth::ApiKey { secret: name }) => {
                request.header("authorization", format!("ApiKey {}", &*secret(name)?))
            }
            Some(Auth::Splunk { secret: name }) => {
                request.header("authorization", format!("Splunk {}", &*secret(name)?))
            }
        })
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Errors
    /// [`Trouble::Refused`] when there was no connection, [`Trouble::Unclear`] when it broke, [`Trouble::Late`] when the request's own
    /// time was over.
    pub async fn answer(&self, request: RequestBuilder) -> Result<Answered, Trouble> {
        self.whole(request).await?.ok_or_else(|| Trouble::unclear(TOO_LONG))
    }

    /// The same of a question for what there is.
    ///
    /// # Errors
    /// [`Unproven::TooMuch`] where the answer is longer than is read, and else [`Unproven::Now`].
    pub async fn shown(&self, request: RequestBuilder) -> Result<Answered, Unproven> {
        let answered = self.whole(request).await.map_err(|trouble| Unproven::Now(trouble.to_string()))?;
        answered.ok_or_else(|| Unproven::TooMuch(TOO_LONG.to_owned()))
    }

    /// Nothing where the answer is longer than is read.
    async fn whole(&self, request: RequestBuilder) -> Result<Option<Answered>, Trouble> {
        let mut response = request.send().await.map_err(|error| trouble(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| trouble(&error))? {
            if body.len() + piece.len() > ANSWER_BYTES_MAX {
                return Ok(None);
            }
            body.extend_from_slice(&piece);
        }
        Ok(Some(Answered { status, headers, body }))
    }

    /// The client, made anew when the authorities have changed.
    fn client(&self) -> Result<Client, String> {
        let mut kept = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let ca = self.endpoint.ca.as_deref();
        let version = Version::of(ca).map_err(|error| named(ca, &error.to_string()))?;
        if let Some((made_with, client)) = &*kept
            && *made_with == version
        {
            return Ok(client.clone());
        }
        let client = build(ca)?;
        *kept = Some((version, client.clone()));
        Ok(client)
    }
}

fn named(ca: Option<&Path>, reason: &str) -> String {
    format!("{}: {reason}", ca.unwrap_or(Path::new("the HTTP client")).display())
}

fn build(ca: Option<&Path>) -> Result<Client, String> {
    let mut builder = Client::builder()
        .connect_timeout(CONNECT)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("custody/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = ca {
        let pem = std::fs::read(path).map_err(|error| named(ca, &error.to_string()))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .ok()
            .filter(|certificates| !certificates.is_empty())
            .ok_or_else(|| named(ca, "no PEM certificate in it"))?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|error| named(ca, &in_one_line(&error)))
}

fn trouble(error: &reqwest::Error) -> Trouble {
    let reason = in_one_line(error);
    if error.is_connect() {
        Trouble::Refused { reason, retry_after: None }
    } else if error.is_builder() {
        Trouble::Denied { reason }
    } else if error.is_timeout() {
        Trouble::Late { reason, in_doubt: true }
    } else {
        Trouble::unclear(reason)
    }
}

/// The innermost reason.
fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    root.to_string().replace('\n', " ")
}

impl Answered {
    /// What the status means where a destination gives it no meaning of its own: a request that wasn't understood is one
    /// event's fault, but for what would be so of any request.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        let reason = self.reason();
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => Trouble::Refused { reason, retry_after: self.retry_after() },
            status if is_about_the_way(status) => Trouble::Denied { reason },
            // Of a request that didn't come, or of an answer that didn't, by somebody in between.
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => {
                Trouble::Late { reason, in_doubt: true }
            }
            StatusCode::TOO_EARLY => Trouble::Refused { reason, retry_after: None },
            StatusCode::PAYLOAD_TOO_LARGE => Trouble::TooLarge { reason },
            status if status.is_client_error() => Trouble::Poisoned { reason },
            // Somebody in between may say so of a request that arrived.
            _ => Trouble::Unclear { reason, retry_after: self.retry_after() },
        }
    }

    /// When the destination wants to be asked again (RFC 9110, 10.2.3): in so many seconds, or at a time of its own clock. What that
    /// clock says now stands beside it, so that ours doesn't matter.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let header = |name| self.headers.get(name)?.to_str().ok().map(str::trim);
        let asked = header(RETRY_AFTER)?;
        if let Ok(seconds) = asked.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let time = |text| httpdate::parse_http_date(text).ok();
        time(asked)?.duration_since(time(header(DATE)?)?).ok()
    }

    /// The status and the beginning of the body, in one line.
    #[must_use]
    pub fn reason(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let text: String =
            text.chars().take(REASON_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
        format!("HTTP {}: {}", self.status.as_u16(), text.trim())
    }
}

/// Whether a status is about who asks, where and how, and not about what was sent: it would be the same for any event.
fn is_about_the_way(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::PAYMENT_REQUIRED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_ACCEPTABLE
            | StatusCode::PROXY_AUTHENTICATION_REQUIRED
            | StatusCode::LENGTH_REQUIRED
            | StatusCode::PRECONDITION_FAILED
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::EXPECTATION_FAILED
            | StatusCode::MISDIRECTED_REQUEST
            | StatusCode::LOCKED
            | StatusCode::UPGRADE_REQUIRED
            | StatusCode::PRECONDITION_REQUIRED
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::answering;

    fn answered(status: u16, body: &str) -> Answered {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        Answered { status: StatusCode::from_u16(status).unwrap(), headers, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn what_a_status_means() {
        let refused = answered(429, "slow\ndown").trouble();
        assert_eq!(refused.retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(refused.to_string(), "HTTP 429: slow down");
        assert!(matches!(answered(413, "").trouble(), Trouble::TooLarge { .. }));
        for status in [401, 402, 403, 404, 405, 406, 407, 411, 415, 421, 426, 431] {
            assert!(matches!(answered(status, "").trouble(), Trouble::Denied { .. }), "{status}");
        }
        for status in [400, 409, 422] {
            assert!(matches!(answered(status, "").trouble(), Trouble::Poisoned { .. }), "{status}");
        }
        let unclear = answered(503, "").trouble();
        assert!(unclear.leaves_doubt() && unclear.retry_after() == Some(Duration::from_secs(7)), "{unclear}");
        for slow in [408, 504] {
            assert!(matches!(answered(slow, "").trouble(), Trouble::Late { in_doubt: true, .. }));
        }
        assert!(matches!(answered(425, "").trouble(), Trouble::Refused { .. }));
        assert!(answered(500, &"é".repeat(9_999)).reason().chars().count() < 400);
    }

    /// Whoever runs a receiver reads there what stalls and what makes dead letters.
    #[test]
    fn the_page_on_webhooks_names_each_status_that_is_about_the_way() {
        let page = include_str!("../../docs/sinks-others.md");
        let words = page.split_whitespace().collect::<Vec<_>>().join(" ");
        let (_, rest) = words.split_once("what is about the way and not the events (").unwrap();
        let (list, _) = rest.split_once(')').unwrap();
        let named = list.split(", ").flat_map(|part| {
            let (first, last) = part.split_once(" to ").unwrap_or((part, part));
            first.parse::<u16>().unwrap()..=last.parse().unwrap()
        });
        let about_the_way =
            (400..500).filter(|status| is_about_the_way(StatusCode::from_u16(*status).unwrap()));
        assert_eq!(named.collect::<Vec<_>>(), about_the_way.collect::<Vec<_>>());
    }

    #[test]
    fn a_time_at_which_to_come_back_is_of_the_destinations_clock() {
        let asked = |after: &str, date: Option<&str>| {
            let mut answered = answered(429, "");
            answered.headers.insert(RETRY_AFTER, after.parse().unwrap());
            answered.headers.extend(date.map(|date| (DATE, date.parse().unwrap())));
            answered.retry_after()
        };
        let (now, then) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:50:07 GMT");
        assert_eq!(asked(then, Some(now)), Some(Duration::from_secs(30)));
        assert_eq!((asked(then, None), asked(now, Some(then)), asked("soon", Some(now))), (None, None, None));
    }

    #[test]
    fn a_url_with_a_password_is_refused() {
        let endpoint = |url: &str| Endpoint { url: url.into(), ca: None, auth: None };
        assert!(endpoint("https://a.example/x").check().is_ok());
        for (wrong, says) in [
            ("https://u:p@a.example", "secret store"),
            ("ftp://a.example", "must begin"),
            ("a.example", "url ="),
        ] {
            assert!(endpoint(wrong).check().unwrap_err().contains(says), "{wrong}");
        }
    }

    #[test]
    fn what_is_shown_to_a_destination_is_shown_to_nobody_between() {
        let check = |url: &str, auth: bool| {
            let auth = auth.then(|| Auth::Bearer { secret: "token".into() });
            Endpoint { url: url.into(), ca: None, auth }.check()
        };
        for good in ["https://a.example", "http://127.0.0.1:3100", "http://[::1]:3100", "http://localhost"] {
            assert_eq!(check(good, true), Ok(()), "{good}");
        }
        assert_eq!(check("http://loki:3100", false), Ok(()));
        for open in ["http://loki:3100", "http://10.0.0.1", "http://localhost.example"] {
            assert!(check(open, true).unwrap_err().contains("https://"), "{open}");
        }
    }

    #[test]
    fn an_address_is_asked_as_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let asked = |url: &str, path: &str| {
            let http =
                Http::new(Endpoint { url: url.into(), ca: None, auth: None }, Secrets::new(dir.path()));
            http.request(Method::POST, path).unwrap().build().unwrap().url().to_string()
        };
        assert_eq!(asked("https://a.example/hooks/", ""), "https://a.example/hooks/");
        assert_eq!(asked("https://a.example/hooks?at=1", ""), "https://a.example/hooks?at=1");
        assert_eq!(asked("https://a.example/base/", "/push"), "https://a.example/base/push");
    }

    #[test]
    fn no_connection_means_that_nothing_arrived() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint { url: format!("http://127.0.0.1:{port}/"), ca: None, auth: None };
        let http = Http::new(endpoint, Secrets::new(dir.path()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let request = http.request(Method::GET, "/x").unwrap();
        let answer = runtime.block_on(http.answer(request)).err().unwrap();
        assert!(matches!(answer, Trouble::Refused { .. }), "{answer}");
    }

    #[test]
    fn an_answer_that_is_too_long_is_too_much_of_what_there_is() {
        let endpoint = Endpoint { url: answering(|_| None), ca: None, auth: None };
        let http = Http::new(endpoint, Secrets::new(Path::new("/nowhere")));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let request = || http.request(Method::GET, "/x").unwrap();
        let unproven = runtime.block_on(http.shown(request())).err().unwrap();
        assert_eq!(unproven, Unproven::TooMuch(TOO_LONG.to_owned()));
        // What became of what was sent isn't known.
        let trouble = runtime.block_on(http.answer(request())).err().unwrap();
        assert_eq!(trouble, Trouble::unclear(TOO_LONG));
    }

    #[test]
    fn a_secret_that_is_missing_is_for_a_person_to_mend() {
        let dir = tempfile::tempdir().unwrap();
        let auth = Some(Auth::Bearer { secret: "token".into() });
        let endpoint = Endpoint { url: "http://127.0.0.1:1".into(), ca: None, auth };
        let http = Http::new(endpoint, Secrets::new(dir.path()));
        let error = http.request(Method::GET, "/").err().unwrap();
        assert!(matches!(&error, Trouble::Denied { reason } if reason.contains("custodyd secret put token")));
        Secrets::new(dir.path()).put("token", "t").unwrap();
        let request = http.request(Method::GET, "/").unwrap().build().unwrap();
        assert_eq!(request.headers()["authorization"], "Bearer t");
    }
}
