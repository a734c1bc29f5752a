//! What a string of JSON holds as it is.

/// How many bytes stand before the first quote, backslash or control character: looked at eight at a time, since most of
/// an event is strings.
#[inline]
pub(crate) fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_le_bytes([0x80; 8]);
    // The lowest high bit that is left marks the first byte below `limit`; those behind it may be marked wrongly.
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGHS;
    let (words, rest) = bytes.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let found = quote | backslash | below(word, 0x20);
        if found != 0 {
            return 8 * number + found.trailing_zeros() as usize / 8;
        }
    }
    let plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0..=0x1f);
    8 * words.len() + rest.iter().take_while(|byte| plain(byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn plain_bytes_end_where_the_first_other_stands(
            bytes in prop::collection::vec(prop_oneof![
                8 => any::<u8>(), 1 => Just(b'"'), 1 => Just(b'\\'), 1 => Just(0x20), 1 => Just(0x1f), 4 => 0x21..=0xffu8,
            ], 0..40),
        ) {
            let first = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
            prop_assert_eq!(plain_bytes(&bytes), first.unwrap_or(bytes.len()));
        }
    }
}
