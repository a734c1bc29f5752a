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
        let has_more = response.headers().get("custody-more").is_some_and(|more| more == "true");
        let page = response.text().await?;
        let mut lines = 0;
        for line in page.lines() {
            each(line)?;
            lines += 1;
        }
        // An empty page is the last one only if it says so: a search may take longer than one page's time.
        if (lines == 0 && !has_more) || next.is_none() || next == cursor {
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
    let (mut buffer, mut reading) = (Vec::new(), Reading::default());
    while let Some(chunk) = stream.next().await {
        buffer.extend_from_slice(&chunk.context("the stream broke: run the command again")?);
        while let Some(end) = buffer.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            match reading.line(std::str::from_utf8(&line)?) {
                Some(Told::Entry(entry)) => print_entry(entry, json)?,
                Some(Told::Done) => return Ok(()),
                Some(Told::Ended(why)) => anyhow::bail!(why),
                None => {}
            }
        }
    }
    anyhow::bail!("the server ended the stream: run the command again")
}

/// Where one is in a stream of server-sent events.
#[derive(Default)]
struct Reading {
    /// What the event is called whose lines come; entries have no name.
    event: Option<String>,
}

/// What a line of the stream says.
#[derive(Debug, PartialEq, Eq)]
enum Told<'a> {
    /// An entry of the log, in JSON.
    Entry(&'a str),
    /// Nothing more can match, as was asked for.
    Done,
    /// The last event: the stream ends, and why, in a line.
    Ended(String),
}

impl Reading {
    /// Takes the next line; most that aren't data only say what the next ones are.
    fn line<'a>(&mut self, line: &'a str) -> Option<Told<'a>> {
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            self.event = None;
        } else if let Some(name) = line.strip_prefix("event:") {
            self.event = Some(name.trim().to_owned());
        }
        let data = line.strip_prefix("data:")?.trim();
        Some(match self.event.as_deref() {
            None => Told::Entry(data),
            Some("until-passed") => Told::Done,
            Some(name) => Told::Ended(ended(name, data)),
        })
    }
}

/// Why a stream ended: what the server says of it, or else what it calls it.
fn ended(name: &str, data: &str) -> String {
    let said: Value = serde_json::from_str(data).unwrap_or_default();
    let reason = Some(field(&said, "/error")).filter(|reason| !reason.is_empty());
    let reason =
        reason.unwrap_or_else(|| format!("the server ended the stream ({name}): run the command again"));
    table::printable(&reason)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn told(stream: &str) -> Vec<Told<'_>> {
        let mut reading = Reading::default();
        stream.split_inclusive('\n').filter_map(|line| reading.line(line)).collect()
    }

    #[test]
    fn a_stream_that_ends_says_why() {
        let stream = "retry: 2000\n\nid: a\ndata: {\"index\":7}\n\n: alive\n\n";
        assert_eq!(told(stream), [Told::Entry("{\"index\":7}")]);
        for name in ["denied", "closing", "too-slow", "behind", "failed", "stopped"] {
            let last = format!("{stream}event: {name}\ndata: {{\"error\":\"why \\u0007 {name}\"}}\n\n");
            let why = Told::Ended(format!("why \\u{{7}} {name}"));
            assert_eq!(told(&last), [Told::Entry("{\"index\":7}"), why]);
        }
        let unsaid = "the server ended the stream (odd): run the command again";
        assert_eq!(told("event: odd\r\ndata: 7\r\n\r\n"), [Told::Ended(unsaid.to_owned())]);
        let done = "event: until-passed\ndata: {\"error\":\"until is passed\"}\n\n";
        assert_eq!(told(done), [Told::Done]);
        // A name is that of one event.
        assert_eq!(told("event: odd\n\ndata: {}\n\n"), [Told::Entry("{}")]);
    }
}
