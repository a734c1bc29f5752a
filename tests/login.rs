//! Logging in and out.

use custody_tests::process::run;
use custody_tests::program;
use custody_tests::servers::World;
use custody_tests::servers::custodyd::layout;
use custody_tests::servers::world::OPERATOR_PASSWORD;
use custody_tests::wait::DEADLINE;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[test]
fn a_login_gives_short_certificates_in_files_that_only_their_owner_reads() {
    let world = World::start();
    let home = &world.operator.dir;
    for name in ["id", "id-cert.pub", "client.pem", "client.key", "ca.pem", "ssh_config"] {
        let mode =
            std::fs::metadata(home.join(name)).unwrap_or_else(|e| panic!("{name}: {e}")).permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} can be read by others: {mode:o}");
    }
    let certificate =
        run(Command::new("ssh-keygen").arg("-Lf").arg(home.join("id-cert.pub")), b"", DEADLINE).ok().text();
    assert!(certificate.contains("user certificate") && certificate.contains("bob"), "{certificate}");
    assert!(!certificate.contains("forever"), "{certificate}");
    let x509 = run(
        Command::new("openssl")
            .args(["x509", "-noout", "-subject", "-enddate", "-ext", "extendedKeyUsage", "-in"])
            .arg(home.join("client.pem")),
        b"",
        DEADLINE,
    )
    .ok()
    .text();
    assert!(x509.contains("bob") && x509.contains("TLS Web Client Authentication"), "{x509}");
    assert!(!x509.contains("Server Authentication"), "{x509}");

    let status = world.operator.custody(&["status"]).text();
    assert!(status.contains("bob") && status.contains("operator"), "{status}");
    assert!(world.operator.custody(&["ls"]).text().contains("web-1"));
    let events = world.entries("type=login.succeeded&user=bob");
    assert_eq!(events.iter().filter(|e| e.event["data"]["method"] == "password").count(), 1);
    let issued: Vec<_> = world.entries("type=certificate.issued");
    for authority in ["client-ssh", "client-x509"] {
        assert!(
            issued
                .iter()
                .any(|e| e.event["data"]["authority"] == authority && e.event["data"]["subject"] == "bob"),
            "{authority}"
        );
    }

    world.operator.custody(&["logout"]);
    assert!(!home.join("id").exists() && !home.join("client.key").exists());
    assert_ne!(world.ssh(&[], "true", b"").code, 0);
}

#[test]
fn a_failed_login_tells_nothing_and_is_an_event() {
    let world = World::start();
    let nobody =
        custody_tests::servers::custodyd::Home::new(&world.custodyd, &world.dir().join("zebedee"), "zebedee");
    let wrong = world.operator.try_login("wrong");
    let unknown = nobody.try_login("my-real-password-in-the-wrong-field");
    assert_ne!(wrong.code, 0);
    assert_ne!(unknown.code, 0);
    assert_eq!(
        wrong.err.replace("bob", "X"),
        unknown.err.replace("zebedee", "X"),
        "an attacker learns who exists"
    );
    let failed = world.entries("type=login.failed");
    assert_eq!(failed.len(), 2);
    assert_eq!(failed[0].event["data"]["claimed_user"], "bob");
    assert_eq!(failed[1].event["data"].get("claimed_user"), None, "a name that nobody has is kept");
    // Neither passwords nor unknown names are anywhere in the log or in what the daemon prints.
    let all: String = world.entries("").into_iter().map(|e| e.line).collect();
    for secret in ["my-real-password", "zebedee", OPERATOR_PASSWORD, "correct horse"] {
        assert!(!all.contains(secret), "{secret} is in the log");
        assert!(!world.custodyd.output().contains(secret), "{secret} is in custodyd's output");
    }
}

