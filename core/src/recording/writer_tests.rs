use std::sync::mpsc;

use super::super::reader::{Ending, Reader};
use super::*;
use crate::recording::TerminalSize;

const LIMIT: u64 = 10;

/// A medium in memory of which each call, counted from 0, can be made to fail: with nothing written, or with
/// everything written though it said no.
#[derive(Default)]
struct Memory {
    bytes: Mutex<Vec<u8>>,
    calls: Mutex<usize>,
    fails_at: Option<usize>,
    writes_though: bool,
}

impl Memory {
    fn call(&self) -> bool {
        let mut calls = self.calls.lock().unwrap();
        *calls += 1;
        Some(*calls - 1) == self.fails_at
    }
}

impl Medium for Memory {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let fails = self.call();
        if !fails || self.writes_though {
            self.bytes.lock().unwrap().extend_from_slice(bytes);
        }
        if fails { Err(io::Error::from_raw_os_error(28)) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        if self.call() { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }
}

fn recorder(medium: &Arc<Memory>, level: Level) -> Result<Recorder, RecorderError> {
    let header = Header { session: Uuid::from_u128(1), started_ns: 1000, level };
    let mut recorder = Recorder::on(Arc::clone(medium) as Arc<dyn Medium>, PathBuf::from("x"), header)?;
    recorder.set_plain_output_bytes_max(LIMIT);
    Ok(recorder)
}

fn frames(medium: &Memory) -> Vec<Frame<'static>> {
    let bytes = medium.bytes.lock().unwrap().clone();
    let mut reader = Reader::new(bytes.as_slice()).unwrap();
    let frames = reader.by_ref().collect::<Result<_, _>>().unwrap();
    assert!(reader.ending().is_some_and(|ending| !matches!(ending, Ending::Torn { .. })));
    frames
}

fn data(frames: &[Frame<'_>], channel: u32, direction: Direction) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in frames.iter().filter(|frame| (frame.channel, frame.direction) == (channel, direction)) {
        if let Kind::Data(bytes) = &frame.kind {
            out.extend_from_slice(bytes);
        }
    }
    out
}

fn cuts(frames: &[Frame<'_>]) -> Vec<(u32, Direction, u64, u64, Hash)> {
    let cut = |frame: &Frame<'_>| match frame.kind {
        Kind::Truncated { bytes, kept, sha256 } => {
            Some((frame.channel, frame.direction, bytes, kept, sha256))
        }
        _ => None,
    };
    frames.iter().filter_map(cut).collect()
}

const TERMINAL: TerminalSize = TerminalSize { cols: 80, rows: 24, width_px: 0, height_px: 0 };

fn terminal() -> Kind<'static> {
    Kind::TerminalStarted { term: Cow::Borrowed(b"xterm"), size: TERMINAL }
}

/// One session with every kind of channel.
fn session(recorder: &mut Recorder) -> Result<(), RecorderError> {
    let none = recorder.release_control(1001, 1, Direction::Input, terminal(), "pty-req")?;
    assert_eq!((none.channel(), none.direction()), (1, Direction::Input));
    recorder.release(1002, 1, Direction::Input, b"typed".to_vec())?.into_inner();
    let released = recorder.release(1003, 1, Direction::Output, b"shown on the terminal".to_vec())?;
    assert_eq!(released.into_inner(), b"shown on the terminal");
    for _ in 0..3 {
        recorder.release(1004, 2, Direction::Output, [b'p'; 7])?.into_inner();
    }
    recorder.release(1005, 2, Direction::ErrorOutput, b"short")?.into_inner();
    recorder.close_channel(1006, 2)?;
    Ok(())
}

/// Level; what is kept of a terminal, of plain output (bytes), of plain error output; what is told of the rest.
type Kept = (Level, &'static [u8], usize, &'static [u8], Vec<(u32, Direction, u64, u64, [u8; 32])>);

