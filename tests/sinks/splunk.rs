//! Splunk's collector and its search, played by a script after Splunk's documentation: there is no Splunk here.

use crate::campaign::{ORIGIN, Source};
use custody_sinks::format::Format;
use custody_sinks::hec::{Hec, Settings};
use custody_sinks::http::{Auth, Endpoint};
use custody_sinks::secret::Secrets;
use custody_tests::servers::flaky::{Fault, Flaky};
use custody_tests::servers::scripted::{Answer, Asked, Scripted};
use custody_tests::wait::{DEADLINE, until, until_true};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

/// Where the number of an acknowledgement counts: in one collector, in one channel.
type Place = (u64, String);

/// Collectors behind a balancer with one token, and what is indexed.
#[derive(Default)]
struct Splunk {
    /// Whether the token has acknowledgement.
    acknowledges: bool,
    /// How many more collectors than one there are: each request comes to the next one.
    others: u64,
    /// The balancer has who came to one of them come back to it, by a cookie.
    sticks: bool,
    requests: u64,
    /// The first collector loses what it takes.
    loses: bool,
    /// What the first collector says to whatever comes to it, instead of taking it.
    refuses: Option<Answer>,
    /// Taken, by place and number, and not indexed yet.
    pending: BTreeMap<(Place, u64), Vec<Value>>,
    /// The next number: from zero in each place.
    next: BTreeMap<Place, u64>,
    indexed: Vec<Value>,
    /// When, by the index in the log.
    when: BTreeMap<u64, Instant>,
    /// How long a search doesn't show what is indexed.
    hides: Duration,
    /// How often an acknowledgement says no before it says yes.
    patience: u64,
    asked: BTreeMap<(Place, u64), u64>,
    /// What comes instead of taking the next requests.
    planned: VecDeque<Answer>,
    /// What comes instead of an answer to the next questions for an acknowledgement.
    unsaid: VecDeque<Answer>,
    /// An event with this index is invalid.
    invalid: Option<u64>,
    /// Warnings of the search.
    warns: bool,
}

fn said(status: u16, code: u64, text: &str) -> Answer {
    Answer::new(status, json!({ "text": text, "code": code }).to_string())
}

impl Splunk {
    fn answer(&mut self, asked: &Asked) -> Answer {
        self.requests += 1;
        let answer = self.answer_here(asked);
        if self.sticks {
            answer.with("set-cookie", &format!("collector={}; Path=/; HttpOnly", self.collector(asked)))
        } else {
            answer
        }
    }

    /// To which collector a request comes.
    fn collector(&self, asked: &Asked) -> u64 {
        let cookie = asked.header("cookie").filter(|_| self.sticks);
        let sticks_to = cookie.and_then(|cookie| cookie.strip_prefix("collector=")?.parse().ok());
        sticks_to.unwrap_or(self.requests % (1 + self.others))
    }

    fn answer_here(&mut self, asked: &Asked) -> Answer {
        if let Some(refusal) = self.refuses.clone().filter(|_| self.collector(asked) == 0) {
            return refusal;
        }
        match asked.path.split('?').next().unwrap() {
            "/services/collector/event" => self.collect(asked),
            "/services/collector/ack" => self.acknowledge(asked),
            "/services/search/v2/jobs/export" => self.search(asked),
            _ => said(404, 404, "not found"),
        }
    }

    fn collect(&mut self, asked: &Asked) -> Answer {
        if asked.header("authorization") != Some("Splunk t0ken") {
            return said(403, 4, "Invalid token");
        }
        let Some(channel) = asked.header("x-splunk-request-channel") else {
            return said(400, 10, "Data channel is missing");
        };
        if let Some(answer) = self.planned.pop_front() {
            return answer;
        }
        let events: Vec<Value> =
            serde_json::Deserializer::from_slice(&asked.body).into_iter().map(Result::unwrap).collect();
        if let Some(at) = self.invalid.and_then(|wrong| events.iter().position(|event| index(event) == wrong))
        {
            // What stands before it is taken.
            self.index(events.get(..at).unwrap().to_vec());
            let body = json!({ "text": "Invalid data format", "code": 6, "invalid-event-number": at });
            return Answer::new(400, body.to_string());
        }
        if !self.acknowledges {
            self.index(events);
            return said(200, 0, "Success");
        }
        let place = (self.collector(asked), channel.to_owned());
        let next = self.next.entry(place.clone()).or_default();
        let id = *next;
        *next += 1;
        if place.0 > 0 || !self.loses {
            self.pending.insert((place, id), events);
        }
        Answer::new(200, json!({ "text": "Success", "code": 0, "ackId": id }).to_string())
    }

