//! What stood on the screen: a channel's output run through a virtual terminal, and when to show it.
//!
//! Seeking is feeding from the start: [`Schedule`] says which frames lie before a time, [`Screen`] what they add
//! up to.

use std::ops::Range;
use std::time::Duration;

use avt::observer::{Observation, Observer};

use super::frame::{Direction, Frame, Kind, TerminalSize};
use super::text::Utf8Decoder;

/// Largest virtual terminal, columns and rows: a session may claim any size, and each cell costs memory.
pub const COLS_MAX: u32 = 1000;
/// See [`COLS_MAX`].
pub const ROWS_MAX: u32 = 500;

/// A virtual terminal that is fed one channel's frames. It draws nothing and answers nothing: what a
/// recording asks of a terminal (its clipboard, its title, reports) stays without effect.
pub struct Screen {
    terminal: avt::Terminal,
    decoders: [Utf8Decoder; 2],
    transcript: Option<Lines>,
    has_terminal: bool,
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

impl Screen {
    /// A screen of 80 × 24 until the channel says otherwise.
    pub fn new() -> Self {
        let mut terminal = match avt::Terminal::new(80, 24) {
            Ok(terminal) => terminal,
            Err(_) => unreachable!("80 × 24 is a size"),
        };
        // Channels without a terminal end their lines with LF alone: new-line mode, until there is one.
        terminal.feed("\x1b[20h");
        Self { terminal, decoders: Default::default(), transcript: None, has_terminal: false }
    }

    /// The same, collecting the lines of text that leave it at the top, for [`Screen::take_lines`].
    pub fn with_lines() -> Self {
        Self { transcript: Some(Lines::default()), ..Self::new() }
    }

    /// Shows what a frame shows. Frames of other channels must not be given.
    pub fn show(&mut self, frame: &Frame<'_>) {
        match (&frame.kind, frame.direction) {
            (Kind::Data(bytes), Direction::Output) => self.feed(0, bytes),
            (Kind::Data(bytes), Direction::ErrorOutput) => self.feed(1, bytes),
            (Kind::TerminalStarted { size, .. }, _) => {
                self.start_terminal();
                self.resize(*size);
            }
            (Kind::Resize(size), _) => self.resize(*size),
            _ => {}
        }
    }

    /// The channel got a terminal.
    pub(super) fn start_terminal(&mut self) {
        self.has_terminal = true;
        self.terminal.feed("\x1b[20l");
    }

    /// The virtual terminal, to draw its cells.
    pub fn terminal(&self) -> &avt::Terminal {
        &self.terminal
    }

    /// Whether the channel got a terminal.
    pub fn has_terminal(&self) -> bool {
        self.has_terminal
    }

    /// The text on the screen, a line a row, blanks at the end cut off.
    pub fn text(&self) -> Vec<String> {
        self.terminal.screen().visible_lines().map(|line| line.text().trim_end().to_owned()).collect()
    }

    /// The lines that scrolled off the screen since the last call (wrapped ones joined): what search reads.
    /// Empty unless made by [`Screen::with_lines`].
    pub fn take_lines(&mut self) -> Vec<String> {
        self.transcript.as_mut().map(|transcript| std::mem::take(&mut transcript.ready)).unwrap_or_default()
    }

    /// How many cells [`Screen::take_changed`] would speak of.
    pub(super) fn changed_cells(&self) -> usize {
        let (cols, _) = self.terminal.size();
        self.transcript.as_ref().map_or(0, |transcript| transcript.changed.len().saturating_mul(cols))
    }

    /// The rows among which is everything that changed since the last call. Empty unless made by [`Screen::with_lines`].
    pub(super) fn take_changed(&mut self) -> Range<usize> {
        let (_, rows) = self.terminal.size();
        let changed = self.transcript.as_mut().map(|transcript| std::mem::take(&mut transcript.changed));
        let Range { start, end } = changed.unwrap_or_default();
        start..end.min(rows)
    }

    /// The text of one row, blanks at the end cut off.
    pub(super) fn row(&self, row: usize) -> Option<String> {
        self.terminal.screen().line(row).map(|line| line.text().trim_end().to_owned())
    }

