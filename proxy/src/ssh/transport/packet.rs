//! Binary packets (RFC 4253 section 6): `Tx` seals payloads to the end of a buffer, `Rx` opens them in place.
//! Both number packets, count what went under the present key, and start again at 0 where strict key exchange
//! says so.

use std::ops::Range;

use super::cipher::{LENGTH_LEN, Opener, Sealer, TAG_LEN_MAX};
use super::error::{ApiMisuse, Error, PeerMisbehaved};

/// Longest packet before authentication, bytes of `packet_length`: what RFC 4253 section 6.1 asks everybody
/// to take (35,000), so that a stranger costs us no more.
pub const LENGTH_MAX_BEFORE_LOGIN: usize = 35_000;
/// Longest payload after authentication, bytes: OpenSSH sends at most 32 KiB of data a packet, PuTTY and
/// others up to what a channel allows; OpenSSH itself takes 256 KiB.
pub const PAYLOAD_MAX: usize = 256 * 1024;
/// Longest packet after authentication, bytes of `packet_length`: a payload, its padding and padding length.
pub const LENGTH_MAX: usize = PAYLOAD_MAX + 1 + 255;
/// Packets under one key before the connection must end: sequence numbers, which are chacha20-poly1305's
/// nonces, have 32 bits, and GCM's counter must not come round. Keys are renewed long before (rekey.rs).
pub const PACKETS_PER_KEY_MAX: u64 = (1 << 32) - 1;
/// Shortest padding (RFC 4253 section 6), bytes.
const PADDING_MIN: usize = 4;

/// What went under the present key of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Packets.
    pub packets: u64,
    /// Bytes on the wire.
    pub bytes: u64,
}

impl Usage {
    fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }
}

/// The receiving direction.
pub struct Rx {
    opener: Opener,
    sequence: u32,
    usage: Usage,
    length_max: usize,
}

/// A packet that was opened in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Where its payload lies now; at least one byte.
    pub payload: Range<usize>,
    /// How many bytes the packet took.
    pub consumed: usize,
    /// Its sequence number (SSH_MSG_UNIMPLEMENTED names it).
    pub sequence: u32,
}

impl Default for Rx {
    fn default() -> Self {
        Self {
            opener: Opener::clear(),
            sequence: 0,
            usage: Usage::default(),
            length_max: LENGTH_MAX_BEFORE_LOGIN,
        }
    }
}

impl Rx {
    /// How many bytes the packet at the start of `buffer` has in all, tag included; `None` while there are
    /// fewer than 4 bytes.
    ///
    /// # Errors
    /// [`PeerMisbehaved::PacketLength`] before anything is waited for or allocated;
    /// [`PeerMisbehaved::KeyExhausted`].
    pub fn total_len(&self, buffer: &[u8]) -> Result<Option<usize>, Error> {
        let Some(field) = buffer.first_chunk::<LENGTH_LEN>() else { return Ok(None) };
        if self.usage.packets >= PACKETS_PER_KEY_MAX {
            return Err(PeerMisbehaved::KeyExhausted.into());
        }
        let length = self.opener.claimed_length(self.sequence, *field) as usize;
        let (block, with_length) = self.opener.block();
        let counted = if with_length { length.saturating_add(LENGTH_LEN) } else { length };
        // padding length, one byte of payload, padding
        let min = 1 + 1 + PADDING_MIN;
        if length < min || length > self.length_max || !counted.is_multiple_of(block) {
            return Err(PeerMisbehaved::PacketLength { got: length, min, max: self.length_max, block }.into());
        }
        Ok(Some(LENGTH_LEN + length + self.opener.tag_len()))
    }

    /// Opens the packet at the start of `buffer` in place; `None` if it isn't there whole.
    ///
    /// # Errors
    /// What the peer did wrong; no further packet can be opened then.
    pub fn open(&mut self, buffer: &mut [u8]) -> Result<Option<Opened>, Error> {
        let Some(total) = self.total_len(buffer)? else { return Ok(None) };
        let Some(packet) = buffer.get_mut(..total) else { return Ok(None) };
        let sequence = self.sequence;
        let (packet, tag) = packet.split_at_mut(total - self.opener.tag_len());
        self.opener.open(sequence, packet, tag)?;

        let length = packet.len() - LENGTH_LEN;
        let padding = usize::from(packet.get(LENGTH_LEN).copied().unwrap_or_default());
        // One byte for the padding length itself, one at least for the payload.
        if padding < PADDING_MIN || padding + 2 > length {
            return Err(PeerMisbehaved::Padding { length, padding }.into());
        }
        self.sequence = sequence.wrapping_add(1);
        self.usage.count(total);
        let payload = LENGTH_LEN + 1..LENGTH_LEN + length - padding;
        Ok(Some(Opened { payload, consumed: total, sequence }))
    }

