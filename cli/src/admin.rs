//! Commands that change state: each is decided by the server on the log's state and becomes an event.

use crate::at::At;
use crate::client::Client;
use crate::login::password;
use crate::profile::Home;
use crate::table;
use anyhow::Context as _;
use clap::Subcommand;
use custody_core::recording::text::harmless;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// `custody user`
#[derive(Subcommand)]
pub enum User {
    /// List users and their roles
    Ls {
        #[command(flatten)]
        at: At,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a user
    Add {
        /// The name, for good
        name: String,
        /// A role; may be given several times
        #[arg(long)]
        role: Vec<String>,
        /// Read the password from standard input (one line) instead of asking for it
        #[arg(long)]
        password_stdin: bool,
    },
    /// Set all roles of a user anew
    Roles {
        /// The user
        name: String,
        /// A role; may be given several times; none takes all away
        #[arg(long)]
        role: Vec<String>,
    },
    /// Set a password
    Password {
        /// The user
        name: String,
        /// Read the password from standard input (one line) instead of asking for it
        #[arg(long)]
        password_stdin: bool,
    },
    /// Remove a user; live sessions end
    Rm {
        /// The user
        name: String,
    },
}

/// `custody role`
#[derive(Subcommand)]
pub enum Role {
    /// List roles
    Ls {
        #[command(flatten)]
        at: At,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a role
    Add {
        /// Its name
        name: String,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Remove a role from everybody
    Rm {
        /// Its name
        name: String,
    },
}

/// `custody policy`
#[derive(Subcommand)]
pub enum Policy {
    /// Put a document of Cedar policies in force; one of that name is replaced
    Upload {
        /// The document's name
        name: String,
        /// Cedar text; each policy needs an @id
        file: PathBuf,
    },
    /// Print the documents in force
    Ls {
        #[command(flatten)]
        at: At,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a document out of force
    Rm {
        /// Its name
        name: String,
    },
}

/// Whom or what something matches: all that is given.
#[derive(clap::Args)]
pub struct Matches {
    /// A user
    #[arg(long)]
    user: Option<String>,
    /// A node, with or without .custody
    #[arg(long)]
    node: Option<String>,
    /// Everybody with a role
    #[arg(long)]
    role: Option<String>,
    /// An account at targets
    #[arg(long)]
    login: Option<String>,
    /// One session
    #[arg(long)]
    session: Option<String>,
}

impl Matches {
    /// As the API takes it.
    pub fn to_json(&self) -> Value {
        // Where it is typed for ssh it has an ending, and in the log it has none.
        let node = self.node.as_deref().map(|node| node.strip_suffix(".custody").unwrap_or(node));
        let given = [
            ("user", self.user.as_deref()),
            ("node", node),
            ("role", self.role.as_deref()),
            ("login", self.login.as_deref()),
            ("session", self.session.as_deref()),
        ];
        let given = given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.into())));
        Value::Object(given.collect())
    }
}

/// `custody lock`
#[derive(clap::Args)]
pub struct Lock {
    #[command(flatten)]
    matches: Matches,
    /// What the people concerned are told
    #[arg(long)]
    reason: String,
    /// When it runs out, RFC 3339; never if left out
    #[arg(long)]
    expires: Option<String>,
    /// A name for it; one is made if left out
    #[arg(long)]
    name: Option<String>,
}

#[derive(Deserialize)]
struct Done {
    index: u64,
}

pub(crate) async fn command(name: &str, body: Value, done: &str) -> anyhow::Result<()> {
    let (client, _) = Client::logged_in(&Home::find()?)?;
    let answer: Done = client.post(&format!("/v1/commands/{name}"), &body).await?;
    println!("{done} (event {})", answer.index);
    Ok(())
}

pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
}

/// Runs `custody user …`.
pub async fn user(command_line: User) -> anyhow::Result<()> {
    match command_line {
        User::Ls { at, json } => list(&at, json, "/users/present", &["user", "roles"], &["/roles"]).await,
        User::Add { name, role, password_stdin } => {
            let secret = password(password_stdin, &format!("Password for {name}: "))?;
            command("create-user", json!({ "name": name, "roles": role }), &format!("{name} is a user"))
                .await?;
            set_password(&name, &secret).await
        }
        User::Roles { name, role } => {
            command(
                "set-roles",
                json!({ "name": name, "roles": role }),
                &format!("{name} has the roles {}", role.join(", ")),
            )
            .await
        }
        User::Password { name, password_stdin } => {
            let secret = password(password_stdin, &format!("Password for {name}: "))?;
            set_password(&name, &secret).await
        }
        User::Rm { name } => {
            command("remove-user", json!({ "name": name }), &format!("{name} is no longer a user")).await
        }
    }
}