    fn index(&mut self, events: Vec<Value>) {
        self.when.extend(events.iter().map(|event| (index(event), Instant::now())));
        self.indexed.extend(events);
    }

    fn acknowledge(&mut self, asked: &Asked) -> Answer {
        if asked.header("authorization") != Some("Splunk t0ken") {
            return said(403, 4, "Invalid token");
        }
        if !self.acknowledges {
            return said(400, 14, "ACK is disabled");
        }
        let channel = asked.path.split_once("channel=").unwrap().1.to_owned();
        let question: Value = serde_json::from_slice(&asked.body).unwrap();
        let ids = question["acks"].as_array().unwrap();
        // One for nothing only asks whether the token has acknowledgement.
        if !ids.is_empty()
            && let Some(answer) = self.unsaid.pop_front()
        {
            return answer;
        }
        let mut acks = serde_json::Map::new();
        for id in ids {
            let place = (self.collector(asked), channel.clone());
            let key = (place, id.as_u64().unwrap());
            let times = self.asked.entry(key.clone()).or_default();
            *times += 1;
            let events = if *times > self.patience { self.pending.remove(&key) } else { None };
            acks.insert(id.to_string(), events.is_some().into());
            self.index(events.unwrap_or_default());
        }
        Answer::new(200, json!({ "acks": acks }).to_string())
    }

    fn search(&mut self, asked: &Asked) -> Answer {
        if asked.header("authorization") != Some("Bearer se4rch") {
            return Answer::new(401, "");
        }
        let form: BTreeMap<String, String> =
            reqwest::Url::parse(&format!("http://x/?{}", str::from_utf8(&asked.body).unwrap()))
                .unwrap()
                .query_pairs()
                .into_owned()
                .collect();
        assert!(form["search"].contains("index=\"audit\"") && form["output_mode"] == "json");
        let bound = |name: &str| form[name].parse::<f64>().unwrap();
        let mut lines = String::new();
        if self.warns {
            lines.push_str(
                "{\"preview\":false,\"messages\":[{\"type\":\"WARN\",\"text\":\"a peer is down\"}]}\n",
            );
        }
        let hidden = |event: &Value| {
            let index = event["fields"]["log_index"].as_str().and_then(|index| index.parse::<u64>().ok());
            let when = index.and_then(|index| self.when.get(&index));
            when.is_some_and(|when| when.elapsed() < self.hides)
        };
        for event in self.indexed.iter().filter(|event| !hidden(event)) {
            let time = event["time"].as_f64().unwrap();
            if time < bound("earliest_time") || time >= bound("latest_time") {
                continue;
            }
            let mut result = event["fields"].as_object().cloned().unwrap_or_default();
            // To the microsecond.
            result.insert("_time".to_owned(), format!("{:.6}", time).into());
            result.insert("_raw".to_owned(), event["event"].clone());
            lines.push_str(&format!("{}\n", json!({ "preview": false, "offset": 0, "result": result })));
        }
        lines.push_str("{\"preview\":false,\"lastrow\":true}\n");
        Answer::new(200, lines)
    }
}

fn index(event: &Value) -> u64 {
    event["fields"]["log_index"].as_str().unwrap().parse().unwrap()
}

fn splunk(acknowledges: bool) -> Scripted<Splunk> {
    let state = Splunk { acknowledges, patience: 2, ..Splunk::default() };
    Scripted::start(state, |splunk, asked| splunk.answer(asked))
}

fn settings(url: &str) -> Settings {
    let auth = Some(Auth::Splunk { secret: "token".to_owned() });
    Settings {
        endpoint: Endpoint { url: url.to_owned(), ca: None, auth },
        acknowledged: true,
        acknowledge_seconds: 5,
        index: Some("audit".to_owned()),
        source: "custody".to_owned(),
        sourcetype: "custody:event".to_owned(),
        host: None,
        format: Format::Custody,
        search: None,
        shown_seconds: 2,
    }
}

fn searched(url: &str, management: &str) -> Settings {
    let auth = Some(Auth::Bearer { secret: "search".to_owned() });
    let search = Some(Endpoint { url: management.to_owned(), ca: None, auth });
    Settings { search, ..settings(url) }
}

