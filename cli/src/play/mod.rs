//! `custody play`: a recorded session in the terminal.
//!
//! A session with a terminal is played as it went, through a virtual terminal whose cells are drawn; what was
//! recorded never reaches the real terminal as it is. A command without a terminal is printed, with control
//! characters made visible; into a file or a pipe go the very bytes, each of the two streams by itself.

mod draw;
mod feed;
mod input;
pub mod interleave;
pub mod live;
mod player;

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Seek, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use custody_core::recording::text::{Utf8Decoder, harmless};
use custody_core::recording::{Direction, Ending, Frame, Kind, ReadError, Reader};
use rustix::termios::{self, OptionalActions, SpecialCodeIndex, Termios};

use crate::table::printable;
use draw::Painter;
use feed::Feed;
use player::{Action, Player};

/// How often the screen is looked after: below what an eye notices.
const TICK: Duration = Duration::from_millis(20);
/// How long frames are shown at a stretch: whoever plays a long recording must be able to end it.
const STRETCH: Duration = Duration::from_millis(100);

/// How to play a recording.
#[derive(Debug, Clone, Args)]
pub struct PlayOptions {
    /// Recorded seconds a second
    #[arg(long, default_value_t = 1.0)]
    pub speed: f64,
    /// Cut silences to this many seconds
    #[arg(long, value_name = "SECONDS")]
    pub idle_limit: Option<f64>,
    /// Which of the session's channels; the first with output if left out
    #[arg(long)]
    pub channel: Option<u32>,
    /// Print what went in instead, opened with this auditor's private key
    #[arg(long, value_name = "KEY")]
    pub input: Option<PathBuf>,
}

/// What there was to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Output, or input, or a channel that was named.
    Something,
    /// No channel has any output.
    Nothing,
}

/// Plays a recording on standard output: with the keyboard's help if that is a terminal.
pub fn play<R: Read + Seek>(mut reader: Reader<R>, options: &PlayOptions) -> anyhow::Result<Shown> {
    let idle_limit = options
        .idle_limit
        .map(Duration::try_from_secs_f64)
        .transpose()
        .context("--idle-limit takes seconds from 0")?;
    if !(options.speed.is_finite() && options.speed > 0.0) {
        bail!("--speed takes a number over 0");
    }
    if let Some(key) = &options.input {
        input::print(reader, options.channel, key)?;
        return Ok(Shown::Something);
    }
    let Some(channel) = options.channel.map_or_else(|| reader.main_channel(), |channel| Ok(Some(channel)))?
    else {
        return Ok(Shown::Nothing);
    };
    if !io::stdout().is_terminal() {
        let (mut out, mut errors) = (io::stdout().lock(), io::stderr().lock());
        let is_terminal = errors.is_terminal();
        let error = copy(&mut reader, channel, &mut out, &mut errors, is_terminal)?;
        drop(errors);
        say_ending(reader.ending(), error)?;
    } else if !io::stdin().is_terminal() || !has_terminal(&mut reader, channel)? {
        print(reader, channel)?;
    } else {
        let feed = Feed::new(reader, channel, idle_limit)?;
        let (reader, error) = watch(feed, Player::new(options.speed))?;
        say_ending(reader.ending(), error)?;
    }
    Ok(Shown::Something)
}

fn has_terminal<R: Read + Seek>(reader: &mut Reader<R>, channel: u32) -> Result<bool, ReadError> {
    reader.rewind()?;
    let mut channel_frames = reader.by_ref().map_while(Result::ok).filter(|frame| frame.channel == channel);
    let found = channel_frames.any(|frame| matches!(frame.kind, Kind::TerminalStarted { .. }));
    reader.rewind()?;
    Ok(found)
}

/// The bytes as they were, output to output and errors to errors; on a terminal, where errors may still go, harmless.
fn copy<R: Read + Seek>(
    reader: &mut Reader<R>,
    channel: u32,
    out: &mut dyn Write,
    errors: &mut dyn Write,
    errors_are_shown: bool,
) -> anyhow::Result<Option<ReadError>> {
    let mut decoder = Utf8Decoder::default();
    let error = each(reader, channel, |direction, bytes| match direction {
        Direction::ErrorOutput if errors_are_shown => {
            let mut text = String::new();
            decoder.push(bytes, &mut text);
            errors.write_all(harmless(&text).as_bytes())
        }
        Direction::ErrorOutput => errors.write_all(bytes),
        _ => out.write_all(bytes),
    })?;
    out.flush().context("standard output can't be written")?;
    Ok(error)
}

