//! Sinks: how they do, and what may be done with them. What changes something is decided, and an event before it takes
//! effect; what a destination was found to hold is an event too.

use super::error::ApiError;
use super::place::{Place, appended, index_at};
use super::reading::{Telling, about};
use super::{Api, Caller, blocking, whole};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State as Shared};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use custody_core::delivery::{Comparing, DeadLetter, Errand, Numbers, Report, Running, Standing};
use custody_core::event::sink::{Cancelled, Paused, RedriveBegun, Released, ReplayBegun, Verified};
use custody_core::event::{EventData, Outcome, Target};
use custody_core::log::{Durable, Hash};
use custody_core::policy::What;
use custody_core::policy::request::Action;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::convert::Infallible;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedMutexGuard, mpsc};

/// The longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1024;
/// How long a verification waits for a sink that isn't as far as the checkpoint.
const CATCHING_UP: Duration = Duration::from_secs(10);
/// How often a sink that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Whose turn it is, of each sink. Whoever holds it is the only one who begins or ends an errand of that sink: what is checked still holds
/// when it is in the log, and when it begins. One that can't answer holds up no other sink, and nothing that changes state.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    async fn of(&self, sink: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(sink.to_owned()).or_default())
        };
        turn.lock_owned().await
    }
}

/// `GET /v1/sinks`
pub async fn list(Shared(api): Shared<Arc<Api>>, caller: Caller) -> Result<Json<Vec<Standing>>, ApiError> {
    api.read(&caller, What::ReadState, "sinks", "", Telling::Aggregated).await?;
    let mut sinks = Vec::new();
    for running in &api.context.sinks {
        let (lag_events, lag_seconds) = lag(&api, &running.numbers()).await;
        let paused =
            api.context.replica.read(|state| state.sinks().paused(running.name()).map(str::to_owned));
        sinks.push(Standing {
            lag_events,
            lag_seconds,
            name: running.name().to_owned(),
            numbers: running.numbers(),
            paused,
            // One that has stopped replays nothing, and its trouble stands beside.
            replaying: running.replaying().await.unwrap_or_default(),
        });
    }
    Ok(Json(sinks))
}

/// How many events a sink is behind, and by how many seconds. Where the event that it stands at can't be read, nobody knows
/// since when: that must hide neither its trouble, which says so, nor the other sinks.
pub(super) async fn lag(api: &Api, numbers: &Numbers) -> (u64, Option<u64>) {
    let (log, next) = (Arc::clone(&api.context.log), numbers.next);
    let events = log.size().saturating_sub(next);
    if events == 0 {
        return (0, Some(0));
    }
    let seconds = match blocking("read the log", move || appended(&*log, next)).await {
        Ok(Ok(Some(oldest))) => Some(api.now().seconds().saturating_sub(oldest.seconds())),
        Ok(Ok(None) | Err(_)) | Err(_) => None,
    };
    (events, seconds)
}

/// `GET /v1/sinks/{name}/dead-letters`
pub async fn dead_letters(
    Shared(api): Shared<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Vec<DeadLetter>>, ApiError> {
    api.read(&caller, What::ReadState, "dead-letters", &name, Telling::Aggregated).await?;
    let letters = find(&api, &name)?.dead_letters().await;
    letters.map(Json).map_err(ApiError::Unavailable)
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    reason: String,
    from: Option<Place>,
    to: Option<Place>,
    /// What somebody's checkpoint of `to` events has as their root.
    root: Option<String>,
    repair: bool,
}

/// What an operation did.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Done {
    /// It is held, or released.
    Held {
        /// The event's index.
        index: u64,
        /// Whether it is held.
        paused: bool,
    },
    /// A replay has begun.
    Replaying {
        /// The event's index.
        index: u64,
        /// The first event of it.
        from: u64,
        /// The index after the last.
        to: u64,
    },
    /// A replay or a redrive was ended.
    Cancelled {
        /// The event's index.
        index: u64,
        /// Which of them.
        cancelled: Errand,
    },
    /// Dead letters were sent again.
    Redriven {
        /// The event's index.
        index: u64,
        /// How many there were.
        count: u64,
        /// How many are left.
        left: usize,
    },
}

