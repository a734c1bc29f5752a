//! Export of one channel as an asciicast, the format of asciinema's player:
//! version 2 <https://docs.asciinema.org/manual/asciicast/v2/> and
//! version 3 <https://docs.asciinema.org/manual/asciicast/v3/>.

use std::io::{self, Read, Seek, Write};

use serde_json::{Value, json};
use thiserror::Error;

use super::frame::{Direction, Frame, Kind, TerminalSize};
use super::reader::{ReadError, Reader};
use super::terminal::shown_size;
use super::text::Utf8Decoder;

/// Size that is written for a channel that had no terminal.
const SIZE_PLAIN: TerminalSize = TerminalSize { cols: 80, rows: 24, width_px: 0, height_px: 0 };

/// Which version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// What most players read: times since the start.
    V2,
    /// Times since the event before, and the exit status.
    V3,
}

/// What to export.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which channel.
    pub channel: u32,
    /// Start of the session, ns since 1970 (a recording's header has it).
    pub started_ns: u64,
    /// Title, if it shall have one.
    pub title: Option<String>,
    /// Version of the format.
    pub version: Version,
}

/// Why an export failed.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The recording can't be read (on). What was written is whole up to there.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The output can't be written.
    #[error("the export can't be written: {0}")]
    Write(#[from] io::Error),
    /// The channel isn't in the recording.
    #[error("channel {0} is not in the recording")]
    Channel(u32),
    /// No channel was asked for, and none said anything that was kept.
    #[error("the recording holds no output")]
    Empty,
}

/// Writes one channel of a recording as version 2: the given one, or the one that people mean
/// ([`Reader::main_channel`]).
pub fn export<R: Read + Seek>(
    reader: &mut Reader<R>,
    channel: Option<u32>,
    out: &mut dyn Write,
) -> Result<(), ExportError> {
    let channel = match channel {
        Some(channel) => channel,
        None => reader.main_channel()?.ok_or(ExportError::Empty)?,
    };
    reader.rewind()?;
    let options =
        Options { channel, started_ns: reader.header().started_ns, title: None, version: Version::V2 };
    export_frames(reader, &options, out).map(|_| ())
}

/// Writes the channel's output and resizes to `out`, line by line, and returns the number of events.
///
/// What isn't UTF-8 becomes U+FFFD, as the format can't hold it; characters cut by a chunk's end are put
/// together. Line ends of channels without a terminal become CR LF, as a terminal would have made them. Sizes that no player
/// could make a terminal of are cut. What is written does nothing to the terminal of whoever looks at it.
/// A recording that is damaged gives [`ExportError::Read`] behind all that was sound.
pub fn export_frames<'a>(
    frames: impl IntoIterator<Item = Result<Frame<'a>, ReadError>>,
    options: &Options,
    out: &mut dyn Write,
) -> Result<u64, ExportError> {
    let mut cast = Cast {
        options,
        out,
        start_ns: None,
        last_us: 0,
        terminal: false,
        decoders: Default::default(),
        last_was_cr: false,
        events: 0,
    };
    for frame in frames {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                cast.out.flush()?;
                return Err(error.into());
            }
        };
        if frame.channel == options.channel {
            cast.frame(&frame)?;
        }
    }
    cast.finish()
}

struct Cast<'a> {
    options: &'a Options,
    out: &'a mut dyn Write,
    /// Time of the event that the cast starts with.
    start_ns: Option<u64>,
    last_us: u64,
    terminal: bool,
    decoders: [Utf8Decoder; 2],
    last_was_cr: bool,
    events: u64,
}

