//! SSH_MSG_KEXINIT (RFC 4253 section 7.1): its codec, and what two of them agree on. Pure.

use super::cipher::{Cipher, Protection};
use super::error::{Error, PeerIncompatible, PeerMisbehaved, printable};
use super::host_key::HostKeyAlgorithm;
use super::kex::KexAlgorithm;
use super::mac::Mac;
use super::number;
use super::wire::{NameList, Put, Reader, WireError};

/// Which side of a leg we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Towards a target.
    Client,
    /// Towards a user.
    Server,
}

/// The only compression: others are an attack surface before and an oracle after login.
const COMPRESSION: &str = "none";

/// Strict key exchange (OpenSSH's PROTOCOL section 1.10), as each side announces it.
const STRICT_CLIENT: &str = "kex-strict-c-v00@openssh.com";
const STRICT_SERVER: &str = "kex-strict-s-v00@openssh.com";
/// Whoever sends this takes SSH_MSG_EXT_INFO (RFC 8308 section 2.1).
const EXT_INFO_CLIENT: &str = "ext-info-c";

/// Names of a peer's list that go into an error, in bytes: enough to see what it is.
const LIST_SHOWN_MAX: usize = 400;

/// What we offer, in order of preference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Which side we are.
    pub role: Role,
    /// Key exchange methods.
    pub kex: Vec<KexAlgorithm>,
    /// Host key algorithms: as a server those that our keys can do, as a client those that we take.
    pub host_keys: Vec<HostKeyAlgorithm>,
    /// Ciphers, both directions alike.
    pub ciphers: Vec<Cipher>,
    /// MACs, both directions alike, for the ciphers that need one. Not empty: RFC 4253 wants it so, and some
    /// peers look for a common name even where none is used.
    pub macs: Vec<Mac>,
}

impl Proposal {
    /// The payload of our KEXINIT. `first` adds the announcements that only stand in a connection's first one.
    #[must_use]
    pub fn encode(&self, cookie: [u8; 16], first: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(768);
        out.put_byte(number::KEXINIT);
        out.extend_from_slice(&cookie);
        let announced: &[&str] = match (first, self.role) {
            (false, _) => &[],
            (true, Role::Client) => &[EXT_INFO_CLIENT, STRICT_CLIENT],
            // A server has no use for ext-info-s: a client's extensions mean nothing to the proxy.
            (true, Role::Server) => &[STRICT_SERVER],
        };
        out.put_name_list(self.kex.iter().map(|kex| kex.name()).chain(announced.iter().copied()));
        out.put_name_list(self.host_keys.iter().map(|algorithm| algorithm.name()));
        for _ in 0..2 {
            out.put_name_list(self.ciphers.iter().map(|cipher| cipher.name()));
        }
        for _ in 0..2 {
            out.put_name_list(self.macs.iter().map(|mac| mac.name()));
        }
        for _ in 0..2 {
            out.put_name_list(std::iter::once(COMPRESSION));
        }
        for _ in 0..2 {
            out.put_name_list(std::iter::empty()); // languages
        }
        out.put_boolean(false); // first_kex_packet_follows
        out.put_uint32(0);
        out
    }
}

/// A peer's KEXINIT, borrowed from its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the RFC's
pub struct KexInit<'a> {
    pub cookie: [u8; 16],
    pub kex: NameList<'a>,
    pub host_keys: NameList<'a>,
    pub ciphers_to_server: NameList<'a>,
    pub ciphers_to_client: NameList<'a>,
    pub macs_to_server: NameList<'a>,
    pub macs_to_client: NameList<'a>,
    pub compression_to_server: NameList<'a>,
    pub compression_to_client: NameList<'a>,
    pub languages_to_server: NameList<'a>,
    pub languages_to_client: NameList<'a>,
    pub first_kex_packet_follows: bool,
}

impl<'a> KexInit<'a> {
    /// Whether a client announces strict key exchange in it.
    #[must_use]
    pub fn is_strict_client(&self) -> bool {
        self.kex.contains(STRICT_CLIENT)
    }

