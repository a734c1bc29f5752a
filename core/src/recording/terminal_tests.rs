use std::borrow::Cow;

use proptest::prelude::*;

use super::*;
use crate::recording::frame::tests::frame;

fn data(bytes: &[u8]) -> Frame<'_> {
    Frame { time_ns: 0, channel: 0, direction: Direction::Output, kind: Kind::Data(Cow::Borrowed(bytes)) }
}

fn control(kind: Kind<'static>) -> Frame<'static> {
    Frame { time_ns: 0, channel: 0, direction: Direction::Control, kind }
}

fn size(cols: u32, rows: u32) -> TerminalSize {
    TerminalSize { cols, rows, width_px: 0, height_px: 0 }
}

#[test]
fn the_screen_at_a_time() {
    let mut screen = Screen::new();
    screen.show(&control(Kind::TerminalStarted { term: Cow::Borrowed(b"xterm"), size: size(10, 3) }));
    assert!(screen.has_terminal());
    screen.show(&data(b"abc\r\ndef\x1b[1;1Hgr\xc3"));
    assert_eq!(screen.text(), ["grc", "def", ""]);
    screen.show(&data(b"\xbc"));
    assert_eq!(screen.text(), ["grü", "def", ""]);
    screen.show(&control(Kind::Resize(size(20, 4))));
    assert_eq!(screen.terminal().size(), (20, 4));
}

#[test]
fn plain_output_has_lines() {
    let mut screen = Screen::new();
    screen.show(&data(b"one\ntwo\n"));
    assert_eq!(screen.text()[..2], ["one", "two"]);
}

/// A password that was typed over with backspaces, a progress bar: search reads what stood there, once.
#[test]
fn text_that_scrolls_away_is_kept() {
    let mut screen = Screen::with_lines();
    screen.show(&control(Kind::TerminalStarted { term: Cow::Borrowed(b"xterm"), size: size(10, 3) }));
    screen.show(&data(b"wrong\x08\x08\x08\x08\x08right\r\na line of twenty-two c\r\n"));
    screen.show(&data(b"3\r\n4\r\n5"));
    let mut lines = screen.take_lines();
    assert_eq!(lines, ["right", "a line of twenty-two c"]);
    lines.extend(screen.finish());
    assert_eq!(lines, ["right", "a line of twenty-two c", "3", "4", "5"]);
}

#[test]
fn output_without_line_ends_is_bounded() {
    let mut screen = Screen::with_lines();
    for _ in 0..40 {
        screen.show(&data(&[b'x'; 10_000]));
    }
    let mut lines = screen.take_lines();
    assert!(lines.len() >= 4);
    lines.extend(screen.finish());
    assert!(lines.iter().all(|line| line.len() <= LINE_BYTES_MAX + 80));
    assert_eq!(lines.iter().map(String::len).sum::<usize>(), 400_000);
}

#[test]
fn any_claimed_size_is_bounded() {
    let mut screen = Screen::new();
    for (cols, rows) in [(u32::MAX, u32::MAX), (0, 0), (1, 1), (u32::MAX, 1)] {
        screen.show(&control(Kind::Resize(size(cols, rows))));
        screen.show(&data("界x\n".repeat(50).as_bytes()));
    }
    assert_eq!(screen.terminal().size(), (COLS_MAX as usize, 1));
}

#[test]
fn silences_are_cut() {
    let at = |ms: u64| ms * 1_000_000;
    let shown = |limit: Option<u64>| {
        let mut schedule = Schedule::new(limit.map(Duration::from_millis));
        [500, 600, 5600, 5500, 5700].map(|ms| schedule.place(at(ms)).as_millis())
    };
    assert_eq!(shown(None), [0, 100, 5100, 5100, 5200]);
    assert_eq!(shown(Some(1000)), [0, 100, 1100, 1100, 1200]);
    assert_eq!(shown(Some(0)), [0; 5]);
}

/// Escape sequences as hostile as chance makes them.
fn odd() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        any::<Vec<u8>>(),
        ("\\x1b[\\[\\]PX^_()#]", "[?>!]?[0-9;:]{0,12}[ -/]?[@-~]").prop_map(|(a, b)| (a + &b).into_bytes()),
        Just(b"\x1b[99999999b\x1b[99999999L\x1b[99999999;99999999H\x1b[9999999S".to_vec()),
        Just("界\u{301}\u{200d}👩‍👩‍👧".as_bytes().to_vec()),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    // A case is some thousand cells, slow in a debug build.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_ends_the_screen(parts in prop::collection::vec((odd(), frame(), 0u32..90, 0u32..40), 0..8)) {
        let mut screen = Screen::with_lines();
        for (bytes, frame, cols, rows) in parts {
            screen.show(&data(&bytes));
            screen.show(&frame);
            screen.show(&control(Kind::Resize(size(cols, rows))));
            screen.take_lines();
        }
        screen.text();
        screen.finish();
    }
}
