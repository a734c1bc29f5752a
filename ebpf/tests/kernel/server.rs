//! How servers divide a connection among their processes: whichever of them reads first, what is run for it is its session's, and nothing
//! else is.

use crate::node::{Node, POLICY, options, session_id};
use custody_node::sensor::{Accepted, Executed, RING_BYTES_MIN, Record, SensorOptions, Tier, Tuple};
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Far longer than anything takes; under emulation everything takes long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server outside of sessions, in processes of its own. It accepts a connection for each line that it is given, when the sensor has been told
/// of it, and its part for that connection says that it has read where another kind of server would tell its peer. A login is two bytes;
/// a shell follows it.
const SERVER: &str = "
import os, socket, sys

def run(work):
    pid = os.fork()
    if not pid:
        work()
        os._exit(0)
    os.waitpid(pid, 0)

def read(connection):
    connection.recv(1)
    os.write(1, b'read\\n')

def login(connection):
    for _ in range(3 if kind == 'kept' else 2):
        read(connection)

def shell(connection):
    for fd in 0, 1, 2:
        os.dup2(connection.fileno(), fd)
    os.execv('/bin/sh', ['sh'])

def serve(kind, connection):
    if kind == 'turns':
        read(connection)
        run(lambda: read(connection))
    elif kind == 'given':
        read(connection)
        socket.send_fds(near, [b'x'], [connection.fileno()])
        os._exit(0)
    elif kind == 'itself':
        login(connection)
    else:
        run(lambda: login(connection))
    run(lambda: shell(connection))

def take():
    listener.close()
    near.close()
    connection = socket.socket(fileno=socket.recv_fds(far, 1, 1)[1][0])
    read(connection)
    run(lambda: shell(connection))

kind, program = sys.argv[1:]
if kind == 'started':
    serve('child', socket.socket(fileno=0))
    sys.exit()
listener = socket.create_server(('127.0.0.1', 0))
if kind in ('daemon', 'inherited', 'kept') and os.fork():
    os._exit(0)
if kind == 'given':
    near, far = socket.socketpair()
    if not os.fork():
        take()
        os._exit(0)
print(listener.getsockname()[1], os.getpid(), flush=True)
for line in sys.stdin:
    connection = listener.accept()[0]
    closed, close = os.pipe()
    pid = os.fork()
    if not pid:
        # By LSM a read is looked at when it begins: not while the listener has the connection, unless that is what is tried.
        if kind != 'kept':
            os.read(closed, 1)
        if kind == 'inetd':
            os.dup2(connection.fileno(), 0)
            os.execv('/bin/sh', ['sh', '-c', 'python3 -c \"$0\" started \"$0\"; :', program])
        if kind != 'inherited':
            listener.close()
        serve(kind, connection)
        os._exit(0)
    if kind == 'kept':
        print(pid, flush=True)
        sys.stdin.readline()
    connection.close()
    os.write(close, b'x')
    print(pid, flush=True)
";

struct Server {
    process: Child,
    orders: Option<ChildStdin>,
    said: Lines<BufReader<ChildStdout>>,
    port: u16,
    /// Whose the listener is.
    pid: u32,
}

/// A connection that a server has accepted.
struct Connection {
    id: [u8; 16],
    stream: TcpStream,
    lines: BufReader<TcpStream>,
    /// The process that the server has forked for it.
    pid: u32,
}

