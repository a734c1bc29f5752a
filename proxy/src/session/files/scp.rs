//! The protocol of rcp, which `scp -t` and `scp -f` speak: the sender sends a line (C for a file, D and E around a
//! directory, T for times) and waits for the receiver's answer; then come the file's bytes, and an answer again.
//!
//! Nothing waits for this: the command was decided as one, and here is only told what it does. A command that says more
//! than scp's (`scp -t x; bash`) is recorded like any other; from where its stream is no longer scp's, nothing is told.

use super::content::Content;
use super::path::{Path, last};
use super::{Outcome, Told, octal};
use custody_core::event::ByteString;
use custody_core::event::file::{self, Moved, Operation, PATH_BYTES_MAX, Protocol};

/// Longest line, in bytes: a mode, a size and a name (or a message) of whatever length a system allows.
const LINE_BYTES_MAX: usize = PATH_BYTES_MAX + 64;
/// How deep directories may stand in each other.
const DEPTH_MAX: usize = 512;
/// How much of a message is told, in bytes.
const REASON_BYTES_MAX: usize = 512;

/// One channel.
pub struct Scp {
    channel: u32,
    role: Role,
    /// What the command names.
    base: Vec<u8>,
    /// Whether that must be a directory.
    into_directory: bool,
    directories: Vec<Vec<u8>>,
    sender: Sender,
    /// A message of the receiver's that isn't whole.
    complaint: Option<Vec<u8>>,
    lost: bool,
    told: Vec<Told>,
}

/// What the program at the target does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// `scp -t`: it writes what the client sends.
    Sink,
    /// `scp -f`: it reads and sends.
    Source,
}

/// Where in the sender's stream we are.
enum Sender {
    Line(Vec<u8>),
    /// Until the receiver has answered a line.
    Asks(Line),
    Data(File, u64),
    /// A zero byte, or a message.
    DataEnd(File, Vec<u8>),
    /// Until the receiver has answered to a file's end; a message that the sender ended it with.
    FileEnd(File, Option<Vec<u8>>),
}

enum Line {
    File(File),
    Directory { name: Vec<u8>, mode: u32 },
    Other,
}

struct File {
    name: Vec<u8>,
    mode: u32,
    bytes: u64,
    moved: u64,
    content: Content,
}

impl Scp {
    /// For a command line, if that runs `scp` as a server.
    pub(super) fn of_command(channel: u32, command: &[u8]) -> Option<Self> {
        let words = words(command);
        let mut words = words.iter();
        if last(words.next()?) != b"scp" {
            return None;
        }
        let (mut role, mut into_directory, mut base) = (None, false, None);
        let mut options = true;
        for word in words {
            match word.as_slice() {
                b"--" if options => options = false,
                [b'-', letters @ ..] if options && !letters.is_empty() => {
                    for letter in letters {
                        match letter {
                            b't' => role = Some(Role::Sink),
                            b'f' => role = Some(Role::Source),
                            b'd' => into_directory = true,
                            _ => {}
                        }
                    }
                }
                word => {
                    base.get_or_insert_with(|| word.to_vec());
                }
            }
        }
        let base = base.unwrap_or_default();
        into_directory |= base.ends_with(b"/") || matches!(base.as_slice(), b"." | b".." | b"~");
        Some(Self {
            channel,
            role: role?,
            base,
            into_directory,
            directories: Vec::new(),
            sender: Sender::Line(Vec::new()),
            complaint: None,
            lost: false,
            told: Vec::new(),
        })
    }

    pub(super) fn client(&mut self, data: &[u8]) {
        match self.role {
            Role::Sink => self.sent(data),
            Role::Source => self.answered(data),
        }
    }

    pub(super) fn target(&mut self, data: &[u8]) {
        match self.role {
            Role::Sink => self.answered(data),
            Role::Source => self.sent(data),
        }
    }