fn sink(settings: Settings, dir: &Path) -> Hec {
    settings.check().unwrap();
    let secrets = Secrets::new(dir);
    secrets.put("token", "t0ken").unwrap();
    secrets.put("search", "se4rch").unwrap();
    Hec::new(settings, secrets, ORIGIN)
}

/// Everything that is indexed is the log's; how often each.
fn counts(source: &Source, splunk: &Splunk) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for event in &splunk.indexed {
        let entry = source.log.read(index(event), 1, 0).unwrap().remove(0);
        assert_eq!(event["event"].as_str().unwrap().as_bytes(), &*entry.bytes);
        assert_eq!(event["fields"]["log_appended"], entry.appended.to_string());
        assert_eq!((&event["index"], &event["host"]), (&"audit".into(), &ORIGIN.into()));
        *counts.entry(index(event)).or_default() += 1;
    }
    counts
}

#[test]
fn what_no_indexer_has_acknowledged_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let (splunk, source) = (splunk(true), Source::new());
    let proxy = Flaky::http(splunk.port);
    source.grow(3_000);
    splunk.state().planned.extend([said(503, 9, "Server is busy"), said(500, 8, "Internal server error")]);
    proxy.next(1, Fault::Swallow);
    let run = source.deliver(sink(settings(&proxy.url()), dir.path()));
    // It stops with events in its memory that it has answered for.
    until_true("some are pending", DEADLINE, || !splunk.state().pending.is_empty());
    splunk.state().pending.clear();
    source.delivered(&run);
    let report = source.prove(&run);
    assert!(report.unproven[0].reason.contains("no search is configured"), "{report:?}");
    source.stop(run);
    let counts = counts(&source, &splunk.state());
    assert_eq!(counts.len() as u64, source.log.size());
}

#[test]
fn another_batchs_acknowledgement_is_not_taken_for_ours_behind_a_balancer() {
    let dir = tempfile::tempdir().unwrap();
    let (splunk, source) = (splunk(true), Source::new());
    source.grow(6_000);
    {
        let mut state = splunk.state();
        state.others = 1;
        // A batch that is alone under way asks its own collector twice in two seconds.
        state.patience = 0;
        state.loses = true;
    }
    let settings = Settings { acknowledge_seconds: 2, ..settings(&splunk.url()) };
    let run = source.deliver(sink(settings, dir.path()));
    until_true("the other collector's are indexed", DEADLINE, || splunk.state().indexed.len() > 1_500);
    splunk.state().loses = false;
    source.delivered(&run);
    source.stop(run);
    let counts = counts(&source, &splunk.state());
    assert_eq!(counts.len() as u64, source.log.size(), "nothing is confirmed that was lost");
}

/// A balancer with cookies leads who asks back to the collector that knows of it.
#[test]
fn acknowledgements_are_asked_for_where_the_balancer_leads_back_to() {
    let dir = tempfile::tempdir().unwrap();
    let (splunk, source) = (splunk(true), Source::new());
    source.grow(3_000);
    {
        let mut state = splunk.state();
        (state.others, state.sticks) = (1, true);
    }
    // A late acknowledgement is no lost one.
    let settings = Settings { acknowledge_seconds: 60, ..settings(&splunk.url()) };
    let run = source.deliver(sink(settings, dir.path()));
    source.delivered(&run);
    source.stop(run);
    let counts = counts(&source, &splunk.state());
    assert!(counts.values().all(|times| *times == 1), "{counts:?}");
    let taken: u64 = splunk.state().next.values().sum();
    assert_eq!(taken, splunk.state().asked.keys().count() as u64, "each was asked for, and known");
}

/// Such a balancer leads whoever was refused back to the collector that refuses.
#[test]
fn what_one_collector_refuses_another_one_takes() {
    let refusals = [
        said(503, 9, "Server is busy"),
        said(403, 4, "Invalid token"),
        Answer::new(431, "Request Header Fields Too Large"),
    ];
    for refusal in refusals {
        let dir = tempfile::tempdir().unwrap();
        let (splunk, source) = (splunk(true), Source::new());
        source.grow(3_000);
        {
            let mut state = splunk.state();
            (state.others, state.sticks, state.refuses) = (1, true, Some(refusal));
            // What comes first comes to it.
            state.requests = 1;
        }
        // A late acknowledgement is no lost one.
        let settings = Settings { acknowledge_seconds: 60, ..settings(&splunk.url()) };
        let run = source.deliver(sink(settings, dir.path()));
        source.delivered(&run);
        source.stop(run);
        let state = splunk.state();
        assert!(state.next.keys().all(|(collector, _)| *collector == 1), "{:?}", state.next);
        let counts = counts(&source, &state);
        assert!(
            counts.len() as u64 == source.log.size() && counts.values().all(|times| *times == 1),
            "{counts:?}"
        );
    }
}

