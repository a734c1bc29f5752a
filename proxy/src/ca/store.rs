//! Where private keys live. Callers name a key and have it sign; they never hold it.

use super::private_file::{self, PrivateFileError};
use rcgen::PublicKeyData;
use russh::keys::PrivateKey;
use russh::keys::signature::Signer;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::ssh_key::{LineEnding, Signature};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

/// The algorithms that our keys use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// For SSH. Signatures are the 64 bytes of RFC 8032.
    Ed25519,
    /// For X.509. Signatures are the DER of RFC 3279 section 2.2.3, over SHA-256.
    EcdsaP256,
}

/// The public half of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicPart {
    /// The 32 bytes of RFC 8032.
    Ed25519([u8; 32]),
    /// The uncompressed point of SEC 1: 65 bytes that begin with 4.
    EcdsaP256(Vec<u8>),
}

/// Why a key can't be made, found or used. No text holds anything of a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// Names are file names: lower-case letters, digits and dashes.
    #[error("{name:?} can't be a key's name: lower-case letters, digits and dashes, at most 64")]
    BadName {
        /// As it was given.
        name: String,
    },
    /// There is no such key.
    #[error("there is no key {name:?} in the store")]
    Absent {
        /// Which.
        name: String,
    },
    /// There is one of that name, and it is not replaced.
    #[error("key {name:?} exists already and is not replaced")]
    Exists {
        /// Which.
        name: String,
    },
    /// What is stored is no key of ours.
    #[error("key {name:?} is damaged or of a kind that Custody doesn't make: restore it from the backup")]
    Damaged {
        /// Which.
        name: String,
    },
    /// The key wouldn't sign, or none could be made.
    #[error("key {name:?} can't be used by the cryptographic library")]
    Crypto {
        /// Which.
        name: String,
    },
    /// Its file or directory.
    #[error(transparent)]
    File(#[from] PrivateFileError),
}

/// Holds private keys by name and signs with them. A file store is the first; a PKCS#11 token can be another.
///
/// When `generate` has returned `Ok`, the key survives a power failure: a certificate signed by it can be verified
/// for as long as it is valid. Names are never used for another key again by this trait.
pub trait KeyStore: Send + Sync {
    /// Makes a key under a name that isn't taken.
    ///
    /// # Errors
    /// [`KeyStoreError::Exists`], [`KeyStoreError::BadName`], or the store's own.
    fn generate(&self, name: &str, algorithm: KeyAlgorithm) -> Result<PublicPart, KeyStoreError>;

    /// The public half of a key; `None` if there is no key of that name.
    ///
    /// # Errors
    /// [`KeyStoreError`], for a damaged key or one that others could read.
    fn load(&self, name: &str) -> Result<Option<PublicPart>, KeyStoreError>;

    /// Signs a message (not its hash).
    ///
    /// # Errors
    /// [`KeyStoreError::Absent`], or the store's own.
    fn sign(&self, name: &str, message: &[u8]) -> Result<Vec<u8>, KeyStoreError>;
}

/// Keys in files of one directory (0700): `NAME.key`, mode 0600, in OpenSSH's private key format (Ed25519) or
/// PKCS#8 PEM (ECDSA P-256), not encrypted: who can read the directory has them. Files and directories that others
/// may read are refused.
pub struct FileKeyStore {
    directory: PathBuf,
    /// What has been read. Holding the lock guarantees that no other thread reads or makes a key meanwhile.
    loaded: Mutex<BTreeMap<String, Arc<LoadedKey>>>,
}

/// Reads a host key that isn't in a store: a private key file of OpenSSH's, not encrypted, that only its owner may
/// read.
///
/// # Errors
/// [`KeyStoreError::Absent`], [`KeyStoreError::Damaged`] if it is encrypted or no such file, [`KeyStoreError::File`] if
/// others may read it.
pub fn host_key_file(path: &Path) -> Result<PrivateKey, KeyStoreError> {
    let name = || path.display().to_string();
    let content = private_file::read(path)?.ok_or_else(|| KeyStoreError::Absent { name: name() })?;
    let text = str::from_utf8(&content).map_err(|_| KeyStoreError::Damaged { name: name() })?;
    match PrivateKey::from_openssh(text) {
        Ok(key) if !key.is_encrypted() => Ok(key),
        _ => Err(KeyStoreError::Damaged { name: name() }),
    }
}

/// Both kinds are wiped when dropped, by ssh-key and by aws-lc.
enum LoadedKey {
    Ed25519(Ed25519Keypair),
    EcdsaP256(Box<rcgen::KeyPair>),
}

