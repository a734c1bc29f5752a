//! `custody sessions`, `custody play`, and taking a recording out. Each look at a recording is an event.

use crate::admin::command;
use crate::at::At;
use crate::client::Client;
use crate::kernel;
use crate::play::{self, PlayOptions, Shown};
use crate::profile::Home;
use crate::table::{self, field};
use crate::transfers;
use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use custody_core::event::Timestamp;
use custody_core::recording::Reader;
use custody_core::recording::asciicast;
use custody_core::recording::find::{FOUND_MAX, Found, find};
use custody_core::recording::text::harmless;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Seek as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

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
    match (format, output) {
        (Format::Recording, Some(path)) => {
            let mut file = Unfinished::create(&path)?;
            save_recording(id, "export", &mut file.file).await?;
            file.finish()
        }
        (Format::Recording, None) if io::stdout().is_terminal() => {
            bail!("a recording is no text: name a file for it with -o")
        }
        (Format::Recording, None) => save_recording(id, "export", &mut io::stdout()).await,
        (Format::Asciicast, output) => {
            let mut recording = Reader::new(fetch_recording(id, "export").await?)?;
            let mut out: Box<dyn Write> = match &output {
                Some(path) => Box::new(io::BufWriter::new(
                    private().open(path).with_context(|| format!("{} can't be written", path.display()))?,
                )),
                None => Box::new(io::stdout().lock()),
            };
            asciicast::export(&mut recording, channel, &mut out)?;
            out.flush()?;
            Ok(())
        }
    }
}

/// How a file is written anew: one that isn't there yet is for whoever writes it and for nobody else.
fn private() -> OpenOptions {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
}

/// A file that gets its name once it is whole: what breaks off leaves whatever was there before. Whoever could read that can
/// read it, and nobody else.
struct Unfinished {
    file: File,
    /// What it is called until then.
    name: PathBuf,
    output: PathBuf,
}

impl Unfinished {
    fn create(output: &Path) -> anyhow::Result<Self> {
        let before = std::fs::symlink_metadata(output).ok();
        let mut options = private();
        let mut name = output.as_os_str().to_owned();
        // A device, a pipe or a link is written into and not replaced.
        let is_replaced = before.as_ref().is_none_or(std::fs::Metadata::is_file);
        if is_replaced {
            // Nobody else's: whatever is written to the same place at the same time has its own.
            name.push(format!(".unfinished-{}", uuid::Uuid::new_v4()));
            options.create_new(true);
        }
        let name = PathBuf::from(name);
        let cannot = format!("{} can't be written", name.display());
        let file = options.open(&name).with_context(|| cannot.clone())?;
        let unfinished = Self { file, name, output: output.to_owned() };
        if let Some(before) = before.filter(|_| is_replaced) {
            unfinished.file.set_permissions(before.permissions()).context(cannot)?;
        }
        Ok(unfinished)
    }

    fn finish(mut self) -> anyhow::Result<()> {
        if self.name != self.output {
            std::fs::rename(&self.name, &self.output)
                .with_context(|| format!("{} can't be written", self.output.display()))?;
            self.name.clone_from(&self.output);
        }
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.name != self.output {
            // It broke off; that is told already.
            std::fs::remove_file(&self.name).ok();
        }
    }
}

/// Says where a text was shown.
async fn search(id: &str, text: &str, json: bool) -> anyhow::Result<()> {
    let mut reader = Reader::new(fetch_recording(id, "search").await?)?;
    let wanted = text.to_owned();
    let found = tokio::task::spawn_blocking(move || find(&mut reader, &wanted)).await??;
    if found.left_out {
        eprintln!("custody: {}", left_out(id));
    }
    let found = found.lines;
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

/// What is said where something may not have been found. A player leaves out the same.
fn left_out(id: &str) -> String {
    format!(
        "the session drew more than is searched: `custody play {id} > FILE` writes all of its output, a channel each time"
    )
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

/// Writes a recording as it comes.
pub async fn save_recording(id: &str, purpose: &str, to: &mut impl Write) -> anyhow::Result<()> {
    let mut stream = open_recording(id, purpose).await?.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.context("the recording broke off on its way: try again")?;
        to.write_all(&chunk).context("the recording can't be written")?;
    }
    to.flush().context("the recording can't be written")
}

/// Fetches a recording into a file without a name, so that a long one doesn't fill the memory.
pub async fn fetch_recording(id: &str, purpose: &str) -> anyhow::Result<io::BufReader<File>> {
    let folder = std::env::temp_dir();
    let no_room = || format!("no room in {}: name another folder by TMPDIR", folder.display());
    let mut file = unnamed_file(&folder).or_else(|_| unlinked_file(&folder)).with_context(no_room)?;
    save_recording(id, purpose, &mut file).await.map_err(|error| {
        let cause = error.root_cause().downcast_ref::<io::Error>().map(io::Error::kind);
        if cause == Some(io::ErrorKind::StorageFull) { error.context(no_room()) } else { error }
    })?;
    file.rewind()?;
    Ok(io::BufReader::new(file))
}

fn unnamed_file(folder: &Path) -> io::Result<File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    Ok(File::from(openat(CWD, folder, flags, Mode::RUSR | Mode::WUSR)?))
}