#[test]
fn what_was_taken_before_an_invalid_event_is_waited_for_until_a_search_would_show_it() {
    let dir = tempfile::tempdir().unwrap();
    let (splunk, source) = (splunk(true), Source::new());
    let begun = Instant::now();
    let url = splunk.url();
    let shown = Duration::from_secs(1);
    let settings = Settings { shown_seconds: shown.as_secs(), ..searched(&url, &url) };
    let run = source.deliver(sink(settings, dir.path()));
    source.delivered(&run);
    // A sink that has just begun waits in any case.
    until_true("it has begun long ago", DEADLINE, || begun.elapsed() > shown);
    {
        let mut state = splunk.state();
        state.hides = shown / 2;
        state.invalid = Some(source.log.size() + 20);
    }
    source.grow(40);
    source.delivered(&run);
    source.stop(run);
    let counts = counts(&source, &splunk.state());
    assert!(counts.values().all(|times| *times == 1), "{counts:?}");
    assert!(counts.len() as u64 >= source.log.size() - 2, "{counts:?}");
}

/// A comparison reaches what was acknowledged last, which a search shows later.
#[test]
fn what_is_acknowledged_and_not_shown_yet_is_neither_missing_nor_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let (splunk, source) = (splunk(true), Source::new());
    let (url, shown) = (splunk.url(), Duration::from_secs(1));
    splunk.state().hides = shown * 3 / 4;
    let settings = Settings { shown_seconds: shown.as_secs(), ..searched(&url, &url) };
    let run = source.deliver(sink(settings, dir.path()));
    let begun = Instant::now();
    source.delivered(&run);
    // Before that everything counts as what may not be shown yet.
    until_true("it has begun long ago", DEADLINE, || begun.elapsed() > shown);
    // On a slow machine all is shown before it is asked for.
    let report = until("a comparison comes before the search shows it", DEADLINE, || {
        source.grow(40);
        source.delivered(&run);
        let report = source.prove(&run);
        assert!(report.missing.count == 0 && report.to_repair.is_empty(), "{report:?}");
        (!report.is_proven()).then_some(report)
    });
    assert!(report.unproven[0].reason.contains("may not show yet"), "{report:?}");
    // A repair goes over all that lies between two events that are missing.
    let size = source.log.size();
    source.runtime.block_on(run.control.replay(0..size)).unwrap();
    until_true("it is repaired", DEADLINE, || run.control.health().numbers().replays == 1);
    let report = source.prove(&run);
    assert!(report.is_proven() && report.proven == size, "{report:?}");
    let counts = counts(&source, &splunk.state());
    assert!(counts.len() as u64 == size && counts.values().all(|times| *times == 1), "{counts:?}");
    // What is gone is missing as soon as a search would have shown it.
    splunk.state().indexed.retain(|event| index(event) != 0);
    let report = until("it is missed", DEADLINE, || {
        let report = source.prove(&run);
        (report.missing.count > 0).then_some(report)
    });
    assert!(report.missing.count == 1 && report.missing.first[0].index == Some(0), "{report:?}");
    source.stop(run);
}

#[test]
fn a_batch_is_not_sent_again_because_a_question_for_its_acknowledgement_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (splunk, source) = (splunk(true), Source::new());
    source.grow(100);
    splunk.state().unsaid.extend([
        Answer::new(502, "<html>"),
        said(429, 26, "Queue is full"),
        said(503, 9, "Server is busy").with("retry-after", "1"),
    ]);
    let begun = Instant::now();
    let settings = Settings { acknowledge_seconds: 60, ..settings(&splunk.url()) };
    let run = source.deliver(sink(settings, dir.path()));
    source.delivered(&run);
    source.stop(run);
    assert!(begun.elapsed() >= Duration::from_secs(1), "as long as it wants it is left alone");
    let state = splunk.state();
    assert!(state.unsaid.is_empty() && state.pending.is_empty(), "each batch that was taken is acknowledged");
    let counts = counts(&source, &state);
    assert!(
        counts.len() as u64 == source.log.size() && counts.values().all(|times| *times == 1),
        "{counts:?}"
    );
}

