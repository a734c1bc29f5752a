use std::borrow::Cow;
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::recording::frame::tests::frame;
use crate::recording::{Level, Recorder};

fn data(time_ms: u64, direction: Direction, bytes: &[u8]) -> Frame<'static> {
    let kind = Kind::Data(Cow::Owned(bytes.to_vec()));
    Frame { time_ns: time_ms * 1_000_000, channel: 0, direction, kind }
}

fn control(time_ms: u64, kind: Kind<'static>) -> Frame<'static> {
    Frame { time_ns: time_ms * 1_000_000, channel: 0, direction: Direction::Control, kind }
}

fn cast(frames: Vec<Frame<'static>>, version: Version) -> Vec<Value> {
    let options = Options { channel: 0, started_ns: 1_700_000_000_500_000_000, title: None, version };
    let mut out = Vec::new();
    let events = export_frames(frames.into_iter().map(Ok), &options, &mut out).unwrap();
    let lines: Vec<Value> =
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events as usize, lines.len() - 1);
    lines
}

fn terminal_session() -> Vec<Frame<'static>> {
    let size = |cols, rows| TerminalSize { cols, rows, width_px: 0, height_px: 0 };
    vec![
        control(1000, Kind::TerminalStarted { term: Cow::Borrowed(b"xterm"), size: size(100, 30) }),
        control(1001, Kind::ShellStarted),
        data(1500, Direction::Input, b"secret"),
        data(2500, Direction::Output, b"gr\xc3"),
        data(2600, Direction::Output, b"\xbc\xc3\x9fe\n\xff"),
        control(3000, Kind::Resize(size(120, 40))),
        data(3500, Direction::Output, b"\x1b[31m\"\\\xf0\x9f"),
        control(4000, Kind::Exit(7)),
    ]
}

#[test]
fn version_2() {
    let expected = [
        json!({"version": 2, "width": 100, "height": 30, "timestamp": 1_700_000_001, "env": {"TERM": "xterm"}}),
        json!([1.5, "o", "gr"]),
        json!([1.6, "o", "üße\n\u{fffd}"]),
        json!([2.0, "r", "120x40"]),
        json!([2.5, "o", "\u{1b}[31m\"\\"]),
        json!([2.5, "o", "\u{fffd}"]),
    ];
    assert_eq!(cast(terminal_session(), Version::V2), expected);
}

#[test]
fn version_3() {
    let lines = cast(terminal_session(), Version::V3);
    assert_eq!(
        lines[0],
        json!({"version": 3, "term": {"cols": 100, "rows": 30, "type": "xterm"}, "timestamp": 1_700_000_001})
    );
    let total: f64 = lines[1..].iter().map(|event| event[0].as_f64().unwrap()).sum();
    assert!((total - 3.0).abs() < 1e-9);
    assert!(lines.contains(&json!([0.5, "x", "7"])));
}

#[test]
fn a_plain_command_gets_line_ends_and_says_what_is_missing() {
    let truncated = Kind::Truncated { bytes: 100, kept: 8, sha256: [0; 32] };
    let frames = vec![
        control(10, Kind::CommandStarted(Cow::Borrowed(b"make"))),
        data(20, Direction::Output, b"a\nb\r"),
        data(30, Direction::Output, b"\nc"),
        data(40, Direction::ErrorOutput, b"e\n"),
        Frame { direction: Direction::Output, ..control(50, truncated) },
    ];
    let text: Vec<_> = cast(frames, Version::V2)[1..].iter().map(|event| event[2].clone()).collect();
    assert_eq!(text, ["a\r\nb\r", "\nc", "e\r\n", "92 bytes more were not recorded"]);
}

#[test]
fn a_missing_channel_is_an_error() {
    let options = Options { channel: 9, started_ns: 0, title: None, version: Version::V2 };
    let result = export_frames(terminal_session().into_iter().map(Ok), &options, &mut Vec::new());
    assert!(matches!(result, Err(ExportError::Channel(9))));
}