    /// Takes new keys, after the peer's NEWKEYS.
    pub fn new_keys(&mut self, opener: Opener, reset_sequence: bool) {
        self.opener = opener;
        self.usage = Usage::default();
        if reset_sequence {
            self.sequence = 0;
        }
    }

    /// Allows packets as large as peers may send once they have logged in.
    pub fn allow_large(&mut self) {
        self.length_max = LENGTH_MAX;
    }

    /// The number that the next packet will have.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    /// What went under the present key.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }
}

/// The sending direction.
pub struct Tx {
    sealer: Sealer,
    sequence: u32,
    usage: Usage,
}

impl Default for Tx {
    fn default() -> Self {
        Self { sealer: Sealer::clear(), sequence: 0, usage: Usage::default() }
    }
}

impl Tx {
    /// Seals `payload` as one packet to the end of `out`: one copy, no allocation but `out`'s own growth.
    ///
    /// # Errors
    /// [`ApiMisuse::TooLong`], [`ApiMisuse::NotOurs`] for an empty payload, [`PeerMisbehaved::KeyExhausted`],
    /// [`Error::Crypto`]; `out` is then as it was.
    pub fn seal(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        if payload.len() > PAYLOAD_MAX {
            return Err(ApiMisuse::TooLong { got: payload.len(), max: PAYLOAD_MAX }.into());
        }
        if payload.is_empty() {
            return Err(ApiMisuse::NotOurs { got: 0 }.into());
        }
        if self.usage.packets >= PACKETS_PER_KEY_MAX {
            return Err(PeerMisbehaved::KeyExhausted.into());
        }
        let start = out.len();
        self.append(payload, start, out).inspect_err(|_| out.truncate(start))?;
        self.sequence = self.sequence.wrapping_add(1);
        self.usage.count(out.len() - start);
        Ok(())
    }

    fn append(&mut self, payload: &[u8], start: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let (block, with_length) = self.sealer.block();
        let fixed = 1 + payload.len() + if with_length { LENGTH_LEN } else { 0 };
        let padding = match block - fixed % block {
            short if short < PADDING_MIN => short + block,
            enough => enough,
        };
        let length = 1 + payload.len() + padding;
        let mut random = [0; 32]; // block + PADDING_MIN - 1 at most
        let random = random.get_mut(..padding).ok_or(Error::Crypto("pad a packet"))?;
        aws_lc_rs::rand::fill(random).map_err(|_| Error::Crypto("get random padding"))?;

        out.reserve(LENGTH_LEN + length + TAG_LEN_MAX);
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        out.push(u8::try_from(padding).unwrap_or(u8::MAX));
        out.extend_from_slice(payload);
        out.extend_from_slice(random);
        let packet = out.get_mut(start..).unwrap_or_default();
        let tag = self.sealer.seal(self.sequence, packet)?;
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Takes new keys, after our NEWKEYS.
    pub fn new_keys(&mut self, sealer: Sealer, reset_sequence: bool) {
        self.sealer = sealer;
        self.usage = Usage::default();
        if reset_sequence {
            self.sequence = 0;
        }
    }

    /// The number that the next packet will have.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    /// What went under the present key.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }
}

#[cfg(test)]
mod tests {
    use super::super::cipher::{Cipher, KeyMaterial, Protection};
    use super::super::mac::Mac;
    use super::*;
    use proptest::prelude::*;

    fn pair(protection: Option<Protection>) -> (Tx, Rx) {
        let (mut tx, mut rx) = (Tx::default(), Rx::default());
        if let Some(protection) = protection {
            let mut key = [0; 64];
            key.iter_mut().zip(1..).for_each(|(byte, value)| *byte = value);
            // The counter's last value: it runs on, modulo 2^64 (GCM) or 2^128 (counter mode).
            let material = KeyMaterial { key, iv: [0xff; 16], mac: [0x5a; 64] };
            tx.new_keys(Sealer::new(protection, &material).unwrap(), true);
            rx.new_keys(Opener::new(protection, &material).unwrap(), true);
        }
        (tx, rx)
    }

    /// Every cipher, with every MAC where it needs one.
    fn protections() -> impl Iterator<Item = Protection> {
        Cipher::ALL.into_iter().flat_map(|cipher| {
            let macs = if cipher.needs_mac() { Mac::ALL.map(Some).to_vec() } else { vec![None] };
            macs.into_iter().map(move |mac| Protection { cipher, mac })
        })
    }

    fn all() -> impl Iterator<Item = Option<Protection>> {
        std::iter::once(None).chain(protections().map(Some))
    }

