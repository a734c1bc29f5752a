//! Webhooks to a receiver that checks them with what others publish for that.

use crate::campaign::{ORIGIN, Source};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custody_core::clock::SystemClock;
use custody_core::event::hex::to_hex;
use custody_core::log::tree::leaf_hash;
use custody_sinks::http::Endpoint;
use custody_sinks::item::Item;
use custody_sinks::secret::Secrets;
use custody_sinks::sink::{Answer as Said, Sink as _};
use custody_sinks::webhook::{Settings, Webhook, make, public};
use custody_tests::servers::flaky::{Fault, Flaky};
use custody_tests::servers::scripted::{Answer, Asked, Scripted};
use custody_tests::servers::{World, python};
use custody_tests::wait::{DEADLINE, until_true};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// What a receiver has got, and what it answers next; 200 when nothing is planned.
#[derive(Default)]
struct Inbox {
    taken: Vec<Asked>,
    asked: u64,
    planned: VecDeque<Answer>,
}

fn receiver() -> Scripted<Inbox> {
    Scripted::start(Inbox::default(), |inbox, asked| {
        inbox.asked += 1;
        let answer = inbox.planned.pop_front().unwrap_or_else(|| Answer::new(200, ""));
        if answer.status == 200 || answer.status == 0 {
            inbox.taken.push(asked.clone());
        }
        answer
    })
}

fn sink(url: &str, secrets: &Path, sign_with: &[&str]) -> Webhook {
    let endpoint = Endpoint { url: format!("{url}/hook"), ca: None, auth: None };
    let sign_with = sign_with.iter().map(|name| (*name).to_owned()).collect();
    let settings = Settings { endpoint, sign_with, events_max: 100 };
    settings.check().unwrap();
    Webhook::new(settings, Secrets::new(secrets), ORIGIN, Arc::new(SystemClock::new()))
}

/// Which keys fit a webhook, as strangers see it.
fn fit(asked: &Asked, keys: &[&str]) -> Vec<bool> {
    let headers: BTreeMap<&str, &str> =
        asked.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let received = json!({ "headers": headers, "body": str::from_utf8(&asked.body).unwrap() });
    let said = python::run_with("verify_webhook.py", keys, received.to_string().as_bytes());
    said.lines().map(|line| line == "True").collect()
}

/// The events of webhooks by index, each as often as it came; each is the log's.
fn counts(source: &Source, taken: &[Asked]) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for asked in taken {
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        let text = str::from_utf8(&asked.body).unwrap();
        for entry in body["data"]["entries"].as_array().unwrap() {
            let index = entry["index"].as_u64().unwrap();
            let logged = source.log.read(index, 1, 0).unwrap().remove(0);
            assert_eq!(entry["leaf"], to_hex(&leaf_hash(&logged.bytes).0));
            assert_eq!(entry["appended"], logged.appended.to_string());
            assert!(
                text.contains(str::from_utf8(&logged.bytes).unwrap()),
                "event {index} isn't there as it is"
            );
            *counts.entry(index).or_default() += 1;
        }
    }
    counts
}

#[test]
fn strangers_accept_each_signature_and_a_key_is_changed_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = Secrets::new(dir.path());
    let (old, new) = (make().unwrap(), make().unwrap());
    let shared = format!("whsec_{}", STANDARD.encode([9; 32]));
    secrets.put("old", &old).unwrap();
    secrets.put("new", &new).unwrap();
    secrets.put("shared", &shared).unwrap();
    let [old_public, new_public] = [&old, &new].map(|key| public(key).unwrap());
    let strange = public(&make().unwrap()).unwrap();
    let keys = [old_public.as_str(), &new_public, &shared, &strange];
    let (receiver, source) = (receiver(), Source::new());
    for (sign_with, fits) in [
        (&["old"][..], [true, false, false, false]),
        (&["new", "old"][..], [true, true, false, false]),
        (&["new", "shared"][..], [false, true, true, false]),
    ] {
        source.grow(150);
        let run = source.deliver(sink(&receiver.url(), dir.path(), sign_with));
        source.delivered(&run);
        source.stop(run);
        let last = receiver.state().taken.last().unwrap().clone();
        assert_eq!(fit(&last, &keys), fits, "{sign_with:?}");
        // Anything changed is refused.
        let mut changed = last.clone();
        changed.body.extend(b" ");
        assert_eq!(fit(&changed, &keys), [false; 4]);
    }
    let counts = counts(&source, &receiver.state().taken);
    assert_eq!(counts.len() as u64, source.log.size());
    assert!(counts.values().all(|times| *times == 1), "nothing went wrong, so nothing comes twice");
}