/// `POST /v1/sinks/{name}/{operation}`
pub async fn operate(
    Shared(api): Shared<Arc<Api>>,
    caller: Caller,
    Path((name, operation)): Path<(String, String)>,
    body: Body,
) -> Result<Response, ApiError> {
    let body = whole(body).await?;
    let asked: Asked = serde_json::from_slice(if body.is_empty() { b"{}" } else { &body })
        .map_err(|error| ApiError::Invalid(format!("{operation}: {error}")))?;
    if asked.reason.len() > REASON_BYTES_MAX || asked.reason.chars().any(char::is_control) {
        return Err(ApiError::Invalid(format!("a reason is one line of at most {REASON_BYTES_MAX} bytes")));
    }
    let sink = find(&api, &name)?;
    // What was begun is finished, also when the client goes away.
    let task = tokio::spawn(async move {
        match operation.as_str() {
            "pause" => hold(&api, &caller, &*sink, asked.reason).await.map(answer),
            "release" => release(&api, &caller, &*sink).await.map(answer),
            "replay" => replay(&api, &caller, &*sink, asked).await.map(answer),
            "cancel" => cancel(&api, &caller, &*sink).await.map(answer),
            "redrive" => redrive(&api, &caller, &*sink).await.map(answer),
            "verify" => verify(api, caller, sink, asked).await,
            _ => Err(ApiError::Missing("there is no such operation: see docs/api.md".to_owned())),
        }
    });
    task.await.map_err(|error| ApiError::failed("operated a sink", error))?
}

fn answer(done: Done) -> Response {
    Json(done).into_response()
}

fn find(api: &Api, name: &str) -> Result<Arc<dyn Running>, ApiError> {
    let sinks = &api.context.sinks;
    sinks.iter().find(|sink| sink.name() == name).cloned().ok_or_else(|| {
        let known: Vec<&str> = sinks.iter().map(|sink| sink.name()).collect();
        ApiError::Missing(match known.as_slice() {
            [] => format!("there is no sink {name}: none is configured"),
            known => format!("there is no sink {name}: there are {}", known.join(", ")),
        })
    })
}

/// Appends the decision that allows it and what follows from it, in one batch, and waits until the state has both.
async fn append<D: EventData>(
    api: &Api,
    caller: &Caller,
    sink: &str,
    data: D,
) -> Result<Durable<D>, ApiError> {
    let target = Target { kind: "sink".to_owned(), name: sink.to_owned(), ..Target::default() };
    let what = What::Administer { action: Action::OperateSink, name: sink.to_owned() };
    let decision = super::commands::allowed(api, caller, what, target.clone()).await?;
    let draft = about(caller, data, target).cause(decision.id).outcome(Outcome::Success);
    let (_decision, done) = api.context.producer.append((decision, draft)).await?;
    api.context.replica.at_least(done.index()).await?;
    Ok(done)
}

async fn hold(api: &Api, caller: &Caller, sink: &dyn Running, reason: String) -> Result<Done, ApiError> {
    let _turn = api.changing.lock().await;
    let done = append(api, caller, sink.name(), Paused { reason, sink: sink.name().to_owned() }).await?;
    sink.pause(true);
    Ok(Done::Held { index: done.index(), paused: true })
}

async fn release(api: &Api, caller: &Caller, sink: &dyn Running) -> Result<Done, ApiError> {
    let _turn = api.changing.lock().await;
    if api.context.replica.read(|state| state.sinks().paused(sink.name()).is_none()) {
        return Err(ApiError::Conflict(format!("nobody holds the sink {}", sink.name())));
    }
    let done = append(api, caller, sink.name(), Released { sink: sink.name().to_owned() }).await?;
    sink.pause(false);
    Ok(Done::Held { index: done.index(), paused: false })
}