impl Server {
    fn start(kind: &str) -> Server {
        let mut process = Command::new("python3")
            .args(["-c", SERVER, kind, SERVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = process.stdin.take();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = said.next().unwrap().unwrap();
        let (port, pid) = line.split_once(' ').unwrap();
        Server { port: port.parse().unwrap(), pid: pid.parse().unwrap(), process, orders, said }
    }

    fn order(&mut self) {
        self.orders.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    fn says(&mut self) -> String {
        self.said.next().unwrap().unwrap()
    }

    /// A connection that the sensor is told of before it is accepted, as the proxy does before it connects; or isn't.
    fn connect(&mut self, node: &mut Node, announced: bool) -> Connection {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let id = session_id();
        if announced {
            let tuple = Tuple::new(stream.peer_addr().unwrap(), stream.local_addr().unwrap());
            node.sensor().expect(tuple, id, POLICY).unwrap();
        }
        self.order();
        let pid = self.says().parse().unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap());
        Connection { id, stream, lines, pid }
    }

    /// Gives it a byte of a login, which one of its processes reads.
    fn read(&mut self, connection: &mut Connection) {
        connection.stream.write_all(b"x").unwrap();
        assert_eq!(self.says(), "read");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends when no more orders can come, also where that is another process than was started.
        self.orders = None;
        self.process.wait().unwrap();
    }
}

impl Connection {
    /// Has its shell run /bin/echo with that word.
    fn echo(&mut self, word: &str) {
        self.stream.write_all(format!("/bin/echo {word}\n").as_bytes()).unwrap();
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), word);
    }

    fn accepted<'a>(&self, records: &'a [Record]) -> Option<(usize, &'a Accepted)> {
        records.iter().enumerate().find_map(|(at, record)| match record {
            Record::Accepted(accepted) if accepted.who.session == self.id => Some((at, accepted)),
            _ => None,
        })
    }

    /// Waits until it has been told that its shell and /bin/echo were run, and by which process it was accepted: the one from which
    /// they descend.
    fn assert_told(&self, node: &mut Node, word: &str) {
        let echo = node.wait_until(word, |records| ran(records, word).map(|(_, executed)| executed.clone()));
        assert_eq!(echo.who.session, self.id, "{echo:#?}");
        let accepted = node
            .wait_until("the accept", |records| self.accepted(records).map(|(_, accepted)| accepted.clone()));
        assert_eq!(accepted.who.pid, self.pid, "{accepted:#?}");
        let is_shell = |record: &Record| matches!(record, Record::Executed(of) if of.who.session == self.id && of.args == [b"sh"]);
        assert!(node.records.iter().any(is_shell), "{:#?}", node.records);
    }
}

/// Where /bin/echo was run with that word.
fn ran<'a>(records: &'a [Record], word: &str) -> Option<(usize, &'a Executed)> {
    records.iter().enumerate().find_map(|(at, record)| match record {
        Record::Executed(executed) if executed.args.iter().any(|arg| arg == word.as_bytes()) => {
            Some((at, &**executed))
        }
        _ => None,
    })
}

