//! What a running daemon is asked about its log, and told to do with it.

use crate::client::Client;
use crate::profile::Home;
use indicatif::{ProgressBar, ProgressDrawTarget};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Deserialize)]
struct Status {
    checkpoint: u64,
    clock_ahead_seconds: Option<u64>,
    entries: u64,
    #[serde(default)]
    full: bool,
    gaps: u64,
    keys: Vec<String>,
    origin: String,
    projection_lag: u64,
    refused: u64,
    unknown: u64,
    #[serde(default)]
    unknown_gaps: u64,
    up: bool,
}

/// `custody log status`
pub async fn status(as_json: bool) -> anyhow::Result<()> {
    let (client, _) = Client::logged_in(&Home::find()?)?;
    let answer: Value = client.get_json("/v1/log", &[]).await?;
    if as_json {
        println!("{answer}");
        return Ok(());
    }
    let status: Status = serde_json::from_value(answer)?;
    println!("log          {}", status.origin);
    println!(
        "takes events {}",
        match (status.up, status.full) {
            (true, _) => "yes",
            (false, true) => "NO: its disk is full, free space on it",
            (false, false) => "NO: restart custodyd to recover it",
        }
    );
    println!("events       {}, {} of them signed", status.entries, status.checkpoint);
    println!("searchable   {}", status.entries.saturating_sub(status.projection_lag));
    println!(
        "missing      {} (gaps in producers' numbering: custody events search --type producer.gap)",
        status.gaps
    );
    println!("unknown gaps {} (a producer had forgotten what it told)", status.unknown_gaps);
    println!("refused      {} (in the log, and not applied)", status.refused);
    println!("unknown      {} (of a newer version)", status.unknown);
    match status.clock_ahead_seconds {
        Some(ahead) => {
            println!("clock        {ahead} s AHEAD, not followed: custody log confirm-clock if it is right");
        }
        None => println!("clock        followed"),
    }
    for key in &status.keys {
        println!("key          {key}");
    }
    Ok(())
}

#[derive(Deserialize)]
struct Keys {
    index: u64,
    keys: Vec<String>,
}

fn show(keys: &Keys) {
    println!("(event {}) These keys sign now, the oldest first:", keys.index);
    for key in &keys.keys {
        println!("  {key}");
    }
}

/// `custody log add-key`
pub async fn add_key(reason: &str) -> anyhow::Result<()> {
    let (client, _) = Client::logged_in(&Home::find()?)?;
    show(&client.post("/v1/log/add-key", &json!({ "reason": reason })).await?);
    println!("Tell witnesses and auditors the new one, then retire the old one: custody log retire-key KEY");
    Ok(())
}

/// `custody log retire-key`
pub async fn retire_key(key: &str, reason: &str) -> anyhow::Result<()> {
    let (client, _) = Client::logged_in(&Home::find()?)?;
    show(&client.post("/v1/log/retire-key", &json!({ "key": key, "reason": reason })).await?);
    println!("The private half stays in the key store until you destroy it.");
    Ok(())
}

/// `custody log confirm-clock`
pub async fn confirm_clock() -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Confirmed {
        index: u64,
        ahead_seconds: u64,
    }
    let (client, _) = Client::logged_in(&Home::find()?)?;
    let done: Confirmed = client.post("/v1/log/confirm-clock", &json!({})).await?;
    println!("The log's time follows the clock again, {} s on (event {}).", done.ahead_seconds, done.index);
    Ok(())
}

/// `custody log compact-projections`
pub async fn compact_projections() -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Compacted {
        before: u64,
        after: u64,
    }
    let (client, _) = Client::logged_in(&Home::find()?)?;
    let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    spinner.set_message("compacting the search projection");
    spinner.enable_steady_tick(Duration::from_millis(100));
    let done: anyhow::Result<Compacted> = client.post("/v1/log/compact-projections", &json!({})).await;
    spinner.finish_and_clear();
    let Compacted { before, after } = done?;
    println!("The search projection has {after} bytes now; it had {before}.");
    Ok(())
}
