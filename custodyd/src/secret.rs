//! `custodyd secret put NAME`: what a destination wants to be shown, from standard input, never from a command line.

use crate::config::Config;
use crate::data::DataDir;
use anyhow::Context as _;
use custody_sinks::secret::Secrets;
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
    let data = DataDir::new(&config.data);
    if !data.is_begun() {
        anyhow::bail!("{} holds no log yet: begin one with `custodyd init`", data.path().display());
    }
    Secrets::new(&data.sink_secrets()).put(name, &secret).with_context(|| format!("the secret {name}"))?;
    println!("The secret {name} counts from now on.");
    Ok(())
}
