//! `custodyd`: puts the log, the certificate authorities, the API and the proxy together.

mod config;
mod cosign;
mod data;
mod epoch;
mod filled;
mod gaps;
mod host_keys;
mod identity;
mod init;
mod keys;
mod leaps;
mod newest;
mod node;
mod operate;
mod restore;
mod run;
mod seal;
mod secret;
mod sinks;
mod stamp;
mod still;
mod trace;
mod witness;

use clap::{Parser, Subcommand};
use config::Config;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// How long connections to Kafka may take to be closed at the end.
const CLOSING: Duration = Duration::from_secs(3);

/// The daemon of Custody
#[derive(Parser)]
#[command(name = "custodyd", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make keys and begin a log with its first administrator, whose password is read from standard input
    Init {
        /// The configuration
        #[arg(long)]
        config: PathBuf,
        /// The administrator's user name
        #[arg(long)]
        admin: String,
    },
    /// Serve until SIGTERM
    Run {
        /// The configuration
        #[arg(long)]
        config: PathBuf,
        /// Go on although a witness can't be asked whether this is the newest copy of the log, and let the log say so
        #[arg(long)]
        without_witness: bool,
    },
    /// Watch the logs of others: cosign them, keep copies, raise alarms
    Witness(witness::Role),
    /// Watch sessions on this machine: a node's agent beside its SSH server
    Node(node::Role),
    /// Keep what a destination of the log's events wants to be shown: a password, a token
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Print the public key (whpk_…) by which receivers know webhooks of a secret that signs them
    WebhookKey {
        /// The secret's name, as the configuration has it in `sign_with`
        name: String,
        /// The configuration
        #[arg(long)]
        config: PathBuf,
        /// Make a new key first, and put it in the place of what had its name
        #[arg(long)]
        make: bool,
    },
    /// Give a log that has lost entries back what a sink has of them, checked against the signed checkpoint
    Restore(restore::Restore),
    /// Go on under another origin, without entries that a witness has cosigned and that are lost for ever
    NewEpoch {
        /// The configuration, with the origin so far
        #[arg(long)]
        config: PathBuf,
        /// The origin from here on
        #[arg(long)]
        origin: String,
        /// Why it goes on without them
        #[arg(long)]
        reason: String,
        /// A file with the checkpoint that covers what is lost, e.g. from the witness
        #[arg(long)]
        lost: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum SecretCommand {
    /// Read one from standard input, and put it in the place of what had its name; it counts at once
    Put {
        /// Its name, as the configuration has it
        name: String,
        /// The configuration
        #[arg(long)]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let command = CommandLine::parse().command;
    trace::begin();
    match start(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is gone there is nobody to tell.
            let _written = writeln!(std::io::stderr(), "custodyd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> anyhow::Result<()> {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        anyhow::bail!("another TLS provider is installed already");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = match command {
        Command::Init { config, admin } => runtime.block_on(init::init(&Config::read(&config)?, &admin)),
        Command::Run { config, without_witness } => {
            runtime.block_on(run::run(Config::read(&config)?, without_witness))
        }
        Command::Witness(role) => runtime.block_on(witness::run(role)),
        Command::Node(role) => runtime.block_on(node::run(role)),
        Command::Restore(args) => runtime.block_on(restore::restore(args)),
        Command::Secret(SecretCommand::Put { name, config }) => secret::put(&Config::read(&config)?, &name),
        Command::WebhookKey { name, config, make } => {
            secret::webhook_key(&Config::read(&config)?, &name, make)
        }
        Command::NewEpoch { config, origin, reason, lost } => {
            runtime.block_on(epoch::begin(&Config::read(&config)?, &origin, &reason, lost.as_deref()))
        }
    };
    drop(runtime);
    custody_sinks_kafka::wait_until_closed(CLOSING);
    done
}
