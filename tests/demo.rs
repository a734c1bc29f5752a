//! The demo's own scripts: detached, started again after a kill, ended without a process left.

use custody_tests::process::{Said, descendants, run, send};
use custody_tests::{root, wait};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const FIELDS: [&str; 14] = [
    "CUSTODY_SSH",
    "CUSTODY_SSH_CONFIG",
    "CUSTODY_NODE",
    "CUSTODY_LOGIN",
    "CUSTODY_IDENTITY",
    "CUSTODY_API",
    "CUSTODY_CA",
    "CUSTODY_CLIENT_CERT",
    "CUSTODY_CLIENT_KEY",
    "CUSTODY_LOG_URL",
    "CUSTODY_LOG_KEY",
    "CUSTODY_DATA",
    "CUSTODY_PID",
    "CUSTODY_RESTART",
];

/// A demo in a folder of its own, or in the usual one.
struct Demo {
    folder: PathBuf,
    /// What `make` is told of that folder.
    variable: Option<PathBuf>,
}

impl Demo {
    fn usual() -> Self {
        Self { folder: root().join(".demo"), variable: None }
    }

    fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), variable: Some(folder.to_owned()) }
    }

    fn make(&self, target: &str) -> Command {
        let mut make = Command::new("make");
        make.args(["--no-print-directory", "-C", root().to_str().unwrap(), target]);
        make.env("CUSTODY_BUILT", "1").env_remove("CUSTODY_DEMO").env_remove("SINKS");
        if let Some(folder) = &self.variable {
            make.env("CUSTODY_DEMO", folder);
        }
        make
    }

    /// Its `env`, as a shell reads it.
    fn environment(&self, fields: &[&str]) -> BTreeMap<String, String> {
        let script = format!(
            "source {}/env; for name in {}; do printf '%s=%s\\n' \"$name\" \"${{!name}}\"; done",
            self.folder.display(),
            fields.join(" ")
        );
        let said = run(Command::new("bash").args(["-euc", &script]), b"", wait::DEADLINE).ok().text();
        said.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    /// A line of a shell that has read its `env`.
    fn shell(&self, line: &str) -> Said {
        let line = format!("source {}/env; {line}", self.folder.display());
        let mut bash = Command::new("bash");
        run(bash.args(["-euc", &line]).env_remove("SSH_AUTH_SOCK"), b"", Duration::from_secs(90))
    }

    fn pids(&self, names: &[&str]) -> Vec<u32> {
        let pid = |name: &&str| {
            let text = std::fs::read_to_string(self.folder.join(format!("{name}.pid"))).unwrap();
            text.split_whitespace().next().unwrap().parse().unwrap()
        };
        names.iter().map(pid).collect()
    }

    /// Ends it, and waits until nothing of it is left.
    fn stop(self, names: &[&str]) {
        let mut all = self.pids(names);
        all.extend(all.clone().into_iter().flat_map(descendants));
        let env = self.folder.join("env");
        drop(self);
        for pid in all {
            wait::until_true("demo-stop leaves no process", wait::DEADLINE, || !alive(pid));
        }
        assert!(!env.exists());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.make("demo-stop").status());
    }
}

#[test]
fn the_demo_runs_is_restarted_and_stops() {
    let demo = Demo::usual();
    let said = run(demo.make("demo").arg("DETACH=1"), b"", Duration::from_secs(300));
    assert_eq!(said.code, 0, "{}\n{}", said.text(), said.err);
    let told = said.text();
    for shown in ["session.requested", "command.requested", "decision.made", "no-shell-on-the-database"] {
        assert!(format!("{told}{}", said.err).contains(shown), "{shown} isn't shown:\n{told}\n{}", said.err);
    }

    let env = demo.environment(&FIELDS);
    assert!(FIELDS.iter().all(|f| env.get(*f).is_some_and(|v| !v.is_empty())), "{env:?}");
    for field in [
        "CUSTODY_SSH_CONFIG",
        "CUSTODY_IDENTITY",
        "CUSTODY_CA",
        "CUSTODY_CLIENT_CERT",
        "CUSTODY_CLIENT_KEY",
        "CUSTODY_DATA",
    ] {
        assert!(std::path::Path::new(&env[field]).exists(), "{field}={}", env[field]);
    }
    assert!(std::path::Path::new(&format!("{}-cert.pub", env["CUSTODY_IDENTITY"])).exists());
    let ssh =
        "ssh -o BatchMode=yes -F \"$CUSTODY_SSH_CONFIG\" \"$CUSTODY_LOGIN@$CUSTODY_NODE\" echo by-config";
    let plus = "ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o IdentitiesOnly=yes -i \"$CUSTODY_IDENTITY\" -p \"${CUSTODY_SSH##*:}\" \"$CUSTODY_LOGIN+$CUSTODY_NODE@${CUSTODY_SSH%:*}\" echo by-name";
    let api = "curl --silent --fail --cacert \"$CUSTODY_CA\" --cert \"$CUSTODY_CLIENT_CERT\" --key \"$CUSTODY_CLIENT_KEY\" -H 'Accept: application/x-ndjson' \"$CUSTODY_API/v1/events?limit=1\"";
    assert_eq!(demo.shell(ssh).ok().text(), "by-config\n");
    assert_eq!(demo.shell(plus).ok().text(), "by-name\n");
    assert!(demo.shell(api).ok().text().contains("log.created"));

    // Killed and started again on the same data.
    let old: u32 = env["CUSTODY_PID"].parse().unwrap();
    send(old, Signal::KILL);
    wait::until_true("custodyd is gone", wait::DEADLINE, || !alive(old));
    demo.shell("eval \"$CUSTODY_RESTART\"").ok();
    let again = demo.environment(&FIELDS);
    assert_ne!(again["CUSTODY_PID"], env["CUSTODY_PID"]);
    assert_eq!(again["CUSTODY_LOG_KEY"], env["CUSTODY_LOG_KEY"]);
    assert_eq!(demo.shell(ssh).ok().text(), "by-config\n");

    demo.stop(&["custodyd", "web-1", "db-1"]);
}

