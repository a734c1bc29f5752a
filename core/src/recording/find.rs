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
    /// The line, as it stood on the screen; however many rows it was wrapped over. Of a long one, what stood around the text.
    pub line: String,
}

/// What a recording was searched for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The lines in the order in which they appeared, at most [`FOUND_MAX`].
    pub lines: Vec<Found>,
    /// The recording asks for more than a screen is made to do: something that was shown may not be among them.
    pub left_out: bool,
}

/// All lines that have shown `text`, capitals or not: what scrolled away and what was drawn over as well. A line that is
/// drawn again after it was gone is there again.
///
/// A recording is whatever its session was, and may be made to cost much. So a screen of more than 16,384 cells that is
/// drawn anew is looked at ten times a second of the recording: what stood there for less than a tenth of a second may be
/// passed over, unless it scrolled away; as may, on any screen, what was wiped or drawn over by the same frame. And of more
/// than 64 channels that speak by turns, the one that has been silent longest begins anew with an empty screen when it
/// speaks again. What a [`Screen`] leaves out is told.
///
/// # Errors
/// When the recording can't be read to its end; what was found before is lost.
pub fn find<R: Read>(reader: &mut Reader<R>, text: &str) -> Result<Findings, ReadError> {
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
    wanted: String,
    /// The session's start: frames count from there.
    started_ns: u64,
    terminals: BTreeMap<u32, Terminal>,
    shown: BTreeMap<u32, Shown>,
    found: Vec<Found>,
    left_out: bool,
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
    /// The rows in which the text ended at the last look, by their numbers, and what they are known by.
    standing: BTreeMap<usize, String>,
    /// When the last frame came.
    last_ns: u64,
    /// When the first change came that wasn't looked at yet.
    unseen_since: Option<u64>,
}

impl Search {
    fn new(text: &str, started_ns: u64) -> Self {
        Self {
            wanted: text.to_owned(),
            started_ns,
            terminals: BTreeMap::new(),
            shown: BTreeMap::new(),
            found: Vec::new(),
            left_out: false,
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
            let appeared = shown.show(frame);
            self.report(frame.channel, appeared);
        }
    }

    /// All that was found, once nothing more is shown.
    fn end(mut self) -> Findings {
        while let Some((channel, shown)) = self.shown.pop_first() {
            self.leave(channel, shown);
        }
        self.found.sort_by_key(|found| found.time_ns);
        self.found.truncate(FOUND_MAX);
        Findings { lines: self.found, left_out: self.left_out }
    }

    /// Looks at a channel's screen for the last time.
    fn leave(&mut self, channel: u32, mut shown: Shown) {
        let appeared = shown.look();
        self.report(channel, appeared);
        self.left_out |= shown.screen.has_left_out();
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
        let mut screen = Screen::looking_for(&self.wanted);
        let silent = self.shown.iter().min_by_key(|(_, shown)| shown.last_ns).map(|(silent, _)| *silent);
        if self.shown.len() >= SCREENS_MAX
            && let Some(silent) = silent
            && let Some(last) = self.shown.remove(&silent)
        {
            screen.replace(&last.screen);
            self.leave(silent, last);
        }
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
    fn show(&mut self, frame: &Frame<'_>) -> Vec<(u64, String)> {
        let mut appeared = Vec::new();
        let waited = self.unseen_since.map(|since| frame.time_ns.saturating_sub(since));
        if waited.is_some_and(|waited| waited >= LOOK_EVERY_NS) {
            appeared = self.look();
        }
        self.screen.show(frame);
        self.last_ns = frame.time_ns;
        // What scrolled away stood there before, or came and went since the last look. A row that hasn't changed since then
        // is still there.
        let changed = self.screen.changed();
        let (_, height) = self.screen.terminal().size();
        for sight in self.screen.take_gone() {
            let mut standing = self.standing.iter();
            let stood = standing
                .find(|(row, text)| **text == sight.row && (changed.contains(*row) || **row >= height));
            match stood.map(|(row, _)| *row) {
                Some(row) => drop(self.standing.remove(&row)),
                None => appeared.push((frame.time_ns, sight.line)),
            }
        }
        match self.screen.changed_cells() {
            0 => {}
            1..=AT_ONCE_CELLS_MAX => appeared.extend(self.look()),
            _ => {
                self.unseen_since.get_or_insert(frame.time_ns);
            }
        }
        appeared
    }

    /// The lines with the text that weren't there at the last look.
    fn look(&mut self) -> Vec<(u64, String)> {
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
        for (row, sight) in self.screen.sights(changed) {
            match before.iter().position(|old| *old == sight.row) {
                Some(at) => drop(before.remove(at)),
                None if sight.again => {}
                None => appeared.push((self.last_ns, sight.line)),
            }
            self.standing.insert(row, sight.row);
        }
        appeared
    }
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
        found_on(has_terminal.then_some((20, 3)), output, text)
    }