#[test]
fn nothing_is_lost_whatever_the_receiver_answers() {
    let dir = tempfile::tempdir().unwrap();
    Secrets::new(dir.path()).put("key", &make().unwrap()).unwrap();
    let (receiver, source) = (receiver(), Source::new());
    let proxy = Flaky::http(receiver.port);
    let planned = [
        Answer::new(429, "").with("retry-after", "0"),
        Answer::new(502, ""),
        Answer::new(503, "").with("retry-after", "0"),
        Answer::new(500, "oops"),
        Answer::new(413, ""),
        // It has it, and says nothing.
        Answer::none(),
    ];
    for (answer, fault) in planned.into_iter().zip([Fault::Swallow, Fault::Cut].into_iter().cycle()) {
        let asked = receiver.state().asked;
        let run = source.deliver(sink(&proxy.url(), dir.path(), &["key"]));
        receiver.state().planned.push_back(answer);
        proxy.next(1, fault);
        source.grow(300);
        until_true("it was asked again and again", DEADLINE, || receiver.state().asked > asked + 3);
        source.kill(run);
    }
    receiver.state().planned.clear();
    let run = source.deliver(sink(&proxy.url(), dir.path(), &["key"]));
    source.delivered(&run);
    assert_eq!(run.control.health().numbers().dead_letters, 0);
    let report = source.prove(&run);
    assert!(report.unproven[0].reason.contains("webhook"), "{report:?}");
    source.stop(run);
    let state = receiver.state();
    let counts = counts(&source, &state.taken);
    assert_eq!(counts.len() as u64, source.log.size(), "all are there");
    // What is sent again unchanged has its identity again.
    let mut bodies: BTreeMap<&str, &[u8]> = BTreeMap::new();
    for asked in &state.taken {
        let id = asked.header("webhook-id").unwrap();
        assert_eq!(*bodies.entry(id).or_insert(&asked.body), asked.body, "{id}");
    }
    assert!(bodies.len() < state.taken.len(), "some came again");
}

/// Events in a body.
fn entries(asked: &Asked) -> usize {
    let body: Value = serde_json::from_slice(&asked.body).unwrap();
    body["data"]["entries"].as_array().unwrap().len()
}

#[test]
fn a_receiver_whose_gateway_gives_up_on_long_batches_gets_short_ones() {
    const GIVES_UP: usize = 10;
    let dir = tempfile::tempdir().unwrap();
    Secrets::new(dir.path()).put("key", &make().unwrap()).unwrap();
    let source = Source::new();
    let receiver = Scripted::start(Vec::new(), |taken: &mut Vec<Asked>, asked| {
        if entries(asked) > GIVES_UP {
            return Answer::new(504, "upstream request timeout");
        }
        taken.push(asked.clone());
        Answer::new(200, "")
    });
    source.grow(300);
    let run = source.deliver(sink(&receiver.url(), dir.path(), &["key"]));
    source.delivered(&run);
    source.stop(run);
    let counts = counts(&source, &receiver.state());
    assert_eq!(counts.len() as u64, source.log.size());
    assert!(counts.values().all(|times| *times == 1), "{counts:?}");
}

/// A receiver that takes each webhook once, and what it has taken.
fn refuses_repeats() -> Scripted<Vec<Asked>> {
    Scripted::start(Vec::new(), |taken: &mut Vec<Asked>, asked| {
        let had = |one: &Asked| one.header("webhook-id") == asked.header("webhook-id");
        if taken.iter().any(had) {
            return Answer::new(409, "already processed");
        }
        taken.push(asked.clone());
        Answer::new(200, "")
    })
}

