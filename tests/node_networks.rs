//! Restrictions of networks: real sessions through the proxy, held by the kernel of a node with an agent.

use crate::node::watched;
use custody_tests::process::run;
use custody_tests::servers::{Agent, World};
use custody_tests::wait::{self, DEADLINE};
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn a_network_that_is_denied_cannot_be_reached_from_a_session() {
    let (world, _agent) = watched();
    let (open, shut) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let denied = format!("127.0.0.0/8={}", port(&shut));
    world.admin.custody(&[
        "restrict", "add", "no-way", "--role", "operator", "--deny", &denied, "--reason", "a test",
    ]);
    let connect = |port: u16| {
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo reached");
        run(
            world.proxied().args(["root@web-1.custody", "bash", "-c"]).arg(format!("'{script}'")),
            b"",
            DEADLINE,
        )
    };
    let said = connect(port(&open));
    assert_eq!(said.text(), "reached\n", "{}", said.err);
    let said = connect(port(&shut));
    assert!(said.code != 0 && said.err.contains("Operation not permitted"), "{} {}", said.text(), said.err);
    let denied = world.event("type=connection.denied", "the denial is told", |_| true);
    let data = &denied.event["data"];
    assert_eq!(data["restriction"], "no-way");
    assert_eq!(data["ends"]["remote"]["port"], port(&shut));
    assert_eq!(denied.event["outcome"], "denied");
    assert_eq!(denied.event["actor"]["user"], "bob");
    world.event("type=connection.opened", "the other connection is told", |e| {
        e.event["data"]["ends"]["remote"]["port"] == port(&open)
    });
    // While a session runs, too.
    world.admin.custody(&["restrict", "rm", "no-way"]);
    let said = connect(port(&shut));
    assert_eq!(said.text(), "reached\n", "{}", said.err);
}

/// What the kernel is told to translate an address to is where the packets go.
#[test]
fn an_address_that_is_translated_to_a_denied_one_leads_nowhere() {
    let (world, _agent) = watched();
    let translated = "set -e; ip link set lo up; \
         for at in 192.0.2.1 198.51.100.1; do ip address add $at dev lo; done; \
         iptables -t nat -A OUTPUT -d 192.0.2.1 -j DNAT --to-destination 198.51.100.1; exec python3 -";
    let program = "import socket\n\
         server = socket.create_server(('198.51.100.1', 7000))\n\
         heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); heard.bind(('198.51.100.1', 7000))\n\
         heard.settimeout(1); server.settimeout(1)\n\
         def tried(way):\n\
         \ttry: return way()\n\
         \texcept OSError as error: return type(error).__name__\n\
         def connected():\n\
         \tsocket.create_connection(('192.0.2.1', 7000), timeout=1)\n\
         \treturn 'connected'\n\
         print(tried(connected))\n\
         print(tried(lambda: server.accept() and 'called'))\n\
         print(tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 7000))))\n\
         print(tried(lambda: heard.recv(9)))\n";
    let tried = || {
        let said = world.ssh(&[], &format!("unshare -n sh -c '{translated}'"), program.as_bytes());
        said.ok().text()
    };
    assert_eq!(tried(), "connected\ncalled\n1\nb'x'\n");
    world.restrict("walls", &["--deny", "198.51.100.0/24"]);
    assert_eq!(tried(), "TimeoutError\nTimeoutError\nPermissionError\nTimeoutError\n");
    for protocol in ["tcp", "udp"] {
        let denied = world.event("type=connection.denied", "the denial is told", |e| {
            e.event["data"]["ends"]["protocol"] == protocol
        });
        assert_eq!(denied.event["data"]["restriction"], "walls");
        assert_eq!(denied.event["data"]["ends"]["remote"]["address"], "198.51.100.1");
    }
}

#[test]
fn a_connection_that_is_open_is_taken_down_when_its_network_becomes_denied() {
    let (world, _agent) = watched();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&3; echo over");
    let mut live = world.proxied();
    live.args(["root@web-1.custody", "bash", "-c"]).arg(format!("'{script}'"));
    let live = live.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (_held, _) = listener.accept().unwrap();
    world.event("type=connection.opened", "the connection is told", |e| {
        e.event["data"]["ends"]["remote"]["port"] == port
    });
    let network = format!("127.0.0.1/32={port}");
    world.restrict("cut", &["--deny", &network]);
    let said = live.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "over\n");
    let denied = world.event("type=connection.denied", "that it was taken down is told", |_| true);
    assert_eq!(denied.event["data"]["reason"], "taken-down");
    assert_eq!(denied.event["data"]["restriction"], "cut");
    world.event("type=connection.closed", "and that it is closed", |e| {
        e.event["data"]["ends"]["remote"]["port"] == port
    });
}

