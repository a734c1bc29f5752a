//! `custodyd init`: keys, a log with its genesis, and the first administrator.

use crate::config::Config;
use crate::data::DataDir;
use crate::keys::Keyring;
use crate::restore::exchange::left_over;
use crate::run::PROGRAM;
use anyhow::{Context as _, bail};
use custody_core::clock::{Clock, SystemClock};
use custody_core::event::{ProducerKind, log};
use custody_core::log::embedded::{EmbeddedLog, Options};
use custody_core::log::{Log, Numbering, Producer, Signer as _};
use custody_core::policy::defaults::{Genesis, genesis};
use custody_core::state::change::is_name;
use custody_proxy::ca::Authorities;
use custody_proxy::ca::store::{FileKeyStore, KeyStore};
use custody_proxy::login::password::{PASSWORD_CHARS_MIN, hash_password};
use custody_proxy::login::secrets::SecretStore;
use std::io::BufRead as _;
use std::sync::Arc;

/// Begins a log. Refused where one was begun already.
pub async fn init(config: &Config, admin: &str) -> anyhow::Result<()> {
    if !is_name(admin) {
        bail!("«{admin}» is no user name: 1 to 63 lower-case letters, digits, - _ or .");
    }
    let data = DataDir::new(&config.data);
    if data.is_begun() {
        bail!("{} holds a log already: a log is begun once", data.path().display());
    }
    // Before any key: a second log under the same name and key as one that only lacks its place would be a fork.
    if let Some(line) = left_over(&data)? {
        bail!("{line}");
    }
    let mut password = zeroize::Zeroizing::new(String::new());
    std::io::stdin()
        .lock()
        .read_line(&mut password)
        .context("the administrator's password can't be read from standard input")?;
    let password = zeroize::Zeroizing::new(password.trim_end_matches(['\r', '\n']).to_owned());
    if password.chars().count() < PASSWORD_CHARS_MIN {
        bail!(
            "give the administrator's password on standard input, one line of at least {PASSWORD_CHARS_MIN} characters"
        );
    }
    // Before any key is made: what can't be a password leaves nothing behind.
    let hash = hash_password(&password)?;
    data.create().with_context(|| format!("{} can't be made", data.path().display()))?;

    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let store: Arc<dyn KeyStore> = Arc::new(FileKeyStore::open(&data.keys())?);
    let _authorities = Authorities::open(Arc::clone(&store), &data.public(), clock.wall().0 / 1_000_000_000)?;
    let signer = Keyring::create(store, &config.origin)?;
    let key = signer.verifier_key();
    let secrets = SecretStore::open(&data.secrets())?;
    let version = secrets.put(admin, 0, &hash)?;

    let log = Arc::new(EmbeddedLog::open(&data.log(), Options::new(Arc::new(signer), Arc::clone(&clock)))?);
    if log.size() > 0 {
        bail!("{} holds events already: a log is begun once", data.log().display());
    }
    let created = log::Created { origin: config.origin.clone(), verifier_key: key.to_string() };
    let Genesis { created, decision, role, policy, user, password } = genesis(created, admin, version);
    let numbering = Numbering {
        log: Arc::clone(&log) as Arc<dyn Log>,
        clock,
        id: config.name.clone(),
        kind: ProducerKind::Log,
        previous: None,
        program: PROGRAM.to_owned(),
    };
    // One batch: a log is begun whole or not at all.
    let first = ((created, decision, role), (policy, user, password));
    let _producer = Producer::start(numbering, first).await?;
    log.close();
    println!("The log {} is begun in {}.", config.origin, data.path().display());
    println!("Its key, for whoever is to verify it:\n  {key}");
    println!(
        "Next: custodyd run, then  custody login --api https://{} --ca {} --user {admin}",
        config.api.listen,
        data.public().join("x509-server-ca.pem").display()
    );
    Ok(())
}