/// Whose answer was lost before it says to the same again that it has it, whatever came in between.
#[test]
fn a_receiver_that_refuses_repeats_has_each_batch_once() {
    let dir = tempfile::tempdir().unwrap();
    Secrets::new(dir.path()).put("key", &make().unwrap()).unwrap();
    let (receiver, source) = (refuses_repeats(), Source::new());
    let proxy = Flaky::http(receiver.port);
    let run = source.deliver(sink(&proxy.url(), dir.path(), &["key"]));
    for faults in [
        &[Fault::Cut][..],
        &[Fault::Cut, Fault::Answer(429, Some(0))],
        &[Fault::Swallow, Fault::Answer(502, None), Fault::Refuse],
        &[Fault::Swallow, Fault::Answer(503, Some(0)), Fault::Answer(429, None)],
    ] {
        // One event alone can't be cut in another way: what is refused of it is a dead letter.
        for events in [1, 50] {
            source.delivered(&run);
            faults.iter().for_each(|fault| proxy.next(1, *fault));
            source.grow(events);
        }
    }
    source.delivered(&run);
    assert_eq!((run.control.health().numbers().dead_letters, proxy.queued()), (0, 0));
    source.stop(run);
    let counts = counts(&source, &receiver.state());
    assert_eq!(counts.len() as u64, source.log.size());
    assert!(counts.values().all(|times| *times == 1), "{counts:?}");
}

/// Who waits for an answer gives up at last, and what the receiver has taken by then it has.
#[test]
fn what_a_slow_receiver_took_is_not_refused_when_it_comes_again() {
    type Slow = (Vec<String>, Sender<()>, Receiver<()>);
    let dir = tempfile::tempdir().unwrap();
    Secrets::new(dir.path()).put("key", &make().unwrap()).unwrap();
    let source = Source::new();
    let (takes, taken) = channel();
    let (given_up, waits) = channel();
    let receiver = Scripted::start((vec![], takes, waits), |(ids, takes, waits): &mut Slow, asked| {
        let id = asked.header("webhook-id").unwrap().to_owned();
        if ids.contains(&id) {
            return Answer::new(409, "already processed");
        }
        ids.push(id);
        takes.send(()).unwrap();
        waits.recv().unwrap_or_default();
        Answer::new(200, "")
    });
    let webhook = Arc::new(sink(&receiver.url(), dir.path(), &["key"]));
    // Of this life: no earlier one can have sent it.
    source.grow(1);
    let entry = source.log.read(source.log.size() - 1, 1, 0).unwrap().remove(0);
    let encoded = Arc::new(webhook.encode(&Item::new(entry)).unwrap());
    let send = || {
        let (webhook, encoded) = (Arc::clone(&webhook), Arc::clone(&encoded));
        source.runtime.spawn(async move { webhook.send(&[&*encoded]).await })
    };
    let first = send();
    taken.recv_timeout(DEADLINE).unwrap();
    // As the delivery does when the time is over.
    first.abort();
    assert!(source.runtime.block_on(first).unwrap_err().is_cancelled());
    given_up.send(()).unwrap();
    assert_eq!(source.runtime.block_on(send()).unwrap(), Ok(vec![Said::Stored]));
}

/// A run before the start may have sent it, and never have heard what became of it.
#[test]
fn what_an_earlier_run_sent_is_not_refused_after_a_restart() {
    for events in [0, 50] {
        let dir = tempfile::tempdir().unwrap();
        Secrets::new(dir.path()).put("key", &make().unwrap()).unwrap();
        let (receiver, source) = (refuses_repeats(), Source::new());
        source.grow(events);
        let proxy = Flaky::http(receiver.port);
        proxy.set(Fault::Refuse);
        proxy.next(1, Fault::Swallow);
        let run = source.deliver(sink(&proxy.url(), dir.path(), &["key"]));
        until_true("it has it", DEADLINE, || !receiver.state().is_empty());
        source.kill(run);
        proxy.set(Fault::Pass);
        let run = source.deliver(sink(&proxy.url(), dir.path(), &["key"]));
        source.delivered(&run);
        assert_eq!(run.control.health().numbers().dead_letters, 0);
        source.stop(run);
        let counts = counts(&source, &receiver.state());
        assert_eq!(counts.len() as u64, source.log.size());
        assert!(counts.values().all(|times| *times == 1), "{counts:?}");
    }
}

