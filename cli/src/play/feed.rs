//! One channel's frames, each at its time on the player's clock.

use std::io::{Read, Seek};
use std::time::Duration;

use custody_core::recording::terminal::{Schedule, Screen};
use custody_core::recording::{Frame, ReadError, Reader};

/// Frames of other channels that are passed over before it is asked whether it is enough: a fraction of a millisecond's.
const FOREIGN_FRAMES: usize = 256;

/// Frames of one channel, from the start as often as wanted.
pub struct Feed<R> {
    reader: Reader<R>,
    channel: u32,
    idle_limit: Option<Duration>,
    schedule: Schedule,
    next: Option<(Duration, Frame<'static>)>,
    /// The reader is at its end.
    is_read: bool,
    /// Where the last frame that was shown stands.
    position: Duration,
    /// The recording can't be read from here on.
    error: Option<ReadError>,
    /// What is shown now.
    pub screen: Screen,
}

impl<R: Read + Seek> Feed<R> {
    /// At the start.
    pub fn new(mut reader: Reader<R>, channel: u32, idle_limit: Option<Duration>) -> Result<Self, ReadError> {
        reader.rewind()?;
        Ok(Self {
            reader,
            channel,
            idle_limit,
            schedule: Schedule::new(idle_limit),
            next: None,
            is_read: false,
            position: Duration::ZERO,
            error: None,
            screen: Screen::new(),
        })
    }

    /// Shows everything up to `position`, from the start again if that lies behind what is shown; or less, if it is
    /// `enough` between two frames, be they other channels'. Whether it got there.
    pub fn show_at(&mut self, position: Duration, enough: impl Fn() -> bool) -> Result<bool, ReadError> {
        if position < self.position {
            self.reader.rewind()?;
            self.schedule = Schedule::new(self.idle_limit);
            self.screen = Screen::new();
            self.position = Duration::ZERO;
            self.error = None;
            self.next = None;
            self.is_read = false;
        }
        self.fetch(&enough);
        while let Some((at, frame)) = self.next.take_if(|(at, _)| *at <= position) {
            self.screen.show(&frame);
            self.position = at;
            self.fetch(&enough);
            if enough() {
                break;
            }
        }
        Ok(self.next.as_ref().map_or(self.is_read, |(at, _)| *at > position))
    }

    /// Whether nothing is left to show.
    pub fn is_over(&self) -> bool {
        self.next.is_none() && self.is_read
    }

    /// Where the last frame that was shown stands.
    pub fn position(&self) -> Duration {
        self.position
    }

    /// The reader at its end, and why it is at its end if it is damaged.
    pub fn into_parts(self) -> (Reader<R>, Option<ReadError>) {
        (self.reader, self.error)
    }

    /// Reads on to the channel's next frame, unless it is there already; or less far, if it is `enough`.
    fn fetch(&mut self, enough: impl Fn() -> bool) {
        if self.next.is_some() || self.is_read {
            return;
        }
        for passed in 1_usize.. {
            match self.reader.next() {
                Some(Ok(frame)) if frame.channel == self.channel => {
                    self.next = Some((self.schedule.place(frame.time_ns), frame));
                    return;
                }
                Some(Ok(_)) if passed.is_multiple_of(FOREIGN_FRAMES) && enough() => return,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    self.error = Some(error);
                    break;
                }
                None => break,
            }
        }
        self.is_read = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::recording::{Direction, Kind, Level, Recorder, TerminalSize};

    #[test]
    fn forth_and_back_shows_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let second = 1_000_000_000;
        let mut recorder = Recorder::create(dir.path(), uuid::Uuid::nil(), 0, Level::Terminal).unwrap();
        let size = TerminalSize { cols: 10, rows: 3, width_px: 0, height_px: 0 };
        let terminal = Kind::TerminalStarted { term: b"xterm".as_slice().into(), size };
        recorder.record(second, 0, Direction::Control, terminal).unwrap();
        for (at, text) in [(2, "two"), (3, "\r\nthree"), (60, "\x1b[2J\x1b[Hlast")] {
            recorder.release(at * second, 0, Direction::Output, text).unwrap().into_inner();
            recorder.release(at * second, 1, Direction::Output, "other").unwrap().into_inner();
        }
        let path = recorder.path().to_owned();
        recorder.seal(70 * second).unwrap();
        let reader = Reader::open(&path).unwrap();
        let mut feed = Feed::new(reader, 0, Some(Duration::from_secs(4))).unwrap();
        // The channel starts at its first frame, and the silence of 57 s is cut to 4.
        let table =
            [(0, "||"), (1, "two||"), (2, "two|three|"), (5, "two|three|"), (6, "last||"), (1, "two||")];
        for (at, expected) in table {
            assert!(feed.show_at(Duration::from_secs(at), || false).unwrap());
            assert_eq!(feed.screen.text().join("|"), expected, "{at}");
            assert_eq!(feed.is_over(), at == 6, "{at}");
        }
        assert!(feed.show_at(Duration::MAX, || false).unwrap());
        assert!(feed.is_over() && feed.position() == Duration::from_secs(6));

        // Frame by frame, for whoever wants to look at the keyboard in between.
        let mut shown = Vec::new();
        while !feed.show_at(Duration::from_secs(5), || true).unwrap() {
            shown.push(feed.screen.text().join("|"));
        }
        assert_eq!(shown, ["||", "two||"]);
        assert_eq!((feed.screen.text().join("|"), feed.is_over()), ("two|three|".to_owned(), false));
    }

    /// A recording may have millions of them before the channel's next one.
    #[test]
    fn frames_of_other_channels_are_passed_over_a_few_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::create(dir.path(), uuid::Uuid::nil(), 0, Level::Full).unwrap();
        recorder.release(1, 0, Direction::Output, "one").unwrap().into_inner();
        for _ in 0..10_000 {
            recorder.record(2, 1, Direction::Output, Kind::Data(b"other".as_slice().into())).unwrap();
        }
        recorder.release(3, 0, Direction::Output, " two").unwrap().into_inner();
        let path = recorder.path().to_owned();
        recorder.seal(4).unwrap();
        let mut feed = Feed::new(Reader::open(&path).unwrap(), 0, None).unwrap();
        let shown = |feed: &Feed<_>| feed.screen.text().first().cloned().unwrap();
        for again in 0..2 {
            let mut looks = 0;
            while !feed.show_at(Duration::from_nanos(1), || true).unwrap() {
                assert!(!feed.is_over(), "{again}");
                assert_eq!(shown(&feed), "one", "{again}");
                looks += 1;
            }
            assert!((30..50).contains(&looks), "{looks} looks, {again}");
            assert!(feed.show_at(Duration::MAX, || true).unwrap() && feed.is_over(), "{again}");
            assert_eq!(shown(&feed), "one two", "{again}");
        }
    }
}
