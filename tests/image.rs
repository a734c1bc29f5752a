//! The image of `docker/`, built on a base like Debian's own, and the demo's session with the daemon in a container.

use custody_tests::pictures::yaml;
use custody_tests::process::{free_port, run};
use custody_tests::servers::agent::{START_DEADLINE, unpin};
use custody_tests::servers::docker::Docker;
use custody_tests::servers::setup;
use custody_tests::servers::sshd::path;
use custody_tests::servers::world::{ADMIN_PASSWORD, OPERATOR_PASSWORD, OPERATORS};
use custody_tests::servers::{Host, Loki, Sshd};
use custody_tests::wait::{self, DEADLINE};
use custody_tests::{program, root};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the image from programs that are there: `custody`.
fn build(docker: &Docker, dir: &Path) {
    let base = setup::folder("docker/install.sh", &["--print"]).join("base.tar");
    docker.run(&["import", path(&base), "debian:bookworm-slim"], b"");
    let programs = dir.join("programs");
    std::fs::create_dir(&programs).unwrap();
    for name in ["custodyd", "custody"] {
        // Without what only a debugger reads, they are a quarter as large.
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(programs.join(name)).arg(program(name));
        run(&mut strip, b"", DEADLINE).ok();
    }
    let dockerfile = root().join("docker/Dockerfile");
    let build = ["build", "--network", "none", "--target", "built", "--tag", "custody", "--file"];
    docker.run(&[&build[..], &[path(&dockerfile), path(&programs)]].concat(), b"");
}

/// The configuration that compose.yaml mounts, with free ports of loopback in place of its own, and with a Loki that is there
/// and an OpenSearch that isn't.
fn configuration(api: u16, ssh: u16, loki: &str) -> String {
    let mut text = std::fs::read_to_string(root().join("docker/custody.toml")).unwrap();
    for (its, ours) in [
        ("0.0.0.0:3080", format!("127.0.0.1:{api}")),
        ("0.0.0.0:3022", format!("127.0.0.1:{ssh}")),
        ("127.0.0.1:3022", format!("127.0.0.1:{ssh}")),
        ("172.31.77.2", "127.0.0.1".to_owned()),
        ("http://loki:3100", loki.to_owned()),
        ("http://opensearch:9200", format!("http://127.0.0.1:{}", free_port())),
        ("kafka:19092", format!("127.0.0.1:{}", free_port())),
    ] {
        assert!(text.contains(its), "docker/custody.toml names {its}");
        text = text.replace(its, &ours);
    }
    text
}

/// What `docker/agent.yaml` says, for the plain client; the Docker of tests has process ids of its own.
struct Agent<'a> {
    docker: &'a Docker,
    config: PathBuf,
    folder: &'a str,
}

impl Agent<'_> {
    /// Runs the image with what an agent has.
    fn run(&self, options: &[&str], arguments: &[&str], input: &str) -> String {
        let service = &yaml("docker/agent.yaml")["services"]["agent"];
        let one = |name: &str| service[name].as_str().unwrap().to_owned();
        let all = |name: &str| -> Vec<String> {
            service[name].as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
        };
        // Files beside it are a person's own.
        let mut volumes = all("volumes");
        volumes.retain(|volume| !volume.starts_with("./"));
        volumes.push(format!("{}:/etc/custody/agent.toml:ro", path(&self.config)));
        volumes.push(format!("{0}:{0}", self.folder));
        let mut run = vec!["run".to_owned()];
        run.extend(options.iter().map(|option| (*option).to_owned()));
        for (option, values) in [
            ("--user", vec![one("user")]),
            ("--pid", vec![one("pid")]),
            ("--cgroupns", vec![one("cgroup")]),
            ("--network", vec![one("network_mode")]),
            ("--cap-drop", all("cap_drop")),
            ("--cap-add", all("cap_add")),
            ("--security-opt", all("security_opt")),
            ("--volume", volumes),
        ] {
            run.extend(values.into_iter().flat_map(|value| [option.to_owned(), value]));
        }
        run.push("custody".to_owned());
        run.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let run: Vec<&str> = run.iter().map(String::as_str).collect();
        self.docker.run(&run, input.as_bytes()).text()
    }
}