/// Text on a terminal, harmless.
fn print<R: Read + Seek>(mut reader: Reader<R>, channel: u32) -> anyhow::Result<()> {
    let mut decoders = [Utf8Decoder::default(), Utf8Decoder::default()];
    let (mut out, mut errors) = (io::stdout().lock(), io::stderr().lock());
    let [output, error_output] = &mut decoders;
    let error = each(&mut reader, channel, |direction, bytes| {
        let mut text = String::new();
        if direction == Direction::ErrorOutput {
            error_output.push(bytes, &mut text);
            errors.write_all(harmless(&text).as_bytes())
        } else {
            output.push(bytes, &mut text);
            out.write_all(harmless(&text).as_bytes())
        }
    })?;
    out.flush().context("standard output can't be written")?;
    drop(errors);
    say_ending(reader.ending(), error)
}

/// The frames up to the end or to what is broken, which is then `broken`.
fn sound<'a, R: Read>(
    reader: &'a mut Reader<R>,
    broken: &'a mut Option<ReadError>,
) -> impl Iterator<Item = Frame<'static>> + 'a {
    reader.by_ref().map_while(|frame| frame.map_err(|error| *broken = Some(error)).ok())
}

/// Gives the channel's output to `write`, chunk by chunk, and tells what is missing and how it ended.
fn each<R: Read + Seek>(
    reader: &mut Reader<R>,
    channel: u32,
    mut write: impl FnMut(Direction, &[u8]) -> io::Result<()>,
) -> anyhow::Result<Option<ReadError>> {
    reader.rewind()?;
    let mut remarks = Vec::new();
    let mut error = None;
    for frame in sound(reader, &mut error) {
        if frame.channel != channel {
            continue;
        }
        match frame.kind {
            Kind::Data(bytes) if matches!(frame.direction, Direction::Output | Direction::ErrorOutput) => {
                match write(frame.direction, &bytes) {
                    // Whoever reads has enough, as in `custody play ID | head`.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(None),
                    result => result.context("the output can't be written")?,
                }
            }
            Kind::Truncated { bytes, kept, sha256 } => remarks.push(truncated(bytes, kept, &sha256)),
            Kind::Exit(status) if status != 0 => remarks.push(format!("it ended with status {status}")),
            Kind::ExitSignal(signal) => {
                let signal = printable(&harmless(&String::from_utf8_lossy(&signal)));
                remarks.push(format!("it was ended by the signal {signal}"));
            }
            _ => {}
        }
    }
    // After the output, and not before it is written: the caller holds the lock of standard error.
    let mut errors = io::stderr().lock();
    for remark in remarks.iter().take(100) {
        writeln!(errors, "custody: {remark}").context("standard error can't be written")?;
    }
    Ok(error)
}

/// What is said of a direction of which not everything was kept.
fn truncated(bytes: u64, kept: u64, sha256: &[u8; 32]) -> String {
    // What is short enough to be guessed has no hash.
    let told = if *sha256 == [0; 32] { "the length only" } else { "length and SHA-256" };
    format!("{kept} of {bytes} bytes were recorded; of the rest, {told}")
}

fn say_ending(ending: Option<Ending>, error: Option<ReadError>) -> anyhow::Result<()> {
    match (ending, error) {
        (_, Some(error)) => bail!("{error}; what was sound before it was played"),
        (Some(Ending::Torn { at, .. }), None) => eprintln!(
            "custody: the recording is incomplete: its last write was cut off at byte {at} (its proxy was killed)"
        ),
        (Some(Ending::Open), None) => {
            eprintln!("custody: the recording has no end: the session goes on, or its proxy was killed");
        }
        _ => {}
    }
    Ok(())
}

/// Plays until the end or `q`.
fn watch<R: Read + Seek>(
    mut feed: Feed<R>,
    mut player: Player,
) -> anyhow::Result<(Reader<R>, Option<ReadError>)> {
    let mut keyboard = Keyboard::take()?;
    let mut out = io::stdout().lock();
    let mut painter = Painter::default();
    let mut size = (0, 0);
    let mut before = Instant::now();
    let mut seeks = false;
    loop {
        for key in keyboard.pressed()? {
            match player.key(key) {
                Action::Quit => return Ok((feed.into_parts().0, None)),
                Action::Seek => seeks = true,
                Action::Show => {}
            }
        }
        let now = Instant::now();
        player.tick(now.duration_since(before));
        before = now;
        let is_there = feed.show_at(player.position, || now.elapsed() >= STRETCH)?;
        if feed.is_over() && seeks {
            player.position = player.position.min(feed.position());
        }
        seeks &= !is_there;
        feed.screen.settle();
        let window = window_size();
        if window != size {
            size = window;
            painter.forget();
        }
        let picture = painter.paint(feed.screen.terminal(), size.0, size.1, &status(&player));
        out.write_all(picture.as_bytes())
            .and_then(|()| out.flush())
            .context("the terminal can't be written")?;
        if feed.is_over() && !player.paused {
            drop(keyboard);
            let text = feed.screen.text().join("\n");
            writeln!(out, "{}", harmless(text.trim_end())).context("the terminal can't be written")?;
            return Ok(feed.into_parts());
        }
        if is_there {
            std::thread::sleep(TICK);
        }
    }
}

