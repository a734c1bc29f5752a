//! `custody`: what people type.

mod admin;
mod at;
mod client;
mod connect;
mod events;
mod identity;
mod kernel;
mod log;
mod login;
mod node;
mod play;
mod profile;
mod progress;
mod prove;
mod restrict;
mod served;
mod service;
mod sessions;
mod sinks;
mod ssh;
mod ssh_config;
mod table;
mod transfers;
mod verify;

use clap::{CommandFactory as _, Parser, Subcommand};
use std::io::Write as _;
use std::process::ExitCode;

/// Access that can be proved: log in once, use plain ssh, and show afterwards who did what
#[derive(Parser)]
#[command(name = "custody", version, propagate_version = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prove who you are and get certificates of some hours
    Login(login::Login),
    /// Forget keys and certificates
    Logout,
    /// Say who is logged in, and for how long
    Status,
    /// Run ssh to a node, without touching your configuration
    Ssh(ssh::Ssh),
    /// Run scp to or from a node, without touching your configuration
    Scp(ssh::Scp),
    /// List the nodes that can be reached
    Ls {
        #[command(flatten)]
        at: at::At,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List sessions, export their recordings
    #[command(alias = "session")]
    Sessions(sessions::Sessions),
    /// Play a session
    Play(sessions::Play),
    /// Look into the log, follow it, take an event out with its proof
    #[command(subcommand)]
    Events(events::Events),
    /// Write an event or a whole session with all that proves it, for people who have nothing of ours
    Prove(prove::Prove),
    /// Check a log (URL or directory), or what `custody prove` wrote, against the log's key
    Verify(verify::Verify),
    /// How the log does, its keys and clock, backups
    #[command(subcommand)]
    Log(log::Log),
    /// Where the log's events are delivered to: how it goes, and whether all of it is there
    #[command(subcommand)]
    Sinks(sinks::Sinks),
    /// End live sessions and refuse new ones
    Lock(admin::Lock),
    /// Lift a lock
    Unlock {
        /// Its name
        name: String,
    },
    /// List locks
    Locks {
        #[command(flatten)]
        at: at::At,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// What sessions may reach from the nodes that they are on
    #[command(subcommand)]
    Restrict(restrict::Restrict),
    /// Servers
    #[command(subcommand)]
    Node(node::Node),
    /// Users
    #[command(subcommand)]
    User(admin::User),
    /// Service accounts: programs that read events by a token, and nothing else
    #[command(subcommand)]
    Service(service::Service),
    /// Roles
    #[command(subcommand)]
    Role(admin::Role),
    /// Policies
    #[command(subcommand)]
    Policy(admin::Policy),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// For ssh's ProxyCommand: connect to a node and hand the socket to ssh
    #[command(hide = true)]
    Connect(connect::Connect),
}

fn main() -> ExitCode {
    let command = CommandLine::parse().command;
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return fail(&anyhow::anyhow!("another TLS provider is installed already"));
    }
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            let outcome = runtime.block_on(run(command));
            // Nobody waits for a standard input that may never end.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// One line: what happened, then why.
fn fail(error: &anyhow::Error) -> ExitCode {
    // If standard error is gone there is nobody to tell.
    let _written = writeln!(std::io::stderr(), "custody: {}", table::printable(&format!("{error:#}")));
    if error.is::<sinks::Incomplete>() { sinks::Incomplete::EXIT.into() } else { ExitCode::FAILURE }
}

/// Whoever reads our output has seen enough (`custody events search | head`).
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Login(args) => login::login(args).await,
        Command::Logout => login::logout(),
        Command::Status => login::status(),
        Command::Ls { at, json } => ls(&at, json).await,
        Command::Sessions(args) => sessions::sessions(args).await,
        Command::Play(args) => sessions::play(args).await,
        Command::Events(command) => events::events(command).await,
        Command::Log(command) => log::log(command).await,
        Command::Sinks(command) => sinks::sinks(command).await,
        Command::Prove(args) => prove::prove(args).await,
        Command::Verify(args) => verify::verify(&args).await,
        Command::Lock(args) => admin::lock(args).await,
        Command::Unlock { name } => admin::unlock(name).await,
        Command::Locks { at, json } => admin::locks(&at, json).await,
        Command::Restrict(command) => restrict::restrict(command).await,
        Command::Node(command) => node::node(command).await,
        Command::User(command) => admin::user(command).await,
        Command::Service(command) => service::service(command).await,
        Command::Role(command) => admin::role(command).await,
        Command::Policy(command) => admin::policy(command).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut CommandLine::command(), "custody", &mut std::io::stdout());
            Ok(())
        }
        Command::Connect(args) => connect::connect(args).await,
        Command::Ssh(args) => match ssh::ssh(args).await? {},
        Command::Scp(args) => match ssh::scp(args).await? {},
    }
}

async fn ls(at: &at::At, json: bool) -> anyhow::Result<()> {
    let (client, _) = client::Client::logged_in(&profile::Home::find()?)?;
    let nodes: Vec<serde_json::Value> = client.get_json("/v1/nodes", &at.query()).await?;
    if json {
        println!("{}", serde_json::to_string(&nodes)?);
        return Ok(());
    }
    let rows =
        nodes.iter().map(|n| ["/name", "/address", "/labels"].map(|path| table::field(n, path)).to_vec());
    table::print(
        &["node", "address", "labels"],
        rows.collect(),
        "No nodes: make one known with `custody node add NAME HOST:PORT`.",
    );
    Ok(())
}