async fn replay(api: &Api, caller: &Caller, sink: &dyn Running, asked: Asked) -> Result<Done, ApiError> {
    let delivered = sink.numbers().next;
    let from = index_at(api, asked.from, 0).await?;
    let to = index_at(api, asked.to, delivered).await?.min(delivered);
    begin_replay(api, caller, sink, from..to).await
}

async fn begin_replay(
    api: &Api,
    caller: &Caller,
    sink: &dyn Running,
    indexes: Range<u64>,
) -> Result<Done, ApiError> {
    if indexes.is_empty() {
        return Err(ApiError::Invalid(format!(
            "there is nothing to replay: {} has come to event {}",
            sink.name(),
            sink.numbers().next
        )));
    }
    let _turn = api.turns.of(sink.name()).await;
    is_free(sink).await?;
    let (from, to) = (indexes.start, indexes.end);
    let done =
        append(api, caller, sink.name(), ReplayBegun { from, sink: sink.name().to_owned(), to }).await?;
    sink.replay(indexes).await.map_err(ApiError::Unavailable)?;
    Ok(Done::Replaying { index: done.index(), from, to })
}

/// One at a time is done beside the delivery of what is new.
async fn is_free(sink: &dyn Running) -> Result<(), ApiError> {
    match sink.errand().await.map_err(ApiError::Unavailable)? {
        Some(errand) => Err(ApiError::Conflict(errand.is_under_way())),
        None => Ok(()),
    }
}

async fn cancel(api: &Api, caller: &Caller, sink: &dyn Running) -> Result<Done, ApiError> {
    let _turn = api.turns.of(sink.name()).await;
    let Some(errand) = sink.errand().await.map_err(ApiError::Unavailable)? else {
        return Err(ApiError::Conflict(format!(
            "neither a replay nor a redrive is under way to {}",
            sink.name()
        )));
    };
    let done = append(api, caller, sink.name(), Cancelled { errand, sink: sink.name().to_owned() }).await?;
    // It may have come to its end meanwhile.
    sink.cancel().await.map_err(ApiError::Conflict)?;
    Ok(Done::Cancelled { index: done.index(), cancelled: errand })
}

async fn redrive(api: &Api, caller: &Caller, sink: &dyn Running) -> Result<Done, ApiError> {
    let held = api.turns.of(sink.name()).await;
    is_free(sink).await?;
    let count = sink.numbers().dead_letters;
    let begun = RedriveBegun { count, sink: sink.name().to_owned() };
    let done = append(api, caller, sink.name(), begun).await?;
    let left = send_again(sink, held).await.map_err(ApiError::Unavailable)?;
    Ok(Done::Redriven { index: done.index(), count, left })
}

/// Sends dead letters again. The turn is over once it has begun: its end may be far, and somebody may want to cancel it.
async fn send_again(sink: &dyn Running, held: OwnedMutexGuard<()>) -> Result<usize, String> {
    let mut redriven = sink.redrive();
    let ended = tokio::select! {
        biased;
        ended = &mut redriven => Some(ended),
        // Asked after it, and so answered after it has begun.
        _ = sink.errand() => None,
    };
    drop(held);
    match ended {
        Some(ended) => ended,
        None => redriven.await,
    }
}

