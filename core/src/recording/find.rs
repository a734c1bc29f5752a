//! Where a text was shown in a recording.

use super::reader::ReadError;
use super::terminal::Screen;
use super::{Direction, Frame, Kind, Reader, TerminalSize};
use std::collections::BTreeMap;
use std::io::Read;

/// Lines that are reported at most; a person looks for less.
pub const FOUND_MAX: usize = 10_000;
/// Screens that are kept at once: a session may have any number of channels, and the largest screen takes 8 MiB.
const SCREENS_MAX: usize = 64;
/// Channels of which it is remembered that they have a terminal, and its size.
const TERMINALS_MAX: usize = 64 * 1024;
/// A change of so many cells is looked at with the frame that made it: a whole screen of most people's.
const AT_ONCE_CELLS_MAX: usize = 16 * 1024;
/// How long a larger change may wait to be looked at, in nanoseconds of the recording. What a person could have read stood
/// longer.
const LOOK_EVERY_NS: u64 = 100_000_000;

/// A line that was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The channel's number within the session.
    pub channel: u32,
    /// When it appeared, in nanoseconds since 1970; on a screen of more than 16,384 cells to a tenth of a second.
    pub time_ns: u64,
    /// The line, as it stood on the screen.
    pub line: String,
}

/// All lines that have shown `text`, capitals or not, in the order in which they appeared: what scrolled away and what
/// was drawn over as well. A line that is drawn again after it was gone is there again.
///
/// A recording is whatever its session was, and may be made to cost much. So a screen of more than 16,384 cells that is
/// drawn anew is looked at ten times a second of the recording: what stood there for less than a tenth of a second may be
/// passed over, unless it scrolled away. And of more than 64 channels that speak by turns, the one that has been silent
/// longest begins anew with an empty screen when it speaks again.
///
/// # Errors
/// When the recording can't be read to its end; what was found before is lost.
pub fn find<R: Read>(reader: &mut Reader<R>, text: &str) -> Result<Vec<Found>, ReadError> {
    let mut search = Search::new(text, reader.header().started_ns);
    for frame in reader.by_ref() {
        search.show(&frame?);
        if search.found.len() >= FOUND_MAX {
            break;
        }
    }
    Ok(search.end())
}

/// A search under way.
struct Search {
    /// In small letters.
    wanted: String,
    /// The session's start: frames count from there.
    started_ns: u64,
    terminals: BTreeMap<u32, Terminal>,
    shown: BTreeMap<u32, Shown>,
    found: Vec<Found>,
}

/// What is known of a channel's terminal, though it may have shown nothing yet.
#[derive(Clone, Copy)]
struct Terminal {
    started: bool,
    size: TerminalSize,
}

/// One channel's screen, and which of its rows have the text.
struct Shown {
    screen: Screen,
    /// The rows with the text at the last look, by their numbers.
    standing: BTreeMap<usize, String>,
    /// When the last frame came.
    last_ns: u64,
    /// When the first change came that wasn't looked at yet.
    unseen_since: Option<u64>,
}

impl Search {
    fn new(text: &str, started_ns: u64) -> Self {
        Self {
            wanted: text.to_lowercase(),
            started_ns,
            terminals: BTreeMap::new(),
            shown: BTreeMap::new(),
            found: Vec::new(),
        }
    }

    fn show(&mut self, frame: &Frame<'_>) {
        match (&frame.kind, frame.direction) {
            (Kind::Data(_), Direction::Output | Direction::ErrorOutput) => self.make_screen(frame.channel),
            (Kind::TerminalStarted { size, .. }, _) => self.remember(frame.channel, true, *size),
            (Kind::Resize(size), _) => self.remember(frame.channel, false, *size),
            _ => return,
        }
        // A channel that has shown nothing has no screen, whatever size it claims.
        if let Some(shown) = self.shown.get_mut(&frame.channel) {
            let appeared = shown.show(frame, &self.wanted);
            self.report(frame.channel, appeared);
        }
    }

    /// All that was found, once nothing more is shown.
    fn end(mut self) -> Vec<Found> {
        while let Some((channel, mut shown)) = self.shown.pop_first() {
            let appeared = shown.look(&self.wanted);
            self.report(channel, appeared);
        }
        self.found.sort_by_key(|found| found.time_ns);
        self.found.truncate(FOUND_MAX);
        self.found
    }

    fn report(&mut self, channel: u32, appeared: Vec<(u64, String)>) {
        let started_ns = self.started_ns;
        self.found.extend(appeared.into_iter().map(|(time_ns, line)| Found {
            channel,
            time_ns: started_ns.saturating_add(time_ns),
            line,
        }));
    }