    #[test]
    fn packets_round_trip_and_shorter_buffers_wait() {
        for cipher in all() {
            let (mut tx, mut rx) = pair(cipher);
            rx.allow_large();
            let mut wire = Vec::new();
            let payloads: Vec<Vec<u8>> =
                [1, 2, 11, 12, 13, 255, 4096, 35_000, PAYLOAD_MAX].iter().map(|n| vec![7; *n]).collect();
            for payload in &payloads {
                tx.seal(payload, &mut wire).unwrap();
            }
            let mut rest = &mut wire[..];
            for payload in &payloads {
                let total = rx.total_len(rest).unwrap().unwrap();
                for short in [0, 3, 4, total - 1] {
                    assert_eq!(rx.open(&mut rest[..short]).unwrap(), None, "{cipher:?}");
                }
                let opened = rx.open(rest).unwrap().unwrap();
                assert_eq!(&rest[opened.payload.clone()], payload);
                rest = &mut rest[opened.consumed..];
            }
            assert!(rest.is_empty());
            assert_eq!(rx.usage(), tx.usage());
            assert_eq!(rx.sequence(), payloads.len() as u32);
        }
    }

    /// Packets that another library made by the ciphers' specifications: Python's `cryptography`, with the keys
    /// 1, 2, 3 …, the IV 0x81, 0x82 …, the MAC key 0xa0, 0xa1 …, sequence number 0x01020304 and padding of 0xee.
    #[test]
    fn packets_made_by_another_library_are_opened() {
        let (mut key, mut iv, mut mac) = ([0; 64], [0; 16], [0; 64]);
        let bytes: [(&mut [u8], u8); 3] = [(&mut key, 1), (&mut iv, 0x81), (&mut mac, 0xa0)];
        for (bytes, first) in bytes {
            bytes.iter_mut().zip(first..).for_each(|(byte, value)| *byte = value);
        }
        let material = KeyMaterial { key, iv, mac };
        let vectors = [
            (
                (Cipher::Aes128Gcm, None),
                "000000200935ddcd3714de39c8cecc93821f9553f24dbd87182efccf7646424c\
                 a3f365994d25c67fed7f0d3ab479a343fb902eef",
            ),
            (
                (Cipher::Aes256Gcm, None),
                "000000206db8e84553f0c6ab72e04628abb7589778607828a345b12a452cfceb\
                 01f34ec005232c39a9be7877e9650eea32948c70",
            ),
            (
                (Cipher::ChaCha20Poly1305, None),
                "ab8315b227a1781120dad1f1563deeeed6d6fdd6b6ebb873811bb9f05b6a8567\
                 3dc3ee5f1b19f5ffd712aea663879a7bb93c1377",
            ),
            (
                (Cipher::Aes128Ctr, Some(Mac::HmacSha256Etm)),
                "00000020ba2dac93623600b2b60910822327ccacf97ba1933fcdb7b4af4f4250\
                 8abd11359e2e42a8ad53544d0749d533b168baeb08e36353a0011fabd9be8b22\
                 e1241df5",
            ),
            (
                (Cipher::Aes256Ctr, Some(Mac::HmacSha512Etm)),
                "000000206a3c7a47996d48ede1b4fa82c53a0b9450c8fecf7cf92ce030902820\
                 915a3f7df97ddf2a366ed54a8a2bac571cd6bbd8b9e260d675492ded305805df\
                 8ef278b577dd0f076c48ed52a1c1f1b853e6da728895095dd33ec0801084ddbc\
                 f71d71a1",
            ),
            (
                (Cipher::Aes128Ctr, Some(Mac::HmacSha256)),
                "b173ac8f656f00b2b60578e74f40cbe5b564bdd73e502a32604f42508abd1135\
                 6425fa5a1314f72ed83fc1b06857a5917a9fbf39ca87fc0f0a38eb7e158d4ce9",
            ),
            (
                (Cipher::Aes256Ctr, Some(Mac::HmacSha512)),
                "61627a5b9e3448ede1b892e7a95d0cdd1cd7e28b7d64b166ff902820915a3f7d\
                 5f2ea6ae8bc5a0222eb97e6c4a13cff0a0f3cad6bcfe48b23c994d29100980db\
                 8216184b88cf5541eb379b79ec4d0ea99b1183cdab93f198e7981e68a42b48c2",
            ),
        ];
        for ((cipher, mac), wire) in vectors {
            let mut rx = Rx::default();
            rx.new_keys(Opener::new(Protection { cipher, mac }, &material).unwrap(), true);
            rx.sequence = 0x0102_0304;
            let byte = |at: usize| u8::from_str_radix(&wire[at..at + 2], 16).unwrap();
            let mut wire: Vec<u8> = (0..wire.len()).step_by(2).map(byte).collect();
            let opened = rx.open(&mut wire).unwrap().unwrap();
            assert_eq!(&wire[opened.payload], b"\x5e\0\0\0\x07\0\0\0\x0bhello, ssh!", "{cipher:?}");
            assert_eq!(opened.consumed, wire.len());
        }
    }

