//! One frame: a moment of one channel, and its bytes on disk.
//!
//! ```text
//! varint time       nanoseconds since the session's start, never decreasing within a recording
//! varint channel    unique within the session
//! u8     direction  0 output, 1 error output, 2 input, 3 control
//! u8     kind       see `Kind`
//! varint length     of the body that follows
//! bytes  body       depends on the kind
//! ```
//! Varints are LEB128 in their shortest form. Integers inside a body are little-endian and fixed.

use std::borrow::Cow;

use thiserror::Error;

/// Longest body of a frame, bytes: above the largest SSH packet that OpenSSH takes (256 KiB), so that one
/// message is one frame; what is longer is split by the recorder.
pub const FRAME_BODY_BYTES_MAX: usize = 512 * 1024;

/// Longest head of a frame, bytes: two varints of 10 and 5, direction and kind, and a length of 3.
pub const FRAME_HEAD_BYTES_MAX: usize = 10 + 5 + 1 + 1 + 3;

/// Which way bytes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Direction {
    /// Target to person: standard output, or the terminal's.
    Output = 0,
    /// Target to person: standard error.
    ErrorOutput = 1,
    /// Person to target.
    Input = 2,
    /// Not bytes of the channel, but what happened to it.
    Control = 3,
}

impl Direction {
    fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Output),
            1 => Some(Self::ErrorOutput),
            2 => Some(Self::Input),
            3 => Some(Self::Control),
            _ => None,
        }
    }
}