    fn remember(&mut self, channel: u32, started: bool, size: TerminalSize) {
        let terminal = self.terminals.entry(channel).or_insert(Terminal { started, size });
        *terminal = Terminal { started: terminal.started || started, size };
        if self.terminals.len() > TERMINALS_MAX {
            // Channels are numbered as they come.
            self.terminals.pop_first();
        }
    }

    /// Sees to it that a channel has a screen, in the place of the one that has been silent longest if need be.
    fn make_screen(&mut self, channel: u32) {
        if self.shown.contains_key(&channel) {
            return;
        }
        let silent = self.shown.iter().min_by_key(|(_, shown)| shown.last_ns).map(|(silent, _)| *silent);
        if self.shown.len() >= SCREENS_MAX
            && let Some(silent) = silent
            && let Some(mut last) = self.shown.remove(&silent)
        {
            let appeared = last.look(&self.wanted);
            self.report(silent, appeared);
        }
        let mut screen = Screen::with_lines();
        if let Some(Terminal { started, size }) = self.terminals.get(&channel) {
            if *started {
                screen.start_terminal();
            }
            screen.resize(*size);
            // It is blank, however large.
            screen.take_changed();
        }
        self.shown
            .insert(channel, Shown { screen, standing: BTreeMap::new(), last_ns: 0, unseen_since: None });
    }
}

impl Shown {
    /// The lines with the text that are there by a frame, and since when. Between two frames nothing changes: so what must
    /// be looked at by a time is looked at when the next frame would change it.
    fn show(&mut self, frame: &Frame<'_>, wanted: &str) -> Vec<(u64, String)> {
        let mut appeared = Vec::new();
        let waited = self.unseen_since.map(|since| frame.time_ns.saturating_sub(since));
        if waited.is_some_and(|waited| waited >= LOOK_EVERY_NS) {
            appeared = self.look(wanted);
        }
        self.screen.show(frame);
        self.last_ns = frame.time_ns;
        // What went off the top stood there before, or came and went since the last look. Wrapped lines are one there and
        // several rows here.
        for line in self.screen.take_lines().into_iter().filter(|line| has(line, wanted)) {
            let row = self.standing.iter().find(|(_, row)| line.contains(row.as_str())).map(|(row, _)| *row);
            match row {
                Some(row) => drop(self.standing.remove(&row)),
                None => appeared.push((frame.time_ns, line)),
            }
        }
        match self.screen.changed_cells() {
            0 => {}
            1..=AT_ONCE_CELLS_MAX => appeared.extend(self.look(wanted)),
            _ => {
                self.unseen_since.get_or_insert(frame.time_ns);
            }
        }
        appeared
    }

    /// The rows with the text that weren't there at the last look.
    fn look(&mut self, wanted: &str) -> Vec<(u64, String)> {
        self.unseen_since = None;
        let changed = self.screen.take_changed();
        let (_, height) = self.screen.terminal().size();
        let mut before = Vec::new();
        self.standing.retain(|row, text| {
            let stands = *row < height && !changed.contains(row);
            if !stands {
                before.push(std::mem::take(text));
            }
            stands
        });
        let mut appeared = Vec::new();
        for row in changed {
            let Some(text) = self.screen.row(row).filter(|text| has(text, wanted)) else { continue };
            match before.iter().position(|old| *old == text) {
                Some(at) => drop(before.remove(at)),
                None => appeared.push((self.last_ns, text.clone())),
            }
            self.standing.insert(row, text);
        }
        appeared
    }
}

