//! `custody ssh` and `custody scp`: the stock programs with the configuration of the last login, for those who don't
//! want to touch their own.

use crate::client::Client;
use crate::profile::Home;
use anyhow::{Context as _, bail};
use clap::Args;
use dialoguer::FuzzySelect;
use dialoguer::console::Term;
use serde_json::Value;
use std::convert::Infallible;
use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// `custody ssh`
#[derive(Args)]
pub struct Ssh {
    /// Where to, [LOGIN@]NODE; asked for if left out
    #[arg(value_name = "[LOGIN@]NODE")]
    to: Option<String>,
    /// An option for ssh, as in -o -L=8080:localhost:80; repeat it for more
    #[arg(short = 'o', long = "option", value_name = "OPTION", allow_hyphen_values = true)]
    options: Vec<String>,
    /// The command to run there, after --; a shell if left out
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// `custody scp`
#[derive(Args)]
pub struct Scp {
    /// As for scp; a node is NODE.custody or NODE, as in web-1:/etc/hosts
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs `custody ssh`: becomes ssh.
pub async fn ssh(args: Ssh) -> anyhow::Result<Infallible> {
    let home = logged_in()?;
    let to = match args.to {
        Some(to) => to,
        None => pick(&home).await?,
    };
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(home.path("ssh_config")).args(&args.options).arg("--").arg(destination(&to));
    become_it(ssh.args(&args.command))
}

/// Runs `custody scp`: becomes scp.
pub async fn scp(args: Scp) -> anyhow::Result<Infallible> {
    let home = logged_in()?;
    let mut scp = Command::new("scp");
    scp.arg("-F").arg(home.path("ssh_config"));
    become_it(scp.args(args.arguments.iter().map(|argument| place(argument))))
}

/// The folder of a login that still holds: ssh would only say that a certificate was refused.
fn logged_in() -> anyhow::Result<Home> {
    let home = Home::find()?;
    home.profile()?.in_time()?;
    Ok(home)
}

fn become_it(command: &mut Command) -> anyhow::Result<Infallible> {
    let name = command.get_program().to_string_lossy().into_owned();
    Err(command.exec()).with_context(|| format!("{name} can't be run: is the OpenSSH client installed?"))
}

/// Asks which node.
async fn pick(home: &Home) -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() {
        bail!("say which node: `custody ls` lists them");
    }
    let (client, _) = Client::logged_in(home)?;
    let nodes: Vec<Value> = client.get_json("/v1/nodes", &[]).await?;
    let names: Vec<String> =
        nodes.iter().filter_map(|node| node["name"].as_str().map(str::to_owned)).collect();
    if names.is_empty() {
        bail!("there are no nodes: an administrator makes one known with `custody node add NAME HOST:PORT`");
    }
    // Ctrl-C is a signal while a key is looked at, and an error of the picker's while it waits for one.
    let mut interrupts = signal(SignalKind::interrupt())?;
    let picking = tokio::task::spawn_blocking(move || {
        let picked = FuzzySelect::new().with_prompt("Node").items(&names).default(0).interact_opt();
        picked.map(|picked| picked.and_then(|at| names.into_iter().nth(at)))
    });
    let picked = tokio::select! {
        picked = picking => picked?,
        _ = interrupts.recv() => leave_picker(),
    };
    match picked {
        Ok(Some(name)) => Ok(name),
        Err(dialoguer::Error::IO(error)) if error.kind() == std::io::ErrorKind::Interrupted => leave_picker(),
        Ok(None) => bail!("no node was picked"),
        Err(error) => Err(error).context("no node was picked"),
    }
}

/// Ends as Ctrl-C ends programs, but leaves the terminal its cursor, which the picker hides.
fn leave_picker() -> ! {
    // If the terminal is gone it needs no cursor.
    let _shown = Term::stderr().show_cursor();
    std::process::exit(128 + rustix::process::Signal::INT.as_raw());
}

/// `[LOGIN@]NODE` as ssh is to see it, so that the include is about it.
fn destination(to: &str) -> String {
    if to.ends_with(".custody") { to.to_owned() } else { format!("{to}.custody") }
}

/// An argument of scp: `[LOGIN@]NODE:PATH` gets the node's long name; anything else stays, files among it that have a
/// colon behind a slash, as scp itself reads them.
fn place(argument: &str) -> String {
    match argument.split_once(':') {
        Some((host, path)) if !host.is_empty() && !host.contains('/') && !host.starts_with('-') => {
            format!("{}:{path}", destination(host))
        }
        _ => argument.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_get_their_long_names_and_nothing_else_changes() {
        assert_eq!(destination("root@web-1"), "root@web-1.custody");
        assert_eq!(destination("web-1.custody"), "web-1.custody");
        for (argument, becomes) in [
            ("web-1:/etc/hosts", "web-1.custody:/etc/hosts"),
            ("root@web-1.custody:a:b", "root@web-1.custody:a:b"),
            ("./a:b", "./a:b"),
            ("-r", "-r"),
            ("-oPort:3", "-oPort:3"),
            ("plain", "plain"),
        ] {
            assert_eq!(place(argument), becomes);
        }
    }
}
