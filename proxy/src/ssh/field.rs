//! The fields that SSH messages and certificates are made of (RFC 4251 section 5), read from bytes of others.
//!
//! Every read gives `None` when the bytes don't hold what is asked: nothing here panics or allocates.

/// What is left to read of one message.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    /// RFC 4251: every value but zero is true.
    pub(crate) fn boolean(&mut self) -> Option<bool> {
        self.byte().map(|byte| byte != 0)
    }

    pub(crate) fn uint32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub(crate) fn uint64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    /// A string: any bytes, with their length before them.
    pub(crate) fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.uint32()?).ok()?;
        let (string, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(string)
    }

    /// True once everything has been read.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A string of a name, a path or a command as OpenSSH reads it, and whatever else is written in C: one zero byte at its
/// end is none of it. `None`: another one stands in it, and who reads on behind it reads another string.
pub(crate) fn c_string(string: &[u8]) -> Option<&[u8]> {
    let text = string.strip_suffix(b"\0").unwrap_or(string);
    (!text.contains(&0)).then_some(text)
}

/// Appends a string with its length before it.
pub(crate) fn put_string(out: &mut Vec<u8>, string: &[u8]) {
    // Nothing that we write comes near 4 GiB: packets are far smaller.
    let length = u32::try_from(string.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(string);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn strings_come_back(strings in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..8)) {
            let mut bytes = Vec::new();
            for string in &strings {
                put_string(&mut bytes, string);
            }
            let mut fields = Fields::new(&bytes);
            for string in &strings {
                prop_assert_eq!(fields.string(), Some(string.as_slice()));
            }
            prop_assert!(fields.is_empty());
            prop_assert_eq!(fields.string(), None);
        }

        #[test]
        fn a_cut_string_is_refused(string in proptest::collection::vec(any::<u8>(), 1..64), cut in 1usize..64) {
            let mut bytes = Vec::new();
            put_string(&mut bytes, &string);
            bytes.truncate(bytes.len().saturating_sub(cut));
            prop_assert_eq!(Fields::new(&bytes).string(), None);
        }
    }

    /// The table is what `sshbuf_get_cstring` does with them.
    #[test]
    fn one_zero_byte_at_the_end_is_none_of_a_string() {
        let table: &[(&[u8], Option<&[u8]>)] = &[
            (b"sftp", Some(b"sftp")),
            (b"sftp\0", Some(b"sftp")),
            (b"", Some(b"")),
            (b"\0", Some(b"")),
            (b"sftp\0\0", None),
            (b"sf\0tp", None),
            (b"\0sftp", None),
            (b"sf\0tp\0", None),
        ];
        for (string, read) in table {
            assert_eq!(c_string(string), *read, "{string:?}");
        }
    }

    #[test]
    fn numbers_and_booleans() {
        let mut fields = Fields::new(&[2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 1, 0, 9]);
        assert_eq!(fields.boolean(), Some(true));
        assert_eq!(fields.uint32(), Some(7));
        assert_eq!(fields.uint64(), Some(256));
        assert_eq!(fields.byte(), Some(9));
        assert_eq!(fields.byte(), None);
    }
}
