//! OpenSearch and Elasticsearch: a data stream of ECS documents, each with the canonical event beside it.
//!
//! Neither refuses an `_id` a second time once a data stream has rolled over, so what is in doubt is looked up over the
//! whole stream after a refresh, once the store isn't busy any more with the request that left the doubt. A bulk answer of
//! 200 says nothing: each item has its own status.

mod bulk;
mod mapping;
mod product;
mod search;
mod stream;
#[cfg(test)]
mod tests;
mod under_way;

use self::product::{Product, Templates};
use self::search::Shown;
use self::under_way::Names;
use crate::fields::of_ecs;
use crate::http::{Answered, Endpoint, Http};
use crate::item::Item;
use crate::secret::Secrets;
use crate::sink::{Answer, Fields, Found, Held, Limits, Sink, Trouble, Unproven, Window};
use custody_core::clock::{Clock, Nanos, SystemClock};
use custody_core::mapping::{Logged, ecs};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Documents of one window that are asked for at once: what these products give without a scroll.
const HITS_MAX: usize = 10_000;
/// How long a node may not have heard yet of an index that another one has begun.
const LAG: Duration = Duration::from_secs(1);
const CLOSED: &str = "an index of the stream is closed, and what it holds isn't known: open it";

/// `[sink.opensearch]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where it is.
    pub endpoint: Endpoint,
    /// The data stream; where there are none (Elasticsearch 7 without x-pack) it begins the names of daily indices.
    #[serde(default = "stream")]
    pub stream: String,
}

fn stream() -> String {
    "logs-custody.events-default".to_owned()
}

impl Settings {
    /// Whether they make sense.
    ///
    /// # Errors
    /// What doesn't.
    pub fn check(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        let (stream, first) = (&self.stream, self.stream.chars().next());
        if stream.len() > 200 || !stream.chars().all(plain) || !first.is_some_and(|c| c.is_ascii_lowercase())
        {
            return Err(format!("stream = \"{stream}\" must be lower-case letters, digits, - _ or ."));
        }
        self.endpoint.check()
    }
}

/// Delivers to OpenSearch or Elasticsearch.
pub struct OpenSearch {
    http: Http,
    stream: String,
    origin: String,
    names: Names,
    /// What it is, once it was asked.
    product: Mutex<Option<Product>>,
    /// Indices that are known to be the stream's.
    indices: Mutex<BTreeSet<String>>,
    /// Whether the stream was rolled over for what its index lacks.
    rolled: AtomicBool,
}

/// An event as a bulk request has it.
pub struct Encoded {
    index: u64,
    id: String,
    /// The day of appending: of the index, where there are no data streams.
    day: String,
    document: Vec<u8>,
}

