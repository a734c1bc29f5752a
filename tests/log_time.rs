//! What others say of the log's time, what the log says of the machine's clock, and the state of any moment.

use custody_tests::clock::SetClock;
use custody_tests::process::{Running, free_port, run};
use custody_tests::servers::world::ADMIN_PASSWORD;
use custody_tests::servers::{World, python};
use custody_tests::wait;
use std::path::Path;
use std::process::Command;

/// A key and a certificate that may stamp, and OpenSSL's configuration for it.
fn authority(folder: &Path, port: u16) -> Running {
    std::fs::create_dir_all(folder).unwrap();
    let config = "[req]\ndistinguished_name = dn\nx509_extensions = v3\nprompt = no\n[dn]\nCN = Test TSA\n\
        [v3]\nbasicConstraints = critical,CA:true\nextendedKeyUsage = critical,timeStamping\n\
        [tsa]\ndefault_tsa = one\n[one]\nserial = serial\ncrypto_device = builtin\nsigner_cert = ca.pem\n\
        signer_key = key.pem\nsigner_digest = sha256\ndefault_policy = 1.2.3.4.1\ndigests = sha256\n\
        accuracy = secs:1\nclock_precision_digits = 3\nordering = yes\ntsa_name = yes\ness_cert_id_chain = no\n\
        ess_cert_id_alg = sha256\n";
    std::fs::write(folder.join("tsa.cnf"), config).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.current_dir(folder).args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ]);
    openssl.args(["-nodes", "-days", "2", "-keyout", "key.pem", "-out", "ca.pem", "-config", "tsa.cnf"]);
    run(&mut openssl, b"", wait::DEADLINE).ok();
    let mut server = python::script("tsa.py", &[&port.to_string(), folder.to_str().unwrap()]);
    let mut running = Running::start("the time-stamping authority", &mut server);
    running.wait_for_listener(port);
    running
}

#[test]
fn checkpoints_are_stamped_and_openssl_verifies_the_stamps() {
    let mut world = World::start();
    let (port, tsa) = (free_port(), world.dir().join("tsa"));
    let _authority = authority(&tsa, port);
    world.custodyd.stop();
    world
        .custodyd
        .configure(&format!("[timestamping]\nurl = \"http://127.0.0.1:{port}/\"\nevery_seconds = 1\n"));
    world.custodyd.start();
    world.event("type=log.timestamped", "a stamp", |_| true);
    let folder = world.dir().join("stamps");
    let said = world.admin.custody(&["log", "stamps", "-o", folder.to_str().unwrap()]);
    assert!(said.text().contains(&format!("http://127.0.0.1:{port}/")), "{}", said.text());
    let stamp = std::fs::read_dir(&folder).unwrap().flatten().map(|f| f.path());
    let stamp = stamp.into_iter().find(|path| path.extension().is_some_and(|e| e == "tsr")).unwrap();
    let verify = |data: &Path| {
        let mut openssl = Command::new("openssl");
        openssl.args(["ts", "-verify", "-data"]).arg(data).arg("-in").arg(&stamp);
        run(openssl.arg("-CAfile").arg(tsa.join("ca.pem")), b"", wait::DEADLINE)
    };
    let checkpoint = stamp.with_extension("checkpoint");
    let said = verify(&checkpoint);
    assert!(said.code == 0 && said.text().contains("Verification: OK"), "{} {}", said.text(), said.err);
    // Of another checkpoint it is none.
    let mut other = std::fs::read(&checkpoint).unwrap();
    other[0] ^= 1;
    let forged = folder.join("forged");
    std::fs::write(&forged, other).unwrap();
    assert_ne!(verify(&forged).code, 0);

    // A log in which nothing happens isn't stamped again and again for its own stamps.
    let stamps = || world.entries("type=log.timestamped").len();
    wait::until_true("the stamps stop", wait::DEADLINE, || {
        let before = stamps();
        std::thread::sleep(std::time::Duration::from_secs(4));
        stamps() == before
    });
}

#[test]
fn lists_show_any_moment() {
    let world = World::start();
    let entries = world.entries("type=user.created&text=bob");
    let created: serde_json::Value = serde_json::from_str(&entries[0].line).unwrap();
    let before_bob = created["appended"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap()
        - jiff::SignedDuration::from_nanos(1);
    let before_bob = before_bob.to_string();
    world.admin.custody(&["lock", "--user", "bob", "--reason", "a moment"]);
    let said = |arguments: &[&str]| world.admin.custody(arguments).text();
    for (list, now) in [
        (vec!["user", "ls"], "bob"),
        (vec!["locks"], "a moment"),
        (vec!["ls"], "web-1"),
        (vec!["policy", "ls"], "ssh"),
    ] {
        assert!(said(&list).contains(now), "{list:?}");
        if list[0] != "policy" {
            let then = [list.as_slice(), &["--at", &before_bob]].concat();
            assert!(!said(&then).contains(now), "{then:?}");
        }
    }
    assert!(said(&["user", "ls", "--at", &before_bob]).contains("alice"));
    assert!(said(&["role", "ls"]).contains("operator"));
    assert!(said(&["sessions", "--at", &before_bob]).contains("No sessions"));
    assert!(!said(&["events", "search", "--type", "user", "--at", &before_bob]).contains("bob"));
    let refused = world.admin.try_custody(&["user", "ls", "--at", "yesterday"], b"");
    assert!(refused.code != 0 && refused.err.contains("how long ago"), "{}", refused.err);
}

/// The machine's clock is an hour behind, then a day ahead: as the daemon sees it, by a library in between.
#[test]
fn a_clock_that_is_set_wrongly_moves_the_log_neither_forward_nor_back() {
    let mut world = World::start();
    world.custodyd.stop();
    let clock = SetClock::right(world.dir());
    let start = |world: &mut World| {
        world.custodyd.spawn(&mut clock.custodyd());
        world.custodyd.wait_until_it_serves();
    };
    let appended = |world: &World| -> Vec<jiff::Timestamp> {
        let entries = world.entries("");
        let line = |entry: &custody_tests::servers::custodyd::Entry| {
            let value: serde_json::Value = serde_json::from_str(&entry.line).unwrap();
            value["appended"].as_str().unwrap().parse().unwrap()
        };
        entries.iter().map(line).collect()
    };
    let ahead_of_us = |time: &jiff::Timestamp| time.duration_since(jiff::Timestamp::now()).as_secs();

    // Back: time goes on by the least step, also over a restart.
    start(&mut world);
    clock.set("-1h");
    for _ in 0..2 {
        world.admin.login(ADMIN_PASSWORD);
        let times = appended(&world);
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "the log's time went back");
        assert!(ahead_of_us(times.last().unwrap()).abs() < 60);
        world.custodyd.stop();
        start(&mut world);
    }

    // A certificate of a day ago is over: so a new one is asked for, and that is logged.
    clock.set("+1d");
    world.admin.login(ADMIN_PASSWORD);
    let refused = world.event("type=log.clock-refused", "the leap is told", |_| true);
    let seconds = refused.event["data"]["ahead_seconds"].as_i64().unwrap();
    assert!((86_000..90_500).contains(&seconds), "{seconds} s");
    let newest = *appended(&world).last().unwrap();
    assert!(ahead_of_us(&newest) < 60, "the log followed to {newest}");
    world.admin.custody(&["log", "confirm-clock"]);
    world.admin.login(ADMIN_PASSWORD);
    let newest = *appended(&world).last().unwrap();
    assert!(ahead_of_us(&newest) > 86_000, "somebody said that it is right, and the log stays at {newest}");
}
