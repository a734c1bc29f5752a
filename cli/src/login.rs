//! `custody login`, `status`, `logout`: a password becomes an SSH and an X.509 certificate of some hours.

use crate::client::Client;
use crate::identity::Identity;
use crate::profile::{Home, Profile};
use crate::ssh_config;
use anyhow::{Context as _, bail};
use custody_core::event::Timestamp;
use serde::Deserialize;
use std::ffi::OsStr;
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
    /// The log's key that you have from elsewhere, your auditors say: it is pinned from now on, if it signs the log. As at
    /// the last login if left out
    #[arg(long, value_name = "KEY")]
    log_key: Option<String>,
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
    let last = home.last_profile()?;
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
    let agent = std::env::var_os("SSH_AUTH_SOCK").filter(|_| !args.no_agent);
    let fresh = Fresh {
        api,
        ca,
        answer,
        identity,
        tls_key: Zeroizing::new(tls_key.serialize_pem()),
        own,
        tls: args.tls.unwrap_or(last_tls),
        log_key: args.log_key,
    };
    let profile = keep(&home, &fresh, agent.as_deref())?;
    println!("{} is logged in until {}.", profile.user, profile.valid_until);
    println!("Reach a node:  ssh -F {} LOGIN@NODE.custody", home.path("ssh_config").display());
    println!(
        "Or once:       add «Include {}» at the top of ~/.ssh/config, then plain ssh works.",
        home.path("ssh_config").display()
    );
    let served = &fresh.answer.authorities.log_key;
    if profile.log_key != *served {
        println!(
            "The server names a newer key of its log, {served}; pinned stays {}.\n\
             To move on:    have the new key from your auditors too, then `custody login --log-key KEY`.",
            profile.log_key
        );
    }
    Ok(())
}

/// A login that went well, and of which nothing is kept yet.
struct Fresh {
    api: String,
    ca: String,
    answer: Answer,
    identity: Identity,
    /// The key of the X.509 certificate, PEM.
    tls_key: Zeroizing<String>,
    /// The person's own SSH key, if it is that which was certified.
    own: Option<PathBuf>,
    tls: bool,
    /// The log's key that the person has given.
    log_key: Option<String>,
}

/// Keeps it: the new key in the agent at the socket `agent` if that takes it, all else in the folder.
fn keep(home: &Home, fresh: &Fresh, agent: Option<&OsStr>) -> anyhow::Result<Profile> {
    let Fresh { api, ca, answer, identity, tls_key, own, tls, log_key } = fresh;
    let until: Timestamp = answer.valid_until.parse().map_err(anyhow::Error::msg)?;
    let pinned = || pin(home.last_profile()?.as_ref(), api, log_key.as_deref(), &answer.authorities);
    // An agent is given nothing of a login of which nothing is kept.
    pinned()?;
    // Others use the folder while it thinks.
    let in_agent = identity.hand_over(agent, until)?;

    // From here on this login has the folder for itself. Another one may have been quicker to pin.
    let writing = home.writing()?;
    let log_key = pinned()?;
    writing.put("ca.pem", ca.as_bytes())?;
    writing.put("client.key", tls_key.as_bytes())?;
    writing.put("client.pem", answer.x509_certificate.as_bytes())?;
    let identity = identity.keep(&writing, in_agent)?;
    writing.put("id-cert.pub", format!("{}\n", answer.ssh_certificate.trim_end()).as_bytes())?;
    writing.put(
        "known_hosts",
        format!("@cert-authority * {}\n", answer.authorities.host_ssh.trim_end()).as_bytes(),
    )?;
    let profile = Profile {
        api: api.clone(),
        user: answer.user.clone(),
        roles: answer.roles.clone(),
        valid_until: answer.valid_until.clone(),
        ssh_address: answer.ssh_address.clone(),
        tls: *tls,
        key: own.clone(),
        log_key,
    };
    writing.put("ssh_config", ssh_config::of(home, &profile, &identity)?.as_bytes())?;
    writing.put("profile.toml", toml::to_string(&profile)?.as_bytes())?;
    Ok(profile)
}

/// The log's key that is pinned after a login: what was pinned stays, and moves on a person's word alone. Whoever speaks for
/// the server could name any.
fn pin(
    last: Option<&Profile>,
    api: &str,
    given: Option<&str>,
    served: &Authorities,
) -> anyhow::Result<String> {
    if let Some(given) = given {
        if served.log_keys.iter().any(|key| key == given) {
            return Ok(given.to_owned());
        }
        bail!(
            "the log of {api} isn't signed by {given}, but by {}: nothing of this login is kept; ask your auditors which key it is",
            served.log_keys.join(" and ")
        );
    }
    let Some(last) = last else { return Ok(served.log_key.clone()) };
    if !is_same_server(&last.api, api)? {
        return Ok(served.log_key.clone());
    }
    if served.log_keys.contains(&last.log_key) {
        return Ok(last.log_key.clone());
    }
    bail!(
        "the log of {api} is no longer signed by the key that is pinned, {}: it was rotated away, or somebody has replaced the log; \
         ask your auditors which key signs it now (`custody verify --key` with the old key follows a rotation), then log in with \
         --log-key KEY",
        last.log_key
    )
}

