//! The daemon in a folder of its own, and what people hold to reach it.

use super::reader::Reader;
use super::sshd::path;
use crate::process::{Running, Said, free_port, run};
use crate::{program, wait};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// Where things lie in the data directory: the only place of the tests that knows.
pub mod layout {
    /// The CA of the API's server certificate.
    pub const SERVER_CA: &str = "ca/x509-server-ca.pem";
    /// The private key of the CA that signs what people hold (OpenSSH's form): only tests of forged certificates read it.
    pub const CLIENT_CA_KEY: &str = "keys/ssh-client-ca.key";
    /// The private key of the CA that only targets trust.
    pub const TARGET_CA_KEY: &str = "keys/ssh-target-ca.key";
    /// The log's records.
    pub const SEGMENTS: &str = "log/segments";
    /// What replay can rebuild.
    pub const PROJECTIONS: &str = "projections";
    /// What sessions showed.
    pub const RECORDINGS: &str = "recordings";
    /// The private key that signs the log's checkpoints.
    pub const LOG_KEY: &str = "keys/log-signer.key";

    /// What signs the log of a data directory: for tests that write into a log as its operator could.
    ///
    /// # Panics
    /// When there is no such key.
    #[must_use]
    pub fn log_signer(data: &std::path::Path, origin: &str) -> custody_core::log::note::Ed25519Signer {
        let key = russh::keys::load_secret_key(data.join(LOG_KEY), None).expect("the log's key");
        let seed = key.key_data().ed25519().expect("an Ed25519 key").private.to_bytes();
        custody_core::log::note::Ed25519Signer::from_seed(origin, &seed).expect("a signer")
    }
}

/// What the configured reader of the log shows, and what the configuration knows of it.
pub const READER_TOKEN: &str = "the tests' token, which protects nothing";
const READER_TOKEN_SHA256: &str = "95f8caeebf582f03d09781d15f81fa58697935d5e53f25a64a3f06615b0b5272";

/// How long a stop may take: live sessions drain first.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// A daemon that was set up; it runs between [`Custodyd::start`] and [`Custodyd::stop`] or [`Custodyd::kill_now`].
#[derive(Debug)]
pub struct Custodyd {
    /// Its folder: configuration, data, output.
    pub dir: PathBuf,
    /// Port of its API.
    pub api_port: u16,
    /// Port of its SSH proxy.
    pub ssh_port: u16,
    /// Port of the log without TLS.
    pub log_port: u16,
    process: Option<Running>,
}

impl Custodyd {
    /// `custodyd init` with an administrator and a password.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn init(dir: &Path, admin: &str, password: &str) -> Self {
        std::fs::create_dir_all(dir).expect("a folder for custodyd");
        let it = Self {
            dir: dir.to_owned(),
            api_port: free_port(),
            ssh_port: free_port(),
            log_port: free_port(),
            process: None,
        };
        let config = format!(
            "data = \"{data}\"\nname = \"custody\"\norigin = \"custody.test/log\"\n\n\
             [api]\nlisten = \"127.0.0.1:{api}\"\nnames = [\"localhost\", \"127.0.0.1\"]\n\n\
             [ssh]\nlisten = \"127.0.0.1:{ssh}\"\nsource_addresses = [\"127.0.0.1\"]\nnames = [\"127.0.0.1\"]\n\n\
             [recording]\nexec_bytes_max = 1048576\n\n\
             [log_http]\nlisten = \"127.0.0.1:{log}\"\n\n\
             [[reader]]\nname = \"mirror\"\ntoken_sha256 = \"{READER_TOKEN_SHA256}\"\n",
            data = path(&it.data()),
            api = it.api_port,
            ssh = it.ssh_port,
            log = it.log_port,
        );
        std::fs::write(it.config(), config).expect("config.toml");
        let mut command = Command::new(program("custodyd"));
        command.arg("init").arg("--config").arg(it.config()).args(["--admin", admin]);
        run(&mut command, format!("{password}\n").as_bytes(), wait::DEADLINE).ok();
        it
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    /// Adds lines to its configuration: whole tables, since they come last.
    ///
    /// # Panics
    /// When they can't be written.
    pub fn configure(&self, tables: &str) {
        let config = std::fs::read_to_string(self.config()).expect("config.toml");
        std::fs::write(self.config(), format!("{config}\n{tables}")).expect("config.toml");
    }

    /// Adds lines to the table `[ssh]` of its configuration.
    ///
    /// # Panics
    /// When they can't be written.
    pub fn configure_ssh(&self, lines: &str) {
        self.configure_table("[ssh]\n", lines);
    }

    /// The same for `[api]`.
    ///
    /// # Panics
    /// When they can't be written.
    pub fn configure_api(&self, lines: &str) {
        self.configure_table("[api]\n", lines);
    }

    /// The same for `[recording]`.
    ///
    /// # Panics
    /// When they can't be written.
    pub fn configure_recording(&self, lines: &str) {
        self.configure_table("[recording]\n", lines);
    }

