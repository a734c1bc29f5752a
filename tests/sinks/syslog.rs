//! Syslog into a real rsyslog: what it has afterwards is what it wrote, as it understood it.

use crate::campaign::{LONG, ORIGIN, Source};
use custody_core::event::hex::to_hex;
use custody_core::log::tree::leaf_hash;
use custody_sinks::format::Format;
use custody_sinks::secret::Secrets;
use custody_sinks::syslog::{Settings, Syslog, TlsSettings, Transport};
use custody_tests::servers::Rsyslog;
use custody_tests::servers::flaky::{Fault, Flaky};
use custody_tests::servers::tls::Identity;
use custody_tests::wait::{DEADLINE, until_true};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Everything that rsyslog understood of a message, a JSON object a line.
const UNDERSTOOD: &str = r#"template(name="understood" type="list" option.jsonf="on") {
    property(outname="pri" name="pri" format="jsonf") property(outname="version" name="protocol-version" format="jsonf")
    property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
    property(outname="host" name="hostname" format="jsonf") property(outname="app" name="app-name" format="jsonf")
    property(outname="id" name="msgid" format="jsonf") property(outname="data" name="structured-data" format="jsonf")
    property(outname="text" name="msg" format="jsonf") }"#;

/// What it has read is in its file before it reads on: so what is lost when it is killed is what it hasn't read.
const AT_ONCE: &str = r#"main_queue(queue.type="Direct")"#;

/// A receiver that also writes what it understood.
struct Receiver {
    rsyslog: Rsyslog,
    understood: PathBuf,
}

impl Receiver {
    fn start(dir: &Path, make: impl FnOnce(&[&str]) -> Rsyslog) -> Self {
        let understood = dir.join("understood");
        let action =
            format!("action(type=\"omfile\" file=\"{}\" template=\"understood\")", understood.display());
        let mut rsyslog = make(&[AT_ONCE, UNDERSTOOD, &action]);
        rsyslog.start();
        Self { rsyslog, understood }
    }

    /// Whole lines only: it may be in the middle of one, and one may have been cut short by its end.
    fn understood(&self) -> Vec<Value> {
        let text = String::from_utf8_lossy(&std::fs::read(&self.understood).unwrap_or_default()).into_owned();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let begins = |line: &str| line.rfind("{\"pri\":").unwrap_or(0);
        whole.lines().filter_map(|line| serde_json::from_str(&line[begins(line)..]).ok()).collect()
    }

    /// In the order in which they came.
    fn indexes(&self) -> Vec<u64> {
        let index = |message: &Value| parameters(message["data"].as_str().unwrap())["index"].parse().unwrap();
        self.understood().iter().map(index).collect()
    }

    /// How often it has each index.
    fn counts(&self) -> BTreeMap<u64, u64> {
        let mut counts = BTreeMap::new();
        for index in self.indexes() {
            *counts.entry(index).or_default() += 1;
        }
        counts
    }

    /// Gives how many came more than once.
    fn has_all(&self, source: &Source) -> u64 {
        let counts = self.counts();
        let missing: Vec<u64> = (0..source.log.size()).filter(|index| !counts.contains_key(index)).collect();
        assert!(missing.is_empty(), "{} of {} are lost: {missing:?}", missing.len(), source.log.size());
        assert_eq!(counts.len() as u64, source.log.size());
        let more: u64 = counts.values().map(|times| times - 1).sum();
        println!("{} events, and {more} of them once more", source.log.size());
        more
    }
}

/// `[custody@32473 index="1" …]` without escapes in it.
fn parameters(data: &str) -> BTreeMap<&str, &str> {
    let inner = data.strip_prefix("[custody@32473 ").unwrap().strip_suffix(']').unwrap();
    inner
        .split(' ')
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(key, value)| (key, value.trim_matches('"')))
        .collect()
}

fn settings(port: u16) -> Settings {
    Settings {
        server: format!("localhost:{port}"),
        transport: Transport::Tls,
        tls: TlsSettings::default(),
        format: Format::Custody,
        facility: 13,
        enterprise: 32_473,
        hostname: None,
        message_bytes_max: 8_192,
    }
}

fn sink(settings: Settings, secrets: &Path) -> Syslog {
    settings.check().unwrap();
    Syslog::new(settings, Secrets::new(secrets), ORIGIN)
}

/// To that port, with the authority of `dir`.
fn over_tls(port: u16, dir: &Path) -> Syslog {
    let tls = TlsSettings { ca: Some(dir.join("ca.pem")), ..TlsSettings::default() };
    sink(Settings { tls, ..settings(port) }, dir)
}

