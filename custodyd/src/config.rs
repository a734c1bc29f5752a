//! The one configuration file: TOML in, types that can't be wrong out. Unknown keys are errors that name the line.

use custody_core::event::hex::hash_from_hex;
use custody_core::log::CosignerKey;
use custody_core::state::change::is_name;
use custody_proxy::balancer::Balancers;
use custody_proxy::ca::ssh::LOGIN_SECONDS_MAX;
use custody_proxy::ca::x509::CLIENT_SECONDS_MAX;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest that a login may last, in hours: what the authorities give.
const LOGIN_HOURS_MAX: u64 = {
    let seconds = if LOGIN_SECONDS_MAX < CLIENT_SECONDS_MAX { LOGIN_SECONDS_MAX } else { CLIENT_SECONDS_MAX };
    seconds / 3600
};

/// Everything that `custodyd` is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The data directory: log, keys, secrets, recordings, projections.
    pub data: PathBuf,
    /// This program's name as a producer of events.
    #[serde(default = "default_name")]
    pub name: String,
    /// The log's origin (C2SP tlog-checkpoint): a schema-less URL without a trailing slash. Fixed at `init`.
    pub origin: String,
    /// The HTTPS API.
    pub api: Api,
    /// The SSH proxy.
    pub ssh: Ssh,
    /// Recordings.
    #[serde(default)]
    pub recording: Recording,
    /// Certificates.
    #[serde(default)]
    pub certificates: Certificates,
    /// An authority that stamps checkpoints (RFC 3161).
    pub timestamping: Option<Timestamping>,
    /// The log for everybody's tools, without TLS: checkpoints and hashes for anyone, entries by token.
    pub log_http: Option<LogHttp>,
    /// Who may read all entries of the log by a token: witnesses and mirrors.
    #[serde(default, rename = "reader")]
    pub readers: Vec<Reader>,
    /// Who cosigns the log.
    #[serde(default, rename = "witness")]
    pub witnesses: Vec<Witness>,
    /// Where the log's events are delivered to.
    #[serde(default, rename = "sink")]
    pub sinks: Vec<crate::sinks::Settings>,
}

/// `[log_http]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogHttp {
    /// Where it listens.
    pub listen: SocketAddr,
}

/// `[[reader]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reader {
    /// Its name, as events tell of it.
    pub name: String,
    /// The SHA-256 of its token, in hex. The token itself stands nowhere here.
    pub token_sha256: String,
}

impl Reader {
    /// The hash as bytes.
    pub fn token_hash(&self) -> Option<[u8; 32]> {
        hash_from_hex(&self.token_sha256)
    }
}

/// `[[witness]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// Its verifier key (C2SP signed-note), as `custodyd witness init` printed it.
    pub key: String,
    /// Its submission prefix: what comes before `/add-checkpoint`.
    pub url: String,
    /// A PEM file with the authorities that its certificate is checked against; the machine's own without one.
    pub ca: Option<PathBuf>,
    /// What happens when it can't be asked, at a start, whether this is the newest copy of the log.
    #[serde(default)]
    pub at_start: AtStart,
}

/// Whether the log may go on without the word of a witness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AtStart {
    /// It may not.
    #[default]
    Require,
    /// It may, and the log says so.
    Warn,
}

/// `[api]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Where it listens.
    pub listen: SocketAddr,
    /// DNS names and addresses that its certificate is good for.
    pub names: Vec<String>,
    /// Addresses and networks of load balancers, which say by PROXY protocol v2 whose connection it is; for the log
    /// without TLS too.
    #[serde(default)]
    pub proxy_protocol_from: Vec<String>,
}

/// `[ssh]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ssh {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What people connect to, `host:port`, when it isn't `listen`.
    pub public_address: Option<String>,
    /// Names and addresses that its host certificate is good for.
    pub names: Vec<String>,
    /// The addresses that targets see the proxy come from: written into each session's certificate.
    pub source_addresses: Vec<IpAddr>,
    /// Addresses and networks of load balancers, which say by PROXY protocol v2 whose connection it is.
    #[serde(default)]
    pub proxy_protocol_from: Vec<String>,
    /// How long live sessions may go on after SIGTERM, in seconds.
    #[serde(default = "default_drain_seconds")]
    pub drain_seconds: u64,
    /// How long a live session may go on without the log taking evidence, in seconds.
    #[serde(default = "default_log_outage_seconds")]
    pub log_outage_seconds: u64,
    /// Further host keys: OpenSSH's private key files, e.g. of the jump host whose place Custody takes.
    #[serde(default)]
    pub host_keys: Vec<PathBuf>,
    /// Host keys that come into use later, private key files too: clients learn them beforehand.
    #[serde(default)]
    pub upcoming_host_keys: Vec<PathBuf>,
    /// Whether clients are offered key exchange on NIST's curves as well: for machines in FIPS 140 mode.
    #[serde(default)]
    pub nist_curves: bool,
    /// Whether clients are offered MACs over the clear packet as well: for those that know no other and no cipher that
    /// authenticates, as libssh2 before 1.11.
    #[serde(default)]
    pub plain_macs: bool,
    /// Whether clients without a certificate are asked for a user's name and password: for those that know none, as
    /// dropbear's. Then this machine sees passwords.
    #[serde(default)]
    pub keyboard_interactive: bool,
    /// Authenticated and unauthenticated connections at once.
    #[serde(default = "default_connections_max")]
    pub connections_max: usize,
}

