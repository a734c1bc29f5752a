//! Shells with a terminal, as people use them: sizes, keys, signals, the end.

use custody_tests::process::run;
use custody_tests::servers::{World, python};
use std::time::Duration;

/// A person at a terminal, played by pexpect: the same steps straight and through the proxy.
#[test]
fn a_terminal_behaves_as_it_does_directly() {
    let world = World::start();
    let play = |command: &std::process::Command, host: &str| {
        let words: Vec<&str> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|w| w.to_str().unwrap())
            .chain(["-tt", host])
            .collect();
        let mut script = python::script("terminal.py", &words);
        let said = run(script.env_remove("SSH_AUTH_SOCK"), b"", Duration::from_secs(900));
        assert_eq!(said.code, 0, "{}\n{}\nsshd: {}", said.text(), said.err, world.web.log());
        said.text()
    };
    let direct = play(&world.web.direct(), "root@127.0.0.1");
    let proxied = play(&world.proxied(), "root@web-1.custody");
    let requested = world.event("type=command.requested", "the shell is in the log", |_| true);
    let completed = world.event("type=command.completed", "its end is in the log", |_| true);
    let session = requested.session().unwrap();
    let cast = world.admin.custody(&["sessions", "export", session, "--format", "asciicast"]).text();
    assert_eq!(proxied, direct, "{cast}\nsshd: {}", world.web.log());
    assert_eq!(proxied, "size 24 80\nresized 40 120\ninterrupted 130\nwide ä€𝄞\nended 5\n");

    assert_eq!(
        (&requested.event["data"]["kind"], &requested.event["data"]["terminal"]),
        (&"shell".into(), &true.into())
    );
    assert_eq!(completed.event["data"]["exit_status"], 5);
    assert_eq!(completed.event["cause"], requested.event["id"]);
    assert!(cast.contains("24 80") && cast.contains("started"), "{cast}");
    assert!(
        cast.lines().any(|l| l.contains("\"r\"") && l.contains("120x40")),
        "the resize is recorded: {cast}"
    );
}

/// A client that is killed leaves nothing at the target.
#[test]
fn a_client_that_is_killed_takes_the_target_s_process_with_it() {
    use custody_tests::process::Running;
    use custody_tests::wait;
    use std::process::Stdio;
    let world = World::start();
    let mark = world.dir().join("pid").display().to_string();
    let mut command = world.proxied();
    command.args(["-tt", "root@web-1.custody", &format!("echo $$ >{mark}; exec sleep 600")]);
    let mut ssh =
        Running::start("ssh", command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    let pid = wait::until("the command runs", wait::DEADLINE, || {
        std::fs::read_to_string(&mark).ok().filter(|t| t.ends_with('\n'))
    });
    ssh.kill_now();
    let proc = std::path::Path::new("/proc").join(pid.trim());
    wait::until_true("it is gone at the target", wait::DEADLINE, || !proc.exists());
    let ended = world.event("type=session.ended", "the session has its end", |_| true);
    assert_eq!(ended.event["data"]["reason"], "client-closed");
}