fn has(line: &str, wanted: &str) -> bool {
    line.to_lowercase().contains(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Level, Recorder};
    use std::path::{Path, PathBuf};

    const XTERM: &[u8] = b"xterm";
    const HUGE: TerminalSize = TerminalSize { cols: 1000, rows: 500, width_px: 0, height_px: 0 };

    /// A recording that began at `started_ns`, with what `record` puts into it.
    fn recording(dir: &Path, started_ns: u64, record: impl FnOnce(&mut Recorder)) -> PathBuf {
        let mut recorder = Recorder::create(dir, uuid::Uuid::nil(), started_ns, Level::Full).unwrap();
        record(&mut recorder);
        let path = recorder.path().to_owned();
        recorder.seal(started_ns).unwrap();
        path
    }

    fn terminal(size: TerminalSize) -> Kind<'static> {
        Kind::TerminalStarted { term: XTERM.into(), size }
    }

    fn says(text: &str) -> Kind<'_> {
        Kind::Data(text.as_bytes().into())
    }

    fn show(search: &mut Search, time_ns: u64, channel: u32, kind: Kind<'_>) {
        search.show(&Frame { time_ns, channel, direction: Direction::Output, kind });
    }

    fn lines(found: Vec<Found>) -> Vec<(u32, u64, String)> {
        found.into_iter().map(|found| (found.channel, found.time_ns, found.line)).collect()
    }

    fn found(has_terminal: bool, output: &[&str], text: &str) -> Vec<(u64, String)> {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::create(dir.path(), uuid::Uuid::nil(), 0, Level::Full).unwrap();
        if has_terminal {
            let size = TerminalSize { cols: 20, rows: 3, width_px: 0, height_px: 0 };
            recorder.record(0, 0, Direction::Control, terminal(size)).unwrap();
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

    #[test]
    fn what_was_found_has_the_time_of_day() {
        let dir = tempfile::tempdir().unwrap();
        let started = 1_764_028_800_000_000_000;
        let path = recording(dir.path(), started, |recorder| {
            recorder.record(started + 7, 3, Direction::Output, says("secret\n")).unwrap();
        });
        let found = find(&mut Reader::open(&path).unwrap(), "secret").unwrap();
        assert_eq!(lines(found), [(3, started + 7, "secret".to_owned())]);
    }

    /// Anybody can ask for thousands of the largest terminals there are: together they would take 16 GiB.
    #[test]
    fn terminals_that_show_nothing_take_no_screen() {
        let dir = tempfile::tempdir().unwrap();
        let path = recording(dir.path(), 0, |recorder| {
            for channel in 0..2_000 {
                recorder.record(1, channel, Direction::Control, terminal(HUGE)).unwrap();
            }
            recorder.record(2, 1_234, Direction::Output, says("no\r\nsecret\r\n")).unwrap();
        });
        let found = find(&mut Reader::open(&path).unwrap(), "secret").unwrap();
        assert_eq!(lines(found), [(1_234, 2, "secret".to_owned())]);

        let mut search = Search::new("secret", 0);
        for channel in 0..2_000 {
            show(&mut search, 1, channel, terminal(HUGE));
            show(&mut search, 1, channel, Kind::Resize(HUGE));
            show(&mut search, 1, channel, Kind::ShellStarted);
        }
        assert!(search.shown.is_empty());
        for channel in 0..TERMINALS_MAX as u32 {
            show(&mut search, 2, 2_000 + channel, terminal(HUGE));
        }
        assert_eq!(search.terminals.len(), TERMINALS_MAX);
    }

    #[test]
    fn of_many_channels_that_speak_the_silent_ones_make_room() {
        let mut search = Search::new("secret", 0);
        let narrow = TerminalSize { cols: 6, rows: 2, width_px: 0, height_px: 0 };
        show(&mut search, 0, 0, terminal(narrow));
        let mut time = 0;
        for round in 0..3 {
            for channel in 0..200 {
                time += 1;
                show(&mut search, time, channel, says(if round == 1 { "secret" } else { "nothing" }));
                assert!(search.shown.len() <= SCREENS_MAX);
            }
        }
        assert_eq!(search.shown.len(), SCREENS_MAX);
        assert!(search.shown.contains_key(&199) && !search.shown.contains_key(&0));
        // One that begins anew has the size that it had.
        show(&mut search, time + 1, 0, says("secrets"));
        let found = lines(search.end());
        assert_eq!(found.len(), 201);
        assert_eq!(found[0], (0, 201, "secret".to_owned()));
        assert_eq!(found[200], (0, 601, "secret".to_owned()));
    }

    const MS: u64 = 1_000_000;

    /// A screen that is drawn anew with each frame costs a look in a tenth of a second, and what a person could read is
    /// found all the same.
    #[test]
    fn a_huge_screen_is_looked_at_now_and_then() {
        let mut search = Search::new("secret", 0);
        show(&mut search, 0, 0, terminal(HUGE));
        show(&mut search, 0, 0, says("\x1b[?1049h"));
        let mut looks = std::collections::BTreeSet::new();
        for frame in 0..1_000 {
            // The last row scrolls the whole screen.
            show(&mut search, frame * MS, 0, says("\x1b[500;1H\r\nx"));
            looks.extend(search.shown[&0].unseen_since);
        }
        assert!(looks.len() <= 11, "{} looks", looks.len());

        // It stands for a tenth of a second, among frames that change everything else.
        let drawn = 2_000 * MS;
        show(&mut search, drawn, 0, says("\x1b[2J\x1b[7;7Hsecret plan\x1b[500;1H"));
        for frame in 1..20 {
            show(&mut search, drawn + 5 * frame * MS, 0, says("\x1b[9;1H\x1b[0J\x1b[499;1Hz"));
        }
        show(&mut search, drawn + 100 * MS, 0, says("\x1b[2J"));
        // And until the end.
        show(&mut search, drawn + 150 * MS, 0, says("\x1b[Ha secret"));
        let found = lines(search.end());
        let texts: Vec<_> = found.iter().map(|(_, _, line)| line.trim()).collect();
        assert_eq!(texts, ["secret plan", "a secret"]);
        assert!(found[0].1 >= drawn && found[0].1 < drawn + 100 * MS, "{}", found[0].1);
    }
}