    fn configure_table(&self, table: &str, lines: &str) {
        let config = std::fs::read_to_string(self.config()).expect("config.toml");
        std::fs::write(self.config(), config.replace(table, &format!("{table}{lines}\n")))
            .expect("config.toml");
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// URL of its API.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.api_port)
    }

    /// URL of its log, without TLS.
    #[must_use]
    pub fn log_url(&self) -> String {
        format!("http://127.0.0.1:{}/log", self.log_port)
    }

    /// `custodyd run`, until it serves.
    ///
    /// # Panics
    /// When it doesn't.
    pub fn start(&mut self) {
        self.spawn(&mut Command::new(program("custodyd")));
        self.wait_until_it_serves();
    }

    /// Starts it behind the given program (`strace …`) and doesn't wait.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn spawn(&mut self, command: &mut Command) {
        assert!(self.process.is_none(), "custodyd runs already");
        let output =
            std::fs::File::options().create(true).append(true).open(self.output_path()).expect("its output");
        command.arg("run").arg("--config").arg(self.config());
        command.stdin(std::process::Stdio::null()).stdout(output.try_clone().expect("a file")).stderr(output);
        self.process = Some(Running::start("custodyd", command));
    }

    /// Waits until both listeners are its own and `/healthz` answers 200.
    ///
    /// # Panics
    /// When that doesn't happen in time.
    pub fn wait_until_it_serves(&mut self) {
        let (api, ssh) = (self.api_port, self.ssh_port);
        let output = self.output_path();
        let url = format!("{}/healthz", self.url());
        let ca = self.data().join(layout::SERVER_CA);
        let process = self.process.as_mut().expect("custodyd was started");
        let pid = process.pid();
        wait::until_true("custodyd serves", wait::DEADLINE, || {
            if let Some(status) = process.ended() {
                let said = std::fs::read_to_string(&output).unwrap_or_default();
                panic!("custodyd ended with {status}:\n{said}");
            }
            let listens = |port| crate::process::listens(pid, port);
            listens(api) && listens(ssh) && curl(&ca, None, &url, &[]).status == 200
        });
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it doesn't run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("custodyd runs").pid()
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(Running::ended)
    }

    /// SIGKILL.
    pub fn kill_now(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill_now();
        }
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// When it isn't an orderly one.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let status = process.stop(STOP_DEADLINE);
            assert!(status.success(), "custodyd ended with {status} after SIGTERM:\n{}", self.output());
        }
    }

    /// What it printed in all its runs.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.output_path()).unwrap_or_default()
    }

    fn output_path(&self) -> PathBuf {
        self.dir.join("custodyd.log")
    }
}

/// What one person has on a machine: `$CUSTODY_HOME`.
#[derive(Clone, Debug)]
pub struct Home {
    /// The folder.
    pub dir: PathBuf,
    /// The person's name.
    pub user: String,
    /// URL of the API.
    pub url: String,
    ca: PathBuf,
    reader: Reader,
}

impl Home {
    /// A folder for `user` that isn't logged in.
    #[must_use]
    pub fn new(custodyd: &Custodyd, dir: &Path, user: &str) -> Self {
        let ca = custodyd.data().join(layout::SERVER_CA);
        Self {
            dir: dir.to_owned(),
            user: user.to_owned(),
            url: custodyd.url(),
            ca,
            reader: Reader::default(),
        }
    }

