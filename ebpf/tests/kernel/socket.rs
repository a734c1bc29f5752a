//! Sockets with which nothing can be kept, those to which the kernel adds connections, and those of sessions of which nobody says any more
//! what they may reach.

use crate::network::{deny, kinds, port, session_under, told};
use crate::node::{Node, POLICY};
use custody_node::sensor::{Connection, Denial, NetRule, PolicyRules, Record, Tier};
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

const EPERM: &str = "1";
const TCP: u32 = 6;
const UDP: u32 = 17;
const MULTIPATH: u32 = 262;

/// What Python programs here begin with. `fill` uses up the memory that a socket may have for what is kept with it (net.core.optmem_max),
/// but for less than one more load of its filter takes, which lets everything through.
const BEGIN: &str = "import ctypes, socket, struct, sys\n\
    def attach(s, loads):\n\
    \tcode = struct.pack('=HBBI', 0x30, 0, 0, 0) * loads + struct.pack('=HBBI', 6, 0, 0, 0xffffffff)\n\
    \tcode = ctypes.create_string_buffer(code)\n\
    \ts.setsockopt(socket.SOL_SOCKET, 26, struct.pack('@HP', loads + 1, ctypes.addressof(code)))\n\
    def fill(s):\n\
    \tfits, too_many = 0, 4096\n\
    \twhile too_many - fits > 1:\n\
    \t\tloads = (fits + too_many) // 2\n\
    \t\ttry: attach(s, loads)\n\
    \t\texcept OSError: too_many = loads\n\
    \t\telse: fits = loads; s.setsockopt(socket.SOL_SOCKET, 27, 0)\n\
    \tassert 0 < fits < 4095, fits\n\
    \tattach(s, fits)\n\
    def tries(attempt):\n\
    \ttry: attempt(); print('done', flush=True)\n\
    \texcept OSError as error: print(error.errno, flush=True)\n";

fn closed(connection: &Connection) -> bool {
    connection.denial == Some(Denial::Closed)
}

fn assert_nothing_was_lost(node: &mut Node) {
    let counters = node.sensor().counters().unwrap();
    assert_eq!(counters.lost.values().sum::<u64>(), 0, "{counters:?}");
}

#[test]
fn whoever_fills_the_memory_of_a_socket_is_told_as_everyone() {
    let mut node = Node::start();
    let mut session = node.session();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = listener.local_addr().unwrap().port();
    let printed = session.python(&format!(
        "{BEGIN}\
         tcp, listener, peer = socket.socket(), socket.socket(), socket.socket()\n\
         udp, connected = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for i in range(2)]\n\
         for s in tcp, listener, peer, udp, connected: fill(s)\n\
         tcp.connect(('127.0.0.1', {to}))\n\
         udp.sendto(b'x', ('127.0.0.1', 40201)); connected.connect(('127.0.0.1', 40202))\n\
         listener.bind(('127.0.0.1', 0)); listener.listen()\n\
         peer.connect(listener.getsockname()); accepted = listener.accept()[0]\n\
         print(listener.getsockname()[1])\n\
         for s in tcp, accepted, peer, udp, connected: s.close()"
    ));
    let at: u16 = printed.parse().unwrap();
    drop(listener);
    for to in [to, 40_201, 40_202, at] {
        told(&mut node, "closed", port(to));
        assert_eq!(kinds(&mut node, port(to)), ["opened", "closed"], "to port {to}");
    }
    told(&mut node, "closed", |connection| connection.local_port == at);
    let called = |connection: &Connection| connection.in_place && connection.local_port == at;
    assert_eq!(kinds(&mut node, called), ["accepted", "closed"]);
    assert_nothing_was_lost(&mut node);
}