    /// All lines that are left, those on the screen included; the last thing to ask.
    pub fn finish(mut self) -> Vec<String> {
        for stream in 0..self.decoders.len() {
            let mut text = String::new();
            if let Some(decoder) = self.decoders.get_mut(stream) {
                decoder.finish(&mut text);
            }
            self.feed_text(&text);
        }
        let Some(mut transcript) = self.transcript else { return Vec::new() };
        for line in self.terminal.primary_screen().all_lines() {
            transcript.push(line);
        }
        transcript.end_line();
        while transcript.ready.last().is_some_and(String::is_empty) {
            transcript.ready.pop();
        }
        transcript.ready
    }

    fn feed(&mut self, stream: usize, bytes: &[u8]) {
        let mut text = String::with_capacity(bytes.len());
        if let Some(decoder) = self.decoders.get_mut(stream) {
            decoder.push(bytes, &mut text);
        }
        self.feed_text(&text);
    }

    fn feed_text(&mut self, text: &str) {
        match &mut self.transcript {
            Some(transcript) => self.terminal.feed_with(text, transcript),
            None => self.terminal.feed(text),
        }
    }

    /// The terminal has this size now.
    pub(super) fn resize(&mut self, size: TerminalSize) {
        let cols = size.cols.clamp(1, COLS_MAX) as usize;
        let rows = size.rows.clamp(1, ROWS_MAX) as usize;
        match &mut self.transcript {
            Some(transcript) => self.terminal.resize_with(cols, rows, transcript),
            None => self.terminal.resize(cols, rows),
        }
    }
}

/// Longest line of text that is put together from wrapped rows, bytes: output without any line end must not
/// fill the memory. What is longer is cut into lines.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// Collects the lines that leave the screen at the top, wrapped rows joined, and where it changed.
#[derive(Default)]
struct Lines {
    line: String,
    ready: Vec<String>,
    changed: Range<usize>,
}

impl Lines {
    fn push(&mut self, row: &avt::Line) {
        self.line.extend(row.chars());
        if !row.is_wrapped() || self.line.len() >= LINE_BYTES_MAX {
            self.ready.push(self.line.trim_end().to_owned());
            self.line.clear();
        }
    }

    fn end_line(&mut self) {
        if !self.line.is_empty() {
            self.ready.push(std::mem::take(&mut self.line));
        }
    }
}

impl Observer for Lines {
    type Output = ();

    fn dirty(&mut self, rows: Range<usize>) {
        if self.changed.is_empty() {
            self.changed = rows;
        } else if !rows.is_empty() {
            self.changed = self.changed.start.min(rows.start)..self.changed.end.max(rows.end);
        }
    }

    fn evicted(&mut self, _: &mut Observation<'_>, row: &avt::Line) {
        self.push(row);
    }

    fn end(&mut self, _: &mut Observation<'_>) {}
}

/// When a recording's moments are shown: long silences may be cut short.
#[derive(Debug, Clone, Copy, Default)]
pub struct Schedule {
    idle_limit: Option<Duration>,
    recorded_ns: Option<u64>,
    shown: Duration,
}

impl Schedule {
    /// Silences longer than `idle_limit` are cut to it.
    pub fn new(idle_limit: Option<Duration>) -> Self {
        Self { idle_limit, ..Self::default() }
    }

    /// The next frame stands at `time_ns` of the recording: returns when it is shown, since the first one, at
    /// normal speed. Times that step back count as no time at all.
    pub fn place(&mut self, time_ns: u64) -> Duration {
        let before_ns = self.recorded_ns.unwrap_or(time_ns);
        let gap = Duration::from_nanos(time_ns.saturating_sub(before_ns));
        self.recorded_ns = Some(before_ns.max(time_ns));
        self.shown = self.shown.saturating_add(self.idle_limit.map_or(gap, |limit| gap.min(limit)));
        self.shown
    }
}

#[cfg(test)]
#[path = "terminal_tests.rs"]
mod tests;
