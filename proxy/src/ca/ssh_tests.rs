//! What the SSH authorities issue, read by our own checks and by the stock `ssh-keygen`.

use crate::ca::Authorities;
use crate::ca::ssh::*;
use crate::ca::store::FileKeyStore;
use crate::ssh::authenticate::client::SessionKey;
use crate::ssh::certificate::{
    Refusal, TrustedAuthorities, check_host_certificate, check_user_certificate, parse_certificate,
};
use std::process::Command;
use std::sync::Arc;

const NOW: u64 = 1_800_000_000;

fn authorities(scratch: &tempfile::TempDir) -> Authorities {
    let store = FileKeyStore::open(&scratch.path().join("keys")).unwrap();
    Authorities::open(Arc::new(store), &scratch.path().join("published"), NOW).unwrap()
}

fn session_request() -> SessionRequest {
    SessionRequest {
        public_key: SessionKey::generate().unwrap().public_key(),
        login: "root".to_owned(),
        session: "0197-session".to_owned(),
        valid_seconds: 300,
        source_addresses: vec!["192.0.2.1".parse().unwrap(), "::ffff:192.0.2.2".parse().unwrap()],
        permissions: vec![Permission::PortForwarding, Permission::Pty, Permission::Pty],
        force_command: None,
    }
}

fn login_request() -> LoginRequest {
    LoginRequest {
        public_key: SessionKey::generate().unwrap().public_key(),
        user: "ana@example.com".to_owned(),
        key_id: "login-1".to_owned(),
        valid_seconds: 3600,
        source_addresses: vec![],
        permissions: Permission::ALL.to_vec(),
    }
}

fn ssh_keygen_lists(issued: &IssuedSsh) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("x-cert.pub");
    issued.certificate.write_file(&path).unwrap();
    let output = Command::new("ssh-keygen").arg("-L").arg("-f").arg(&path).env("TZ", "UTC").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_sessions_certificate() {
    let scratch = tempfile::tempdir().unwrap();
    let authority = authorities(&scratch).ssh_target;
    let issued = authority.issue(NOW, &session_request()).unwrap();
    assert_eq!((issued.valid_after, issued.valid_before), (NOW - 60, NOW + 300));
    let listed = ssh_keygen_lists(&issued);
    for expected in [
        "Type: ssh-ed25519-cert-v01@openssh.com user certificate",
        "Key ID: \"0197-session\"",
        &format!("Serial: {}", issued.serial),
        &format!("Signing CA: ED25519 {} (using ssh-ed25519)", issued.authority_fingerprint),
        &issued.key_fingerprint,
        "Valid: from 2027-01-15T07:59:00 to 2027-01-15T08:05:00",
        "source-address 192.0.2.1,192.0.2.2",
        "permit-pty",
        "permit-port-forwarding",
    ] {
        assert!(listed.contains(expected), "{expected:?} is missing in\n{listed}");
    }
    assert!(!listed.contains("agent"), "{listed}");
    let other = authority.issue(NOW, &session_request()).unwrap();
    assert_ne!(issued.serial, other.serial);
}

#[test]
fn each_authority_is_believed_on_its_side_only() {
    let scratch = tempfile::tempdir().unwrap();
    let all = authorities(&scratch);
    let login = all.ssh_client.issue(NOW, &login_request()).unwrap();
    let session = all.ssh_target.issue(NOW, &session_request()).unwrap();
    let host = HostRequest {
        public_key: SessionKey::generate().unwrap().public_key(),
        names: vec!["web-1".to_owned(), "192.0.2.80".to_owned()],
        key_id: "node-1".to_owned(),
        valid_seconds: 3600,
    };
    let host = all.ssh_host.issue(NOW, &host).unwrap();
    let keys = [all.ssh_client.public_key(), all.ssh_target.public_key(), all.ssh_host.public_key()];
    let source = "192.0.2.1".parse().unwrap();
    for (index, key) in keys.iter().enumerate() {
        let trusted = TrustedAuthorities::new([key]);
        for (certificate, side) in [(&login, 0), (&session, 1)] {
            let parsed = parse_certificate(&certificate.certificate.to_bytes().unwrap()).unwrap();
            let result = check_user_certificate(&parsed, &trusted, NOW, source);
            assert_eq!(result.is_ok(), index == side, "{result:?}");
        }
        let parsed = parse_certificate(&host.certificate.to_bytes().unwrap()).unwrap();
        let result = check_host_certificate(&parsed, &trusted, &["web-1".to_owned()], NOW);
        assert_eq!(result.is_ok(), index == 2, "{result:?}");
        assert!(check_user_certificate(&parsed, &trusted, NOW, source).is_err());
    }
    // Elsewhere than from the proxy the session's certificate is worth nothing.
    let trusted = TrustedAuthorities::new([&keys[1]]);
    let result = check_user_certificate(&session.certificate, &trusted, NOW, "192.0.2.9".parse().unwrap());
    assert!(matches!(result, Err(Refusal::SourceAddressNotAllowed { .. })));
}

#[test]
fn what_is_not_issued() {
    let scratch = tempfile::tempdir().unwrap();
    let all = authorities(&scratch);
    for (what, change) in [
        ("too long", (|request| request.valid_seconds = LOGIN_SECONDS_MAX + 1) as fn(&mut LoginRequest)),
        ("no time", |request| request.valid_seconds = 0),
        ("nobody", |request| request.user.clear()),
        ("two", |request| request.user = "ana,root".to_owned()),
        ("blank", |request| request.user = "ana root".to_owned()),
        ("line", |request| request.key_id = "a\nb".to_owned()),
        ("long", |request| request.key_id = "x".repeat(257)),
    ] {
        let mut request = login_request();
        change(&mut request);
        let result = all.ssh_client.issue(NOW, &request);
        assert!(matches!(result, Err(IssueError::Request(_))), "{what}: {result:?}");
    }
    let mut request = session_request();
    request.source_addresses.clear();
    assert!(
        all.ssh_target.issue(NOW, &request).is_err(),
        "a session's certificate without the proxy's address"
    );
    request = session_request();
    request.valid_seconds = SESSION_SECONDS_MAX + 1;
    assert!(all.ssh_target.issue(NOW, &request).is_err());
}

/// The lines that go into `TrustedUserCAKeys` and `known_hosts`.
#[test]
fn published_keys_are_in_the_stock_form() {
    let scratch = tempfile::tempdir().unwrap();
    let _all = authorities(&scratch);
    for name in ["ssh-client-ca", "ssh-target-ca", "ssh-host-ca"] {
        let path = scratch.path().join("published").join(format!("{name}.pub"));
        let output = Command::new("ssh-keygen").arg("-l").arg("-f").arg(&path).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("custody-{name} (ED25519)")));
    }
}