/// Anybody may claim to have any terminal, and no player could make one of 4,294,967,295 columns.
#[test]
fn a_claimed_size_is_cut_to_what_can_be_played() {
    let size = |cols, rows| TerminalSize { cols, rows, width_px: 0, height_px: 0 };
    let frames = || {
        vec![
            control(0, Kind::TerminalStarted { term: Cow::Borrowed(b"xterm"), size: size(u32::MAX, 0) }),
            control(1, Kind::Resize(size(80, u32::MAX))),
            control(2, Kind::Resize(size(0, 24))),
        ]
    };
    let v2 = cast(frames(), Version::V2);
    assert_eq!((&v2[0]["width"], &v2[0]["height"]), (&json!(1000), &json!(1)));
    assert_eq!((&v2[1][2], &v2[2][2]), (&json!("80x500"), &json!("1x24")));
    assert_eq!(cast(frames(), Version::V3)[0]["term"]["cols"], 1000);
}

#[test]
fn what_is_written_does_nothing_to_a_terminal() {
    let shown = "\u{9b}31m\u{7f}\u{9d}52;c;eA==\u{9c}\u{1b}]0;t\u{7}\u{a0}ü";
    let size = TerminalSize { cols: 80, rows: 24, width_px: 0, height_px: 0 };
    let frames = vec![
        control(0, Kind::TerminalStarted { term: Cow::Borrowed("x\u{9b}2J".as_bytes()), size }),
        data(1, Direction::Output, shown.as_bytes()),
    ];
    let options =
        Options { channel: 0, started_ns: 0, title: Some("\u{90}".to_owned()), version: Version::V2 };
    let mut out = Vec::new();
    export_frames(frames.into_iter().map(Ok), &options, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.chars().all(|char| char == '\n' || !char.is_control()), "{text:?}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["env"]["TERM"], &lines[0]["title"]), (&json!("x\u{9b}2J"), &json!("\u{90}")));
    assert_eq!(lines[1][2], shown);
}

proptest! {
    /// Whatever was recorded, each line is JSON and times never step back.
    #[test]
    fn always_json(mut frames in prop::collection::vec(frame(), 1..12), three in any::<bool>()) {
        frames.sort_by_key(|frame| frame.time_ns);
        frames.iter_mut().for_each(|frame| frame.channel = 0);
        frames.push(data(u64::MAX / 1_000_000, Direction::Output, b"end"));
        let lines = cast(frames, if three { Version::V3 } else { Version::V2 });
        let times: Vec<f64> = lines[1..].iter().map(|line| line[0].as_f64().unwrap()).collect();
        prop_assert!(three || times.is_sorted());
    }
}

/// A shell on a real terminal, recorded chunk by chunk as a proxy would, comes out as a cast that says what
/// the shell said.
#[test]
fn a_real_shell() {
    let script =
        "printf 'gr\\303\\274\\303\\237e\\n'; tput -T xterm bold 2>/dev/null; seq 1 200; stty size; exit 3";
    let output = Command::new("script")
        .args(["-qefc", &format!("bash -c \"{script}\""), "/dev/null"])
        .env("LC_ALL", "C.UTF-8")
        .output();
    let Ok(output) = output else {
        eprintln!("script(1) is not installed: the real shell is left out");
        return;
    };
    let shown = output.stdout;
    assert!(!shown.is_empty());
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(dir.path(), uuid::Uuid::nil(), 0, Level::Terminal).unwrap();
    let size = TerminalSize { cols: 80, rows: 24, width_px: 0, height_px: 0 };
    let terminal = Kind::TerminalStarted { term: Cow::Borrowed(b"xterm"), size };
    recorder.record(1, 0, Direction::Control, terminal).unwrap();
    for (time, chunk) in shown.chunks(3).enumerate() {
        recorder.release(time as u64 * 1_000_000, 0, Direction::Output, chunk).unwrap().into_inner();
    }
    let path = recorder.path().to_owned();
    recorder.seal(10_000_000_000).unwrap();
    let mut out = Vec::new();
    export(&mut Reader::open(&path).unwrap(), None, &mut out).unwrap();
    let text: String = String::from_utf8(out)
        .unwrap()
        .lines()
        .skip(1)
        .map(|line| serde_json::from_str::<Value>(line).unwrap()[2].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(text.as_bytes(), shown);
    assert!(text.contains("grüße\r\n") && text.contains("\r\n200\r\n"), "{text:?}");
}
