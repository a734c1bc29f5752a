//! What a search sees of a screen: the rows in which a text ends, which rows changed, and what scrolled away.
//!
//! A line may be wrapped over many rows, and its first ones may be gone before the last are written. So each row is looked
//! at together with what stands, or stood, before it: a text is found in the row in which it ends.

use std::ops::Range;

use avt::observer::{Observation, Observer};
use avt::parser::Function;
use avt::{Line, Operation, ScreenKind, Terminal};

/// Characters that are told of a line on each side of a row, about: a line may be as long as its recording.
pub(super) const AROUND_CHARS_MAX: usize = 1000;
/// Rows with the text that are kept once they are gone, until somebody takes them.
const GONE_MAX: usize = 10_000;
/// A blank in a row's last column before a wide character in the next row. Nobody may have written it: such a character that
/// doesn't fit leaves what stood there. No terminal shows a character of this code.
const GAP: char = '\0';

/// A row in which the text ends.
#[derive(Debug)]
pub(in crate::recording) struct Sight {
    /// What the row is known by: its own text, and before it as much of its line as the text needs.
    pub(in crate::recording) row: String,
    /// The line that the row belongs to; of a long one, what stands around the row.
    pub(in crate::recording) line: String,
    /// Whether the row before, of the same line, has it too, or one before that.
    pub(in crate::recording) again: bool,
}

impl Sight {
    fn new<'a>(row: String, before: &str, line: &Line, below: impl Iterator<Item = &'a Line>) -> Self {
        let mut whole = format!("{before}{}", text_of(line));
        let mut chars = AROUND_CHARS_MAX;
        for next in rest_of_line(line, below) {
            go_on(&mut whole, next);
            whole.extend(next.chars().take(chars));
            chars = chars.saturating_sub(next.len());
            if chars == 0 {
                break;
            }
        }
        whole.truncate(whole.trim_end().len());
        whole.retain(|char| char != GAP);
        Self { row, line: whole, again: false }
    }
}

/// Watches a screen for a text.
pub(super) struct Watch {
    wanted: Wanted,
    changed: Range<usize>,
    gone: Vec<Sight>,
    /// The rows that scroll, as the terminal has been told last.
    margins: Range<usize>,
    rows: usize,
    /// Of the line whose rows have left the primary screen at its top.
    evicted: Begun,
    /// Of the line whose rows have left the alternate screen, or the rows that scroll, at their top.
    scrolled: Begun,
    /// What the function under way makes of that, if it scrolls.
    foreseen: Option<Foreseen>,
    /// How often the function under way has changed rows.
    changes: usize,
}

/// What becomes of rows that are about to scroll away.
struct Foreseen {
    gone: Vec<Sight>,
    scrolled: Begun,
}

impl Watch {
    /// Watches a screen of so many rows.
    pub(super) fn new(text: &str, rows: usize) -> Self {
        Self {
            wanted: Wanted::new(text),
            changed: 0..0,
            gone: Vec::new(),
            margins: 0..rows,
            rows,
            evicted: Begun::default(),
            scrolled: Begun::default(),
            foreseen: None,
            changes: 0,
        }
    }

    /// The rows that had the text and are gone, since the last call.
    pub(super) fn take_gone(&mut self) -> Vec<Sight> {
        std::mem::take(&mut self.gone)
    }

    /// The rows among which is everything that changed since the last time, and those in which the text may end by it.
    pub(super) fn changed(&self, terminal: &Terminal) -> Range<usize> {
        let (cols, rows) = terminal.size();
        let (start, end) = (self.changed.start, self.changed.end.min(rows));
        if start >= end {
            return 0..0;
        }
        // Wide characters take two columns each.
        let reach = self.wanted.chars.saturating_sub(1).div_ceil((cols / 2).max(1));
        let lines = terminal.screen().visible_lines().skip(end - 1);
        let behind = lines.take(reach).take_while(|line| line.is_wrapped()).count();
        start..(end + behind).min(rows)
    }

    /// Everything was looked at.
    pub(super) fn forget_changed(&mut self) {
        self.changed = 0..0;
    }

    /// The rows among these in which the text ends.
    pub(super) fn sights(&self, terminal: &Terminal, rows: Range<usize>) -> Vec<(usize, Sight)> {
        let (mut found, mut again) = (Vec::new(), false);
        let lines = terminal.screen().visible_lines().enumerate();
        for (row, line) in lines.skip(rows.start).take(rows.len()) {
            if let Some(sight) = self.sight(terminal, row, line) {
                found.push((row, Sight { again, ..sight }));
                again = true;
            }
            again &= line.is_wrapped();
        }
        found
    }

