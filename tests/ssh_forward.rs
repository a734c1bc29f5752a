//! Connections that carry no program: forwards, remote forwards, sockets, the agent, X11. Each works through the proxy
//! as it does straight to the same sshd, and each is decided and told. The numbers are those of the kinds of fault
//! that other proxies had.

use super::ssh_exec::Master;
use super::ssh_refused::forged;
use custody_tests::process::{Running, free_port, run};
use custody_tests::servers::custodyd::{Entry, layout};
use custody_tests::servers::sshd::{keygen, path};
use custody_tests::servers::{World, python};
use custody_tests::wait::{self, DEADLINE};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

/// What is at the far end of a forward: it sends back what it gets, and closes when the other side has.
fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    port
}

/// `ssh` that tells why a channel wasn't opened: the tests' usual one is too quiet for that.
fn loud(world: &World) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(world.operator.dir.join("ssh_config")).args(["-o", "BatchMode=yes"]);
    ssh.env_remove("SSH_AUTH_SOCK");
    ssh
}

/// Sends, ends its side, and reads to the end.
fn exchange(mut stream: TcpStream, data: &[u8]) -> Vec<u8> {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let data = data.to_vec();
    let writing = std::thread::spawn(move || {
        writer.write_all(&data).and_then(|()| writer.shutdown(Shutdown::Write)).unwrap();
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    writing.join().unwrap();
    back
}

fn connect(port: u16) -> TcpStream {
    wait::until("somebody listens", DEADLINE, || TcpStream::connect(("127.0.0.1", port)).ok())
}

/// The `connection.requested` with this kind and port, and the event that says its end.
fn connection(world: &World, kind: &str, port: u16) -> (Entry, Entry) {
    let requested = world.event("type=connection.requested", "the connection is in the log", |e| {
        e.event["data"]["kind"] == kind && e.event["data"]["place"]["port"] == port
    });
    (requested.clone(), end_of(world, &requested))
}

fn end_of(world: &World, requested: &Entry) -> Entry {
    wait::until("its end is in the log", DEADLINE, || {
        ["connection.completed", "connection.failed"]
            .iter()
            .flat_map(|kind| world.entries(&format!("type={kind}")))
            .find(|e| e.event["cause"] == requested.event["id"])
    })
}

/// The decision that allowed it stands before it.
#[track_caller]
fn decided(world: &World, requested: &Entry, action: &str) {
    let cause = requested.event["cause"].as_str().unwrap();
    let decision = world
        .entries("type=decision.made")
        .into_iter()
        .find(|e| e.event["id"] == cause)
        .unwrap_or_else(|| panic!("no decision before {}", requested.line));
    assert_eq!(decision.event["data"]["action"], action);
    assert_eq!(decision.event["data"]["allowed"], true);
    assert_eq!(decision.index + 1, requested.index, "both in one batch");
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 9, 10: `-W`, `-N -L` and `-D` as the first thing on a connection; the hashes are those of what moved.
#[test]
fn forwards_of_the_client_work_as_directly_and_are_told() {
    let world = World::start();
    let far = echo_server();
    let data: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();

    let to = format!("127.0.0.1:{far}");
    let direct = run(world.web.direct().args(["-W", &to, "root@127.0.0.1"]), &data, DEADLINE).ok();
    let proxied = run(world.proxied().args(["-W", &to, "root@web-1.custody"]), &data, DEADLINE).ok();
    assert_eq!(proxied.out.len(), data.len());
    assert!(proxied.out == direct.out && proxied.out == data);
    let (requested, completed) = connection(&world, "forward", far);
    decided(&world, &requested, "ssh:forward");
    assert_eq!(requested.event["data"]["place"]["host"], "127.0.0.1");
    assert_eq!(requested.event.get("outcome"), None, "nothing has happened yet");
    let (end, sum) = (&completed.event["data"], hash(&data));
    assert_eq!((&end["bytes_in"], &end["bytes_out"]), (&data.len().into(), &data.len().into()));
    assert_eq!((&end["input_sha256"], &end["output_sha256"]), (&sum.clone().into(), &sum.into()));
    assert_eq!(completed.event["outcome"], "success");

    let (local, socks) = (free_port(), free_port());
    let mut ssh = world.proxied();
    ssh.args([
        "-N",
        "-L",
        &format!("{local}:localhost:{far}"),
        "-D",
        &socks.to_string(),
        "root@web-1.custody",
    ]);
    let _forwarding = Running::start("ssh -N -L -D", ssh.stdin(Stdio::null()));
    assert_eq!(exchange(connect(local), b"through -L"), b"through -L");
    let (requested, _) = connection_to(&world, "localhost", far);
    assert!(requested.event["data"]["origin"]["port"].is_u64());

    // SOCKS 5 with a name, which the target looks up; it is told as it was written.
    let mut stream = connect(socks);
    stream.write_all(&[5, 1, 0]).unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).unwrap();
    let name = b"LocalHost";
    let mut ask = vec![5, 1, 0, 3, u8::try_from(name.len()).unwrap()];
    ask.extend_from_slice(name);
    ask.extend_from_slice(&far.to_be_bytes());
    stream.write_all(&ask).unwrap();
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[1], 0, "the proxy of -D refused");
    assert_eq!(exchange(stream, b"through -D"), b"through -D");
    connection_to(&world, "LocalHost", far);
    assert!(world.entries("type=command.requested").is_empty(), "nobody asked for a program");
}

fn connection_to(world: &World, host: &str, port: u16) -> (Entry, Entry) {
    let requested = world.event("type=connection.requested", "the connection is in the log", |e| {
        let place = &e.event["data"]["place"];
        place["host"] == host && place["port"] == port
    });
    (requested.clone(), end_of(world, &requested))
}

/// 10: a tunnel to an SSH port, with a whole session in it that the proxy can't see, is an event of its own.
#[test]
fn a_tunnel_to_an_ssh_port_is_told_and_can_be_refused() {
    let world = World::start();
    let inner = |world: &World| {
        let config = world.operator.dir.join("ssh_config");
        let tunnel =
            format!("ProxyCommand=ssh -F {} -o BatchMode=yes -W %h:%p root@web-1.custody", config.display());
        run(world.web.direct().args(["-o", &tunnel, "root@127.0.0.1", "echo inside"]), b"", DEADLINE)
    };
    assert_eq!(inner(&world).ok().text(), "inside\n");
    let (requested, completed) = connection(&world, "forward", world.web.port);
    decided(&world, &requested, "ssh:forward");
    assert_eq!(completed.event["data"]["channel"], requested.event["data"]["channel"]);

    let far = echo_server();
    world.policy(
        "tunnels",
        &format!(
            r#"@id("no-tunnel-to-ssh")
forbid(principal, action == Action::"ssh:forward", resource) when {{ context.port == {} }};
@id("nothing-in-this-network")
forbid(principal, action == Action::"ssh:forward", resource)
when {{ context has address && context.address.isInRange(ip("127.8.0.0/16")) }};
"#,
            world.web.port
        ),
    );
    let refused = inner(&world);
    assert_eq!((refused.code, refused.text().as_str()), (255, ""));
    assert!(refused.err.contains("administratively prohibited"), "{}", refused.err);
    assert!(refused.err.contains("denied by no-tunnel-to-ssh"), "{}", refused.err);
    let before = world.web.log().matches("direct-tcpip").count();
    // However the address is written.
    for host in ["127.8.0.1", "127.524289", "0x7f.8.1"] {
        let said =
            run(loud(&world).args(["-W", &format!("{host}:{far}"), "root@web-1.custody"]), b"", DEADLINE);
        assert!(said.err.contains("denied by nothing-in-this-network"), "{host}: {}", said.err);
    }
    assert_eq!(world.web.log().matches("direct-tcpip").count(), before, "the target heard of it");
    let denied = world.event("type=decision.made", "the denial is in the log", |e| {
        e.event["data"]["context"]["host"] == "0x7f.8.1"
    });
    assert_eq!(
        (&denied.event["data"]["allowed"], &denied.event["outcome"]),
        (&json!(false), &json!("denied"))
    );
    assert_eq!(denied.event["data"]["context"]["address"], "127.8.0.1");
    let beside =
        run(world.proxied().args(["-W", &format!("127.0.0.1:{far}"), "root@web-1.custody"]), b"x", DEADLINE);
    assert_eq!(beside.ok().out, b"x");
}

/// 6: a forward that never connects, and one that is refused, hold nothing up.
#[test]
fn a_forward_that_never_connects_holds_nothing_up() {
    let world = World::start();
    let master = Master::open(&world);
    let closed = free_port();
    let refused = run(&mut master.ssh(&["-W", &format!("127.0.0.1:{closed}")]), b"", DEADLINE);
    assert_ne!(refused.code, 0);
    let (requested, failed) = connection(&world, "forward", closed);
    assert_eq!(failed.event["data"]["code"], 2, "{}", failed.line);
    assert_eq!(failed.event["data"]["reason"], "Connection refused");
    assert_eq!(
        (&failed.event["type"], &failed.event["outcome"]),
        (&json!("connection.failed"), &json!("failure"))
    );
    decided(&world, &requested, "ssh:forward");

    // A listener whose queue is full: the next connection gets no answer at all.
    let mut silent = python::script("silent_port.py", &[]);
    let mut silent = silent.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(silent.stdout.take().unwrap()), &mut line)
        .unwrap();
    let port: u16 = line.trim().parse().unwrap();
    let mut hanging = master.ssh(&["-W", &format!("127.0.0.1:{port}")]);
    let mut hanging = hanging.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    world.event("type=connection.requested", "the connection is asked for", |e| {
        e.event["data"]["place"]["port"] == port
    });
    for _ in 0..5 {
        let beside = run(&mut master.command("echo beside"), b"", DEADLINE).ok();
        assert_eq!(beside.text(), "beside\n");
    }
    let far = echo_server();
    let another = run(&mut master.ssh(&["-W", &format!("127.0.0.1:{far}")]), b"another", DEADLINE);
    assert_eq!(another.ok().out, b"another");
    assert!(hanging.try_wait().unwrap().is_none(), "it hangs as it would directly");
    hanging.kill().unwrap();
    hanging.wait().unwrap();
    let beside = run(&mut master.command("echo after"), b"", DEADLINE).ok();
    assert_eq!(beside.text(), "after\n");
    drop(master);
    let (_, failed) = connection(&world, "forward", port);
    assert_eq!(failed.event["type"], "connection.failed", "{}", failed.line);
    silent.kill().unwrap();
    silent.wait().unwrap();
}

