//! OpenSSH's own regression tests: what their authors ask of an sshd comes out the same with the proxy before it.

use custody_proxy::ssh::transport::cipher::Cipher;
use custody_proxy::ssh::transport::kex::KexAlgorithm;
use custody_proxy::ssh::transport::mac::Mac;
use custody_tests::servers::World;
use custody_tests::servers::files::FILES;
use custody_tests::servers::regress::{Edit, Outcome, Regress, side_by_side};
use std::collections::BTreeSet;

/// How many scripts run at once.
const AT_ONCE: usize = 12;

/// Those that run, and what is changed in them for both ways. Those that take longest come first.
const SCRIPTS: [(&str, &[Edit]); 31] = [
    // On a busy machine a login takes longer than the two seconds that its authors wait.
    (
        "connection-timeout",
        &[("UnusedConnectionTimeout 2", "UnusedConnectionTimeout 5"), ("sleep 8", "sleep 12")],
    ),
    // Each has ports of its own, since many run at once.
    ("forward-control", &[("PORT=3320", "PORT=${BASE}20"), ("PORT=3321", "PORT=${BASE}21")]),
    ("sftp-perm", &[]),
    ("sftp-cmds", &[]),
    ("multiplex", &[("P=3301", "P=${BASE}01")]),
    (
        "rekey",
        &[
            // By time: once is enough, and so is a shorter wait for it.
            ("for s in 5 10; do", "for s in 5; do"),
            ("sleep $s;sleep 10", "sleep $s;sleep 2"),
            // Each side renews its keys with the proxy. Where it is the server who does, its log tells.
            (
                "for s in 16 1k 128k 256k; do\n\tverbose \"server rekeylimit",
                "LOG=${TEST_SSHD_LOGFILE}\nfor s in 16 1k 128k 256k; do\n\tverbose \"server rekeylimit",
            ),
        ],
    ),
    ("channel-timeout", &[]),
    ("exit-status", &[]),
    ("reconfigure", &[]),
    ("stderr-data", &[]),
    ("scp", &[]),
    ("dynamic-forward", &[]),
    ("forwarding", &[("base=33", "base=$BASE")]),
    // Five bytes at a time take long for all of its file.
    ("sftp", &[("REQUESTS=", "head -c 20000 $DATA >$DATA.short; mv $DATA.short $DATA\nREQUESTS=")]),
    ("sftp-glob", &[]),
    ("try-ciphers", &[]),
    ("transfer", &[]),
    ("envpass", &[]),
    // What came instead isn't shown by itself.
    (
        "banner",
        &[(
            "fail \"banner size $s mismatch\"",
            "{ head -c 300 $OBJ/banner.out; fail \"banner size $s mismatch\"; }",
        )],
    ),
    ("sftp-badcmds", &[]),
    ("sftp-batch", &[]),
    ("stderr-after-eof", &[]),
    ("yes-head", &[]),
    // It means a file that no script makes, and so tests nothing.
    ("broken-pipe", &[("ssh_config_config", "ssh_proxy")]),
    ("sftp-uri", &[]),
    ("sftp-chroot", &[]),
    ("connect", &[]),
    ("connect-uri", &[]),
    ("exit-status-signal", &[]),
    ("localcommand", &[]),
    ("host-expand", &[]),
];

/// Those that don't, and why.
const LEFT_OUT: [(&str, &[&str]); 5] = [
    (
        "who logs in is proved to the proxy, and by it to sshd, with a certificate of each: no keys of theirs",
        &[
            "agent",
            "agent-getpeereid",
            "agent-pkcs11",
            "agent-ptrace",
            "agent-restrict",
            "agent-subprocess",
            "agent-timeout",
            "allow-deny-users",
            "authinfo",
            "brokenkeys",
            "cert-file",
            "cert-userkey",
            "forcecommand",
            "hostbased",
            "key-options",
            "keys-command",
            "keytype",
            "limit-keytype",
            "login-timeout",
            "multipubkey",
            "principals-command",
        ],
    ),
    (
        "what they look at is between two neighbours of a connection: host keys, versions, key exchange, damaged packets",
        &[
            "cert-hostkey",
            "cipher-speed",
            "dhgex",
            "hostkey-agent",
            "hostkey-rotate",
            "integrity",
            "kextype",
            "keyscan",
            "knownhosts",
            "knownhosts-command",
            "proto-mismatch",
            "proto-version",
            "proxy-connect",
            "sshfp-connect",
        ],
    ),
    (
        "they need no connection, or none that ends at an sshd",
        &[
            "addrmatch",
            "cfginclude",
            "cfgmatch",
            "cfgmatchlisten",
            "cfgparse",
            "keygen-change",
            "keygen-comment",
            "keygen-convert",
            "keygen-knownhosts",
            "keygen-moduli",
            "keygen-sshfp",
            "krl",
            "percent",
            "portnum",
            "servcfginclude",
            "sshcfgparse",
            "sshsig",
        ],
    ),
    ("how sshd starts and confines its own processes is its own", &["connect-privsep", "reexec"]),
    (
        "clients of others have tests of their own; scp-uri and scp3 do what scp does, with a server beside the client",
        &[
            "conch-ciphers",
            "putty-ciphers",
            "putty-kex",
            "putty-transfer",
            "scp-uri",
            "scp3",
            "ssh-com",
            "ssh-com-client",
            "ssh-com-keygen",
            "ssh-com-sftp",
        ],
    ),
];

