//! The API over a connection that is kept: what waits for an event asks for it again and again, and a client that begins anew each
//! time would take the machine from what it waits for.

use super::custodyd::Answer;
use reqwest::{Certificate, Client, Identity};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, mpsc};
use std::time::Duration;
use tokio::runtime::Runtime;

const ANSWER_MAX: Duration = Duration::from_secs(20);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("a runtime")
});

/// A person's connections.
#[derive(Clone, Debug, Default)]
pub struct Reader(Arc<Mutex<Option<Shown>>>);

/// A client, and the certificate with its key that it shows.
type Shown = (Vec<u8>, Client);

impl Reader {
    /// `GET` of entries, a line each.
    ///
    /// # Panics
    /// When the home has no certificate.
    #[must_use]
    pub fn entries(&self, home: &Path, ca: &Path, url: &str) -> Answer {
        let request = self.client(home, ca).get(url).header("accept", "application/x-ndjson");
        let (tell, answered) = mpsc::channel();
        RUNTIME.spawn(async move { drop(tell.send(answer(request).await)) });
        answered.recv().expect("the request ends").unwrap_or_else(|error| Answer {
            status: 0,
            headers: String::new(),
            body: Vec::new(),
            failure: format!("{error:?}"),
        })
    }

    /// The one that shows the certificate that the person has now.
    fn client(&self, home: &Path, ca: &Path) -> Client {
        let read = |path: &Path| std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let identity = [read(&home.join("client.pem")), read(&home.join("client.key"))].concat();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((shown, client)) = &*kept
            && *shown == identity
        {
            return client.clone();
        }
        let builder = Client::builder()
            .no_proxy()
            .timeout(ANSWER_MAX)
            .tls_certs_only([Certificate::from_pem(&read(ca)).expect("the CA's certificate")])
            .identity(Identity::from_pem(&identity).expect("a certificate with its key"));
        let client = builder.build().expect("a client");
        *kept = Some((identity, client.clone()));
        client
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    let again = request.try_clone();
    let response = match (request.send().await, again) {
        // The daemon may have been another one when the connection was made.
        (Err(_), Some(again)) => again.send().await?,
        (sent, _) => sent?,
    };
    let status = response.status().as_u16();
    let lines = response
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes())));
    let headers = lines.collect();
    let body = response.bytes().await?.to_vec();
    Ok(Answer { status, headers, body, failure: String::new() })
}