/// 7: many connections at once on one session, each with its own events.
#[test]
fn many_connections_of_one_session_are_told_apart() {
    let world = World::start();
    let master = Master::open(&world);
    let (local, far) = (free_port(), echo_server());
    run(&mut master.control("forward", &["-L", &format!("{local}:127.0.0.1:{far}")]), b"", DEADLINE).ok();
    let threads: Vec<_> = (0..40_usize)
        .map(|n| {
            std::thread::spawn(move || {
                let data = vec![u8::try_from(n).unwrap(); 10_000 + n];
                assert!(exchange(connect(local), &data) == data, "connection {n}");
            })
        })
        .collect();
    assert_eq!(run(&mut master.command("echo beside"), b"", DEADLINE).ok().text(), "beside\n");
    for thread in threads {
        thread.join().unwrap();
    }
    wait::until_true("each has its end", DEADLINE, || world.entries("type=connection.completed").len() == 40);
    let mut sizes: Vec<u64> = world
        .entries("type=connection.completed")
        .iter()
        .map(|e| {
            assert_eq!(e.event["data"]["bytes_in"], e.event["data"]["bytes_out"]);
            e.event["data"]["bytes_in"].as_u64().unwrap()
        })
        .collect();
    sizes.sort_unstable();
    assert_eq!(sizes, (10_000..10_040).collect::<Vec<u64>>());
}