/// Whether both URLs lead to the same scheme, host and port, however they are written.
fn is_same_server(one: &str, other: &str) -> anyhow::Result<bool> {
    let origin = |url: &str| {
        let parsed: reqwest::Url = url.parse().with_context(|| format!("«{url}» is no URL"))?;
        anyhow::Ok(parsed.origin())
    };
    Ok(origin(one)? == origin(other)?)
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
    if !home.path("").exists() {
        println!("You were not logged in.");
        return Ok(());
    }
    if home.path("id.pub").exists() && std::env::var_os("SSH_AUTH_SOCK").is_some() {
        // The agent may no longer hold it; either way it is gone afterwards. Others use the folder while it thinks.
        let _status = Command::new("ssh-add")
            .arg("-q")
            .arg("-d")
            .arg(home.path("id.pub"))
            .stderr(Stdio::null())
            .status();
    }
    let writing = home.writing()?;
    let mut removed = false;
    for name in ["id", "id.pub", "id-cert.pub", "client.pem", "client.key"] {
        removed |= writing.remove(name)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::clock::{Clock as _, SystemClock};
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc;
    use std::time::Duration;

    const API: &str = "https://custody.example.com:3080";

    fn last(api: &str, log_key: &str) -> Profile {
        Profile {
            api: api.to_owned(),
            user: "bob".to_owned(),
            roles: Vec::new(),
            valid_until: "2026-01-01T00:00:00Z".to_owned(),
            ssh_address: "custody.example.com:3022".to_owned(),
            tls: false,
            key: None,
            log_key: log_key.to_owned(),
        }
    }

    fn served(log_keys: &str) -> Authorities {
        let log_keys: Vec<String> = log_keys.split(' ').map(str::to_owned).collect();
        let log_key = log_keys.last().cloned().unwrap();
        Authorities { host_ssh: String::new(), log_key, log_keys }
    }

    #[test]
    fn an_agent_that_never_answers_keeps_nobody_from_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("home"));
        // A lock that is there can be waited for.
        drop(home.writing().unwrap());
        let socket = dir.path().join("agent");
        let agent = UnixListener::bind(&socket).unwrap();
        let now = Timestamp::from(SystemClock::new().wall()).seconds();
        let answer = Answer {
            user: "bob".to_owned(),
            roles: Vec::new(),
            ssh_certificate: "an SSH certificate".to_owned(),
            x509_certificate: "an X.509 certificate".to_owned(),
            valid_until: Timestamp::from_seconds(now + 3_600).to_string(),
            ssh_address: "custody.example.com:3022".to_owned(),
            authorities: served("key"),
        };
        let fresh = Fresh {
            api: API.to_owned(),
            ca: "a CA".to_owned(),
            answer,
            identity: Identity::new(None).unwrap(),
            tls_key: Zeroizing::new("a key".to_owned()),
            own: None,
            tls: false,
            log_key: None,
        };
        let keeping = {
            let home = home.clone();
            std::thread::spawn(move || keep(&home, &fresh, Some(socket.as_os_str())))
        };
        let (asked, _) = agent.accept().unwrap();
        let (say, heard) = mpsc::channel();
        let other = home.clone();
        std::thread::spawn(move || say.send(other.reading().map(drop)));
        heard.recv_timeout(Duration::from_secs(30)).expect("the folder is locked").unwrap();
        assert!(!home.path("client.pem").exists());
        // It is gone: the key is kept as where there is none.
        drop((asked, agent));
        assert_eq!(keeping.join().unwrap().unwrap().log_key, "key");
        assert!(home.read("id").unwrap().contains("PRIVATE KEY"));
        assert!(home.read("ssh_config").unwrap().contains("/home/id\""));
    }

    #[test]
    fn a_pinned_key_stays_whatever_the_server_names() {
        let with_slash = format!("{API}/");
        let elsewhere = "https://custody.example.com";
        for (line, (last_api, pinned, given, keys, expected)) in [
            (None, "", None, "old other", Ok("other")),
            (Some(API), "old", None, "old", Ok("old")),
            (Some(API), "old", None, "old other", Ok("old")),
            (Some(&*with_slash), "old", None, "old other", Ok("old")),
            (Some("https://Custody.Example.com:3080"), "old", None, "old other", Ok("old")),
            (Some(API), "old", None, "other", Err("rotated away")),
            (Some(&*with_slash), "old", None, "other", Err("--log-key KEY")),
            (Some(API), "old", Some("other"), "old other", Ok("other")),
            (Some(API), "old", Some("other"), "other", Ok("other")),
            (Some(API), "old", Some("mine"), "old other", Err("isn't signed by mine, but by old and other")),
            (None, "", Some("mine"), "other", Err("isn't signed by mine")),
            // Another Custody.
            (Some(elsewhere), "old", None, "other", Ok("other")),
            (Some("custody"), "old", None, "other", Err("is no URL")),
        ]
        .into_iter()
        .enumerate()
        {
            let last = last_api.map(|api| last(api, pinned));
            match (pin(last.as_ref(), API, given, &served(keys)), expected) {
                (Ok(key), Ok(expected)) => assert_eq!(key, expected, "line {line}"),
                (Err(error), Err(says)) => assert!(error.to_string().contains(says), "line {line}: {error}"),
                (got, _) => panic!("line {line}: {got:?}"),
            }
        }
    }
}
