//! The data types of SSH (RFC 4251 section 5): a bounded reader and a writer.
//!
//! Readers borrow from the message and never allocate, so a hostile length costs nothing.

/// Why a field couldn't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message ends before the field does.
    #[error("the message ends {missing} bytes before its {field} does")]
    Truncated {
        /// Which type of field.
        field: &'static str,
        /// How many bytes are missing at least.
        missing: usize,
    },
    /// Bytes follow the last field.
    #[error("{count} bytes follow the last field")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// A field that breaks the rules of its type.
    #[error("a field breaks the rules of its type: {rule}")]
    Rule {
        /// The rule.
        rule: &'static str,
    },
}

/// Reads fields one after the other from a message's bytes.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the first byte of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What hasn't been read.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], WireError> {
        match self.rest.split_at_checked(count) {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(head)
            }
            None => Err(WireError::Truncated { field, missing: count - self.rest.len() }),
        }
    }

    /// `byte[N]`: N bytes without a length.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(*head)
            }
            None => Err(WireError::Truncated { field: "byte array", missing: N - self.rest.len() }),
        }
    }

    /// `byte`.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn byte(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// `boolean`: everything but 0 is true.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn boolean(&mut self) -> Result<bool, WireError> {
        self.byte().map(|byte| byte != 0)
    }

    /// `uint32`.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn uint32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    /// `uint64`.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn uint64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    /// `string`: any bytes, after their length.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn string(&mut self) -> Result<&'a [u8], WireError> {
        let before = self.rest;
        let length = self.uint32()? as usize;
        self.take(length, "string").inspect_err(|_| self.rest = before)
    }

    /// `string` that must be UTF-8 (user names, language tags, algorithm names).
    ///
    /// # Errors
    /// [`WireError::Truncated`]; [`WireError::Rule`] if it isn't UTF-8.
    pub fn utf8(&mut self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.string()?).map_err(|_| WireError::Rule { rule: "text is UTF-8" })
    }

    /// `mpint` that must not be negative, as its magnitude without leading zeros; zero is empty.
    ///
    /// # Errors
    /// [`WireError::Truncated`]; [`WireError::Rule`] if it is negative or has bytes that it doesn't need.
    pub fn mpint(&mut self) -> Result<&'a [u8], WireError> {
        match self.string()? {
            [] => Ok(&[]),
            [0] | [0, 0..=0x7f, ..] => {
                Err(WireError::Rule { rule: "an mpint has no needless leading zeros" })
            }
            [0, magnitude @ ..] => Ok(magnitude),
            [0x80..=0xff, ..] => Err(WireError::Rule { rule: "this mpint is not negative" }),
            magnitude => Ok(magnitude),
        }
    }

    /// `name-list`: printable US-ASCII names, separated by commas. Empty ones, which the RFC forbids, are passed over: libssh
    /// 0.10 ends its list of ciphers with a comma.
    ///
    /// # Errors
    /// [`WireError::Truncated`]; [`WireError::Rule`].
    pub fn name_list(&mut self) -> Result<NameList<'a>, WireError> {
        NameList::parse(self.string()?)
    }

    /// That nothing follows.
    ///
    /// # Errors
    /// [`WireError::TrailingBytes`].
    pub fn finish(self) -> Result<(), WireError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(WireError::TrailingBytes { count }),
        }
    }
}

/// A checked `name-list`, borrowed from its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameList<'a> {
    text: &'a str,
}

impl<'a> NameList<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let rule = WireError::Rule { rule: "a name-list is printable US-ASCII" };
        let text = std::str::from_utf8(bytes).map_err(|_| rule)?;
        let printable = bytes.iter().all(|byte| (0x21..=0x7e).contains(byte));
        if printable { Ok(Self { text }) } else { Err(rule) }
    }

    /// The names, in order of preference.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.text.split(',').filter(|name| !name.is_empty())
    }

    /// The peer's favourite.
    #[must_use]
    pub fn first(&self) -> Option<&'a str> {
        self.iter().next()
    }

    /// Whether `name` is one of them.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.iter().any(|candidate| candidate == name)
    }

    /// As it stands on the wire.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.text
    }
}

/// Writes fields to the end of a buffer.
pub trait Put {
    /// `byte`.
    fn put_byte(&mut self, value: u8);
    /// `boolean`.
    fn put_boolean(&mut self, value: bool);
    /// `uint32`.
    fn put_uint32(&mut self, value: u32);
    /// `uint64`.
    fn put_uint64(&mut self, value: u64);
    /// `string`. Our own messages stay far below 4 GiB; what would not is cut there.
    fn put_string(&mut self, value: &[u8]);
    /// `mpint` of a magnitude, big endian, with or without leading zeros.
    fn put_mpint(&mut self, magnitude: &[u8]);
    /// `name-list` of names that hold neither commas nor anything but printable US-ASCII.
    fn put_name_list<'n>(&mut self, names: impl Iterator<Item = &'n str>);
}

impl Put for Vec<u8> {
    fn put_byte(&mut self, value: u8) {
        self.push(value);
    }

    fn put_boolean(&mut self, value: bool) {
        self.push(u8::from(value));
    }

    fn put_uint32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_uint64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_string(&mut self, value: &[u8]) {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.put_uint32(length);
        self.extend_from_slice(value.get(..length as usize).unwrap_or(value));
    }

