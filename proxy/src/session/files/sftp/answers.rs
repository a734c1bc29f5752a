//! What the target answers: packets of any length in messages of any length, of which only the heads are kept.

use super::super::Told;
use super::super::sftp_packet::{HANDLE_BYTES_MAX, VERSION, kind, status};
use super::awaited::Awaited;
use super::requests::{Failure, Requests};
use crate::ssh::field::Fields;

/// Longest packet that is taken for an answer, in bytes. Some servers put a whole directory into one NAME, which is several MiB
/// of names; of all but its head nothing is kept.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How much of an answer is read, but for the data of a DATA, in bytes: the first name of a NAME.
const HEAD_BYTES_MAX: usize = 5_000;
/// The head of a DATA: length, type, id, length of the data.
const DATA_HEAD_BYTES: usize = 13;
/// Length and type.
const FIRST_BYTES: usize = 5;

/// Where in the target's stream we are.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// The beginning of a packet that isn't read yet.
    head: Vec<u8>,
    /// Its rest.
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Rest {
    left: usize,
    /// Data of an opened file, at this offset.
    data: Option<(u64, u64)>,
}

impl Answers {
    /// Whether what has come so far ends with a packet.
    pub fn is_between_packets(&self) -> bool {
        self.head.is_empty() && self.rest.is_none()
    }

    /// Sees data; says after how many of its bytes a packet ended for the first time (0 if one had before).
    ///
    /// # Errors
    /// When this is no SFTP of version 3: why.
    pub fn see(
        &mut self,
        mut data: &[u8],
        requests: &mut Requests,
        told: &mut Vec<Told>,
    ) -> Result<Option<usize>, String> {
        let all = data.len();
        let mut gap = self.is_between_packets().then_some(0);
        while !data.is_empty() {
            let count = match &mut self.rest {
                Some(rest) => {
                    let count = rest.left.min(data.len());
                    if let Some((opened, offset)) = &mut rest.data {
                        requests.read(*opened, *offset, data.get(..count).unwrap_or_default());
                        *offset = offset.saturating_add(count as u64);
                    }
                    rest.left -= count;
                    if rest.left == 0 {
                        self.rest = None;
                    }
                    count
                }
                None => self.see_head(data, requests, told)?,
            };
            data = data.get(count..).unwrap_or_default();
            if gap.is_none() && self.is_between_packets() {
                gap = Some(all - data.len());
            }
        }
        Ok(gap)
    }

    fn see_head(
        &mut self,
        data: &[u8],
        requests: &mut Requests,
        told: &mut Vec<Told>,
    ) -> Result<usize, String> {
        let mut count = 0;
        loop {
            let needed = needed(&self.head)?;
            if self.head.len() == needed && needed > FIRST_BYTES {
                break;
            }
            let more = (needed - self.head.len()).min(data.len() - count);
            if more == 0 {
                // A packet of one byte is whole with its type.
                if self.head.len() == needed && needed == FIRST_BYTES {
                    break;
                }
                return Ok(count);
            }
            self.head.extend_from_slice(data.get(count..count + more).unwrap_or_default());
            count += more;
        }
        let head = std::mem::take(&mut self.head);
        let length = length_of(&head).unwrap_or_default();
        let left = (4 + length).saturating_sub(head.len());
        let packet = head.get(4..).unwrap_or_default();
        let data = answer(packet, left, requests, told)?;
        if left > 0 {
            self.rest = Some(Rest { left, data });
        }
        Ok(count)
    }
}

fn length_of(head: &[u8]) -> Option<usize> {
    Fields::new(head).uint32().map(|length| length as usize)
}

/// How many bytes of a packet are read before it is looked at.
fn needed(head: &[u8]) -> Result<usize, String> {
    let (Some(length), Some(kind)) = (length_of(head), head.get(4)) else { return Ok(FIRST_BYTES) };
    if length == 0 || length > ANSWER_BYTES_MAX {
        return Err(format!("the target sent a packet of type {kind} and {length} bytes"));
    }
    let whole = 4 + length;
    Ok(if *kind == kind::DATA { whole.min(DATA_HEAD_BYTES) } else { whole.min(HEAD_BYTES_MAX) })
}