#[test]
fn levels() {
    let p21 = Sha256::digest([b'p'; 21]).into();
    let shown = b"shown on the terminal";
    // What is so short that it could be guessed.
    let unhashed = [0; 32];
    let table: [Kept; 4] = [
        (Level::None, b"", 0, b"", vec![]),
        (
            Level::Metadata,
            b"",
            0,
            b"",
            vec![
                (2, Direction::Output, 21, 0, unhashed),
                (2, Direction::ErrorOutput, 5, 0, unhashed),
                (1, Direction::Output, 21, 0, unhashed),
            ],
        ),
        (Level::Terminal, shown, 10, b"short", vec![(2, Direction::Output, 21, 10, p21)]),
        (Level::Full, shown, 21, b"short", vec![]),
    ];
    for (level, screen, plain, error, expected) in table {
        let medium = Arc::new(Memory::default());
        let mut recorder = recorder(&medium, level).unwrap();
        session(&mut recorder).unwrap();
        let sealed = recorder.seal(2000).unwrap();
        let frames = frames(&medium);
        assert_eq!(data(&frames, 1, Direction::Output), screen, "{level}");
        assert_eq!(data(&frames, 1, Direction::Input), b"", "{level}");
        assert_eq!(data(&frames, 2, Direction::Output), vec![b'p'; plain], "{level}");
        assert_eq!(data(&frames, 2, Direction::ErrorOutput), error, "{level}");
        assert_eq!(cuts(&frames), expected, "{level}");
        assert_eq!(sealed.frames, frames.len() as u64);
        assert_eq!(frames.last().unwrap().kind, Kind::End);
        let bytes = medium.bytes.lock().unwrap();
        assert_eq!(sealed.bytes, bytes.len() as u64);
        assert_eq!(sealed.sha256, <Hash>::from(Sha256::digest(&bytes[..])));
    }
}

/// Whoever may see a recording of which nothing was to be kept could try passwords against their hash.
#[test]
fn of_what_is_not_kept_and_could_be_guessed_there_is_no_hash() {
    for (bytes, hashed) in [(1, false), (1023, false), (1024, true)] {
        for level in [Level::Metadata, Level::Terminal] {
            let medium = Arc::new(Memory::default());
            let mut recorder = recorder(&medium, level).unwrap();
            if level == Level::Terminal {
                recorder.told_elsewhere(1).unwrap();
            }
            let said = vec![b's'; bytes];
            let sha256 = <Hash>::from(Sha256::digest(&said));
            recorder.release(1001, 1, Direction::Output, &said).unwrap().into_inner();
            let told = recorder.close_channel(1002, 1).unwrap();
            assert_eq!(told.iter().map(|cut| cut.sha256).collect::<Vec<_>>(), [sha256], "its event decides");
            recorder.seal(1003).unwrap();
            let kept = if hashed { sha256 } else { [0; 32] };
            assert_eq!(cuts(&frames(&medium)), [(1, Direction::Output, bytes as u64, 0, kept)], "{level}");
        }
    }
}

#[test]
fn nothing_is_held_back_and_nothing_grows_without_need() {
    let medium = Arc::new(Memory::default());
    let mut recorder = recorder(&medium, Level::Terminal).unwrap();
    assert_eq!(recorder.anchor().unwrap().unwrap().bytes, 40);
    assert_eq!(recorder.anchor().unwrap(), None);
    let released = recorder.release(1001, 0, Direction::Output, "now").unwrap();
    assert_eq!(data(&frames(&medium), 0, Direction::Output), b"now", "written before it was released");
    assert_eq!(released.into_inner(), "now");
    let length = medium.bytes.lock().unwrap().len() as u64;
    recorder.release_bare(0, Direction::Output, "window adjust").unwrap().into_inner();
    assert_eq!(medium.bytes.lock().unwrap().len() as u64, length);
    let pending = recorder.pending_anchor().unwrap().unwrap();
    recorder.release(1002, 0, Direction::Output, "later").unwrap().into_inner();
    assert_eq!(pending.sync().unwrap().bytes, length, "an anchor speaks of what was written before it");
}

#[test]
fn time_is_told_without_anything_to_record() {
    let medium = Arc::new(Memory::default());
    let mut recorder = recorder(&medium, Level::Terminal).unwrap();
    assert_eq!(recorder.last_ns(), 1000);
    recorder.reach(1500);
    recorder.reach(1400);
    assert_eq!(recorder.last_ns(), 1500);
    recorder.seal(1200).unwrap();
    assert_eq!(frames(&medium).iter().map(|frame| frame.time_ns).collect::<Vec<_>>(), [500]);
}