/// The size of a terminal, as in RFC 4254 section 6.2: characters, and pixels (0 where unknown).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TerminalSize {
    /// Columns of characters.
    pub cols: u32,
    /// Rows of characters.
    pub rows: u32,
    /// Width in pixels.
    pub width_px: u32,
    /// Height in pixels.
    pub height_px: u32,
}

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<'a> {
    /// 1: bytes of the channel, as they were delivered.
    Data(Cow<'a, [u8]>),
    /// 2: the channel got a terminal (RFC 4254 section 6.2).
    TerminalStarted {
        /// The value of `TERM`, as sent.
        term: Cow<'a, [u8]>,
        /// Its size at first.
        size: TerminalSize,
    },
    /// 3: the terminal changed its size (section 6.7).
    Resize(TerminalSize),
    /// 4: a login shell was asked for.
    ShellStarted,
    /// 5: this command line was asked for.
    CommandStarted(Cow<'a, [u8]>),
    /// 6: this subsystem was asked for.
    SubsystemStarted(Cow<'a, [u8]>),
    /// 7: the program ended with this status (section 6.10).
    Exit(u32),
    /// 8: the program was ended by a signal, named without `SIG`.
    ExitSignal(Cow<'a, [u8]>),
    /// 9: of this direction of the channel not everything was kept.
    Truncated {
        /// How many bytes passed in all.
        bytes: u64,
        /// How many of them, from the first, are in this recording.
        kept: u64,
        /// SHA-256 of all that passed; zeros where nothing was kept of what is short enough to be guessed.
        sha256: [u8; 32],
    },
    /// 10: a remark of the recorder, UTF-8 (other bytes are replaced when it is read).
    Note(Cow<'a, [u8]>),
    /// 11: the recording was closed as it should; nothing follows.
    End,
    /// 12: the key of the sealed data, sealed to one auditor (see [`super::sealed`]).
    KeySealed(Cow<'a, [u8]>),
    /// 13: bytes of the channel, sealed.
    SealedData(Cow<'a, [u8]>),
    /// A kind that this version doesn't know: carried, never an error.
    Unknown {
        /// Its number.
        kind: u8,
        /// Its body.
        body: Cow<'a, [u8]>,
    },
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Nanoseconds since the session's start.
    pub time_ns: u64,
    /// Channel number, unique within the session. 0xffff_ffff stands for the session itself.
    pub channel: u32,
    /// Which way.
    pub direction: Direction,
    /// What.
    pub kind: Kind<'a>,
}

/// The channel number of frames that speak of the whole session (`End`, some notes).
pub const CHANNEL_SESSION: u32 = u32::MAX;

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The block ends within a frame.
    #[error("the block ends within a frame")]
    Short,
    /// A varint that overflows its type or isn't in its shortest form.
    #[error("a number is out of range or not in its shortest form")]
    Number,
    /// A direction that isn't defined.
    #[error("direction {0} is not defined")]
    Direction(u8),
    /// A body longer than [`FRAME_BODY_BYTES_MAX`].
    #[error("a frame of {0} bytes is longer than {FRAME_BODY_BYTES_MAX}")]
    Long(u64),
    /// A body that doesn't fit its kind.
    #[error("the body of a frame doesn't fit its kind {0}")]
    Body(u8),
    /// A frame behind the one that ends the recording.
    #[error("a frame stands behind the end")]
    BehindEnd,
}

impl Kind<'_> {
    /// The kind's number on disk.
    pub fn number(&self) -> u8 {
        match self {
            Kind::Data(_) => 1,
            Kind::TerminalStarted { .. } => 2,
            Kind::Resize(_) => 3,
            Kind::ShellStarted => 4,
            Kind::CommandStarted(_) => 5,
            Kind::SubsystemStarted(_) => 6,
            Kind::Exit(_) => 7,
            Kind::ExitSignal(_) => 8,
            Kind::Truncated { .. } => 9,
            Kind::Note(_) => 10,
            Kind::End => 11,
            Kind::KeySealed(_) => 12,
            Kind::SealedData(_) => 13,
            Kind::Unknown { kind, .. } => *kind,
        }
    }

    /// The same, owning its bytes.
    pub fn into_owned(self) -> Kind<'static> {
        let own = |bytes: Cow<'_, [u8]>| Cow::Owned(bytes.into_owned());
        match self {
            Kind::Data(bytes) => Kind::Data(own(bytes)),
            Kind::TerminalStarted { term, size } => Kind::TerminalStarted { term: own(term), size },
            Kind::Resize(size) => Kind::Resize(size),
            Kind::ShellStarted => Kind::ShellStarted,
            Kind::CommandStarted(bytes) => Kind::CommandStarted(own(bytes)),
            Kind::SubsystemStarted(bytes) => Kind::SubsystemStarted(own(bytes)),
            Kind::Exit(status) => Kind::Exit(status),
            Kind::ExitSignal(bytes) => Kind::ExitSignal(own(bytes)),
            Kind::Truncated { bytes, kept, sha256 } => Kind::Truncated { bytes, kept, sha256 },
            Kind::Note(bytes) => Kind::Note(own(bytes)),
            Kind::End => Kind::End,
            Kind::KeySealed(bytes) => Kind::KeySealed(own(bytes)),
            Kind::SealedData(bytes) => Kind::SealedData(own(bytes)),
            Kind::Unknown { kind, body } => Kind::Unknown { kind, body: own(body) },
        }
    }

    fn body_bytes(&self) -> usize {
        match self {
            Kind::Data(bytes)
            | Kind::CommandStarted(bytes)
            | Kind::SubsystemStarted(bytes)
            | Kind::ExitSignal(bytes)
            | Kind::Note(bytes)
            | Kind::KeySealed(bytes)
            | Kind::SealedData(bytes)
            | Kind::Unknown { body: bytes, .. } => bytes.len(),
            Kind::TerminalStarted { term, .. } => 16 + term.len(),
            Kind::Resize(_) => 16,
            Kind::ShellStarted | Kind::End => 0,
            Kind::Exit(_) => 4,
            Kind::Truncated { .. } => 48,
        }
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        match self {
            Kind::Data(bytes)
            | Kind::CommandStarted(bytes)
            | Kind::SubsystemStarted(bytes)
            | Kind::ExitSignal(bytes)
            | Kind::Note(bytes)
            | Kind::KeySealed(bytes)
            | Kind::SealedData(bytes)
            | Kind::Unknown { body: bytes, .. } => out.extend_from_slice(bytes),
            Kind::TerminalStarted { term, size } => {
                write_size(size, out);
                out.extend_from_slice(term);
            }
            Kind::Resize(size) => write_size(size, out),
            Kind::ShellStarted | Kind::End => {}
            Kind::Exit(status) => out.extend_from_slice(&status.to_le_bytes()),
            Kind::Truncated { bytes, kept, sha256 } => {
                out.extend_from_slice(&bytes.to_le_bytes());
                out.extend_from_slice(&kept.to_le_bytes());
                out.extend_from_slice(sha256);
            }
        }
    }

    fn read(kind: u8, body: &[u8]) -> Result<Kind<'_>, FrameError> {
        let bad = FrameError::Body(kind);
        let mut rest = body;
        let kind = match kind {
            1 => return Ok(Kind::Data(Cow::Borrowed(body))),
            2 => {
                let size = read_size(&mut rest).ok_or(bad)?;
                return Ok(Kind::TerminalStarted { term: Cow::Borrowed(rest), size });
            }
            3 => Kind::Resize(read_size(&mut rest).ok_or(bad)?),
            4 => Kind::ShellStarted,
            5 => return Ok(Kind::CommandStarted(Cow::Borrowed(body))),
            6 => return Ok(Kind::SubsystemStarted(Cow::Borrowed(body))),
            7 => Kind::Exit(u32::from_le_bytes(take(&mut rest).ok_or(bad)?)),
            8 => return Ok(Kind::ExitSignal(Cow::Borrowed(body))),
            9 => Kind::Truncated {
                bytes: u64::from_le_bytes(take(&mut rest).ok_or(bad)?),
                kept: u64::from_le_bytes(take(&mut rest).ok_or(bad)?),
                sha256: take(&mut rest).ok_or(bad)?,
            },
            10 => return Ok(Kind::Note(Cow::Borrowed(body))),
            11 => Kind::End,
            12 => return Ok(Kind::KeySealed(Cow::Borrowed(body))),
            13 => return Ok(Kind::SealedData(Cow::Borrowed(body))),
            kind => return Ok(Kind::Unknown { kind, body: Cow::Borrowed(body) }),
        };
        if rest.is_empty() { Ok(kind) } else { Err(bad) }
    }
}

impl Frame<'_> {
    /// Appends the frame's bytes to `out`. A body longer than [`FRAME_BODY_BYTES_MAX`] is refused and
    /// nothing is appended.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let length = self.kind.body_bytes();
        if length > FRAME_BODY_BYTES_MAX {
            return Err(FrameError::Long(length as u64));
        }
        write_varint(self.time_ns, out);
        write_varint(u64::from(self.channel), out);
        out.push(self.direction as u8);
        out.push(self.kind.number());
        write_varint(length as u64, out);
        self.kind.write_body(out);
        Ok(())
    }

    /// The same, owning its bytes.
    pub fn into_owned(self) -> Frame<'static> {
        Frame {
            time_ns: self.time_ns,
            channel: self.channel,
            direction: self.direction,
            kind: self.kind.into_owned(),
        }
    }
}

