//! Where a text was shown in a recording.

use super::reader::ReadError;
use super::terminal::Screen;
use super::{Frame, Reader};
use std::collections::BTreeMap;
use std::io::Read;

/// Lines that are reported at most; a person looks for less.
pub const FOUND_MAX: usize = 10_000;

/// A line that was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The channel's number within the session.
    pub channel: u32,
    /// When it appeared, in nanoseconds since 1970.
    pub time_ns: u64,
    /// The line, as it stood on the screen.
    pub line: String,
}

/// One channel's screen, and which of its lines with the text stand there.
struct Shown {
    screen: Screen,
    standing: Vec<String>,
}

/// All lines that have shown `text`, capitals or not, in the order in which they appeared: what scrolled away and what
/// was drawn over as well. A line that is drawn again after it was gone is there again.
///
/// # Errors
/// When the recording can't be read to its end; what was found before is lost.
pub fn find<R: Read>(reader: &mut Reader<R>, text: &str) -> Result<Vec<Found>, ReadError> {
    let wanted = text.to_lowercase();
    let (mut channels, mut found) = (BTreeMap::<u32, Shown>::new(), Vec::new());
    for frame in reader.by_ref() {
        let frame = frame?;
        let shown = channels
            .entry(frame.channel)
            .or_insert_with(|| Shown { screen: Screen::with_lines(), standing: Vec::new() });
        let appeared = shown.show(&frame, &wanted);
        let (channel, time_ns) = (frame.channel, frame.time_ns);
        found.extend(appeared.into_iter().map(|line| Found { channel, time_ns, line }));
        if found.len() >= FOUND_MAX {
            found.truncate(FOUND_MAX);
            break;
        }
    }
    Ok(found)
}

impl Shown {
    /// The lines with the text that a frame has brought.
    fn show(&mut self, frame: &Frame<'_>, wanted: &str) -> Vec<String> {
        self.screen.show(frame);
        let has = |line: &String| line.to_lowercase().contains(wanted);
        let mut before = std::mem::take(&mut self.standing);
        let mut appeared = Vec::new();
        // What went off the top stood there before, or came and went within this frame. Wrapped lines are one there and
        // several rows here.
        for line in self.screen.take_lines().into_iter().filter(&has) {
            match before.iter().position(|row| line.contains(row.as_str())) {
                Some(at) => drop(before.remove(at)),
                None => appeared.push(line),
            }
        }
        self.standing = self.screen.text().into_iter().filter(&has).collect();
        for row in &self.standing {
            match before.iter().position(|old| old == row) {
                Some(at) => drop(before.remove(at)),
                None => appeared.push(row.clone()),
            }
        }
        appeared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Direction, Kind, Level, Recorder, TerminalSize};

    fn found(terminal: bool, output: &[&str], text: &str) -> Vec<(u64, String)> {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::create(dir.path(), uuid::Uuid::nil(), 0, Level::Full).unwrap();
        if terminal {
            let size = TerminalSize { cols: 20, rows: 3, width_px: 0, height_px: 0 };
            let started = Kind::TerminalStarted { term: b"xterm".as_slice().into(), size };
            recorder.record(0, 0, Direction::Control, started).unwrap();
        }
        for (at, text) in (1..).zip(output) {
            recorder.release(at, 0, Direction::Output, *text).unwrap().into_inner();
        }
        let path = recorder.path().to_owned();
        recorder.seal(99).unwrap();
        let found = find(&mut Reader::open(&path).unwrap(), text).unwrap();
        found.into_iter().map(|found| (found.time_ns, found.line)).collect()
    }

    #[test]
    fn a_line_is_found_when_it_appears_and_once() {
        let output = ["one\r\npass", "word: x\r\n", "a\r\nb\r\nc\r\nd\r\n", "PASSWORD again\r\n"];
        let wanted = vec![(2, "password: x".to_owned()), (4, "PASSWORD again".to_owned())];
        assert_eq!(found(true, &output, "password"), wanted);
    }

    #[test]
    fn what_was_drawn_over_or_ran_by_at_once_is_found() {
        let output = [
            "secret plan",
            "\x1b[2J\x1b[Hnothing",
            "1\r\n2\r\nsecret 3\r\n4\r\n5\r\n6\r\n7\r\n",
            "secret plan",
        ];
        let lines: Vec<_> =
            found(true, &output, "secret").into_iter().map(|(at, line)| format!("{at} {line}")).collect();
        assert_eq!(lines, ["1 secret plan", "3 secret 3", "4 secret plan"]);
    }

    #[test]
    fn colours_and_chunks_are_no_hiding_place() {
        assert_eq!(found(true, &["se\x1b[31mcr\x1b[0met"], "secret"), [(1, "secret".to_owned())]);
        assert_eq!(found(false, &["one\nsec", "ret\ntwo\n"], "SECRET"), [(2, "secret".to_owned())]);
        assert!(found(false, &["nothing\n"], "secret").is_empty());
    }
}
