//! Each way in leads to the same: by `custody connect`, by `login+node`, by `ssh -J`; by SSH's own port or within TLS by
//! the API's, straight or through a load balancer.

use custody_tests::process::{Running, run};
use custody_tests::servers::World;
use custody_tests::servers::haproxy::Haproxy;
use custody_tests::servers::python;
use custody_tests::servers::sshd::path;
use custody_tests::servers::world::{HostProof, OPERATOR_PASSWORD};
use custody_tests::wait::{self, DEADLINE};
use sha2::{Digest, Sha256};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What the include of `custody login` leads to with these: the three ways.
const WAYS: [&[&str]; 3] =
    [&["root@web-1.custody"], &["root+web-1@custody"], &["-J", "custody", "root@web-1.custody"]];

fn login_within_tls(world: &World) {
    let mut login = world.operator.command(&["login", "--tls", "--password-stdin"]);
    let password = format!("{}\n", OPERATOR_PASSWORD);
    run(&mut login, password.as_bytes(), DEADLINE).ok();
}

fn each_way_as_directly(world: &World) {
    let command = "cat; echo err >&2; exit 42";
    let direct = world.direct(&[], command, b"given");
    for way in WAYS {
        let before = world.entries("type=session.requested").len();
        let said = run(world.proxied().args(way).arg(command), b"given", DEADLINE);
        assert_eq!((said.code, said.text()), (direct.code, direct.text()), "{way:?}: {}", said.err);
        assert!(said.err.ends_with("err\n"), "{way:?}: {}", said.err);
        let requested = world.entries("type=session.requested").split_off(before);
        assert_eq!(requested.len(), 1, "{way:?}");
        assert_eq!(requested[0].event["source"]["address"], "127.0.0.1", "{way:?}");
        assert_eq!(requested[0].event["target"]["name"], "web-1", "{way:?}");
    }
}

#[test]
fn three_ways_and_the_same_within_tls_lead_to_the_same() {
    let world = World::start();
    each_way_as_directly(&world);
    // Who jumps has proved himself twice: at the proxy, which is no session, and for the node.
    let came = world.entries("type=login.succeeded");
    let at_the_proxy = came.iter().filter(|e| e.event.get("session").is_none());
    let by_ssh = at_the_proxy.filter(|e| e.event["data"]["method"] == "ssh-certificate").count();
    assert_eq!(by_ssh, 1);

    login_within_tls(&world);
    let config = std::fs::read_to_string(world.operator.dir.join("ssh_config")).unwrap();
    assert!(config.contains("--tls") && !config.contains(&world.custodyd.ssh_port.to_string()), "{config}");
    each_way_as_directly(&world);
}

/// Straight and within TLS.
#[test]
fn others_that_read_the_configuration_get_there_too() {
    let world = World::start();
    let config = world.operator.dir.join("ssh_config");
    let readers = || python::run("config_readers.py", &[path(&config), "web-1.custody"]);
    assert_eq!(readers(), "paramiko 5\nasyncssh 6\none socket b'SSH-2.0-'\n");
    let copied = run(
        world.proxied().args(["-o", "ProxyUseFdpass=no", "root@web-1.custody", "cat"]),
        b"given",
        DEADLINE,
    );
    assert_eq!((copied.code, copied.text().as_str()), (0, "given"), "{}", copied.err);
    login_within_tls(&world);
    assert_eq!(readers(), "paramiko 5\nasyncssh 6\none socket b'SSH-2.0-'\n");
}

