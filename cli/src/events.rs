//! `custody events`: look into the log, follow it, take one event out with its proof.

use crate::client::Client;
use crate::profile::Home;
use crate::prove;
use crate::table::{self, field};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use custody_core::log::VerifierKey;
use futures_util::StreamExt as _;
use serde_json::Value;
use serde_json::value::RawValue;
use std::io::Write as _;
use std::path::PathBuf;

/// `custody events`
#[derive(Subcommand)]
pub enum Events {
    /// Print events as they become durable
    Tail {
        /// What to show
        #[command(flatten)]
        filter: Filter,
        /// Print the canonical bytes, one event a line
        #[arg(long)]
        json: bool,
    },
    /// Print events that match, oldest first
    Search {
        /// What to show
        #[command(flatten)]
        filter: Filter,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Newest first
        #[arg(long)]
        newest: bool,
        /// Print the canonical bytes, one event a line
        #[arg(long)]
        json: bool,
    },
    /// Write one event with its proof into files that anybody can check offline
    Proof {
        /// Its index in the log
        index: u64,
        /// The proof's file (C2SP tlog-proof); the event goes beside it as FILE.event.json
        #[arg(long, short)]
        output: PathBuf,
    },
}

/// Which events.
#[derive(Args)]
pub struct Filter {
    /// A type (login.failed) or a family (login)
    #[arg(long = "type")]
    kind: Option<String>,
    /// On behalf of this user
    #[arg(long)]
    user: Option<String>,
    /// With these words anywhere in it
    #[arg(long)]
    text: Option<String>,
    /// Of this session
    #[arg(long)]
    session: Option<String>,
    /// Appended until then, by the log's own time: RFC 3339, or how long ago (90m, 36h)
    #[arg(long, alias = "at", value_name = "TIME", value_parser = crate::at::moment)]
    until: Option<String>,
}

impl Filter {
    fn query(&self) -> Vec<(&'static str, String)> {
        let fields = [
            ("type", &self.kind),
            ("user", &self.user),
            ("text", &self.text),
            ("session", &self.session),
            ("until", &self.until),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

/// Runs `custody events …`.
pub async fn events(command: Events) -> anyhow::Result<()> {
    match command {
        Events::Tail { filter, json } => tail(&filter, json).await,
        Events::Search { filter, limit, newest, json } => search(&filter, limit, newest, json).await,
        Events::Proof { index, output } => {
            let (client, profile) = Client::logged_in(&Home::find()?)?;
            prove::event(&client, &VerifierKey::parse(&profile.log_key)?, index, &output).await
        }
    }
}

async fn search(filter: &Filter, limit: usize, newest: bool, json: bool) -> anyhow::Result<()> {
    let (client, _) = Client::logged_in(&Home::find()?)?;
    let mut query = filter.query();
    if newest {
        query.push(("order", "desc".to_owned()));
    }
    pages(&client, &query, limit, |line| print_entry(line, json)).await
}

/// Gives at most `limit` entries that match, each a line of JSON, to `each`.
pub(crate) async fn pages(
    client: &Client,
    filter: &[(&'static str, String)],
    limit: usize,
    mut each: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut cursor: Option<String> = None;
    let mut left = limit;
    while left > 0 {
        let mut query = filter.to_vec();
        query.push(("limit", left.min(1000).to_string()));
        if let Some(cursor) = &cursor {
            query.push(("cursor", cursor.clone()));
        }
        let response = client.get("/v1/events", &query, "application/x-ndjson").await?;
        let next = response.headers().get("custody-cursor").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let page = response.text().await?;
        let mut lines = 0;
        for line in page.lines() {
            each(line)?;
            lines += 1;
        }
        if lines == 0 || next.is_none() || next == cursor {
            return Ok(());
        }
        left -= lines;
        cursor = next;
    }
    Ok(())
}

async fn tail(filter: &Filter, json: bool) -> anyhow::Result<()> {
    let (client, _) = Client::logged_in(&Home::find()?)?;
    // Begin behind the newest event there is.
    let mut query = filter.query();
    let newest: Value =
        client.get_json("/v1/events", &[("limit", "1".into()), ("order", "desc".into())]).await?;
    let index = newest.pointer("/0/index").and_then(Value::as_u64);
    query.push(("from", index.map_or(0, |index| index + 1).to_string()));
    let response = client.get("/v1/events", &query, "text/event-stream").await?;
    let mut stream = response.bytes_stream();
    let mut buffer = Vec::new();
    while let Some(chunk) = stream.next().await {
        buffer.extend_from_slice(&chunk.context("the stream broke: run the command again")?);
        while let Some(end) = buffer.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            if let Some(entry) = std::str::from_utf8(&line)?.strip_prefix("data:") {
                print_entry(entry.trim(), json)?;
            }
        }
    }
    anyhow::bail!("the server ended the stream: run the command again")
}

#[derive(serde::Deserialize)]
struct Entry<'a> {
    index: u64,
    appended: String,
    #[serde(borrow)]
    event: &'a RawValue,
}

fn print_entry(line: &str, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if line.is_empty() {
        return Ok(());
    }
    let entry: Entry<'_> = serde_json::from_str(line).context("the server sent a line that is no entry")?;
    if json {
        writeln!(out, "{}", entry.event.get())?;
        return Ok(());
    }
    let event: Value = serde_json::from_str(entry.event.get())?;
    let who = Some(field(&event, "/actor/user"))
        .filter(|u| !u.is_empty())
        .unwrap_or_else(|| field(&event, "/actor/system"));
    let target = [field(&event, "/target/login"), field(&event, "/target/name")]
        .into_iter()
        .filter(|s| !s.is_empty())
        .collect::<Vec<_>>()
        .join("@");
    writeln!(
        out,
        "{:>7}  {}  {:<22} {:<10} {:<8} {:<16} {}",
        entry.index,
        entry.appended.get(..19).unwrap_or(&entry.appended),
        table::printable(&field(&event, "/type")),
        table::printable(&who),
        table::printable(&field(&event, "/outcome")),
        table::printable(&target),
        table::printable(&summary(&event)),
    )?;
    Ok(())
}

/// The few words of `data` that a person looks for first.
fn summary(event: &Value) -> String {
    for path in [
        "/data/command",
        "/data/reason",
        "/data/detail",
        "/data/action",
        "/data/subject",
        "/data/method",
        "/data/name",
        "/data/purpose",
        "/data/exit_status",
    ] {
        let text = field(event, path);
        if !text.is_empty() {
            return text.chars().take(100).collect();
        }
    }
    String::new()
}