    /// Reads the payload, message number included.
    ///
    /// # Errors
    /// [`PeerMisbehaved::Malformed`].
    pub fn decode(payload: &'a [u8]) -> Result<Self, Error> {
        Self::read(payload)
            .map_err(|source| PeerMisbehaved::Malformed { message: "SSH_MSG_KEXINIT", source }.into())
    }

    fn read(payload: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        if reader.byte()? != number::KEXINIT {
            return Err(WireError::Rule { rule: "a KEXINIT starts with 20" });
        }
        let init = Self {
            cookie: reader.array()?,
            kex: reader.name_list()?,
            host_keys: reader.name_list()?,
            ciphers_to_server: reader.name_list()?,
            ciphers_to_client: reader.name_list()?,
            macs_to_server: reader.name_list()?,
            macs_to_client: reader.name_list()?,
            compression_to_server: reader.name_list()?,
            compression_to_client: reader.name_list()?,
            languages_to_server: reader.name_list()?,
            languages_to_client: reader.name_list()?,
            first_kex_packet_follows: reader.boolean()?,
        };
        reader.uint32()?; // reserved
        reader.finish()?;
        Ok(init)
    }
}

/// What both sides will use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// Key exchange method.
    pub kex: KexAlgorithm,
    /// How the host proves itself.
    pub host_key: HostKeyAlgorithm,
    /// What protects packets from client to server.
    pub to_server: Protection,
    /// What protects packets from server to client.
    pub to_client: Protection,
    /// The peer announced strict key exchange (in a first KEXINIT).
    pub peer_strict: bool,
    /// The peer, a client, takes SSH_MSG_EXT_INFO (in a first KEXINIT).
    pub peer_ext_info: bool,
    /// The peer's next packet is a wrong guess and is to be dropped (RFC 4253 section 7).
    pub drop_guess: bool,
}

/// Agrees on algorithms by RFC 4253 section 7.1: the client's first that the server has too.
///
/// # Errors
/// [`PeerIncompatible::NoCommon`].
pub fn agree(ours: &Proposal, theirs: &KexInit<'_>) -> Result<Agreed, Error> {
    let kex = common("key exchange method", ours.role, &ours.kex, |kex| kex.name(), theirs.kex)?;
    let host_key =
        common("host key algorithm", ours.role, &ours.host_keys, |key| key.name(), theirs.host_keys)?;
    let protection = |[cipher, mac]: [&'static str; 2], ciphers, macs| -> Result<Protection, Error> {
        let cipher = common(cipher, ours.role, &ours.ciphers, |cipher| cipher.name(), ciphers)?;
        // A cipher that authenticates makes the MAC's name meaningless (RFC 5647 section 5.1, OpenSSH's PROTOCOL
        // section 1.6): peers that have no MAC of ours are welcome with it.
        let mac = cipher
            .needs_mac()
            .then(|| common(mac, ours.role, &ours.macs, |mac| mac.name(), macs))
            .transpose()?;
        Ok(Protection { cipher, mac })
    };
    let to_server = protection(
        ["cipher from client to server", "MAC from client to server"],
        theirs.ciphers_to_server,
        theirs.macs_to_server,
    )?;
    let to_client = protection(
        ["cipher from server to client", "MAC from server to client"],
        theirs.ciphers_to_client,
        theirs.macs_to_client,
    )?;
    for list in [theirs.compression_to_server, theirs.compression_to_client] {
        if !list.contains(COMPRESSION) {
            return Err(no_common("compression", COMPRESSION.to_owned(), list));
        }
    }
    // The guess is right only if both sides have the same favourites.
    let same_favourites = ours.kex.first().map(|kex| kex.name()) == theirs.kex.first()
        && ours.host_keys.first().map(|key| key.name()) == theirs.host_keys.first();
    let strict = if ours.role == Role::Client { STRICT_SERVER } else { STRICT_CLIENT };
    Ok(Agreed {
        kex,
        host_key,
        to_server,
        to_client,
        peer_strict: theirs.kex.contains(strict),
        peer_ext_info: theirs.kex.contains(EXT_INFO_CLIENT),
        drop_guess: theirs.first_kex_packet_follows && !same_favourites,
    })
}