    fn sight(&self, terminal: &Terminal, row: usize, line: &Line) -> Option<Sight> {
        let before = self.before_row(terminal, row, self.wanted.chars.saturating_sub(1));
        let known_by = self.wanted.ends_in(&before, &text_of(line))?;
        let before = self.before_row(terminal, row, AROUND_CHARS_MAX);
        Some(Sight::new(known_by, &before, line, terminal.screen().visible_lines().skip(row + 1)))
    }

    /// What stands before a row in its line, or stood there: so many characters, or somewhat more, if there are as many.
    fn before_row(&self, terminal: &Terminal, row: usize, chars: usize) -> String {
        let screen = terminal.screen();
        let (mut found, mut first) = (0, row);
        let above = (0..row).rev().map_while(|above| screen.line(above)).take_while(|line| line.is_wrapped());
        for line in above {
            if found >= chars {
                break;
            }
            let count = line.chars().count();
            // Its last may be a gap.
            found += count - usize::from(count > 1);
            first -= 1;
        }
        let mut before = String::new();
        if found < chars {
            before.push_str(self.gone_before(terminal, first));
        }
        for (at, line) in screen.visible_lines().enumerate().skip(first).take(row + 1 - first) {
            go_on(&mut before, line);
            if at < row {
                before.extend(line.chars());
            }
        }
        before
    }

    /// The end of the line that goes on in a row, if its rows before are gone.
    fn gone_before(&self, terminal: &Terminal, row: usize) -> &str {
        let is_primary = terminal.active_screen_kind() == ScreenKind::Primary;
        match row {
            0 if is_primary => self.evicted.end.as_str(),
            row if row == self.margins.start => self.scrolled.end.as_str(),
            _ => "",
        }
    }

    /// The rows that scroll away by a function and that nobody is told of (those of the alternate screen, and within
    /// margins); and whether they do so at the top. By a character they do if it is wrapped, which the terminal decides.
    fn scrolled_by(&self, terminal: &Terminal, function: &Function) -> Option<(Range<usize>, bool)> {
        let (cols, rows) = terminal.size();
        let (cursor, margins) = (terminal.cursor(), self.margins.clone());
        let end = if cursor.row < margins.end { margins.end } else { rows };
        let from_cursor = cursor.row..end;
        let is_last = cursor.row + 1 == margins.end;
        let (region, lines, up) = match function {
            Function::Lf | Function::Nel if is_last => (margins, 1, true),
            Function::Print(char) if is_last && may_wrap(*char, cursor.col, cols) => (margins, 1, true),
            Function::Su(lines) => (margins, *lines, true),
            Function::Dl(lines) => (from_cursor, *lines, true),
            Function::Ri if cursor.row == margins.start => (margins, 1, false),
            Function::Sd(lines) => (margins, *lines, false),
            Function::Il(lines) => (from_cursor, *lines, false),
            _ => return None,
        };
        if up && region.start == 0 && terminal.active_screen_kind() == ScreenKind::Primary {
            // These are evicted.
            return None;
        }
        let lines = usize::from(lines).clamp(1, region.len().max(1));
        let scrolled = if up {
            region.start..region.start + lines
        } else {
            region.end.saturating_sub(lines)..region.end
        };
        Some((scrolled, up))
    }

    fn tell(&mut self, sight: Sight) {
        if self.gone.len() < GONE_MAX {
            self.gone.push(sight);
        }
    }
}

impl Observer for Watch {
    type Output = ();

    fn before(&mut self, context: &mut Observation<'_>, operation: &Operation) {
        self.changes = 0;
        let Operation::Function(function) = operation else { return };
        let terminal = context.terminal();
        let Some((rows, up)) = self.scrolled_by(terminal, function) else { return };
        let sights = self.sights(terminal, rows.clone()).into_iter().map(|(_, sight)| sight);
        let gone = sights.filter(|sight| !sight.again).collect();
        let mut scrolled = Begun::default();
        if up && rows.start == self.margins.start {
            scrolled.clone_from(&self.scrolled);
            // The row that a character is wrapped in isn't marked so yet; where there is one row, it is the one that goes.
            let wraps = matches!(function, Function::Print(_)) && rows.end == self.margins.end;
            for line in terminal.screen().visible_lines().skip(rows.start).take(rows.len()) {
                scrolled.follow(line, wraps || line.is_wrapped(), self.wanted.chars);
            }
        }
        self.foreseen = Some(Foreseen { gone, scrolled });
    }

