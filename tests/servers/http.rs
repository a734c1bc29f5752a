//! What curl would do, for tests that aren't asynchronous and for those that are.

use serde_json::Value;
use std::sync::{LazyLock, mpsc};
use std::time::Duration;
use tokio::runtime::Runtime;

/// A runtime of its own: so a request may be waited for inside another one.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
});
static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
    reqwest::Client::builder().timeout(Duration::from_secs(30)).no_proxy().build().expect("a client")
});

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as text.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it isn't.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// The same, when it says that all went well.
    ///
    /// # Panics
    /// When it doesn't.
    pub fn ok(self) -> Self {
        assert!((200..300).contains(&self.status), "status {}: {}", self.status, self.text);
        self
    }
}

/// GET.
///
/// # Errors
/// When there is no answer within half a minute.
pub fn get(url: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
    send("GET", url, headers, "")
}

/// A request with a body.
///
/// # Errors
/// When there is no answer within half a minute, or not a whole one.
///
/// # Panics
/// When `method` is none.
pub fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer, String> {
    let method = method.parse::<reqwest::Method>().expect("a method");
    let mut request = CLIENT.request(method, url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !body.is_empty() {
        request = request.body(body.to_owned());
    }
    let (tell, told) = mpsc::channel();
    RUNTIME.spawn(async move {
        let answer = answer(request).await.map_err(|e| format!("{e:?}"));
        // Nobody waits any more only when the test has ended.
        drop(tell.send(answer));
    });
    told.recv().map_err(|e| e.to_string())?
}

async fn answer(request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    Ok(Answer { status: response.status().as_u16(), headers, text: response.text().await? })
}