/// The same where the file system knows no files without a name.
fn unlinked_file(folder: &Path) -> io::Result<File> {
    let name = folder.join(format!("custody-{}", uuid::Uuid::new_v4()));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&name)?;
    std::fs::remove_file(&name)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_fetched_has_no_name_whatever_the_file_system_can() {
        let dir = tempfile::tempdir().unwrap();
        // Whoever has no unnamed files goes the other way.
        for file in [unnamed_file(dir.path()), unlinked_file(dir.path())] {
            let Ok(mut file) = file else { continue };
            assert!(names(dir.path()).is_empty());
            file.write_all(b"recorded").unwrap();
            io::Seek::rewind(&mut file).unwrap();
            assert_eq!(io::read_to_string(&file).unwrap(), "recorded");
        }
        assert!(unlinked_file(dir.path()).is_ok());
        assert!(unlinked_file(&dir.path().join("nowhere")).is_err());
    }

    #[test]
    fn what_was_left_out_is_said_to_be_where_it_is_whole() {
        let said = left_out("0190");
        assert!(said.contains("`custody play 0190 > FILE` writes all"), "{said}");
    }

    #[test]
    fn a_file_has_its_name_once_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (output, device) = (dir.path().join("recording"), Path::new("/dev/null"));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        File::create(&output).unwrap().write_all(b"before").unwrap();
        std::fs::set_permissions(&output, Permissions::from_mode(0o640)).unwrap();

        let mut broken_off = Unfinished::create(&output).unwrap();
        broken_off.file.write_all(b"half").unwrap();
        drop(broken_off);
        assert_eq!(std::fs::read(&output).unwrap(), b"before");
        assert_eq!(names(dir.path()), ["recording"]);

        // Whoever could read it can, and nobody else.
        let mut whole = Unfinished::create(&output).unwrap();
        whole.file.write_all(b"after").unwrap();
        let [recording, unfinished]: [String; 2] = names(dir.path()).try_into().unwrap();
        assert!(recording == "recording" && unfinished.starts_with("recording.unfinished-"), "{unfinished}");
        assert_eq!(mode(&dir.path().join(unfinished)), 0o640);
        whole.finish().unwrap();
        assert_eq!(std::fs::read(&output).unwrap(), b"after");
        assert_eq!(names(dir.path()), ["recording"]);
        assert_eq!(mode(&output), 0o640);
        std::fs::set_permissions(&output, Permissions::from_mode(0o600)).unwrap();
        Unfinished::create(&output).unwrap().finish().unwrap();
        assert_eq!(mode(&output), 0o600);
        std::fs::remove_file(&output).unwrap();
        Unfinished::create(&output).unwrap().finish().unwrap();
        assert_eq!(mode(&output), 0o600);

        // What isn't a file stays what it is.
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&output, &link).unwrap();
        let mut through = Unfinished::create(&link).unwrap();
        through.file.write_all(b"through").unwrap();
        through.finish().unwrap();
        assert_eq!(std::fs::read(&output).unwrap(), b"through");
        assert!(link.is_symlink());
        Unfinished::create(device).unwrap().finish().unwrap();
        assert!(!std::fs::symlink_metadata(device).unwrap().is_file());
        assert_eq!(names(dir.path()), ["link", "recording"]);
    }

    #[test]
    fn two_that_are_written_to_one_place_are_each_whole() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("recording");
        let mut first = Unfinished::create(&output).unwrap();
        first.file.write_all(b"whole").unwrap();
        let mut second = Unfinished::create(&output).unwrap();
        second.file.write_all(b"ha").unwrap();
        first.finish().unwrap();
        assert_eq!(std::fs::read(&output).unwrap(), b"whole");
        second.file.write_all(b"lf").unwrap();
        second.finish().unwrap();
        assert_eq!(std::fs::read(&output).unwrap(), b"half");
        assert_eq!(names(dir.path()), ["recording"]);
    }
}
