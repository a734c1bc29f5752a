//! Trust that goes from key to key: how whoever pinned the log's first key believes a checkpoint of its third.
//!
//! A new key is told by `log.key-added` while the old one still signs; `log.key-retired` holds the newest checkpoint
//! that the old key has signed, and that one covers the new key's event. So the log itself holds the proof, and no key
//! is believed that an older trusted one hasn't signed for.

use super::checkpoint::CheckpointError;
use super::tree::{Tree, leaf_hash};
use super::{Checkpoint, VerifierKey};
use crate::event::{Event, Family, Payload};

/// The keys that are believed so far, by reading a log in its order.
#[derive(Debug)]
pub struct KeyChain {
    trusted: Vec<VerifierKey>,
    /// Keys that were told and that no trusted key has signed for yet, with their events' indices.
    told: Vec<(u64, VerifierKey)>,
    handed_over: Vec<Checkpoint>,
    /// Over all that was read: whoever reads a log twice could be shown two.
    tree: Tree,
}

impl KeyChain {
    /// Believes `pinned` and nothing else.
    #[must_use]
    pub fn new(pinned: VerifierKey) -> KeyChain {
        KeyChain { trusted: vec![pinned], told: Vec::new(), handed_over: Vec::new(), tree: Tree::new() }
    }

    /// Reads the next entry. Whatever it holds, nothing is believed but what a trusted key has signed.
    pub fn see(&mut self, tag: u8, bytes: &[u8]) {
        if tag == Family::Log.tag() {
            self.learn(bytes);
        }
        self.tree.push(leaf_hash(bytes));
    }

    /// The same of an entry that came without its record's tag.
    pub fn see_event(&mut self, bytes: &[u8]) {
        self.learn(bytes);
        self.tree.push(leaf_hash(bytes));
    }