#[test]
fn openssh_s_regression_tests_come_out_as_directly() {
    let mut world = World::start();
    world.custodyd.stop();
    world.custodyd.configure_ssh("nist_curves = true\nplain_macs = true");
    world.custodyd.start();
    world.policy("files", FILES);
    let algorithms = KexAlgorithm::ALL.map(KexAlgorithm::name).into_iter();
    let algorithms = algorithms.chain(Cipher::ALL.map(Cipher::name)).chain(Mac::ALL.map(Mac::name));
    let regress = Regress::prepare(&world, &algorithms.collect::<Vec<_>>());
    for (script, edits) in SCRIPTS {
        regress.edit(script, edits);
    }
    // What a key of authorized_keys may do: no such key comes through the proxy.
    regress.cut("forward-control", "\t# permitopen keys option.\n", "}\n\n#          permit-open");

    let known = LEFT_OUT.iter().flat_map(|(_, scripts)| scripts.iter().copied());
    let known: BTreeSet<String> = known.chain(SCRIPTS.map(|(script, _)| script)).map(str::to_owned).collect();
    for script in regress.scripts().difference(&known) {
        println!("{script}: is new, nobody has looked at it");
    }
    // One by name, for whoever looks into it.
    let only = std::env::var("CUSTODY_REGRESS").ok();
    let jobs = SCRIPTS.into_iter().map(|(script, _)| script);
    let jobs = jobs.filter(|script| only.as_deref().is_none_or(|only| only == *script));
    let jobs: Vec<_> = jobs.flat_map(|script| [(script, None), (script, Some(&world))]).collect();
    let outcomes = side_by_side(&jobs, AT_ONCE, |(script, through)| regress.run(script, *through));
    let started = world.entries("type=session.started").into_iter();
    let sessions: Vec<_> = started.map(|e| e.event["target"]["name"].as_str().unwrap().to_owned()).collect();
    let mut different = Vec::new();
    for (pair, job) in outcomes.chunks_exact(2).zip(jobs.chunks_exact(2)) {
        let (directly, through) = (&pair[0], &pair[1]);
        let script = job[0].0;
        let told = told(directly, through);
        let sessions = sessions.iter().filter(|node| node.starts_with(&format!("{script}-on-"))).count();
        let took = (directly.took.as_secs(), through.took.as_secs());
        println!("{script}: {told}; {} s and {} s, {sessions} sessions", took.0, took.1);
        assert!(sessions > 0, "{script} never came to the proxy");
        if !same(directly, through) {
            different.push(format!("{script}: {told}\n{}\n{}", directly.details, through.details));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// All is well directly, or it would be no yardstick, and everything is the same.
fn same(directly: &Outcome, through: &Outcome) -> bool {
    directly.code == Some(0) && directly.code == through.code && directly.lines == through.lines
}

fn told(directly: &Outcome, through: &Outcome) -> String {
    if same(directly, through) {
        return format!("the same {} lines", directly.lines.len());
    }
    let only = |ours: &Outcome, theirs: &Outcome| {
        let lines = ours.lines.iter().filter(|line| !theirs.lines.contains(line));
        lines.map(|line| format!("\n    {line}")).collect::<String>()
    };
    format!(
        "directly {:?}, said only there:{}\n  through the proxy {:?}, said only there:{}\n ",
        directly.code,
        only(directly, through),
        through.code,
        only(through, directly)
    )
}
