//! Those who wait for what comes: subscriptions by server-sent events, and long polls.
//!
//! A subscription holds a cursor and no queue: entries are read from the log when the reader has room for them. So a
//! slow reader falls behind in the log, not in our memory, and one that takes nothing is dropped.

use super::cursor::Before;
use super::error::ApiError;
use super::events::{self, Question};
use super::place::appended;
use super::reading::{Asks as _, Telling};
use super::subscriber::Subscriber;
use super::{Api, blocking};
use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use custody_core::log::{Log, ReadError};
use custody_core::search::{Page, Progress, Query, SearchError};
use futures_util::future::BoxFuture;
use futures_util::stream;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Readers that wait at once, all together.
const PLACES_MAX: usize = 256;
/// Readers that wait at once under one name.
const PLACES_EACH_MAX: usize = 16;
/// When one that found no place may come again, in seconds.
const COME_AGAIN: u64 = 10;
/// A subscription says at least so often that it lives.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A reader that leaves what it was sent for so long is dropped.
pub(super) const SLOW: Duration = Duration::from_secs(30);
/// After something new a reader waits so long for more of it: bounds its questions to the projection.
const GATHER: Duration = Duration::from_millis(20);
/// How soon a browser or a library comes again by itself, in milliseconds.
const RECONNECT: u64 = 2_000;

/// Places for those who wait.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<BTreeMap<String, usize>>);

impl Places {
    /// A place for the reader `name`.
    ///
    /// # Errors
    /// [`ApiError::Crowded`] when there is none.
    fn take(self: &Arc<Self>, name: String) -> Result<Place, ApiError> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, his) = (taken.values().sum::<usize>(), taken.get(&name).copied().unwrap_or(0));
        if all >= PLACES_MAX || his >= PLACES_EACH_MAX {
            return Err(ApiError::Crowded { seconds: COME_AGAIN });
        }
        taken.insert(name.clone(), his + 1);
        Ok(Place { places: Arc::clone(self), name })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

/// One of them, until it is dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    name: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.name) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.name)),
        }
    }
}

/// What wakes those who wait. Made before the look, so that what comes after it wakes.
struct Watching {
    size: watch::Receiver<u64>,
    indexed: watch::Receiver<Progress>,
    closing: watch::Receiver<bool>,
}

/// What happened.
enum News {
    /// There may be something new.
    Perhaps,
    /// The log takes nothing more.
    Stopped,
    /// The server closes.
    Closing,
}

impl Watching {
    fn new(api: &Api) -> Self {
        let mut size = api.context.log.follow();
        size.mark_unchanged();
        let mut indexed = api.context.search.progress();
        indexed.mark_unchanged();
        Self { size, indexed, closing: api.closing.clone() }
    }

    async fn news(&mut self, unfiltered: bool) -> News {
        let Self { size, indexed, closing } = self;
        let changed = async {
            let changed = if unfiltered { size.changed().await } else { indexed.changed().await };
            tokio::time::sleep(GATHER).await;
            changed
        };
        tokio::select! {
            changed = changed => if changed.is_ok() { News::Perhaps } else { News::Stopped },
            () = super::tls::closed(closing) => News::Closing,
        }
    }
}

/// Whether silence says that nothing matched below `size`: the projection, where it is asked at all, has come so far.
fn looked_at(api: &Api, search: &Query, size: u64) -> Result<(), SearchError> {
    if search.is_unfiltered() { Ok(()) } else { api.context.search.reached(size) }
}

/// Whether silence says that nothing matched so far or is about to be: the projection is usually a moment behind, but
/// it mustn't have stopped short of the log.
fn at_work(api: &Api, search: &Query) -> Result<(), SearchError> {
    match looked_at(api, search, api.context.log.size()) {
        Err(stopped @ SearchError::Stopped { .. }) => Err(stopped),
        _ => Ok(()),
    }
}

/// A page with something on it, or the empty one when `wait` is over, the server closes, or the reader may no longer. One whose time
/// is over before all was looked at is followed by the next as long as `wait` lasts.
pub(super) async fn long_poll(
    api: &Arc<Api>,
    subscriber: &Subscriber,
    question: &mut Question,
    first: Page,
    wait: Duration,
) -> Result<Page, ApiError> {
    if !first.entries.is_empty() || wait.is_zero() {
        return Ok(first);
    }
    let _place = api.places.take(subscriber.name())?;
    let until = Instant::now() + wait;
    let mut page = first;
    loop {
        question.search.cursor = Some(page.next);
        let mut watching = Watching::new(api);
        page = api.context.search.find(question.search.clone()).await?;
        if !page.entries.is_empty() {
            break;
        }
        at_work(api, &question.search)?;
        if page.cut {
            if Instant::now() >= until || *watching.closing.borrow() {
                return Ok(page);
            }
            continue;
        }
        match tokio::time::timeout_at(until, watching.news(question.search.is_unfiltered())).await {
            Ok(News::Perhaps) => {}
            Ok(News::Closing) => return Ok(page),
            // An empty page says as much as one for which nobody waited: nothing that is durable matches.
            Ok(News::Stopped) | Err(_) => {
                question.search.cursor = Some(page.next);
                page = events::find(api, question.search.clone()).await?;
                if page.entries.is_empty() {
                    return Ok(page);
                }
                break;
            }
        }
    }
    // It is handed out on the word of a decision that may be a minute old.
    subscriber.may_go_on(api).map_err(ApiError::Denied)?;
    Ok(page)
}