/// A session may be given a socket that somebody else has made and filled.
#[test]
fn of_a_socket_with_which_nothing_can_be_kept_nothing_comes_about() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start();
    let mut session = node.session();
    let at = folder.path().join("sockets");
    let giver = format!(
        "{BEGIN}\
         four, six, stream, datagram = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM\n\
         kinds = [(four, stream), (six, stream), (four, datagram), (four, datagram), (six, datagram), (four, stream)]\n\
         made = [socket.socket(*kind) for kind in kinds]\n\
         for s in made: fill(s)\n\
         server = socket.socket(socket.AF_UNIX); server.bind(sys.argv[1]); server.listen(); print('ready', flush=True)\n\
         peer = server.accept()[0]\n\
         socket.send_fds(peer, [b'x'], [s.fileno() for s in made]); peer.recv(1)"
    );
    let mut outside = Command::new("python3")
        .args(["-c", &giver])
        .arg(&at)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(outside.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    let said = session.python(&format!(
        "{BEGIN}\
         giver = socket.socket(socket.AF_UNIX); giver.connect('{}')\n\
         given = [socket.socket(fileno=fd) for fd in socket.recv_fds(giver, 1, 9)[1]]\n\
         tries(lambda: given[0].connect(('127.0.0.1', 40301)))\n\
         tries(lambda: given[1].connect(('::1', 40302)))\n\
         tries(lambda: given[2].connect(('127.0.0.1', 40303)))\n\
         tries(lambda: given[3].sendto(b'x', ('127.0.0.1', 40304)))\n\
         tries(lambda: given[4].sendto(b'x', ('::1', 40305)))\n\
         tries(lambda: given[5].listen())",
        at.display()
    ));
    let listening = match node.sensor().coverage().tier {
        Tier::Lsm => EPERM,
        Tier::Tracepoint => "Killed",
    };
    assert_eq!(said.lines().collect::<Vec<_>>(), [EPERM, EPERM, EPERM, EPERM, EPERM, listening]);
    for to in 40_301..=40_305 {
        let denied = told(&mut node, "denied", port(to));
        assert!(closed(&denied) && !denied.ends_session, "{denied:?}");
        assert_eq!(kinds(&mut node, port(to)), ["denied"], "to port {to}");
    }
    let of_none = |connection: &Connection| closed(connection) && connection.remote_port == 0;
    assert_eq!(told(&mut node, "denied", of_none).protocol, TCP);
    assert_eq!(kinds(&mut node, of_none), ["denied"]);
    assert_nothing_was_lost(&mut node);
    outside.wait().unwrap();
}

#[test]
fn a_socket_with_which_nothing_can_be_kept_is_not_made() {
    let mut node = Node::start();
    let mut session = node.session();
    let said = session.python(&format!(
        "{BEGIN}\
         assert ctypes.CDLL(None).unshare(0x40000000) == 0\n\
         try: open('/proc/sys/net/core/optmem_max', 'w').write('0')\n\
         except FileNotFoundError: print('one for all')\n\
         else:\n\
         \ttries(lambda: socket.socket()); tries(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))\n\
         \ttries(lambda: socket.socket(socket.AF_UNIX))"
    ));
    if said == "one for all" {
        println!("this kernel has one limit for all, which other tests need as it is");
        return;
    }
    assert_eq!(said, format!("{EPERM}\n{EPERM}\ndone"));
    for protocol in [TCP, UDP] {
        let of = |connection: &Connection| closed(connection) && connection.protocol == protocol;
        told(&mut node, "denied", of);
        assert_eq!(kinds(&mut node, of), ["denied"]);
    }
    assert_nothing_was_lost(&mut node);
}

/// Where nothing is restricted its first connection is told, and that rules may come too late for what the kernel adds to it.
#[test]
fn a_socket_of_multipath_tcp_is_one_that_no_rule_reaches() {
    let mut node = Node::start();
    let mut session = node.session();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = listener.local_addr().unwrap().port();
    let connect = |to: u16| {
        format!(
            "{BEGIN}tries(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, {MULTIPATH}).connect(('127.0.0.1', {to})))"
        )
    };
    assert!(!node.sensor().unfollowed(POLICY).unwrap());
    if session.python(&connect(to)) != "done" {
        println!("this kernel has no multipath TCP");
        return;
    }
    assert_eq!(told(&mut node, "opened", port(to)).protocol, TCP);
    assert!(!node.records.iter().any(|record| matches!(record, Record::SocketMade(_))));
    assert!(node.sensor().unfollowed(POLICY).unwrap());
    // Whatever it would connect to.
    let elsewhere =
        NetRule { id: 5, address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 0)), prefix: 24, ports: Vec::new() };
    let mut restricted = session_under(&mut node, &deny(&[elsewhere]));
    assert_eq!(restricted.python(&connect(to)), EPERM);
    let denied = told(&mut node, "denied", |connection| connection.protocol == MULTIPATH);
    assert_eq!((denied.denial, denied.who.session), (Some(Denial::Protocol), restricted.id));
}