    /// How many entries were read.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    fn learn(&mut self, bytes: &[u8]) {
        let index = self.tree.size();
        let Ok(event) = Event::parse(bytes) else { return };
        match event.payload() {
            Payload::LogKeyAdded(added) => {
                if let Ok(key) = VerifierKey::parse(&added.verifier_key) {
                    self.told.push((index, key));
                }
            }
            Payload::LogKeyRetired(retired) => {
                let key = self.trusted.iter().find(|key| key.to_string() == retired.verifier_key);
                let Some(key) = key else { return };
                let Ok(checkpoint) = Checkpoint::verify(&retired.checkpoint, key) else { return };
                // It can't speak of what came after it.
                if checkpoint.size() > index {
                    return;
                }
                let (covered, rest) = std::mem::take(&mut self.told)
                    .into_iter()
                    .partition(|(at, key)| *at < checkpoint.size() && key.name() == checkpoint.origin());
                self.told = rest;
                self.trusted.extend(Vec::into_iter(covered).map(|(_, key)| key));
                self.handed_over.push(checkpoint);
            }
            _ => {}
        }
    }

    /// The keys that are believed, provided that a checkpoint holds by [`KeyChain::verify`] and that its tree has the roots
    /// of [`KeyChain::handed_over`].
    #[must_use]
    pub fn trusted(&self) -> &[VerifierKey] {
        &self.trusted
    }

    /// The checkpoints by which keys were handed over: the tree must have these roots at these sizes.
    #[must_use]
    pub fn handed_over(&self) -> &[Checkpoint] {
        &self.handed_over
    }

    /// Reads a signed checkpoint that one of the trusted keys has signed, over just the entries that were read here; gives
    /// that key as well. So what gave the trust is what the checkpoint covers, and nothing that was shown only for that.
    ///
    /// # Errors
    /// [`CheckpointError::OtherEntries`], or what is wrong by the newest of the keys.
    pub fn verify(&self, note: &str) -> Result<(Checkpoint, &VerifierKey), CheckpointError> {
        let mut wrong = CheckpointError::Malformed("no key is trusted");
        for key in &self.trusted {
            match Checkpoint::verify(note, key) {
                Ok(checkpoint) => {
                    let (read, signed) = (self.tree.size(), checkpoint.size());
                    if signed != read || checkpoint.root() != self.tree.root() {
                        return Err(CheckpointError::OtherEntries { read, signed });
                    }
                    return Ok((checkpoint, key));
                }
                Err(error) => wrong = error,
            }
        }
        Err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::log::{KeyAdded, KeyRetired};
    use crate::event::{Actor, Draft, EventData, ProducerKind, ProducerRef, Timestamp, canonical};
    use crate::log::note::Ed25519Signer;
    use crate::log::{Hash, Signer as _};

    const ORIGIN: &str = "custody.example/log";

    fn signer(seed: u8) -> Ed25519Signer {
        Ed25519Signer::from_seed(ORIGIN, &[seed; 32]).unwrap()
    }

    fn bytes<D: EventData>(data: D) -> Vec<u8> {
        let producer =
            ProducerRef { boot: uuid::Uuid::nil(), id: "log".into(), kind: ProducerKind::Log, seq: 0 };
        let draft = Draft::new(Actor::system("log"), data).numbered(producer, Timestamp::from_seconds(1));
        canonical::event_bytes(&draft).unwrap()
    }

    fn added(key: &Ed25519Signer) -> Vec<u8> {
        bytes(KeyAdded { reason: "test".into(), verifier_key: key.verifier_key().to_string() })
    }

    fn retired(key: &Ed25519Signer, checkpoint: &Checkpoint) -> Vec<u8> {
        bytes(KeyRetired {
            checkpoint: checkpoint.to_string(),
            reason: "test".into(),
            verifier_key: key.verifier_key().to_string(),
        })
    }

    fn chain(entries: &[Vec<u8>]) -> KeyChain {
        let mut chain = KeyChain::new(signer(1).verifier_key());
        entries.iter().for_each(|entry| chain.see(Family::Log.tag(), entry));
        chain
    }

    fn root(entries: &[Vec<u8>]) -> Hash {
        let mut tree = Tree::new();
        entries.iter().for_each(|entry| tree.push(leaf_hash(entry)));
        tree.root()
    }

    #[test]
    fn trust_goes_from_key_to_key() {
        let (one, two, three) = (signer(1), signer(2), signer(3));
        let mut entries = vec![b"x".to_vec(), added(&two)];
        let covers = Checkpoint::sign(2, root(&entries), &one).unwrap();
        entries.push(retired(&one, &covers));
        entries.push(added(&three));
        let covers = Checkpoint::sign(4, root(&entries), &two).unwrap();
        entries.push(retired(&two, &covers));
        let chain = chain(&entries);
        assert_eq!(chain.trusted().len(), 3);
        assert_eq!(chain.handed_over().len(), 2);
        let newest = Checkpoint::sign(5, root(&entries), &three).unwrap();
        assert_eq!(chain.verify(&newest.to_string()).unwrap(), (newest, &three.verifier_key()));
    }

    /// Who is asked twice may tell two stories: the first to be believed, the second to be checked.
    #[test]
    fn entries_that_a_checkpoint_does_not_cover_give_its_key_no_trust() {
        let (one, forger) = (signer(1), signer(9));
        let genuine = [b"x".to_vec(), b"y".to_vec()];
        let by_one = Checkpoint::sign(2, root(&genuine), &one).unwrap();
        let shown = [added(&forger), b"y".to_vec(), retired(&one, &by_one)];
        let signed = [b"x".to_vec(), b"y".to_vec(), b"whatever".to_vec()];
        let chain = chain(&shown);
        assert_eq!(chain.trusted().len(), 2, "by what it has seen, the first key signed for it");
        for (size, entries) in [(3, &signed[..]), (2, &genuine[..]), (4, &shown[..])] {
            let newest = Checkpoint::sign(size, root(entries), &forger).unwrap();
            let refused = chain.verify(&newest.to_string());
            assert_eq!(refused, Err(CheckpointError::OtherEntries { read: 3, signed: size }));
        }
        // Over what it has seen there is nothing wrong with it, but the root that was handed over.
        let newest = Checkpoint::sign(3, root(&shown), &forger).unwrap();
        assert!(chain.verify(&newest.to_string()).is_ok());
        assert_ne!(chain.handed_over()[0].root(), root(&shown[..2]));
    }

    #[test]
    fn a_key_that_no_trusted_key_signed_for_is_not_believed() {
        let (one, two) = (signer(1), signer(2));
        let told = added(&two);
        let hash = root(std::slice::from_ref(&told));
        let by_one = Checkpoint::sign(1, hash, &one).unwrap();
        for entries in [
            vec![told.clone()],
            // Signed for by itself, by a checkpoint that is too old, and by one of the future.
            vec![told.clone(), retired(&one, &Checkpoint::sign(1, hash, &two).unwrap())],
            vec![b"x".to_vec(), told.clone(), retired(&one, &by_one)],
            vec![told.clone(), retired(&one, &Checkpoint::sign(9, hash, &one).unwrap())],
            vec![told.clone(), retired(&two, &by_one)],
        ] {
            assert_eq!(chain(&entries).trusted(), [one.verifier_key()]);
        }
        assert_eq!(chain(&[told, retired(&one, &by_one)]).trusted().len(), 2);
    }

    #[test]
    fn what_is_no_event_of_keys_changes_nothing() {
        let mut chain = KeyChain::new(signer(1).verifier_key());
        for (tag, bytes) in [(Family::Log.tag(), b"{".to_vec()), (Family::User.tag(), added(&signer(2)))] {
            chain.see(tag, &bytes);
        }
        assert!(chain.told.is_empty());
        chain.see_event(&added(&signer(2)));
        assert_eq!((chain.told.len(), chain.size()), (1, 3));
    }
}
