//! Bytes as lower-case hexadecimal: how events write hashes.

/// `bytes` in lower-case hex, two digits a byte.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let mut text = vec![0; bytes.len() * 2];
    for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
    // Digits are ASCII.
    String::from_utf8(text).unwrap_or_default()
}

/// The 32 bytes of a hash that `text` writes in lower-case hex.
#[must_use]
pub fn hash_from_hex(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != hash.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(hash)
}

/// The value of one lower-case digit.
#[must_use]
pub const fn digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_hash_comes_back(hash in any::<[u8; 32]>()) {
            let text = to_hex(&hash);
            prop_assert_eq!(hash.map(|byte| format!("{byte:02x}")).concat(), text.as_str());
            prop_assert_eq!(hash_from_hex(&text), Some(hash));
        }
    }

    #[test]
    fn what_is_no_hash_is_none() {
        for text in ["", "00", &"0".repeat(63), &"0".repeat(65), &"G".repeat(64), &"A".repeat(64)] {
            assert_eq!(hash_from_hex(text), None, "{text}");
        }
    }
}
