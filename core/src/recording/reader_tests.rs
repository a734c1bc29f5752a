use std::borrow::Cow;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::recording::Recorder;
use crate::recording::frame::tests::frame;
use crate::recording::level::Level;

/// A small recording of a few blocks, as a recorder writes it.
fn small(closed: bool) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(dir.path(), Uuid::from_u128(3), 0, Level::Full).unwrap();
    for (time, text) in ["one\r\n", "two\r\n", &"three ".repeat(40)].iter().enumerate() {
        recorder.release(time as u64, 0, Direction::Output, text).unwrap().into_inner();
    }
    let path = recorder.path().to_owned();
    if closed {
        recorder.seal(9).unwrap();
    }
    std::fs::read(path).unwrap()
}

fn read(bytes: &[u8]) -> Result<(Vec<Frame<'static>>, Option<Ending>), ReadError> {
    let mut reader = Reader::new(bytes)?;
    let frames = reader.by_ref().collect::<Result<_, _>>()?;
    Ok((frames, reader.ending()))
}

#[test]
fn every_cut_plays_up_to_the_last_whole_block() {
    let bytes = small(true);
    let (all, ending) = read(&bytes).unwrap();
    assert_eq!((all.len(), ending), (4, Some(Ending::Closed)));
    let mut seen = Vec::new();
    for cut in 0..bytes.len() {
        if cut < HEADER_BYTES {
            assert!(
                matches!(read(&bytes[..cut]), Err(ReadError::HeaderShort { bytes }) if bytes == cut as u64)
            );
            continue;
        }
        let (frames, ending) = read(&bytes[..cut]).unwrap();
        assert!(all.starts_with(&frames));
        match ending {
            Some(Ending::Torn { at, bytes }) => assert_eq!(at + bytes, cut as u64),
            Some(Ending::Open) => seen.push(frames.len()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, [0, 1, 2, 3], "between blocks it is open, everywhere else torn");
}

#[test]
fn every_flip_shows_or_tears() {
    let bytes = small(true);
    let (all, _) = read(&bytes).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        // A length that grew looks like a cut; everything else is an error. It is never whole.
        if let Ok((frames, ending)) = read(&bad) {
            assert!(matches!(ending, Some(Ending::Torn { .. })) && frames.len() < all.len(), "bit {bit}");
        }
    }
}

#[test]
fn after_an_error_it_is_over() {
    let mut bytes = small(true);
    let last = bytes.len() - 60;
    bytes[last] ^= 1;
    let mut reader = Reader::new(bytes.as_slice()).unwrap();
    let results: Vec<_> = reader.by_ref().map(|frame| frame.is_ok()).collect();
    assert_eq!(results.iter().filter(|ok| !**ok).count(), 1);
    assert_eq!(results.last(), Some(&false));
    assert!(reader.next().is_none() && reader.ending().is_none());
}

#[test]
fn nothing_stands_behind_the_end() {
    let bytes = small(true);
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(read(&longer), Err(ReadError::BehindEnd { at }) if at == bytes.len() as u64));
    assert_eq!(read(&small(false)).unwrap().1, Some(Ending::Open));
}

static SMALL: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| small(true));

proptest! {
    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), flips in 0usize..3) {
        let mut whole = SMALL.clone();
        for (at, byte) in bytes.iter().enumerate().take(flips) {
            let place = HEADER_BYTES + (at * 37 + usize::from(*byte)) % (whole.len() - HEADER_BYTES);
            whole[place] = *byte;
        }
        whole.extend_from_slice(&bytes);
        if let Ok(reader) = Reader::new(whole.as_slice()) {
            prop_assert!(reader.count() < 10_000);
        }
        prop_assert!(Reader::new(bytes.as_slice()).is_err());
    }

    /// What the block layer is given comes out of the reader, frame by frame.
    #[test]
    fn frames_come_back(blocks in prop::collection::vec(prop::collection::vec(frame(), 1..5), 0..5)) {
        use crate::recording::block::BlockWriter;
        let header = Header { session: Uuid::nil(), started_ns: 5, level: Level::Metadata }.encode();
        let mut file = header.to_vec();
        let mut writer = BlockWriter::new(&header);
        let mut all = Vec::new();
        for mut block in blocks {
            block.retain(|frame| frame.kind != Kind::End);
            for frame in &block {
                frame.write(writer.frames()).unwrap();
            }
            if writer.raw_bytes() > 0 {
                writer.finish(|bytes| { file.extend_from_slice(bytes); Ok::<(), ()>(()) }).unwrap();
            }
            all.extend(block);
        }
        let (frames, ending) = read(&file).unwrap();
        prop_assert_eq!(frames, all);
        prop_assert_eq!(ending, Some(Ending::Open));
    }
}

#[test]
fn an_empty_body_is_a_frame() {
    let frame =
        Frame { time_ns: 0, channel: 0, direction: Direction::Output, kind: Kind::Data(Cow::Borrowed(b"")) };
    let mut raw = Vec::new();
    frame.write(&mut raw).unwrap();
    assert_eq!(survey(&raw), Ok((1, false)));
}

/// A stranger's reader, written after docs/design/recording.md, takes what ours writes: LZ4 blocks, long
/// literals and matches, several channels.
#[test]
fn a_strangers_reader_reads_it() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/verify/read_recording.py");
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(dir.path(), Uuid::from_u128(3), 7, Level::Full).unwrap();
    let mut said = Vec::new();
    for round in 0..20u32 {
        let mut chunk: Vec<u8> = (0..round * 97).map(|n| (n.wrapping_mul(n + round) >> 3) as u8).collect();
        chunk.extend_from_slice("again and again ".repeat(round as usize * 40).as_bytes());
        recorder.release(u64::from(round) * 1000 + 7, 4, Direction::Output, &chunk).unwrap().into_inner();
        recorder.release(u64::from(round) * 1000 + 8, 5, Direction::Output, "other").unwrap().into_inner();
        said.extend(chunk);
    }
    let path = recorder.path().to_owned();
    let sealed = recorder.seal(90_000).unwrap();
    assert!(sealed.bytes < said.len() as u64, "some of it was compressed");
    let output = std::process::Command::new("python3").arg(script).arg(&path).arg("4").output().unwrap();
    let remarks = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && output.stdout == said, "{remarks}");
    let head: String = sealed.head.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(remarks.contains(&format!("bytes {} head {head}", sealed.bytes)), "{remarks}");
}