    pub(super) fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    pub(super) fn end(mut self) -> Vec<Told> {
        match std::mem::replace(&mut self.sender, Sender::Line(Vec::new())) {
            Sender::Asks(Line::File(file))
            | Sender::Data(file, _)
            | Sender::DataEnd(file, _)
            | Sender::FileEnd(file, _)
                if !self.lost =>
            {
                self.tell(file, Some(b"the channel ended before the file did"));
            }
            _ => {}
        }
        self.told
    }

    /// From here on nothing is understood.
    fn lose(&mut self, reason: String) {
        match std::mem::replace(&mut self.sender, Sender::Line(Vec::new())) {
            Sender::Asks(Line::File(file))
            | Sender::Data(file, _)
            | Sender::DataEnd(file, _)
            | Sender::FileEnd(file, _) => self.tell(file, Some(reason.as_bytes())),
            Sender::Line(_) | Sender::Asks(_) => {}
        }
        self.lost = true;
        let unparsed = file::Unparsed { channel: self.channel, protocol: Protocol::Scp, reason };
        self.told.push(Told { cause: None, outcome: Outcome::Unparsed(unparsed) });
    }

    /// The sender's stream.
    fn sent(&mut self, mut data: &[u8]) {
        while !data.is_empty() && !self.lost {
            data = match std::mem::replace(&mut self.sender, Sender::Line(Vec::new())) {
                Sender::Line(mut line) => match until_newline(&mut line, data) {
                    Some(rest) => {
                        self.sender = self.line(&line);
                        rest
                    }
                    None if line.len() > LINE_BYTES_MAX => return self.lose("a line is too long".to_owned()),
                    None => {
                        self.sender = Sender::Line(line);
                        return;
                    }
                },
                Sender::Data(mut file, left) => {
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
                    let (part, rest) = data.split_at(count);
                    // Nothing comes early here.
                    file.content.moved(file.moved, part, &mut 0);
                    file.moved += count as u64;
                    let left = left - count as u64;
                    self.sender =
                        if left == 0 { Sender::DataEnd(file, Vec::new()) } else { Sender::Data(file, left) };
                    rest
                }
                Sender::DataEnd(file, mut message) => match (message.is_empty(), data) {
                    (true, [0, rest @ ..]) => {
                        self.sender = Sender::FileEnd(file, None);
                        rest
                    }
                    (true, [1 | 2, ..]) | (false, _) => match until_newline(&mut message, data) {
                        Some(rest) => {
                            let message = message.get(1..).unwrap_or_default().to_vec();
                            self.sender = Sender::FileEnd(file, Some(message));
                            rest
                        }
                        None => {
                            let long = message.len() > LINE_BYTES_MAX;
                            self.sender = Sender::DataEnd(file, message);
                            if long {
                                self.lose("a message is too long".to_owned());
                            }
                            return;
                        }
                    },
                    _ => {
                        self.sender = Sender::DataEnd(file, message);
                        return self.lose("more was sent than the file's length says".to_owned());
                    }
                },
                waits @ (Sender::Asks(_) | Sender::FileEnd(..)) => {
                    self.sender = waits;
                    return self.lose("something was sent before the receiver had answered".to_owned());
                }
            };
        }
    }

    fn line(&mut self, line: &[u8]) -> Sender {
        let parsed = match line {
            [b'C', rest @ ..] => sized(rest).map(|(mode, bytes, name)| {
                let (name, content) = (name.to_vec(), Content::default());
                Line::File(File { name, mode, bytes, moved: 0, content })
            }),
            [b'D', rest @ ..] => {
                sized(rest).map(|(mode, _, name)| Line::Directory { name: name.to_vec(), mode })
            }
            [b'T', ..] => Some(Line::Other),
            b"E" => {
                self.directories.pop();
                Some(Line::Other)
            }
            [1 | 2, message @ ..] => {
                self.complain(message);
                return Sender::Line(Vec::new());
            }
            _ => None,
        };
        match parsed {
            Some(line) => Sender::Asks(line),
            None => {
                self.lose("a line isn't one of scp's".to_owned());
                Sender::Line(Vec::new())
            }
        }
    }

