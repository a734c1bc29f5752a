//! Holds a recording against what the log says of it.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::block::{HEADER_BYTES, Hash};
use super::reader::{Boundary, Ending, ReadError, Reader};
use super::writer::{Anchor, Sealed};

/// What is wrong with a recording, or worth knowing. Only [`Finding::Unfinished`], [`Finding::TornTail`]
/// and [`Finding::Unanchored`] are what an honest crash leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// There is no such file.
    Missing,
    /// Neither anchor nor seal was given: nothing is proved.
    NothingToCheckAgainst,
    /// From this byte on the file isn't what was written.
    Damaged {
        /// Where what is wrong starts.
        at: u64,
        /// What is wrong.
        what: String,
    },
    /// The file is sound in itself, but up to an anchor it isn't what was anchored: it was made anew.
    Replaced {
        /// The last anchor, bytes, up to which it is what was written; 0 when there is none.
        after: u64,
        /// The anchor that doesn't fit, bytes.
        anchor: u64,
    },
    /// The file is shorter than an anchor or the seal says.
    Shortened {
        /// The last whole block ends here.
        at: u64,
        /// This long it was.
        anchored: u64,
    },
    /// The file is longer than the seal says.
    Lengthened {
        /// The seal's length.
        sealed: u64,
        /// The file's.
        bytes: u64,
    },
    /// The anchors themselves contradict each other or the seal: the log's fault, not the file's.
    AnchorsDisagree {
        /// The anchor, bytes.
        anchor: u64,
    },
    /// The recording has no end: the session goes on, or its proxy was killed.
    Unfinished,
    /// The file ends within a block that nobody anchored: a write that was cut off.
    TornTail {
        /// Where the rest starts.
        at: u64,
        /// How long it is.
        bytes: u64,
    },
    /// The file goes on behind the last anchor; this much nobody vouches for.
    Unanchored {
        /// Bytes in whole blocks behind the last anchor.
        bytes: u64,
    },
}

/// What `recording.anchored` says: up to `bytes` the file's blocks hash to `head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Hash of the last block.
    pub head: Hash,
}

impl From<Anchor> for Point {
    fn from(anchor: Anchor) -> Self {
        Self { bytes: anchor.bytes, head: anchor.head }
    }
}

/// The outcome of [`check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What was found; empty when the file is, byte by byte, what was sealed.
    pub findings: Vec<Finding>,
    /// Up to this byte the file is what the log says.
    pub proven_bytes: u64,
    /// Frames up to there.
    pub proven_frames: u64,
    /// Up to this byte it can be played.
    pub playable_bytes: u64,
    /// Frames up to there.
    pub playable_frames: u64,
}

impl Verdict {
    /// Whether the whole file is what the log sealed.
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty()
    }

    /// Whether something shows that an honest crash doesn't explain.
    pub fn is_tampered(&self) -> bool {
        use Finding::{TornTail, Unanchored, Unfinished};
        self.findings
            .iter()
            .any(|finding| !matches!(finding, Unfinished | TornTail { .. } | Unanchored { .. }))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the recording is missing"),
            Self::NothingToCheckAgainst => {
                f.write_str("the log holds no anchor of this recording, so nothing is proved")
            }
            Self::Damaged { at, what } => write!(f, "damaged at byte {at}: {what}"),
            Self::Replaced { after, anchor } => write!(
                f,
                "not what was recorded: it differs somewhere between byte {after} and the anchor at byte {anchor}"
            ),
            Self::Shortened { at, anchored } => {
                write!(f, "cut short: it ends at byte {at}, the log has seen {anchored} bytes")
            }
            Self::Lengthened { sealed, bytes } => {
                write!(f, "something was added: it was sealed with {sealed} bytes and has {bytes}")
            }
            Self::AnchorsDisagree { anchor } => {
                write!(f, "the log's own anchors contradict each other at {anchor} bytes")
            }
            Self::Unfinished => f.write_str("it has no end: the session goes on, or its proxy was killed"),
            Self::TornTail { at, bytes } => {
                write!(f, "its last write was cut off: {bytes} bytes of a block at byte {at}")
            }
            Self::Unanchored { bytes } => {
                write!(f, "its last {bytes} bytes came after the last anchor, nobody vouches for them")
            }
        }
    }
}

/// Checks the file at `path` against the anchors that the log holds of it (in any order) and its seal, where
/// there is one. `Err` only when the file is there and can't be read at all.
pub fn check(path: &Path, anchors: &[Point], sealed: Option<&Sealed>) -> Result<Verdict, ReadError> {
    match std::fs::File::open(path) {
        Ok(file) => check_stream(io::BufReader::with_capacity(64 * 1024, file), anchors, sealed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Verdict {
            findings: vec![Finding::Missing],
            proven_bytes: 0,
            proven_frames: 0,
            playable_bytes: 0,
            playable_frames: 0,
        }),
        Err(source) => Err(ReadError::Open { path: path.to_owned(), source }),
    }
}