/// Whether nothing comes from there for a while.
fn is_silent(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    stream
        .read(&mut [0])
        .is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

/// A session that can't be held to a restriction loses its policy: it has programs that run, and connections that stand.
#[test]
fn of_a_session_without_a_policy_nothing_leaves_and_nobody_calls_it() {
    let mut node = Node::start();
    node.has_in_both("datagram bytes and names");
    let mut session = session_under(&mut node, &PolicyRules::default());
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    sink.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let (to, datagrams) = (listener.local_addr().unwrap(), sink.local_addr().unwrap());
    let program = format!(
        "{BEGIN}\
         called_at = socket.create_server(('127.0.0.1', 0)); print(called_at.getsockname()[1], flush=True)\n\
         called = called_at.accept()[0]\n\
         calls = socket.create_connection(('127.0.0.1', {}))\n\
         udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.connect(('127.0.0.1', {}))\n\
         def send():\n\
         \tfor s in called, calls, udp: tries(lambda: s.send(b'x'))\n\
         send(); sys.stdin.readline()\n\
         send(); sys.stdin.read()",
        to.port(),
        datagrams.port()
    );
    File::create(folder.path().join("program.py")).unwrap().write_all(program.as_bytes()).unwrap();
    let said = || std::fs::read_to_string(folder.path().join("said")).unwrap_or_default();
    session.run(&format!("mkfifo {at}/gate"));
    session.start(&format!("python3 {at}/program.py <{at}/gate >{at}/said 2>&1 &"));
    session.start(&format!("exec 9>{at}/gate"));
    let port_of: u16 =
        node.wait_until("its listener", |_| said().lines().next().and_then(|line| line.parse().ok()));
    let called_at = SocketAddr::from((Ipv4Addr::LOCALHOST, port_of));
    let mut calls = TcpStream::connect(called_at).unwrap();
    let mut called = listener.accept().unwrap().0;
    calls.read_exact(&mut [0]).unwrap();
    called.read_exact(&mut [0]).unwrap();
    sink.recv(&mut [0]).unwrap();
    let accepted = told(&mut node, "accepted", |connection| connection.local_port == port_of);
    assert!(!node.sensor().denies(&accepted));

    node.sensor().drop_policy(9).unwrap();
    session.start("echo >&9");
    node.wait_until("what it sends then", |_| (said().lines().count() >= 7).then_some(()));
    // What TCP has taken over it sends again and again.
    assert_eq!(said().lines().skip(1).collect::<Vec<_>>(), ["done", "done", "done", "done", "done", EPERM]);
    assert!(is_silent(&calls) && is_silent(&called));
    assert!(sink.recv(&mut [0]).is_err());
    assert!(TcpStream::connect_timeout(&called_at, Duration::from_secs(1)).is_err());
    let none = |connection: &Connection| connection.denial == Some(Denial::NoPolicy);
    for (protocol, in_place) in [(TCP, true), (TCP, false), (UDP, false)] {
        let is = |of: &Connection| none(of) && of.protocol == protocol && of.in_place == in_place;
        assert_eq!(told(&mut node, "denied", is).who.session, session.id);
    }
    // Whoever has called from outside goes, too.
    assert!(node.sensor().denies(&accepted));
    let taken = node.sensor().take_down(9).unwrap();
    assert_eq!(taken.len(), 3, "{taken:#?}");
    assert!(taken.iter().all(|taken| taken.ended == Ok(()) && none(&taken.connection)), "{taken:#?}");
    session.start("exec 9>&-");
}