impl<'a> Frame<'a> {
    /// Reads one frame from the front of `input` and moves `input` behind it.
    pub fn read(input: &mut &'a [u8]) -> Result<Frame<'a>, FrameError> {
        let mut rest = *input;
        let time_ns = read_varint(&mut rest)?;
        let channel = u32::try_from(read_varint(&mut rest)?).map_err(|_| FrameError::Number)?;
        let [direction, kind] = take(&mut rest).ok_or(FrameError::Short)?;
        let direction = Direction::from_u8(direction).ok_or(FrameError::Direction(direction))?;
        let length = read_varint(&mut rest)?;
        let body_bytes = usize::try_from(length).map_err(|_| FrameError::Long(length))?;
        if body_bytes > FRAME_BODY_BYTES_MAX {
            return Err(FrameError::Long(length));
        }
        let (body, rest) = rest.split_at_checked(body_bytes).ok_or(FrameError::Short)?;
        let kind = Kind::read(kind, body)?;
        *input = rest;
        Ok(Frame { time_ns, channel, direction, kind })
    }
}

fn write_size(size: &TerminalSize, out: &mut Vec<u8>) {
    for value in [size.cols, size.rows, size.width_px, size.height_px] {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn read_size(input: &mut &[u8]) -> Option<TerminalSize> {
    let mut next = || take(input).map(u32::from_le_bytes);
    Some(TerminalSize { cols: next()?, rows: next()?, width_px: next()?, height_px: next()? })
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*head)
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(input: &mut &[u8]) -> Result<u64, FrameError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take(input).ok_or(FrameError::Short)?;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit; a zero in the last place would be a longer spelling.
        if (shift == 63 && bits > 1) || (byte == 0 && shift > 0) {
            return Err(FrameError::Number);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(FrameError::Number)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Cow<'static, [u8]>> {
        prop::collection::vec(any::<u8>(), 0..200).prop_map(Cow::Owned)
    }

    pub fn size() -> impl Strategy<Value = TerminalSize> {
        (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>())
            .prop_map(|(cols, rows, width_px, height_px)| TerminalSize { cols, rows, width_px, height_px })
    }

    pub fn kind() -> impl Strategy<Value = Kind<'static>> {
        prop_oneof![
            4 => bytes().prop_map(Kind::Data),
            1 => (bytes(), size()).prop_map(|(term, size)| Kind::TerminalStarted { term, size }),
            1 => size().prop_map(Kind::Resize),
            1 => Just(Kind::ShellStarted),
            1 => bytes().prop_map(Kind::CommandStarted),
            1 => bytes().prop_map(Kind::SubsystemStarted),
            1 => any::<u32>().prop_map(Kind::Exit),
            1 => bytes().prop_map(Kind::ExitSignal),
            1 => (any::<u64>(), any::<u64>(), any::<[u8; 32]>())
                .prop_map(|(bytes, kept, sha256)| Kind::Truncated { bytes, kept, sha256 }),
            1 => bytes().prop_map(Kind::Note),
            1 => Just(Kind::End),
            1 => bytes().prop_map(Kind::KeySealed),
            1 => bytes().prop_map(Kind::SealedData),
            1 => (14u8.., bytes()).prop_map(|(kind, body)| Kind::Unknown { kind, body }),
        ]
    }

    pub fn frame() -> impl Strategy<Value = Frame<'static>> {
        let direction = prop::sample::select(vec![
            Direction::Output,
            Direction::ErrorOutput,
            Direction::Input,
            Direction::Control,
        ]);
        (any::<u64>(), any::<u32>(), direction, kind())
            .prop_map(|(time_ns, channel, direction, kind)| Frame { time_ns, channel, direction, kind })
    }

