//! The Time-Stamp Protocol (RFC 3161): a question about a SHA-256, and what is believed of the answer.
//!
//! Believed is that it answers this question: granted, of this hash, with this nonce. The authority's signature is for
//! whoever relies on the stamp, with the authority's own certificate: `openssl ts -verify`.

use cms::cert::x509::spki::AlgorithmIdentifier;
use cms::content_info::ContentInfo;
use cms::signed_data::SignedData;
use custody_core::event::Timestamp;
use der::asn1::{Any, Int, ObjectIdentifier, OctetString};
use der::{Decode as _, Encode as _, Reader as _, SliceReader, Tag, Tagged as _};
use x509_tsp::{MessageImprint, TimeStampReq, TspVersion};

/// An answer is a few KiB: a signature and some certificates. In base64 it must fit into an event.
pub const RESPONSE_BYTES_MAX: usize = 32 * 1024;
/// `id-sha256` (RFC 5754).
const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
/// `id-ct-TSTInfo` (RFC 3161, section 2.4.2).
const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");
/// `id-signedData` (RFC 5652).
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
/// `granted` and `grantedWithMods` (RFC 3161, section 2.4.2).
const GRANTED_MAX: u8 = 1;

/// Why an answer isn't a stamp.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StampError {
    /// It isn't a TimeStampResp, or is one that a stamp can't be.
    #[error("the answer isn't a time stamp: {0}")]
    Malformed(String),
    /// The authority refused.
    #[error("the authority refused: PKIStatus {0}")]
    Refused(u8),
    /// It is a stamp of something else, or of another question.
    #[error("the stamp has another {0} than the question")]
    Other(&'static str),
}

fn malformed(error: impl ToString) -> StampError {
    StampError::Malformed(error.to_string())
}

/// What is asked.
pub struct Question {
    hash: [u8; 32],
    nonce: Int,
}

impl Question {
    /// About this SHA-256; `random` makes the nonce, so that an old answer can't be given again.
    pub fn new(hash: [u8; 32], mut random: [u8; 16]) -> Result<Self, StampError> {
        // A positive integer in its shortest form, whatever the random bytes are.
        random[0] = random[0] & 0x3f | 0x40;
        Ok(Self { hash, nonce: Int::new(&random).map_err(malformed)? })
    }

    fn imprint(&self) -> Result<MessageImprint, StampError> {
        Ok(MessageImprint {
            hash_algorithm: AlgorithmIdentifier { oid: SHA_256, parameters: Some(Any::null()) },
            hashed_message: OctetString::new(self.hash).map_err(malformed)?,
        })
    }

    /// The TimeStampReq in DER; asks for the authority's certificate, which the stamp is verified with.
    pub fn encode(&self) -> Result<Vec<u8>, StampError> {
        let request = TimeStampReq {
            version: TspVersion::V1,
            message_imprint: self.imprint()?,
            req_policy: None,
            nonce: Some(self.nonce.clone()),
            cert_req: true,
            extensions: None,
        };
        request.to_der().map_err(malformed)
    }

    /// The time that the answer, a TimeStampResp in DER, says.
    pub fn believe(&self, answer: &[u8]) -> Result<Timestamp, StampError> {
        let (status, token) = read_response(answer).map_err(malformed)?;
        if status > GRANTED_MAX {
            return Err(StampError::Refused(status));
        }
        let token = token.filter(|token| token.content_type == SIGNED_DATA);
        let token = token.ok_or_else(|| malformed("it holds no signed data"))?;
        let signed: SignedData = token.content.decode_as().map_err(malformed)?;
        let content = signed.encap_content_info;
        let info = content.econtent.filter(|_| content.econtent_type == TST_INFO);
        let info = info.ok_or_else(|| malformed("what is signed isn't a TSTInfo"))?;
        let info = read_info(info.value()).map_err(malformed)?;
        if info.imprint.hash_algorithm.oid != SHA_256 || info.imprint.hashed_message.as_bytes() != self.hash {
            return Err(StampError::Other("hash"));
        }
        if info.nonce.as_deref() != Some(self.nonce.as_bytes()) {
            return Err(StampError::Other("nonce"));
        }
        generalized_time(&info.time).ok_or_else(|| malformed("its time can't be read"))
    }
}

