//! `custodyd secret put NAME`: what a destination wants to be shown, from standard input, never from a command line.
//! `custodyd webhook-key NAME`: the public half of what signs webhooks.

use crate::config::Config;
use crate::data::DataDir;
use crate::restore::exchange::no_log;
use anyhow::Context as _;
use custody_sinks::secret::Secrets;
use custody_sinks::webhook;
use std::io::Read as _;
use zeroize::Zeroizing;

/// The longest secret, in bytes.
const BYTES_MAX: u64 = 64 * 1024;

/// Puts it into the secret store, in the place of what had its name.
pub fn put(config: &Config, name: &str) -> anyhow::Result<()> {
    let mut secret = Zeroizing::new(String::new());
    let read = std::io::stdin().lock().take(BYTES_MAX + 1).read_to_string(&mut secret);
    read.context("the secret can't be read from standard input")?;
    if secret.trim_end().is_empty() || secret.len() as u64 > BYTES_MAX {
        anyhow::bail!("a secret has 1 to {BYTES_MAX} bytes: `custodyd secret put {name} < file`");
    }
    store(config)?.put(name, &secret).with_context(|| format!("the secret {name}"))?;
    // A sink keeps it as long as it runs: what it hashes is the same for the same value.
    let hashes = config.sinks.iter().any(|sink| sink.redaction_secret.as_deref() == Some(name));
    println!("The secret {name} counts from {}.", if hashes { "custodyd's next start on" } else { "now on" });
    Ok(())
}

/// Prints the public key of a secret that signs webhooks; with `make` of a new one.
pub fn webhook_key(config: &Config, name: &str, make: bool) -> anyhow::Result<()> {
    let secrets = store(config)?;
    if make {
        secrets.put(name, &webhook::make()?).with_context(|| format!("the secret {name}"))?;
    }
    let secret = secrets.read(name).map_err(anyhow::Error::msg)?;
    println!("{}", webhook::public(&secret).with_context(|| format!("the secret {name}"))?);
    Ok(())
}

/// The secrets of sinks, where there is a log.
fn store(config: &Config) -> anyhow::Result<Secrets> {
    let data = DataDir::new(&config.data);
    if !data.is_begun() {
        return Err(no_log(&data));
    }
    Ok(Secrets::new(&data.sink_secrets()))
}