/// The same for bytes from anywhere.
pub fn check_stream(
    input: impl Read,
    anchors: &[Point],
    sealed: Option<&Sealed>,
) -> Result<Verdict, ReadError> {
    let mut findings = Vec::new();
    let points = points(anchors, sealed, &mut findings);
    if points.is_empty() {
        findings.push(Finding::NothingToCheckAgainst);
    }
    let mut walk = Walk { points: points.as_slice(), proven: None, replaced: None };
    let mut hashed = Hashed { input, sha256: Sha256::new(), bytes: 0 };
    let mut last = Boundary { bytes: 0, head: [0; 32], frames: 0 };
    let mut ending = None;
    match Reader::new(&mut hashed) {
        Ok(mut reader) => {
            last = reader.boundary();
            walk.pass(&last);
            loop {
                match reader.next_block() {
                    Some(Ok(boundary)) => {
                        last = boundary;
                        walk.pass(&last);
                    }
                    Some(Err(error)) => {
                        findings.push(damage(error)?);
                        break;
                    }
                    None => {
                        ending = reader.ending();
                        break;
                    }
                }
            }
        }
        Err(ReadError::HeaderShort { bytes }) if points.is_empty() => {
            findings.push(Finding::TornTail { at: 0, bytes });
        }
        Err(ReadError::HeaderShort { .. }) => {}
        Err(error) => findings.push(damage(error)?),
    }
    let damaged = findings.iter().any(|finding| matches!(finding, Finding::Damaged { .. }));
    let furthest = points.last().map_or(0, |point| point.bytes);
    if let Some(anchor) = walk.replaced {
        findings.push(Finding::Replaced { after: walk.proven.map_or(0, |point| point.bytes), anchor });
    } else if !damaged && last.bytes < furthest {
        findings.push(Finding::Shortened { at: last.bytes, anchored: furthest });
    }
    let (proven_bytes, proven_frames) = walk.proven.map_or((0, 0), |point| (point.bytes, point.frames));
    match ending {
        Some(Ending::Torn { at, bytes }) if last.bytes >= furthest => {
            findings.push(Finding::TornTail { at, bytes });
        }
        Some(Ending::Open) if sealed.is_none() => findings.push(Finding::Unfinished),
        _ => {}
    }
    if let Some(seal) = sealed {
        let found = hashed.finish().map_err(|source| ReadError::Io { at: last.bytes, source })?;
        if found.bytes > seal.bytes {
            findings.push(Finding::Lengthened { sealed: seal.bytes, bytes: found.bytes });
        } else if findings.is_empty() && (found.sha256, last.frames) != (seal.sha256, seal.frames) {
            findings.push(Finding::AnchorsDisagree { anchor: seal.bytes });
        }
    } else if !points.is_empty() && last.bytes > furthest && walk.replaced.is_none() {
        findings.push(Finding::Unanchored { bytes: last.bytes - furthest });
    }
    Ok(Verdict {
        findings,
        proven_bytes,
        proven_frames,
        playable_bytes: last.bytes,
        playable_frames: last.frames,
    })
}

/// All points at which the log knows the file, by their place, each once.
fn points(anchors: &[Point], sealed: Option<&Sealed>, findings: &mut Vec<Finding>) -> Vec<Point> {
    let seal = sealed.map(|seal| Point { bytes: seal.bytes, head: seal.head });
    let mut points: Vec<Point> = anchors.iter().copied().chain(seal).collect();
    points.sort_by_key(|point| point.bytes);
    points.dedup();
    for (earlier, later) in points.iter().zip(points.iter().skip(1)) {
        if earlier.bytes == later.bytes {
            findings.push(Finding::AnchorsDisagree { anchor: later.bytes });
        }
    }
    if let (Some(seal), Some(last)) = (sealed, points.last())
        && last.bytes > seal.bytes
    {
        findings.push(Finding::AnchorsDisagree { anchor: last.bytes });
    }
    points
}

/// The points that are still ahead while the file is read.
struct Walk<'a> {
    points: &'a [Point],
    proven: Option<Boundary>,
    replaced: Option<u64>,
}

impl Walk<'_> {
    fn pass(&mut self, boundary: &Boundary) {
        while let [point, rest @ ..] = self.points {
            if point.bytes > boundary.bytes {
                return;
            }
            self.points = rest;
            let fits = (point.bytes, point.head) == (boundary.bytes, boundary.head);
            if self.replaced.is_some() {
                continue;
            }
            if fits {
                self.proven = Some(*boundary);
            } else {
                self.replaced = Some(point.bytes);
            }
        }
    }
}

fn damage(error: ReadError) -> Result<Finding, ReadError> {
    let what = error.to_string();
    match error {
        ReadError::Block { at, source, .. } => Ok(Finding::Damaged { at, what: source.to_string() }),
        ReadError::Frame { at, source, .. } => Ok(Finding::Damaged { at, what: source.to_string() }),
        ReadError::BehindEnd { at } => Ok(Finding::Damaged { at, what }),
        ReadError::Header(source) => Ok(Finding::Damaged { at: 0, what: source.to_string() }),
        ReadError::HeaderShort { bytes } => Ok(Finding::Damaged { at: bytes.min(HEADER_BYTES as u64), what }),
        error @ (ReadError::Open { .. } | ReadError::Io { .. }) => Err(error),
    }
}

/// Hashes all that is read through it.
struct Hashed<R> {
    input: R,
    sha256: Sha256,
    bytes: u64,
}

struct Whole {
    bytes: u64,
    sha256: [u8; 32],
}

impl<R: Read> Hashed<R> {
    /// Reads what is left.
    fn finish(mut self) -> io::Result<Whole> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(Whole { bytes: self.bytes, sha256: self.sha256.finalize().into() })
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.sha256.update(buffer.get(..count).unwrap_or_default());
        self.bytes += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