/// Where the container's programs stay; they go with this value.
struct Pins(String);

impl Drop for Pins {
    fn drop(&mut self) {
        unpin(Path::new(&self.0));
    }
}

#[test]
fn the_image_runs_the_demos_session() {
    let dir = tempfile::Builder::new().prefix("custody-image-").tempdir().unwrap();
    let docker = Docker::start();
    build(&docker, dir.path());
    let said = docker.run(&["run", "--rm", "--network", "none", "custody", "--version"], b"").text();
    assert!(said.starts_with("custodyd "), "{said}");
    let user = docker.run(&["inspect", "--format", "{{.Config.User}}", "custody"], b"").text();
    assert_eq!(user.trim(), "custody", "not root");

    let mut loki = Loki::prepare(&dir.path().join("loki"), &[]);
    loki.start();
    let (api, ssh) = (free_port(), free_port());
    let config = dir.path().join("custody.toml");
    std::fs::write(&config, configuration(api, ssh, &loki.url())).unwrap();
    let mount = format!("{}:/etc/custody/custody.toml:ro", path(&config));
    let daemon = ["--network", "host", "--volume", "custody:/var/lib/custody", "--volume", &mount];
    let init = ["custody", "init", "--config", "/etc/custody/custody.toml", "--admin", "alice"];
    docker.run(
        &[&["run", "--rm", "--interactive"], &daemon[..], &init].concat(),
        format!("{ADMIN_PASSWORD}\n").as_bytes(),
    );
    docker.run(&[&["run", "--detach", "--name", "custodyd"], &daemon[..], &["custody"]].concat(), b"");
    let ca = dir.path().join("ca.pem");
    let said = docker.run(&["exec", "custodyd", "cat", "/var/lib/custody/ca/x509-server-ca.pem"], b"");
    std::fs::write(&ca, said.out).unwrap();
    let url = format!("https://127.0.0.1:{api}");
    wait::until_true("the container serves", DEADLINE, || {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--fail", "--cacert", path(&ca), &format!("{url}/healthz")]);
        run(&mut curl, b"", DEADLINE).code == 0
    });

    // As compose.yaml finds out whether it is healthy.
    let listens = format!("exec 3<>/dev/tcp/127.0.0.1/{api}");
    docker.run(&["exec", "custodyd", "bash", "-c", &listens], b"");

    // The client of the same image, whose homes are folders of this machine.
    let here = path(dir.path());
    let volume = format!("{here}:{here}");
    let client = |user: &str, arguments: &[&str], input: &str| {
        let home = format!("CUSTODY_HOME={here}/{user}");
        let run = [
            "run",
            "--rm",
            "--interactive",
            "--network",
            "host",
            "--user",
            "0:0",
            "--volume",
            &volume,
            "--volume",
            "custody:/var/lib/custody",
        ];
        let run = [&run[..], &["--env", &home, "--entrypoint", "custody", "custody"], arguments].concat();
        docker.run(&run, input.as_bytes()).text()
    };
    let login = |user: &str, password: &str| {
        let arguments = ["login", "--api", &url, "--ca", path(&ca), "--user", user, "--password-stdin"];
        client(user, &arguments, &format!("{password}\n"));
    };
    login("alice", ADMIN_PASSWORD);
    let mut target = Sshd::prepare(&dir.path().join("web-1"));
    client("alice", &["node", "add", "web-1", &target.address()], "");
    let (host_key, enrolled) = (target.dir.join("host.pub"), target.dir.join("enrolled"));
    let enroll = ["node", "enroll", "web-1", "--host-key-pub", path(&host_key), "--out", path(&enrolled)];
    std::fs::create_dir(&enrolled).unwrap();
    let lines: Vec<String> = client("alice", &enroll, "")
        .lines()
        .filter(|line| line.starts_with("TrustedUserCAKeys ") || line.starts_with("HostCertificate "))
        .map(str::to_owned)
        .collect();
    target.start(&Host { user_ca: None, lines });
    client("alice", &["role", "add", "operator", "--description", "Runs the servers"], "");
    let add = ["user", "add", "bob", "--role", "operator", "--password-stdin"];
    client("alice", &add, &format!("{OPERATOR_PASSWORD}\n"));
    let policy = dir.path().join("operators.cedar");
    std::fs::write(&policy, OPERATORS).unwrap();
    client("alice", &["policy", "upload", "operators", path(&policy)], "");
    login("bob", OPERATOR_PASSWORD);

    // bob has no custody program of his own: the stock ssh alone, with what the login wrote.
    let bob = dir.path().join("bob");
    let mut command = Command::new("ssh");
    command.args([
        "-F",
        "none",
        "-o",
        "BatchMode=yes",
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "HostKeyAlias=127.0.0.1",
    ]);
    command.arg("-o").arg(format!("UserKnownHostsFile={}", path(&bob.join("known_hosts"))));
    command.arg("-o").arg(format!("CertificateFile={}", path(&bob.join("id-cert.pub"))));
    command.arg("-i").arg(bob.join("id")).args(["-p", &ssh.to_string(), "root+web-1@127.0.0.1"]);
    command.arg("echo from a container").env_remove("SSH_AUTH_SOCK");
    assert_eq!(run(&mut command, b"", DEADLINE).ok().text(), "from a container\n");

    // The node's agent, as agent.yaml runs it: the next session is watched by the machine's kernel.
    client("alice", &["node", "add", "web-1", &target.address(), "--agent", "required", "--replace"], "");
    let token = client("alice", &["node", "token", "web-1"], "");
    let pins =
        Pins(format!("/sys/fs/bpf/custody-test-{}", dir.path().file_name().unwrap().to_str().unwrap()));
    let agent = Agent { docker: &docker, config: dir.path().join("agent.toml"), folder: here };
    let settings = std::fs::read_to_string(root().join("docker/agent.toml")).unwrap();
    std::fs::write(&agent.config, format!("{settings}pins = {:?}\n", pins.0)).unwrap();
    let can = agent.run(&["--rm"], &["node", "--check"], "");
    assert!(can.contains("sessions can be watched") && can.contains("--pid host"), "{can}");
    let join = ["node", "join", "--config", "/etc/custody/agent.toml", "--server", &url, "--ca", path(&ca)];
    agent.run(&["--rm", "--interactive"], &join, &token);
    agent.run(&["--detach", "--name", "agent"], &["node", "--config", "/etc/custody/agent.toml"], "");
    let events = |kind: &str| client("alice", &["events", "search", "--json", "--type", kind], "");
    wait::until_true("the agent is there", START_DEADLINE, || events("node.joined").contains("web-1"));
    assert_eq!(run(&mut command, b"", DEADLINE).ok().text(), "from a container\n");
    wait::until_true("what its shell ran is told", DEADLINE, || {
        events("command.executed").contains("echo from a container")
    });
    docker.run(&["stop", "--time", "30", "agent"], b"");
    let code = docker.run(&["inspect", "--format", "{{.State.ExitCode}}", "agent"], b"").text();
    assert_eq!(code.trim(), "0", "an orderly end of the agent");
    client("alice", &["node", "add", "web-1", &target.address(), "--agent", "none", "--replace"], "");
    drop(pins);

    let events = client("alice", &["events", "search", "--user", "bob", "--limit", "40"], "");
    assert!(events.contains("command.requested"), "{events}");
    // One store has all of it, and the other's absence is told.
    let said = client("alice", &["sinks", "verify", "loki"], "");
    assert!(said.contains("proven"), "{said}");
    let said = client("alice", &["sinks", "ls"], "");
    assert!(
        said.lines().any(|line| line.trim_start().starts_with("opensearch") && line.contains("TROUBLE")),
        "{said}"
    );
    // The image is its own verifier: the same volume, read by another container when the daemon is gone.
    docker.run(&["stop", "--time", "30", "custodyd"], b"");
    let code = docker.run(&["inspect", "--format", "{{.State.ExitCode}}", "custodyd"], b"").text();
    assert_eq!(code.trim(), "0", "an orderly end");
    let said = client("alice", &["verify", "/var/lib/custody"], "");
    assert!(said.contains("custody.example/log"), "{said}");
}
