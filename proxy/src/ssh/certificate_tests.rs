//! Certificates that the stock `ssh-keygen` makes, in every wrong form.

use super::*;
use proptest::prelude::*;
use std::path::PathBuf;
use std::process::Command;

const NOW: u64 = 1_800_000_000;
const SOURCE: &str = "192.0.2.7";

/// A directory with keys made by `ssh-keygen`.
struct Keys {
    scratch: tempfile::TempDir,
}

impl Keys {
    fn new() -> Self {
        Self { scratch: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn make(&self, name: &str, kind: &[&str]) -> PublicKey {
        let path = self.path(name);
        run(Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-C", "", "-f"])
            .arg(&path)
            .arg("-t")
            .args(kind));
        PublicKey::read_openssh_file(path.with_extension("pub")).unwrap()
    }

    /// Signs `user.pub` by `ca`, always valid unless `options` say otherwise.
    fn sign(&self, ca: &str, options: &[&str]) -> Certificate {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-I", "key id", "-z", "77", "-s"]).arg(self.path(ca)).args(options);
        run(command.arg(self.path("user.pub")));
        // Through the wire form, as a peer would send it.
        let certificate = Certificate::read_file(&self.path("user-cert.pub")).unwrap();
        parse_certificate(&certificate.to_bytes().unwrap()).unwrap()
    }
}

fn run(command: &mut Command) {
    let output = command.env("TZ", "UTC").output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn check(certificate: &Certificate, ca: &PublicKey) -> Result<LoginCertificate, Refusal> {
    check_user_certificate(certificate, &TrustedAuthorities::new([ca]), NOW, SOURCE.parse().unwrap())
}

#[test]
fn a_right_certificate_says_who_and_what() {
    let keys = Keys::new();
    let ca = keys.make("ca", &["ed25519"]);
    let user = keys.make("user", &["ed25519"]);
    let certificate = keys.sign("ca", &["-n", "ana", "-V", "20270101:20280101", "-O", "extension:x@y=z"]);
    let login = check(&certificate, &ca).unwrap();
    assert_eq!(login.principals, ["ana"]);
    assert_eq!((login.key_id.as_str(), login.serial), ("key id", 77));
    assert_eq!(login.key, *user.key_data());
    assert_eq!(login.key_fingerprint, user.fingerprint(HashAlg::Sha256));
    assert_eq!(login.authority, ca.fingerprint(HashAlg::Sha256));
    assert!(login.extensions.pty && login.extensions.port_forwarding && login.extensions.agent_forwarding);
    assert!(login.extensions.x11_forwarding && login.extensions.user_rc, "beside one that nobody knows");
    assert_eq!(login.force_command, None);

    let bare = keys.sign("ca", &["-n", "ana", "-O", "clear"]);
    assert_eq!(check(&bare, &ca).unwrap().extensions, Extensions::default());
}

#[test]
fn what_sshd_would_refuse_is_refused() {
    let keys = Keys::new();
    let ca = keys.make("ca", &["ed25519"]);
    keys.make("other", &["ed25519"]);
    keys.make("user", &["ed25519"]);
    let refused = |signer: &str, options: &[&str]| check(&keys.sign(signer, options), &ca).unwrap_err();

    assert!(matches!(refused("other", &["-n", "ana"]), Refusal::UntrustedAuthority { .. }));
    assert!(matches!(refused("ca", &["-h", "-n", "ana"]), Refusal::WrongType { got: CertType::Host, .. }));
    assert_eq!(refused("ca", &[]), Refusal::NoPrincipal);
    let expired = refused("ca", &["-n", "ana", "-V", "20260101:20260201"]);
    assert!(matches!(expired, Refusal::Expired { now: NOW, .. }));
    let early = refused("ca", &["-n", "ana", "-V", "20300101:20310101"]);
    assert!(matches!(early, Refusal::NotYetValid { now: NOW, .. }));
    let elsewhere = refused("ca", &["-n", "ana", "-O", "source-address=198.51.100.0/24,2001:db8::/32"]);
    assert!(matches!(elsewhere, Refusal::SourceAddressNotAllowed { .. }));
    let unknown = refused("ca", &["-n", "ana", "-O", "critical:new@example.com=1"]);
    assert_eq!(unknown, Refusal::UnknownCriticalOption { name: "new@example.com".to_owned() });
    for refusal in [expired, early, elsewhere, unknown] {
        assert_eq!(refusal.outward(), REFUSED);
    }
}

#[test]
fn validity_is_a_half_open_range() {
    let keys = Keys::new();
    let ca = keys.make("ca", &["ed25519"]);
    keys.make("user", &["ed25519"]);
    let certificate = keys.sign("ca", &["-n", "ana", "-V", "20270101000000:20270101000010"]);
    let (first, end) = (certificate.valid_after(), certificate.valid_before());
    let at = |now| {
        check_user_certificate(&certificate, &TrustedAuthorities::new([&ca]), now, SOURCE.parse().unwrap())
    };
    assert!(matches!(at(first - 1), Err(Refusal::NotYetValid { .. })));
    at(first).unwrap();
    at(end - 1).unwrap();
    assert!(matches!(at(end), Err(Refusal::Expired { .. })));
}

#[test]
fn options_that_we_honour_are_carried() {
    let keys = Keys::new();
    let ca = keys.make("ca", &["ed25519"]);
    keys.make("user", &["ed25519"]);
    let options = [
        "-n",
        "ana,bob",
        "-O",
        "force-command=uptime -p",
        "-O",
        "source-address=192.0.2.0/24",
        "-O",
        "no-pty",
    ];
    let login = check(&keys.sign("ca", &options), &ca).unwrap();
    assert_eq!(login.force_command.as_deref(), Some("uptime -p"));
    assert_eq!(login.source_address.as_deref(), Some("192.0.2.0/24"));
    assert_eq!(login.principals, ["ana", "bob"]);
    assert!(!login.extensions.pty && login.extensions.port_forwarding);
    assert!(check(&keys.sign("ca", &["-n", "ana", "-O", "verify-required"]), &ca).unwrap().verify_required);
}

#[test]
fn kinds_of_keys_and_of_authorities() {
    let keys = Keys::new();
    // user's kind, authority's kind, how the authority signs, accepted
    for (index, (user, authority, signs, accepted)) in [
        (&["ed25519"] as &[&str], &["ed25519"] as &[&str], None, true),
        (&["ecdsa", "-b", "256"], &["ecdsa", "-b", "256"], None, true),
        (&["rsa", "-b", "2048"], &["rsa", "-b", "2048"], Some("rsa-sha2-512"), true),
        (&["rsa", "-b", "3072"], &["ecdsa", "-b", "384"], None, true),
        (&["ed25519"], &["rsa", "-b", "2048"], Some("rsa-sha2-256"), true),
        (&["ed25519"], &["rsa", "-b", "2048"], Some("ssh-rsa"), false),
        (&["ed25519"], &["rsa", "-b", "1024"], Some("rsa-sha2-512"), false),
        (&["rsa", "-b", "1024"], &["ed25519"], None, false),
    ]
    .into_iter()
    .enumerate()
    {
        let ca_name = format!("ca{index}");
        let ca = keys.make(&ca_name, authority);
        for old in ["user", "user.pub"] {
            std::fs::remove_file(keys.path(old)).ok();
        }
        keys.make("user", user);
        let mut options = vec!["-n", "ana"];
        options.extend(signs.iter().flat_map(|signs| ["-t", *signs]));
        let result = check(&keys.sign(&ca_name, &options), &ca);
        assert_eq!(result.is_ok(), accepted, "{index}: {result:?}");
        if signs == Some("ssh-rsa") {
            assert!(matches!(result, Err(Refusal::AuthoritySignatureType { .. })), "{result:?}");
        }
    }
}

#[test]
fn a_changed_certificate_is_refused_wherever_it_is_changed() {
    let keys = Keys::new();
    let ca = keys.make("ca", &["ed25519"]);
    keys.make("user", &["ed25519"]);
    let blob = keys.sign("ca", &["-n", "ana"]).to_bytes().unwrap();
    for position in 0..blob.len() {
        for bit in [0, 7] {
            let mut changed = blob.clone();
            changed[position] ^= 1 << bit;
            let result = parse_certificate(&changed).and_then(|certificate| check(&certificate, &ca));
            assert!(result.is_err(), "byte {position} bit {bit}");
        }
        assert!(parse_certificate(&blob[..position]).is_err(), "cut at {position}");
    }
    let mut longer = blob.clone();
    longer.push(0);
    assert!(matches!(parse_certificate(&longer), Err(Refusal::Malformed(_))));
    let huge = vec![0; CERTIFICATE_BYTES_MAX + 1];
    assert!(matches!(parse_certificate(&huge), Err(Refusal::TooLong { .. })));
}

/// Without the check of the layout, the library's parser follows certificates nested in the place of the
/// authority's key until the stack ends.
#[test]
fn nested_certificates_are_refused_before_they_are_followed() {
    let mut inner = vec![0; 8];
    for _ in 0..100 {
        let mut outer = Vec::new();
        super::super::field::put_string(&mut outer, b"ssh-ed25519-cert-v01@openssh.com");
        super::super::field::put_string(&mut outer, b"");
        super::super::field::put_string(&mut outer, &[0; 32]);
        outer.extend_from_slice(&[0; 11]);
        outer.push(1);
        for _ in 0..2 {
            super::super::field::put_string(&mut outer, b"");
        }
        outer.extend_from_slice(&[0; 16]);
        for _ in 0..3 {
            super::super::field::put_string(&mut outer, b"");
        }
        super::super::field::put_string(&mut outer, &inner);
        super::super::field::put_string(&mut outer, b"");
        inner = outer;
    }
    let refusal = parse_certificate(&inner).unwrap_err();
    assert_eq!(refusal, Refusal::Malformed("the authority's key is of a type that isn't accepted"));
}

#[test]
fn plain_keys_and_unknown_types_are_no_certificates() {
    let keys = Keys::new();
    let plain = keys.make("user", &["ed25519"]).to_bytes().unwrap();
    assert!(matches!(parse_certificate(&plain), Err(Refusal::KeyType { .. })));
    assert!(matches!(parse_certificate(b""), Err(Refusal::Malformed(_))));
}

#[test]
fn hosts() {
    let keys = Keys::new();
    let ca = keys.make("ca", &["ed25519"]);
    keys.make("other", &["ed25519"]);
    keys.make("user", &["ed25519"]);
    let check = |certificate: &Certificate, name: &str| {
        check_host_certificate(certificate, &TrustedAuthorities::new([&ca]), &[name.to_owned()], NOW)
    };
    let host = keys.sign("ca", &["-h", "-n", "web-1,192.0.2.80", "-V", "20270101:20280101"]);
    assert_eq!(check(&host, "web-1").unwrap().serial, 77);
    check(&host, "WEB-1").unwrap();
    check(&host, "192.0.2.80").unwrap();
    assert!(matches!(check(&host, "web-2"), Err(Refusal::WrongPrincipal { .. })));
    assert!(matches!(check(&host, "web-1,192.0.2.80"), Err(Refusal::WrongPrincipal { .. })));
    let refused = |signer: &str, options: &[&str]| check(&keys.sign(signer, options), "web-1").unwrap_err();
    assert!(matches!(refused("ca", &["-n", "web-1"]), Refusal::WrongType { got: CertType::User, .. }));
    assert!(matches!(refused("other", &["-h", "-n", "web-1"]), Refusal::UntrustedAuthority { .. }));
    assert_eq!(refused("ca", &["-h"]), Refusal::NoPrincipal);
    assert!(matches!(refused("ca", &["-h", "-n", "*"]), Refusal::WrongPrincipal { .. }), "no patterns");
    let expired = refused("ca", &["-h", "-n", "web-1", "-V", "20260101:20260201"]);
    assert!(matches!(expired, Refusal::Expired { .. }));
    let critical = refused("ca", &["-h", "-n", "web-1", "-O", "critical:x=y"]);
    assert!(matches!(critical, Refusal::UnknownCriticalOption { .. }));
}

#[test]
fn source_addresses() {
    // list, address, allowed (None: the list is malformed)
    for (list, ip, allowed) in [
        ("192.0.2.7", "192.0.2.7", Some(true)),
        ("192.0.2.7", "192.0.2.8", Some(false)),
        ("192.0.2.0/24", "192.0.2.255", Some(true)),
        ("192.0.2.0/24", "192.0.3.0", Some(false)),
        ("0.0.0.0/0", "203.0.113.1", Some(true)),
        ("0.0.0.0/0", "2001:db8::1", Some(false)),
        ("::/0", "2001:db8::1", Some(true)),
        ("::/0", "192.0.2.1", Some(false)),
        ("2001:db8::/33", "2001:db8:7fff::1", Some(true)),
        ("2001:db8::/33", "2001:db8:8000::1", Some(false)),
        ("10.0.0.1,192.0.2.0/31", "192.0.2.1", Some(true)),
        ("192.0.2.7", "::ffff:192.0.2.7", Some(true)),
        ("", "192.0.2.7", None),
        ("192.0.2.7,", "192.0.2.7", None),
        ("192.0.2.7/33", "192.0.2.7", None),
        ("192.0.2.7/24", "192.0.2.7", None),
        ("192.0.2.7/", "192.0.2.7", None),
        ("192.0.2.7/+32", "192.0.2.7", None),
        ("192.0.2.7 ", "192.0.2.7", None),
        ("192.0.2.7,example.com", "192.0.2.7", None),
        ("*", "192.0.2.7", None),
    ] {
        let got = match check_source_address(list, ip.parse().unwrap()) {
            Ok(()) => Some(true),
            Err(Refusal::SourceAddressNotAllowed { .. }) => Some(false),
            Err(Refusal::SourceAddressMalformed { .. }) => None,
            Err(other) => panic!("{other}"),
        };
        assert_eq!(got, allowed, "{ip} in {list:?}");
    }
}

proptest! {
    #[test]
    fn rubbish_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(parse_certificate(&bytes).is_err());
    }

    #[test]
    fn rubbish_behind_a_type_never_panics(tail in proptest::collection::vec(any::<u8>(), 0..512)) {
        let mut bytes = Vec::new();
        super::super::field::put_string(&mut bytes, b"ssh-rsa-cert-v01@openssh.com");
        bytes.extend(tail);
        prop_assert!(parse_certificate(&bytes).is_err());
    }

    #[test]
    fn a_network_holds_what_its_mask_says(network: u32, bits in 0u32..=32, ip: u32) {
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        let entry = format!("{}/{bits}", std::net::Ipv4Addr::from(network & mask));
        let ip_address = IpAddr::V4(ip.into());
        prop_assert_eq!(network_contains(&entry, ip_address), Some(ip & mask == network & mask));
    }
}