impl FileKeyStore {
    /// Opens the directory, or makes it.
    ///
    /// # Errors
    /// [`KeyStoreError::File`] if it can't be opened, is someone else's, or others may read it.
    pub fn open(directory: &Path) -> Result<Self, KeyStoreError> {
        private_file::open_directory(directory)?;
        Ok(Self { directory: directory.to_owned(), loaded: Mutex::default() })
    }

    /// The Ed25519 key itself, for an SSH transport that signs its key exchanges with it. Only for the proxy's own
    /// host key: authorities' keys never leave the store.
    ///
    /// # Errors
    /// [`KeyStoreError::Absent`], [`KeyStoreError::Damaged`] if it is no Ed25519 key, or the store's own.
    pub fn host_private_key(&self, name: &str) -> Result<PrivateKey, KeyStoreError> {
        match &*self.get(name)? {
            LoadedKey::Ed25519(pair) => PrivateKey::new(KeypairData::Ed25519(pair.clone()), "")
                .map_err(|_| KeyStoreError::Damaged { name: name.to_owned() }),
            LoadedKey::EcdsaP256(_) => Err(KeyStoreError::Damaged { name: name.to_owned() }),
        }
    }

    fn path(&self, name: &str) -> Result<PathBuf, KeyStoreError> {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(good) {
            return Err(KeyStoreError::BadName { name: name.chars().take(80).collect() });
        }
        Ok(self.directory.join(format!("{name}.key")))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<LoadedKey>>> {
        // The map is whole after each statement: a thread that panicked can't have left it half changed.
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, name: &str) -> Result<Arc<LoadedKey>, KeyStoreError> {
        self.find(name)?.ok_or_else(|| KeyStoreError::Absent { name: name.to_owned() })
    }

    fn find(&self, name: &str) -> Result<Option<Arc<LoadedKey>>, KeyStoreError> {
        let path = self.path(name)?;
        let mut loaded = self.lock();
        if let Some(key) = loaded.get(name) {
            return Ok(Some(Arc::clone(key)));
        }
        let Some(content) = private_file::read(&path)? else { return Ok(None) };
        let key = LoadedKey::decode(&content);
        let key = Arc::new(key.ok_or_else(|| KeyStoreError::Damaged { name: name.to_owned() })?);
        loaded.insert(name.to_owned(), Arc::clone(&key));
        Ok(Some(key))
    }
}

impl KeyStore for FileKeyStore {
    fn generate(&self, name: &str, algorithm: KeyAlgorithm) -> Result<PublicPart, KeyStoreError> {
        let path = self.path(name)?;
        let mut loaded = self.lock();
        let crypto = || KeyStoreError::Crypto { name: name.to_owned() };
        let key = LoadedKey::generate(algorithm).ok_or_else(crypto)?;
        let content = key.encode().ok_or_else(crypto)?;
        private_file::create(&path, content.as_bytes()).map_err(|error| match error {
            PrivateFileError::Exists { .. } => KeyStoreError::Exists { name: name.to_owned() },
            other => KeyStoreError::File(other),
        })?;
        let public = key.public();
        loaded.insert(name.to_owned(), Arc::new(key));
        Ok(public)
    }

    fn load(&self, name: &str) -> Result<Option<PublicPart>, KeyStoreError> {
        Ok(self.find(name)?.map(|key| key.public()))
    }

    fn sign(&self, name: &str, message: &[u8]) -> Result<Vec<u8>, KeyStoreError> {
        self.get(name)?.sign(message).ok_or_else(|| KeyStoreError::Crypto { name: name.to_owned() })
    }
}

impl LoadedKey {
    fn generate(algorithm: KeyAlgorithm) -> Option<Self> {
        match algorithm {
            KeyAlgorithm::Ed25519 => {
                let mut seed = Zeroizing::new([0_u8; 32]);
                aws_lc_rs::rand::fill(seed.as_mut_slice()).ok()?;
                Some(Self::Ed25519(Ed25519Keypair::from_seed(&seed)))
            }
            KeyAlgorithm::EcdsaP256 => {
                let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).ok()?;
                Some(Self::EcdsaP256(Box::new(pair)))
            }
        }
    }

    fn encode(&self) -> Option<Zeroizing<String>> {
        match self {
            Self::Ed25519(pair) => {
                let key = PrivateKey::new(KeypairData::Ed25519(pair.clone()), "").ok()?;
                key.to_openssh(LineEnding::LF).ok()
            }
            Self::EcdsaP256(pair) => Some(Zeroizing::new(pair.serialize_pem())),
        }
    }

