//! What datagram sockets send and get.

use crate::network::{port, told};
use crate::node::{Node, next, options};
use custody_node::sensor::{Answered, RING_BYTES_MIN, Record, SensorOptions};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

/// A loopback address that no other test has.
fn own_address() -> Ipv4Addr {
    let [_, b, c, d] = (std::process::id() << 8 | next() & 0xff).to_be_bytes();
    Ipv4Addr::new(127, 200 + b % 50, c, d.max(1))
}

/// Answers each datagram with what `answer` makes of it.
fn serve(at: SocketAddr, answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> u16 {
    let socket = UdpSocket::bind(at).unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut bytes = vec![0; 65_536];
        loop {
            let (length, peer) = socket.recv_from(&mut bytes).unwrap();
            socket.send_to(&answer(&bytes[..length]), peer).unwrap();
        }
    });
    port
}

fn answered(record: &Record) -> Option<&Answered> {
    match record {
        Record::Answered(answered) => Some(answered),
        _ => None,
    }
}

#[test]
fn what_datagrams_bring_and_take_is_counted_by_peer() {
    let mut node = Node::start();
    let mut session = node.session();
    // Half of each comes back.
    let half = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    let any = |address: IpAddr| SocketAddr::new(address, 0);
    let four: Vec<u16> = (0..4).map(|_| serve(any(Ipv4Addr::LOCALHOST.into()), half)).collect();
    let six: Vec<u16> = (0..2).map(|_| serve(any(Ipv6Addr::LOCALHOST.into()), half)).collect();
    let [connected, one, other, mapped] = *four else { unreachable!() };
    let [six_connected, six_options] = *six else { unreachable!() };
    session.python(&format!(
        "import socket, struct\n\
         UDP_SEGMENT = 103\n\
         def talk(s, to, sizes):\n\
         \tfor size in sizes:\n\
         \t\ts.send(b'x' * size) if to is None else s.sendto(b'x' * size, to)\n\
         \t\ts.recv(65536)\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.0.1', {connected}))\n\
         talk(s, None, [100, 0, 60000])\n\
         s.setsockopt(17, UDP_SEGMENT, 100); s.send(b'x' * 1000)\n\
         for i in range(10): s.recv(65536)\n\
         s.close()\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         for i in range(3): talk(s, ('127.0.0.1', {one}), [200]); talk(s, ('127.0.0.1', {other}), [20])\n\
         s.close()\n\
         s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); talk(s, ('::ffff:127.0.0.1', {mapped}), [40]); s.close()\n\
         s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.connect(('::1', {six_connected})); talk(s, None, [60]); s.close()\n\
         s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n\
         s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, b'\\0\\0\\1\\4' + b'\\0' * 4)\n\
         talk(s, ('::1', {six_options}), [80]); s.close()"
    ));
    let wanted = [
        (connected, 61_100, 30_550),
        (one, 600, 300),
        (other, 60, 30),
        (mapped, 40, 20),
        (six_connected, 60, 30),
        (six_options, 80, 40),
    ];
    for (to, sent, received) in wanted {
        let closed = told(&mut node, "closed", port(to));
        assert_eq!((closed.sent, closed.received), (sent, received), "to port {to}");
    }
}

#[test]
fn a_socket_that_gets_another_peer_has_done_with_the_first() {
    let mut node = Node::start();
    let mut session = node.session();
    let [first, second] = [(); 2].map(|()| serve((Ipv4Addr::LOCALHOST, 0).into(), <[u8]>::to_vec));
    session.start(&format!(
        "exec python3 -c 'import socket, time\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         for port in {first}, {second}: s.connect((\"127.0.0.1\", port)); s.send(b\"x\" * 70); s.recv(99)\n\
         s.close()\n\
         time.sleep(600)'"
    ));
    let closed = told(&mut node, "closed", port(first));
    let opened = told(&mut node, "opened", port(second));
    assert_eq!((closed.sent, closed.received), (70, 70));
    assert!(closed.who.time <= opened.who.time);
    let closed = told(&mut node, "closed", port(second));
    assert_eq!((closed.sent, closed.received), (70, 70));
}