/// A look for the next page that goes on, and what wakes whoever finds nothing in it.
struct Look {
    watching: Watching,
    page: BoxFuture<'static, Result<Page, SearchError>>,
}

/// A subscription.
struct Follower {
    api: Arc<Api>,
    subscriber: Subscriber,
    question: Question,
    /// One that took so long that a sign of life came before its page.
    look: Option<Look>,
    /// When something was last handed over.
    handed: Instant,
    begun: bool,
    ended: bool,
    _place: Place,
}

/// Answers with a stream of events that doesn't end by itself before `until` is passed. `resumed` is one that was cut off
/// and goes on.
pub(super) async fn follow(
    api: Arc<Api>,
    subscriber: Subscriber,
    mut question: Question,
    query: &str,
    resumed: bool,
) -> Result<Response, ApiError> {
    let place = api.places.take(subscriber.name())?;
    // One that goes on was told when it began; a program that comes again and again is told of once a minute.
    let telling = match &subscriber {
        Subscriber::Person(_) if !resumed => Telling::Always,
        _ => Telling::Aggregated,
    };
    api.read(&subscriber, subscriber.what(), "follow", query, telling).await?;
    events::indexed(&api, &question.search).await?;
    question.search.cursor.get_or_insert(0);
    let follower = Follower {
        api,
        subscriber,
        question,
        look: None,
        handed: Instant::now(),
        begun: false,
        ended: false,
        _place: place,
    };
    let stream = stream::unfold(follower, |mut follower| async move {
        if follower.ended {
            return None;
        }
        let chunk = follower.next().await;
        follower.handed = Instant::now();
        Some((Ok::<_, Infallible>(chunk), follower))
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform")),
        // nginx keeps small events in its buffer, signs of life as well, until they are 4 KiB.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

impl Follower {
    /// The next piece of the stream: entries, a sign of life, or the last event.
    async fn next(&mut self) -> Bytes {
        if !std::mem::replace(&mut self.begun, true) {
            return Bytes::from(format!("retry: {RECONNECT}\n\n"));
        }
        if self.handed.elapsed() > SLOW {
            return self.end("too-slow", "you read slower than the log grows: go on from the last id");
        }
        let (quiet_since, size) = (Instant::now(), self.api.context.log.size());
        let keep_alive = self.api.keep_alive;
        loop {
            // Roles, policies, locks and tokens may have changed since.
            if let Err(reason) = self.subscriber.may_go_on(&self.api) {
                return self.end("denied", &reason);
            }
            if *self.api.closing.borrow() {
                return self.closing();
            }
            let mut look = self.look.take().unwrap_or_else(|| self.begin_to_look());
            let found = tokio::time::timeout_at(quiet_since + keep_alive, look.page.as_mut()).await;
            let Ok(found) = found else {
                // It waits its turn behind others, perhaps, and mustn't lose it.
                self.look = Some(look);
                return Bytes::from_static(b": still looking\n\n");
            };
            let mut watching = look.watching;
            match found {
                Err(error) => return self.end("failed", &error.to_string()),
                Ok(page) if page.entries.is_empty() => {
                    self.question.search.cursor = Some(page.next);
                    if let Err(error) = at_work(&self.api, &self.question.search) {
                        return self.end("behind", &error.to_string());
                    }
                    match is_over(&self.api.context.log, &self.question.search, page.next).await {
                        // A page takes the better part of the time that may pass in silence.
                        Ok(false) if page.cut => return self.still_looking(page.next).await,
                        Ok(false) => {}
                        Ok(true) => {
                            return self.end("until-passed", "until is passed: nothing more will match");
                        }
                        Err(error) => return self.end("failed", &error.to_string()),
                    }
                }
                Ok(page) => match self.chunk(page).await {
                    Ok(chunk) => return chunk,
                    Err(error) => return self.end("failed", &error.to_string()),
                },
            }
            let unfiltered = self.question.search.is_unfiltered();
            match tokio::time::timeout_at(quiet_since + keep_alive, watching.news(unfiltered)).await {
                Ok(News::Perhaps) => {}
                // What told of news is the projection where there is a filter: the log may well go on.
                Ok(News::Stopped) if self.api.log_is_alive() => {
                    return self.end("behind", "the search projection has ended: tell your administrator");
                }
                Ok(News::Stopped) => return self.stopped(),
                Ok(News::Closing) => return self.closing(),
                Err(_) => return self.sign_of_life(size),
            }
        }
    }

    fn begin_to_look(&self) -> Look {
        let watching = Watching::new(&self.api);
        let (search, query) = (Arc::clone(&self.api.context.search), self.question.search.clone());
        Look { watching, page: Box::pin(async move { search.find(query).await }) }
    }

    /// Says how far what isn't new has been looked at, and not that nothing came. It is no event, but its id counts: one that is
    /// cut off again and again comes further all the same.
    async fn still_looking(&mut self, next: u64) -> Bytes {
        let (api, search) = (Arc::clone(&self.api), self.question.search.clone());
        let id = blocking("read the log", move || {
            let before = Before::at(&*api.context.log, next)?;
            Ok::<_, ReadError>(api.cursors.write(&search, next, before))
        });
        match id.await.and_then(|id| id.map_err(ApiError::from)) {
            Ok(id) => Bytes::from(format!("id: {id}\n: still looking\n\n")),
            Err(error) => self.end("failed", &error.to_string()),
        }
    }

    /// Says that nothing came, if that is so: what was durable at `size`, a while ago, has been looked at, and the log
    /// goes on.
    fn sign_of_life(&mut self, size: u64) -> Bytes {
        if let Err(error) = looked_at(&self.api, &self.question.search, size) {
            return self.end("behind", &error.to_string());
        }
        if !self.api.log_is_alive() {
            return self.stopped();
        }
        Bytes::from_static(b": alive\n\n")
    }

    /// The events of a page, each with the cursor behind it.
    async fn chunk(&mut self, page: Page) -> Result<Bytes, ApiError> {
        let (api, question) = (Arc::clone(&self.api), self.question.clone());
        let (chunk, next) = blocking("told events", move || {
            let (mut out, mut next) = (Vec::new(), page.next);
            for entry in page.entries {
                let after = entry.index.saturating_add(1);
                let id = api.cursors.write(&question.search, after, Before::after(&entry.bytes));
                out.extend_from_slice(format!("id: {id}\ndata: ").as_bytes());
                out.extend_from_slice(&question.format.line(api.context.log.origin(), &entry));
                out.extend_from_slice(b"\n\n");
                if out.len() >= events::ANSWER_BYTES_MAX {
                    next = after;
                    break;
                }
            }
            (out, next)
        })
        .await?;
        self.question.search.cursor = Some(next);
        Ok(Bytes::from(chunk))
    }

    fn stopped(&mut self) -> Bytes {
        self.end("stopped", "the log has stopped: nothing more will come until it is restarted")
    }

    fn closing(&mut self) -> Bytes {
        self.end("closing", "the server is being stopped: go on from the last id later")
    }

    /// The last event of the stream: which, and one line for people.
    fn end(&mut self, event: &str, line: &str) -> Bytes {
        self.ended = true;
        let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let body = serde_json::json!({ "error": line });
        Bytes::from(format!("event: {event}\ndata: {body}\n\n"))
    }
}

/// Whether nothing can match any more: the entry right before `next` was appended after `until`, and times never decrease with
/// the index.
async fn is_over(log: &Arc<dyn Log>, search: &Query, next: u64) -> Result<bool, ApiError> {
    let (Some(until), Some(last)) = (search.until, next.checked_sub(1)) else { return Ok(false) };
    let log = Arc::clone(log);
    let last = blocking("read the log", move || appended(&*log, last)).await??;
    Ok(last.is_some_and(|appended| appended > until))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_few_for_one_and_come_back() {
        let places = Arc::new(Places::default());
        let mine: Vec<Place> = (0..PLACES_EACH_MAX).map(|_| places.take("ana".into()).unwrap()).collect();
        assert!(matches!(places.take("ana".into()), Err(ApiError::Crowded { .. })));
        let his = places.take("bob".into()).unwrap();
        assert_eq!(places.taken(), PLACES_EACH_MAX + 1);
        drop(mine);
        assert_eq!(places.taken(), 1);
        let others: Vec<Place> = (0..PLACES_MAX - 1).map(|n| places.take(n.to_string()).unwrap()).collect();
        assert!(matches!(places.take("eve".into()), Err(ApiError::Crowded { .. })));
        drop((others, his));
        assert_eq!(places.taken(), 0);
    }
}