/// The receiver is killed, connections end in the middle, and so does the delivery.
#[test]
fn nothing_is_lost_whatever_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::new();
    let mut receiver = Receiver::start(dir.path(), |lines| Rsyslog::tls(dir.path(), &identity, lines));
    let proxy = Flaky::tcp(receiver.rsyslog.service.port());
    let source = Source::new();
    // So that there is always a connection open to be hit.
    proxy.set(Fault::Delay(Duration::from_millis(30)));
    for round in 0..9 {
        let run = source.deliver(over_tls(proxy.port, dir.path()));
        let numbers = || run.control.health().numbers();
        std::thread::scope(|scope| {
            let growing = scope.spawn(|| (0..10).for_each(|_| source.grow(150)));
            until_true("some are there", DEADLINE, || numbers().confirmed > 0);
            match round % 3 {
                // After handshake and tickets the receiver says only that it has ended in order.
                0 => (0..4).for_each(|_| {
                    proxy.next(2, Fault::Delay(Duration::from_millis(5)));
                    proxy.next(1, Fault::Swallow);
                }),
                1 => proxy.end_connections(),
                _ => receiver.rsyslog.service.kill_now(),
            }
            growing.join().unwrap();
            if round % 3 == 2 {
                source.grow(1);
                // It stays away until somebody has noticed.
                until_true("the outage shows", DEADLINE, || numbers().trouble.is_some());
                receiver.rsyslog.start();
            }
        });
        source.kill(run);
    }
    proxy.set(Fault::Pass);
    let run = source.deliver(over_tls(proxy.port, dir.path()));
    source.delivered(&run);
    let report = source.prove(&run);
    assert!(!report.is_proven() && report.unproven[0].reason.contains("syslog"), "{report:?}");
    source.stop(run);
    assert!(receiver.has_all(&source) > 0, "what was unclear came again: {:?}", proxy.counts());
}

/// Over two connections at once it now and then writes lines of one in the place of the other's, and ends both in order.
#[test]
fn a_backlog_arrives_once_and_in_order_as_fast_as_it_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::new();
    let receiver = Receiver::start(dir.path(), |lines| Rsyslog::tls(dir.path(), &identity, lines));
    let source = Source::new();
    source.grow(60_000);
    let run = source.deliver(over_tls(receiver.rsyslog.service.port(), dir.path()));
    source.delivered(&run);
    source.stop(run);
    assert_eq!(receiver.has_all(&source), 0);
    assert!(receiver.indexes().is_sorted());
}

/// The same of what is sent once more beside what is new, to a receiver that has just started.
#[test]
fn a_replay_beside_what_is_new_arrives_whole() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::new();
    let mut receiver = Receiver::start(dir.path(), |lines| Rsyslog::tls(dir.path(), &identity, lines));
    let source = Source::new();
    source.grow(20_000);
    let run = source.deliver(over_tls(receiver.rsyslog.service.port(), dir.path()));
    source.delivered(&run);
    let first = source.log.size();
    let replays = 3;
    for _ in 0..replays {
        // So that both begin at once.
        run.control.pause(true);
        receiver.rsyslog.service.stop();
        receiver.rsyslog.start();
        source.runtime.block_on(run.control.replay(0..first)).unwrap();
        source.grow(20_000);
        run.control.pause(false);
        source.delivered(&run);
        until_true("all of it came again", DEADLINE, || {
            source.runtime.block_on(run.control.replaying()).unwrap().is_none()
        });
    }
    source.stop(run);
    assert_eq!(receiver.has_all(&source), replays * first);
    assert!(
        receiver.counts().iter().all(|(index, times)| *times == if *index < first { 1 + replays } else { 1 })
    );
}

#[test]
fn rsyslog_understands_each_part_of_a_message() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(dir.path(), |lines| Rsyslog::tcp(dir.path(), lines));
    let source = Source::new();
    source.grow(300);
    let mut settings = settings(receiver.rsyslog.service.port());
    (settings.transport, settings.message_bytes_max) = (Transport::Tcp, 1_024);
    let run = source.deliver(sink(settings, dir.path()));
    source.delivered(&run);
    source.stop(run);
    receiver.has_all(&source);
    let (mut cut, mut whole) = (0, 0);
    for message in receiver.understood() {
        let data = parameters(message["data"].as_str().unwrap());
        let entry = source.log.read(data["index"].parse().unwrap(), 1, 0).unwrap().remove(0);
        let event: Value = serde_json::from_slice(&entry.bytes).unwrap();
        assert_eq!(data["origin"], ORIGIN);
        assert_eq!(data["leaf"], to_hex(&leaf_hash(&entry.bytes).0));
        assert_eq!(data["appended"], entry.appended.to_string());
        let micros = format!("{}Z", &entry.appended.to_string()[..26]);
        assert_eq!(message["time"], micros);
        assert_eq!((&message["version"], &message["app"]), (&"1".into(), &"custody".into()));
        assert_eq!((&message["host"], &message["id"]), (&"custody.test".into(), &event["type"]));
        let severity = message["pri"].as_str().unwrap().parse::<u32>().unwrap() - 13 * 8;
        assert_eq!(severity < 6, event["type"] == "login.failed", "{message}");
        let text = message["text"].as_str().unwrap();
        match data.get("length") {
            None => {
                whole += 1;
                assert_eq!(text.as_bytes(), &*entry.bytes);
            }
            Some(length) => {
                cut += 1;
                assert_eq!(length.parse(), Ok(entry.bytes.len()));
                assert!(entry.bytes.starts_with(text.as_bytes()) && entry.bytes.len() > LONG);
            }
        }
    }
    assert!(cut >= 3 && whole > 100, "{cut} cut, {whole} whole");
}

