//! What the X.509 authorities issue, judged by rustls and by the stock `openssl`.

use crate::ca::store::FileKeyStore;
use crate::ca::x509::{CLIENT_SECONDS_MAX, IssuedX509};
use crate::ca::{Authorities, IssueError};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};

const NOW: u64 = 1_800_000_000;

fn authorities(scratch: &tempfile::TempDir) -> Authorities {
    let store = FileKeyStore::open(&scratch.path().join("keys")).unwrap();
    Authorities::open(Arc::new(store), &scratch.path().join("published"), NOW).unwrap()
}

fn roots(certificate: &CertificateDer<'static>) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    Arc::new(roots)
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn server_is_believed(root: &CertificateDer<'static>, issued: &IssuedX509, name: &str, now: u64) -> bool {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(root), provider).build().unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    use rustls::client::danger::ServerCertVerifier;
    verifier.verify_server_cert(&issued.certificate, &[], &name, &[], at(now)).is_ok()
}

fn client_is_believed(root: &CertificateDer<'static>, issued: &IssuedX509, now: u64) -> bool {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(root), provider).build().unwrap();
    verifier.verify_client_cert(&issued.certificate, &[], at(now)).is_ok()
}

fn signing_request(key: &rcgen::KeyPair) -> Vec<u8> {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "root");
    params.serialize_request(key).unwrap().der().to_vec()
}

#[test]
fn servers() {
    let scratch = tempfile::tempdir().unwrap();
    let all = authorities(&scratch);
    let names = ["custody.example.com".to_owned(), "localhost".to_owned()];
    let addresses = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    let identity = all.x509_server.issue(NOW, &names, &addresses, 3600).unwrap();
    let root = all.x509_server.certificate();
    for name in ["custody.example.com", "localhost", "127.0.0.1", "::1"] {
        assert!(server_is_believed(root, &identity.issued, name, NOW), "{name}");
    }
    assert!(!server_is_believed(root, &identity.issued, "example.com", NOW));
    assert!(!server_is_believed(root, &identity.issued, "localhost", NOW + 3601));
    assert!(!server_is_believed(all.x509_client.certificate(), &identity.issued, "localhost", NOW));
    assert!(!client_is_believed(root, &identity.issued, NOW), "a server is no client");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = provider.key_provider.load_private_key(identity.key).unwrap();
    assert!(key.choose_scheme(&[rustls::SignatureScheme::ECDSA_NISTP256_SHA256]).is_some());
    assert!(all.x509_server.issue(NOW, &[], &[], 3600).is_err());
}

#[test]
fn users() {
    let scratch = tempfile::tempdir().unwrap();
    let all = authorities(&scratch);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let issued = all.x509_client.issue(NOW, &signing_request(&key), "ana", 3600).unwrap();
    assert!(client_is_believed(all.x509_client.certificate(), &issued, NOW));
    assert!(!client_is_believed(all.x509_client.certificate(), &issued, NOW + 3601));
    assert!(!client_is_believed(all.x509_target.certificate(), &issued, NOW), "databases don't believe it");
    assert!(!server_is_believed(all.x509_client.certificate(), &issued, "ana", NOW), "a client is no server");

    let (_, parsed) = X509Certificate::from_der(&issued.certificate).unwrap();
    let names: Vec<_> = parsed.subject().iter_common_name().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(names, ["ana"], "whatever the request said");
    assert_eq!(parsed.tbs_certificate.raw_serial().len(), 16);
    assert!(parsed.tbs_certificate.raw_serial()[0] & 0x80 == 0, "positive");
    assert_eq!(issued.serial, parsed.tbs_certificate.raw_serial_as_string().replace(':', ""));
    assert!(!parsed.is_ca());
    assert_eq!((issued.not_before, issued.not_after), (NOW - 60, NOW + 3600));
}

#[test]
fn what_is_not_issued() {
    let scratch = tempfile::tempdir().unwrap();
    let authority = authorities(&scratch).x509_client;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let right = signing_request(&key);
    let issue = |request: &[u8], user: &str, seconds| authority.issue(NOW, request, user, seconds);
    issue(&right, "ana", 3600).unwrap();
    // What a request says can't be changed: only the frame around what is signed may be read leniently, and then the
    // same key is certified.
    let certified = issue(&right, "ana", 3600).unwrap().key_sha256;
    let mut refused = 0;
    for position in 0..right.len() {
        let mut changed = right.clone();
        changed[position] ^= 1;
        match issue(&changed, "ana", 3600) {
            Ok(issued) => assert_eq!(issued.key_sha256, certified, "byte {position}"),
            Err(IssueError::Request(_)) => refused += 1,
            Err(other) => panic!("byte {position}: {other}"),
        }
    }
    assert!(refused + 4 > right.len(), "only {refused} of {} changes were refused", right.len());
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    for (request, user, seconds) in [
        (&signing_request(&ed25519), "ana", 3600),
        (&vec![0; 9000], "ana", 3600),
        (&right, "", 3600),
        (&right, "a\0na", 3600),
        (&right, &"x".repeat(65), 3600),
        (&right, "ana", 0),
        (&right, "ana", CLIENT_SECONDS_MAX + 1),
    ] {
        assert!(matches!(issue(request, user, seconds), Err(IssueError::Request(_))));
    }
    assert!(authority.issue(253_402_300_799, &right, "ana", 3600).is_err(), "after the year 9999");
}

#[test]
fn openssl_agrees() {
    let scratch = tempfile::tempdir().unwrap();
    let all = authorities(&scratch);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let client = all.x509_client.issue(NOW, &signing_request(&key), "ana", 3600).unwrap();
    let server = all.x509_server.issue(NOW, &["localhost".to_owned()], &[], 3600).unwrap().issued;
    for (ca, purpose, issued, accepted) in [
        ("x509-client-ca", "sslclient", &client, true),
        ("x509-server-ca", "sslserver", &server, true),
        ("x509-client-ca", "sslserver", &client, false),
        ("x509-target-ca", "sslclient", &client, false),
    ] {
        let leaf = scratch.path().join("leaf.pem");
        crate::ca::write_whole(&leaf, issued.pem.as_bytes()).unwrap();
        let output = Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", purpose, "-attime", &NOW.to_string(), "-CAfile"])
            .arg(scratch.path().join("published").join(format!("{ca}.pem")))
            .arg(&leaf)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), accepted, "{ca} {purpose}: {said}");
    }
}