#[test]
fn whoever_calls_a_session_from_a_denied_network_is_cut_off() {
    let (world, _agent) = watched();
    world.restrict("walls", &["--deny", "127.0.9.0/24"]);
    let port = world.dir().join("port");
    let serve = format!(
        "import os, socket\n\
         server = socket.create_server(('127.0.0.1', 0))\n\
         open('{at}.new', 'w').write(str(server.getsockname()[1])); os.rename('{at}.new', '{at}')\n\
         for caller in ('one', 'other'):\n\
         \tpeer = server.accept()[0]\n\
         \ttry: print(caller, peer.recv(1))\n\
         \texcept OSError as error: print(caller, type(error).__name__)",
        at = port.display()
    );
    let mut live = world.proxied();
    live.args(["root@web-1.custody", "python3", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut live = live.stderr(Stdio::null()).spawn().unwrap();
    live.stdin.take().unwrap().write_all(serve.as_bytes()).unwrap();
    let port =
        wait::until("the session listens", Duration::from_secs(30), || std::fs::read_to_string(&port).ok());
    let call = |from: &str, then: &str| {
        let call = format!(
            "import socket; peer = socket.create_connection(('127.0.0.1', {port}), source_address=('{from}', 0)); {then}"
        );
        run(Command::new("python3").args(["-c", &call]), b"", Duration::from_secs(30))
    };
    // Says nothing, and waits until it is cut off.
    call("127.0.9.7", "peer.recv(1)");
    call("127.0.8.7", "peer.send(b'x')").ok();
    let said = String::from_utf8(live.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(said.lines().last(), Some("other b'x'"), "{said}");
    assert!(said.starts_with("one ConnectionAbortedError\n"), "{said}");
    let denied = world.event("type=connection.denied", "that it was cut off is told", |_| true);
    assert_eq!(denied.event["data"]["reason"], "taken-down");
    assert_eq!(denied.event["data"]["restriction"], "walls");
    assert_eq!(denied.event["data"]["direction"], "inbound");
    assert_eq!(denied.event["data"]["ends"]["remote"]["address"], "127.0.9.7");
}

#[test]
fn a_denial_may_end_the_session_and_a_restriction_needs_an_agent() {
    let (world, agent) = watched();
    world.restrict("strict", &["--allow", "192.0.2.0/24", "--end-session"]);
    let said = world.ssh(&[], "exec 2>/dev/null; echo > /dev/udp/127.0.0.1/9; sleep 60", b"");
    assert_ne!(said.code, 0);
    let denied = world.event("type=connection.denied", "the denial is told", |_| true);
    let ended =
        world.event("type=session.ended", "the session ends", |e| e.event["data"]["reason"] == "terminated");
    assert_eq!(ended.event["cause"], denied.event["id"]);
    drop(agent);
    world.demand_agent("none");
    let said = world.ssh(&[], "true", b"");
    assert!(said.err.contains("no agent that could hold it to that"), "{}", said.err);
}

#[test]
fn a_restricted_session_ends_without_the_agent_that_held_it_to_that() {
    let world = World::start();
    world.demand_agent("optional");
    let mut agent = Agent::join(&world, "web-1", "");
    agent.start(&world);
    world.restrict("strict", &["--deny", "192.0.2.0/24"]);
    let mut live = world.proxied();
    live.args(["root@web-1.custody", "/bin/sleep", "600"]).stdin(Stdio::null()).stderr(Stdio::null());
    let mut live = live.spawn().unwrap();
    world.event("type=command.executed", "it runs", |e| e.event["data"]["given"] == "/bin/sleep");
    agent.kill_now();
    let ended = world.event("type=session.ended", "it ends", |_| true);
    assert_eq!(ended.event["data"]["reason"], "node-lost");
    live.wait().unwrap();
}

#[test]
fn a_session_whose_packets_no_rule_reaches_ends_when_networks_are_denied() {
    let (world, _agent) = watched();
    let program = "import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); print(1, flush=True); time.sleep(600)";
    let mut ssh = world.proxied();
    ssh.args(["root@web-1.custody", &format!("python3 -c '{program}'")]).stdin(Stdio::null());
    let mut live = ssh.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    world.event("type=node.kernel-changed", "the socket is told", |e| {
        e.event["data"]["change"] == "socket-made"
    });
    world.restrict("strict", &["--deny", "192.0.2.0/24"]);
    let ended = world.event("type=session.ended", "it ends", |e| e.event["data"]["reason"] == "locked");
    let detail = ended.event["data"]["detail"].as_str().unwrap();
    assert!(detail.contains("can't hold it to what it may do now"), "{detail}");
    live.wait().unwrap();
}

#[test]
fn a_session_that_cannot_be_held_to_a_new_restriction_ends_and_no_agent_with_it() {
    let (world, mut agent) = watched();
    let restrict = |name: &str, from: u16| {
        let ports: Vec<_> = (0..9).map(|n| (from + 2 * n).to_string()).collect();
        let network = format!("192.0.2.0/24={}", ports.join(","));
        world.restrict(name, &["--deny", &network]);
    };
    restrict("one", 1000);
    let mut live = world.proxied();
    live.args(["root@web-1.custody", "/bin/sleep", "60"]).stdin(Stdio::null()).stderr(Stdio::null());
    let mut live = live.spawn().unwrap();
    world.event("type=command.executed", "it runs", |e| e.event["data"]["given"] == "/bin/sleep");
    // The kernel takes each, and not both: that many ranges of ports it can't hold for one network.
    restrict("two", 2000);
    let ended = world.event("type=session.ended", "it ends", |e| e.event["data"]["reason"] == "locked");
    let detail = ended.event["data"]["detail"].as_str().unwrap();
    assert!(detail.contains("can't hold it to what it may do now"), "{detail}");
    live.wait().unwrap();
    // It still stands in the agent's file: at its next start it is no harm to others.
    agent.kill_now();
    agent.start(&world);
    let said = world.ssh(&[], "true", b"");
    assert!(said.code != 0 && said.err.contains("port ranges"), "{}", said.err);
    world.admin.custody(&["restrict", "rm", "two"]);
    let said = world.ssh(&[], "true", b"");
    assert_eq!(said.code, 0, "{}", said.err);
}
