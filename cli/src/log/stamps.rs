//! `custody log stamps`: the authorities' time stamps (RFC 3161), as files that `openssl ts` verifies.

use crate::client::Client;
use crate::profile::Home;
use crate::table;
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use custody_core::event::log::Timestamped;
use custody_core::log::{Checkpoint, durable};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// `custody log stamps`
#[derive(Args)]
pub struct Stamps {
    /// Write each as SIZE.checkpoint (what was stamped) and SIZE.tsr (the authority's answer) into this folder
    #[arg(long, short)]
    output: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Line {
    index: u64,
    event: Stamped,
}

#[derive(Deserialize)]
struct Stamped {
    data: Timestamped,
}

/// Runs `custody log stamps`.
pub async fn stamps(args: &Stamps) -> anyhow::Result<()> {
    let (client, _) = Client::logged_in(&Home::find()?)?;
    let mut rows = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("type", "log.timestamped".to_owned()), ("limit", "1000".into())];
        query.extend(cursor.clone().map(|cursor| ("cursor", cursor)));
        let response = client.get("/v1/events", &query, "application/x-ndjson").await?;
        let next = response.headers().get("custody-cursor").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let has_more = response.headers().get("custody-more").is_some_and(|more| more == "true");
        let page = response.text().await?;
        for line in page.lines() {
            let Line { index, event: Stamped { data } } = serde_json::from_str(line)?;
            let size = size(&data).with_context(|| format!("event {index}"))?;
            if let Some(folder) = &args.output {
                write(folder, size, &data)?;
            }
            rows.push(vec![index.to_string(), size.to_string(), data.at.to_string(), data.authority]);
        }
        match next {
            next @ Some(_) if next != cursor && (has_more || !page.is_empty()) => cursor = next,
            _ => break,
        }
    }
    table::print(
        &["event", "log's size", "stamped", "authority"],
        rows,
        "No checkpoint was stamped: configure [timestamping] in custodyd's configuration.",
    );
    if let Some(folder) = &args.output {
        println!("Check one with the authority's certificate:");
        println!(
            "  openssl ts -verify -data SIZE.checkpoint -in SIZE.tsr -CAfile CA.pem   (in {})",
            folder.display()
        );
    }
    Ok(())
}

/// How many entries the checkpoint covers that was stamped: a number, whatever the server says, since files are named after
/// it.
fn size(stamp: &Timestamped) -> anyhow::Result<u64> {
    Checkpoint::claimed_size(&stamp.checkpoint).context("what was stamped is no checkpoint")
}

fn write(folder: &Path, size: u64, stamp: &Timestamped) -> anyhow::Result<()> {
    let response = STANDARD.decode(&stamp.response).context("a stamp isn't base64")?;
    let files = [("checkpoint", stamp.checkpoint.as_bytes()), ("tsr", response.as_slice())];
    let written = std::fs::create_dir_all(folder).and_then(|()| {
        files.iter().try_for_each(|(kind, bytes)| {
            durable::write_file(&folder.join(format!("{size}.{kind}")), bytes, 0o644)
        })
    });
    written.with_context(|| format!("{} can't be written to", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::event::Timestamp;

    fn stamp(size: &str) -> Timestamped {
        Timestamped {
            at: Timestamp::from_seconds(1),
            authority: "https://tsa.test".to_owned(),
            checkpoint: format!("custody.test/log\n{size}\nroot\n"),
            response: STANDARD.encode("answer"),
        }
    }

    #[test]
    fn files_are_named_after_a_number_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("stamps");
        let good = stamp("17");
        write(&folder, size(&good).unwrap(), &good).unwrap();
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
        assert_eq!(
            (read("17.checkpoint"), read("17.tsr")),
            (good.checkpoint.into_bytes(), b"answer".to_vec())
        );
        for elsewhere in ["../17", "/etc/passwd", "x/../../y", "017", "-1", ""] {
            let error = size(&stamp(elsewhere)).unwrap_err();
            assert!(error.to_string().contains("no checkpoint"), "{elsewhere}: {error}");
        }
    }
}
