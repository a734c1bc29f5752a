//! Asks a witness to cosign (C2SP tlog-witness), and believes only what its key has signed.

use std::path::Path;
use std::time::Duration;

use custody_core::log::cosignature::Cosigned;
use custody_core::log::note::{Note, SignatureLine};
use custody_core::log::{Checkpoint, CosignerKey, Hash};
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;

use crate::add_checkpoint::AddCheckpoint;
use crate::source::{http_client, in_one_line};

/// A witness that first copies what it cosigns may take so long.
const ANSWER: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// What is told of an answer that wasn't expected, in characters.
const REASON_CHARS_MAX: usize = 200;

/// What a witness answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has cosigned: the signature was verified.
    Cosigned(Cosigned),
    /// 409: it has cosigned so many entries, and the submission began elsewhere (or the roots differ at that size).
    Conflict(u64),
    /// 422: the proof doesn't lead from what it has cosigned to the checkpoint.
    BadProof,
}

/// Why a witness gave no answer that counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It can't be reached, or is in trouble: later, perhaps.
    #[error("the witness {witness} can't be asked: {reason}")]
    Unreachable {
        /// Its name.
        witness: String,
        /// What happened.
        reason: String,
    },
    /// It doesn't know this log, or not with this key: somebody has to tell it.
    #[error("the witness {witness} doesn't take checkpoints of this log: {reason}")]
    Unknown {
        /// Its name.
        witness: String,
        /// What it says.
        reason: String,
    },
    /// It says yes, and its signature is missing or wrong: it isn't the witness whose key is pinned.
    #[error("the witness {witness} isn't who it should be: {reason}")]
    Forged {
        /// Its name.
        witness: String,
        /// What is wrong.
        reason: String,
    },
}

/// A witness to ask.
#[derive(Clone)]
pub struct Witness {
    http: reqwest::Client,
    url: String,
    key: CosignerKey,
}

impl Witness {
    /// The witness whose submission prefix is `url` and whose key is `key`. `ca` is a PEM file with the authorities that
    /// its certificate is checked against; the machine's own without one.
    ///
    /// # Errors
    /// When `ca` can't be read.
    pub fn new(url: &str, key: CosignerKey, ca: Option<&Path>) -> std::io::Result<Witness> {
        Ok(Witness { http: http_client(ca)?, url: url.trim_end_matches('/').to_owned(), key })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.key.name()
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &CosignerKey {
        &self.key
    }

    /// Its submission prefix.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Submits `checkpoint` with the `proof` that it follows from the first `old` entries.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask(&self, old: u64, proof: Vec<Hash>, checkpoint: &Checkpoint) -> Result<Answer, AskError> {
        let body = AddCheckpoint { old, proof, note: checkpoint.to_string() }.to_string();
        let request = self
            .http
            .post(format!("{}/add-checkpoint", self.url))
            .timeout(ANSWER)
            .header(CONTENT_TYPE, "text/plain; charset=utf-8")
            .body(body);
        let mut response = request.send().await.map_err(|error| self.unreachable(in_one_line(&error)))?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(piece) =
            response.chunk().await.map_err(|error| self.unreachable(in_one_line(&error)))?
        {
            if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(self.unreachable("its answer is too long".to_owned()));
            }
            bytes.extend_from_slice(&piece);
        }
        let text = String::from_utf8_lossy(&bytes);
        match status {
            StatusCode::OK => self.cosigned(&text, checkpoint).map(Answer::Cosigned),
            StatusCode::CONFLICT => match custody_core::log::checkpoint::parse_decimal(text.trim_end()) {
                Some(size) => Ok(Answer::Conflict(size)),
                None => Err(self.unreachable("it answered with a conflict and no size".to_owned())),
            },
            StatusCode::UNPROCESSABLE_ENTITY => Ok(Answer::BadProof),
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => Err(AskError::Unknown {
                witness: self.name().to_owned(),
                reason: format!("answered with {status}{}", said(&text)),
            }),
            _ => Err(self.unreachable(format!("answered with {status}{}", said(&text)))),
        }
    }

    fn cosigned(&self, lines: &str, checkpoint: &Checkpoint) -> Result<Cosigned, AskError> {
        let forged = |reason: String| AskError::Forged { witness: self.name().to_owned(), reason };
        let mut text = format!("{}\n", checkpoint.note().text());
        // Lines by others may stand there, and aren't ours to judge.
        for line in lines.lines() {
            let line = SignatureLine::parse(line).map_err(|error| forged(error.to_string()))?;
            text.push_str(&format!("{line}\n"));
        }
        let note = Note::parse(&text).map_err(|error| forged(error.to_string()))?;
        self.key.verify(&note).map_err(|error| forged(error.to_string()))
    }

    fn unreachable(&self, reason: String) -> AskError {
        AskError::Unreachable { witness: self.name().to_owned(), reason }
    }
}

/// The first line of what a server says, for people.
fn said(text: &str) -> String {
    let line: String = text
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(REASON_CHARS_MAX)
        .collect();
    if line.is_empty() { line } else { format!(": {line}") }
}
