//! Strangers who never prove anything: what is no SSH, what is too much, too slow, or too many. Each is a counted
//! refusal; others keep working, and memory stays bounded.

use custody_tests::servers::World;
use custody_tests::wait;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;

/// As in the proxy: `ssh::admission`.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
const UNPROVED_MAX: usize = 1024;
const PER_SOURCE_MAX: usize = 128;

fn metric(world: &World, name: &str) -> u64 {
    let text = world.admin.request("/metrics", &[]).text();
    let line =
        text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn refused(world: &World, reason: &str) -> u64 {
    metric(world, &format!("custody_ssh_refused_total{{reason=\"{reason}\"}}"))
}

fn unproved(world: &World) -> u64 {
    metric(world, "custody_ssh_unproved_connections")
}

/// Resident memory of custodyd, KiB.
fn resident(world: &World) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.custodyd.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn connect(world: &World) -> std::net::TcpStream {
    let stream = std::net::TcpStream::connect(("127.0.0.1", world.custodyd.ssh_port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Reads until the proxy hangs up.
fn until_hung_up(mut stream: std::net::TcpStream) {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("it didn't hang up: {error}"),
        }
    }
}

fn works(world: &World) {
    let said = world.ssh(&[], "echo works", b"");
    assert_eq!((said.code, said.text().as_str()), (0, "works\n"), "{}", said.err);
}

/// A packet before the first keys: length, padding length, payload, padding.
fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 8 + (8 - (payload.len() + 5) % 8) % 8;
    let length = u32::try_from(1 + payload.len() + padding).unwrap();
    [&length.to_be_bytes()[..], &[u8::try_from(padding).unwrap()], payload, &vec![0; padding]].concat()
}

#[test]
fn what_breaks_the_rules_is_cut_off_at_once_and_counted() {
    let world = World::start();
    let hello = b"SSH-2.0-stranger\r\n".to_vec();
    let after_hello = |bytes: &[u8]| [hello.as_slice(), bytes].concat();
    let flood: Vec<u8> = packet(&[2, 0, 0, 0, 0]).repeat(2_000);
    let broken: Vec<(&str, Vec<u8>)> = vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("TLS", [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x0a; 300]].concat()),
        ("zeros", vec![0; 5_000]),
        ("noise", (0..5_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()),
        ("a version without end", [&b"SSH-2.0-"[..], &[b'a'; 5_000]].concat()),
        ("a version with control characters", b"SSH-2.0-\x1b[2J\r\n".to_vec()),
        ("a preamble without end", [&b"CUSTODY-NODE "[..], &[b'a'; 5_000]].concat()),
        ("a preamble that names nothing", b"CUSTODY-NODE \r\nSSH-2.0-x\r\n".to_vec()),
        ("a packet of 4 GiB", after_hello(&[0xff; 64])),
        ("a packet of 2 GiB", after_hello(&[0x7f, 0xff, 0xff, 0xfc, 4])),
        ("a packet just too long", after_hello(&35_004_u32.to_be_bytes())),
        ("a packet without payload", after_hello(&[0, 0, 0, 12, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("NEWKEYS first", after_hello(&packet(&[21]))),
        ("a login first", after_hello(&packet(&[50, 0, 0, 0, 0]))),
        ("a KEXINIT that is cut", after_hello(&packet(&[&[20][..], &[7; 16], &[0, 0, 0, 99]].concat()))),
        ("a thousand packets that mean nothing", after_hello(&flood)),
    ];
    let before = refused(&world, "protocol");
    for (what, bytes) in &broken {
        let mut stream = connect(&world);
        let begun = Instant::now();
        // It may hang up in the middle.
        let _sent = stream.write_all(bytes);
        until_hung_up(stream);
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}: {:?}", begun.elapsed());
    }
    let expected = before + broken.len() as u64;
    wait::until_true("each is counted", wait::DEADLINE, || refused(&world, "protocol") == expected);

    let before = refused(&world, "incompatible");
    for bytes in [b"SSH-1.5-old\r\n".as_slice(), b"SSH-3.0-new\r\n"] {
        let mut stream = connect(&world);
        stream.write_all(bytes).unwrap();
        until_hung_up(stream);
    }
    wait::until_true("old versions are counted", wait::DEADLINE, || {
        refused(&world, "incompatible") == before + 2
    });
    assert_eq!(unproved(&world), 0);
    works(&world);
}

#[test]
fn who_dawdles_is_cut_off_in_time() {
    let world = World::start();
    let begun = Instant::now();
    let hello = b"SSH-2.0-a_client_that_has_a_lot_of_time_and_a_long_name\r\n";
    let preamble = b"CUSTODY-NODE a-node-with-a-name-that-takes-its-time-to-come\r\n";
    let silent = connect(&world);
    // A key exchange that is begun and never gone on with.
    let mut half = connect(&world);
    half.write_all(b"SSH-2.0-half\r\n").unwrap();
    half.write_all(&35_000_u32.to_be_bytes()[..3]).unwrap();
    let dawdle = |bytes: &'static [u8]| {
        let mut stream = connect(&world);
        std::thread::spawn(move || {
            let mut watched = stream.try_clone().unwrap();
            watched.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let mut buffer = [0; 4096];
            for byte in bytes.iter().cycle() {
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
                match watched.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(_) => std::thread::sleep(Duration::from_secs(1)),
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                    Err(_) => {}
                }
            }
        })
    };
    let slow = [dawdle(hello), dawdle(preamble)];
    wait::until_true("four have a place", wait::DEADLINE, || unproved(&world) == 4);
    works(&world);
    until_hung_up(silent);
    until_hung_up(half);
    for slow in slow {
        slow.join().unwrap();
    }
    let took = begun.elapsed();
    assert!(took >= LOGIN_TIMEOUT - Duration::from_secs(1) && took < LOGIN_TIMEOUT * 2, "{took:?}");
    wait::until_true("all four are counted", wait::DEADLINE, || refused(&world, "timeout") == 4);
    assert_eq!(unproved(&world), 0);
}