/// 8: port 0 and the port that is told, cancel, the same port again, names.
#[test]
fn remote_forwards_are_told_with_their_port_and_end_when_cancelled() {
    let world = World::start_with(&["GatewayPorts clientspecified"]);
    let far = echo_server();
    let master = Master::open(&world);
    for host in ["", "localhost:", "*:", "127.0.0.1:"] {
        let said =
            run(&mut master.control("forward", &["-R", &format!("{host}0:127.0.0.1:{far}")]), b"", DEADLINE)
                .ok();
        let port: u16 =
            said.text().trim().parse().unwrap_or_else(|_| panic!("{host}: {}{}", said.text(), said.err));
        assert_eq!(exchange(connect(port), host.as_bytes()), host.as_bytes());
        assert_eq!(exchange(connect(port), b"again"), b"again");
        let opened = world.event("type=connection.listen-opened", "the listener is in the log", |e| {
            e.event["data"]["place"]["port"] == port
        });
        let requested = world
            .entries("type=connection.listen-requested")
            .into_iter()
            .find(|e| e.event["id"] == opened.event["cause"]);
        let requested = requested.unwrap();
        decided(&world, &requested, "ssh:listen");
        assert_eq!(requested.event["data"]["place"]["port"], 0);
        let (accepted, completed) = connection(&world, "accepted", port);
        assert_eq!(accepted.event["cause"], requested.event["id"]);
        assert_eq!(accepted.event["data"]["origin"]["host"], "127.0.0.1");
        assert_eq!(completed.event["data"]["bytes_out"], host.len());

        let any = ["-R", &format!("{host}0:127.0.0.1:{far}")];
        run(&mut master.control("cancel", &any), b"", DEADLINE).ok();
        let closed = world.event("type=connection.listen-closed", "its end is in the log", |e| {
            e.event["cause"] == requested.event["id"]
        });
        assert_eq!(
            (&closed.event["data"]["reason"], &closed.event["data"]["connections"]),
            (&json!("cancelled"), &json!(2))
        );
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "{host}: the port is still taken");

        // A port that is asked for by its number, twice: cancelling has freed it.
        let port = free_port();
        let given = ["-R", &format!("{host}{port}:127.0.0.1:{far}")];
        for round in ["once", "twice"] {
            run(&mut master.control("forward", &given), b"", DEADLINE).ok();
            assert_eq!(exchange(connect(port), round.as_bytes()), round.as_bytes());
            run(&mut master.control("cancel", &given), b"", DEADLINE).ok();
            let freed = || TcpStream::connect(("127.0.0.1", port)).is_err();
            wait::until_true("the port is free", DEADLINE, freed);
        }
    }
}

