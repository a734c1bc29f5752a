//! `custody restrict`: what sessions may reach, run and touch on the nodes that they are on.

use crate::admin::{Matches, command, list};
use crate::at::At;
use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// `custody restrict`
#[derive(Subcommand)]
pub enum Restrict {
    /// List the restrictions that hold
    Ls {
        #[command(flatten)]
        at: At,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Restrict what sessions may reach, run and touch, those that are live too
    Add(Box<Add>),
    /// Lift a restriction
    Rm {
        /// Its name
        name: String,
    },
}

/// `custody restrict add`
#[derive(Args)]
pub struct Add {
    /// Its name
    name: String,
    #[command(flatten)]
    matches: Matches,
    /// A network that may not be reached: CIDR, or CIDR=PORTS as 192.0.2.0/24=22,8000-8080; may be given several times
    #[arg(long, value_name = "NETWORK")]
    deny: Vec<String>,
    /// A network that may be reached: where one is given, nothing else may
    #[arg(long, value_name = "NETWORK")]
    allow: Vec<String>,
    /// Programs that may not be run: absolute paths of files, or of directories for all below them
    #[arg(long, value_name = "PATH", value_delimiter = ',')]
    deny_program: Vec<String>,
    /// Programs that may be run: where one is given, nothing else may
    #[arg(long, value_name = "PATH", value_delimiter = ',')]
    allow_program: Vec<String>,
    /// A file, or a directory with all below it, that may not be opened, renamed, deleted, linked or changed; may be given
    /// several times
    #[arg(long, value_name = "PATH")]
    deny_path: Vec<String>,
    /// End a session that tries
    #[arg(long)]
    end_session: bool,
    /// What it is for
    #[arg(long)]
    reason: String,
}

/// Runs `custody restrict …`.
pub async fn restrict(restrict: Restrict) -> anyhow::Result<()> {
    match restrict {
        Restrict::Ls { at, json } => {
            let header = [
                "restriction",
                "matches",
                "deny",
                "allow",
                "deny programs",
                "allow programs",
                "deny paths",
                "reason",
            ];
            let fields = [
                "/matches",
                "/deny",
                "/allow",
                "/deny_programs",
                "/allow_programs",
                "/deny_paths",
                "/reason",
            ];
            list(&at, json, "/restrictions", &header, &fields).await
        }
        Restrict::Add(add) => {
            let Add {
                name,
                matches,
                deny,
                allow,
                deny_program,
                allow_program,
                deny_path,
                end_session,
                reason,
            } = *add;
            let programs_or_paths = [&deny_program, &allow_program, &deny_path];
            if deny.is_empty() && allow.is_empty() && programs_or_paths.iter().all(|paths| paths.is_empty()) {
                bail!(
                    "say what: networks with --deny or --allow, programs with --deny-program or --allow-program, files with --deny-path"
                );
            }
            let body = json!({
                "name": name,
                "matches": matches.to_json(),
                "deny": deny.iter().map(|text| network(text)).collect::<Vec<_>>(),
                "allow": allow.iter().map(|text| network(text)).collect::<Vec<_>>(),
                "deny_programs": deny_program,
                "allow_programs": allow_program,
                "deny_paths": deny_path,
                "ends_session": end_session,
                "reason": reason,
            });
            let done = format!("restricted: lift it with `custody restrict rm {name}`");
            command("create-restriction", body, &done).await
        }
        Restrict::Rm { name } => command("lift-restriction", json!({ "name": name }), "lifted").await,
    }
}

/// `CIDR` or `CIDR=PORT,FIRST-LAST` as the API takes it, which says what is wrong with it.
fn network(text: &str) -> Value {
    match text.split_once('=') {
        Some((cidr, ports)) => json!({ "cidr": cidr, "ports": ports.split(',').collect::<Vec<_>>() }),
        None => json!({ "cidr": text }),
    }
}