#[test]
fn with_a_search_nothing_comes_twice_and_all_is_proven() {
    let dir = tempfile::tempdir().unwrap();
    let (splunk, source) = (splunk(true), Source::new());
    let proxy = Flaky::http(splunk.port);
    proxy.only("/services/collector");
    for round in 0..2 {
        source.grow(1_500);
        let run = source.deliver(sink(searched(&proxy.url(), &splunk.url()), dir.path()));
        until_true("some are indexed", DEADLINE * 2, || run.control.health().numbers().confirmed > 0);
        if round == 0 {
            proxy.next(2, Fault::Swallow);
            source.grow(200);
            source.kill(run);
        } else {
            source.delivered(&run);
            // Everything is old enough to be shown, or is there anyway.
            let report = source.prove(&run);
            assert!(report.is_proven() && report.proven == source.log.size(), "{report:?}");
            splunk.state().warns = true;
            let report = source.prove(&run);
            assert!(
                !report.is_proven() && report.unproven[0].reason.contains("a peer is down"),
                "{report:?}"
            );
            splunk.state().warns = false;
            tampered(&source, &splunk, &run);
            source.stop(run);
        }
    }
}

/// Altered, added and taken away.
fn tampered(source: &Source, splunk: &Scripted<Splunk>, run: &crate::campaign::Run<Hec>) {
    {
        let mut state = splunk.state();
        let at = |state: &Splunk, wanted: u64| {
            state.indexed.iter().position(|event| index(event) == wanted).unwrap()
        };
        let altered = at(&state, 40);
        state.indexed[altered]["event"] = "{}".into();
        let gone = at(&state, 50);
        state.indexed.remove(gone);
        let mut added = state.indexed[0].clone();
        added["fields"]["log_index"] = "999999".into();
        state.indexed.push(added);
        let time = state.indexed[0]["time"].clone();
        state.indexed.push(json!({ "time": time, "event": "nobody's", "fields": {} }));
    }
    let report = source.prove(run);
    let named = |findings: &custody_core::delivery::Findings| {
        let mut named: Vec<_> = findings.first.iter().map(|finding| finding.index).collect();
        named.sort_unstable();
        named.dedup();
        named
    };
    assert_eq!(named(&report.altered), [Some(40)], "{report:?}");
    assert_eq!(named(&report.extra), [None, Some(999_999)], "{report:?}");
    let shows = report.unproven.iter().any(|part| (part.from..part.to).contains(&50));
    assert!(named(&report.missing) == [Some(50)] || shows, "{report:?}");
}

#[test]
fn an_event_that_is_invalid_is_a_dead_letter_and_its_neighbours_arrive() {
    for with_search in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (splunk, source) = (splunk(true), Source::new());
        source.grow(50);
        splunk.state().invalid = Some(20);
        let url = splunk.url();
        let settings = if with_search { searched(&url, &url) } else { settings(&url) };
        let run = source.deliver(sink(settings, dir.path()));
        source.delivered(&run);
        let dead = source.runtime.block_on(run.control.dead_letters()).unwrap();
        assert_eq!(dead.iter().map(|letter| letter.index).collect::<Vec<_>>(), [20]);
        assert!(dead[0].reason.contains("code 6: Invalid data format"), "{dead:?}");
        source.stop(run);
        let counts = counts(&source, &splunk.state());
        assert!(!counts.contains_key(&20) && counts.len() as u64 >= 50, "{counts:?}");
    }
}

#[test]
fn a_token_that_is_not_what_was_configured_is_for_a_person_to_mend() {
    let dir = tempfile::tempdir().unwrap();
    let (splunk, source) = (splunk(false), Source::new());
    source.grow(20);
    let run = source.deliver(sink(settings(&splunk.url()), dir.path()));
    let trouble = || run.control.health().numbers().trouble.unwrap_or_default();
    until_true("it has no acknowledgement", DEADLINE, || trouble().contains("acknowledged = false"));
    assert!(splunk.state().indexed.is_empty(), "nothing is sent that would be sent again and again");
    Secrets::new(dir.path()).put("token", "another").unwrap();
    until_true("the token is wrong", DEADLINE, || trouble().contains("code 4: Invalid token"));
    source.kill(run);
    // Without acknowledgement, as somebody has decided.
    let without = Settings { acknowledged: false, ..settings(&splunk.url()) };
    let run = source.deliver(sink(without, dir.path()));
    source.delivered(&run);
    source.stop(run);
    let counts = counts(&source, &splunk.state());
    assert!(
        counts.len() as u64 == source.log.size() && counts.values().all(|times| *times == 1),
        "{counts:?}"
    );
}