#[test]
fn guessing_is_slowed_down() {
    let world = World::start();
    let ssh_key = std::fs::read_to_string(world.operator.dir.join("id.pub")).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-new", "-subj", "/CN=bob", "-key"]).arg(world.operator.dir.join("client.key"));
    let x509_request = run(&mut openssl, b"", DEADLINE).ok().text();
    let guess = |n: u32| {
        let body = serde_json::json!({
            "user": "bob", "password": format!("guess {n}"), "ssh_public_key": ssh_key.trim(), "x509_request": x509_request,
        })
        .to_string();
        let json = ["-X", "POST", "-H", "Content-Type: application/json", "--data-binary", &body];
        world.admin.request("/v1/login", &json).status
    };
    let answers: Vec<u16> = (0..40).map(guess).take_while(|status| *status != 429).collect();
    assert!(answers.iter().all(|status| *status == 401), "{answers:?}");
    assert!(answers.len() < 40, "40 guesses in a row were all looked at");
    // The right password doesn't help while he is held off: else it would tell who guessed right.
    assert_ne!(world.operator.try_login(OPERATOR_PASSWORD).code, 0);
    assert!(world.entries("type=login.failed&text=guess").is_empty(), "a guess is in the log");
}

#[test]
fn the_agent_holds_the_key_if_there_is_one() {
    let world = World::start();
    let socket = world.dir().join("agent");
    let mut command = Command::new("ssh-agent");
    command.args(["-D", "-a"]).arg(&socket).stdout(std::process::Stdio::null());
    let _agent = custody_tests::process::Running::start("ssh-agent", &mut command);
    custody_tests::wait::until_true("the agent listens", DEADLINE, || socket.exists());

    let dir = world.dir().join("with-agent");
    let mut login = world.operator.command(&[
        "login",
        "--api",
        &world.custodyd.url(),
        "--user",
        "bob",
        "--password-stdin",
        "--ca",
    ]);
    login.arg(world.operator.dir.join("ca.pem")).env("CUSTODY_HOME", &dir).env("SSH_AUTH_SOCK", &socket);
    run(&mut login, format!("{OPERATOR_PASSWORD}\n").as_bytes(), DEADLINE).ok();
    assert!(!dir.join("id").exists(), "the private key is in a file all the same");
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(dir.join("ssh_config")).args([
        "-o",
        "BatchMode=yes",
        "root@web-1.custody",
        "echo by agent",
    ]);
    assert_eq!(run(ssh.env("SSH_AUTH_SOCK", &socket), b"", DEADLINE).ok().text(), "by agent\n");
    let mut logout = world.operator.command(&["logout"]);
    run(logout.env("CUSTODY_HOME", &dir).env("SSH_AUTH_SOCK", &socket), b"", DEADLINE).ok();
    let left = run(Command::new("ssh-add").arg("-l").env("SSH_AUTH_SOCK", &socket), b"", DEADLINE);
    assert!(left.text().contains("no identities"), "{}", left.text());
}

#[test]
fn a_removed_user_is_out_at_once() {
    let world = World::start();
    assert_eq!(world.ssh(&[], "echo in", b"").ok().text(), "in\n");
    world.admin.custody(&["user", "rm", "bob"]);
    assert_eq!(world.ssh(&[], "echo in", b"").code, 255);
    assert_ne!(world.operator.try_login(OPERATOR_PASSWORD).code, 0);
    let answer = world.operator.request("/v1/nodes", &[]);
    assert!([401, 403].contains(&answer.status), "{}", answer.status);
}

#[test]
fn a_lost_key_of_an_authority_is_told_and_not_made_anew() {
    let mut world = World::start();
    world.custodyd.stop();
    let key = world.custodyd.data().join(layout::CLIENT_CA_KEY);
    let aside = world.dir().join("aside.key");
    std::fs::rename(&key, &aside).unwrap();
    let mut custodyd = Command::new(program("custodyd"));
    let said = run(custodyd.arg("run").arg("--config").arg(world.custodyd.config()), b"", DEADLINE);
    assert_ne!(said.code, 0);
    assert!(said.err.contains("ssh-client-ca") && said.err.contains("put them back"), "{}", said.err);
    assert!(!key.exists(), "another key was made");
    std::fs::rename(&aside, &key).unwrap();
    world.custodyd.start();
    assert_eq!(world.ssh(&[], "echo still in", b"").ok().text(), "still in\n");
}
