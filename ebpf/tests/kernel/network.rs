//! What connects, and what may not.

use crate::node::{Node, POLICY, Session, options};
use custody_node::sensor::{
    Connection, Denial, NetRule, PolicyRules, Ports, Protocol, Record, SensorOptions,
};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const EPERM: u32 = 1;
/// What a kernel without SCTP says to a stream of it, and to another socket.
const NO_SCTP: [&str; 2] = ["93", "94"];
const ECONNREFUSED: u32 = 111;

fn rule(id: u32, address: IpAddr, prefix: u8) -> NetRule {
    NetRule { id, address, prefix, ports: Vec::new() }
}

fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

/// A session under rules of its own.
pub fn session_under(node: &mut Node, rules: &PolicyRules) -> Session {
    node.sensor().set_policy(9, rules).unwrap();
    node.session_at(LOOPBACK, LOOPBACK, 9)
}

pub fn deny(rules: &[NetRule]) -> PolicyRules {
    PolicyRules { denied: rules.to_vec(), ..PolicyRules::default() }
}

pub fn port(number: u16) -> impl Fn(&Connection) -> bool {
    move |connection| connection.remote_port == number
}

fn of_kind(record: &Record) -> Option<(&'static str, &Connection)> {
    match record {
        Record::ConnectionOpened(connection) => Some(("opened", connection)),
        Record::ConnectionFailed(connection) => Some(("failed", connection)),
        Record::ConnectionClosed(connection) => Some(("closed", connection)),
        Record::ConnectionAccepted(connection) => Some(("accepted", connection)),
        Record::ConnectionDenied(connection) => Some(("denied", connection)),
        _ => None,
    }
}

/// Waits for a record of a kind.
pub fn told(node: &mut Node, kind: &str, is: impl Fn(&Connection) -> bool) -> Connection {
    node.wait_until(kind, |records| {
        records
            .iter()
            .filter_map(of_kind)
            .find(|(other, connection)| *other == kind && is(connection))
            .map(|found| found.1.clone())
    })
}

/// Which kinds of records there are of the connections that match, in order.
pub fn kinds(node: &mut Node, is: impl Fn(&Connection) -> bool) -> Vec<&'static str> {
    node.drain();
    node.records
        .iter()
        .filter_map(of_kind)
        .filter(|(_, connection)| is(connection))
        .map(|(kind, _)| kind)
        .collect()
}

/// Waits for the end of as many connections; nothing else is told of any, and nothing was lost.
fn assert_each_was(node: &mut Node, wanted: [&str; 2], all: usize, is: impl Fn(&Connection) -> bool) {
    let told = node.wait_until("the end of each", |records| {
        let mut told = BTreeMap::<u64, Vec<&str>>::new();
        let of_it = records.iter().filter_map(of_kind).filter(|(_, connection)| is(connection));
        of_it.for_each(|(kind, connection)| told.entry(connection.cookie).or_default().push(kind));
        (told.values().flatten().filter(|kind| **kind == "closed").count() >= all).then_some(told)
    });
    assert_eq!(told.len(), all);
    assert_eq!(told.values().find(|kinds| **kinds != wanted), None);
    let counters = node.sensor().counters().unwrap();
    // Linux 7 preempts tracepoints' programs, and leaves out those of system calls, which have no second copy; none before it was seen to.
    let preempts = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().starts_with("7.");
    let skipped = counters.skipped.iter().filter(|(program, _)| !(preempts && program.starts_with("call_")));
    let skipped = skipped.map(|(_, count)| count);
    assert_eq!(counters.lost.values().chain(skipped).sum::<u64>(), 0, "{counters:?}");
}