/// With stores: everything is in them, asked of each by what the demo tells, before and after a restart.
#[test]
fn the_demo_delivers_to_the_stores_that_it_is_told() {
    const STORES: [&str; 6] =
        ["LOKI_URL", "LOKI_TENANT", "OPENSEARCH_URL", "OPENSEARCH_STREAM", "KAFKA_BOOTSTRAP", "KAFKA_TOPIC"];
    let folder = tempfile::Builder::new().prefix("custody-demo-").tempdir().unwrap();
    let demo = Demo::at(folder.path());
    let mut make = demo.make("demo");
    let said = run(make.arg("DETACH=1").env("SINKS", "loki,opensearch,kafka"), b"", Duration::from_secs(600));
    assert_eq!(said.code, 0, "{}\n{}", said.text(), said.err);
    let told = said.text();
    for shown in ["sinks ls", "proven", "\"type\":\"session.requested\"", "\"key\":\"session.requested\""] {
        assert!(told.contains(shown), "{shown} isn't shown:\n{told}\n{}", said.err);
    }
    let env = demo.environment(&STORES);
    assert!(STORES.iter().all(|field| env.get(*field).is_some_and(|value| !value.is_empty())), "{env:?}");

    let loki = "curl --silent --fail --get -H \"X-Scope-OrgID: $LOKI_TENANT\" \"$LOKI_URL/loki/api/v1/query\" \
        --data-urlencode 'query=sum(count_over_time({job=\"custody\"} | type=\"session.started\" [1h]))'";
    let opensearch =
        "curl --silent --fail \"$OPENSEARCH_URL/$OPENSEARCH_STREAM/_count?q=custody.type:session.started\"";
    let ssh = "ssh -o BatchMode=yes -F \"$CUSTODY_SSH_CONFIG\" \"$CUSTODY_LOGIN@$CUSTODY_NODE\" true";
    let kafka = "kcat -C -e -q -o beginning -b \"$KAFKA_BOOTSTRAP\" -t \"$KAFKA_TOPIC\" -X isolation.level=read_committed";
    let counts = || -> (String, u64, u64) {
        let (loki, opensearch) = (demo.shell(loki).ok().text(), demo.shell(opensearch).ok().text());
        let kafka = demo.shell(kafka).ok().text();
        let kafka = kafka.lines().filter(|line| line.contains("\"type\":\"session.started\"")).count() as u64;
        let loki: serde_json::Value = serde_json::from_str(&loki).unwrap();
        let opensearch: serde_json::Value = serde_json::from_str(&opensearch).unwrap();
        let loki = loki["data"]["result"][0]["value"][1].as_str().unwrap_or_default().to_owned();
        (loki, opensearch["count"].as_u64().unwrap(), kafka)
    };
    let (_, before, _) = counts();
    assert!(before >= 3 && counts() == (before.to_string(), before, before), "{:?}", counts());
    demo.shell("eval \"$CUSTODY_RESTART\"").ok();
    assert_eq!(demo.environment(&STORES), env, "the stores are where they were");
    demo.shell(ssh).ok();
    let after = before + 1;
    wait::until_true("the next session arrives", wait::DEADLINE, || {
        counts() == (after.to_string(), after, after)
    });
    demo.stop(&["custodyd", "web-1", "db-1", "loki", "opensearch", "kafka"]);
}

/// Whether a process runs; one that has ended and isn't reaped yet doesn't.
fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|s| s.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}
