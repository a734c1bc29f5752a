//! The recorder: from bytes to blocks on disk, and from there to [`Released`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;

use super::block::{BLOCK_RAW_BYTES_MAX, BlockWriter, Hash, Header};
use super::frame::{
    CHANNEL_SESSION, Direction, FRAME_BODY_BYTES_MAX, FRAME_HEAD_BYTES_MAX, Frame, FrameError, Kind,
};
use super::level::{ChannelRecording, Cut, Level, PLAIN_OUTPUT_BYTES_MAX};
use super::medium::{Medium, create_file};
use super::path::recording_path;
use super::released::Released;
use super::sealed::{Auditor, SEALING_BYTES, SealError, Sealer};

/// Channels that may be open at once in one recording: each costs a few hundred bytes.
pub const CHANNELS_OPEN_MAX: usize = 4096;

/// Fewer bytes may be a password, which could be guessed from its hash: events tell none of them, nor does a recording where it
/// doesn't keep them.
pub const HASHED_BYTES_MIN: u64 = 1024;

/// Why a recorder doesn't record. After any of these but [`RecorderError::Frame`] the session must end.
#[derive(Debug, Error)]
pub enum RecorderError {
    /// The file can't be made.
    #[error(
        "the recording {path} can't be created ({source}); the session can't start: check the disk and its permissions"
    )]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A write or a sync failed now.
    #[error("the recording {path} can't be written ({source}); the session must end: check the disk")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A write or a sync failed before; this is final.
    #[error("the recording {path} failed earlier; the session must end")]
    Failed {
        /// The file.
        path: PathBuf,
    },
    /// A frame that can't be written, such as a command line that is too long. Nothing was recorded and
    /// nothing is released; the recorder goes on.
    #[error("this can't be recorded: {0}")]
    Frame(#[from] FrameError),
    /// The input can't be sealed; the session can't go on.
    #[error("the input can't be sealed to the auditors: {0}")]
    Seal(#[from] SealError),
    /// More channels than [`CHANNELS_OPEN_MAX`].
    #[error("more than {CHANNELS_OPEN_MAX} channels are open in the recording {path}; the session must end")]
    Channels {
        /// The file.
        path: PathBuf,
    },
}

/// A point of a recording that is on disk: for the event `recording.anchored`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The file's length up to here, bytes.
    pub bytes: u64,
    /// SHA-256 of the last block (head and payload) up to here: it commits to all before.
    pub head: Hash,
    /// Frames up to here.
    pub frames: u64,
}

/// A whole recording that is on disk: for the event `recording.sealed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// The file's length, bytes.
    pub bytes: u64,
    /// SHA-256 of the last block.
    pub head: Hash,
    /// Frames in it.
    pub frames: u64,
    /// SHA-256 of the whole file, as `sha256sum` gives it.
    pub sha256: Hash,
}

/// Records one session. It does blocking I/O: a disk that is slow slows the session, and nothing is ever
/// dropped. Times are nanoseconds since 1970; a clock that steps back is held at the last time.
///
/// **A failure is final.** After an error of the disk nothing is recorded and nothing is released any more:
/// the session must end.
pub struct Recorder {
    path: PathBuf,
    medium: Arc<dyn Medium>,
    blocks: BlockWriter,
    level: Level,
    session: Uuid,
    sealer: Option<Sealer>,
    plain_output_bytes_max: u64,
    /// Boxed, since the map makes room for eleven at once.
    channels: BTreeMap<u32, Box<ChannelRecording>>,
    started_ns: u64,
    last_ns: u64,
    /// Bytes of the file that were written.
    bytes: u64,
    /// Frames in blocks that were written, and in the one that is being filled.
    frames: u64,
    anchored: u64,
    sha256: Sha256,
    health: Arc<Health>,
}

/// Whether a recording still takes what comes; shared with its anchors, whose syncs go on beside it.
#[derive(Default)]
struct Health {
    failed: AtomicBool,
    /// Whoever holds it is the only one who syncs the file.
    syncing: Mutex<()>,
}

impl Health {
    fn check(&self, path: &Path) -> Result<(), RecorderError> {
        match self.failed.load(Ordering::Acquire) {
            true => Err(RecorderError::Failed { path: path.to_owned() }),
            false => Ok(()),
        }
    }