    /// The client, with this home.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("custody"));
        command
            .args(arguments)
            .env("CUSTODY_HOME", &self.dir)
            .env_remove("SSH_AUTH_SOCK")
            .env("NO_COLOR", "1");
        command
    }

    /// Runs the client and expects it to succeed.
    ///
    /// # Panics
    /// When it doesn't.
    pub fn custody(&self, arguments: &[&str]) -> Said {
        let said = self.try_custody(arguments, b"");
        assert_eq!(said.code, 0, "custody {arguments:?} as {}: {}{}", self.user, said.err, said.text());
        said
    }

    /// Runs the client.
    pub fn try_custody(&self, arguments: &[&str], input: &[u8]) -> Said {
        run(&mut self.command(arguments), input, wait::DEADLINE)
    }

    /// `custody login`.
    pub fn try_login(&self, password: &str) -> Said {
        let arguments =
            ["login", "--api", &self.url, "--ca", path(&self.ca), "--user", &self.user, "--password-stdin"];
        self.try_custody(&arguments, format!("{password}\n").as_bytes())
    }

    /// `custody login` that succeeds.
    ///
    /// # Panics
    /// When it doesn't.
    pub fn login(&self, password: &str) {
        let said = self.try_login(password);
        assert_eq!(said.code, 0, "{} can't log in: {}", self.user, said.err);
    }

    /// The stock client with the configuration that `custody login` wrote.
    #[must_use]
    pub fn ssh_command(&self) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(self.dir.join("ssh_config")).args([
            "-o",
            "BatchMode=yes",
            "-o",
            "LogLevel=ERROR",
        ]);
        // It starts the ProxyCommand by SHELL: a bash whose standard input is a socket reads ~/.bashrc, which may print.
        command.env_remove("SSH_AUTH_SOCK").env("SHELL", "/bin/sh");
        command
    }

    /// One request to the API with this person's client certificate.
    pub fn request(&self, path_and_query: &str, arguments: &[&str]) -> Answer {
        curl(&self.ca, Some(&self.dir), &format!("{}{path_and_query}", self.url), arguments)
    }

    /// `POST /v1/commands/NAME`.
    pub fn post(&self, name: &str, body: &Value) -> Answer {
        let body = body.to_string();
        self.request(
            &format!("/v1/commands/{name}"),
            &["-X", "POST", "-H", "Content-Type: application/json", "--data-binary", &body],
        )
    }

    /// All entries of the log that a query of `/v1/events` gives, over all its pages.
    ///
    /// # Panics
    /// When the API refuses it or breaks its own rules of paging.
    #[must_use]
    pub fn entries(&self, query: &str) -> Vec<Entry> {
        let mut found = Vec::new();
        self.each_entry(query, |entry| found.push(entry));
        found
    }

    /// The same one by one: a long log needn't be in memory.
    ///
    /// # Panics
    /// When the API refuses it or breaks its own rules of paging.
    pub fn each_entry(&self, query: &str, mut take: impl FnMut(Entry)) {
        let mut last = None;
        let mut cursor = String::new();
        // An empty page isn't the end by itself: a filter may have found nothing in the part that was looked at.
        let mut empty_pages = 0;
        while empty_pages < 2 {
            let mut request = "/v1/events?limit=1000".to_owned();
            if !query.is_empty() {
                request = format!("{request}&{query}");
            }
            if !cursor.is_empty() {
                request = format!("{request}&cursor={cursor}");
            }
            let url = format!("{}{request}", self.url);
            let ask = || self.reader.entries(&self.dir, &self.ca, &url);
            // What searches go by may still catch up with a log that was there before.
            let is_there = |answer: &Answer| answer.status != 503 || !answer.text().contains("catches up");
            let answer = wait::until("searches are there", wait::DEADLINE, || Some(ask()).filter(is_there));
            assert_eq!(answer.status, 200, "{request}: {} {}", answer.text(), answer.failure);
            let page: Vec<Entry> = answer.text().lines().map(Entry::parse).collect();
            cursor = answer.header("custody-cursor").expect("each page names the next cursor");
            empty_pages = if page.is_empty() { empty_pages + 1 } else { 0 };
            for entry in page {
                assert!(last.is_none_or(|last| last < entry.index), "indices rise");
                last = Some(entry.index);
                take(entry);
            }
        }
    }
}

/// One line of `GET /v1/events`.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its index in the log.
    pub index: u64,
    /// The event.
    pub event: Value,
    /// The line as it came.
    pub line: String,
}

impl Entry {
    fn parse(line: &str) -> Self {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let index = value["index"].as_u64().unwrap_or_else(|| panic!("no index: {line}"));
        Self { index, event: value["event"].clone(), line: line.to_owned() }
    }

    /// `family.past-participle`
    #[must_use]
    pub fn kind(&self) -> &str {
        self.event["type"].as_str().unwrap_or_default()
    }

    /// The session that it belongs to.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.event["session"].as_str()
    }
}

/// What the API answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status; 0 when there was no answer at all.
    pub status: u16,
    /// Header lines.
    pub headers: String,
    /// The body.
    pub body: Vec<u8>,
    /// What curl says of a failure.
    pub failure: String,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it isn't JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.lines().find_map(|line| {
            let (left, right) = line.split_once(':')?;
            left.eq_ignore_ascii_case(name).then(|| right.trim().to_owned())
        })
    }
}

/// One request by curl: a client that isn't ours.
fn curl(ca: &Path, home: Option<&Path>, url: &str, arguments: &[&str]) -> Answer {
    let headers = tempfile::NamedTempFile::new().expect("a file for headers");
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20", "--write-out", "%{stderr}\n%{http_code}"]);
    command.arg("--cacert").arg(ca).arg("--dump-header").arg(headers.path());
    if let Some(home) = home {
        command.arg("--cert").arg(home.join("client.pem")).arg("--key").arg(home.join("client.key"));
    }
    let said = run(command.args(arguments).arg(url), b"", wait::DEADLINE);
    let (failure, status) = said.err.rsplit_once('\n').unwrap_or((&said.err, "0"));
    Answer {
        status: status.trim().parse().unwrap_or(0),
        headers: std::fs::read_to_string(headers.path()).unwrap_or_default(),
        body: said.out,
        failure: failure.trim().to_owned(),
    }
}