/// 8, 9: `-N -R 0` as the first thing; what the target refuses is told; what lives at the end is told as over.
#[test]
fn a_listener_that_lives_ends_with_its_session_and_one_that_is_refused_is_told() {
    // A port that is taken at one of two addresses is none that is refused.
    let world = World::start_with(&["GatewayPorts clientspecified"]);
    let far = echo_server();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = (taken.local_addr().unwrap().port(), taken);
    let refused = run(
        world.proxied().args([
            "-N",
            "-o",
            "ExitOnForwardFailure=yes",
            "-R",
            &format!("127.0.0.1:{}:127.0.0.1:{far}", taken.0),
            "root@web-1.custody",
        ]),
        b"",
        DEADLINE,
    );
    assert_eq!(refused.code, 255, "{}", refused.err);
    let failed = world.event("type=connection.failed", "the refusal is in the log", |_| true);
    assert_eq!(failed.event["data"]["reason"], "the target refused to listen");

    let mut ssh = world.proxied();
    ssh.args(["-N", "-R", &format!("0:127.0.0.1:{far}"), "root@web-1.custody"]).stdin(Stdio::null());
    let forwarding = Running::start("ssh -N -R 0", &mut ssh);
    let opened = world.event("type=connection.listen-opened", "the port is told", |_| true);
    let port = u16::try_from(opened.event["data"]["place"]["port"].as_u64().unwrap()).unwrap();
    assert_eq!(exchange(connect(port), b"back"), b"back");
    drop(forwarding);
    let closed = world.event("type=connection.listen-closed", "its end is in the log", |_| true);
    assert_eq!(
        closed.event["data"],
        json!({"connections": 1, "place": opened.event["data"]["place"], "reason": "session-ended"})
    );

    world.policy(
        "listen",
        r#"@id("no-listeners") forbid(principal, action == Action::"ssh:listen", resource);"#,
    );
    let mut ssh = world.proxied();
    ssh.args([
        "-o",
        "ExitOnForwardFailure=yes",
        "-R",
        &format!("0:127.0.0.1:{far}"),
        "root@web-1.custody",
        "true",
    ]);
    assert_eq!(run(&mut ssh, b"", DEADLINE).code, 255);
    world.event("type=decision.made", "the denial is in the log", |e| {
        e.event["data"]["policies"] == json!(["no-listeners"]) && e.event["data"]["action"] == "ssh:listen"
    });
}

