//! `custody sessions`, `custody play`, and taking a recording out. Each look at a recording is an event.

use crate::admin::command;
use crate::at::At;
use crate::client::Client;
use crate::kernel;
use crate::play::{self, PlayOptions, Shown};
use crate::profile::Home;
use crate::table::{self, field};
use crate::transfers;
use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use custody_core::event::Timestamp;
use custody_core::recording::Reader;
use custody_core::recording::asciicast;
use custody_core::recording::find::{FOUND_MAX, Found, find};
use custody_core::recording::text::harmless;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use std::io::{self, Seek as _, Write as _};
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
    /// Show a live session as it happens
    Watch {
        /// The session
        id: String,
        /// Which of the session's channels; the first with output if left out
        #[arg(long)]
        channel: Option<u32>,
    },
    /// Say where a text was shown in a session
    Search {
        /// The session
        id: String,
        /// The text, capitals or not
        text: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Draw what ran in a session, as its node's kernel saw it: who descends from whom, how it ended, what else it did
    Tree {
        /// The session
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// End a live session
    End {
        /// The session
        id: String,
        /// What the people concerned are told
        #[arg(long)]
        reason: String,
    },
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
    /// List what it did to files instead, as is done for a session that shows nothing else
    #[arg(long, conflicts_with_all = ["speed", "idle_limit", "channel", "input"])]
    files: bool,
    /// Print what its node's kernel saw between the lines of its output
    #[arg(long, conflicts_with_all = ["speed", "idle_limit", "files", "input"])]
    events: bool,
}

/// Runs `custody sessions …`.
pub async fn sessions(args: Sessions) -> anyhow::Result<()> {
    match args.command {
        Some(SessionsCommand::Export { id, format, channel, output }) => {
            return export(&id, format, channel, output).await;
        }
        Some(SessionsCommand::Watch { id, channel }) => return watch(&id, channel).await,
        Some(SessionsCommand::Search { id, text, json }) => return search(&id, &text, json).await,
        Some(SessionsCommand::Tree { id, json }) => return tree(&id, json).await,
        Some(SessionsCommand::End { id, reason }) => {
            let body = json!({ "name": parse(&id)?, "reason": reason });
            return command("end-session", body, "the session is told to end").await;
        }
        None => {}
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
    if args.files {
        let (client, _) = Client::logged_in(&Home::find()?)?;
        return transfers::print(&client, &args.id).await.map(drop);
    }
    let reader = Reader::new(fetch_recording(&args.id, "play").await?)?;
    let level = reader.header().level;
    if args.events {
        let (client, _) = Client::logged_in(&Home::find()?)?;
        let began = reader.header().started_ns;
        let seen = kernel::seen(&client, &args.id).await?;
        let seen =
            seen.iter().map(|event| (kernel::time(event).nanos().saturating_sub(began), kernel::line(event)));
        let (seen, channel) = (seen.collect(), args.options.channel);
        return tokio::task::spawn_blocking(move || play::interleave::print(reader, channel, seen)).await?;
    }
    let shown = tokio::task::spawn_blocking(move || play::play(reader, &args.options)).await??;
    if shown == Shown::Nothing {
        // A session that moved files shows nothing: what it did stands in events.
        let (client, _) = Client::logged_in(&Home::find()?)?;
        if transfers::print(&client, &args.id).await? == 0 {
            eprintln!("Nothing was recorded of what this session showed (level {level}).");
        }
    }
    Ok(())
}

/// Draws the processes of a session.
async fn tree(id: &str, json: bool) -> anyhow::Result<()> {
    let id = parse(id)?.to_string();
    let (client, _) = Client::logged_in(&Home::find()?)?;
    let seen = kernel::seen(&client, &id).await?;
    if seen.is_empty() {
        eprintln!("No kernel saw anything of this session: its node has no agent, or had none then.");
    }
    let tree = kernel::Tree::of(&seen);
    if json {
        tree.missing().iter().for_each(|line| eprintln!("{line}"));
        println!("{}", tree.json());
    } else {
        print!("{}", tree.text());
    }
    Ok(())
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

/// Says where a text was shown.
async fn search(id: &str, text: &str, json: bool) -> anyhow::Result<()> {
    let mut reader = Reader::new(fetch_recording(id, "search").await?)?;
    let wanted = text.to_owned();
    let found = tokio::task::spawn_blocking(move || find(&mut reader, &wanted)).await??;
    if found.len() == FOUND_MAX {
        eprintln!("custody: these are the first {FOUND_MAX} lines: look for a longer text");
    }
    let time = |found: &Found| Timestamp::from_nanos(found.time_ns).to_string();
    if json {
        for found in &found {
            println!("{}", json!({ "channel": found.channel, "line": found.line, "time": time(found) }));
        }
        return Ok(());
    }
    let rows = found.iter().map(|found| {
        let time = time(found);
        let second = time.get(..19).map_or(time.clone(), |second| second.replace('T', " "));
        vec![second, found.channel.to_string(), harmless(&found.line)]
    });
    table::print(&["time", "channel", "line"], rows.collect(), "It was never shown.");
    Ok(())
}

/// Shows a live session until it ends.
async fn watch(id: &str, channel: Option<u32>) -> anyhow::Result<()> {
    let mut stream = open_recording(id, "watch").await?.bytes_stream();
    let (pieces, come) = tokio::sync::mpsc::channel(16);
    let showing = tokio::task::spawn_blocking(move || {
        play::live::watch(Reader::new(Coming { come, piece: io::Cursor::default() })?, channel)
    });
    let coming = async {
        while let Some(piece) = stream.next().await {
            let broken_off = |_| io::Error::other("the API ended it: try again");
            let piece = piece.map(|piece| piece.to_vec()).map_err(broken_off);
            let broken = piece.is_err();
            if pieces.send(piece).await.is_err() || broken {
                break;
            }
        }
        drop(pieces);
    };
    // Whoever has seen enough doesn't wait for more to come.
    tokio::pin!(showing);
    tokio::select! {
        shown = &mut showing => shown?,
        () = coming => showing.await?,
    }
}

/// What comes over the network, for a reader in a thread of its own.
struct Coming {
    come: tokio::sync::mpsc::Receiver<io::Result<Vec<u8>>>,
    piece: io::Cursor<Vec<u8>>,
}

impl io::Read for Coming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.piece.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.come.blocking_recv() {
                Some(piece) => self.piece = io::Cursor::new(piece?),
                None => return Ok(0),
            }
        }
    }
}

fn parse(id: &str) -> anyhow::Result<uuid::Uuid> {
    id.parse().map_err(|_| anyhow::anyhow!("«{id}» is no session: `custody sessions` lists them"))
}

async fn open_recording(id: &str, purpose: &str) -> anyhow::Result<reqwest::Response> {
    let id = parse(id)?;
    let (client, _) = Client::logged_in(&Home::find()?)?;
    let path = format!("/v1/sessions/{id}/recording");
    client.get(&path, &[("purpose", purpose.to_owned())], "application/octet-stream").await
}

/// Fetches a recording into a file without a name, so that a long one doesn't fill the memory.
pub async fn fetch_recording(id: &str, purpose: &str) -> anyhow::Result<std::io::BufReader<std::fs::File>> {
    let mut file = unnamed_file()?;
    let mut stream = open_recording(id, purpose).await?.bytes_stream();
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