/// `TimeStampResp`: PKIStatus and token.
fn read_response(answer: &[u8]) -> der::Result<(u8, Option<ContentInfo>)> {
    let mut reader = SliceReader::new(answer)?;
    let read = reader.sequence(|response| {
        let status = response.sequence(|info| {
            let status = u8::decode(info)?;
            // Why, in words and bits: not needed.
            while !info.is_finished() {
                let _why = Any::decode(info)?;
            }
            Ok(status)
        })?;
        let token = if response.is_finished() { None } else { Some(ContentInfo::decode(response)?) };
        Ok((status, token))
    })?;
    reader.finish(read)
}

/// What is read of a `TSTInfo`.
struct Info {
    imprint: MessageImprint,
    time: Vec<u8>,
    nonce: Option<Vec<u8>>,
}

fn read_info(bytes: &[u8]) -> der::Result<Info> {
    let mut reader = SliceReader::new(bytes)?;
    let info = reader.sequence(|info| {
        let _version = TspVersion::decode(info)?;
        let _policy = ObjectIdentifier::decode(info)?;
        let imprint = MessageImprint::decode(info)?;
        let _serial = Int::decode(info)?;
        let time = Any::decode(info)?;
        let mut nonce = None;
        // Of what is optional (accuracy, ordering, nonce, the authority's name, extensions) only the nonce is an integer.
        while !info.is_finished() {
            let optional = Any::decode(info)?;
            if optional.tag() == Tag::Integer {
                nonce = Some(optional.value().to_vec());
            }
        }
        Ok(Info { imprint, time: time.value().to_vec(), nonce })
    })?;
    reader.finish(info)
}

/// `YYYYMMDDhhmmss[.f…]Z`; authorities may give fractions of a second (RFC 3161, section 2.4.2).
fn generalized_time(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    // The parser below would take a lone digit for the seconds.
    if whole.len() != 14 {
        return None;
    }
    let time = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", whole).ok()?;
    let seconds = u64::try_from(jiff::tz::TimeZone::UTC.to_timestamp(time).ok()?.as_second()).ok()?;
    if fraction.len() > 9 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nanos: u64 = format!("{fraction:0<9}").parse().ok()?;
    Some(Timestamp::from_nanos(seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_with_and_without_fractions() {
        let time = |text: &str| generalized_time(text.as_bytes()).map(|time| time.to_string());
        assert_eq!(time("20230607121226Z").unwrap(), "2023-06-07T12:12:26.000000000Z");
        assert_eq!(time("20230607121226.34352Z").unwrap(), "2023-06-07T12:12:26.343520000Z");
        for wrong in
            ["20230607121226", "2023060712122Z", "20231307121226Z", "20230607121226.1234567890Z", "Z", ""]
        {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_refusal_says_its_status() {
        let question = Question::new([7; 32], [0xff; 16]).unwrap();
        // PKIStatusInfo { rejection(2), "no" }, no token.
        let refused = [0x30, 0x0b, 0x30, 0x09, 0x02, 0x01, 0x02, 0x30, 0x04, 0x0c, 0x02, b'n', b'o'];
        assert_eq!(question.believe(&refused), Err(StampError::Refused(2)));
        let empty = [0x30, 0x05, 0x30, 0x03, 0x02, 0x01, 0x00];
        assert!(matches!(question.believe(&empty), Err(StampError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn no_answer_panics_or_is_believed(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Question::new([7; 32], [1; 16]).unwrap().believe(&bytes).is_err());
        }
    }
}
