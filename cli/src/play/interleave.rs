//! What a session showed and what its node's kernel saw, line by line in the order in which it happened.

use super::{say_ending, sound};
use crate::table::printable;
use anyhow::Context as _;
use custody_core::recording::text::{Utf8Decoder, harmless};
use custody_core::recording::{Direction, Kind, Reader};
use std::io::{self, Read, Seek, Write};

/// Something that a kernel saw: nanoseconds since the session's start, and a line for people.
pub type Seen = (u64, String);

/// Prints a channel's output with what the kernel saw between its lines.
pub fn print<R: Read + Seek>(
    mut reader: Reader<R>,
    channel: Option<u32>,
    seen: Vec<Seen>,
) -> anyhow::Result<()> {
    let channel = channel.map_or_else(|| reader.main_channel(), |channel| Ok(Some(channel)))?;
    reader.rewind()?;
    let mut page = Page { out: io::stdout().lock(), at_line_start: true };
    let mut decoder = Utf8Decoder::default();
    let mut seen = seen.into_iter().peekable();
    let mut error = None;
    for frame in sound(&mut reader, &mut error) {
        let output = matches!(frame.direction, Direction::Output | Direction::ErrorOutput);
        let Kind::Data(bytes) = &frame.kind else { continue };
        if Some(frame.channel) != channel || !output {
            continue;
        }
        while let Some((at, line)) = seen.next_if(|(at, _)| *at <= frame.time_ns) {
            page.note(at, &line)?;
        }
        let mut text = String::new();
        decoder.push(bytes, &mut text);
        page.show(&text)?;
    }
    for (at, line) in seen {
        page.note(at, &line)?;
    }
    page.out.flush().context("standard output can't be written")?;
    drop(page);
    say_ending(reader.ending(), error)
}

struct Page<W> {
    out: W,
    at_line_start: bool,
}

impl<W: Write> Page<W> {
    fn show(&mut self, text: &str) -> anyhow::Result<()> {
        let text = harmless(&text.replace("\r\n", "\n"));
        if let Some(last) = text.chars().last() {
            self.at_line_start = last == '\n';
            self.out.write_all(text.as_bytes()).context("standard output can't be written")?;
        }
        Ok(())
    }

    /// A line of its own, which no text in it can end.
    fn note(&mut self, at: u64, line: &str) -> anyhow::Result<()> {
        let (seconds, millis) = (at / 1_000_000_000, at / 1_000_000 % 1_000);
        let before = if self.at_line_start { "" } else { "\n" };
        self.at_line_start = true;
        writeln!(
            self.out,
            "{before}┆ {:02}:{:02}:{:02}.{millis:03} {}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            printable(line)
        )
        .context("standard output can't be written")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_have_lines_of_their_own() {
        let mut page = Page { out: Vec::new(), at_line_start: true };
        page.note(1_500_000_000, "ran sh [1]").unwrap();
        page.show("$ ls\r\n$ \u{1b}[1m").unwrap();
        page.note(3_661_000_000_000, "\u{1b}[1A\u{1b}[2K\n [2] ended").unwrap();
        page.note(3_661_000_000_000, "ran ls [2]").unwrap();
        let text = String::from_utf8(page.out).unwrap();
        assert_eq!(text.lines().nth(3), Some("┆ 01:01:01.000 \\u{1b}[1A\\u{1b}[2K\\n [2] ended"));
        assert_eq!(text.lines().next(), Some("┆ 00:00:01.500 ran sh [1]"));
        assert_eq!(text.lines().last(), Some("┆ 01:01:01.000 ran ls [2]"));
        assert!(!text.contains('\u{1b}'));
    }
}