/// Sockets instead of ports, either way.
#[test]
fn sockets_are_forwarded_both_ways() {
    let world = World::start();
    let path_of = |name: &str| world.dir().join(name).display().to_string();
    let far = path_of("far.sock");
    let listener = UnixListener::bind(&far).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    let (near, remote) = (path_of("near.sock"), path_of("remote.sock"));
    let mut ssh = world.proxied();
    ssh.args(["-N", "-L", &format!("{near}:{far}"), "-R", &format!("{remote}:{far}"), "root@web-1.custody"]);
    let forwarding = Running::start("ssh -N with sockets", ssh.stdin(Stdio::null()));
    for socket in [&near, &remote] {
        let mut stream = wait::until("the socket is there", DEADLINE, || UnixStream::connect(socket).ok());
        stream.write_all(b"by socket").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut back = String::new();
        stream.read_to_string(&mut back).unwrap();
        assert_eq!(back, "by socket");
    }
    for (kind, at) in [("forward", &far), ("accepted", &remote)] {
        let requested = world.event("type=connection.requested", "the connection is in the log", |e| {
            e.event["data"]["kind"] == kind
        });
        assert_eq!(requested.event["data"]["place"], json!({ "path": at }));
        assert_eq!(end_of(&world, &requested).event["data"]["bytes_in"], 9);
    }
    drop(forwarding);
    let closed = world.event("type=connection.listen-closed", "its end is in the log", |_| true);
    assert_eq!(closed.event["data"]["place"], json!({ "path": remote }));
}

/// An ssh-agent with one key.
struct Agent {
    socket: String,
    _process: Running,
}

impl Agent {
    fn start(dir: &Path) -> Self {
        let (socket, key) = (dir.join("agent.sock"), dir.join("agent-key"));
        keygen(&["-q", "-t", "ed25519", "-N", "", "-C", "a key of the agent", "-f", path(&key)]);
        let mut command = Command::new("ssh-agent");
        command.args(["-D", "-a", path(&socket)]).stdout(Stdio::null());
        let process = Running::start("ssh-agent", &mut command);
        wait::until_true("the agent listens", DEADLINE, || socket.exists());
        run(Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket), b"", DEADLINE).ok();
        Self { socket: socket.display().to_string(), _process: process }
    }
}