    fn fail(&self, path: &Path, source: io::Error) -> RecorderError {
        self.failed.store(true, Ordering::Release);
        RecorderError::Write { path: path.to_owned(), source }
    }

    /// Makes durable what was appended before. The system says once that bytes were lost, to whoever asks first, and nothing
    /// about them from then on: so one asks at a time, and who comes behind him hears of it here.
    fn sync(&self, medium: &dyn Medium, path: &Path) -> Result<(), RecorderError> {
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check(path)?;
        medium.sync().map_err(|source| self.fail(path, source))
    }
}

impl Recorder {
    /// Creates the session's file in the directory `recordings` ([`recording_path`]; it must not exist) and
    /// writes its header. `started_ns`: the session's start, ns since 1970.
    pub fn create(
        recordings: &Path,
        session: Uuid,
        started_ns: u64,
        level: Level,
    ) -> Result<Self, RecorderError> {
        let path = recording_path(recordings, session, started_ns);
        match create_file(&path) {
            Ok(file) => Self::on(Arc::new(file), path, Header { session, started_ns, level }),
            Err(source) => Err(RecorderError::Create { path, source }),
        }
    }

    fn on(medium: Arc<dyn Medium>, path: PathBuf, header: Header) -> Result<Self, RecorderError> {
        let bytes = header.encode();
        if let Err(source) = medium.append(&bytes) {
            return Err(RecorderError::Create { path, source });
        }
        Ok(Self {
            path,
            medium,
            blocks: BlockWriter::new(&bytes),
            level: header.level,
            session: header.session,
            sealer: None,
            plain_output_bytes_max: PLAIN_OUTPUT_BYTES_MAX,
            channels: BTreeMap::new(),
            started_ns: header.started_ns,
            last_ns: header.started_ns,
            bytes: bytes.len() as u64,
            frames: 0,
            anchored: 0,
            sha256: Sha256::new_with_prefix(bytes),
            health: Arc::default(),
        })
    }

    /// Sets how many bytes of each direction of a channel without a terminal are kept at
    /// [`Level::Terminal`], for channels that speak from now on; at first [`PLAIN_OUTPUT_BYTES_MAX`].
    pub fn set_plain_output_bytes_max(&mut self, bytes: u64) {
        self.plain_output_bytes_max = bytes;
    }

    /// From now on keeps input too, sealed to these auditors, if the level is [`Level::Full`]. Without auditors none is
    /// kept, and the recording says so.
    pub fn seal_input_to(&mut self, now_ns: u64, auditors: &[Auditor]) -> Result<(), RecorderError> {
        if self.level != Level::Full {
            return Ok(());
        }
        if auditors.is_empty() {
            let remark = Kind::Note(b"input isn't kept: no auditor's key is configured".into());
            return self.put(now_ns, CHANNEL_SESSION, Direction::Control, remark);
        }
        let (sealer, keys) = Sealer::new(self.session, auditors)?;
        for key in keys {
            self.put(now_ns, CHANNEL_SESSION, Direction::Control, Kind::KeySealed(Cow::Owned(key)))?;
        }
        self.sealer = Some(sealer);
        Ok(())
    }

    /// The session's level.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The latest time that it was told, ns since 1970; at first the session's start.
    pub fn last_ns(&self) -> u64 {
        self.last_ns
    }

    /// Tells the time where there is nothing to record: what comes from now on is no earlier.
    pub fn reach(&mut self, now_ns: u64) {
        self.last_ns = self.last_ns.max(now_ns);
    }

    /// Records `bytes` of a channel as far as the level wants them, writes them out, and releases them.
    pub fn release<B: AsRef<[u8]>>(
        &mut self,
        now_ns: u64,
        channel: u32,
        direction: Direction,
        bytes: B,
    ) -> Result<Released<B>, RecorderError> {
        self.record_data(now_ns, channel, direction, bytes.as_ref())?;
        self.flush()?;
        Ok(Released::new(channel, direction, bytes))
    }

    /// The same for a message that carries `data` among other things: records the data, releases the message.
    pub fn release_message<B>(
        &mut self,
        now_ns: u64,
        channel: u32,
        direction: Direction,
        message: B,
        data: impl FnOnce(&B) -> &[u8],
    ) -> Result<Released<B>, RecorderError> {
        self.record_data(now_ns, channel, direction, data(&message))?;
        self.flush()?;
        Ok(Released::new(channel, direction, message))
    }

