//! What stood on the screen: a channel's output run through a virtual terminal, and when to show it.
//!
//! Seeking is feeding from the start: [`Schedule`] says which frames lie before a time, [`Screen`] what they add
//! up to.

mod effort;
mod watch;

use std::ops::Range;
use std::time::Duration;

use avt::parser::Function;
use avt::{Parser, Terminal};

use super::frame::{Direction, Frame, Kind, TerminalSize};
use super::text::Utf8Decoder;
use effort::{Effort, cells_of, cells_of_repeated};
use watch::{Sight, Watch};

/// Largest virtual terminal, columns and rows: a session may claim any size, and each cell costs memory.
pub const COLS_MAX: u32 = 1000;
/// See [`COLS_MAX`].
pub const ROWS_MAX: u32 = 500;

/// The columns and rows that are shown of a claimed size.
pub(super) fn shown_size(size: TerminalSize) -> (u32, u32) {
    (size.cols.clamp(1, COLS_MAX), size.rows.clamp(1, ROWS_MAX))
}

/// A virtual terminal that is fed one channel's frames. It draws nothing and answers nothing: what a
/// recording asks of a terminal (its clipboard, its title, reports) stays without effect.
///
/// Nor does it do whatever a recording asks of it: a few bytes can ask for millions of cells, so what reaches over the
/// whole screen must be paid for by what is shown. Of many changes of size that come at once the last counts; what wipes
/// or moves the screen is left out in the end, so that more stands there than stood there, and characters are
/// repeated no further.
pub struct Screen {
    parser: Parser,
    terminal: Terminal,
    decoders: [Utf8Decoder; 2],
    has_terminal: bool,
    effort: Effort,
    /// Columns and rows that it is to have and hasn't yet.
    size_due: Option<(usize, usize)>,
    watch: Option<Watch>,
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

impl Screen {
    /// A screen of 80 × 24 until the channel says otherwise.
    pub fn new() -> Self {
        let mut terminal = match Terminal::new(80, 24) {
            Ok(terminal) => terminal,
            Err(_) => unreachable!("80 × 24 is a size"),
        };
        // Channels without a terminal end their lines with LF alone: new-line mode, until there is one.
        terminal.feed("\x1b[20h");
        Self {
            parser: Parser::new(),
            terminal,
            decoders: Default::default(),
            has_terminal: false,
            effort: Effort::default(),
            size_due: None,
            watch: None,
        }
    }

    /// The same, looking for a text, capitals or not.
    pub(super) fn looking_for(text: &str) -> Self {
        let screen = Self::new();
        let (_, rows) = screen.terminal.size();
        Self { watch: Some(Watch::new(text, rows)), ..screen }
    }

    /// Takes another's place: what that was made to do counts for this one.
    pub(super) fn replace(&mut self, other: &Self) {
        self.effort = other.effort.clone();
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
    pub fn terminal(&self) -> &Terminal {
        &self.terminal
    }

    /// Whether the channel got a terminal.
    pub fn has_terminal(&self) -> bool {
        self.has_terminal
    }

    /// Whether anything was left out that the recording asked for.
    pub(super) fn has_left_out(&self) -> bool {
        self.effort.has_refused()
    }

    /// The text on the screen, a line a row, blanks at the end cut off.
    pub fn text(&self) -> Vec<String> {
        self.terminal.screen().visible_lines().map(|line| line.text().trim_end().to_owned()).collect()
    }

    /// Takes the last size that it was to have, if it hasn't yet: for whoever is about to look at it.
    pub fn settle(&mut self) {
        if let Some((cols, rows)) = self.size_due.take() {
            self.set_size(cols, rows);
        }
    }

    /// The rows that had the text and scrolled away since the last call. They, and what follows, are none unless it was made
    /// by [`Screen::looking_for`].
    pub(super) fn take_gone(&mut self) -> Vec<Sight> {
        self.watch.as_mut().map(Watch::take_gone).unwrap_or_default()
    }

    /// What [`Screen::take_changed`] would say.
    pub(super) fn changed(&self) -> Range<usize> {
        self.watch.as_ref().map(|watch| watch.changed(&self.terminal)).unwrap_or_default()
    }

    /// How many cells [`Screen::take_changed`] would speak of.
    pub(super) fn changed_cells(&self) -> usize {
        let (cols, _) = self.terminal.size();
        self.changed().len().saturating_mul(cols)
    }

    /// The rows among which is everything that changed since the last call, and those in which the text may end by it.
    pub(super) fn take_changed(&mut self) -> Range<usize> {
        let changed = self.changed();
        if let Some(watch) = &mut self.watch {
            watch.forget_changed();
        }
        changed
    }

    /// The rows among these in which the text ends, and their numbers.
    pub(super) fn sights(&self, rows: Range<usize>) -> Vec<(usize, Sight)> {
        self.watch.as_ref().map(|watch| watch.sights(&self.terminal, rows)).unwrap_or_default()
    }

    fn feed(&mut self, stream: usize, bytes: &[u8]) {
        self.effort.earn(bytes.len());
        self.pay_for_size();
        let mut text = String::with_capacity(bytes.len());
        if let Some(decoder) = self.decoders.get_mut(stream) {
            decoder.push(bytes, &mut text);
        }
        for char in text.chars() {
            if let Some(function) = self.parser.feed(char) {
                self.obey(function);
            }
        }
    }

    fn obey(&mut self, function: Function) {
        if let Function::Rep(times) = function {
            return self.repeat(times.into());
        }
        if self.effort.spend(cells_of(&function, self.terminal.size())) {
            self.execute(function);
        }
    }

    /// Prints what stands before the cursor again, one by one: by itself a terminal would keep all that scrolls away by it.
    fn repeat(&mut self, times: usize) {
        let Some(char) = self.before_cursor() else { return };
        let (cols, rows) = self.terminal.size();
        // More than the screen holds look like as many as it holds.
        for _ in 0..times.clamp(1, cols * rows) {
            let at_end = self.terminal.cursor().col >= cols;
            if !self.effort.spend(cells_of_repeated((cols, rows), at_end)) {
                return;
            }
            self.execute(Function::Print(char));
        }
    }

    fn before_cursor(&self) -> Option<char> {
        let cursor = self.terminal.cursor();
        let before = self.terminal.screen().line(cursor.row)?.cells().get(..cursor.col)?;
        // The second half of a wide character has no width.
        before.iter().rev().find(|cell| cell.width() > 0).map(avt::Cell::char)
    }

    fn execute(&mut self, function: Function) {
        match &mut self.watch {
            Some(watch) => self.terminal.execute_with(function, watch),
            None => self.terminal.execute(function),
        }
    }

    /// The terminal has this size from now on.
    pub(super) fn resize(&mut self, size: TerminalSize) {
        let (cols, rows) = shown_size(size);
        self.size_due = Some((cols as usize, rows as usize));
        self.effort.earn(0);
        self.pay_for_size();
    }

    /// Takes the size that it is to have, once that is paid for.
    fn pay_for_size(&mut self) {
        let Some((cols, rows)) = self.size_due else { return };
        let (cols_now, rows_now) = self.terminal.size();
        if (cols, rows) == (cols_now, rows_now) || self.effort.spend(cols * rows + cols_now * rows_now) {
            self.settle();
        }
    }

    fn set_size(&mut self, cols: usize, rows: usize) {
        match &mut self.watch {
            Some(watch) => self.terminal.resize_with(cols, rows, watch),
            None => self.terminal.resize(cols, rows),
        }
    }
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