/// Reads the destination back. The answer is NDJSON: how far it is, and at the end the report.
async fn verify(
    api: Arc<Api>,
    caller: Caller,
    sink: Arc<dyn Running>,
    asked: Asked,
) -> Result<Response, ApiError> {
    let what = What::Administer { action: Action::OperateSink, name: sink.name().to_owned() };
    let target = Target { kind: "sink".to_owned(), name: sink.name().to_owned(), ..Target::default() };
    let decision = super::commands::allowed(&api, &caller, what, target).await?;
    let _durable = api.context.producer.append(decision).await?;
    let signed = api.context.log.checkpoint().size();
    let (from, size) = (index_at(&api, asked.from, 0).await?, index_at(&api, asked.to, signed).await?);
    if size > signed || size == 0 {
        return Err(ApiError::Invalid(format!("only what is signed can be proved: events 1 to {signed}")));
    }
    if from >= size {
        return Err(ApiError::Invalid(format!("there is nothing to prove from event {from} to {size}")));
    }
    if let Some(root) = asked.root.as_deref() {
        let Some(Place::Index(_)) = asked.to else {
            return Err(ApiError::Invalid(
                "root is that of a size: give the checkpoint's size as to".to_owned(),
            ));
        };
        has_root(&api, size, root).await?;
    }
    let caught_up = async {
        while sink.numbers().next < size {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(CATCHING_UP, caught_up).await.is_err() {
        let Numbers { next, trouble, .. } = sink.numbers();
        let why = trouble.map(|trouble| format!(" ({trouble})")).unwrap_or_default();
        return Err(ApiError::Unavailable(format!(
            "{} has only come to event {next} of {size}{why}: wait for it, or verify up to there (to = {next})",
            sink.name()
        )));
    }
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let events = sender.clone();
        let progress = Box::new(move |events_done| {
            // Somebody who reads slowly sees fewer of them.
            drop(events.try_send(line(&Comparing::Compared { events: events_done, of: size })));
        });
        let compared = sink.verify(from..size, progress);
        let repair = asked.repair.then_some(&sender);
        let last = match while_wanted(&sender, compared).await {
            // Nothing is known that could be told, and others may have it compared now.
            None => return,
            Some(Ok(report)) => conclude(&api, &caller, &*sink, report, repair).await,
            Some(Err(reason)) => vec![Comparing::Error(reason)],
        };
        for told in last {
            // Whoever asked may have gone.
            drop(sender.send(line(&told)).await);
        }
    });
    let lines = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|line| (Ok::<_, Infallible>(line), receiver))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// Refuses to prove anything to somebody who holds a checkpoint of another log, or of this one as it was before it was changed.
async fn has_root(api: &Api, size: u64, root: &str) -> Result<(), ApiError> {
    let wanted = Hash::from_base64(root).ok_or_else(|| {
        ApiError::Invalid("root is a hash in base64, as the third line of a checkpoint has it".to_owned())
    })?;
    let log = Arc::clone(&api.context.log);
    if blocking("read the log", move || log.root(size)).await?? == wanted {
        return Ok(());
    }
    Err(ApiError::Conflict(format!(
        "the first {size} events of this log have another root: keep that checkpoint, and have `custody verify URL --known FILE` \
         say where they part"
    )))
}

/// What comes of it, unless whoever asked goes away before.
async fn while_wanted<T>(sender: &mpsc::Sender<Bytes>, done: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = sender.closed() => None,
        done = done => Some(done),
    }
}

/// Tells what was found, and has delivered again what is missing: for somebody who is still there, if it is wanted at all.
async fn conclude(
    api: &Api,
    caller: &Caller,
    sink: &dyn Running,
    report: Report,
    repair: Option<&mpsc::Sender<Bytes>>,
) -> Vec<Comparing> {
    let verified = Verified {
        altered: report.altered.count,
        by_original: report.by_original,
        duplicated: report.duplicated.count,
        expected: report.expected,
        extra: report.extra.count,
        from: report.from,
        missing: report.missing.count,
        proven: report.is_proven(),
        rejected: report.rejected,
        sink: sink.name().to_owned(),
        size: report.size,
        verdict: Some(report.verdict()),
    };
    let target = Target { kind: "sink".to_owned(), name: sink.name().to_owned(), ..Target::default() };
    let draft = about(caller, verified, target).outcome(if report.is_proven() {
        Outcome::Success
    } else {
        Outcome::Failure
    });
    if let Err(error) = api.context.producer.append(draft).await {
        return vec![Comparing::Error(ApiError::from(error).to_string())];
    }
    let ranges = report.to_repair.clone();
    let mut told = Vec::new();
    let repair = repair.is_some_and(|asked| !asked.is_closed());
    if repair && let (Some(first), Some(last)) = (ranges.first(), ranges.last()) {
        // What stands there already isn't sent, so one range over all of them will do.
        match begin_replay(api, caller, sink, first.start..last.end).await {
            Ok(_) => told.push(Comparing::Repairing(ranges)),
            Err(error) => told.push(Comparing::Error(error.to_string())),
        }
    }
    told.insert(0, Comparing::Report(Box::new(report)));
    told
}