    /// Records what happens to a channel (a terminal, a resize, a command, an exit), writes it out, and
    /// releases the message that makes it happen. `direction` is the message's.
    pub fn release_control<B>(
        &mut self,
        now_ns: u64,
        channel: u32,
        direction: Direction,
        kind: Kind<'_>,
        message: B,
    ) -> Result<Released<B>, RecorderError> {
        self.record(now_ns, channel, Direction::Control, kind)?;
        self.flush()?;
        Ok(Released::new(channel, direction, message))
    }

    /// Releases a message in which there is nothing to record (flow control, an end of file), if this
    /// recorder still works.
    pub fn release_bare<B>(
        &mut self,
        channel: u32,
        direction: Direction,
        message: B,
    ) -> Result<Released<B>, RecorderError> {
        self.flush()?;
        Ok(Released::new(channel, direction, message))
    }

    /// Puts a frame into the current block, as the level wants it. It is written by the next release or
    /// [`Recorder::flush`]. Data go by the level's limits as they do in [`Recorder::release`].
    pub fn record(
        &mut self,
        now_ns: u64,
        channel: u32,
        direction: Direction,
        kind: Kind<'_>,
    ) -> Result<(), RecorderError> {
        if let Kind::Data(bytes) = &kind {
            return self.record_data(now_ns, channel, direction, bytes);
        }
        self.usable()?;
        if let Kind::TerminalStarted { .. } = &kind {
            self.channel(channel)?.terminal_started();
        }
        if self.level == Level::None && !matches!(kind, Kind::End) {
            return Ok(());
        }
        self.put(now_ns, channel, direction, kind)
    }

    /// What passes on the channel is told by events with its length and SHA-256 (a tunnel, files): of its bytes nothing is
    /// kept here, except at [`Level::Full`]. To be called before anything passes.
    pub fn told_elsewhere(&mut self, channel: u32) -> Result<(), RecorderError> {
        self.usable()?;
        let level = self.level;
        *self.channel(channel)? = ChannelRecording::new(level, 0);
        Ok(())
    }

    /// SHA-256 of all that a channel has said, where it was reckoned.
    pub fn output_sha256(&self, channel: u32) -> Option<[u8; 32]> {
        self.channels.get(&channel).and_then(|recording| recording.output_sha256())
    }

    /// A channel is gone: records what was not kept of it, says what that is, and forgets it. Numbers must not be
    /// used again within a session. What is so short that it could be guessed is recorded without its hash, which is told to the
    /// caller all the same.
    pub fn close_channel(&mut self, now_ns: u64, channel: u32) -> Result<Vec<Cut>, RecorderError> {
        self.usable()?;
        let Some(recording) = self.channels.remove(&channel) else { return Ok(Vec::new()) };
        let cuts: Vec<Cut> = recording.end().collect();
        for cut in &cuts {
            let could_be_guessed = cut.kept == 0 && cut.bytes < HASHED_BYTES_MIN;
            let sha256 = if could_be_guessed { [0; 32] } else { cut.sha256 };
            let kind = Kind::Truncated { bytes: cut.bytes, kept: cut.kept, sha256 };
            self.put(now_ns, channel, cut.direction, kind)?;
        }
        Ok(cuts)
    }

    /// Writes the current block, with one system call; afterwards nothing is held back. Does nothing when
    /// there is nothing. It is not synced: a killed proxy loses nothing, a power failure what wasn't anchored.
    pub fn flush(&mut self) -> Result<(), RecorderError> {
        self.usable()?;
        let (medium, sha256, written) = (&self.medium, &mut self.sha256, &mut self.bytes);
        let result = self.blocks.finish(|block| {
            medium.append(block)?;
            sha256.update(block);
            *written += block.len() as u64;
            Ok(())
        });
        result.map_err(|source| self.health.fail(&self.path, source))
    }

    /// Makes durable what was recorded and says what that is; `None` when nothing came since the last time.
    pub fn anchor(&mut self) -> Result<Option<Anchor>, RecorderError> {
        self.pending_anchor()?.map(PendingAnchor::sync).transpose()
    }