/// A port that nothing listens on for now.
fn closed_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn a_connection_is_opened_and_closed_with_its_bytes() {
    let mut node = Node::start();
    let mut session = node.session();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = listener.local_addr().unwrap().port();
    session.start(&format!(
        "python3 -c 'import socket; s = socket.create_connection((\"127.0.0.1\", {to})); s.sendall(b\"x\" * 1000); s.shutdown(1); print(len(s.recv(9999)))'"
    ));
    let (mut stream, peer) = listener.accept().unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    stream.write_all(b"four").unwrap();
    drop(stream);
    let opened = told(&mut node, "opened", port(to));
    assert_eq!(opened.remote, Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets());
    assert_eq!((opened.local_port, opened.protocol, opened.error), (peer.port(), 6, 0));
    assert_eq!(opened.who.session, session.id);
    assert_ne!(opened.net_namespace, 0);
    let closed = told(&mut node, "closed", port(to));
    assert_eq!((closed.cookie, closed.opened), (opened.cookie, opened.opened));
    assert_eq!((closed.sent, closed.received), (1000, 4));
    assert!(closed.who.time > closed.opened);
    assert_eq!(kinds(&mut node, port(to)), ["opened", "closed"]);
}

/// Nobody takes a connection before all of a round are closed: what ends them are packets and timers then, which interrupt whatever runs.
#[test]
fn of_a_flood_of_connections_each_is_opened_and_closed_once() {
    const ROUNDS: usize = 10;
    const PROCESSES: usize = 4;
    const EACH: usize = 500;
    // Holds all of it, so that nothing is refused.
    let mut node = Node::with(SensorOptions { ring_bytes: 1 << 24, ..options() });
    node.has_in_both("connections");
    let mut session = node.session();
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    rustix::net::listen(&listener, 2 * (PROCESSES * EACH) as i32).unwrap();
    let to = listener.local_addr().unwrap().port();
    for _ in 0..ROUNDS {
        session.python(&format!(
            "import os, socket\n\
             for process in range({PROCESSES}):\n\
             \tif os.fork() == 0:\n\
             \t\tfor i in range({EACH}):\n\
             \t\t\ts = socket.socket()\n\
             \t\t\ts.connect(('127.0.0.%d' % (process + 1), {to}))\n\
             \t\t\ts.close()\n\
             \t\tos._exit(0)\n\
             for process in range({PROCESSES}): assert os.wait()[1] == 0"
        ));
        listener.incoming().take(PROCESSES * EACH).for_each(drop);
    }
    assert_each_was(&mut node, ["opened", "closed"], ROUNDS * PROCESSES * EACH, port(to));
}

#[test]
fn of_a_flood_of_callers_each_is_accepted_and_closed_once() {
    const CALLERS: usize = 4;
    const EACH: usize = 500;
    let mut node = Node::with(SensorOptions { ring_bytes: 1 << 24, ..options() });
    let mut session = node.session();
    let backlog = CALLERS * EACH;
    session.start(&format!(
        "python3 -c '\n\
         import socket\n\
         listener = socket.create_server((\"127.0.0.1\", 0), backlog={backlog})\n\
         print(listener.getsockname()[1], flush=True)\n\
         input()\n\
         for i in range({backlog}): listener.accept()[0].close()'"
    ));
    let at: u16 = session.line().trim().parse().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                (0..EACH).for_each(|_| drop(TcpStream::connect((Ipv4Addr::LOCALHOST, at)).unwrap()))
            });
        }
    });
    // All of them have gone before the first is taken.
    session.start("");
    assert_each_was(&mut node, ["accepted", "closed"], backlog, |connection| connection.local_port == at);
}

#[test]
fn what_is_not_established_has_failed_once() {
    let mut node = Node::start();
    let mut session = node.session();
    let (blocking, other) = (closed_port(), closed_port());
    session.python(&format!(
        "import socket, select\n\
         try: socket.create_connection(('127.0.0.1', {blocking}))\n\
         except OSError as error: print(error)\n\
         s = socket.socket(); s.setblocking(False); s.connect_ex(('127.0.0.1', {other})); select.select([], [s], [], 5)"
    ));
    for to in [blocking, other] {
        assert_eq!(told(&mut node, "failed", port(to)).error, ECONNREFUSED);
        assert_eq!(kinds(&mut node, port(to)), ["failed"]);
    }
}

