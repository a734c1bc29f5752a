//! Sessions through the proxy, beside `ssh -J` through a stock sshd to the same target.

use crate::table::Row;
use custody_tests::process::run;
use custody_tests::servers::{Host, Sshd, World};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 3;
const LOGINS: usize = 10;
const MIB: usize = 512;
const CIPHER: &str = "aes128-gcm@openssh.com";

pub fn rows() -> Vec<Row> {
    let world = World::start();
    let mut hop = Sshd::prepare(&world.dir().join("hop"));
    hop.start(&Host::default());
    let ours = || {
        let mut command = world.proxied();
        command.args(["-c", CIPHER, "root@web-1.custody"]);
        command
    };
    let jumped = || {
        // OpenSSH's -J takes no options for the hop: the ProxyCommand that it stands for does.
        let mut inner: Vec<String> = vec!["ssh".into()];
        inner.extend(hop.direct().get_args().map(|a| a.to_str().expect("text").to_owned()));
        inner.extend(["-c".into(), CIPHER.into(), "-W".into(), world.web.address(), "root@127.0.0.1".into()]);
        let mut command = world.web.direct();
        command.args(["-c", CIPHER, "-o", &format!("ProxyCommand={}", inner.join(" ")), "root@127.0.0.1"]);
        command
    };
    let (mut rates, mut logins) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        rates.push((rate(&mut ours()), rate(&mut jumped())));
        logins.extend((0..LOGINS).map(|_| (login(&mut ours()), login(&mut jumped()))));
    }
    let row = |name: String, pairs, more_is_better| Row {
        name,
        pairs,
        beside: "ssh -J",
        more_is_better,
        aim: None,
    };
    vec![
        row(format!("exec output of {MIB} MiB, MiB/s"), rates, true),
        row("login to exit of `true`, seconds".to_owned(), logins, false),
    ]
}

fn rate(command: &mut Command) -> f64 {
    let start = Instant::now();
    let mut child = command
        .arg(format!("head -c {} /dev/zero", MIB << 20))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ssh");
    let bytes = std::io::copy(child.stdout.as_mut().expect("piped"), &mut std::io::sink()).expect("output");
    assert!(child.wait().expect("ssh").success());
    assert_eq!(bytes, (MIB << 20) as u64);
    MIB as f64 / start.elapsed().as_secs_f64()
}

fn login(command: &mut Command) -> f64 {
    run(command.arg("true"), b"", Duration::from_secs(30)).ok().took.as_secs_f64()
}
