//! `custody sessions watch`: a live session in the terminal, as it happens.

use super::draw::Painter;
use super::player::Key;
use super::{Keyboard, STRETCH, TICK, say_ending, window_size};
use anyhow::Context as _;
use custody_core::recording::terminal::Screen;
use custody_core::recording::text::{Utf8Decoder, harmless};
use custody_core::recording::{Direction, Ending, Frame, Kind, ReadError, Reader};
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Instant;

/// Frames that wait to be shown.
const FRAMES_MAX: usize = 4096;

/// How the reading ended.
type Ended = (Option<Ending>, Option<ReadError>);

/// Shows what comes of one channel until the session ends or, in a terminal, `q` is pressed.
pub fn watch<R: Read + Send + 'static>(reader: Reader<R>, channel: Option<u32>) -> anyhow::Result<()> {
    let (frames, come) = sync_channel(FRAMES_MAX);
    let reading = std::thread::spawn(move || read(reader, channel, &frames));
    let to_end = match come.recv() {
        // Over without any output.
        Err(_) => true,
        Ok(first) if !io::stdout().is_terminal() => copy(first, &come)?,
        Ok(first) if matches!(first.kind, Kind::TerminalStarted { .. }) && io::stdin().is_terminal() => {
            draw(&first, &come)?
        }
        Ok(first) => print(first, &come)?,
    };
    if !to_end {
        return Ok(());
    }
    match reading.join() {
        Ok((Some(Ending::Open), None)) => {
            eprintln!("custody: the session's end wasn't shown: its proxy stopped, or yours did");
            Ok(())
        }
        Ok((ending, error)) => say_ending(ending, error),
        Err(_) => anyhow::bail!("the recording could not be read: report this"),
    }
}

/// Gives the frames of one channel to `frames`: of the first that has a terminal or output, if none is named.
fn read<R: Read>(
    mut reader: Reader<R>,
    mut channel: Option<u32>,
    frames: &SyncSender<Frame<'static>>,
) -> Ended {
    for frame in reader.by_ref() {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return (None, Some(error)),
        };
        let shows = matches!(
            (&frame.kind, frame.direction),
            (Kind::TerminalStarted { .. }, _) | (Kind::Data(_), Direction::Output | Direction::ErrorOutput)
        );
        if shows {
            channel.get_or_insert(frame.channel);
        }
        if channel == Some(frame.channel) && frames.send(frame).is_err() {
            break;
        }
    }
    (reader.ending(), None)
}

fn output<'a>(frame: &'a Frame<'_>) -> Option<(Direction, &'a [u8])> {
    match &frame.kind {
        Kind::Data(bytes) if matches!(frame.direction, Direction::Output | Direction::ErrorOutput) => {
            Some((frame.direction, bytes))
        }
        _ => None,
    }
}

/// The very bytes, into a file or a pipe. Whether it came to the end.
fn copy(first: Frame<'static>, come: &Receiver<Frame<'static>>) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    for frame in std::iter::once(first).chain(come) {
        let Some((_, bytes)) = output(&frame) else { continue };
        match out.write_all(bytes).and_then(|()| out.flush()) {
            // Whoever reads has enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            written => written.context("standard output can't be written")?,
        }
    }
    Ok(true)
}

/// Text on a terminal, harmless. Whether it came to the end.
fn print(first: Frame<'static>, come: &Receiver<Frame<'static>>) -> anyhow::Result<bool> {
    let (mut decoders, mut out) = ([Utf8Decoder::default(), Utf8Decoder::default()], io::stdout().lock());
    for frame in std::iter::once(first).chain(come) {
        let Some((direction, bytes)) = output(&frame) else { continue };
        let [plain, errors] = &mut decoders;
        let mut text = String::new();
        if direction == Direction::ErrorOutput { errors } else { plain }.push(bytes, &mut text);
        out.write_all(harmless(&text).as_bytes())
            .and_then(|()| out.flush())
            .context("the terminal can't be written")?;
    }
    Ok(true)
}

/// The session's screen, drawn over and over. Whether it came to the end.
fn draw(first: &Frame<'_>, come: &Receiver<Frame<'static>>) -> anyhow::Result<bool> {
    let mut keyboard = Keyboard::take()?;
    let (mut out, mut painter, mut screen) = (io::stdout().lock(), Painter::default(), Screen::new());
    let mut size = (0, 0);
    screen.show(first);
    loop {
        if keyboard.pressed()?.contains(&Key::Quit) {
            return Ok(false);
        }
        let mut over = false;
        let began = Instant::now();
        while began.elapsed() < STRETCH {
            match come.try_recv() {
                Ok(frame) => screen.show(&frame),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    over = true;
                    break;
                }
            }
        }
        screen.settle();
        let window = window_size();
        if window != size {
            size = window;
            painter.forget();
        }
        let picture = painter.paint(screen.terminal(), size.0, size.1, " live   q leaves it ");
        out.write_all(picture.as_bytes())
            .and_then(|()| out.flush())
            .context("the terminal can't be written")?;
        if over {
            drop(keyboard);
            let text = screen.text().join("\n");
            writeln!(out, "{}", harmless(text.trim_end())).context("the terminal can't be written")?;
            return Ok(true);
        }
        std::thread::sleep(TICK);
    }
}