#[test]
fn what_has_no_way_to_its_address_has_failed_once() {
    let mut node = Node::start();
    let mut session = node.session();
    let printed = session.python(
        "import ctypes, socket\n\
         CLONE_NEWNET = 0x40000000\n\
         assert ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0\n\
         s = socket.socket(); six = socket.socket(socket.AF_INET6)\n\
         print(s.connect_ex(('192.0.2.1', 40101)), s.connect_ex(('192.0.2.1', 40102)), six.connect_ex(('2001:db8::1', 40103)))\n\
         s.close()",
    );
    assert_eq!(printed.split(' ').filter(|error| *error != "0").count(), 3, "{printed}");
    for to in [40_101, 40_102, 40_103] {
        let failed = told(&mut node, "failed", port(to));
        assert_eq!((failed.error, failed.protocol, failed.who.session), (0, 6, session.id));
        assert_eq!(kinds(&mut node, port(to)), ["failed"]);
    }
}

#[test]
fn a_listener_of_a_session_tells_who_calls_it() {
    let mut node = Node::start();
    let mut session = node.session();
    let printed = session.python(
        "import socket, threading\n\
         l = socket.create_server(('127.0.0.1', 0))\n\
         c = socket.create_connection(l.getsockname())\n\
         a, peer = l.accept()\n\
         print(l.getsockname()[1], peer[1])",
    );
    let ports: Vec<u16> = printed.split(' ').map(|number| number.parse().unwrap()).collect();
    let accepted = told(&mut node, "accepted", |connection| connection.local_port == ports[0]);
    assert_eq!(accepted.remote_port, ports[1]);
    assert!(accepted.in_place);
    told(&mut node, "closed", |connection| connection.in_place && connection.local_port == ports[0]);
}