    /// The same in two steps: the sync may be done on another thread while the session goes on. One that
    /// fails stops this recorder; one that is dropped leaves its bytes to the next anchor's.
    pub fn pending_anchor(&mut self) -> Result<Option<PendingAnchor>, RecorderError> {
        self.flush()?;
        if self.bytes == self.anchored {
            return Ok(None);
        }
        self.anchored = self.bytes;
        Ok(Some(PendingAnchor {
            anchor: Anchor { bytes: self.bytes, head: self.blocks.head(), frames: self.frames },
            medium: Arc::clone(&self.medium),
            health: Arc::clone(&self.health),
            path: self.path.clone(),
        }))
    }

    /// Ends the recording: closes all channels, writes the end, makes the file durable.
    pub fn seal(mut self, now_ns: u64) -> Result<Sealed, RecorderError> {
        self.usable()?;
        while let Some((&channel, _)) = self.channels.first_key_value() {
            let _recorded = self.close_channel(now_ns, channel)?;
        }
        self.record(now_ns, CHANNEL_SESSION, Direction::Control, Kind::End)?;
        self.flush()?;
        self.health.sync(&*self.medium, &self.path)?;
        Ok(Sealed {
            bytes: self.bytes,
            head: self.blocks.head(),
            frames: self.frames,
            sha256: self.sha256.finalize().into(),
        })
    }

    fn record_data(
        &mut self,
        now_ns: u64,
        channel: u32,
        direction: Direction,
        bytes: &[u8],
    ) -> Result<(), RecorderError> {
        self.usable()?;
        if direction == Direction::Input && self.sealer.is_some() {
            return self.record_input(now_ns, channel, bytes);
        }
        let keep = self.channel(channel)?.keep(direction, bytes);
        let (kept, _) = bytes.split_at(keep.min(bytes.len()));
        for part in kept.chunks(FRAME_BODY_BYTES_MAX) {
            self.put(now_ns, channel, direction, Kind::Data(Cow::Borrowed(part)))?;
        }
        Ok(())
    }

    fn record_input(&mut self, now_ns: u64, channel: u32, bytes: &[u8]) -> Result<(), RecorderError> {
        for part in bytes.chunks(FRAME_BODY_BYTES_MAX - SEALING_BYTES) {
            let Some(sealer) = &mut self.sealer else { return Ok(()) };
            let sealed = sealer.seal(channel, part)?;
            self.put(now_ns, channel, Direction::Input, Kind::SealedData(Cow::Owned(sealed)))?;
        }
        Ok(())
    }

    fn put(
        &mut self,
        now_ns: u64,
        channel: u32,
        direction: Direction,
        kind: Kind<'_>,
    ) -> Result<(), RecorderError> {
        self.reach(now_ns);
        let time_ns = self.last_ns - self.started_ns;
        if self.blocks.raw_bytes() + FRAME_HEAD_BYTES_MAX + FRAME_BODY_BYTES_MAX > BLOCK_RAW_BYTES_MAX {
            self.flush()?;
        }
        Frame { time_ns, channel, direction, kind }.write(self.blocks.frames())?;
        self.frames += 1;
        Ok(())
    }

    fn channel(&mut self, channel: u32) -> Result<&mut ChannelRecording, RecorderError> {
        if self.channels.len() >= CHANNELS_OPEN_MAX && !self.channels.contains_key(&channel) {
            self.health.failed.store(true, Ordering::Release);
            return Err(RecorderError::Channels { path: self.path.clone() });
        }
        let (level, limit) = (self.level, self.plain_output_bytes_max);
        Ok(self.channels.entry(channel).or_insert_with(|| Box::new(ChannelRecording::new(level, limit))))
    }

    fn usable(&self) -> Result<(), RecorderError> {
        self.health.check(&self.path)
    }
}

/// An anchor whose bytes are written but may not be on disk yet.
#[must_use = "an anchor is none before its sync"]
pub struct PendingAnchor {
    anchor: Anchor,
    medium: Arc<dyn Medium>,
    health: Arc<Health>,
    path: PathBuf,
}

impl PendingAnchor {
    /// Blocks until the bytes are on disk. An error stops the recorder too: what isn't on disk after a
    /// failed sync may never be. Nor is it an anchor once the recorder has failed.
    pub fn sync(self) -> Result<Anchor, RecorderError> {
        self.health.sync(&*self.medium, &self.path)?;
        Ok(self.anchor)
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
