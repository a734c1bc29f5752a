//! The few data types of RFC 4251, section 5, that the connection protocol is made of.

use super::{MessageError, NAME_BYTES_MAX};

/// Reads fields from the front of a slice; each error names message and field.
pub(super) struct Reader<'a> {
    message: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'static str, body: &'a [u8]) -> Self {
        Reader { message, rest: body }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// `boolean`: every value but 0 is true (RFC 4251, section 5).
    pub(super) fn boolean(&mut self, field: &'static str) -> Result<bool, MessageError> {
        let (&first, rest) = self.rest.split_first().ok_or(self.truncated(field))?;
        self.rest = rest;
        Ok(first != 0)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, MessageError> {
        let (first, rest) = self.rest.split_first_chunk::<4>().ok_or(self.truncated(field))?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*first))
    }

    pub(super) fn string(&mut self, field: &'static str) -> Result<&'a [u8], MessageError> {
        let bytes = usize::try_from(self.u32(field)?).map_err(|_| self.truncated(field))?;
        let (string, rest) = self.rest.split_at_checked(bytes).ok_or(self.truncated(field))?;
        self.rest = rest;
        Ok(string)
    }

    /// A string that names a type or a request, so at most [`NAME_BYTES_MAX`] long.
    pub(super) fn name(&mut self, field: &'static str) -> Result<&'a [u8], MessageError> {
        let name = self.string(field)?;
        if name.len() > NAME_BYTES_MAX {
            return Err(MessageError::NameTooLong { message: self.message, bytes: name.len() });
        }
        Ok(name)
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), MessageError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(MessageError::Trailing { message: self.message, bytes }),
        }
    }

    fn truncated(&self, field: &'static str) -> MessageError {
        MessageError::Truncated { message: self.message, field }
    }
}

/// Appends a `uint32`.
pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a `string`. One that is longer than its length field could say would be a message that no
/// packet can carry; it is cut there rather than written with a length that lies.
pub(crate) fn put_string(out: &mut Vec<u8>, value: &[u8]) {
    let bytes = u32::try_from(value.len()).unwrap_or(u32::MAX);
    put_u32(out, bytes);
    out.extend(value.iter().take(bytes as usize));
}

/// Replaces the `uint32` at `at`.
pub(super) fn overwrite_u32(payload: &mut [u8], at: usize, value: u32) -> Result<(), MessageError> {
    let place = payload
        .get_mut(at..at.saturating_add(4))
        .ok_or(MessageError::Truncated { message: "the message", field: "channel number" })?;
    place.copy_from_slice(&value.to_be_bytes());
    Ok(())
}
