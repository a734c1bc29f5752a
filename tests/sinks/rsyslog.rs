use crate::opensearch::two;
use custody_tests::servers::tls::Identity;
use custody_tests::servers::{Kafka, Rsyslog};
use custody_tests::wait::{DEADLINE, until_true};
use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// RFC 5424 in octet counting (RFC 5425, section 4.3).
fn frame(text: &str) -> String {
    let message = format!("<86>1 2026-01-01T00:00:00Z web-1 custody - - - {text}");
    format!("{} {message}", message.len())
}

#[test]
fn syslog_over_tls_arrives_whole_and_stays_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::new();
    let mut rsyslog = Rsyslog::tls(dir.path(), &identity, &[]);
    rsyslog.start();
    // A client that left at once, TLS tickets unread, would reset the connection, and rsyslog lose what it hadn't read.
    let send = |rsyslog: &Rsyslog, text: &str| {
        let before = rsyslog.received().len();
        let mut command = Command::new("openssl");
        command.args([
            "s_client",
            "-quiet",
            "-no_ign_eof",
            "-verify_return_error",
            "-verify_hostname",
            "localhost",
        ]);
        command.args(["-connect", &rsyslog.service.address(), "-CAfile"]).arg(dir.path().join("ca.pem"));
        let mut client = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        client.stdin.as_mut().unwrap().write_all(frame(text).as_bytes()).unwrap();
        until_true("it has arrived", DEADLINE * 4, || rsyslog.received().len() == before + 1);
        drop(client.stdin.take());
        assert!(client.wait().unwrap().success());
    };
    // An event at its limit, with a line break inside.
    let long = format!("{}\\n{}", "x".repeat(40_000), "y".repeat(25_000));
    send(&rsyslog, "first");
    send(&rsyslog, &long);
    let received = rsyslog.received();
    assert!(received.iter().any(|line| line.ends_with("- first")), "{received:?}");
    assert!(received.iter().any(|line| line.ends_with(&format!("- {long}"))));
    rsyslog.service.kill_now();
    rsyslog.start();
    send(&rsyslog, "after");
    assert_eq!(rsyslog.received()[..2], received);
}

#[test]
fn rsyslog_takes_plain_tcp_and_further_actions() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    let action = format!("action(type=\"omfile\" file=\"{}\" template=\"raw\")", copy.display());
    let mut rsyslog = Rsyslog::tcp(dir.path(), &[&action]);
    rsyslog.start();
    let mut stream = TcpStream::connect(rsyslog.service.address()).unwrap();
    stream.write_all(frame("one").as_bytes()).unwrap();
    stream.write_all(frame("two").as_bytes()).unwrap();
    until_true("both have arrived", DEADLINE * 4, || rsyslog.received().len() == 2);
    until_true("and their copies", DEADLINE, || {
        std::fs::read_to_string(&copy).is_ok_and(|text| text.contains("one") && text.contains("two"))
    });
}

/// The shipper that users have today; the benchmarks stand beside it.
#[test]
fn rsyslog_ships_to_opensearch_and_kafka() {
    let dir = tempfile::tempdir().unwrap();
    let node = two();
    let mut kafka = Kafka::prepare(&dir.path().join("kafka"), 1, &[]);
    kafka.start();
    let document = "template(name=\"document\" type=\"list\" option.jsonf=\"on\") {\
                    property(outname=\"message\" name=\"msg\" format=\"jsonf\") }";
    // An empty type: OpenSearch has none any more.
    let to_opensearch = format!(
        "module(load=\"omelasticsearch\")\naction(type=\"omelasticsearch\" server=\"127.0.0.1\" serverport=\"{}\" \
         searchIndex=\"shipped\" searchType=\"\" bulkmode=\"on\" template=\"document\")",
        node.service.port()
    );
    let to_kafka = format!(
        "module(load=\"omkafka\")\n\
         action(type=\"omkafka\" broker=[\"{}\"] topic=\"shipped\" template=\"raw\")",
        kafka.bootstrap()
    );
    let mut rsyslog = Rsyslog::tcp(&dir.path().join("rsyslog"), &[document, &to_opensearch, &to_kafka]);
    rsyslog.start();
    let mut stream = TcpStream::connect(rsyslog.service.address()).unwrap();
    for number in 0..100 {
        stream.write_all(frame(&format!("event {number}")).as_bytes()).unwrap();
    }
    let there = || node.ask("HEAD", "shipped", "").is_ok_and(|answer| answer.status == 200);
    until_true("OpenSearch has all", DEADLINE * 2, || there() && node.count("shipped") == 100);
    // A topic that was just made may have no leader yet, and reading it fails.
    until_true("Kafka has all", DEADLINE * 2, || {
        let said = kafka.kcat(&["-C", "-e", "-q", "-o", "beginning", "-t", "shipped"], b"", DEADLINE);
        said.code == 0 && said.text().lines().count() == 100
    });
}