    fn found_on(has_size: Option<(u32, u32)>, output: &[&str], text: &str) -> Vec<(u64, String)> {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::create(dir.path(), uuid::Uuid::nil(), 0, Level::Full).unwrap();
        if let Some((cols, rows)) = has_size {
            let size = TerminalSize { cols, rows, width_px: 0, height_px: 0 };
            recorder.record(0, 0, Direction::Control, terminal(size)).unwrap();
        }
        for (at, text) in (1..).zip(output) {
            recorder.release(at, 0, Direction::Output, *text).unwrap().into_inner();
        }
        let path = recorder.path().to_owned();
        recorder.seal(99).unwrap();
        let found = find(&mut Reader::open(&path).unwrap(), text).unwrap();
        assert!(!found.left_out);
        found.lines.into_iter().map(|found| (found.time_ns, found.line)).collect()
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
    fn a_text_that_is_wrapped_over_rows_is_found_while_it_stands() {
        let line = "aaaaaaaaaaaaaaaaasecret";
        assert_eq!(found(true, &[line], "secret"), [(1, line.to_owned())]);
        assert_eq!(found(true, &["aaaaaaaaaaaaaaaaas", "ecret"], "secret"), [(2, line.to_owned())]);
        assert_eq!(found_on(Some((1, 3)), &["sec", "ret"], "secret"), [(2, "secret".to_owned())]);
        assert_eq!(found_on(Some((1, 3)), &["secret\r\n\r\n\r\n\r\n"], "secret"), [(1, "secret".to_owned())]);
        assert_eq!(found_on(Some((1, 9)), &["xxsecretxx"], "secret"), [(1, "xxsecretxx".to_owned())]);
        assert!(found(true, &["aaaaaaaaaaaaaaaaasec\r\nret"], "secret").is_empty());
    }

    /// One that doesn't fit into a row's last column leaves that blank, and a row holds half as many of them.
    #[test]
    fn a_text_of_wide_characters_is_found_however_it_is_wrapped() {
        for size in [(2, 9), (3, 9), (4, 3), (5, 4), (9, 1), (20, 3)] {
            for (output, text) in
                [("a中文", "中文"), ("中文字中文", "中文字中文"), ("a中文字b中", "中文字b中")]
            {
                let once = [(1, output.to_owned())];
                assert_eq!(found_on(Some(size), &[output], text), once, "{output}, {size:?}");
            }
        }
        assert_eq!(found_on(Some((3, 9)), &["中文", "字中文"], "中文字中文"), [(2, "中文字中文".to_owned())]);
        // A blank that somebody wrote there can be looked for.
        assert_eq!(found_on(Some((4, 3)), &["abc 中"], "c 中"), [(1, "abc中".to_owned())]);
        assert_eq!(found_on(Some((3, 9)), &["ab 中文 c"], "b 中文 c"), [(1, "ab中文 c".to_owned())]);
    }

    /// A wide character scrolls from the last column already.
    #[test]
    fn what_a_wide_character_scrolls_away_is_found() {
        let by = format!("\x1b[?1049hsecret\r\nb\r\n{}中", "x".repeat(19));
        assert_eq!(found(true, &[&by], "secret"), [(1, "secret".to_owned())]);
        // Unless nothing is to be wrapped.
        let stays = ["\x1b[?1049hsecret\r\nb\r\n\x1b[?7l", "\x1b[3;20H中", "\x1b[1;1H\x1b[Ksecret"];
        assert_eq!(found(true, &stays, "secret"), [(1, "secret".to_owned())]);
    }

    /// Where there is one row, a line's end scrolls its begin away.
    #[test]
    fn a_text_that_is_wrapped_in_one_row_is_found() {
        let once = [(2, "secret".to_owned())];
        assert_eq!(found_on(Some((3, 1)), &["\x1b[?1049hsec", "ret"], "secret"), once);
        assert_eq!(found_on(Some((3, 1)), &["sec", "ret"], "secret"), once);
        assert_eq!(found_on(Some((4, 1)), &["\x1b[?1049h中文", "字"], "中文字"), [(2, "中文字".to_owned())]);
    }

    /// However long it goes on, and wherever on the screen it is meanwhile.
    #[test]
    fn a_line_without_an_end_is_found_once() {
        let more = "a".repeat(37);
        let more = more.as_str();
        let output = ["secret", more, more, more, "\r\nb\r\nc\r\nd\r\ne\r\n"];
        let lines = found(true, &output, "secret");
        assert_eq!(lines.iter().map(|(time, _)| *time).collect::<Vec<_>>(), [1, 2]);
        let at_once = format!("secret{more}{more}secret{more}\r\nb\r\nc\r\nd\r\ne\r\n");
        assert_eq!(found(true, &[&at_once], "secret").len(), 1);
    }

    /// The terminal forgets what scrolls off its other screen, and off the top of rows that scroll alone.
    #[test]
    fn what_scrolled_by_at_once_on_the_other_screen_or_within_margins_is_found() {
        let by = "x\r\n".repeat(50);
        let once = [(1, "secret".to_owned())];
        for size in [(20, 3), (1, 3), (5, 4), (80, 24)] {
            for (way, output) in [
                ("the other screen", format!("\x1b[?1049hsecret\r\n{by}\x1b[?1049l")),
                ("margins", format!("\x1b[2;3r\x1b[2;1Hsecret\r\n{by}")),
                (
                    "margins of the other screen",
                    format!("\x1b[?1049h\x1b[2;3r\x1b[2;1Hsecret\r\n{by}\x1b[?1049l"),
                ),
                ("deleted lines", format!("\x1b[?1049hsecret\x1b[1;1H\x1b[9M{by}")),
                ("scrolled up", format!("\x1b[?1049hsecret\x1b[99S{by}")),
                ("scrolled down", format!("\x1b[?1049hsecret\x1b[99T{by}")),
            ] {
                assert_eq!(found_on(Some(size), &[&output], "secret"), once, "{way}, {size:?}");
            }
        }
    }

    /// What stood there when it was looked at last isn't found again when it scrolls away.
    #[test]
    fn what_scrolls_away_after_it_was_seen_is_found_once() {
        let output = ["\x1b[?1049hsecret\r\nb\r\nc", "\r\nd", "\r\ne\r\nf\r\ng\r\nh", "\x1b[?1049l"];
        assert_eq!(found(true, &output, "secret"), [(1, "secret".to_owned())]);
        let output = ["\x1b[2;3r\x1b[2;1Hsec", "ret", "\r\nb\r\nc\r\nd\r\n", "top secret\r\n", "\r\n\r\n"];
        let wanted = [(2, "secret".to_owned()), (4, "top secret".to_owned())];
        assert_eq!(found(true, &output, "secret"), wanted);
        // Nor does what still stands pass for it.
        for line in ["top secret", "secret plan", "secret"] {
            let by = format!("{line}\r\nb\r\nc\r\nd\r\n");
            let output = ["secret\x1b[2;3r\x1b[2;1H", by.as_str(), "\x1b[1;7H, told\x1b[3;1H"];
            let wanted = [(1, "secret".to_owned()), (2, line.to_owned()), (3, "secret, told".to_owned())];
            assert_eq!(found(true, &output, "secret"), wanted);
        }
        // Nor does what was wiped.
        let output = ["\x1b[?1049hsecret", "\x1b[2J\x1b[Hsecret plan\r\nb\r\nc\r\nd\r\n"];
        let wanted = [(1, "secret".to_owned()), (2, "secret plan".to_owned())];
        assert_eq!(found(true, &output, "secret"), wanted);
    }

    #[test]
    fn that_something_was_left_out_is_told() {
        let mut search = Search::new("secret", 0);
        show(&mut search, 0, 0, terminal(HUGE));
        show(&mut search, 1, 0, says(&format!("\x1b[?1049h{}secret", "\x1b[2J".repeat(40))));
        let found = search.end();
        assert!(found.left_out);
        assert_eq!(lines(found.lines), [(0, 1, "secret".to_owned())]);
    }

    #[test]
    fn what_was_found_has_the_time_of_day() {
        let dir = tempfile::tempdir().unwrap();
        let started = 1_764_028_800_000_000_000;
        let path = recording(dir.path(), started, |recorder| {
            recorder.record(started + 7, 3, Direction::Output, says("secret\n")).unwrap();
        });
        let found = find(&mut Reader::open(&path).unwrap(), "secret").unwrap();
        assert_eq!(lines(found.lines), [(3, started + 7, "secret".to_owned())]);
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
        assert_eq!(lines(found.lines), [(1_234, 2, "secret".to_owned())]);

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
        assert_eq!(search.shown[&0].screen.terminal().size(), (6, 2));
        let found = lines(search.end().lines);
        assert_eq!(found.len(), 201);
        assert_eq!(found[0], (0, 201, "secret".to_owned()));
        assert_eq!(found[200], (0, 601, "secrets".to_owned()));
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
        let found = lines(search.end().lines);
        let texts: Vec<_> = found.iter().map(|(_, _, line)| line.trim()).collect();
        assert_eq!(texts, ["secret plan", "a secret"]);
        assert!(found[0].1 >= drawn && found[0].1 < drawn + 100 * MS, "{}", found[0].1);
    }
}
