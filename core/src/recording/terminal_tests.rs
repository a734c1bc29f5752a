use std::borrow::Cow;

use proptest::prelude::*;

use super::watch::AROUND_CHARS_MAX;
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
    let mut screen = Screen::looking_for("");
    screen.show(&control(Kind::TerminalStarted { term: Cow::Borrowed(b"xterm"), size: size(10, 3) }));
    screen.show(&data(b"wrong\x08\x08\x08\x08\x08right\r\na line of twenty-two c\r\n"));
    screen.show(&data(b"3\r\n4\r\n5"));
    let mut lines: Vec<_> = screen.take_gone().into_iter().map(|sight| sight.line).collect();
    assert_eq!(lines, ["right", "a line of twenty-two c"]);
    lines.extend(screen.sights(0..3).into_iter().map(|(_, sight)| sight.line));
    assert_eq!(lines, ["right", "a line of twenty-two c", "3", "4", "5"]);
}

#[test]
fn output_without_line_ends_is_bounded() {
    let mut screen = Screen::looking_for("needle");
    let mut told = Vec::new();
    for round in 0..40 {
        let text = if round % 2 == 0 { "x".repeat(10_000) } else { "needle".repeat(1_000) };
        screen.show(&data(text.as_bytes()));
        told.extend(screen.take_gone());
    }
    assert_eq!(told.len(), 1, "it is one line");
    told.extend(screen.sights(0..24).into_iter().map(|(_, sight)| sight));
    assert!(told.len() > 10);
    assert!(told.iter().all(|sight| sight.line.len() <= 3 * AROUND_CHARS_MAX + 160));
}

/// However it is asked for and wherever it ends.
#[test]
fn what_is_repeated_is_what_a_terminal_repeats() {
    let table = [
        "\x1b[5b",
        "ab\x1b[3b",
        "a\x1b[b|",
        "a\x1b[200b|",
        "界\x1b[50b|",
        "\x1b[80Gx\x1b[2b|",
        "\x1b[?7lx\x1b[99b|",
    ];
    for text in table {
        let mut screen = Screen::new();
        screen.show(&data(text.as_bytes()));
        let mut terminal = Terminal::new(80, 24).unwrap();
        terminal.feed("\x1b[20h");
        terminal.feed(text);
        assert_eq!(screen.terminal().dump(), terminal.dump(), "{text:?}");
    }
}

/// 32 KiB that ask for 268 million characters.
#[test]
fn what_is_repeated_again_and_again_costs_little() {
    let mut screen = Screen::looking_for("x");
    screen.show(&data(format!("x{}", "\x1b[65535b".repeat(4096)).as_bytes()));
    assert!(screen.has_left_out());
    let kept: usize = screen.take_gone().iter().map(|sight| sight.row.len() + sight.line.len()).sum();
    assert!(kept < 1 << 20, "{kept} bytes");
}

/// A window that somebody draws larger and smaller without end, each time with a whole screen of letters.
#[test]
fn sizes_that_change_again_and_again_cost_little() {
    let mut screen = Screen::looking_for("needle");
    let (mut changes, mut last) = (0, (80, 24));
    for round in 0..200 {
        screen.show(&control(Kind::Resize(size(if round % 2 == 0 { 1000 } else { 999 }, 500))));
        screen.show(&data(b"\x1b#8"));
        changes += usize::from(screen.terminal().size() != last);
        last = screen.terminal().size();
    }
    assert!((2..50).contains(&changes), "{changes} changes");
    assert!(screen.has_left_out());
    // The last counts, for whoever looks.
    screen.settle();
    assert_eq!(screen.terminal().size(), (999, 500));

    // What takes its place goes on from there.
    while screen.effort.spend(100_000) {}
    let mut other = Screen::looking_for("needle");
    other.replace(&screen);
    other.show(&control(Kind::Resize(size(1000, 500))));
    assert_eq!(other.terminal().size(), (80, 24));
}

/// Windows of people's sizes are never too much, however often they change.
#[test]
fn what_people_do_is_never_left_out() {
    let mut screen = Screen::new();
    for round in 0..1000 {
        screen.show(&control(Kind::Resize(size(80 + round % 20, 24))));
        screen.show(&data(b"\x1b[H\x1b[2J\x1b[3J$ ls\r\n\x1b[20b\x1b[1;10r\x1b[5S\x1b[r"));
        assert_eq!(screen.terminal().size(), (80 + round as usize % 20, 24));
    }
    assert!(!screen.has_left_out());
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
        let mut screen = Screen::looking_for("a1");
        for (bytes, frame, cols, rows) in parts {
            screen.show(&data(&bytes));
            screen.show(&frame);
            screen.show(&control(Kind::Resize(size(cols, rows))));
            screen.take_gone();
            let changed = screen.take_changed();
            screen.sights(changed);
        }
        screen.settle();
        screen.text();
    }
}
