//! Draws a recorded screen on a real terminal: its cells and colours, and nothing else that the recording asks
//! for. Whoever was recorded chose those bytes, and must not reach the auditor's clipboard, title or keyboard.

use std::fmt::Write as _;

use avt::{Color, Pen, Terminal};

/// Draws rows that changed since the last time.
#[derive(Default)]
pub struct Painter {
    rows: Vec<String>,
}

impl Painter {
    /// What to write to a terminal of `cols` × `rows` so that it shows the recorded one (what doesn't fit is cut
    /// off) and, in its last row, `status`.
    pub fn paint(&mut self, terminal: &Terminal, cols: usize, rows: usize, status: &str) -> String {
        let height = rows.saturating_sub(1);
        let mut wanted: Vec<String> =
            terminal.screen().visible_lines().take(height).map(|line| row(line, cols)).collect();
        wanted.resize(height, String::new());
        wanted.push(format!("\x1b[7m{}", status.chars().take(cols).collect::<String>()));
        if self.rows.len() != wanted.len() {
            self.rows.clear();
        }
        let mut out = String::new();
        for (number, text) in wanted.iter().enumerate() {
            if self.rows.get(number) != Some(text) {
                put(&mut out, format_args!("\x1b[{};1H\x1b[0m{text}\x1b[0m\x1b[K", number + 1));
            }
        }
        self.rows = wanted;
        match terminal.cursor().position() {
            Some((col, row)) if col < cols && row < height => {
                put(&mut out, format_args!("\x1b[{};{}H\x1b[?25h", row + 1, col + 1));
            }
            _ => out.push_str("\x1b[?25l"),
        }
        out
    }

    /// Draw everything the next time.
    pub fn forget(&mut self) {
        self.rows.clear();
    }
}

fn row(line: &avt::Line, cols: usize) -> String {
    let mut out = String::new();
    let mut pen = Pen::default();
    let mut col = 0;
    for cell in line.cells() {
        let width = usize::from(cell.width());
        if width == 0 {
            continue;
        }
        if col + width > cols {
            break;
        }
        col += width;
        if *cell.pen() != pen {
            pen = *cell.pen();
            style(&mut out, &pen);
        }
        out.push(shown(cell.char()));
    }
    out
}

/// The virtual terminal keeps no control characters; that doesn't depend on it.
fn shown(char: char) -> char {
    match char {
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => char::REPLACEMENT_CHARACTER,
        char if char.is_control() => char::REPLACEMENT_CHARACTER,
        char => char,
    }
}

fn style(out: &mut String, pen: &Pen) {
    out.push_str("\x1b[0");
    let flags = [
        (pen.is_bold(), ";1"),
        (pen.is_faint(), ";2"),
        (pen.is_italic(), ";3"),
        (pen.is_underline(), ";4"),
        (pen.is_inverse(), ";7"),
        (pen.is_strikethrough(), ";9"),
    ];
    flags.iter().filter(|(set, _)| *set).for_each(|(_, code)| out.push_str(code));
    for (base, color) in [(38, pen.foreground()), (48, pen.background())] {
        match color {
            Some(Color::Indexed(index)) => put(out, format_args!(";{base};5;{index}")),
            Some(Color::RGB(rgb)) => put(out, format_args!(";{base};2;{};{};{}", rgb.r, rgb.g, rgb.b)),
            None => {}
        }
    }
    out.push('m');
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string can't fail.
    if out.write_fmt(text).is_err() {
        out.push(char::REPLACEMENT_CHARACTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_painted_is_what_stood_there() {
        let mut recorded = Terminal::new(20, 4).unwrap();
        recorded.feed(
            "\x1b[31mred\x1b[0m \x1b[1;48;2;1;2;3mbold\x1b[0m\r\n界x\x1b]52;c;eA==\x07\x1b]0;title\x07",
        );
        let mut painter = Painter::default();
        let first = painter.paint(&recorded, 20, 5, "status");
        assert!(!first.contains("52;c") && !first.contains("title"));
        let mut shown = Terminal::new(20, 5).unwrap();
        shown.feed(first.as_str());
        for (row, line) in recorded.screen().visible_lines().enumerate() {
            assert_eq!(shown.screen().line(row).unwrap().cells(), line.cells(), "row {row}");
        }
        assert_eq!(shown.screen().line(4).unwrap().text().trim_end(), "status");
        recorded.feed("y");
        let second = painter.paint(&recorded, 20, 5, "status");
        assert!(second.contains("界xy") && !second.contains("red"), "only what changed: {second:?}");
        shown.feed(second.as_str());
        assert_eq!(shown.cursor().position(), recorded.cursor().position());
    }

    #[test]
    fn what_does_not_fit_is_cut() {
        let mut recorded = Terminal::new(20, 4).unwrap();
        recorded.feed("abcd界\r\n2\r\n3\r\n4");
        let text = Painter::default().paint(&recorded, 5, 3, "a long status");
        assert!(text.contains("abcd\x1b") && text.contains('2') && !text.contains('4'));
        assert!(text.contains("a lon\x1b"));
    }
}
