//! `custody node`: the servers that are reached, and their agents.

use crate::admin::{command, read};
use crate::client::Client;
use crate::profile::Home;
use crate::service::token;
use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `custody node`
#[derive(Subcommand)]
pub enum Node {
    /// Make a server known
    Add {
        /// Its name: what people type before .custody
        name: String,
        /// HOST:PORT of its sshd
        address: String,
        /// Pin this host key (a file such as /etc/ssh/ssh_host_ed25519_key.pub) instead of asking for a certificate
        #[arg(long)]
        host_key: Option<PathBuf>,
        /// Whether an agent watches its sessions: none, optional, or required
        #[arg(long, default_value = "none", value_parser = ["none", "optional", "required"])]
        agent: String,
        /// KEY=VALUE that policies may ask for
        #[arg(long, value_parser = label)]
        label: Vec<(String, String)>,
        /// Say all of this anew of a server that is known: a key, labels or an agent that isn't given is gone then
        #[arg(long)]
        replace: bool,
    },
    /// Certify a server's host key and print what its sshd_config needs
    Enroll {
        /// Its name
        name: String,
        /// Its public host key
        #[arg(long, default_value = "/etc/ssh/ssh_host_ed25519_key.pub")]
        host_key_pub: PathBuf,
        /// Write the files into this folder instead of /etc/ssh
        #[arg(long, default_value = "/etc/ssh")]
        out: PathBuf,
    },
    /// Make a token by which the server's agent may join, once
    Token {
        /// Its name
        name: String,
        /// How long it is good for
        #[arg(long, default_value_t = 60)]
        minutes: u64,
    },
    /// Forget a server; live sessions to it end
    Rm {
        /// Its name
        name: String,
    },
}

/// Runs `custody node …`.
pub async fn node(command_line: Node) -> anyhow::Result<()> {
    match command_line {
        Node::Add { name, address, host_key, agent, label, replace } => {
            let host_key = host_key.map(|path| read(&path)).transpose()?.map(|line| line.trim().to_owned());
            let labels = label.into_iter().collect();
            command(
                "add-node",
                add_node(&name, &address, &agent, &labels, host_key, replace),
                &format!("{name} is known: next, `custody node enroll {name}` on that server"),
            )
            .await
        }
        Node::Enroll { name, host_key_pub, out } => enroll(&name, &host_key_pub, &out).await,
        Node::Token { name, minutes } => {
            let body = json!({ "name": name, "minutes": minutes });
            let done = format!("An agent may join once as {name}: give `custodyd node join` the token");
            token("create-node-token", body, &done).await
        }
        Node::Rm { name } => {
            command("remove-node", json!({ "name": name }), &format!("{name} is forgotten")).await
        }
    }
}

/// What `add-node` is told. A server that is a version older refuses fields that it doesn't know: only what was said is sent.
fn add_node(
    name: &str,
    address: &str,
    agent: &str,
    labels: &BTreeMap<String, String>,
    host_key: Option<String>,
    replace: bool,
) -> Value {
    let mut body = json!({ "name": name, "address": address, "agent": agent, "labels": labels });
    if let Some(key) = host_key {
        body["host_key"] = key.into();
    }
    if replace {
        body["replace"] = true.into();
    }
    body
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE".to_owned()),
    }
}

#[derive(Deserialize)]
struct Enrolled {
    host_certificate: String,
    target_ssh: String,
}

async fn enroll(name: &str, host_key_pub: &Path, out: &Path) -> anyhow::Result<()> {
    let Some(file) = host_key_pub.file_name().and_then(|f| f.to_str()).and_then(|f| f.strip_suffix(".pub"))
    else {
        bail!("{} is no public host key: its name ends with .pub", host_key_pub.display());
    };
    let (client, _) = Client::logged_in(&Home::find()?)?;
    let body = json!({ "name": name, "host_public_key": read(host_key_pub)?.trim() });
    let answer: Enrolled = client.post("/v1/commands/enroll-node", &body).await?;
    let (ca, certificate) = (out.join("custody_target_ca.pub"), out.join(format!("{file}-cert.pub")));
    for (path, content) in [(&ca, &answer.target_ssh), (&certificate, &answer.host_certificate)] {
        put(path, content).with_context(|| format!("{} can't be written", path.display()))?;
    }
    println!("# {name} is enrolled. Put these lines into its sshd_config and reload sshd:");
    println!("TrustedUserCAKeys {}", ca.display());
    println!("HostKey {}", host_key_pub.with_file_name(file).display());
    println!("HostCertificate {}", certificate.display());
    Ok(())
}

/// Public material, readable by all.
fn put(path: &Path, content: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path)?;
    writeln!(file, "{}", content.trim_end())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_server_is_told_nothing_that_nobody_said() {
        let labels = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
        let plain =
            json!({ "name": "web-1", "address": "web-1:22", "agent": "none", "labels": { "env": "prod" } });
        assert_eq!(add_node("web-1", "web-1:22", "none", &labels, None, false), plain);
        let mut all = plain;
        all["host_key"] = json!("ssh-ed25519 AAAA");
        all["replace"] = json!(true);
        let key = Some("ssh-ed25519 AAAA".to_owned());
        assert_eq!(add_node("web-1", "web-1:22", "none", &labels, key, true), all);
    }
}