impl Api {
    /// Who is believed to be a load balancer.
    pub fn balancers(&self) -> Result<Balancers, String> {
        Balancers::parse(&self.proxy_protocol_from)
    }
}

impl Ssh {
    /// Who is believed to be a load balancer.
    pub fn balancers(&self) -> Result<Balancers, String> {
        Balancers::parse(&self.proxy_protocol_from)
    }
}

/// `[recording]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recording {
    /// The auditors' X25519 public keys, PEM files: what goes into sessions of the level `full` is kept sealed to them.
    pub auditors: Vec<PathBuf>,
    /// Output of a program without a terminal that is recorded whole, in bytes; beyond it length and SHA-256.
    pub exec_bytes_max: u64,
}

/// `[certificates]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Certificates {
    /// How long a login lasts, in hours.
    pub login_hours: u64,
}

/// `[timestamping]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timestamping {
    /// The authority's address, http or https: its answers are signed.
    pub url: String,
    /// The CA of the authority's own TLS certificate, PEM, where it isn't a public one.
    pub ca: Option<PathBuf>,
    /// How often, in seconds.
    #[serde(default = "default_stamp_seconds")]
    pub every_seconds: u64,
}

impl Default for Recording {
    fn default() -> Self {
        Self { auditors: Vec::new(), exec_bytes_max: 1 << 20 }
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self { login_hours: 8 }
    }
}

fn default_name() -> String {
    "custody".to_owned()
}

const fn default_drain_seconds() -> u64 {
    10
}

const fn default_log_outage_seconds() -> u64 {
    30
}

const fn default_stamp_seconds() -> u64 {
    24 * 3600
}

const fn default_connections_max() -> usize {
    4096
}

/// Why the configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It can't be read.
    #[error("the configuration {path} can't be read: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// It isn't what it should be; the parser's message names line and key.
    #[error("the configuration {path} is wrong: {message}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What and where.
        message: String,
    },
}

/// Reads and checks the configuration of a role.
///
/// # Errors
/// See [`ConfigError`].
pub fn read<C: DeserializeOwned>(
    path: &Path,
    check: impl FnOnce(&C) -> Result<(), String>,
) -> Result<C, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?;
    parse(&text, check).map_err(|message| ConfigError::Wrong { path: path.to_owned(), message })
}