    fn resized(&mut self, _: usize, rows: usize) {
        if rows != self.rows {
            self.rows = rows;
            self.margins = 0..rows;
        }
    }

    fn dirty(&mut self, rows: Range<usize>) {
        self.changes += 1;
        if self.changed.is_empty() {
            self.changed = rows;
        } else if !rows.is_empty() {
            self.changed = self.changed.start.min(rows.start)..self.changed.end.max(rows.end);
        }
    }

    fn after(&mut self, context: &mut Observation<'_>, operation: &Operation) {
        let Operation::Function(function) = operation else { return };
        if let Some(Foreseen { gone, scrolled }) = self.foreseen.take() {
            // A character that has scrolled has changed the rows that scroll, and then its own.
            if !matches!(function, Function::Print(_)) || self.changes > 1 {
                gone.into_iter().for_each(|sight| self.tell(sight));
                self.scrolled = scrolled;
            }
        }
        let (_, rows) = context.terminal().size();
        match function {
            Function::Decstbm(top, bottom) => {
                let top = usize::from(*top).max(1) - 1;
                let end = if *bottom == 0 { rows } else { usize::from(*bottom) };
                if top + 1 < end && end <= rows {
                    self.margins = top..end;
                }
            }
            Function::Decstr => self.margins = 0..rows,
            Function::Ris => {
                self.margins = 0..rows;
                self.evicted = Begun::default();
            }
            Function::Decset(_) | Function::Decrst(_) => {}
            _ => return,
        }
        // What scrolls from now on doesn't go on with what did before.
        self.scrolled = Begun::default();
    }

    fn evicted(&mut self, context: &mut Observation<'_>, line: &Line) {
        go_on(&mut self.evicted.end, line);
        if !self.evicted.told
            && let Some(known_by) = self.wanted.ends_in(&self.evicted.end, &text_of(line))
        {
            let below = context.terminal().primary_screen().all_lines();
            let sight = Sight::new(known_by, &self.evicted.end, line, below);
            self.evicted.told = true;
            self.tell(sight);
        }
        self.evicted.follow(line, line.is_wrapped(), self.wanted.chars);
    }

    fn end(&mut self, _: &mut Observation<'_>) {}
}

/// A line of which the first rows are gone.
#[derive(Clone, Default)]
struct Begun {
    /// The end of these rows; nothing if the line doesn't go on.
    end: String,
    /// Whether one of them had the text.
    told: bool,
}

impl Begun {
    /// A row has gone.
    fn follow(&mut self, row: &Line, is_wrapped: bool, chars_wanted: usize) {
        if !is_wrapped {
            *self = Self::default();
            return;
        }
        go_on(&mut self.end, row);
        self.end.extend(row.chars());
        let chars_max = AROUND_CHARS_MAX.max(chars_wanted);
        let excess = self.end.chars().count().saturating_sub(chars_max);
        if let Some((at, _)) = self.end.char_indices().nth(excess) {
            self.end.drain(..at);
        }
    }
}

/// What is looked for.
struct Wanted {
    /// In small letters.
    text: String,
    chars: usize,
}

impl Wanted {
    fn new(text: &str) -> Self {
        let text = text.to_lowercase();
        Self { chars: text.chars().count(), text }
    }

    fn is_in(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        if !text.contains(GAP) {
            return text.contains(&self.text);
        }
        text.char_indices().any(|(at, _)| self.begins(text.get(at..).unwrap_or_default()))
    }

    /// Whether a text begins with it. A gap is a blank, or nothing.
    fn begins(&self, text: &str) -> bool {
        let mut chars = text.chars();
        self.text.chars().all(|wanted| match chars.next() {
            Some(GAP) if wanted != ' ' => chars.next() == Some(wanted),
            Some(GAP) => true,
            char => char == Some(wanted),
        })
    }