    fn decode(content: &[u8]) -> Option<Self> {
        let text = str::from_utf8(content).ok()?;
        if text.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----") {
            let key = PrivateKey::from_openssh(text).ok()?;
            return Some(Self::Ed25519(key.key_data().ed25519()?.clone()));
        }
        let pair = rcgen::KeyPair::from_pkcs8_pem_and_sign_algo(text, &rcgen::PKCS_ECDSA_P256_SHA256).ok()?;
        Some(Self::EcdsaP256(Box::new(pair)))
    }

    fn public(&self) -> PublicPart {
        match self {
            Self::Ed25519(pair) => PublicPart::Ed25519(pair.public.0),
            Self::EcdsaP256(pair) => PublicPart::EcdsaP256(pair.der_bytes().to_vec()),
        }
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Ed25519(pair) => {
                let signature: Signature = pair.try_sign(message).ok()?;
                Some(signature.as_bytes().to_vec())
            }
            Self::EcdsaP256(pair) => rcgen::SigningKey::sign(&**pair, message).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn keys_are_private_files_and_come_back() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("keys");
        let store = FileKeyStore::open(&directory).unwrap();
        assert_eq!(mode(&directory), 0o700);
        for (name, algorithm) in [("one", KeyAlgorithm::Ed25519), ("two", KeyAlgorithm::EcdsaP256)] {
            assert_eq!(store.load(name).unwrap(), None);
            let made = store.generate(name, algorithm).unwrap();
            assert_eq!(mode(&directory.join(format!("{name}.key"))), 0o600);
            assert!(matches!(store.generate(name, algorithm), Err(KeyStoreError::Exists { .. })));
            let reopened = FileKeyStore::open(&directory).unwrap();
            assert_eq!(reopened.load(name).unwrap(), Some(made.clone()));
            let signature = reopened.sign(name, b"message").unwrap();
            let (kind, public): (&dyn aws_lc_rs::signature::VerificationAlgorithm, Vec<u8>) = match made {
                PublicPart::Ed25519(key) => (&aws_lc_rs::signature::ED25519, key.to_vec()),
                PublicPart::EcdsaP256(key) => (&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1, key),
            };
            let key = aws_lc_rs::signature::UnparsedPublicKey::new(kind, public);
            key.verify(b"message", &signature).unwrap();
            key.verify(b"massage", &signature).unwrap_err();
        }
        let left: Vec<_> =
            std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "only the keys: {left:?}");
    }

    #[test]
    fn what_others_may_read_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("keys");
        FileKeyStore::open(&directory).unwrap().generate("one", KeyAlgorithm::Ed25519).unwrap();
        let file = directory.join("one.key");
        for open in [0o640, 0o604, 0o660, 0o644] {
            set_mode(&file, open);
            let error = FileKeyStore::open(&directory).unwrap().sign("one", b"").unwrap_err();
            assert!(
                matches!(error, KeyStoreError::File(PrivateFileError::TooOpen { mode, .. }) if mode == open)
            );
        }
        set_mode(&file, 0o600);
        FileKeyStore::open(&directory).unwrap().sign("one", b"").unwrap();
        for open in [0o750, 0o701, 0o777] {
            set_mode(&directory, open);
            assert!(FileKeyStore::open(&directory).is_err(), "{open:o}");
        }
        set_mode(&directory, 0o700);
    }

    #[test]
    fn links_and_rubbish_are_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("keys");
        let store = FileKeyStore::open(&directory).unwrap();
        store.generate("one", KeyAlgorithm::Ed25519).unwrap();
        std::os::unix::fs::symlink(directory.join("one.key"), directory.join("link.key")).unwrap();
        assert!(matches!(store.load("link"), Err(KeyStoreError::File(_))));
        private_file::create(&directory.join("rubbish.key"), b"-----BEGIN OPENSSH PRIVATE KEY-----\n")
            .unwrap();
        assert!(matches!(store.load("rubbish"), Err(KeyStoreError::Damaged { .. })));
        for name in ["", "..", "a/b", "A", "a.b", "\0"] {
            assert!(matches!(store.load(name), Err(KeyStoreError::BadName { .. })), "{name:?}");
        }
        assert!(matches!(store.sign("absent", b""), Err(KeyStoreError::Absent { .. })));
    }

    #[test]
    fn ssh_keygen_reads_the_ssh_key() {
        let scratch = tempfile::tempdir().unwrap();
        let store = FileKeyStore::open(&scratch.path().join("keys")).unwrap();
        let PublicPart::Ed25519(public) = store.generate("host", KeyAlgorithm::Ed25519).unwrap() else {
            panic!("asked for Ed25519")
        };
        let output = std::process::Command::new("ssh-keygen")
            .args(["-y", "-f"])
            .arg(scratch.path().join("keys/host.key"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let read = russh::keys::PublicKey::from_openssh(str::from_utf8(&output.stdout).unwrap()).unwrap();
        assert_eq!(read.key_data().ed25519().unwrap().0, public);
        assert_eq!(store.host_private_key("host").unwrap().public_key().key_data(), read.key_data());
    }
}