/// Connects from one address of the loopback network.
async fn strangers(port: u16, source: u8, count: usize) -> Vec<tokio::net::TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, source)), 0)).unwrap();
        let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        streams.push(socket.connect(to).await.unwrap());
    }
    streams
}

/// More than 2,000 connections that say nothing. From a few addresses they don't take all places; from many they do, and
/// then those who dawdle longest give way. custodyd starts with few descriptors, as services do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_who_say_nothing_shut_nobody_out() {
    // For this end of the connections.
    let _descriptors = custody_proxy::descriptors::raise_limit();
    let mut world = World::start();
    world.custodyd.stop();
    let mut limited = Command::new("bash");
    limited.args(["-c", "ulimit -Sn 1024; exec \"$@\"", "bash"]).arg(custody_tests::program("custodyd"));
    world.custodyd.spawn(&mut limited);
    world.custodyd.wait_until_it_serves();
    works(&world);
    let before = resident(&world);
    let port = world.custodyd.ssh_port;

    let mut held = Vec::new();
    for source in 2..6 {
        held.extend(strangers(port, source, 300).await);
    }
    let full = 4 * PER_SOURCE_MAX as u64;
    wait::until_true("each source has its places", wait::DEADLINE, || unproved(&world) == full);
    wait::until_true("the others were refused", wait::DEADLINE, || {
        refused(&world, "source") == 4 * (300 - PER_SOURCE_MAX as u64)
    });
    works(&world);

    for source in 10..18 {
        held.extend(strangers(port, source, PER_SOURCE_MAX).await);
    }
    wait::until_true("all places are taken", wait::DEADLINE, || unproved(&world) + 1 >= UNPROVED_MAX as u64);
    // Those who came first have dawdled for long enough by and by.
    wait::until_true("somebody honest comes in", wait::DEADLINE, || world.ssh(&[], "true", b"").code == 0);
    assert!(refused(&world, "displaced") > 0);
    let grown = resident(&world).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB for {} strangers", unproved(&world));
    drop(held);
    wait::until_true("all places are free again", wait::DEADLINE, || unproved(&world) == 0);
    works(&world);
}

/// What a stranger does before he falls silent.
const BEGINNINGS: [&[u8]; 4] = [
    b"",
    b"SSH-2.0-str",
    b"CUSTODY-NODE web-1\r\nSSH-2.0-stranger\r\n",
    // A key exchange, cut in the middle of its first packet.
    b"SSH-2.0-stranger\r\n\0\0\x04\xec\x0a\x14aaaaaaaaaaaaaaaa\0\0\0\x20curve25519",
];

/// Sockets that custodyd has open.
fn sockets(world: &World) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", world.custodyd.pid())).unwrap();
    let links = descriptors.filter_map(|descriptor| std::fs::read_link(descriptor.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// Half of them from one address, half from forty. Somebody honest comes in at any time without trying again, and what
/// it took is given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_strangers_at_once() {
    const MANY: usize = 10_000;
    let limit = custody_proxy::descriptors::raise_limit();
    assert!(limit.is_none_or(|limit| limit > MANY as u64 + 2_000), "{limit:?} open files: too few to try");
    let world = World::start();
    works(&world);
    let (memory, before) = (resident(&world), sockets(&world));
    let port = world.custodyd.ssh_port;

    let crowd = async |from: std::ops::Range<u8>, each: usize| {
        let mut held = Vec::new();
        for source in from {
            for (n, mut stream) in strangers(port, source, each).await.into_iter().enumerate() {
                // Whoever has no place is hung up on: it may be before he has said a word.
                let _sent = stream.write_all(BEGINNINGS[n % BEGINNINGS.len()]).await;
                held.push(stream);
            }
            if source % 8 != 2 {
                continue;
            }
            // While they come. The proxy takes connections in their order, so it has looked at all before this one.
            let world = &world;
            let begun = Instant::now();
            tokio::task::block_in_place(|| works(world));
            // Before those who came first run out of time.
            assert!(begun.elapsed() < LOGIN_TIMEOUT * 2 / 3, "{:?}", begun.elapsed());
        }
        held
    };
    let one = crowd(2..3, MANY / 2).await;
    assert_eq!(unproved(&world), PER_SOURCE_MAX as u64);
    assert_eq!(refused(&world, "source"), (MANY / 2 - PER_SOURCE_MAX) as u64);
    let many = crowd(60..100, MANY / 80).await;
    assert!(unproved(&world) + 1 >= UNPROVED_MAX as u64, "{}", unproved(&world));
    let grown = resident(&world).saturating_sub(memory);
    assert!(grown < 64 * 1024, "{grown} KiB for {MANY} strangers");
    assert!(sockets(&world) < before + UNPROVED_MAX + 100, "{}", sockets(&world));
    works(&world);

    // Each is counted: with a reason, or as one who has a place still.
    let reasons = ["source", "displaced", "unproved", "timeout", "protocol", "left"];
    let counted = || reasons.iter().map(|reason| refused(&world, reason)).sum::<u64>() + unproved(&world);
    wait::until_true("each is counted", wait::DEADLINE, || counted() == MANY as u64);
    drop((one, many));
    wait::until_true("all places are free again", wait::DEADLINE, || unproved(&world) == 0);
    wait::until_true("all sockets are closed", wait::DEADLINE, || sockets(&world) <= before);
    works(&world);
}