/// Waits until no session has a process any more.
fn await_ends(node: &mut Node) {
    let end = Instant::now() + PATIENCE;
    while !node.sensor().tagged().unwrap().is_empty() {
        assert!(Instant::now() < end, "{:?}", node.sensor().tagged());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Two sessions, and a connection that isn't one, of the same listener at once.
fn assert_told_apart(node: &mut Node, kind: &str, mut server: Server) {
    let [mut first, mut nobodys, mut second] =
        [true, false, true].map(|announced| server.connect(node, announced));
    for connection in [&mut first, &mut nobodys, &mut second] {
        server.read(connection);
        server.read(connection);
    }
    let [one, none, two] = ["first", "nobodys", "second"].map(|which| format!("{kind}-{which}"));
    first.echo(&one);
    nobodys.echo(&none);
    second.echo(&two);
    first.assert_told(node, &one);
    second.assert_told(node, &two);
    let before = |connection: &Connection, word: &str| {
        connection.accepted(&node.records).unwrap().0 < ran(&node.records, word).unwrap().0
    };
    assert!(before(&first, &one) && before(&second, &two), "{kind}: {:#?}", node.records);
    drop((first, second));
    await_ends(node);
    node.drain();
    assert!(ran(&node.records, &none).is_none(), "{kind}");
    for outside in [server.pid, nobodys.pid] {
        let told = node.records.iter().find(|record| record.who().unwrap().pid == outside);
        assert!(told.is_none(), "{kind}: {told:#?}");
    }
}

/// The process that the listener forks reads itself (sshd until 10.2, dropbear), or a child of its own does, which ends at the login (sshd from
/// 10.3 on); a shell stands between, as an inetd has it; the listener isn't the process that had it listen.
const KINDS: [&str; 4] = ["itself", "child", "inetd", "daemon"];

#[test]
fn a_session_is_seen_whichever_part_of_its_server_reads_first() {
    let mut node = Node::start();
    for kind in KINDS {
        assert_told_apart(&mut node, kind, Server::start(kind));
    }
}

#[test]
fn a_session_is_seen_also_where_its_server_listened_before() {
    let servers = KINDS.map(|kind| (kind, Server::start(kind)));
    let mut node = Node::start();
    for (kind, server) in servers {
        assert_told_apart(&mut node, kind, server);
    }
}

#[test]
fn who_is_given_a_connection_is_of_its_session() {
    let mut node = Node::start();
    let mut server = Server::start("given");
    let mut connection = server.connect(&mut node, true);
    server.read(&mut connection);
    server.read(&mut connection);
    connection.echo("given-on");
    connection.assert_told(&mut node, "given-on");
    let listener = server.pid;
    assert!(node.records.iter().all(|record| record.who().unwrap().pid != listener));
}

/// A listener that has the connection may go on with it, and run what isn't seen.
#[test]
fn a_session_is_confirmed_once_its_listener_has_let_go_of_it() {
    let mut node = Node::start();
    let mut server = Server::start("kept");
    let mut connection = server.connect(&mut node, true);
    server.read(&mut connection);
    node.drain();
    assert!(connection.accepted(&node.records).is_none());
    assert!(!node.sensor().tagged().unwrap().contains_key(&connection.id));
    server.order();
    assert_eq!(server.says(), connection.pid.to_string());
    // By LSM a read is looked at when it begins, which the second has by now.
    server.read(&mut connection);
    server.read(&mut connection);
    connection.echo("let-go");
    connection.assert_told(&mut node, "let-go");
}

#[test]
fn a_session_whose_processes_look_like_its_listener_is_whole_or_not_confirmed() {
    let mut node = Node::start();
    let mut server = Server::start("inherited");
    let mut connection = server.connect(&mut node, true);
    server.read(&mut connection);
    server.read(&mut connection);
    connection.echo("inherited");
    if node.sensor().coverage().tier == Tier::Lsm {
        connection.assert_told(&mut node, "inherited");
    } else {
        // Its shell hasn't got the listener, and isn't taken without those above it.
        node.drain();
        assert!(connection.accepted(&node.records).is_none());
        assert_eq!(node.sensor().tagged().unwrap(), [].into());
    }
}

/// What couldn't be told when it was first read is told by a later read, whoever of the session's processes makes it.
#[test]
fn a_session_that_begins_while_the_ring_is_full_is_whole_when_it_is_told() {
    let mut node = Node::with(SensorOptions { ring_bytes: RING_BYTES_MIN, ..options() });
    let mut server = Server::start("turns");
    let mut flood = node.session();
    // The ends of processes that run nothing take the ring to its last byte.
    flood.python(
        "import os\n\
         for i in range(1000):\n\
         \tpid = os.fork()\n\
         \tif not pid: os._exit(0)\n\
         \tos.waitpid(pid, 0)",
    );
    let mut connection = server.connect(&mut node, true);
    server.read(&mut connection);
    let lost = node.sensor().counters().unwrap().lost;
    assert_eq!(lost[&1], 1, "{lost:?}");
    assert!(node.sensor().tagged().unwrap().contains_key(&connection.id));
    node.drain();
    assert!(connection.accepted(&node.records).is_none());
    server.read(&mut connection);
    connection.echo("whole");
    connection.assert_told(&mut node, "whole");
    assert_eq!(node.sensor().counters().unwrap().lost[&1], 1);
}