fn status(player: &Player) -> String {
    let seconds = player.position.as_secs();
    let state = if player.paused { "paused" } else { "playing" };
    format!(
        " {:02}:{:02}:{:02}  {state}  ×{}   space pause  ←/→ 5 s  </> speed  0 start  q quit ",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        player.speed
    )
}

fn window_size() -> (usize, usize) {
    match termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 1 => {
            (usize::from(size.ws_col), usize::from(size.ws_row))
        }
        _ => (80, 24),
    }
}

/// The keyboard, read key by key without waiting, and the terminal's other screen; both given back on drop.
struct Keyboard {
    saved: Termios,
    input: File,
}

impl Keyboard {
    fn take() -> anyhow::Result<Self> {
        let stdin = io::stdin();
        let saved = termios::tcgetattr(&stdin).context("the terminal's settings can't be read")?;
        let mut raw = saved.clone();
        raw.make_raw();
        // Reads return at once with what there is.
        raw.special_codes[SpecialCodeIndex::VMIN] = 0;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        let fd = rustix::io::dup(&stdin).context("standard input can't be read")?;
        termios::tcsetattr(&stdin, OptionalActions::Flush, &raw).context("the terminal can't be set")?;
        let keyboard = Self { saved, input: File::from(fd) };
        let mut out = io::stdout();
        out.write_all(b"\x1b[?1049h\x1b[2J")
            .and_then(|()| out.flush())
            .context("the terminal can't be written")?;
        Ok(keyboard)
    }

    fn pressed(&mut self) -> anyhow::Result<Vec<player::Key>> {
        let mut buffer = [0; 256];
        let count = self.input.read(&mut buffer).context("the keyboard can't be read")?;
        Ok(player::keys(buffer.get(..count).unwrap_or_default()))
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        let mut out = io::stdout();
        let shown = out.write_all(b"\x1b[0m\x1b[?25h\x1b[?1049l").and_then(|()| out.flush());
        let set = termios::tcsetattr(io::stdin(), OptionalActions::Flush, &self.saved);
        if shown.is_err() || set.is_err() {
            eprintln!("custody: the terminal's settings can't be given back: `reset` does it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::recording::{Level, Recorder};

    #[test]
    fn what_was_not_kept_is_told() {
        let table = [
            (21, 0, [0; 32], "0 of 21 bytes were recorded; of the rest, the length only"),
            (2048, 0, [7; 32], "0 of 2048 bytes were recorded; of the rest, length and SHA-256"),
            (70, 64, [7; 32], "64 of 70 bytes were recorded; of the rest, length and SHA-256"),
        ];
        for (bytes, kept, sha256, remark) in table {
            assert_eq!(truncated(bytes, kept, &sha256), remark);
        }
    }

    /// `custody play ID > file` leaves standard error on the terminal.
    #[test]
    fn errors_on_a_terminal_do_nothing_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::create(dir.path(), uuid::Uuid::nil(), 0, Level::Full).unwrap();
        let clipboard = "\x1b]52;c;eA==\x07";
        for (at, direction, text) in [
            (1, Direction::Output, clipboard),
            (2, Direction::ErrorOutput, clipboard),
            (3, Direction::ErrorOutput, "\u{9b}2J\u{202e}ü\n"),
        ] {
            recorder.release(at, 0, direction, text).unwrap().into_inner();
        }
        let path = recorder.path().to_owned();
        recorder.seal(9).unwrap();
        let copied = |errors_are_shown| {
            let (mut out, mut errors) = (Vec::new(), Vec::new());
            let mut reader = Reader::open(&path).unwrap();
            let error = copy(&mut reader, 0, &mut out, &mut errors, errors_are_shown).unwrap();
            assert!(error.is_none());
            (String::from_utf8(out).unwrap(), String::from_utf8(errors).unwrap())
        };
        let (out, errors) = copied(true);
        assert_eq!(out, clipboard, "the file gets the very bytes");
        assert_eq!(errors, "\\x1b]52;c;eA==\\x07\\x9b2J\\u{202e}ü\n");
        let (out, errors) = copied(false);
        assert_eq!((out, errors), (clipboard.to_owned(), format!("{clipboard}\u{9b}2J\u{202e}ü\n")));
    }
}