#[test]
fn big_messages_and_clocks_that_step_back() {
    let medium = Arc::new(Memory::default());
    let mut recorder = recorder(&medium, Level::Full).unwrap();
    let big: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    recorder.release(5000, 0, Direction::Output, &big).unwrap().into_inner();
    recorder.release(10, 0, Direction::Output, "x").unwrap().into_inner();
    recorder.seal(0).unwrap();
    let frames = frames(&medium);
    let all = data(&frames, 0, Direction::Output);
    assert!(all.len() == 3_000_001 && all.starts_with(&big));
    assert!(frames.iter().all(|frame| frame.time_ns == 4000));
    assert_eq!(frames.last().unwrap().channel, CHANNEL_SESSION);
}

/// Each call to the disk fails once, in both ways. Whatever came before is in the file, nothing is released
/// from then on, and it never recovers.
#[test]
fn a_failure_is_final() {
    let whole = Arc::new(Memory::default());
    let mut all = recorder(&whole, Level::Terminal).unwrap();
    session(&mut all).unwrap();
    all.seal(2000).unwrap();
    let calls = *whole.calls.lock().unwrap();
    assert!(calls >= 8, "{calls}");
    for (fails_at, writes_though) in (0..calls).flat_map(|at| [(at, false), (at, true)]) {
        let memory = Memory { fails_at: Some(fails_at), writes_though, ..Memory::default() };
        let medium = Arc::new(memory);
        let Ok(mut recorder) = recorder(&medium, Level::Terminal) else {
            assert_eq!(fails_at, 0);
            continue;
        };
        match session(&mut recorder) {
            Ok(()) => {
                let error = recorder.seal(2000).unwrap_err();
                assert!(matches!(error, RecorderError::Write { .. }), "{error}");
            }
            Err(error) => {
                assert!(matches!(error, RecorderError::Write { .. }), "{error}");
                let again = recorder.release(3000, 1, Direction::Output, "more").unwrap_err();
                assert!(matches!(again, RecorderError::Failed { .. }), "{again}");
                assert!(recorder.release_bare(1, Direction::Output, "bare").is_err());
                assert!(recorder.anchor().is_err());
                assert!(recorder.seal(3000).is_err());
            }
        }
        let bytes = medium.bytes.lock().unwrap();
        assert!(whole.bytes.lock().unwrap().starts_with(&bytes), "call {fails_at}");
    }
}

#[test]
fn a_failed_sync_elsewhere_stops_the_recorder() {
    let medium = Arc::new(Memory { fails_at: Some(2), ..Memory::default() });
    let mut recorder = recorder(&medium, Level::Terminal).unwrap();
    recorder.release(1001, 0, Direction::Output, "x").unwrap().into_inner();
    assert!(recorder.pending_anchor().unwrap().unwrap().sync().is_err());
    assert!(matches!(recorder.release(1002, 0, Direction::Output, "y"), Err(RecorderError::Failed { .. })));
}

/// A disk that has lost bytes: it says so to the first who asks, late, and to nobody else.
struct Lossy {
    appended: mpsc::Sender<()>,
    syncing: mpsc::Sender<()>,
    answers: Mutex<mpsc::Receiver<()>>,
    has_told: AtomicBool,
}

impl Medium for Lossy {
    fn append(&self, _: &[u8]) -> io::Result<()> {
        self.appended.send(()).unwrap();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if self.has_told.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.syncing.send(()).unwrap();
        self.answers.lock().unwrap().recv().unwrap();
        Err(io::Error::from_raw_os_error(5))
    }
}

#[test]
fn what_the_sync_of_an_anchor_finds_lost_gets_no_seal() {
    let (appended, appends) = mpsc::channel();
    let (syncing, syncs) = mpsc::channel();
    let (answer, answers) = mpsc::channel();
    let lossy = Lossy { appended, syncing, answers: Mutex::new(answers), has_told: AtomicBool::new(false) };
    let header = Header { session: Uuid::from_u128(1), started_ns: 1000, level: Level::Terminal };
    let mut recorder = Recorder::on(Arc::new(lossy), PathBuf::from("x"), header).unwrap();
    recorder.release(1001, 0, Direction::Output, "x").unwrap().into_inner();
    let pending = recorder.pending_anchor().unwrap().unwrap();
    // The header, and what was released.
    appends.recv().unwrap();
    appends.recv().unwrap();

    let anchoring = std::thread::spawn(move || pending.sync());
    syncs.recv().unwrap();
    let sealing = std::thread::spawn(move || recorder.seal(2000));
    // Its last block is written, and only its own sync is left, which would be told nothing.
    appends.recv().unwrap();
    answer.send(()).unwrap();
    assert!(matches!(anchoring.join().unwrap(), Err(RecorderError::Write { .. })));
    assert!(matches!(sealing.join().unwrap(), Err(RecorderError::Failed { .. })));
}