    fn put_mpint(&mut self, magnitude: &[u8]) {
        let zeros = magnitude.iter().take_while(|byte| **byte == 0).count();
        let magnitude = magnitude.get(zeros..).unwrap_or_default();
        let sign = magnitude.first().is_some_and(|byte| byte & 0x80 != 0);
        let length = magnitude.len() + usize::from(sign);
        self.put_uint32(u32::try_from(length).unwrap_or(u32::MAX));
        if sign {
            self.push(0);
        }
        self.extend_from_slice(magnitude);
    }

    fn put_name_list<'n>(&mut self, names: impl Iterator<Item = &'n str>) {
        let at = self.len();
        self.put_uint32(0);
        for (index, name) in names.enumerate() {
            if index > 0 {
                self.push(b',');
            }
            self.extend_from_slice(name.as_bytes());
        }
        let length = u32::try_from(self.len() - at - 4).unwrap_or(u32::MAX);
        if let Some(field) = self.get_mut(at..at + 4) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 4251 section 5, the examples that aren't negative.
    #[test]
    fn mpint_examples_of_the_rfc() {
        let cases: [(&[u8], &[u8]); 3] = [
            (&[], &[0, 0, 0, 0]),
            (
                &[0x09, 0xa3, 0x78, 0xf9, 0xb2, 0xe3, 0x32, 0xa7],
                &[0, 0, 0, 8, 0x09, 0xa3, 0x78, 0xf9, 0xb2, 0xe3, 0x32, 0xa7],
            ),
            (&[0x80], &[0, 0, 0, 2, 0, 0x80]),
        ];
        for (magnitude, encoded) in cases {
            let mut out = Vec::new();
            out.put_mpint(magnitude);
            assert_eq!(out, encoded);
            assert_eq!(Reader::new(encoded).mpint(), Ok(magnitude));
        }
        // -1234 and -deadbeef: no field of this layer may be negative.
        for negative in [&[0, 0, 0, 2, 0xed, 0xcc][..], &[0, 0, 0, 5, 0xff, 0x21, 0x52, 0x41, 0x11]] {
            assert!(matches!(Reader::new(negative).mpint(), Err(WireError::Rule { .. })));
        }
        // Needless zeros: two encodings of one number would be two exchange hashes.
        for padded in [&[0, 0, 0, 1, 0][..], &[0, 0, 0, 2, 0, 0x7f]] {
            assert!(matches!(Reader::new(padded).mpint(), Err(WireError::Rule { .. })));
        }
    }

    /// RFC 4251 section 5, name-list.
    #[test]
    fn name_list_examples_of_the_rfc() {
        let cases: [(&[&str], &[u8]); 3] =
            [(&[], b"\0\0\0\0"), (&["zlib"], b"\0\0\0\x04zlib"), (&["zlib", "none"], b"\0\0\0\x09zlib,none")];
        for (names, encoded) in cases {
            let mut out = Vec::new();
            out.put_name_list(names.iter().copied());
            assert_eq!(out, encoded);
            let list = Reader::new(encoded).name_list().unwrap();
            assert_eq!(list.iter().collect::<Vec<_>>(), names);
        }
        for bad in [&b"\0\0\0\x01\0"[..], b"\0\0\0\x01\xff", b"\0\0\0\x03a, "] {
            assert!(Reader::new(bad).name_list().is_err());
        }
        for (encoded, first) in
            [(&b"\0\0\0\x01,"[..], None), (b"\0\0\0\x03a,,", Some("a")), (b"\0\0\0\x03,,a", Some("a"))]
        {
            let list = Reader::new(encoded).name_list().unwrap();
            assert_eq!(list.iter().collect::<Vec<_>>(), first.as_slice());
            assert!(list.first() == first && !list.contains(""));
        }
    }

    #[test]
    fn a_length_beyond_the_message_is_refused_and_moves_nothing() {
        let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff, 1]);
        assert_eq!(reader.string(), Err(WireError::Truncated { field: "string", missing: 0xffff_fffe }));
        assert_eq!(reader.rest().len(), 5);
    }

    proptest! {
        #[test]
        fn fields_round_trip(byte: u8, flag: bool, small: u32, large: u64, text: Vec<u8>, number: Vec<u8>) {
            let mut out = Vec::new();
            out.put_byte(byte);
            out.put_boolean(flag);
            out.put_uint32(small);
            out.put_uint64(large);
            out.put_string(&text);
            out.put_mpint(&number);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.byte().unwrap(), byte);
            prop_assert_eq!(reader.boolean().unwrap(), flag);
            prop_assert_eq!(reader.uint32().unwrap(), small);
            prop_assert_eq!(reader.uint64().unwrap(), large);
            prop_assert_eq!(reader.string().unwrap(), &text[..]);
            let stripped: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
            prop_assert_eq!(reader.mpint().unwrap(), &stripped[..]);
            prop_assert!(reader.finish().is_ok());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while reader.mpint().is_ok() && !reader.rest().is_empty() {}
            let mut reader = Reader::new(&bytes);
            while reader.name_list().is_ok() && !reader.rest().is_empty() {}
            let mut reader = Reader::new(&bytes);
            while reader.utf8().is_ok() && !reader.rest().is_empty() {}
        }
    }
}