    /// If the text ends in a row that stands behind `before`: the row, with as little of that before it as the text needs.
    fn ends_in(&self, before: &str, row: &str) -> Option<String> {
        if self.is_in(row) {
            return Some(row.to_owned());
        }
        let mut chars = 0;
        let begin = before.char_indices().rev().take_while(|(_, char)| {
            chars += usize::from(*char != GAP);
            chars < self.chars
        });
        let begin: Vec<usize> = begin.map(|(at, _)| at).collect();
        let before = |at: usize| before.get(at..).unwrap_or_default();
        let from = |at: usize| format!("{}{row}", before(at));
        if !self.is_in(&from(*begin.last()?)) {
            return None;
        }
        let at = begin.into_iter().find(|at| self.is_in(&from(*at)))?;
        // With a gap for a blank it may end before the row.
        (!self.is_in(before(at))).then(|| from(at))
    }
}

/// A row's text; blanks at its end are of the text only if its line goes on.
fn text_of(row: &Line) -> String {
    let mut text: String = row.chars().collect();
    if !row.is_wrapped() {
        text.truncate(text.trim_end().len());
    }
    text
}

/// A line's text goes on in a row.
fn go_on(text: &mut String, row: &Line) {
    if text.ends_with(' ') && row.cells().first().is_some_and(|cell| cell.width() > 1) {
        text.pop();
        text.push(GAP);
    }
}

/// Whether a character that is printed in a column may be wrapped: in the last one it is if it is wide, which none of ASCII is.
fn may_wrap(char: char, col: usize, cols: usize) -> bool {
    col >= cols || (col + 1 == cols && !char.is_ascii())
}

/// The rows below in which a row's line goes on.
fn rest_of_line<'a>(row: &Line, below: impl Iterator<Item = &'a Line>) -> impl Iterator<Item = &'a Line> {
    below.scan(row.is_wrapped(), |goes_on, next| {
        let is_of_line = std::mem::replace(goes_on, next.is_wrapped());
        is_of_line.then_some(next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_in_one_row() {
        let wanted = Wanted::new("SeCret");
        let table = [
            ("", "a secret", Some("a secret")),
            ("a sec", "ret", Some("secret")),
            ("A SEC", "RET, told", Some("SECRET, told")),
            ("a secre", "t", Some("secret")),
            ("a secret", "", None),
            ("a secret", "t", None),
            ("", "ecret", None),
            ("a sec\0", "ret", Some("sec\0ret")),
            ("a\0", "secret", Some("secret")),
            ("a secret\0", "t", None),
        ];
        for (before, row, known_by) in table {
            assert_eq!(wanted.ends_in(before, row).as_deref(), known_by, "{before:?}, {row:?}");
        }
        assert_eq!(Wanted::new("").ends_in("before", "row").as_deref(), Some("row"));
        // A gap is a blank for whoever looks for one, and nothing for whoever doesn't.
        let wanted = Wanted::new("b 中文");
        for (before, row, known_by) in [
            ("ab\0中", "文", Some("b\0中文")),
            ("ab\0中\0", "文", Some("b\0中\0文")),
            ("ab\0中文", "字", None),
        ] {
            assert_eq!(wanted.ends_in(before, row).as_deref(), known_by, "{before:?}, {row:?}");
        }
    }

    /// The terminal doesn't tell its margins, but those that another needs to become as it is.
    #[test]
    fn margins_are_those_of_the_terminal() {
        let table = [
            ("", 0..10),
            ("\x1b[2;5r", 1..5),
            ("\x1b[0;9r", 0..9),
            ("\x1b[3r", 2..10),
            ("\x1b[5;5r", 2..10),
            ("\x1b[6;2r", 2..10),
            ("\x1b[2;99r", 2..10),
            ("\x1b[4;6r", 3..6),
            ("\x1b[!p", 0..10),
            ("\x1b[4;6r", 3..6),
            ("\x1bc", 0..10),
            ("\x1b[2;3r\x1b[?1049h", 1..3),
            ("\x1b[?1049l", 1..3),
        ];
        let mut terminal = Terminal::new(20, 10).unwrap();
        let mut watch = Watch::new("x", 10);
        for (text, margins) in table {
            terminal.feed_with(text, &mut watch);
            assert_eq!(watch.margins, margins, "{text:?}");
            let dump = terminal.dump();
            let dumped = dump.split("\x1b[").find_map(|sequence| {
                let (top, bottom) = sequence.strip_suffix('r')?.split_once(';')?;
                Some(top.parse::<usize>().unwrap() - 1..bottom.parse().unwrap())
            });
            assert_eq!(dumped.unwrap_or(0..10), margins, "{text:?}: {dump:?}");
        }
        terminal.resize_with(30, 10, &mut watch);
        assert_eq!(watch.margins, 1..3, "its width alone changed");
        terminal.resize_with(30, 8, &mut watch);
        assert_eq!(watch.margins, 0..8);
    }
}