async fn set_password(name: &str, secret: &str) -> anyhow::Result<()> {
    command(
        "set-password",
        json!({ "name": name, "password": secret }),
        &format!("{name} has a new password"),
    )
    .await
}

/// Runs `custody role …`.
pub async fn role(command_line: Role) -> anyhow::Result<()> {
    match command_line {
        Role::Ls { at, json } => list(&at, json, "/roles", &["role", "description"], &[""]).await,
        Role::Add { name, description } => {
            command(
                "create-role",
                json!({ "name": name, "description": description }),
                &format!("{name} is a role"),
            )
            .await
        }
        Role::Rm { name } => {
            command("remove-role", json!({ "name": name }), &format!("{name} is no longer a role")).await
        }
    }
}

/// Runs `custody policy …`.
pub async fn policy(command_line: Policy) -> anyhow::Result<()> {
    match command_line {
        Policy::Upload { name, file } => {
            command(
                "upload-policy",
                json!({ "name": name, "text": read(&file)? }),
                &format!("{name} is in force"),
            )
            .await
        }
        Policy::Rm { name } => {
            command("remove-policy", json!({ "name": name }), &format!("{name} is out of force")).await
        }
        Policy::Ls { at, json } => {
            let state = state(&at).await?;
            let documents = state.get("policies").cloned().unwrap_or_default();
            if json {
                println!("{documents}");
            } else {
                for (name, document) in documents.as_object().into_iter().flatten() {
                    println!(
                        "// {}\n{}",
                        table::printable(name),
                        harmless(table::field(document, "/text").trim_end())
                    );
                }
            }
            Ok(())
        }
    }
}

pub(crate) async fn state(at: &At) -> anyhow::Result<Value> {
    let (client, _) = Client::logged_in(&Home::find()?)?;
    client.get_json("/v1/state", &at.query()).await
}

/// One part of the state (a JSON pointer) as a table: its names and some of their fields.
pub(crate) async fn list(
    at: &At,
    as_json: bool,
    part: &str,
    columns: &[&str],
    fields: &[&str],
) -> anyhow::Result<()> {
    let part_of_state = state(at).await?.pointer(part).cloned().unwrap_or_default();
    if as_json {
        println!("{part_of_state}");
        return Ok(());
    }
    let rows = part_of_state.as_object().into_iter().flatten().map(|(name, one)| {
        std::iter::once(name.clone()).chain(fields.iter().map(|path| table::field(one, path))).collect()
    });
    table::print(columns, rows.collect(), "There are none.");
    Ok(())
}

/// Runs `custody lock`.
pub async fn lock(lock: Lock) -> anyhow::Result<()> {
    let matches = lock.matches.to_json();
    let name = lock.name.unwrap_or_else(|| format!("lock-{}", uuid::Uuid::now_v7().simple()));
    let mut body = json!({ "name": name, "matches": matches, "reason": lock.reason });
    if let Some(expires) = lock.expires {
        body["expires"] = expires.into();
    }
    command("create-lock", body, &format!("locked: lift it with `custody unlock {name}`")).await
}

/// Runs `custody unlock`.
pub async fn unlock(name: String) -> anyhow::Result<()> {
    command("lift-lock", json!({ "name": name }), "lifted").await
}

/// Runs `custody locks`.
pub async fn locks(at: &At, as_json: bool) -> anyhow::Result<()> {
    list(
        at,
        as_json,
        "/locks",
        &["name", "matches", "reason", "expires"],
        &["/matches", "/reason", "/expires"],
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_matched_by_its_name_however_it_is_typed() {
        for typed in ["web-1", "web-1.custody"] {
            let matches = Matches {
                user: None,
                node: Some(typed.into()),
                role: None,
                login: Some("root".into()),
                session: None,
            };
            assert_eq!(matches.to_json(), json!({ "node": "web-1", "login": "root" }), "{typed}");
        }
    }
}
