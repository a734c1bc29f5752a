//! `custody login`, `status`, `logout`: a password becomes an SSH and an X.509 certificate of some hours.

use crate::client::Client;
use crate::identity::Identity;
use crate::profile::{Home, Profile};
use crate::ssh_config;
use anyhow::{Context as _, bail};
use custody_core::event::Timestamp;
use serde::Deserialize;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use zeroize::Zeroizing;

/// `custody login`
#[derive(clap::Args)]
pub struct Login {
    /// URL of the API, e.g. https://custody.example.com:3080; the last one if left out
    #[arg(long)]
    api: Option<String>,
    /// PEM file with the CA of the API; the last one if left out
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Your user name; the last one if left out
    #[arg(long)]
    user: Option<String>,
    /// Read the password from standard input (one line) instead of asking for it
    #[arg(long)]
    password_stdin: bool,
    /// Keep the key in files even if an ssh-agent runs
    #[arg(long)]
    no_agent: bool,
    /// Have this SSH key of yours certified, a security key's for example, and not a new one for each login. As at the
    /// last login if left out
    #[arg(long, value_name = "FILE", conflicts_with = "no_agent")]
    key: Option<PathBuf>,
    /// A new key for each login again
    #[arg(long, conflicts_with = "key")]
    new_key: bool,
    /// Reach nodes through the API's port, SSH within TLS: where no other is open. As at the last login if left out
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    tls: Option<bool>,
}

#[derive(Deserialize)]
struct Answer {
    user: String,
    roles: Vec<String>,
    ssh_certificate: String,
    x509_certificate: String,
    valid_until: String,
    ssh_address: String,
    authorities: Authorities,
}

#[derive(Deserialize)]
struct Authorities {
    host_ssh: String,
    log_key: String,
    log_keys: Vec<String>,
}

/// Logs in and writes everything that `ssh` and the other commands need.
pub async fn login(args: Login) -> anyhow::Result<()> {
    let home = Home::find()?;
    let last = home.profile().ok();
    let last_tls = last.as_ref().is_some_and(|last| last.tls);
    let api = match args.api.or_else(|| last.as_ref().map(|p| p.api.clone())) {
        Some(api) => api,
        None => bail!("say where Custody is: --api https://HOST:PORT"),
    };
    let ca = match (&args.ca, home.path("ca.pem").exists()) {
        (Some(path), _) => {
            std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?
        }
        (None, true) => home.read("ca.pem")?,
        (None, false) => bail!("say which CA the API's certificate is from: --ca FILE"),
    };
    let user = match args.user.or_else(|| last.as_ref().map(|p| p.user.clone())) {
        Some(user) => user,
        None => bail!("say who you are: --user NAME"),
    };
    let password = password(args.password_stdin, &format!("Password of {user}: "))?;

    let own = match args.key {
        Some(key) => Some(std::path::absolute(key)?),
        None if args.new_key => None,
        None => last.as_ref().and_then(|last| last.key.clone()),
    };
    let identity = Identity::new(own.as_deref())?;
    let tls_key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let request = serde_json::json!({
        "user": user,
        "password": password.as_str(),
        "ssh_public_key": identity.public()?,
        "x509_request": rcgen::CertificateParams::default().serialize_request(&tls_key)?.pem()?,
    });
    let answer: Answer = Client::anonymous(&api, &ca)?.post("/v1/login", &request).await?;
    if let Some(last) =
        last.filter(|last| last.api == api && !answer.authorities.log_keys.contains(&last.log_key))
    {
        bail!(
            "the log of {api} is no longer signed by the key of the last login, {}: it was rotated away, or somebody has replaced the log; \
             ask your auditors (`custody verify --key` with the old key follows a rotation), then remove {}",
            last.log_key,
            home.path("profile.toml").display()
        );
    }

    let until: Timestamp = answer.valid_until.parse().map_err(anyhow::Error::msg)?;
    home.create()?;
    home.put("ca.pem", ca.as_bytes())?;
    home.put("client.key", Zeroizing::new(tls_key.serialize_pem()).as_bytes())?;
    home.put("client.pem", answer.x509_certificate.as_bytes())?;
    let identity = identity.keep(&home, args.no_agent, until)?;
    home.put("id-cert.pub", format!("{}\n", answer.ssh_certificate.trim_end()).as_bytes())?;
    home.put(
        "known_hosts",
        format!("@cert-authority * {}\n", answer.authorities.host_ssh.trim_end()).as_bytes(),
    )?;
    let profile = Profile {
        api,
        user: answer.user,
        roles: answer.roles,
        valid_until: answer.valid_until,
        ssh_address: answer.ssh_address,
        tls: args.tls.unwrap_or(last_tls),
        key: own,
        log_key: answer.authorities.log_key,
    };
    home.put("ssh_config", ssh_config::of(&home, &profile, &identity)?.as_bytes())?;
    home.put("profile.toml", toml::to_string(&profile)?.as_bytes())?;
    println!("{} is logged in until {}.", profile.user, profile.valid_until);
    println!("Reach a node:  ssh -F {} LOGIN@NODE.custody", home.path("ssh_config").display());
    println!(
        "Or once:       add «Include {}» at the top of ~/.ssh/config, then plain ssh works.",
        home.path("ssh_config").display()
    );
    Ok(())
}

/// Says who is logged in, and for how long.
pub fn status() -> anyhow::Result<()> {
    let profile = Home::find()?.profile()?;
    println!(
        "user         {}\nroles        {}\nAPI          {}\nSSH proxy    {}\nvalid until  {}",
        profile.user,
        profile.roles.join(", "),
        profile.api,
        profile.ssh_address,
        profile.valid_until
    );
    Ok(())
}

/// Forgets keys and certificates. What was pinned about the server stays.
pub fn logout() -> anyhow::Result<()> {
    let home = Home::find()?;
    if home.path("id.pub").exists() && std::env::var_os("SSH_AUTH_SOCK").is_some() {
        // The agent may no longer hold it; either way it is gone afterwards.
        let _status = Command::new("ssh-add")
            .arg("-q")
            .arg("-d")
            .arg(home.path("id.pub"))
            .stderr(Stdio::null())
            .status();
    }
    let mut removed = false;
    for name in ["id", "id.pub", "id-cert.pub", "client.pem", "client.key"] {
        removed |= home.remove(name)?;
    }
    println!(
        "{}",
        if removed {
            "Keys and certificates of the last login are removed."
        } else {
            "You were not logged in."
        }
    );
    Ok(())
}

/// A password from standard input, or asked for at the terminal.
pub fn password(stdin: bool, prompt: &str) -> anyhow::Result<Zeroizing<String>> {
    if !stdin {
        if !std::io::stdin().is_terminal() {
            bail!("there is no terminal to ask for a password: use --password-stdin");
        }
        return Ok(Zeroizing::new(rpassword::prompt_password(prompt)?));
    }
    let mut line = Zeroizing::new(String::new());
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}