fn parse<C: DeserializeOwned>(text: &str, check: impl FnOnce(&C) -> Result<(), String>) -> Result<C, String> {
    let config = toml::from_str(text).map_err(|error| describe(text, &error))?;
    check(&config)?;
    Ok(config)
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        read(path, Self::check)
    }

    fn check(&self) -> Result<(), String> {
        check_origin(&self.origin)?;
        for witness in &self.witnesses {
            CosignerKey::parse(&witness.key)
                .map_err(|error| format!("witness.key = \"{}\": {error}", witness.key))?;
            if !witness.url.starts_with("https://") && !witness.url.starts_with("http://") {
                return Err(format!("witness.url = \"{}\" must begin with https:// or http://", witness.url));
            }
        }
        let name_ok = !self.name.is_empty()
            && self.name.len() <= 64
            && self.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !name_ok {
            return Err(format!("name = \"{}\" must be 1 to 64 letters, digits, - _ or .", self.name));
        }
        if self.ssh.source_addresses.is_empty() {
            return Err("ssh.source_addresses is empty: targets would refuse every session, name the proxy's own address".into());
        }
        self.api.balancers().map_err(|error| format!("api.proxy_protocol_from: {error}"))?;
        self.ssh.balancers().map_err(|error| format!("ssh.proxy_protocol_from: {error}"))?;
        for reader in &self.readers {
            let name = &reader.name;
            if !is_name(name) {
                return Err(format!(
                    "reader.name = \"{name}\" must be 1 to 63 lower-case letters, digits, - _ or ."
                ));
            }
            if self.readers.iter().filter(|other| other.name == *name).count() > 1 {
                return Err(format!("reader.name = \"{name}\" stands there twice"));
            }
            if reader.token_hash().is_none() {
                return Err(format!(
                    "the token_sha256 of the reader {name} must be 64 lower-case hex digits"
                ));
            }
        }
        for sink in &self.sinks {
            sink.check()?;
            if self.sinks.iter().filter(|other| other.name == sink.name).count() > 1 {
                return Err(format!("sink.name = \"{}\" stands there twice", sink.name));
            }
        }
        if !(1..=LOGIN_HOURS_MAX).contains(&self.certificates.login_hours) {
            return Err(format!("certificates.login_hours must be 1 to {LOGIN_HOURS_MAX}"));
        }
        if let Some(address) = &self.ssh.public_address
            && host_and_port(address).is_none()
        {
            return Err(format!(
                "ssh.public_address = \"{address}\" must be host:port, e.g. custody.example.com:3022 or [2001:db8::1]:3022"
            ));
        }
        if self.timestamping.as_ref().is_some_and(|stamping| stamping.every_seconds == 0) {
            return Err("timestamping.every_seconds must be 1 or more".into());
        }
        Ok(())
    }

    /// What people connect to by SSH, `host:port`.
    pub fn ssh_address(&self) -> String {
        self.ssh.public_address.clone().unwrap_or_else(|| self.ssh.listen.to_string())
    }

    /// The names that only the SSH proxy's own host certificate may have.
    pub fn ssh_names(&self) -> Vec<String> {
        let address = self.ssh_address();
        let public = host_and_port(&address).map(|(host, _)| host.to_owned());
        self.ssh.names.iter().cloned().chain(public).collect()
    }

    /// How long live sessions may go on after SIGTERM.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.ssh.drain_seconds)
    }

    /// How long a live session may go on without evidence.
    pub fn log_outage(&self) -> Duration {
        Duration::from_secs(self.ssh.log_outage_seconds)
    }
}

/// Host and port of an address that people connect to; an IPv6 address stands in brackets.
fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|ip| ip.parse::<Ipv6Addr>().is_ok())?,
        None => host,
    };
    let is_plain = |character: char| !character.is_whitespace() && !character.is_control();
    let in_brackets = address.starts_with('[');
    let good = !host.is_empty()
        && host.chars().all(is_plain)
        && (in_brackets || !host.contains([':', '[', ']', '/', '@', '"']));
    good.then_some((host, port))
}

/// Whether a log can have this origin.
pub fn check_origin(origin: &str) -> Result<(), String> {
    let ok = !origin.is_empty()
        && !origin.contains("://")
        && !origin.ends_with('/')
        && !origin.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+');
    if ok {
        return Ok(());
    }
    Err(format!(
        "origin = \"{origin}\" must be a URL without scheme, trailing slash, blank or +, e.g. custody.example.com/log"
    ))
}