    proptest! {
        #[test]
        fn frames_come_back_as_they_were(frames in prop::collection::vec(frame(), 0..8)) {
            let mut out = Vec::new();
            for frame in &frames {
                let before = out.len();
                frame.write(&mut out).unwrap();
                prop_assert!(out.len() - before - frame.kind.body_bytes() <= FRAME_HEAD_BYTES_MAX);
            }
            let mut input = out.as_slice();
            for frame in &frames {
                prop_assert_eq!(&Frame::read(&mut input).unwrap(), frame);
            }
            prop_assert!(input.is_empty());
        }

        /// There is one spelling for each frame: whatever is taken is written again with the same bytes.
        #[test]
        fn what_is_read_is_written_the_same(input in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut rest = input.as_slice();
            if let Ok(frame) = Frame::read(&mut rest) {
                let mut out = Vec::new();
                frame.write(&mut out).unwrap();
                prop_assert_eq!(&out[..], &input[..input.len() - rest.len()]);
            }
        }

        #[test]
        fn a_cut_frame_is_short(frame in frame(), cut in any::<prop::sample::Index>()) {
            let mut out = Vec::new();
            frame.write(&mut out).unwrap();
            let mut input = &out[..cut.index(out.len())];
            prop_assert_eq!(Frame::read(&mut input), Err(FrameError::Short));
        }
    }

    #[test]
    fn vector() {
        let frame = Frame {
            time_ns: 300,
            channel: 1,
            direction: Direction::Output,
            kind: Kind::Data(Cow::Borrowed(b"hi")),
        };
        let mut out = Vec::new();
        frame.write(&mut out).unwrap();
        assert_eq!(out, [0xac, 0x02, 0x01, 0x00, 0x01, 0x02, b'h', b'i']);
    }

    #[test]
    fn refused() {
        let read = |mut bytes: &[u8]| Frame::read(&mut bytes).unwrap_err();
        assert_eq!(read(&[0x80, 0x00, 1, 0, 1, 0]), FrameError::Number);
        assert_eq!(read(&[0xff; 11]), FrameError::Number);
        assert_eq!(read(&[0, 0xff, 0xff, 0xff, 0xff, 0x10, 0, 1, 0]), FrameError::Number);
        assert_eq!(read(&[0, 0, 4, 1, 0]), FrameError::Direction(4));
        assert_eq!(read(&[0, 0, 0, 1, 0x81, 0x80, 0x20]), FrameError::Long(524_289));
        assert_eq!(read(&[0, 0, 3, 7, 3, 0, 0, 0]), FrameError::Body(7));
        assert_eq!(read(&[0, 0, 3, 11, 1, 0]), FrameError::Body(11));
        let long = Kind::Data(Cow::Owned(vec![0; FRAME_BODY_BYTES_MAX + 1]));
        let frame = Frame { time_ns: 0, channel: 0, direction: Direction::Output, kind: long };
        let mut out = Vec::new();
        assert!(frame.write(&mut out).is_err() && out.is_empty());
    }
}