#[test]
fn every_way_to_a_denied_network_is_refused() {
    let mut node = Node::start();
    let ways = [
        ("connect", "socket.socket().connect(('127.0.0.9', PORT))"),
        ("mapped", "socket.socket(socket.AF_INET6).connect(('::ffff:127.0.0.9', PORT))"),
        ("no address", "socket.socket().connect(('0.0.0.0', PORT))"),
        ("no address mapped", "socket.socket(socket.AF_INET6).connect(('::ffff:0.0.0.0', PORT))"),
        ("fast open", "socket.socket().sendto(b'x', socket.MSG_FASTOPEN, ('127.0.0.9', PORT))"),
        ("non-blocking", "s = socket.socket(); s.setblocking(False); s.connect(('127.0.0.9', PORT))"),
        ("multipath", "socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).connect(('127.0.0.9', PORT))"),
        ("datagram connect", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.9', PORT))"),
        ("sendto", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.9', PORT))"),
        (
            "sendmsg",
            "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, ('127.0.0.9', PORT))",
        ),
        (
            "sendto mapped",
            "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b'x', ('::ffff:127.0.0.9', PORT))",
        ),
        (
            "disconnect",
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.1.1', 9)); \
             ctypes.CDLL(None).connect(s.fileno(), b'\\0' * 16, 16); s.sendto(b'x', ('127.0.0.9', PORT))",
        ),
        (
            "connected elsewhere",
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.1.1', 9)); s.sendto(b'x', ('127.0.0.9', PORT))",
        ),
        ("raw", "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)"),
        ("SCTP", "socket.socket(socket.AF_INET, socket.SOCK_SEQPACKET, 132)"),
        ("a stream of SCTP", "socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)"),
        ("a stream of SCTP by IPv6", "socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 132)"),
    ];
    let mut session = session_under(&mut node, &deny(&[rule(5, v4(127, 0, 0, 0), 24)]));
    for (number, (name, way)) in ways.iter().enumerate() {
        let to = 20_000 + u16::try_from(number).unwrap();
        let program = format!(
            "import ctypes, socket\n\
             try:\n\
             \t{}\n\
             \tprint('made')\n\
             except OSError as error: print(error.errno)",
            way.replace("PORT", &to.to_string())
        );
        let printed = session.python(&program);
        if *name == "multipath" && printed != "1" && printed != "made" {
            continue; // this kernel has no MPTCP
        }
        let sctp = name.contains("SCTP");
        if sctp && NO_SCTP.contains(&&*printed) {
            continue; // the virtual machines' kernels have it
        }
        assert_eq!(printed, EPERM.to_string(), "{name}");
        let by_kind = match *name {
            "raw" => Some(1),
            "multipath" => Some(262),
            _ => sctp.then_some(132),
        };
        if let Some(of) = by_kind {
            let is = |connection: &Connection| connection.denial == Some(Denial::Protocol);
            told(&mut node, "denied", |connection| is(connection) && connection.protocol == of);
            continue;
        }
        let denied = told(&mut node, "denied", port(to));
        assert_eq!((denied.denial, denied.error), (Some(Denial::Rule(5)), EPERM), "{name}");
        assert_eq!(kinds(&mut node, port(to)), ["denied"], "{name}");
    }
}

#[test]
fn whoever_names_no_address_is_judged_by_where_that_leads() {
    let mut node = Node::start();
    let mut session = session_under(&mut node, &deny(&[rule(5, v4(127, 0, 9, 0), 24)]));
    let mut outcome = |family: &str, kind: &str, bound: &str, to: &str, port: u16| {
        session.python(&format!(
            "import socket\n\
             listener = socket.socket(socket.{family})\n\
             listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
             listener.bind(('{bound}', {port})); listener.listen()\n\
             s = socket.socket(socket.{family}, socket.{kind})\n\
             s.bind(('{bound}', 0))\n\
             try: s.connect(('{to}', {port})); print(s.getpeername()[0])\n\
             except OSError as error: print(error.errno)"
        ))
    };
    let refused = EPERM.to_string();
    for (number, (bound, to)) in
        [("127.0.9.7", "0.0.0.0"), ("::ffff:127.0.9.7", "::ffff:0.0.0.0")].into_iter().enumerate()
    {
        let family = if bound.contains(':') { "AF_INET6" } else { "AF_INET" };
        let port_of = 20_100 + u16::try_from(number).unwrap();
        for kind in ["SOCK_STREAM", "SOCK_DGRAM"] {
            assert_eq!(outcome(family, kind, bound, to, port_of), refused, "{kind} from {bound} to {to}");
            let denied = told(&mut node, "denied", port(port_of));
            assert_eq!(denied.denial, Some(Denial::Rule(5)));
            assert_eq!(denied.remote[12..], [127, 0, 9, 7], "{kind} from {bound} to {to}");
            node.records.clear();
        }
    }
    // Elsewhere it goes where it went before.
    assert_eq!(outcome("AF_INET", "SOCK_STREAM", "127.0.8.7", "0.0.0.0", 20_110), "127.0.8.7");
    assert_eq!(outcome("AF_INET6", "SOCK_STREAM", "::1", "::", 20_111), "::1");
    // Here IPv6 knows loopback alone, where nobody listens.
    assert_eq!(outcome("AF_INET6", "SOCK_STREAM", "::ffff:127.0.8.7", "::", 20_112), "111");
}

#[test]
fn a_socket_that_no_rule_reaches_is_remembered_under_every_rule() {
    let mut node = Node::start();
    let mut session = node.session();
    session.python("import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()");
    assert!(!node.sensor().unfollowed(POLICY).unwrap());
    session.python("import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()");
    assert!(node.sensor().unfollowed(POLICY).unwrap());
    node.sensor().set_policy(POLICY, &deny(&[rule(5, v4(127, 0, 9, 0), 24)])).unwrap();
    assert!(node.sensor().unfollowed(POLICY).unwrap());
}

#[test]
fn the_narrowest_rule_is_named_ports_and_protocols_count_and_deny_wins() {
    let mut node = Node::start();
    let tcp_only = Ports { low: 30_000, high: 30_009, protocol: Some(Protocol::Tcp) };
    let rules = PolicyRules {
        denied: vec![
            NetRule { ports: vec![tcp_only], ..rule(1, v4(127, 0, 0, 0), 8) },
            rule(2, v4(127, 0, 1, 0), 24),
            rule(3, IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
        ],
        allowed: Some(vec![rule(4, v4(127, 0, 0, 0), 8)]),
        ends_session: true,
        ..PolicyRules::default()
    };
    let mut session = session_under(&mut node, &rules);
    let mut outcome = |node: &mut Node, kind: &str, address: &str, to: u16| {
        let family = if address.contains(':') { "AF_INET6" } else { "AF_INET" };
        let printed = session.python(&format!(
            "import socket\n\
             try: socket.socket(socket.{family}, socket.{kind}).connect(('{address}', {to})); print(0)\n\
             except OSError as error: print(error.errno)"
        ));
        let denied = (printed == EPERM.to_string()).then(|| told(node, "denied", port(to)));
        denied.map(|denied| {
            assert!(denied.ends_session);
            denied.denial.unwrap()
        })
    };
    assert_eq!(outcome(&mut node, "SOCK_STREAM", "127.0.0.1", 30_001), Some(Denial::Rule(1)));
    assert_eq!(outcome(&mut node, "SOCK_STREAM", "127.0.1.1", 30_002), Some(Denial::Rule(2)));
    assert_eq!(outcome(&mut node, "SOCK_STREAM", "127.0.0.1", 29_999), None);
    assert_eq!(outcome(&mut node, "SOCK_DGRAM", "127.0.0.1", 30_003), None);
    assert_eq!(outcome(&mut node, "SOCK_DGRAM", "127.0.1.1", 30_004), Some(Denial::Rule(2)));
    assert_eq!(outcome(&mut node, "SOCK_STREAM", "::1", 30_005), Some(Denial::Rule(3)));
    assert_eq!(outcome(&mut node, "SOCK_STREAM", "192.0.2.1", 30_006), Some(Denial::NotAllowed));
}

#[test]
fn rules_change_while_a_session_runs() {
    let mut node = Node::start();
    let mut session = session_under(&mut node, &PolicyRules::default());
    let to = closed_port();
    let line =
        format!("python3 -c 'import socket; print(socket.socket().connect_ex((\"127.0.0.1\", {to})))'");
    assert_eq!(session.run(&line), ECONNREFUSED.to_string());
    node.sensor().set_policy(9, &deny(&[rule(1, LOOPBACK, 32)])).unwrap();
    assert_eq!(session.run(&line), EPERM.to_string());
    node.sensor().set_policy(9, &PolicyRules::default()).unwrap();
    assert_eq!(session.run(&line), ECONNREFUSED.to_string());
    // Without any a program that runs already connects nowhere, and no other may begin.
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    session.run(&format!("mkfifo {at}/gate"));
    session.start(&format!(
        "/usr/bin/python3 -c 'import socket, sys; s = socket.socket(); print(0, flush=True); sys.stdin.read(); print(s.connect_ex((\"127.0.0.1\", {to})))' <{at}/gate >{at}/said &"
    ));
    session.run(&format!("exec 9>{at}/gate; until [ -s {at}/said ]; do sleep 0.1; done"));
    node.sensor().drop_policy(9).unwrap();
    assert_eq!(
        session.run("exec 9>&-; wait; /bin/true && echo ran; true 2>/dev/null").matches("ran").count(),
        0
    );
    assert_eq!(std::fs::read_to_string(folder.path().join("said")).unwrap(), format!("0\n{EPERM}\n"));
    told(&mut node, "denied", |connection| connection.denial == Some(Denial::NoPolicy));
}

/// The kernel sends to the first address of a source route (RFC 791, 3.1), whatever address it was given.
#[test]
fn a_source_route_leads_around_no_rule() {
    let mut node = Node::start();
    node.has_in_both("datagram bytes and names");
    let mut session = session_under(&mut node, &deny(&[rule(5, v4(127, 0, 9, 0), 24)]));
    let said = session.python(
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.setsockopt(socket.SOL_IP, socket.IP_OPTIONS, bytes([1, 131, 7, 4, 127, 0, 9, 1]))\n\
         try: print(s.sendto(b'x', ('127.0.1.1', 20100)), 'sent')\n\
         except OSError as error: print(error.errno)",
    );
    assert_eq!(said, EPERM.to_string());
    let denied = told(&mut node, "denied", |connection| connection.denial == Some(Denial::Protocol));
    assert_eq!(
        (denied.remote, denied.remote_port),
        (Ipv4Addr::new(127, 0, 9, 1).to_ipv6_mapped().octets(), 20100)
    );
    assert_eq!(denied.who.session, session.id);
}

/// Options can be set when a connection stands; what is sent again and again is told once in a while.
#[test]
fn a_connection_gets_no_source_route_when_it_stands() {
    let mut node = Node::start();
    node.has_in_both("datagram bytes and names");
    let mut session = session_under(&mut node, &deny(&[rule(5, v4(127, 0, 9, 0), 24)]));
    let said = session.python(
        "import socket\n\
         server = socket.create_server(('127.0.1.1', 0)); peer = socket.create_connection(server.getsockname())\n\
         end = server.accept()[0]; end.settimeout(1)\n\
         peer.send(b'a'); print(end.recv(9))\n\
         peer.setsockopt(socket.SOL_IP, socket.IP_OPTIONS, bytes([1, 131, 7, 4, 127, 0, 9, 1]))\n\
         peer.setsockopt(socket.SOL_IP, socket.IP_TOS, 8); peer.send(b'b')\n\
         try: print(end.recv(9))\n\
         except TimeoutError: print('nothing')\n\
         peer.setsockopt(socket.SOL_IP, socket.IP_OPTIONS, b''); end.settimeout(30); print(end.recv(9))",
    );
    assert_eq!(said, "b'a'\nnothing\nb'b'");
    told(&mut node, "denied", |connection| connection.denial == Some(Denial::Protocol));
}

/// No hook asks about what it sends from then on; whatever network namespace its process has gone to.
#[test]
fn a_datagram_socket_sends_no_more_to_a_peer_that_becomes_denied() {
    let mut node = Node::start();
    node.has_in_both("datagram bytes and names");
    let mut session = session_under(&mut node, &deny(&[rule(5, v4(127, 0, 9, 0), 24)]));
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    session.run(&format!("mkfifo {at}/gate"));
    session.start(&format!(
        "/usr/bin/python3 -c 'import socket, sys; p = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); p.bind((\"127.0.8.1\", 0)); \
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(p.getsockname()); print(s.send(b\"x\"), flush=True); \
         sys.stdin.read()\ntry: print(s.send(b\"x\"))\nexcept OSError as error: print(error.errno)' <{at}/gate >{at}/said &"
    ));
    session.run(&format!("exec 9>{at}/gate; until [ -s {at}/said ]; do sleep 0.1; done"));
    node.sensor().set_policy(9, &deny(&[rule(7, v4(127, 0, 8, 0), 24)])).unwrap();
    session.run("exec 9>&-; wait");
    assert_eq!(std::fs::read_to_string(folder.path().join("said")).unwrap(), format!("1\n{EPERM}\n"));
    let denied = told(&mut node, "denied", |connection| connection.denial == Some(Denial::Rule(7)));
    assert_eq!(denied.remote, Ipv4Addr::new(127, 0, 8, 1).to_ipv6_mapped().octets());
}

#[test]
fn datagrams_without_a_connect_are_folded_by_destination() {
    let mut node = Node::start();
    let mut session = node.session();
    session.python(
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         for i in range(1000):\n\
         \ts.sendto(b'x', ('127.0.0.1', 40001)); s.sendto(b'x', ('127.0.0.1', 40002))\n\
         s.close()\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.connect(('127.0.0.1', 40003)); s.close()",
    );
    for to in [40_001, 40_002] {
        let closed = told(&mut node, "closed", port(to));
        assert_eq!((closed.datagrams, closed.protocol, closed.unconnected), (1000, 17, true));
        assert_eq!(kinds(&mut node, port(to)), ["opened", "closed"]);
    }
    told(&mut node, "closed", port(40_003));
    assert_eq!(kinds(&mut node, port(40_003)), ["opened", "closed"]);
}

#[test]
fn the_address_that_was_judged_is_the_one_that_is_connected() {
    let mut node = Node::start();
    let mut session = session_under(&mut node, &deny(&[rule(1, v4(127, 0, 0, 2), 32)]));
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let to = listener.local_addr().unwrap().port();
    session.python(&format!(
        "import ctypes, socket, struct, threading, time\n\
         libc = ctypes.CDLL(None)\n\
         address = ctypes.create_string_buffer(struct.pack('!HH4s8x', 0, {to}, bytes([127, 0, 0, 1])))\n\
         address[0:2] = struct.pack('=H', 2)\n\
         done = False\n\
         def flip():\n\
         \twhile not done:\n\
         \t\taddress[7] = 2\n\
         \t\taddress[7] = 1\n\
         thread = threading.Thread(target=flip); thread.start()\n\
         for i in range(500):\n\
         \ts = socket.socket(); libc.connect(s.fileno(), address, 16); s.close()\n\
         done = True; thread.join()"
    ));
    assert!(listener.accept().is_err(), "a connection came through to the denied address");
    node.drain();
    assert!(kinds(&mut node, |connection| connection.remote[15] == 2).iter().all(|kind| *kind == "denied"));
}

#[test]
fn sessions_of_other_policies_and_the_host_are_let_alone() {
    let mut node = Node::start();
    let mut denied = session_under(&mut node, &deny(&[rule(1, LOOPBACK, 8)]));
    let mut free = node.session_at(LOOPBACK, LOOPBACK, POLICY);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    let line = format!(
        "python3 -c 'import socket; print(socket.socket().connect_ex((\"127.0.0.1\", {})))'",
        to.port()
    );
    assert_eq!(denied.run(&line), EPERM.to_string());
    assert_eq!(free.run(&line), "0");
    std::net::TcpStream::connect(SocketAddr::new(LOOPBACK, to.port())).unwrap();
}

#[test]
fn connections_to_what_becomes_denied_are_ended_and_no_others() {
    let mut node = Node::start();
    let mut session = session_under(&mut node, &PolicyRules::default());
    let mut other = node.session_at(LOOPBACK, LOOPBACK, POLICY);
    let program = "import os, socket, sys, threading\n\
         def serve(address):\n\
         \tl = socket.create_server((address, 0))\n\
         \tdef run():\n\
         \t\twhile True: kept.append(l.accept())\n\
         \tthreading.Thread(target=run, daemon=True).start()\n\
         \treturn l.getsockname()\n\
         kept = []\n\
         tcp = socket.create_connection(serve('127.0.0.2'))\n\
         free = socket.create_connection(serve('127.0.0.1'))\n\
         sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sink.bind(('127.0.0.2', 0))\n\
         udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.connect(sink.getsockname())\n\
         fd = os.open(sys.argv[1], os.O_RDONLY); os.read(fd, 1)\n\
         def state(s):\n\
         \ttry: s.send(b'x'); s.send(b'x'); return 'alive'\n\
         \texcept OSError as error: return error.errno\n\
         print(state(tcp), state(free), state(udp))";
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    std::fs::File::create(folder.path().join("program.py")).unwrap().write_all(program.as_bytes()).unwrap();
    for (session, before, name) in [(&mut session, "unshare -n sh -c", "one"), (&mut other, "sh -c", "two")] {
        session.run(&format!("mkfifo {at}/{name}"));
        session.start(&format!(
            "{before} 'ip link set lo up; exec python3 {at}/program.py {at}/{name}' >{at}/{name}.out &"
        ));
    }
    for session in [session.id, other.id] {
        told(&mut node, "opened", |connection| {
            connection.protocol == 17 && connection.who.session == session
        });
    }
    node.sensor().set_policy(9, &deny(&[rule(1, v4(127, 0, 0, 2), 32)])).unwrap();
    let taken = node.sensor().take_down(9).unwrap();
    let mut protocols: Vec<u32> = taken
        .iter()
        .filter(|taken| !taken.connection.in_place)
        .map(|taken| taken.connection.protocol)
        .collect();
    protocols.sort_unstable();
    assert_eq!(protocols, [6, 17], "{taken:#?}");
    assert!(
        taken.iter().all(|taken| taken.ended == Ok(()) && taken.connection.who.session == session.id),
        "{taken:#?}"
    );
    for (session, name) in [(&mut session, "one"), (&mut other, "two")] {
        session.run(&format!("echo >{at}/{name}; wait"));
    }
    let printed = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(printed("one.out"), "103 alive 89\n", "ECONNABORTED, and EDESTADDRREQ where a peer was");
    assert_eq!(printed("two.out"), "alive alive alive\n");
    let ended = |connection: &Connection| {
        connection.who.session == session.id && connection.remote[15] == 2 && !connection.in_place
    };
    told(&mut node, "closed", |connection| ended(connection) && connection.protocol == 6);
}

/// A connect by io_uring; FLAGS of the ring, and of the entry.
const IO_URING: &str = "import ctypes, mmap, socket, struct, time\n\
     libc = ctypes.CDLL(None)\n\
     params = bytearray(120); struct.pack_into('I', params, 8, RING_FLAGS)\n\
     raw = (ctypes.c_char * 120).from_buffer(params)\n\
     fd = libc.syscall(425, 8, raw)\n\
     assert fd >= 0\n\
     sq = struct.unpack_from('7I', params, 40); cq = struct.unpack_from('6I', params, 80)\n\
     ring = mmap.mmap(fd, 4096, mmap.MAP_SHARED, offset=0)\n\
     sqes = mmap.mmap(fd, 4096, mmap.MAP_SHARED, offset=0x10000000)\n\
     s = socket.socket()\n\
     address = ctypes.create_string_buffer(struct.pack('=H', 2) + struct.pack('!H4s8x', PORT, bytes([127, 0, 0, 9])))\n\
     struct.pack_into('BBHiQQII', sqes, 0, 16, ENTRY_FLAGS, 0, s.fileno(), 16, ctypes.addressof(address), 0, 0)\n\
     struct.pack_into('I', ring, sq[6], 0)\n\
     struct.pack_into('I', ring, sq[1], 1)\n\
     libc.syscall(426, fd, 1, 0 if RING_FLAGS else 1, 3 if RING_FLAGS else 1, None, 0)\n\
     while struct.unpack_from('I', ring, cq[1])[0] == struct.unpack_from('I', ring, cq[0])[0]: time.sleep(0.01)\n\
     print(struct.unpack_from('i', ring, cq[5] + 8)[0])";

#[test]
fn io_uring_is_no_way_around() {
    let mut node = Node::start();
    let mut session = session_under(&mut node, &deny(&[rule(5, v4(127, 0, 0, 9), 32)]));
    for (to, ring, entry) in [(21_001, "0", "0"), (21_002, "0", "16"), (21_003, "2", "0")] {
        let program = IO_URING
            .replace("PORT", &to.to_string())
            .replace("RING_FLAGS", ring)
            .replace("ENTRY_FLAGS", entry);
        assert_eq!(session.python(&program), "-1", "ring {ring}, entry {entry}");
        let denied = told(&mut node, "denied", port(to));
        assert_eq!(denied.denial, Some(Denial::Rule(5)));
        assert_eq!(kinds(&mut node, port(to)), ["denied"]);
    }
}

#[test]
fn a_socket_whose_packets_are_not_followed_is_told_when_it_is_made() {
    let mut node = Node::start();
    let mut session = node.session();
    session.python(
        "import socket\n\
         socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)\n\
         socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 3)\n\
         socket.socket(); socket.socket(socket.AF_INET, socket.SOCK_DGRAM); socket.socket(socket.AF_UNIX)",
    );
    session.run("/bin/echo last");
    node.wait_for("the last", |record| {
        matches!(record, Record::Executed(executed) if executed.args.last().is_some_and(|arg| arg == b"last"))
    });
    let made = |record: &Record| match record {
        Record::SocketMade(made) if made.who.session == session.id => {
            Some((made.family, made.kind, made.protocol))
        }
        _ => None,
    };
    let made: Vec<_> = node.records.iter().filter_map(made).collect();
    assert_eq!(made, [(2, 3, 1), (10, 3, 58), (17, 2, 3)]);
}
