//! The body of `POST /add-checkpoint` (C2SP tlog-witness), and how it is judged. No I/O.
//!
//! ```text
//! old <size>
//! <consistency hash>        (none to 63)
//!
//! <checkpoint, a signed note>
//! ```

use std::fmt;

use custody_core::log::checkpoint::parse_decimal;
use custody_core::log::note::NOTE_BYTES_MAX;
use custody_core::log::tree::{empty_root, verify_consistency};
use custody_core::log::{Checkpoint, Hash};

/// A consistency proof between trees of fewer than 2^63 leaves has no more hashes.
pub const HASHES_MAX: usize = 63;
/// The longest body, in bytes.
pub const BODY_BYTES_MAX: usize = NOTE_BYTES_MAX + 64 * 64;

/// A submission as it is read: nothing of it is believed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size from which on the proof leads.
    pub old: u64,
    /// The consistency proof from the old size to the checkpoint's.
    pub proof: Vec<Hash>,
    /// The signed note.
    pub note: String,
}

/// What isn't a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an add-checkpoint request: {0}")]
pub struct Malformed(pub &'static str);

impl AddCheckpoint {
    /// Reads a request's body.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong.
    pub fn parse(body: &[u8]) -> Result<AddCheckpoint, Malformed> {
        if body.len() > BODY_BYTES_MAX {
            return Err(Malformed("it is too long"));
        }
        let text = std::str::from_utf8(body).map_err(|_| Malformed("it isn't UTF-8"))?;
        let (head, note) = text.split_once("\n\n").ok_or(Malformed("no blank line before the checkpoint"))?;
        let mut lines = head.split('\n');
        let old = lines
            .next()
            .and_then(|line| line.strip_prefix("old "))
            .and_then(parse_decimal)
            .ok_or(Malformed("its first line isn't `old` and a size"))?;
        let proof: Option<Vec<Hash>> = lines.map(Hash::from_base64).collect();
        let proof = proof.ok_or(Malformed("a line of the proof isn't a hash"))?;
        if proof.len() > HASHES_MAX {
            return Err(Malformed("the proof has more than 63 hashes"));
        }
        Ok(AddCheckpoint { old, proof, note: note.to_owned() })
    }

    /// The origin that the checkpoint names, not yet believed.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.note.split('\n').next().unwrap_or_default()
    }
}

/// The body as it is sent.
impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        for hash in &self.proof {
            writeln!(f, "{hash}")?;
        }
        write!(f, "\n{}", self.note)
    }
}

/// Why a checkpoint isn't cosigned although the log signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400: the old size is larger than the checkpoint's.
    OldTooLarge,
    /// 409: the old size isn't the one that this witness knows, which is this.
    OtherSize(u64),
    /// 409: it is of the size that this witness knows, with another root: a fork.
    OtherRoot(u64),
    /// 422: the proof doesn't lead from the one to the other.
    BadProof,
}

