//! Rotation of our host keys (OpenSSH's PROTOCOL section 2.5): after login clients are told all of them,
//! `hostkeys-00@openssh.com`, those too that come into use later; a client that keeps a list of known hosts asks
//! us to prove the ones that are new to it, `hostkeys-prove-00@openssh.com`, and so knows the next key before the
//! old one goes. What a target says of *its* keys never reaches a client: it isn't the client's peer.

use super::message::Message;
use super::relay::{Gating, Refusal, Side, Verdict};
use super::transport::host_key::{HostKey, HostKeyAlgorithm, Scheme};
use super::transport::leg::{Leg, ServerConfig};
use super::transport::wire::{Put as _, Reader};
use std::sync::Arc;

/// The client's question.
const PROVE: &[u8] = b"hostkeys-prove-00@openssh.com";
const ANNOUNCE: &[u8] = b"hostkeys-00@openssh.com";
/// How often one connection may ask: each key costs a signature, and a client asks once.
const PROOFS_MAX: u32 = 4;

/// The global request that tells a client our host keys, in the clear as it were: no certificates.
#[must_use]
pub fn announcement(config: &ServerConfig) -> Vec<u8> {
    let mut keys = Vec::new();
    all(config).for_each(|key| keys.put_string(key.plain_blob()));
    Message::GlobalRequest { name: ANNOUNCE, want_reply: false, data: &keys }.to_payload()
}

fn all(config: &ServerConfig) -> impl Iterator<Item = &HostKey> {
    config.host_keys.iter().chain(&config.upcoming_host_keys)
}

/// Proves our host keys to the client of one connection.
pub struct HostProver {
    config: Arc<ServerConfig>,
    session_id: Vec<u8>,
    /// How an RSA key signs: as it did in the key exchange, if it did there (sshd does the same).
    rsa: Scheme,
    left: u32,
}

impl HostProver {
    /// For the connection of this leg.
    #[must_use]
    pub fn new(config: Arc<ServerConfig>, leg: &Leg) -> Self {
        let negotiated = leg.own_host_key().map(|(algorithm, _)| algorithm);
        let rsa = match negotiated {
            Some(HostKeyAlgorithm { scheme: Scheme::RsaSha256, .. }) => Scheme::RsaSha256,
            _ => Scheme::RsaSha512,
        };
        Self { config, session_id: leg.session_id().unwrap_or_default().to_vec(), rsa, left: PROOFS_MAX }
    }

    /// What becomes of a message, if it is the client's question about our keys.
    pub fn see(&mut self, from: Side, message: &Message<'_>) -> Option<Gating> {
        let Message::GlobalRequest { name, data, .. } = message else { return None };
        (from == Side::Client && *name == PROVE).then(|| {
            Gating::Decided(match self.prove(data) {
                Some(proofs) => Verdict::Answer(proofs),
                None => Verdict::Refuse(Refusal::prohibited("these can't be proved")),
            })
        })
    }

    /// The answer to the question about these keys: a signature for each, in their order. `None`, which is told as a
    /// failure, if one of them isn't ours, or twice there, or it was asked too often.
    fn prove(&mut self, asked: &[u8]) -> Option<Vec<u8>> {
        self.left = self.left.checked_sub(1)?;
        let mut reader = Reader::new(asked);
        let (mut proofs, mut proved) = (Vec::new(), Vec::new());
        while !reader.rest().is_empty() {
            let blob = reader.string().ok()?;
            if proved.contains(&blob) {
                return None;
            }
            proved.push(blob);
            let key = all(&self.config).find(|key| key.plain_blob() == blob)?;
            let schemes = key.algorithms();
            let scheme = schemes.iter().map(|algorithm| algorithm.scheme);
            let scheme = scheme.clone().find(|scheme| *scheme == self.rsa).or(scheme.clone().next())?;
            let mut signed = Vec::new();
            signed.put_string(PROVE);
            signed.put_string(&self.session_id);
            signed.put_string(blob);
            // A key that can't sign is one that isn't proved.
            proofs.put_string(&key.sign(scheme, &signed).ok()?);
        }
        Some(proofs)
    }
}

#[cfg(test)]
mod tests {
    use super::super::transport::host_key::HostKeyOffered;
    use super::super::transport::host_key::tests::{ed25519, rsa};
    use super::*;

    fn prover(rsa_scheme: Scheme) -> (HostProver, Vec<HostKeyOffered>) {
        let [current, rsa_key, next] = [ed25519(), rsa(2048), ed25519()];
        let host = |key| HostKey::new(key, None).unwrap();
        let mut config = ServerConfig::new(vec![host(&current), host(&rsa_key)]);
        config.upcoming_host_keys = vec![host(&next)];
        let offered = [(&current, Scheme::Ed25519), (&rsa_key, rsa_scheme), (&next, Scheme::Ed25519)].map(
            |(key, scheme)| {
                let algorithm = HostKeyAlgorithm { scheme, certificate: false };
                HostKeyOffered::decode(algorithm, &key.public_key().to_bytes().unwrap()).unwrap()
            },
        );
        let prover = HostProver {
            config: Arc::new(config),
            session_id: vec![7; 32],
            rsa: rsa_scheme,
            left: PROOFS_MAX,
        };
        (prover, offered.into())
    }

    #[test]
    fn all_keys_are_told_and_each_can_be_proved() {
        for rsa_scheme in [Scheme::RsaSha256, Scheme::RsaSha512] {
            let (mut prover, keys) = prover(rsa_scheme);
            let told = announcement(&prover.config);
            let Ok(Message::GlobalRequest { name, want_reply: false, data }) = Message::parse(&told) else {
                panic!("{told:?}")
            };
            assert_eq!(name, ANNOUNCE);
            let mut reader = Reader::new(data);
            for key in &keys {
                assert_eq!(reader.string().unwrap(), key.blob);
            }
            let proofs = prover.prove(data).unwrap();
            let mut reader = Reader::new(&proofs);
            for key in &keys {
                let mut signed = Vec::new();
                signed.put_string(b"hostkeys-prove-00@openssh.com");
                signed.put_string(&[7; 32]);
                signed.put_string(&key.blob);
                key.verify(&signed, reader.string().unwrap()).unwrap();
            }
            reader.finish().unwrap();
        }
    }

    #[test]
    fn nothing_is_proved_that_is_not_ours_or_too_often() {
        let (mut prover, keys) = prover(Scheme::RsaSha512);
        let question = |blobs: &[&[u8]]| {
            let mut out = Vec::new();
            blobs.iter().for_each(|blob| out.put_string(blob));
            out
        };
        let stranger = ed25519().public_key().to_bytes().unwrap();
        assert_eq!(prover.prove(&question(&[&keys[0].blob, &stranger])), None);
        assert_eq!(prover.prove(&question(&[&keys[0].blob, &keys[0].blob])), None);
        assert_eq!(prover.prove(b"\0\0\0\x09short"), None);
        assert!(prover.prove(&question(&[&keys[2].blob])).is_some());
        assert_eq!(prover.prove(&question(&[&keys[2].blob])), None, "asked five times");
    }
}