    #[test]
    fn every_flipped_bit_is_refused_or_never_completes() {
        for cipher in protections() {
            let mut sealed = Vec::new();
            pair(Some(cipher)).0.seal(b"\x5ea payload of some length", &mut sealed).unwrap();
            for bit in 0..sealed.len() * 8 {
                let mut altered = sealed.clone();
                altered[bit / 8] ^= 1 << (bit % 8);
                // A longer claimed length waits for more bytes; whatever they are, the tag won't fit.
                altered.extend_from_slice(&[0; LENGTH_MAX_BEFORE_LOGIN]);
                let outcome = pair(Some(cipher)).1.open(&mut altered);
                assert!(
                    matches!(outcome, Err(Error::PeerMisbehaved(_))),
                    "{cipher:?} bit {bit}: {outcome:?}"
                );
            }
        }
    }

    #[test]
    fn a_packet_out_of_its_turn_is_refused() {
        for cipher in protections() {
            let (mut tx, mut rx) = pair(Some(cipher));
            let (mut first, mut second) = (Vec::new(), Vec::new());
            tx.seal(b"\x5e1", &mut first).unwrap();
            tx.seal(b"\x5e2", &mut second).unwrap();
            assert!(rx.open(&mut second.clone()).is_err(), "{cipher:?}: dropped");
            let (_, mut rx) = pair(Some(cipher));
            assert!(rx.open(&mut first.clone()).unwrap().is_some());
            assert!(rx.open(&mut first).is_err(), "{cipher:?}: replayed");
        }
    }

    #[test]
    fn lengths_and_padding_are_bounded_before_anything_is_waited_for() {
        let open = |bytes: &[u8]| Rx::default().open(&mut bytes.to_vec());
        for length in [0u32, 1, 5, 13, 35_004, 0x7fff_fffc, u32::MAX] {
            let outcome = open(&length.to_be_bytes());
            assert!(
                matches!(outcome, Err(Error::PeerMisbehaved(PeerMisbehaved::PacketLength { .. }))),
                "{length}"
            );
        }
        // The longest that RFC 4253 asks for, and that fits the block, is waited for.
        assert_eq!(open(&34_996u32.to_be_bytes()), Ok(None));
        for padding in [0, 3, 11, 12, 255] {
            let mut packet = 12u32.to_be_bytes().to_vec();
            packet.push(padding);
            packet.extend_from_slice(&[0; 11]);
            assert!(
                matches!(open(&packet), Err(Error::PeerMisbehaved(PeerMisbehaved::Padding { .. }))),
                "{padding}"
            );
        }
    }

    #[test]
    fn a_key_is_used_up_rather_than_a_nonce_used_twice() {
        for cipher in protections() {
            let (mut tx, mut rx) = pair(Some(cipher));
            tx.usage.packets = PACKETS_PER_KEY_MAX - 1;
            rx.usage.packets = PACKETS_PER_KEY_MAX - 1;
            let mut wire = Vec::new();
            tx.seal(b"\x5elast", &mut wire).unwrap();
            assert_eq!(
                tx.seal(b"\x5eone too many", &mut Vec::new()),
                Err(PeerMisbehaved::KeyExhausted.into())
            );
            assert!(rx.open(&mut wire.clone()).unwrap().is_some());
            assert_eq!(rx.open(&mut wire), Err(PeerMisbehaved::KeyExhausted.into()));
        }
    }

    proptest! {
        #[test]
        fn any_payload_round_trips(payload in proptest::collection::vec(any::<u8>(), 1..600), which in 0..12usize) {
            let (mut tx, mut rx) = pair(all().nth(which).flatten());
            let mut wire = Vec::new();
            tx.seal(&payload, &mut wire).unwrap();
            let opened = rx.open(&mut wire).unwrap().unwrap();
            prop_assert_eq!(&wire[opened.payload], &payload[..]);
            prop_assert_eq!(opened.consumed, wire.len());
        }

        #[test]
        fn random_bytes_never_panic(mut bytes: Vec<u8>, which in 0..12usize) {
            let (_, mut rx) = pair(all().nth(which).flatten());
            if let Ok(Some(opened)) = rx.open(&mut bytes) {
                prop_assert!(opened.payload.end <= bytes.len());
            }
        }
    }
}