    /// The receiver's stream.
    fn answered(&mut self, mut data: &[u8]) {
        while !data.is_empty() && !self.lost {
            if let Some(mut complaint) = self.complaint.take() {
                match until_newline(&mut complaint, data) {
                    Some(rest) => {
                        self.answer(Some(&complaint));
                        data = rest;
                        continue;
                    }
                    None if complaint.len() > LINE_BYTES_MAX => {
                        return self.lose("a message is too long".to_owned());
                    }
                    None => {
                        self.complaint = Some(complaint);
                        return;
                    }
                }
            }
            data = match data {
                [0, rest @ ..] => {
                    self.answer(None);
                    rest
                }
                [1 | 2, rest @ ..] => {
                    self.complaint = Some(Vec::new());
                    rest
                }
                _ => return self.lose("an answer isn't one of scp's".to_owned()),
            };
        }
    }

    fn answer(&mut self, complaint: Option<&[u8]>) {
        let sender = std::mem::replace(&mut self.sender, Sender::Line(Vec::new()));
        match (sender, complaint) {
            (Sender::Asks(Line::File(file)), None) => {
                let left = file.bytes;
                self.sender =
                    if left == 0 { Sender::DataEnd(file, Vec::new()) } else { Sender::Data(file, left) };
            }
            (Sender::Asks(Line::File(file)), Some(complaint)) => self.tell(file, Some(complaint)),
            (Sender::Asks(Line::Directory { name, mode }), complaint) => {
                self.tell_directory(&name, mode, complaint);
                if complaint.is_none() {
                    if self.directories.len() >= DEPTH_MAX {
                        return self.lose("directories stand too deep in each other".to_owned());
                    }
                    self.directories.push(name);
                }
            }
            (Sender::Asks(Line::Other), _) => {}
            (Sender::FileEnd(file, message), complaint) => {
                let failure = complaint.map(<[u8]>::to_vec).or(message);
                self.tell(file, failure.as_deref());
            }
            // The first answer comes before anything is asked; a receiver may also give up in between.
            (sender, complaint) => {
                self.sender = sender;
                if let Some(complaint) = complaint {
                    self.complain(complaint);
                }
            }
        }
    }

    /// Where something of this name stands, and the name if that can't be told.
    fn place(&self, name: &[u8]) -> (Path, Option<ByteString>) {
        let mut names: Vec<&[u8]> = self.directories.iter().map(Vec::as_slice).collect();
        names.push(name);
        let known = match self.role {
            Role::Sink => self.into_directory,
            // A file or directory that was asked for by its own name is sent with it first.
            Role::Source => !self.base.is_empty() && names.first() == Some(&last(&self.base)),
        };
        let under =
            if known && self.role == Role::Source { names.get(1..).unwrap_or_default() } else { &names };
        let joined = under.join(&b'/');
        let mut path = self.base.clone();
        if known && !joined.is_empty() {
            path.push(b'/');
            path.extend_from_slice(&joined);
        }
        let name = (!known).then(|| ByteString::cut(&joined, PATH_BYTES_MAX));
        (Path::new(None, &path), name)
    }

    fn tell(&mut self, file: File, failure: Option<&[u8]>) {
        let operation = match self.role {
            Role::Sink => Operation::Write,
            Role::Source => Operation::Read,
        };
        let File { name, mode, bytes, moved, content } = file;
        let mut moved_event = content.end(&mut 0);
        moved_event.partial |= moved < bytes;
        self.told_of(&name, operation, Some(mode), Some(moved_event), failure);
    }