/// Matches an answer with its request. Gives the opened file and the offset that the data behind it belong to.
fn answer(
    packet: &[u8],
    left: usize,
    requests: &mut Requests,
    told: &mut Vec<Told>,
) -> Result<Option<(u64, u64)>, String> {
    let mut fields = Fields::new(packet);
    let wrong = || format!("the target's packet of type {} isn't what it says", packet.first().unwrap_or(&0));
    let kind = fields.byte().ok_or_else(wrong)?;
    let number = fields.uint32().ok_or_else(wrong)?;
    if kind == kind::VERSION {
        return if number == VERSION {
            Ok(None)
        } else {
            Err(format!("the target speaks version {number} of SFTP"))
        };
    }
    // Read before its request is taken out: an answer that is none ends nothing, and what is awaited is told as such.
    let failure = match kind {
        kind::STATUS => {
            let code = fields.uint32().ok_or_else(wrong)?;
            let said = fields.string().filter(|text| !text.is_empty());
            let reason = said.unwrap_or_else(|| said_by(code).as_bytes());
            Some((code, Failure { status: Some(code), reason: reason.to_vec() }))
        }
        _ => None,
    };
    let Some(awaited) = requests.awaited.take(number) else {
        return if requests.overflowed {
            Ok(None)
        } else {
            Err(format!("the target answered request {number}, which wasn't asked"))
        };
    };
    let unexpected =
        || Failure { status: None, reason: format!("answered by a packet of type {kind}").into() };
    match (awaited, failure) {
        (Awaited::Open(touched), Some((_, failure))) => {
            told.push(touched.failed(requests.channel, failure, None, None));
        }
        (Awaited::Open(touched), None) => match fields.string() {
            Some(handle) if kind == kind::HANDLE && handle.len() <= HANDLE_BYTES_MAX => {
                requests.opened(touched, handle, told);
            }
            _ => told.push(touched.failed(requests.channel, unexpected(), None, None)),
        },
        (Awaited::Change(touched), Some((status::OK, _))) => {
            told.push(touched.completed(requests.channel, None, None, None));
        }
        (Awaited::Change(touched), failure) => {
            let failure = failure.map_or_else(unexpected, |(_, failure)| failure);
            told.push(touched.failed(requests.channel, failure, None, None));
        }
        (Awaited::Close(opened), failure) => {
            let failure = match failure {
                Some((status::OK, _)) => None,
                Some((_, failure)) => Some(failure),
                None => Some(unexpected()),
            };
            requests.closed(opened, failure, told);
        }
        (Awaited::Guess { opened, .. }, None)
            if kind == kind::DATA && !requests.unfollowed && !requests.opened.contains_key(&opened) =>
        {
            return Err("the target sent data of a file that isn't open".to_owned());
        }
        (Awaited::Read { opened, offset } | Awaited::Guess { opened, offset }, None)
            if kind == kind::DATA =>
        {
            let bytes = fields.uint32().ok_or_else(wrong)? as usize;
            // The head of a DATA ends where its data begin.
            return if bytes == left { Ok(Some((opened, offset))) } else { Err(wrong()) };
        }
        (Awaited::Read { .. } | Awaited::ReadDir(_), Some((status::EOF, _))) => {}
        (Awaited::Write(_), Some((status::OK, _))) => {}
        (
            Awaited::Read { opened, .. } | Awaited::ReadDir(opened) | Awaited::Write(opened),
            Some((_, failure)),
        ) => requests.failed(opened, failure),
        (Awaited::ReadDir(opened), None) if kind == kind::NAME => {
            let count = fields.uint32().ok_or_else(wrong)?;
            if let Some(opened) = requests.opened.get_mut(&opened) {
                opened.entries = opened.entries.saturating_add(u64::from(count));
            }
        }
        (Awaited::Read { opened, .. } | Awaited::ReadDir(opened) | Awaited::Write(opened), None) => {
            requests.failed(opened, unexpected());
        }
        // What it was refused for may be that no file had the handle yet.
        (Awaited::Guess { .. }, _) => {}
        // An answer to a request that isn't known may have this one's id.
        (Awaited::Home, None) if kind == kind::NAME && !requests.overflowed => {
            let one = fields.uint32() == Some(1);
            if let Some(name) = fields.string().filter(|name| one && name.starts_with(b"/")) {
                requests.home.get_or_insert_with(|| name.to_vec());
            }
        }
        // That of an extension which isn't known.
        (Awaited::Look, None) if kind == kind::HANDLE => requests.unfollowed = true,
        (Awaited::Home | Awaited::Look, _) => {}
    }
    Ok(None)
}

/// What a status means (draft, section 7), for targets that don't say.
fn said_by(code: u32) -> &'static str {
    match code {
        0 => "ok",
        1 => "end of file",
        2 => "no such file",
        3 => "permission denied",
        4 => "failure",
        5 => "bad message",
        6 => "no connection",
        7 => "connection lost",
        8 => "operation not supported",
        _ => "a status that isn't known",
    }
}