impl OpenSearch {
    /// For the log with that origin.
    #[must_use]
    pub fn new(settings: Settings, secrets: Secrets, origin: &str) -> Self {
        Self {
            http: Http::new(settings.endpoint, secrets),
            names: Names::new(origin, &settings.stream),
            stream: settings.stream,
            origin: origin.to_owned(),
            product: Mutex::new(None),
            indices: Mutex::default(),
            rolled: AtomicBool::new(false),
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Answered, Trouble> {
        self.http.answer(self.request(method, path, body)?).await
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<reqwest::RequestBuilder, Trouble> {
        let request = self.http.request(method, path)?;
        Ok(match body {
            Some(body) => request.header("content-type", "application/json").body(body),
            None => request,
        })
    }

    async fn put(&self, path: &str, body: &Value) -> Result<Answered, Trouble> {
        self.ask(Method::PUT, path, Some(body.to_string().into_bytes())).await
    }

    /// Asks what it is.
    async fn detect(&self) -> Result<Product, Trouble> {
        let answered = self.ask(Method::GET, "/", None).await?;
        if !answered.status.is_success() {
            return Err(answered.trouble());
        }
        Product::of(&answered.body).map_err(|reason| Trouble::Denied { reason })
    }

    /// Puts the templates there, and the stream. Gives the product without what it doesn't have.
    async fn set_up(&self, product: Product) -> Result<Product, Trouble> {
        let templates = Templates::of(product, &self.stream).map_err(|reason| Trouble::Denied { reason })?;
        // A product without lifecycles, or one where others see to them: the documents don't depend on it.
        // One that is there may have been changed by whoever has to keep documents for longer.
        if let Some((path, body)) = &templates.lifecycle
            && self.ask(Method::GET, path, None).await?.status == StatusCode::NOT_FOUND
        {
            let answered = self.put(path, body).await?;
            if !answered.status.is_success() {
                tracing::debug!("no lifecycle for {}: {}", self.stream, answered.reason());
            }
        }
        for (path, body) in &templates.components {
            if self.is_there(product, path, body).await? {
                continue;
            }
            let answered = self.put(path, body).await?;
            if !answered.status.is_success() {
                return match product.poorer(&answered.reason()) {
                    Some(poorer) => Box::pin(self.set_up(poorer)).await,
                    None => Err(denied(&answered)),
                };
            }
        }
        if !product.has_streams {
            return Ok(product);
        }
        let path = format!("/_data_stream/{}", self.stream);
        let there = self.ask(Method::GET, &path, None).await?;
        if there.status == StatusCode::NOT_FOUND {
            let made = self.ask(Method::PUT, &path, None).await?;
            // Somebody else may have made it meanwhile; or no more of them may be made, which is refused in the same way.
            if !made.status.is_success() && !self.ask(Method::GET, &path, None).await?.status.is_success() {
                return Err(denied(&made));
            }
        } else if !there.status.is_success() {
            return Err(denied(&there));
        }
        Ok(product)
    }

    /// Whether a template is there in this program's version or a later one's: what somebody has changed in it stays, but for the
    /// mappings. Elasticsearch is always told all of the others: by what it refuses shows whether it has data streams.
    async fn is_there(&self, product: Product, path: &str, body: &Value) -> Result<bool, Trouble> {
        let ours = body.get("version").and_then(Value::as_u64);
        let is_kept = product::is_kept(path);
        if ours.is_none() || (is_kept && !product.is_opensearch) {
            return Ok(false);
        }
        let there = self.ask(Method::GET, path, None).await?;
        if there.status != StatusCode::OK {
            return Ok(false);
        }
        Ok(match product::version(&there.body).cmp(&ours) {
            Ordering::Less => false,
            Ordering::Equal => is_kept || mapping::has_all(&there.body, body),
            Ordering::Greater => true,
        })
    }

    /// Gives the index that is written to the fields that it lacks: one that an earlier version has made gets what the template says
    /// now with the next rollover only. No document depends on that: where it isn't allowed, they are searched by what there is.
    async fn complete(&self, product: Product) -> Result<(), Trouble> {
        let Some(index) = self.newest(product).await? else { return Ok(()) };
        let templates = Templates::of(product, &self.stream).map_err(|reason| Trouble::Denied { reason })?;
        let there = self.ask(Method::GET, &format!("/{index}/_mapping"), None).await?;
        if there.status != StatusCode::OK || !mapping::lacks(&there.body, &templates.fields) {
            return Ok(());
        }
        // Into whichever is written to by now.
        let path = if product.has_streams {
            format!("/{}/_mapping?write_index_only=true", self.stream)
        } else {
            format!("/{index}/_mapping")
        };
        let mut done = self.put(&path, &json!({ "properties": templates.fields })).await?;
        // One that it has is of another type, which may be so in the next index too. Once is enough, whatever that one turns out to have.
        if done.status == StatusCode::BAD_REQUEST && product.has_streams && !self.rolled.load(Relaxed) {
            if self.next_would_have(&templates.fields).await? {
                self.rolled.store(true, Relaxed);
                done = self.ask(Method::POST, &format!("/{}/_rollover", self.stream), None).await?;
            } else {
                tracing::warn!(
                    "the next index of {} isn't known to have more: another index template may be before Custody's \
                     (GET _data_stream/{} names it)",
                    self.stream,
                    self.stream
                );
            }
        }
        if !done.status.is_success() {
            tracing::warn!("{index} lacks fields of this version's mapping: {}", done.reason());
        }
        Ok(())
    }

    /// Whether the stream's next index would have these fields, by the template that counts for it. That one is asked for by its own
    /// name: before 8.2, Elasticsearch simulates no index whose name a stream has, and neither does OpenSearch.
    async fn next_would_have(&self, fields: &Value) -> Result<bool, Trouble> {
        let named = self.ask(Method::GET, &stream::template_path(&self.stream), None).await?;
        let Some(template) = stream::template(&named.body) else { return Ok(false) };
        let path = format!("/_index_template/_simulate/{template}");
        let simulated = self.ask(Method::POST, &path, None).await?;
        Ok(simulated.status == StatusCode::OK && mapping::would_have(&simulated.body, fields))
    }

    /// The index that is written to, where there may be one.
    async fn newest(&self, product: Product) -> Result<Option<String>, Trouble> {
        if !product.has_streams {
            return Ok(Some(format!("{}-{}", self.stream, day(SystemClock::new().wall()))));
        }
        let answered = self.ask(Method::GET, &stream::indices_path(&self.stream), None).await?;
        Ok(stream::indices(&answered.body).ok().and_then(|mut indices| indices.pop()))
    }

    /// Whether events can be found there.
    async fn finds(&self, product: Product) -> Result<(), Trouble> {
        let path = stream::mapping_path(&self.everything(product));
        let answered = self.ask(Method::GET, &path, None).await?;
        match answered.status {
            StatusCode::OK => stream::finds(&answered.body).map_err(|reason| Trouble::Denied { reason }),
            // Of daily indices there may be none yet.
            StatusCode::NOT_FOUND if !product.has_streams => Ok(()),
            _ => Err(denied(&answered)),
        }
    }

    /// Those of some indices that aren't the stream's, or days of it.
    async fn elsewhere(&self, names: BTreeSet<&str>, product: Product) -> Result<BTreeSet<String>, Trouble> {
        let known = |name: &str| self.indices.lock().unwrap_or_else(PoisonError::into_inner).contains(name);
        let days = format!("{}-", self.stream);
        let mut others = names;
        others.retain(|name| if product.has_streams { !known(name) } else { !name.starts_with(&days) });
        if !others.is_empty() && product.has_streams {
            self.learn_indices().await?;
            others.retain(|name| !known(name));
            // One that looks like the stream's own may be so new that whoever was asked hasn't heard of it (Elasticsearch 9.1 and later).
            let own = format!(".ds-{}-", self.stream);
            if others.iter().any(|name| name.starts_with(&own)) {
                tokio::time::sleep(LAG).await;
                self.learn_indices().await?;
                others.retain(|name| !known(name));
            }
        }
        Ok(others.into_iter().map(str::to_owned).collect())
    }

    /// Asks which indices are the stream's.
    async fn learn_indices(&self) -> Result<(), Trouble> {
        let answered = self.ask(Method::GET, &stream::indices_path(&self.stream), None).await?;
        let indices = stream::indices(&answered.body)
            .map_err(|reason| Trouble::unclear(format!("{reason}: {}", answered.reason())))?;
        *self.indices.lock().unwrap_or_else(PoisonError::into_inner) = indices.into_iter().collect();
        Ok(())
    }

    /// What it holds of a window.
    async fn read(&self, window: &Window, shown: Shown) -> Result<Found, Unproven> {
        let now = |error: Trouble| Unproven::Now(error.to_string());
        // Where nothing could be made ready, it is told what keeps it from that.
        let product = match self.product() {
            Some(product) => product,
            None => self.detect().await.map_err(now)?,
        };
        let everything = self.everything(product);
        self.finds(product).await.map_err(now)?;
        // First onto its disk, then into what it shows: what a request that failed has left in memory would be gone with the
        // next failure, and so must not count.
        for operation in ["_flush", "_refresh"] {
            let path = format!("/{everything}/{operation}?ignore_unavailable=true");
            let done = self.ask(Method::POST, &path, None).await.map_err(now)?;
            // Where the service itself sees to what is on its disk (Elastic's serverless), it has no such request.
            if operation == "_flush" && done.status == StatusCode::GONE {
                continue;
            }
            search::whole(done.status, &done.body).map_err(|reason| {
                Unproven::Now(format!("{operation} isn't whole: {reason}: {}", done.reason()))
            })?;
        }
        let body = search::question(window, &self.origin, shown, HITS_MAX).to_string().into_bytes();
        // A closed index can't be searched, and what it holds isn't missing: such a question is refused.
        let asked = self.search(&everything, "expand_wildcards=open,closed", body.clone()).await;
        let (mut answered, mut perhaps_more) = (asked?, None);
        if shown == Shown::Event && matches!(answered.status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND)
        {
            // What is new doesn't lie in one, and isn't held up by one.
            perhaps_more = self.may_be_closed(window, product).await?.then(|| CLOSED.to_owned());
            answered = self.search(&everything, "ignore_unavailable=true", body).await?;
        }
        if answered.status != StatusCode::OK {
            return Err(Unproven::Now(answered.reason()));
        }
        let documents = search::documents(&answered.body, &self.origin, shown)?;
        Ok(Found { documents, perhaps_more })
    }

    async fn search(&self, everything: &str, how: &str, body: Vec<u8>) -> Result<Answered, Unproven> {
        let path = format!("/{everything}/_search?allow_partial_search_results=false&{how}");
        let request = self.request(Method::POST, &path, Some(body));
        self.http.shown(request.map_err(|error| Unproven::Now(error.to_string()))?).await
    }

    /// Whether something of a window may lie in an index that is closed. Of daily indices none is asked for: what is of a day goes into
    /// that day's, which takes nothing while it is closed, and knows its `_id`s again afterwards.
    async fn may_be_closed(&self, window: &Window, product: Product) -> Result<bool, Unproven> {
        if !product.has_streams {
            return Ok(false);
        }
        let answered = self.ask(Method::GET, &stream::ages_path(&self.stream), None).await;
        let answered = answered.map_err(|error| Unproven::Now(error.to_string()))?;
        match answered.status {
            StatusCode::OK => {
                stream::may_be_closed(&answered.body, window.appended.start).map_err(Unproven::Now)
            }
            StatusCode::NOT_FOUND => Ok(false),
            _ => {
                Err(Unproven::Now(format!("it doesn't tell which indices are closed: {}", answered.reason())))
            }
        }
    }

    fn product(&self) -> Option<Product> {
        *self.product.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that is ours: the stream, or its daily indices.
    fn everything(&self, product: Product) -> String {
        if product.has_streams { self.stream.clone() } else { format!("{}-*", self.stream) }
    }
}

/// A day, as the names of daily indices end.
fn day(time: Nanos) -> String {
    time.to_string().get(..10).unwrap_or("1970-01-01").replace('-', ".")
}

/// A refusal that only a person can do something about; what is busy is tried again.
fn denied(answered: &Answered) -> Trouble {
    match answered.trouble() {
        Trouble::Poisoned { reason } => Trouble::Denied { reason },
        other => other,
    }
}

impl Sink for OpenSearch {
    type Encoded = Encoded;

    fn limits(&self) -> Limits {
        Limits {
            batch_events: 1_000,
            batch_bytes: 5 << 20,
            in_flight: 2,
            linger: Duration::from_millis(200),
            timeout: Duration::from_secs(60),
            ..Limits::default()
        }
    }

    async fn prepare(&self) -> Result<(), Trouble> {
        let product = self.detect().await?;
        let product = self.set_up(product).await?;
        self.finds(product).await?;
        self.complete(product).await?;
        *self.product.lock().unwrap_or_else(PoisonError::into_inner) = Some(product);
        Ok(())
    }

    fn encode(&self, item: &Item) -> Result<Encoded, String> {
        let logged = Logged {
            origin: &self.origin,
            index: item.index,
            appended: item.appended.into(),
            leaf: item.leaf,
            bytes: &item.bytes,
        };
        let day = day(item.appended);
        Ok(Encoded { index: item.index, id: logged.id(), day, document: ecs::document(&logged) })
    }

    fn bytes(encoded: &Encoded) -> usize {
        encoded.document.len() + encoded.id.len() + 64
    }

    async fn send(&self, batch: &[&Encoded]) -> Result<Vec<Answer>, Trouble> {
        let product = self.product().ok_or_else(|| Trouble::Refused {
            reason: "it wasn't made ready".to_owned(),
            retry_after: None,
        })?;
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return Ok(Vec::new()) };
        let path = bulk::path(&self.stream, product);
        let request = self
            .http
            .request(Method::POST, &path)?
            .header("content-type", "application/x-ndjson")
            .header(under_way::HEADER, self.names.of(&(first.index..=last.index)))
            .body(bulk::request(batch, &self.stream, product));
        let answered = self.http.answer(request).await?;
        // What it says of a document stands beside that document: this is of the request, and would be so of any.
        if !answered.status.is_success() {
            return Err(denied(&answered));
        }
        let response = bulk::Response::read(&answered.body, batch.len()).map_err(Trouble::unclear)?;
        let elsewhere = self.elsewhere(response.indices(), product).await;
        // It has taken them, wherever they are.
        Ok(response.answers(&elsewhere.map_err(|trouble| Trouble::unclear(trouble.to_string()))?))
    }

    async fn read_back(&self, window: &Window) -> Result<Found, Unproven> {
        self.read(window, Shown::Whole).await
    }

    fn fields(&self, item: &Item, held: &Held) -> Fields {
        let (Some(stored), Ok(encoded)) = (&held.document, self.encode(item)) else { return Fields::AsSent };
        of_ecs(stored, &encoded.document)
    }

    async fn look_up(&self, window: &Window) -> Result<Found, Unproven> {
        let now = |error: Trouble| Unproven::Now(error.to_string());
        let tasks = self.ask(Method::GET, under_way::QUESTION, None).await.map_err(now)?;
        match tasks.status {
            StatusCode::OK => {
                let indexes = window.indexes.start..=window.indexes.end.saturating_sub(1);
                self.names.none_of(&indexes, &tasks.body).map_err(Unproven::Now)?;
            }
            // A service that doesn't let its tasks be seen: what is under way there, nobody knows. Elasticsearch itself
            // says 400 where it has no such path.
            StatusCode::BAD_REQUEST
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::GONE => (),
            _ => {
                return Err(Unproven::Now(format!(
                    "it doesn't tell what it is busy with: {}",
                    tasks.reason()
                )));
            }
        }
        self.read(window, Shown::Event).await
    }
}