#[test]
fn a_full_disk_stops_the_recorder() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let header = Header { session: Uuid::from_u128(1), started_ns: 0, level: Level::Full };
    assert!(matches!(
        Recorder::on(Arc::new(full), PathBuf::from("/dev/full"), header),
        Err(RecorderError::Create { source, .. }) if source.raw_os_error() == Some(28)
    ));
}

#[test]
fn files_are_private_and_never_written_over() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let create = || Recorder::create(&dir.path().join("recordings"), Uuid::from_u128(5), 1000, Level::Full);
    let first = create().unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(first.path()), 0o600);
    assert_eq!(mode(first.path().parent().unwrap()), 0o700);
    assert!(matches!(create(), Err(RecorderError::Create { .. })));
}

#[test]
fn what_cannot_be_a_frame_is_refused_and_the_recorder_goes_on() {
    let medium = Arc::new(Memory::default());
    let mut recorder = recorder(&medium, Level::Terminal).unwrap();
    let command = Kind::CommandStarted(Cow::Owned(vec![b'a'; FRAME_BODY_BYTES_MAX + 1]));
    let refused = recorder.release_control(1001, 0, Direction::Input, command, "exec");
    assert!(matches!(refused, Err(RecorderError::Frame(FrameError::Long(_)))));
    recorder.release(1002, 0, Direction::Output, "on").unwrap().into_inner();
    assert_eq!(data(&frames(&medium), 0, Direction::Output), b"on");
}

#[test]
fn channels_are_bounded() {
    let medium = Arc::new(Memory::default());
    let mut recorder = recorder(&medium, Level::None).unwrap();
    for channel in 0..CHANNELS_OPEN_MAX as u32 {
        recorder.release(1001, channel, Direction::Output, "x").unwrap().into_inner();
    }
    let error = recorder.release(1001, u32::MAX - 1, Direction::Output, "x").unwrap_err();
    assert!(matches!(error, RecorderError::Channels { .. }));
}

/// A key pair of RFC 7748's.
const AUDITOR: &[u8] = b"-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VuAyEAhSDwCYkwp1R0iSxtyBjPHwJhU7x/1vzwU+t/D2VcPGo=\n-----END PUBLIC KEY-----\n";

#[test]
fn input_is_kept_sealed_at_full_and_nowhere_else() {
    for level in [Level::None, Level::Metadata, Level::Terminal, Level::Full] {
        let medium = Arc::new(Memory::default());
        let mut recorder = recorder(&medium, level).unwrap();
        recorder.seal_input_to(1001, &[Auditor::from_pem(AUDITOR).unwrap()]).unwrap();
        let secret = b"what nobody saw being typed".repeat(30_000);
        let released = recorder.release(1002, 3, Direction::Input, &secret).unwrap();
        assert_eq!(released.into_inner(), &secret);
        recorder.seal(1003).unwrap();
        let kept = frames(&medium);
        let sealed = |frame: &&Frame<'_>| matches!(frame.kind, Kind::SealedData(_) | Kind::KeySealed(_));
        let count = kept.iter().filter(sealed).count();
        assert_eq!(count, if level == Level::Full { 3 } else { 0 }, "a key, and two pieces");
        assert!(data(&kept, 3, Direction::Input).is_empty());
        let bytes = medium.bytes.lock().unwrap();
        assert!(!bytes.windows(10).any(|window| secret.starts_with(window)));
    }
}

#[test]
fn without_an_auditor_the_recording_says_that_no_input_is_kept() {
    let medium = Arc::new(Memory::default());
    let mut recorder = recorder(&medium, Level::Full).unwrap();
    recorder.seal_input_to(1001, &[]).unwrap();
    let _passed = recorder.release(1002, 3, Direction::Input, b"typed").unwrap();
    recorder.seal(1003).unwrap();
    let kept = frames(&medium);
    let Kind::Note(remark) = &kept[0].kind else { panic!("{kept:?}") };
    assert_eq!(remark.as_ref(), b"input isn't kept: no auditor's key is configured");
    assert!(data(&kept, 3, Direction::Input).is_empty());
}
