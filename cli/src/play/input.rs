//! What went into a recorded session, opened with an auditor's key.

use std::io::{self, IsTerminal as _, Read, Seek, Write};
use std::path::Path;

use anyhow::{Context as _, bail};
use custody_core::recording::sealed::{Identity, Opener};
use custody_core::recording::text::{Utf8Decoder, harmless};
use custody_core::recording::{Kind, Reader};

/// Prints the input of `channel`, or of the first that has any: with control characters made visible on a terminal, as
/// the very bytes elsewhere.
pub(super) fn print<R: Read + Seek>(
    mut reader: Reader<R>,
    channel: Option<u32>,
    key: &Path,
) -> anyhow::Result<()> {
    let pem = std::fs::read(key).with_context(|| format!("the key {} can't be read", key.display()))?;
    let identity = Identity::from_pem(&pem).with_context(|| format!("the key {}", key.display()))?;
    let mut opener = Opener::new(reader.header().session, identity);
    let (mut wanted, mut decoder) = (channel, Utf8Decoder::default());
    let mut out = io::stdout().lock();
    let (is_terminal, mut error) = (out.is_terminal(), None);
    reader.rewind()?;
    for frame in super::sound(&mut reader, &mut error) {
        match frame.kind {
            Kind::KeySealed(body) => opener.key(&body)?,
            Kind::SealedData(body) if *wanted.get_or_insert(frame.channel) == frame.channel => {
                let bytes = opener.open(frame.channel, &body)?;
                let written = if is_terminal {
                    let mut text = String::new();
                    decoder.push(&bytes, &mut text);
                    out.write_all(harmless(&text).as_bytes())
                } else {
                    out.write_all(&bytes)
                };
                match written {
                    // Whoever reads has enough, as in `| head`.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                    result => result.context("standard output can't be written")?,
                }
            }
            _ => {}
        }
    }
    out.flush().context("standard output can't be written")?;
    drop(out);
    if wanted.is_none() {
        bail!(
            "no input was kept of this session (level {}): it is at the level `full`, where an auditor's key is configured",
            reader.header().level
        );
    }
    super::say_ending(reader.ending(), error)
}