#[test]
fn a_receiver_with_a_wrong_certificate_gets_nothing_until_the_right_authority_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::new();
    let receiver = Receiver::start(dir.path(), |lines| Rsyslog::tls(dir.path(), &identity, lines));
    std::fs::write(dir.path().join("ca.pem"), &Identity::new().ca).unwrap();
    let source = Source::new();
    source.grow(100);
    let run = source.deliver(over_tls(receiver.rsyslog.service.port(), dir.path()));
    let trouble = || run.control.health().numbers().trouble.unwrap_or_default();
    until_true("it is refused", DEADLINE, || trouble().contains("certificate isn't accepted"));
    assert_eq!(receiver.understood().len(), 0);
    std::fs::write(dir.path().join("ca.pem"), &identity.ca).unwrap();
    source.delivered(&run);
    receiver.has_all(&source);
    source.stop(run);
    // The right authority, and another name.
    source.grow(10);
    let tls = TlsSettings {
        ca: Some(dir.path().join("ca.pem")),
        server_name: Some("siem.example".to_owned()),
        ..TlsSettings::default()
    };
    let run = source.deliver(sink(Settings { tls, ..settings(receiver.rsyslog.service.port()) }, dir.path()));
    let trouble = || run.control.health().numbers().trouble.unwrap_or_default();
    until_true("it is refused", DEADLINE, || trouble().contains("certificate isn't accepted"));
    source.kill(run);
}

#[test]
fn a_receiver_that_wants_a_client_certificate_gets_one() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::new();
    let receiver = Receiver::start(dir.path(), |lines| Rsyslog::tls_for_known(dir.path(), &identity, lines));
    let port = receiver.rsyslog.service.port();
    let source = Source::new();
    source.grow(50);
    let run = source.deliver(over_tls(port, dir.path()));
    until_true("it isn't let in", DEADLINE, || run.control.health().numbers().trouble.is_some());
    assert_eq!(run.control.health().numbers().confirmed, 0);
    assert_eq!(receiver.understood().len(), 0);
    source.kill(run);
    let certificate = dir.path().join("client.pem");
    std::fs::write(&certificate, &identity.client_certificate).unwrap();
    let tls = TlsSettings {
        ca: Some(dir.path().join("ca.pem")),
        certificate: Some(certificate),
        key: Some("syslog-key".to_owned()),
        ..TlsSettings::default()
    };
    let run = source.deliver(sink(Settings { tls, ..settings(port) }, &dir.path().join("secrets")));
    let trouble = || run.control.health().numbers().trouble.unwrap_or_default();
    until_true("the key is missed", DEADLINE, || trouble().contains("custodyd secret put syslog-key"));
    Secrets::new(&dir.path().join("secrets")).put("syslog-key", &identity.client_key).unwrap();
    source.delivered(&run);
    receiver.has_all(&source);
    source.stop(run);
}

/// A receiver that is there and does nothing: paused, with whatever TCP takes for it in between.
#[test]
fn what_a_half_open_connection_took_is_not_confirmed() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(dir.path(), |lines| Rsyslog::tcp(dir.path(), lines));
    let source = Source::new();
    source.grow(20);
    let mut settings = settings(receiver.rsyslog.service.port());
    settings.transport = Transport::Tcp;
    receiver.rsyslog.service.pause();
    let run = source.deliver(sink(settings, dir.path()));
    // Its kernel takes the connection and all that is sent; nobody reads it.
    until_true("no answer came", DEADLINE * 2, || {
        let trouble = run.control.health().numbers().trouble.unwrap_or_default();
        trouble.contains("no answer came in time")
    });
    assert_eq!(run.control.health().numbers().confirmed, 0);
    receiver.rsyslog.service.resume();
    source.delivered(&run);
    receiver.has_all(&source);
    source.stop(run);
}