/// Some megabytes each way: windows are granted as bytes are taken, keys are exchanged meanwhile, nothing is lost.
#[test]
fn much_goes_through_a_jump_both_ways() {
    let world = World::start();
    let data: Vec<u8> = (0..30_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for tls in [false, true] {
        if tls {
            login_within_tls(&world);
        }
        let mut ssh = world.proxied();
        ssh.args(["-J", "custody", "-o", "RekeyLimit=5M", "root@web-1.custody", "cat"]);
        let said = run(&mut ssh, &data, Duration::from_secs(300));
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(Sha256::digest(&said.out) == Sha256::digest(&data), "{} bytes came back", said.out.len());
    }
}

/// Many sessions by one connection to the proxy; when that goes, they end.
#[test]
fn many_sessions_share_a_jump_and_end_with_it() {
    let world = World::start();
    let socket = world.dir().join("jump.sock");
    let mut jump = world.proxied();
    jump.args(["-M", "-N", "-S"]).arg(&socket).arg("custody").stdin(Stdio::null());
    let master = Running::start("ssh -M custody", &mut jump);
    wait::until_true("the jump is there", DEADLINE, || socket.exists());
    let config = world.operator.dir.join("ssh_config");
    let through =
        format!("ProxyCommand=ssh -F {} -S {} -W %h:22 custody", config.display(), socket.display());
    let inner = |command: &str| {
        let mut ssh = world.proxied();
        ssh.args(["-o", &through, "-o", "ProxyUseFdpass=no", "root@web-1.custody", command]);
        ssh
    };
    let start = |command: &str| Running::start("ssh", inner(command).stdin(Stdio::null()));
    let many: Vec<_> = (10..18).map(|status| (status, start(&format!("exit {status}")))).collect();
    for (status, mut one) in many {
        let ended = wait::until("it ends", DEADLINE, || one.ended());
        assert_eq!(ended.code(), Some(status));
    }
    assert_eq!(world.entries("type=session.requested").len(), 8);
    let by_jump = world.entries("type=login.succeeded");
    let ssh = by_jump.iter().filter(|e| e.event["data"]["method"] == "ssh-certificate");
    assert_eq!(ssh.filter(|e| e.event.get("session").is_none()).count(), 1, "one jump");

    let mut lasting = start("echo here; sleep 1000");
    let started = world.event("type=command.requested", "it runs", |e| {
        e.event["data"]["command"].to_string().contains("sleep 1000")
    });
    drop(master);
    let ended =
        world.event("type=session.ended", "it ends", |e| e.event["session"] == started.event["session"]);
    assert_eq!(ended.event["data"]["reason"], "client-closed");
    wait::until("ssh has noticed", DEADLINE, || lasting.ended());
}

/// The proxy itself is no place to be: no shell, no files, no forwards to anywhere but nodes.
#[test]
fn a_jump_leads_to_nodes_and_nowhere_else() {
    let world = World::start();
    let loud = |arguments: &[&str]| {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(world.operator.dir.join("ssh_config")).args(["-o", "BatchMode=yes"]);
        run(ssh.env_remove("SSH_AUTH_SOCK").args(arguments), b"", DEADLINE)
    };
    for arguments in [&["custody", "true"][..], &["-s", "custody", "sftp"], &["-tt", "custody"]] {
        let said = loud(arguments);
        assert_eq!(said.code, 255, "{arguments:?}");
        assert!(said.err.contains("ssh LOGIN+NODE@PROXY, or ssh -J PROXY LOGIN@NODE"), "{}", said.err);
    }
    // A place that is no node's name isn't one for a policy either; a node that nobody knows is denied and told.
    let said = loud(&["-W", "[::1]:22", "custody"]);
    assert!(said.err.contains("no name of a node"), "{}", said.err);
    assert_eq!(loud(&["-J", "custody", "root@nowhere.custody"]).code, 255);
    let denied = world.event("type=decision.made", "the denial is told", |e| {
        e.event["data"]["allowed"] == false && e.event["target"]["name"] == "nowhere"
    });
    assert_eq!(denied.event["data"]["action"], "ssh:connect");
    let said = loud(&["-o", "ExitOnForwardFailure=yes", "-N", "-R", "0:localhost:1", "custody"]);
    assert_eq!(said.code, 255, "{}", said.err);
    assert!(world.entries("type=connection.requested").is_empty());
    assert!(world.entries("type=session.requested").is_empty());
}

/// A locked person may come to the proxy and gets nowhere from it.
#[test]
fn a_lock_holds_whatever_way_one_comes() {
    let world = World::start();
    world.admin.custody(&["lock", "--user", "bob", "--reason", "seen elsewhere"]);
    for way in WAYS {
        let said = run(world.proxied().args(way).arg("true"), b"", DEADLINE);
        assert_eq!(said.code, 255, "{way:?}");
    }
    assert!(world.entries("type=session.requested").is_empty());
}

/// HAProxy in front of both ports: events have the person's address, not the balancer's; nobody else is believed.
#[test]
fn behind_a_balancer_the_source_is_the_persons() {
    const BALANCER: &str = "127.0.0.9";
    const PERSON: &str = "127.0.0.7";
    let mut world = World::start();
    world.custodyd.stop();
    world.custodyd.configure_ssh(&format!("proxy_protocol_from = [\"{BALANCER}/32\"]"));
    world.custodyd.configure_api(&format!("proxy_protocol_from = [\"{BALANCER}\"]"));
    world.custodyd.start();
    let haproxy = Haproxy::start(world.dir(), BALANCER, &[world.custodyd.ssh_port, world.custodyd.api_port]);
    let [ssh_port, api_port] = haproxy.ports[..] else { panic!("two ports") };

    let bind = format!("BindAddress={PERSON}");
    let by = |port: u16, bind: &str, user: &str| {
        let mut ssh = world.proxied();
        ssh.args(["-o", bind, "-o", &format!("Port={port}"), &format!("{user}@custody"), "echo", "through"]);
        run(&mut ssh, b"", DEADLINE)
    };
    assert_eq!(by(ssh_port, &bind, "root+web-1").ok().text(), "through\n");
    let source = |index: usize| world.entries("type=session.requested")[index].event["source"].clone();
    assert_eq!(source(0)["address"], PERSON);

    // Straight to the port: as ever, and with the balancer's address but without its header: not at all.
    let straight = world.custodyd.ssh_port;
    assert_eq!(by(straight, &bind, "root+web-1").ok().text(), "through\n");
    assert_eq!(source(1)["address"], PERSON);
    assert_eq!(by(straight, &format!("BindAddress={BALANCER}"), "root+web-1").code, 255);
    // Somebody who writes the header himself is no balancer.
    let liar = Haproxy::start(&world.dir().join("liar"), PERSON, &[straight]);
    assert_eq!(by(liar.ports[0], "BindAddress=127.0.0.1", "root+web-1").code, 255);
    assert_eq!(world.entries("type=session.requested").len(), 2);

    // The API, and SSH within its TLS.
    let api = format!("https://127.0.0.1:{api_port}");
    let mut login = world.operator.command(&["login", "--tls", "--api", &api, "--password-stdin"]);
    run(&mut login, format!("{OPERATOR_PASSWORD}\n").as_bytes(), DEADLINE).ok();
    assert_eq!(world.ssh(&[], "echo within", b"").ok().text(), "within\n");
    let port = source(2)["port"].as_u64().unwrap();
    assert_eq!(source(2)["address"], "127.0.0.1");
    assert!(port > 0 && port != u64::from(api_port));
}

/// A listener for both families is told `::ffff:127.0.0.1` of it.
#[test]
fn who_comes_by_ipv4_to_a_listener_for_both_is_told_by_that_address() {
    let mut world = World::start();
    world.custodyd.stop();
    let (file, port) = (world.custodyd.config(), world.custodyd.ssh_port);
    let config = std::fs::read_to_string(&file).unwrap();
    let both =
        config.replace(&format!("listen = \"127.0.0.1:{port}\""), &format!("listen = \"[::]:{port}\""));
    assert_ne!(both, config);
    std::fs::write(&file, both).unwrap();
    world.custodyd.start();
    assert_eq!(world.ssh(&[], "echo through", b"").ok().text(), "through\n");
    for kind in ["login.succeeded", "session.requested", "session.started"] {
        let told = world.entries(&format!("type={kind}&user=bob")).pop().unwrap();
        assert_eq!(told.event["source"]["address"], "127.0.0.1", "{kind}");
    }
}

/// Who stays in TLS when SSH is over takes up nothing.
#[test]
fn strangers_within_tls_are_let_go_when_ssh_is() {
    let world = World::start();
    let open = || std::fs::read_dir(format!("/proc/{}/fd", world.custodyd.pid())).unwrap().count();
    let before = open();
    let ca = world.operator.dir.join("ca.pem");
    let mut strangers =
        python::script("tls_stays.py", &[&world.custodyd.api_port.to_string(), path(&ca), "50"]);
    let mut strangers = strangers.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(strangers.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "there\n");
    wait::until_true("they are let go", DEADLINE, || open() < before + 10);
    assert!(strangers.try_wait().unwrap().is_none(), "they are still there");
    strangers.kill().unwrap();
    strangers.wait().unwrap();
}

/// For those who want no configuration: `custody ssh`, `custody scp` and a picker.
#[test]
fn the_client_runs_ssh_by_itself() {
    let world = World::start();
    let _other = world.add_node("db-1", HostProof::Pinned, &[]);
    let said = world.operator.try_custody(&["ssh", "root@web-1", "--", "cat; exit 7"], b"given");
    assert_eq!((said.code, said.text().as_str()), (7, "given"), "{}", said.err);
    let said = world
        .operator
        .try_custody(&["ssh", "-o", "-oLogLevel=QUIET", "root@db-1.custody", "--", "hostname"], b"");
    assert_eq!(said.code, 0, "{}", said.err);
    let said = world.operator.try_custody(&["ssh"], b"");
    assert!(said.err.contains("say which node: `custody ls` lists them"), "{}", said.err);
}

/// Who names no node at a terminal picks one: by arrows or by what he types; Ctrl-C and Escape leave it at that.
#[test]
fn without_a_node_one_is_picked() {
    let world = World::start();
    let _other = world.add_node("db-1", HostProof::Pinned, &[]);
    let pick = |keys: &str| {
        let command = world.operator.command(&["ssh", "--", "echo on $SSH_CONNECTION; exit 7"]);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words = std::iter::once(keys).chain(words.map(|word| word.to_str().unwrap()));
        let mut person = python::script("picker.py", &words.collect::<Vec<_>>());
        person.env("CUSTODY_HOME", &world.operator.dir).env_remove("SSH_AUTH_SOCK").env("NO_COLOR", "1");
        let before = world.entries("type=session.started").len();
        let said = run(&mut person, b"", DEADLINE).ok().text();
        let started = world.entries("type=session.started").split_off(before);
        let nodes: Vec<_> =
            started.iter().map(|e| e.event["target"]["name"].as_str().unwrap().to_owned()).collect();
        (nodes.join(" "), said)
    };
    let (first, said) = pick("enter");
    assert!(said.starts_with("on 127.0.0.1 ") && said.ends_with("cursor shown\nended 7\n"), "{said}");
    assert_eq!(first, "db-1");
    for (keys, node) in [("down enter", "web-1"), ("down up enter", "db-1"), ("w b 1 enter", "web-1")] {
        let (picked, said) = pick(keys);
        assert_eq!(picked, node, "{keys}: {said}");
    }
    let (none, said) = pick("down interrupt");
    assert_eq!((none.as_str(), said.as_str()), ("", "cursor shown\nended 130\n"));
    let (none, said) = pick("escape");
    assert_eq!((none.as_str(), said.as_str()), ("", "custody: no node was picked\ncursor shown\nended 1\n"));
}
