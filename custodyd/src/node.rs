//! `custodyd node`: the agent beside a node's SSH server.

use crate::config::{self, ConfigError};
use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use custody_core::log::durable;
use custody_node::agent::{self, AgentOptions};
use custody_node::link::identity::Identity;
use custody_node::link::join;
use custody_node::sensor::{Tier, WATCHED, probe};
use serde::Deserialize;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// The longest token, in bytes.
const TOKEN_BYTES_MAX: u64 = 1024;

/// `custodyd node`
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Role {
    #[command(subcommand)]
    command: Option<Command>,
    /// The agent's configuration
    #[arg(long)]
    config: Option<PathBuf>,
    /// Say what this kernel lets an agent see and refuse, and what to change; nothing stays attached
    #[arg(long)]
    check: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Join with a token that `custody node token` printed; it is read from standard input
    Join {
        /// The agent's configuration
        #[arg(long)]
        config: PathBuf,
        /// The API's address, https://HOST:PORT
        #[arg(long)]
        server: String,
        /// The server's authority, PEM: x509-server-ca.pem of its data directory
        #[arg(long)]
        ca: PathBuf,
    },
}

/// Everything that an agent is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Where its key, its certificate, its spool and its sessions lie.
    data: PathBuf,
    /// Where its programs are pinned, on a bpffs.
    pins: Option<PathBuf>,
    /// How much of the disk events may take that the log hasn't got yet, in MiB.
    #[serde(default = "default_spool")]
    spool_mebibytes: u64,
    /// The kernel's buffer, in MiB: a power of two.
    #[serde(default = "default_buffer")]
    buffer_mebibytes: u32,
    /// How long sessions may go on when the agent is gone, in seconds.
    #[serde(default = "default_heartbeat")]
    heartbeat_seconds: u64,
    /// Whose files are watched, where the kernel lets an agent see files.
    #[serde(default = "default_watched")]
    watched: Vec<PathBuf>,
    /// Only by these means, where the kernel has better ones.
    tier: Option<TierName>,
}

/// By which means.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TierName {
    Lsm,
    Tracepoint,
}

impl From<TierName> for Tier {
    fn from(name: TierName) -> Self {
        match name {
            TierName::Lsm => Self::Lsm,
            TierName::Tracepoint => Self::Tracepoint,
        }
    }
}

const fn default_spool() -> u64 {
    512
}

const fn default_buffer() -> u32 {
    8
}

const fn default_heartbeat() -> u64 {
    5
}

fn default_watched() -> Vec<PathBuf> {
    WATCHED.map(PathBuf::from).into()
}

/// Runs the role.
pub async fn run(role: Role) -> anyhow::Result<()> {
    match role {
        Role { command: Some(Command::Join { config, server, ca }), .. } => {
            join(&Config::read(&config)?, &server, &ca).await
        }
        Role { check: true, config, .. } => check(config.as_deref()),
        Role { config: Some(config), .. } => watch(Config::read(&config)?).await,
        Role { config: None, .. } => bail!("say with --config how, or ask with --check what this kernel can"),
    }
}

impl Config {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        config::read(path, Self::check)
    }

    fn check(&self) -> Result<(), String> {
        if !self.buffer_mebibytes.is_power_of_two() || self.buffer_mebibytes > 1024 {
            return Err("buffer_mebibytes must be a power of two, at most 1024".to_owned());
        }
        if self.spool_mebibytes == 0 || self.heartbeat_seconds == 0 {
            return Err("spool_mebibytes and heartbeat_seconds must be at least 1".to_owned());
        }
        if let Some(path) = self.watched.iter().find(|path| !path.is_absolute()) {
            return Err(format!("watched paths are absolute, and {} isn't", path.display()));
        }
        Ok(())
    }
}

/// Reads the token and joins.
async fn join(config: &Config, server: &str, ca: &Path) -> anyhow::Result<()> {
    durable::create_directories(&config.data)
        .with_context(|| format!("the agent's directory {}", config.data.display()))?;
    let mut token = Zeroizing::new(String::new());
    let read = std::io::stdin().lock().take(TOKEN_BYTES_MAX).read_to_string(&mut token);
    read.context("the token can't be read from standard input")?;
    let server_ca = std::fs::read(ca).with_context(|| format!("the server's authority {}", ca.display()))?;
    let joined = join::join(&Identity::new(&config.data), server, &server_ca, &token).await?;
    println!("This is the agent of {} now, for the log {}.", joined.node, joined.origin);
    Ok(())
}

/// Watches until SIGTERM.
async fn watch(config: Config) -> anyhow::Result<()> {
    let options = AgentOptions {
        data: config.data,
        pins: config.pins,
        spool_bytes: config.spool_mebibytes << 20,
        ring_bytes: config.buffer_mebibytes << 20,
        heartbeat_limit: Duration::from_secs(config.heartbeat_seconds),
        watched: config.watched,
        tier: config.tier.map(Tier::from),
    };
    let stopped = crate::run::stop_signal()?;
    Ok(agent::run(options, stopped).await?)
}

/// Says what the kernel supports.
fn check(config: Option<&Path>) -> anyhow::Result<()> {
    let tier = config.map(Config::read).transpose()?.and_then(|config| config.tier).map(Tier::from);
    let probe = probe(Path::new("/sys/fs/bpf"), tier);
    let said = match probe.coverage {
        Ok(coverage) => {
            println!("kernel {}: sessions can be watched by {}", coverage.kernel, means(coverage.tier));
            for (feature, can) in coverage.features {
                match can {
                    Ok(()) => println!("  yes  {feature}"),
                    Err(why) => println!("  no   {feature}: {why}"),
                }
            }
            Ok(())
        }
        Err(error) => Err(anyhow::Error::new(error).context("sessions can't be watched on this kernel")),
    };
    for advice in probe.advice {
        println!("  do   {advice}");
    }
    said
}

const fn means(tier: Tier) -> &'static str {
    match tier {
        Tier::Lsm => "the kernel's security module (BPF LSM)",
        Tier::Tracepoint => "tracepoints, hooks of control groups and signals",
    }
}