#[test]
fn the_agent_is_used_at_the_target_and_each_use_is_told() {
    let world = World::start();
    let agent = Agent::start(world.dir());
    let ssh = |world: &World| {
        let mut ssh = world.proxied();
        ssh.args(["-A", "root@web-1.custody", "ssh-add -l; ssh-add -l"]).env("SSH_AUTH_SOCK", &agent.socket);
        run(&mut ssh, b"", DEADLINE)
    };
    let said = ssh(&world).ok();
    assert_eq!(said.text().matches("a key of the agent").count(), 2, "{}{}", said.text(), said.err);
    let offered = world.event("type=connection.listen-requested", "the agent is in the log", |_| true);
    decided(&world, &offered, "ssh:agent");
    assert_eq!(offered.event["data"], json!({"channel": 0, "offer": "agent"}));
    let uses = world.entries("type=connection.requested");
    assert_eq!(uses.len(), 2, "two uses");
    for used in &uses {
        assert_eq!(
            (&used.event["data"]["kind"], &used.event["cause"]),
            (&json!("agent"), &offered.event["id"])
        );
        assert_eq!(end_of(&world, used).event["type"], "connection.completed");
    }
    let command = world.event("type=command.requested", "the command is in the log", |_| true);
    assert!(offered.index < command.index && command.index < uses[0].index);

    world.policy("agent", r#"@id("no-agents") forbid(principal, action == Action::"ssh:agent", resource);"#);
    let refused = ssh(&world);
    assert!(refused.err.contains("custody: denied: denied by no-agents"), "{}", refused.err);
    assert!(!refused.text().contains("a key of the agent"));
    assert_eq!(world.entries("type=connection.requested").len(), 2);
}

/// A program at the target that speaks to a server here, as far as that matters: it greets, and gets a greeting.
#[test]
fn windows_come_to_the_x_server_here_and_each_connection_is_told() {
    let world = World::start_with(&["X11Forwarding yes", "X11UseLocalhost yes"]);
    // A display's port is 6000 and its number.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let display = server.local_addr().unwrap().port().checked_sub(6000).expect("a port above 6000");
    let greeted = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let mut greeting = [0; 48];
        stream.read_exact(&mut greeting).unwrap();
        stream.write_all(b"a window").unwrap();
        greeting
    });
    let script = custody_tests::root().join("tests/strangers/x11_client.py");
    let mut ssh = world.proxied();
    ssh.args(["-Y", "root@web-1.custody", &format!("python3 {}", script.display())]);
    ssh.env("DISPLAY", format!("localhost:{display}")).env("XAUTHORITY", world.dir().join("xauthority"));
    let said = run(&mut ssh, b"", DEADLINE);
    assert_eq!((said.code, said.text().as_str()), (0, "a window\n"), "{}{}", said.err, world.web.log());
    assert_eq!(&greeted.join().unwrap()[12..30], b"MIT-MAGIC-COOKIE-1");
    let offered = world.event("type=connection.listen-requested", "the X server is in the log", |_| true);
    decided(&world, &offered, "ssh:x11");
    let used = world.event("type=connection.requested", "its use is in the log", |_| true);
    assert_eq!((&used.event["data"]["kind"], &used.event["cause"]), (&json!("x11"), &offered.event["id"]));
    assert_eq!(end_of(&world, &used).event["data"]["bytes_in"], 8);
    assert!(!world.entries("").iter().any(|e| e.line.contains("MIT-MAGIC")), "the cookie is a secret");
}