/// The parser's message in one line, with the line it is about.
fn describe(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|span| 1 + text.get(..span.start).unwrap_or_default().matches('\n').count());
    let message = error.message().replace('\n', " ");
    match line {
        Some(line) => format!("line {line}: {message}"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Config, String> {
        parse(text, Config::check)
    }

    const GOOD: &str = r#"
data = "/var/lib/custody"
origin = "custody.test/log"
[api]
listen = "127.0.0.1:3080"
names = ["localhost"]
[ssh]
listen = "127.0.0.1:3022"
names = ["127.0.0.1"]
source_addresses = ["127.0.0.1"]
"#;

    #[test]
    fn defaults_fill_what_is_left_out() {
        let config = parsed(GOOD).unwrap();
        assert_eq!((config.name.as_str(), config.recording.exec_bytes_max), ("custody", 1 << 20));
        assert_eq!(config.ssh_address(), "127.0.0.1:3022");
    }

    #[test]
    fn a_reader_has_a_name_and_the_hash_of_a_token() {
        let with = |readers: &str| parsed(&format!("{GOOD}{readers}"));
        let reader =
            |name: &str, hash: &str| format!("[[reader]]\nname = \"{name}\"\ntoken_sha256 = \"{hash}\"\n");
        let hash = "ab".repeat(32);
        let config = with(&reader("north", &hash)).unwrap();
        assert_eq!(config.readers[0].token_hash(), Some([0xab; 32]));
        for (text, says) in [
            (reader("north", "ab"), "64 lower-case hex digits"),
            (reader("north", &"zz".repeat(32)), "64 lower-case hex digits"),
            (reader("No rth", &hash), "reader.name"),
            (format!("{0}{0}", reader("north", &hash)), "twice"),
            (reader("north", &hash).replace("token_sha256", "token"), "unknown field `token`"),
        ] {
            let error = with(&text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_sink_has_a_name_and_one_destination() {
        let with = |sinks: &str| parsed(&format!("{GOOD}{sinks}"));
        let loki = "[sink.loki]\nendpoint = { url = \"http://127.0.0.1:3100\" }\n";
        let config = with(&format!("[[sink]]\nname = \"loki\"\n{loki}")).unwrap();
        assert_eq!(config.sinks[0].stall_seconds, 10);
        for (text, says) in [
            ("[[sink]]\nname = \"loki\"\n".to_owned(), "say where to"),
            (format!("[[sink]]\nname = \"../loki\"\n{loki}"), "sink.name"),
            (
                format!("[[sink]]\nname = \"l\"\nfilter = {{ include = [\"x\"] }}\n{loki}"),
                "no event has the type x",
            ),
            (
                format!("[[sink]]\nname = \"l\"\nredact = [{{ field = \"data.comand\" }}]\n{loki}"),
                "sink l: no event has a field data.comand: did you mean data.command?",
            ),
            (format!("[[sink]]\nname = \"l\"\nstal_seconds = 1\n{loki}"), "unknown field `stal_seconds`"),
            (format!("[[sink]]\nname = \"l\"\n{}", loki.replace("http:", "ftp:")), "must begin with https"),
            (format!("[[sink]]\nname = \"l\"\n{loki}[[sink]]\nname = \"l\"\n{loki}"), "twice"),
        ] {
            let error = with(&text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_witness_has_a_key_that_cosigns_and_a_url() {
        let key = "witness.example+a50367b6+BP0XJDhaoMdbZPt4zWAvodmR/ev3axPFjtcC6sg16fYY";
        let with = |key: &str, url: &str, more: &str| {
            parsed(&format!("{GOOD}[[witness]]\nkey = \"{key}\"\nurl = \"{url}\"\n{more}"))
        };
        let config = with(key, "https://w.example", "").unwrap();
        assert_eq!(config.witnesses[0].at_start, AtStart::Require);
        let warns = with(key, "http://w.example", "at_start = \"warn\"\n").unwrap();
        assert_eq!(warns.witnesses[0].at_start, AtStart::Warn);
        let signs = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        for (wrong, says) in [
            (with(signs, "https://w.example", ""), "cosigns"),
            (with(key, "w.example", ""), "must begin with https://"),
            (with(key, "https://w.example", "at_start = \"never\"\n"), "unknown variant"),
        ] {
            let error = wrong.unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let unknown = GOOD.replace("names = [\"localhost\"]", "names = []\nlisten_adress = \"x\"");
        assert!(parsed(&unknown).unwrap_err().starts_with("line 7: unknown field `listen_adress`"));
        let last = "source_addresses = [\"127.0.0.1\"]\n";
        let hours = |hours: u64| format!("{last}[certificates]\nlogin_hours = {hours}\n");
        let public = |address: &str| format!("{last}public_address = \"{address}\"\n");
        for taken in [hours(168), public("custody.test:22"), public("[2001:db8::1]:22")] {
            parsed(&GOOD.replace(last, &taken)).unwrap();
        }
        for (from, to, says) in [
            (last, &*hours(0), "certificates.login_hours must be 1 to 168"),
            (last, &*hours(169), "certificates.login_hours must be 1 to 168"),
            (last, &*public("custody.test"), "ssh.public_address"),
            (last, &*public("custody.test:ssh"), "ssh.public_address"),
            (last, &*public("custody.test:0"), "ssh.public_address"),
            (last, &*public(":22"), "ssh.public_address"),
            (last, &*public("2001:db8::1"), "ssh.public_address"),
            (last, &*public("[custody.test]:22"), "ssh.public_address"),
            ("custody.test/log", "https://custody.test/", "without scheme"),
            ("source_addresses = [\"127.0.0.1\"]", "source_addresses = []", "source_addresses is empty"),
            ("127.0.0.1:3080", "3080", "line 5"),
            (
                "names = [\"127.0.0.1\"]",
                "names = []\nproxy_protocol_from = [\"10.0/8\"]",
                "ssh.proxy_protocol_from",
            ),
        ] {
            let text = GOOD.replace(from, to);
            if text != GOOD {
                let error = parsed(&text).unwrap_err();
                assert!(error.contains(says), "{error}");
            }
        }
    }
}