/// Whether `new` follows from what this witness knows, by the submission's proof. `known` is `None` before the first.
///
/// # Errors
/// [`Refusal`], in the order of the specification.
pub fn judge(known: Option<(u64, Hash)>, old: u64, proof: &[Hash], new: &Checkpoint) -> Result<(), Refusal> {
    let (size, root) = known.unwrap_or((0, empty_root()));
    if old > new.size() {
        return Err(Refusal::OldTooLarge);
    }
    if old != size {
        return Err(Refusal::OtherSize(size));
    }
    if size == new.size() && root != new.root() {
        return Err(Refusal::OtherRoot(size));
    }
    if !verify_consistency(size, &root, new.size(), &new.root(), proof) {
        return Err(Refusal::BadProof);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::log::Signer as _;
    use custody_core::log::note::Ed25519Signer;
    use custody_core::log::tree::{Tiles, Tree, leaf_hash};
    use proptest::prelude::*;

    fn tree(size: u64) -> Tree {
        let mut tree = Tree::new();
        (0..size).for_each(|n| tree.push(leaf_hash(&n.to_be_bytes())));
        tree
    }

    fn checkpoint(size: u64, root: Hash) -> Checkpoint {
        let signer = Ed25519Signer::from_seed("custody.example/log", &[7; 32]).unwrap();
        assert_eq!(signer.verifier_key().name(), "custody.example/log");
        Checkpoint::sign(size, root, &signer).unwrap()
    }

    #[test]
    fn what_is_malformed_is_said() {
        let note = checkpoint(3, tree(3).root()).to_string();
        let good = format!("old 2\n{}\n\n{note}", tree(3).root());
        assert_eq!(AddCheckpoint::parse(good.as_bytes()).unwrap().to_string(), good);
        assert_eq!(AddCheckpoint::parse(good.as_bytes()).unwrap().origin(), "custody.example/log");
        let hash = tree(1).root().to_base64();
        for (body, says) in [
            (String::new(), "no blank line"),
            ("old 1\n".to_owned(), "no blank line"),
            (format!("new 1\n\n{note}"), "first line"),
            (format!("old 01\n\n{note}"), "first line"),
            (format!("old -1\n\n{note}"), "first line"),
            (format!("old 18446744073709551616\n\n{note}"), "first line"),
            (format!("old 1 \n\n{note}"), "first line"),
            (format!("old 1\nAAAA\n\n{note}"), "isn't a hash"),
            (format!("old 1\n{}\n{note}", format!("{hash}\n").repeat(64)), "more than 63"),
        ] {
            let error = AddCheckpoint::parse(body.as_bytes()).unwrap_err();
            assert!(error.0.contains(says), "{body}: {error}");
        }
        assert!(AddCheckpoint::parse(&[b'o', 0xff]).is_err());
        assert!(AddCheckpoint::parse(&vec![b'x'; BODY_BYTES_MAX + 1]).is_err());
        let longest = format!("old 1\n{}\n{note}", format!("{hash}\n").repeat(63));
        assert_eq!(AddCheckpoint::parse(longest.as_bytes()).unwrap().proof.len(), 63);
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let (three, five) = (tree(3), tree(5));
        let known = Some((3, three.root()));
        let proof = five.consistency_proof(3, 5, &Tiles::new()).unwrap();
        let new = checkpoint(5, five.root());
        assert_eq!(judge(known, 3, &proof, &new), Ok(()));
        assert_eq!(judge(known, 6, &proof, &new), Err(Refusal::OldTooLarge));
        assert_eq!(judge(known, 2, &proof, &new), Err(Refusal::OtherSize(3)));
        assert_eq!(judge(known, 5, &[], &new), Err(Refusal::OtherSize(3)));
        assert_eq!(judge(known, 3, &[], &new), Err(Refusal::BadProof));
        assert_eq!(judge(known, 3, &proof, &checkpoint(5, three.root())), Err(Refusal::BadProof));
        let same = checkpoint(3, three.root());
        assert_eq!(judge(known, 3, &[], &same), Ok(()), "a heartbeat");
        assert_eq!(judge(known, 3, &proof, &same), Err(Refusal::BadProof));
        assert_eq!(judge(known, 3, &[], &checkpoint(3, five.root())), Err(Refusal::OtherRoot(3)));
        // Before the first: anything of any size, without a proof.
        assert_eq!(judge(None, 0, &[], &new), Ok(()));
        assert_eq!(judge(None, 0, &proof, &new), Err(Refusal::BadProof));
        assert_eq!(judge(None, 3, &proof, &new), Err(Refusal::OtherSize(0)));
        assert_eq!(judge(None, 0, &[], &checkpoint(0, five.root())), Err(Refusal::OtherRoot(0)));
    }

    proptest! {
        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200), text in "(old [0-9]{0,21}|\n|\\PC|[A-Za-z0-9+/=]{44}){0,12}") {
            for body in [body.as_slice(), text.as_bytes()] {
                if let Ok(request) = AddCheckpoint::parse(body) {
                    let again = request.to_string();
                    prop_assert_eq!(again.as_bytes(), body);
                }
            }
        }

        #[test]
        fn a_right_proof_is_taken_and_another_is_not(old in 0u64..70, more in 0u64..70, at: prop::sample::Index) {
            let all = tree(old + more);
            let known = (old > 0).then(|| (old, tree(old).root()));
            let mut proof = all.consistency_proof(old, old + more, &Tiles::new()).unwrap();
            let new = checkpoint(old + more, all.root());
            prop_assert_eq!(judge(known, old, &proof, &new), Ok(()));
            if !proof.is_empty() {
                let at = at.index(proof.len());
                proof[at].0[5] ^= 1;
                prop_assert_eq!(judge(known, old, &proof, &new), Err(Refusal::BadProof));
            }
        }
    }
}