#[test]
fn what_name_servers_answer_is_told_of_sockets_that_asked_them() {
    let mut node = Node::start();
    let mut session = node.session();
    let server = own_address();
    let answer = |bytes: &[u8]| [b"answer to ", bytes].concat();
    serve(SocketAddr::new(server.into(), 53), answer);
    let other_port = serve(SocketAddr::new(server.into(), 0), answer);
    session.python(&format!(
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.connect(('{server}', 53)); s.send(b'connected'); s.recv(9999)\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.sendto(b'elsewhere', ('{server}', {other_port})); s.recv(9999)\n\
         s.sendto(b'sent', ('{server}', 53)); s.recv(9999)\n\
         s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n\
         s.sendto(b'mapped', ('::ffff:{server}', 53)); s.recv(9999)\n\
         s.sendto(b'x' * 3000, ('::ffff:{server}', 53)); s.recv(9999)"
    ));
    // Outside of the session.
    let outside = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    outside.send_to(b"outside", (server, 53)).unwrap();
    outside.recv(&mut [0; 99]).unwrap();
    // To a socket of the session that hasn't asked.
    let stranger = UdpSocket::bind((own_address(), 53)).unwrap();
    session.start(
        "python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((\"127.0.0.1\", 0)); s.sendto(b\"x\", (\"127.0.0.1\", 9)); print(s.getsockname()[1], flush=True); print(s.recv(9))'",
    );
    let to: u16 = session.line().trim().parse().unwrap();
    stranger.send_to(b"unasked", (Ipv4Addr::LOCALHOST, to)).unwrap();
    assert_eq!(session.run("true").trim(), "b'unasked'");
    node.drain();
    let told: Vec<&Answered> = node.records.iter().filter_map(answered).collect();
    let messages: Vec<&[u8]> = told.iter().map(|answered| &*answered.message).collect();
    let cut = [&b"answer to "[..], &[b'x'; 1_222]].concat();
    assert_eq!(messages, [&b"answer to connected"[..], b"answer to sent", b"answer to mapped", &cut]);
    assert!(told.iter().all(|answered| answered.who.session == session.id));
}

#[test]
fn what_name_servers_answer_by_tcp_is_told_wherever_its_packets_end() {
    let mut node = Node::start();
    let mut session = node.session();
    let server = own_address();
    let framed =
        |message: &[u8]| [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat();
    let (first, second, long) =
        (framed(b"the first answer"), framed(b"the second answer"), framed(&[b'x'; 40_000]));
    // Each is sent when the one before has come: at once, behind its length, two together with a few bytes of a third, which say nothing,
    // its rest with a long one and another.
    let together = [&first[..], &second, &first[..9]].concat();
    let rest = [&first[9..], &long, &second].concat();
    let pieces = [first.clone(), second[..2].to_vec(), second[2..].to_vec(), together, rest];
    let sizes: Vec<usize> = pieces.iter().map(Vec::len).collect();
    let listener = TcpListener::bind((server, 53)).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in &pieces {
            stream.read_exact(&mut [0]).unwrap();
            stream.write_all(piece).unwrap();
        }
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
    session.python(&format!(
        "import socket\n\
         s = socket.create_connection(('{server}', 53))\n\
         for size in {sizes:?}:\n\
         \ts.send(b'x')\n\
         \twhile size: size -= len(s.recv(size))"
    ));
    node.drain();
    let told: Vec<&Answered> = node.records.iter().filter_map(answered).collect();
    let messages: Vec<&[u8]> = told.iter().map(|answered| &*answered.message).collect();
    let (first, second) = (&b"the first answer"[..], &b"the second answer"[..]);
    assert_eq!(messages, [first, second, first, second, &[b'x'; 1_232], second]);
    assert!(told.iter().all(|answered| answered.who.session == session.id));
}

#[test]
fn answers_that_nobody_reads_leave_room_for_evidence() {
    let mut node = Node::with(SensorOptions { ring_bytes: RING_BYTES_MIN, ..options() });
    let mut session = node.session();
    let server = own_address();
    serve(SocketAddr::new(server.into(), 53), <[u8]>::to_vec);
    session.python(&format!(
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('{server}', 53))\n\
         for i in range(500): s.send(b'x' * 1000); s.recv(9999)"
    ));
    assert_eq!(session.run("/bin/true && echo ran; true"), "ran");
    node.drain();
    let count = node.records.iter().filter_map(answered).count();
    assert!((10..500).contains(&count), "{count} answers were told");
    assert_eq!(node.sensor().counters().unwrap().lost.values().sum::<u64>(), 0);
}