/// 14: what the certificate doesn't permit is refused, whatever policy says.
#[test]
fn a_certificate_without_forwarding_forwards_nothing() {
    let world = World::start_with(&["X11Forwarding yes"]);
    let ca = world.custodyd.data().join(layout::CLIENT_CA_KEY);
    let options = ["-n", "bob", "-V", "-5m:+1h", "-O", "clear", "-O", "permit-pty"];
    let key = forged(&world, "narrow", &ca, &options);
    let agent = Agent::start(world.dir());
    let ssh = |arguments: &[&str]| {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
        ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-i", path(&key)]);
        ssh.args(["-p", &world.custodyd.ssh_port.to_string()]).args(arguments);
        run(ssh.env("SSH_AUTH_SOCK", &agent.socket).env("DISPLAY", "localhost:9"), b"", DEADLINE)
    };
    let far = echo_server();
    let who = "root+web-1@127.0.0.1";
    let refused = ssh(&["-W", &format!("127.0.0.1:{far}"), who]);
    assert!(refused.err.contains("administratively prohibited"), "{}", refused.err);
    assert_eq!(ssh(&["-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", who, "true"]).code, 255);
    let said = ssh(&["-A", "-Y", who, "echo ${SSH_AUTH_SOCK:-none} ${DISPLAY:-none}"]);
    assert_eq!(said.text(), "none none\n");
    assert!(said.err.contains("your certificate permits no agent forwarding"), "{}", said.err);
    assert!(said.err.contains("your certificate permits no X11 forwarding"), "{}", said.err);
    wait::until_true("each refusal is in the log", DEADLINE, || {
        world.entries("type=connection.refused").len() == 4
    });
    for refused in world.entries("type=connection.refused") {
        assert_eq!(
            (&refused.event["data"]["by"], &refused.event["outcome"]),
            (&json!("client"), &json!("denied"))
        );
    }
    assert!(world.entries("type=connection.requested").is_empty());
    assert!(world.entries("type=connection.listen-requested").is_empty());
}

/// A target may open only what the client has offered.
#[test]
fn a_hostile_target_gets_at_nothing_that_was_not_offered() {
    let world = World::start();
    let agent = Agent::start(world.dir());
    let dir = world.dir().join("hostile");
    std::fs::create_dir(&dir).unwrap();
    let key = dir.join("host");
    keygen(&["-q", "-t", "ed25519", "-N", "", "-f", path(&key)]);
    let (port, public) = (free_port(), dir.join("host.pub"));
    let address = format!("127.0.0.1:{port}");
    world.admin.custody(&["node", "add", "hostile-1", &address, "--host-key", path(&public)]);
    world.admin.custody(&[
        "node",
        "enroll",
        "hostile-1",
        "--host-key-pub",
        path(&public),
        "--out",
        path(&dir),
    ]);
    let ca = dir.join("custody_target_ca.pub");
    let mut command = python::script("hostile_target.py", &[&port.to_string(), path(&key), path(&ca)]);
    let mut target = Running::start("hostile target", &mut command);
    target.wait_for_listener(port);
    let mut ssh = world.proxied();
    ssh.args(["root@hostile-1.custody", "try"]).env("SSH_AUTH_SOCK", &agent.socket);
    let said = run(&mut ssh, b"", DEADLINE);
    let told = "the client hasn't asked for it";
    assert_eq!(
        said.text(),
        format!("forwarded-tcpip {told}\nforwarded-streamlocal {told}\nagent {told}\nx11 {told}\n"),
        "{}",
        said.err
    );
    wait::until_true("each is in the log", DEADLINE, || world.entries("type=connection.refused").len() == 4);
    for refused in world.entries("type=connection.refused") {
        assert_eq!(refused.event["data"]["by"], "target");
    }
    assert!(world.entries("type=connection.requested").is_empty());
}

/// Clients that aren't OpenSSH, through the proxy and straight to the same sshd.
#[test]
fn strangers_forward_as_directly() {
    let world = World::start();
    let far = echo_server().to_string();
    let home = &world.operator.dir;
    let (proxy, sshd) = (world.custodyd.ssh_port.to_string(), world.web.port.to_string());
    let (id, certificate, direct) = (home.join("id"), home.join("id-cert.pub"), world.web.dir.join("direct"));
    for script in ["asyncssh_forward.py", "paramiko_forward.py"] {
        let straight = python::run(script, &[&sshd, "root", path(&direct), "", &far]);
        let proxied = python::run(script, &[&proxy, "root+web-1", path(&id), path(&certificate), &far]);
        assert_eq!(proxied, straight, "{script}");
        assert!(
            proxied.contains("direct hello\n") && proxied.contains("remote hello\n"),
            "{script}: {proxied}"
        );
        assert!(proxied.contains("refused 2\n") && proxied.contains("cancelled\n"), "{script}: {proxied}");
    }
}
