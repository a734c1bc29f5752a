//! `custody service`: service accounts, which read events by a token. A token is printed once, on standard output alone,
//! so that it can go into a file or another program's secret store without passing a screen.

use crate::admin::{command, state};
use crate::at::At;
use crate::client::Client;
use crate::profile::Home;
use crate::table::{self, field};
use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// `custody service`
#[derive(Subcommand)]
pub enum Service {
    /// List service accounts, their roles, and when their tokens run out
    Ls {
        #[command(flatten)]
        at: At,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make one, and print its token: it isn't shown again
    Add {
        /// The name, for good; no user has or had it
        name: String,
        /// A role; may be given several times. What a role may read is for a policy to say
        #[arg(long)]
        role: Vec<String>,
        /// For how many days the token is good
        #[arg(long, default_value_t = 365)]
        days: u64,
    },
    /// Set all roles of a service account anew
    Roles {
        /// The service account
        name: String,
        /// A role; may be given several times; none takes all away
        #[arg(long)]
        role: Vec<String>,
    },
    /// Print another token; the one before ends
    Rotate {
        /// The service account
        name: String,
        /// For how many days the new token is good
        #[arg(long, default_value_t = 365)]
        days: u64,
        /// Let the token before go on for so many hours, until the new one is in place
        #[arg(long, default_value_t = 0)]
        keep_hours: u64,
    },
    /// Remove a service account; what it follows ends
    Rm {
        /// The service account
        name: String,
    },
}

#[derive(Deserialize)]
struct Token {
    expires: String,
    index: u64,
    token: String,
}

/// Runs `custody service …`.
pub async fn service(service: Service) -> anyhow::Result<()> {
    match service {
        Service::Ls { at, json } => list(&at, json).await,
        Service::Add { name, role, days } => {
            let body = json!({ "name": name, "roles": role, "days": days });
            token("create-service", body, &format!("{name} is a service account")).await
        }
        Service::Roles { name, role } => {
            let done = format!("{name} has the roles {}", role.join(", "));
            command("set-service-roles", json!({ "name": name, "roles": role }), &done).await
        }
        Service::Rotate { name, days, keep_hours } => {
            let body = json!({ "name": name, "days": days, "keep_hours": keep_hours });
            let done = match keep_hours {
                0 => format!("{name} has a new token; the one before counts no longer"),
                hours => format!("{name} has a new token; the one before goes on for {hours} h"),
            };
            token("rotate-service", body, &done).await
        }
        Service::Rm { name } => {
            let done = format!("{name} is no longer a service account");
            command("remove-service", json!({ "name": name }), &done).await
        }
    }
}

/// A command that gives a token.
pub(crate) async fn token(name: &str, body: Value, done: &str) -> anyhow::Result<()> {
    let (client, _) = Client::logged_in(&Home::find()?)?;
    let Token { expires, index, token } = client.post(&format!("/v1/commands/{name}"), &body).await?;
    let token = Zeroizing::new(token);
    eprintln!("{done} (event {index}). Its token is good until {expires}, and isn't shown again:");
    println!("{}", *token);
    Ok(())
}

async fn list(at: &At, as_json: bool) -> anyhow::Result<()> {
    let state = state(at).await?;
    let present = state.pointer("/services/present").cloned().unwrap_or_default();
    if as_json {
        println!("{present}");
        return Ok(());
    }
    let rows = present.as_object().into_iter().flatten().map(|(name, one)| {
        let column = |path| field(one, path);
        vec![name.clone(), column("/roles"), column("/token/expires"), column("/previous/expires")]
    });
    let header = ["service account", "roles", "token until", "the one before until"];
    table::print(&header, rows.collect(), "There are none: custody service add NAME --role ROLE");
    Ok(())
}