/// 409 says that the receiver has it only of what it may have had.
#[test]
fn what_a_receiver_never_had_and_calls_a_conflict_is_a_dead_letter() {
    let dir = tempfile::tempdir().unwrap();
    Secrets::new(dir.path()).put("key", &make().unwrap()).unwrap();
    let (receiver, source) = (receiver(), Source::new());
    let run = source.deliver(sink(&receiver.url(), dir.path(), &["key"]));
    source.delivered(&run);
    receiver.state().planned.push_back(Answer::new(409, "a conflict"));
    source.grow(1);
    until_true("it is refused", DEADLINE, || run.control.health().numbers().dead_letters == 1);
    source.delivered(&run);
    // Refused once is no reason to believe the second time that it has it.
    receiver.state().planned.push_back(Answer::new(409, "a conflict"));
    assert_eq!(source.runtime.block_on(run.control.redrive()), Ok(1));
    assert_eq!(source.runtime.block_on(run.control.redrive()), Ok(0));
    source.stop(run);
    let counts = counts(&source, &receiver.state().taken);
    assert_eq!(counts.len() as u64, source.log.size());
}

#[test]
fn a_receiver_that_is_gone_or_elsewhere_gets_nothing_until_somebody_looks() {
    let dir = tempfile::tempdir().unwrap();
    Secrets::new(dir.path()).put("key", &make().unwrap()).unwrap();
    let elsewhere = receiver();
    let (receiver, source) = (receiver(), Source::new());
    source.grow(10);
    receiver
        .state()
        .planned
        .extend([Answer::new(302, "").with("location", &elsewhere.url()), Answer::new(410, "no more")]);
    let run = source.deliver(sink(&receiver.url(), dir.path(), &["key"]));
    let trouble = || run.control.health().numbers().trouble.unwrap_or_default();
    let mut said = vec![];
    until_true("both are told", DEADLINE, || {
        let now = trouble();
        if !now.is_empty() && said.last() != Some(&now) {
            said.push(now);
        }
        receiver.state().asked > 2
    });
    source.delivered(&run);
    source.stop(run);
    assert_eq!(elsewhere.state().asked, 0, "nobody else was asked");
    assert!(said.iter().any(|said| said.contains("wants no more") || said.contains("elsewhere")), "{said:?}");
}

#[test]
fn a_daemon_makes_a_key_and_prints_what_receivers_check_with() {
    let receiver = receiver();
    let mut world = World::start();
    let key = |more: &[&str]| {
        let mut command = Command::new(custody_tests::program("custodyd"));
        command.args(["webhook-key", "siem-hook", "--config"]).arg(world.custodyd.config()).args(more);
        custody_tests::process::run(&mut command, b"", DEADLINE)
    };
    let none = key(&[]);
    assert!(none.code != 0 && none.err.contains("custodyd secret put siem-hook"), "{}", none.err);
    let public = key(&["--make"]).ok().text();
    assert_eq!(key(&[]).ok().text(), public);
    assert!(public.starts_with("whpk_"), "{public}");
    world.custodyd.stop();
    world.custodyd.configure(&format!(
        "[[sink]]\nname = \"hook\"\n[sink.webhook]\nsign_with = [\"siem-hook\"]\nendpoint = {{ url = \"{}\" }}\n",
        receiver.url()
    ));
    world.custodyd.start();
    world.ssh(&[], "echo hooked", b"").ok();
    until_true("the command is there", DEADLINE, || {
        let taken = &receiver.state().taken;
        taken.iter().any(|asked| String::from_utf8_lossy(&asked.body).contains("echo hooked"))
    });
    let first = receiver.state().taken[0].clone();
    assert_eq!(fit(&first, &[public.trim()]), [true]);
    assert!(!world.custodyd.output().contains("whsk_"));
}