    fn tell_directory(&mut self, name: &[u8], mode: u32, failure: Option<&[u8]>) {
        let operation = match self.role {
            Role::Sink => Operation::Mkdir,
            Role::Source => Operation::List,
        };
        self.told_of(name, operation, Some(mode), None, failure);
    }

    fn told_of(
        &mut self,
        name: &[u8],
        operation: Operation,
        mode: Option<u32>,
        moved: Option<Moved>,
        failure: Option<&[u8]>,
    ) {
        let (path, name) = self.place(name);
        let relative = path.relative;
        let path = ByteString::cut(&path.bytes, PATH_BYTES_MAX);
        let (read, written) = match self.role {
            Role::Sink => (None, moved),
            Role::Source => (moved, None),
        };
        let channel = self.channel;
        let outcome = match failure {
            None => Outcome::Completed(file::Completed {
                channel,
                entries: None,
                mode: mode.map(octal),
                name,
                operation,
                path,
                protocol: Protocol::Scp,
                read,
                relative,
                to: None,
                written,
            }),
            Some(reason) => Outcome::Failed(file::Failed {
                channel,
                name,
                operation,
                path,
                protocol: Protocol::Scp,
                read,
                reason: ByteString::cut(reason, REASON_BYTES_MAX),
                relative,
                status: None,
                to: None,
                written,
            }),
        };
        self.told.push(Told { cause: None, outcome });
    }

    /// One side complains, and not about a file that was named.
    fn complain(&mut self, message: &[u8]) {
        let path = Path::new(None, &self.base);
        let operation = match self.role {
            Role::Sink => Operation::Write,
            Role::Source => Operation::Read,
        };
        let failed = file::Failed {
            channel: self.channel,
            name: None,
            operation,
            path: ByteString::cut(&path.bytes, PATH_BYTES_MAX),
            protocol: Protocol::Scp,
            read: None,
            reason: ByteString::cut(message, REASON_BYTES_MAX),
            relative: path.relative,
            status: None,
            to: None,
            written: None,
        };
        self.told.push(Told { cause: None, outcome: Outcome::Failed(failed) });
    }
}

/// Moves bytes from `data` to `line` up to a newline, or as many as a line may have; what stands behind it.
fn until_newline<'a>(line: &mut Vec<u8>, data: &'a [u8]) -> Option<&'a [u8]> {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(at) if line.len() + at <= LINE_BYTES_MAX => {
            line.extend_from_slice(data.get(..at).unwrap_or_default());
            data.get(at + 1..)
        }
        _ => {
            let room = (LINE_BYTES_MAX + 1).saturating_sub(line.len()).min(data.len());
            line.extend_from_slice(data.get(..room).unwrap_or_default());
            None
        }
    }
}

/// `0644 5 name`: mode, size and name.
fn sized(line: &[u8]) -> Option<(u32, u64, &[u8])> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let mut number = |radix| {
        let digits = std::str::from_utf8(parts.next()?).ok()?;
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
    };
    let (mode, bytes) = (u32::try_from(number(8)?).ok()?, number(10)?);
    let name = parts.next()?;
    // A name with a slash would leave its directory: every scp refuses it.
    (!name.is_empty() && !name.contains(&b'/')).then_some((mode, bytes, name))
}

/// The words of a command line as a shell splits them, up to what only a shell knows.
fn words(command: &[u8]) -> Vec<Vec<u8>> {
    let (mut words, mut word) = (Vec::new(), None::<Vec<u8>>);
    let mut bytes = command.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' => words.extend(word.take()),
            b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')' | b'\n' => break,
            b'\\' => word.get_or_insert_default().extend(bytes.next()),
            b'\'' | b'"' => {
                let word = word.get_or_insert_default();
                while let Some(inner) = bytes.next().filter(|inner| *inner != byte) {
                    match inner {
                        b'\\' if byte == b'"' => word.extend(bytes.next()),
                        inner => word.push(inner),
                    }
                }
            }
            byte => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
#[path = "scp_tests.rs"]
mod tests;