fn line(told: &Comparing) -> Bytes {
    // These types always have a JSON form.
    let mut line = serde_json::to_vec(told).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::delivery::Asked as Answer;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    #[tokio::test]
    async fn a_comparison_ends_when_nobody_waits_for_it() {
        let (sender, receiver) = mpsc::channel(1);
        assert_eq!(while_wanted(&sender, async { 7 }).await, Some(7));
        let compared = while_wanted(&sender, std::future::pending::<()>());
        let gone = async { drop(receiver) };
        let (compared, ()) = tokio::join!(compared, gone);
        assert_eq!(compared, None);
        assert_eq!(while_wanted(&sender, async { 7 }).await, None, "nor is it concluded");
    }

    #[tokio::test]
    async fn each_sink_has_one_turn_at_a_time() {
        let (turns, wait) = (Turns::default(), Duration::from_millis(50));
        let held = turns.of("a sink").await;
        assert!(tokio::time::timeout(wait, turns.of("a sink")).await.is_err());
        assert!(tokio::time::timeout(wait, turns.of("another sink")).await.is_ok());
        drop(held);
        assert!(tokio::time::timeout(wait, turns.of("a sink")).await.is_ok());
    }

    /// A sink whose redrive never ends.
    #[derive(Default)]
    struct Slow {
        begun: AtomicBool,
    }

    impl Running for Slow {
        fn name(&self) -> &str {
            "slow"
        }

        fn numbers(&self) -> Numbers {
            Numbers::default()
        }

        fn pause(&self, _: bool) {}

        fn replay(&self, _: Range<u64>) -> Answer<'_, ()> {
            Box::pin(async move { Ok(()) })
        }

        fn replaying(&self) -> Answer<'_, Option<Range<u64>>> {
            Box::pin(async move { Ok(None) })
        }

        fn redrive(&self) -> Answer<'_, usize> {
            Box::pin(async move {
                self.begun.store(true, Relaxed);
                std::future::pending::<Result<usize, String>>().await
            })
        }

        fn cancel(&self) -> Answer<'_, ()> {
            Box::pin(async move { Ok(()) })
        }

        fn errand(&self) -> Answer<'_, Option<Errand>> {
            Box::pin(async move { Ok(self.begun.load(Relaxed).then_some(Errand::Redrive)) })
        }

        fn dead_letters(&self) -> Answer<'_, Vec<DeadLetter>> {
            Box::pin(async move { Ok(vec![]) })
        }

        fn verify<'a>(&'a self, _: Range<u64>, _: Box<dyn FnMut(u64) + Send + 'a>) -> Answer<'a, Report> {
            Box::pin(async move { Ok(Report::default()) })
        }
    }

    #[tokio::test]
    async fn a_redrive_has_the_turn_until_it_has_begun() {
        let (sink, turns) = (Slow::default(), Turns::default());
        let held = turns.of("slow").await;
        let next = async {
            drop(turns.of("slow").await);
            assert_eq!(sink.errand().await, Ok(Some(Errand::Redrive)));
        };
        let wait = Duration::from_secs(10);
        let redriven = tokio::time::timeout(wait, async {
            tokio::select! {
                _ = send_again(&sink, held) => false,
                () = next => true,
            }
        });
        assert_eq!(redriven.await, Ok(true));
    }
}