fn common<T: Copy>(
    what: &'static str,
    role: Role,
    ours: &[T],
    name: impl Fn(&T) -> &'static str,
    theirs: NameList<'_>,
) -> Result<T, Error> {
    let found = match role {
        Role::Client => ours.iter().find(|candidate| theirs.contains(name(candidate))),
        Role::Server => {
            theirs.iter().find_map(|wanted| ours.iter().find(|candidate| name(candidate) == wanted))
        }
    };
    found
        .copied()
        .ok_or_else(|| no_common(what, ours.iter().map(&name).collect::<Vec<_>>().join(","), theirs))
}

fn no_common(what: &'static str, ours: String, theirs: NameList<'_>) -> Error {
    let bytes = theirs.as_str().as_bytes();
    let theirs = printable(bytes.get(..LIST_SHOWN_MAX).unwrap_or(bytes));
    PeerIncompatible::NoCommon { what, ours, theirs }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn proposal(role: Role) -> Proposal {
        Proposal {
            role,
            kex: KexAlgorithm::ALL.to_vec(),
            host_keys: HostKeyAlgorithm::all(),
            ciphers: Cipher::ALL.to_vec(),
            macs: Mac::ALL.to_vec(),
        }
    }

    fn init(kex: &str, host: &str, ciphers: &str, compression: &str, follows: bool) -> Vec<u8> {
        let mut out = vec![number::KEXINIT];
        out.extend_from_slice(&[9; 16]);
        for list in [kex, host, ciphers, ciphers, "x", "x", compression, compression, "", ""] {
            out.put_string(list.as_bytes());
        }
        out.put_boolean(follows);
        out.put_uint32(0);
        out
    }

    #[test]
    fn our_own_two_proposals_agree_on_the_first_of_everything() {
        let bytes = proposal(Role::Client).encode([1; 16], true);
        let theirs = KexInit::decode(&bytes).unwrap();
        assert_eq!(theirs.cookie, [1; 16]);
        let agreed = agree(&proposal(Role::Server), &theirs).unwrap();
        assert_eq!(agreed.kex, KexAlgorithm::ALL[0]);
        assert_eq!(agreed.to_server, Protection { cipher: Cipher::ALL[0], mac: None });
        assert!(agreed.peer_strict && agreed.peer_ext_info && !agreed.drop_guess);
        // A later KEXINIT announces nothing.
        let bytes = proposal(Role::Client).encode([1; 16], false);
        let agreed = agree(&proposal(Role::Server), &KexInit::decode(&bytes).unwrap()).unwrap();
        assert!(!agreed.peer_strict && !agreed.peer_ext_info);
    }

    #[test]
    fn the_clients_preference_decides() {
        let theirs = init(
            "curve25519-sha256,mlkem768x25519-sha256",
            "rsa-sha2-256,ssh-ed25519",
            "chacha20-poly1305@openssh.com,aes128-gcm@openssh.com",
            "zlib,none",
            false,
        );
        let theirs = KexInit::decode(&theirs).unwrap();
        let as_server = agree(&proposal(Role::Server), &theirs).unwrap();
        assert_eq!(as_server.kex.name(), "curve25519-sha256");
        assert_eq!(as_server.host_key.name(), "rsa-sha2-256");
        assert_eq!(as_server.to_client.cipher, Cipher::ChaCha20Poly1305);
        let as_client = agree(&proposal(Role::Client), &theirs).unwrap();
        assert_eq!(as_client.kex.name(), "mlkem768x25519-sha256");
        assert_eq!(as_client.host_key.name(), "ssh-ed25519");
        assert_eq!(as_client.to_server.cipher, Cipher::Aes128Gcm);
    }

    /// The MACs of `init` are "x": that only matters where a MAC is used.
    #[test]
    fn a_mac_is_agreed_on_only_where_the_cipher_needs_one() {
        let good = ("curve25519-sha256", "ssh-ed25519", "aes256-ctr,aes256-gcm@openssh.com", "none");
        let bytes = init(good.0, good.1, good.2, good.3, false);
        let outcome = agree(&proposal(Role::Server), &KexInit::decode(&bytes).unwrap());
        let Err(Error::PeerIncompatible(PeerIncompatible::NoCommon { what, .. })) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(what, "MAC from client to server");
        let as_client = agree(&proposal(Role::Client), &KexInit::decode(&bytes).unwrap()).unwrap();
        assert_eq!(as_client.to_server, Protection { cipher: Cipher::Aes256Gcm, mac: None });

        let mut old = proposal(Role::Client);
        old.ciphers = vec![Cipher::Aes128Ctr];
        old.macs = vec![Mac::HmacSha512, Mac::HmacSha512Etm];
        let bytes = old.encode([1; 16], true);
        let agreed = agree(&proposal(Role::Server), &KexInit::decode(&bytes).unwrap()).unwrap();
        let expected = Protection { cipher: Cipher::Aes128Ctr, mac: Some(Mac::HmacSha512) };
        assert_eq!((agreed.to_server, agreed.to_client), (expected, expected));
    }

    #[test]
    fn a_guess_is_dropped_unless_both_favourites_are_the_same() {
        let ours = proposal(Role::Server);
        let (kex, host) = (ours.kex[0].name(), ours.host_keys[0].name());
        for (their_kex, their_host, follows, drop) in [
            (kex.to_owned(), host.to_owned(), true, false),
            (kex.to_owned(), format!("ssh-ed25519,{host}"), true, true),
            (format!("curve25519-sha256,{kex}"), host.to_owned(), true, true),
            (format!("curve25519-sha256,{kex}"), host.to_owned(), false, false),
        ] {
            let bytes = init(&their_kex, &their_host, "aes256-gcm@openssh.com", "none", follows);
            assert_eq!(agree(&ours, &KexInit::decode(&bytes).unwrap()).unwrap().drop_guess, drop);
        }
    }

    #[test]
    fn nothing_in_common_names_both_lists() {
        let good = ("curve25519-sha256", "ssh-ed25519", "aes256-gcm@openssh.com", "none");
        let cases = [
            (init("diffie-hellman-group1-sha1", good.1, good.2, good.3, false), "key exchange method"),
            (init(good.0, "ssh-dss", good.2, good.3, false), "host key algorithm"),
            (init(good.0, good.1, "3des-cbc", good.3, false), "cipher from client to server"),
            (init(good.0, good.1, good.2, "zlib", false), "compression"),
        ];
        for (bytes, expected) in cases {
            let outcome = agree(&proposal(Role::Server), &KexInit::decode(&bytes).unwrap());
            let Err(Error::PeerIncompatible(PeerIncompatible::NoCommon { what, theirs, .. })) = outcome
            else {
                panic!("{outcome:?}")
            };
            assert_eq!(what, expected);
            assert!(!theirs.is_empty());
        }
    }

    proptest! {
        #[test]
        fn mutated_kexinits_never_panic(at in 0..800usize, byte: u8, cut in 0..900usize) {
            let mut bytes = proposal(Role::Client).encode([3; 16], true);
            let index = at % bytes.len();
            bytes[index] = byte;
            bytes.truncate(cut.max(1));
            if let Ok(theirs) = KexInit::decode(&bytes) {
                drop(agree(&proposal(Role::Server), &theirs));
            }
        }

        #[test]
        fn random_payloads_never_panic(mut bytes: Vec<u8>) {
            bytes.insert(0, number::KEXINIT);
            drop(KexInit::decode(&bytes).map(|theirs| agree(&proposal(Role::Client), &theirs)));
        }

        #[test]
        fn every_cut_is_refused(cut in 0..600usize) {
            let bytes = proposal(Role::Server).encode([3; 16], true);
            let cut = cut % bytes.len();
            prop_assert!(KexInit::decode(&bytes[..cut]).is_err());
        }
    }
}