impl Cast<'_> {
    fn frame(&mut self, frame: &Frame<'_>) -> Result<(), ExportError> {
        let time = frame.time_ns;
        match (&frame.kind, frame.direction) {
            (Kind::TerminalStarted { term, size }, _) => {
                self.terminal = true;
                if self.start_ns.is_none() {
                    self.header(time, *size, Some(&String::from_utf8_lossy(term)))?;
                } else {
                    self.resize(time, *size)?;
                }
            }
            (Kind::Resize(size), _) => {
                self.start(time)?;
                self.resize(time, *size)?;
            }
            (Kind::Data(bytes), Direction::Output) => self.output(time, 0, bytes)?,
            (Kind::Data(bytes), Direction::ErrorOutput) => self.output(time, 1, bytes)?,
            (Kind::Truncated { bytes, kept, .. }, Direction::Output | Direction::ErrorOutput) => {
                self.start(time)?;
                let marker = format!("{} bytes more were not recorded", bytes.saturating_sub(*kept));
                self.event(time, "m", &marker)?;
            }
            (Kind::Exit(status), _) if self.options.version == Version::V3 => {
                self.start(time)?;
                self.event(time, "x", &status.to_string())?;
            }
            // A plain command that says nothing for a while: its silence belongs to it.
            (Kind::ShellStarted | Kind::CommandStarted(_) | Kind::SubsystemStarted(_), _) => {
                self.start(time)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn output(&mut self, time: u64, stream: usize, bytes: &[u8]) -> Result<(), ExportError> {
        self.start(time)?;
        let mut text = String::with_capacity(bytes.len());
        if let Some(decoder) = self.decoders.get_mut(stream) {
            decoder.push(bytes, &mut text);
        }
        self.text(time, text)
    }

    fn text(&mut self, time: u64, text: String) -> Result<(), ExportError> {
        if text.is_empty() {
            return Ok(());
        }
        let text = if self.terminal { text } else { self.line_ends(&text) };
        self.event(time, "o", &text)
    }

    fn line_ends(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + 16);
        for char in text.chars() {
            if char == '\n' && !self.last_was_cr {
                out.push('\r');
            }
            self.last_was_cr = char == '\r';
            out.push(char);
        }
        out
    }

    fn resize(&mut self, time: u64, size: TerminalSize) -> Result<(), ExportError> {
        let (cols, rows) = shown_size(size);
        self.event(time, "r", &format!("{cols}x{rows}"))
    }

    fn start(&mut self, time: u64) -> Result<(), ExportError> {
        if self.start_ns.is_none() {
            self.header(time, SIZE_PLAIN, None)?;
        }
        Ok(())
    }

    fn header(&mut self, time: u64, size: TerminalSize, term: Option<&str>) -> Result<(), ExportError> {
        self.start_ns = Some(time);
        let (cols, rows) = shown_size(size);
        let timestamp = self.options.started_ns.saturating_add(time) / 1_000_000_000;
        let mut header = match self.options.version {
            Version::V2 => json!({"version": 2, "width": cols, "height": rows, "timestamp": timestamp}),
            Version::V3 => {
                json!({"version": 3, "term": {"cols": cols, "rows": rows}, "timestamp": timestamp})
            }
        };
        if let Some(term) = term {
            match self.options.version {
                Version::V2 => set(&mut header, "env", json!({"TERM": term})),
                Version::V3 => {
                    if let Some(object) = header.get_mut("term") {
                        set(object, "type", json!(term));
                    }
                }
            }
        }
        if let Some(title) = &self.options.title {
            set(&mut header, "title", json!(title));
        }
        writeln!(self.out, "{}", harmless_json(&header))?;
        Ok(())
    }

    fn event(&mut self, time: u64, code: &str, data: &str) -> Result<(), ExportError> {
        // Differences of rounded times, so that version 3 doesn't drift.
        let now_us = time.saturating_sub(self.start_ns.unwrap_or(time)) / 1000;
        let shown_us = match self.options.version {
            Version::V2 => now_us,
            Version::V3 => now_us.saturating_sub(self.last_us),
        };
        self.last_us = now_us;
        let (seconds, micros) = (shown_us / 1_000_000, shown_us % 1_000_000);
        let data = harmless_json(&Value::from(data));
        writeln!(self.out, "[{seconds}.{micros:06}, \"{code}\", {data}]")?;
        self.events += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<u64, ExportError> {
        let Some(start) = self.start_ns else { return Err(ExportError::Channel(self.options.channel)) };
        for stream in 0..self.decoders.len() {
            let mut text = String::new();
            if let Some(decoder) = self.decoders.get_mut(stream) {
                decoder.finish(&mut text);
            }
            self.text(start.saturating_add(self.last_us.saturating_mul(1000)), text)?;
        }
        self.out.flush()?;
        Ok(self.events)
    }
}

/// JSON without the controls that it allows in strings as they are: some terminals take them for the beginning of an escape
/// sequence.
fn harmless_json(value: &Value) -> String {
    let text = value.to_string();
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if matches!(char, '\u{7f}'..='\u{9f}') {
            out.push_str(&format!("\\u{:04x}", u32::from(char)));
        } else {
            out.push(char);
        }
    }
    out
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
#[path = "asciicast_tests.rs"]
mod tests;
