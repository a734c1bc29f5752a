//! What is told of sinks that stand still.

use super::stalled::Gated;
use super::world::{Plan, World};
use custody_core::delivery::{Asked, DeadLetter, Errand, Numbers, Report, Running, Standing};
use custody_core::log::Log;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::ops::Range;
use std::sync::Arc;

/// The entry that can't be read.
const BAD: u64 = 3;

/// A sink that does nothing more.
struct Stuck {
    name: &'static str,
    numbers: Numbers,
}

impl Running for Stuck {
    fn name(&self) -> &str {
        self.name
    }

    fn numbers(&self) -> Numbers {
        self.numbers.clone()
    }

    fn pause(&self, _: bool) {}

    fn replay(&self, _: Range<u64>) -> Asked<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn replaying(&self) -> Asked<'_, Option<Range<u64>>> {
        Box::pin(async { Ok(None) })
    }

    fn redrive(&self) -> Asked<'_, usize> {
        Box::pin(async { Ok(0) })
    }

    fn cancel(&self) -> Asked<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn errand(&self) -> Asked<'_, Option<Errand>> {
        Box::pin(async { Ok(None) })
    }

    fn dead_letters(&self) -> Asked<'_, Vec<DeadLetter>> {
        Box::pin(async { Ok(vec![]) })
    }

    fn verify<'a>(&'a self, _: Range<u64>, _: Box<dyn FnMut(u64) + Send + 'a>) -> Asked<'a, Report> {
        Box::pin(async { Ok(Report::default()) })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_can_not_be_read_hides_neither_a_sinks_trouble_nor_anything_else() {
    let trouble = "entry 3 of the log is damaged";
    let sink = |name, next: u64, trouble: Option<&str>| -> Arc<dyn Running> {
        let numbers = Numbers { next, trouble: trouble.map(str::to_owned), ..Numbers::default() };
        Arc::new(Stuck { name, numbers })
    };
    let is_shut = Box::new(|from: u64| from == BAD);
    let plan = Plan {
        read: Box::new(|log| Arc::new(Gated { log, is_shut }) as Arc<dyn Log>),
        sinks: vec![sink("lines", BAD, Some(trouble)), sink("other", BAD - 1, None)],
        ..Plan::default()
    };
    let world = World::planned(plan).await;
    let admin = world.admin().await;

    let answer = admin.json("/v1/sinks").await;
    let sinks: Vec<Standing> = serde_json::from_value(answer).unwrap();
    let (lines, other) = (&sinks[0], &sinks[1]);
    assert_eq!((lines.name.as_str(), lines.numbers.trouble.as_deref()), ("lines", Some(trouble)));
    assert!(lines.lag_events > 0 && lines.lag_seconds.is_none(), "{lines:?}");
    assert!(other.lag_events > lines.lag_events && other.lag_seconds.is_some(), "{other:?}");

    let (status, text) = admin.get("/metrics").await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert!(text.contains("\ncustody_sink_up{sink=\"lines\"} 0\n"), "{text}");
    assert!(text.contains("\ncustody_sink_lag_events{sink=\"lines\"} "), "{text}");
    assert!(!text.contains("custody_sink_lag_seconds{sink=\"lines\"}"), "{text}");
    assert!(text.contains("\ncustody_sink_lag_seconds{sink=\"other\"} "), "{text}");
    assert!(text.contains("\ncustody_log_up 1\n"), "{text}");
}

/// Whoever holds a checkpoint from elsewhere is told nothing of a log that isn't the checkpoint's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_compared_for_a_checkpoint_that_the_log_does_not_have() {
    let numbers = Numbers { next: u64::MAX, ..Numbers::default() };
    let sinks: Vec<Arc<dyn Running>> = vec![Arc::new(Stuck { name: "lines", numbers })];
    let world = World::planned(Plan { sinks, ..Plan::default() }).await;
    let admin = world.admin().await;
    let size = world.log.sign_now().await.unwrap().size();
    let (root, other) = (world.log.root(size).unwrap(), world.log.root(size - 1).unwrap());
    let verify = async |body: Value| admin.post("/v1/sinks/lines/verify", body).await;

    let (status, answer) = verify(json!({ "to": size, "root": root.to_base64() })).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert!(answer["report"].is_object(), "{answer}");
    let (status, answer) = verify(json!({ "to": size - 1, "root": other.to_base64() })).await;
    assert_eq!(status, StatusCode::OK, "{answer}");

    let (status, answer) = verify(json!({ "to": size, "root": other.to_base64() })).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    let said = answer["error"].as_str().unwrap();
    assert!(said.contains(&format!("first {size} events")) && said.contains("--known"), "{said}");

    // A root is of a size, and is a hash.
    for wrong in [
        json!({ "root": root.to_base64() }),
        json!({ "to": "2500-01-01T00:00:00Z", "root": root.to_base64() }),
        json!({ "to": size, "root": "nothing" }),
    ] {
        let (status, answer) = verify(wrong).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    }
}
