//! `custody sessions`, `custody play`, and taking a recording out. Each look at a recording is an event.

use crate::at::At;
use crate::client::Client;
use crate::play::{self, PlayOptions};
use crate::profile::Home;
use crate::table::{self, field};
use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use custody_core::recording::Reader;
use custody_core::recording::asciicast;
use futures_util::StreamExt as _;
use serde_json::Value;
use std::io::{Seek as _, Write as _};
use std::path::PathBuf;

/// `custody sessions`
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Sessions {
    #[command(subcommand)]
    command: Option<SessionsCommand>,
    /// Only those that are live
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    at: At,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `custody sessions …`
#[derive(Subcommand)]
enum SessionsCommand {
    /// Write a recording into a file
    Export {
        /// The session
        id: String,
        /// As what
        #[arg(long, value_enum, default_value = "asciicast")]
        format: Format,
        /// Which of the session's channels; the first with output if left out
        #[arg(long)]
        channel: Option<u32>,
        /// Where to; standard output if left out
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// asciicast v2, for asciinema's players
    Asciicast,
    /// The recording itself, as it is proved by the log
    Recording,
}

/// `custody play`
#[derive(Args)]
pub struct Play {
    /// The session
    id: String,
    /// How to play it
    #[command(flatten)]
    options: PlayOptions,
}

/// Runs `custody sessions …`.
pub async fn sessions(args: Sessions) -> anyhow::Result<()> {
    if let Some(SessionsCommand::Export { id, format, channel, output }) = args.command {
        return export(&id, format, channel, output).await;
    }
    let (client, _) = Client::logged_in(&Home::find()?)?;
    let mut query = args.at.query();
    if args.live {
        query.push(("live", "true".to_owned()));
    }
    let sessions: Vec<Value> = client.get_json("/v1/sessions", &query).await?;
    if args.json {
        println!("{}", serde_json::to_string(&sessions)?);
        return Ok(());
    }
    let second = |text: String| text.get(..19).map_or(text.clone(), |s| s.replace('T', " "));
    let rows = sessions.iter().map(|s| {
        let end = field(s, "/ended");
        vec![
            field(s, "/session"),
            field(s, "/user"),
            format!("{}@{}", field(s, "/login"), field(s, "/node")),
            second(field(s, "/started")),
            if end.is_empty() { "live".to_owned() } else { second(end) },
            field(s, "/reason"),
        ]
    });
    table::print(
        &["session", "user", "target", "started", "ended", "reason"],
        rows.collect(),
        "No sessions.",
    );
    Ok(())
}

/// Runs `custody play`.
pub async fn play(args: Play) -> anyhow::Result<()> {
    let reader = Reader::new(fetch_recording(&args.id, "play").await?)?;
    tokio::task::spawn_blocking(move || play::play(reader, &args.options)).await?
}

async fn export(
    id: &str,
    format: Format,
    channel: Option<u32>,
    output: Option<PathBuf>,
) -> anyhow::Result<()> {
    let mut recording = fetch_recording(id, "export").await?;
    let mut out: Box<dyn std::io::Write> = match &output {
        Some(path) => Box::new(std::io::BufWriter::new(
            std::fs::File::create(path).with_context(|| format!("{} can't be written", path.display()))?,
        )),
        None => Box::new(std::io::stdout().lock()),
    };
    match format {
        Format::Recording => {
            std::io::copy(&mut recording, &mut out)?;
        }
        Format::Asciicast => asciicast::export(&mut Reader::new(recording)?, channel, &mut out)?,
    }
    out.flush()?;
    Ok(())
}

/// Fetches a recording into a file without a name, so that a long one doesn't fill the memory.
pub async fn fetch_recording(id: &str, purpose: &str) -> anyhow::Result<std::io::BufReader<std::fs::File>> {
    if id.parse::<uuid::Uuid>().is_err() {
        bail!("«{id}» is no session: `custody sessions` lists them");
    }
    let (client, _) = Client::logged_in(&Home::find()?)?;
    let response = client
        .get(
            &format!("/v1/sessions/{id}/recording"),
            &[("purpose", purpose.to_owned())],
            "application/octet-stream",
        )
        .await?;
    let mut file = unnamed_file()?;
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        file.write_all(&chunk.context("the recording broke off on its way: try again")?)?;
    }
    file.rewind()?;
    Ok(std::io::BufReader::new(file))
}

fn unnamed_file() -> anyhow::Result<std::fs::File> {
    use rustix::fs::{Mode, OFlags, openat};
    let fd = openat(
        rustix::fs::CWD,
        std::env::temp_dir(),
        OFlags::RDWR | OFlags::TMPFILE,
        Mode::RUSR | Mode::WUSR,
    )
    .with_context(|| format!("no temporary file in {}", std::env::temp_dir().display()))?;
    Ok(std::fs::File::from(fd))
}
