//! Both machines against each other and against rubbish.

use super::client::{self, Credential, SessionKey, TargetFault};
use super::server::{
    Authenticated, Connection, Denied, ExpectRequest, ExpectServiceRequest, MESSAGES_MAX, Proof, Proved,
    REFUSALS_MAX, ServerFault, ServiceStep, Step,
};
use super::*;
use crate::ca::Authorities;
use crate::ca::ssh::{LoginRequest, Permission};
use crate::ca::store::FileKeyStore;
use crate::ssh::certificate::{Refusal, TrustedAuthorities};
use crate::ssh::field::{Fields, put_string};
use proptest::prelude::*;
use russh::keys::signature::Signer;
use russh::keys::ssh_key::{Certificate, Signature};
use russh::keys::{Algorithm, PrivateKey, PublicKey};
use std::process::Command;
use std::sync::{Arc, LazyLock};

#[path = "security_key_tests.rs"]
mod security_keys;

const NOW: u64 = 1_800_000_000;
const SESSION: &[u8; 32] = &[7; 32];
const HOST_KEY: &[u8] = b"host key blob";

static SCRATCH: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());
static AUTHORITIES: LazyLock<Authorities> = LazyLock::new(|| {
    let store = FileKeyStore::open(&SCRATCH.path().join("keys")).unwrap();
    Authorities::open(Arc::new(store), &SCRATCH.path().join("published"), NOW).unwrap()
});

pub(super) fn connection() -> Connection {
    Connection {
        session_id: SESSION.to_vec(),
        source: "192.0.2.7".parse().unwrap(),
        host_key: Some(HOST_KEY.to_vec()),
        authorities: Arc::new(TrustedAuthorities::new([&AUTHORITIES.ssh_client.public_key()])),
        asks_passwords: false,
    }
}

fn login_certificate(key: &PublicKey) -> Certificate {
    let request = LoginRequest {
        public_key: key.clone(),
        user: "ana".to_owned(),
        key_id: "login-1".to_owned(),
        valid_seconds: 3600,
        source_addresses: vec![],
        permissions: Permission::ALL.to_vec(),
    };
    AUTHORITIES.ssh_client.issue(NOW, &request).unwrap().certificate
}

/// A server that has accepted the service.
pub(super) fn serving(connection: Connection) -> ExpectRequest {
    let mut payload = vec![message::SERVICE_REQUEST];
    put_string(&mut payload, b"ssh-userauth");
    match ExpectServiceRequest::new(connection).handle(&payload).unwrap() {
        ServiceStep::Accepted { send, next } => {
            assert_eq!(send.first(), Some(&message::SERVICE_ACCEPT));
            next
        }
        ServiceStep::Waiting(_) => panic!("the service was not accepted"),
    }
}

/// What our client would send for this key, certificate and session.
fn request(session_id: &[u8], key: SessionKey, certificate: Certificate) -> Vec<u8> {
    let (_, expect) = client::start(session_id, "root+web-1", Credential { key, certificate }).unwrap();
    let mut accept = vec![message::SERVICE_ACCEPT];
    put_string(&mut accept, b"ssh-userauth");
    match expect.handle(&accept).unwrap() {
        client::ServiceStep::Accepted { send, .. } => send,
        client::ServiceStep::Waiting(_) => panic!("no request"),
    }
}

static RIGHT_REQUEST: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let key = SessionKey::generate().unwrap();
    let certificate = login_certificate(&key.public_key());
    request(SESSION, key, certificate)
});

fn proved(step: Step) -> Proved {
    match step {
        Step::Proved(proved) => *proved,
        other => panic!("not proved: {other:?}"),
    }
}

/// The next state, after a check that the refusal was told as every refusal is.
fn denied(step: Step) -> (Denied, ExpectRequest) {
    match step {
        Step::Continue { send, next, denied: Some(denied) } => {
            assert_eq!(send.unwrap(), b"\x33\0\0\0\x09publickey\0");
            (denied, next)
        }
        other => panic!("not denied: {other:?}"),
    }
}

#[test]
fn our_client_gets_in_at_our_server() {
    let proved = proved(serving(connection()).handle(&RIGHT_REQUEST, NOW).unwrap());
    assert_eq!(proved.user_name(), b"root+web-1");
    let (success, authenticated) = proved.accept();
    assert_eq!(success, [message::USERAUTH_SUCCESS]);
    let Proof::Certificate(certificate) = Authenticated::proof(&authenticated) else {
        panic!("a certificate")
    };
    assert_eq!(certificate.principals, ["ana"]);
    assert_eq!(authenticated.user_name(), b"root+web-1");
}

#[test]
fn a_decision_can_still_refuse() {
    let proved = proved(serving(connection()).handle(&RIGHT_REQUEST, NOW).unwrap());
    let (why, next) = denied(proved.refuse().unwrap());
    assert_eq!(why, Denied::Decision);
    // And the client may try again.
    let _proved = self::proved(next.handle(&RIGHT_REQUEST, NOW).unwrap());
}

#[test]
fn none_lists_what_there_is_and_a_question_is_answered() {
    let mut none = vec![message::USERAUTH_REQUEST];
    for field in [b"root+web-1" as &[u8], b"ssh-connection", b"none"] {
        put_string(&mut none, field);
    }
    let Step::Continue { send, next, denied: None } = serving(connection()).handle(&none, NOW).unwrap()
    else {
        panic!("none is no refusal")
    };
    assert_eq!(send.unwrap(), b"\x33\0\0\0\x09publickey\0");

    let (question, algorithm, blob) = question(&RIGHT_REQUEST);
    let Step::Continue { send, next, denied: None } = next.handle(&question, NOW).unwrap() else {
        panic!("the question was refused")
    };
    let mut expected = vec![message::USERAUTH_PK_OK];
    put_string(&mut expected, &algorithm);
    put_string(&mut expected, &blob);
    assert_eq!(send.unwrap(), expected);
    let _proved = proved(next.handle(&RIGHT_REQUEST, NOW).unwrap());
}

/// The request without signature that asks whether the key would do.
fn question(request: &[u8]) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut fields = Fields::new(request);
    fields.byte().unwrap();
    let head: Vec<_> = (0..3).map(|_| fields.string().unwrap()).collect();
    fields.boolean().unwrap();
    let (algorithm, blob) = (fields.string().unwrap(), fields.string().unwrap());
    let mut question = vec![message::USERAUTH_REQUEST];
    for field in head {
        put_string(&mut question, field);
    }
    question.push(0);
    put_string(&mut question, algorithm);
    put_string(&mut question, blob);
    (question, algorithm.to_vec(), blob.to_vec())
}

#[test]
fn a_signature_of_another_session_is_refused() {
    let key = SessionKey::generate().unwrap();
    let certificate = login_certificate(&key.public_key());
    let replayed = request(&[8; 32], key, certificate);
    let (why, _) = denied(serving(connection()).handle(&replayed, NOW).unwrap());
    assert_eq!(why, Denied::Signature(SignatureFault::Wrong));
}

#[test]
fn every_changed_byte_of_a_request_is_refused() {
    let right = &*RIGHT_REQUEST;
    for position in 0..right.len() {
        for bit in [0, 3, 7] {
            let mut changed = right.clone();
            changed[position] ^= 1 << bit;
            if let Ok(Step::Proved(_)) = serving(connection()).handle(&changed, NOW) {
                panic!("byte {position} bit {bit} changed, and still proved");
            }
        }
        if let Ok(Step::Proved(_)) = serving(connection()).handle(&right[..position], NOW) {
            panic!("cut at {position}, and still proved");
        }
    }
    let mut longer = right.clone();
    longer.push(0);
    let fault = serving(connection()).handle(&longer, NOW).unwrap_err();
    assert_eq!(fault, ServerFault::Malformed { what: "USERAUTH_REQUEST" });
}

#[test]
fn the_time_and_the_target_authority_count() {
    let (why, _) = denied(serving(connection()).handle(&RIGHT_REQUEST, NOW + 3600).unwrap());
    assert!(matches!(why, Denied::Certificate(Refusal::Expired { .. })));

    // What a proxy holds for a target doesn't log in at the proxy, and the other way round.
    let mut other = connection();
    other.authorities = Arc::new(TrustedAuthorities::new([&AUTHORITIES.ssh_target.public_key()]));
    let (why, _) = denied(serving(other).handle(&RIGHT_REQUEST, NOW).unwrap());
    assert!(matches!(why, Denied::Certificate(Refusal::UntrustedAuthority { .. })));
}

#[test]
fn other_methods_and_plain_keys_are_refused() {
    let mut password = vec![message::USERAUTH_REQUEST];
    for field in [b"root+web-1" as &[u8], b"ssh-connection", b"password"] {
        put_string(&mut password, field);
    }
    password.push(0);
    put_string(&mut password, b"hunter2");
    let (why, next) = denied(serving(connection()).handle(&password, NOW).unwrap());
    assert!(!why.to_string().contains("hunter2"));
    assert_eq!(why, Denied::Method { method: "password".to_owned() });

    let key = SessionKey::generate().unwrap();
    for (algorithm, blob) in [
        (b"ssh-ed25519" as &[u8], key.public_key().to_bytes().unwrap()),
        (b"ssh-rsa-cert-v01@openssh.com", login_certificate(&key.public_key()).to_bytes().unwrap()),
    ] {
        let mut plain = vec![message::USERAUTH_REQUEST];
        for field in [b"root+web-1" as &[u8], b"ssh-connection", b"publickey"] {
            put_string(&mut plain, field);
        }
        plain.push(0);
        put_string(&mut plain, algorithm);
        put_string(&mut plain, &blob);
        let (why, _) = denied(serving(connection()).handle(&plain, NOW).unwrap());
        assert!(matches!(why, Denied::Algorithm { .. }), "{why}");
    }
    // A certificate's blob under a plain algorithm of another type.
    let mut mixed = vec![message::USERAUTH_REQUEST];
    for field in [b"root+web-1" as &[u8], b"ssh-connection", b"publickey"] {
        put_string(&mut mixed, field);
    }
    mixed.push(0);
    put_string(&mut mixed, b"rsa-sha2-512-cert-v01@openssh.com");
    put_string(&mut mixed, &login_certificate(&key.public_key()).to_bytes().unwrap());
    let (why, _) = denied(next.handle(&mixed, NOW).unwrap());
    assert!(matches!(why, Denied::Certificate(Refusal::Malformed(_))));
}

#[test]
fn nothing_of_the_connection_protocol_before_success() {
    for number in (0..=255_u8).filter(|number| *number != message::USERAUTH_REQUEST) {
        let payload = [number, 0, 0, 0, 0];
        let result = serving(connection()).handle(&payload, NOW);
        let ignored = [2, 3, 4, 7].contains(&number);
        match result {
            Ok(Step::Continue { send: None, denied: None, .. }) => assert!(ignored, "{number}"),
            Err(ServerFault::ClientLeft) => assert_eq!(number, 1),
            Err(fault @ ServerFault::Unexpected { .. }) => {
                assert!(!ignored, "{number}");
                assert_eq!(fault.disconnect().unwrap()[..5], [1, 0, 0, 0, 2]);
            }
            other => panic!("{number}: {other:?}"),
        }
    }
    // Nor before the service was asked for.
    let result = ExpectServiceRequest::new(connection()).handle(&RIGHT_REQUEST);
    assert!(matches!(result, Err(ServerFault::Unexpected { .. })));
    let mut other_service = vec![message::USERAUTH_REQUEST];
    for field in [b"root" as &[u8], b"ssh-shell", b"none"] {
        put_string(&mut other_service, field);
    }
    let result = serving(connection()).handle(&other_service, NOW);
    assert!(matches!(result, Err(ServerFault::Service { .. })));
}

#[test]
fn attempts_and_messages_are_bounded() {
    let mut changed = RIGHT_REQUEST.clone();
    *changed.last_mut().unwrap() ^= 1;
    let mut state = serving(connection());
    for _ in 0..REFUSALS_MAX {
        state = denied(state.handle(&changed, NOW).unwrap()).1;
    }
    let fault = state.handle(&changed, NOW).unwrap_err();
    assert!(matches!(fault, ServerFault::TooMuch { what: "refused requests", .. }));
    assert_eq!(fault.disconnect().unwrap()[..5], [1, 0, 0, 0, 14]);

    let mut state = serving(connection());
    // One message went into the request of the service.
    for _ in 1..MESSAGES_MAX {
        match state.handle(&question(&RIGHT_REQUEST).0, NOW).unwrap() {
            Step::Continue { next, .. } => state = next,
            other => panic!("a question proves nothing: {other:?}"),
        }
    }
    let fault = state.handle(&RIGHT_REQUEST, NOW).unwrap_err();
    assert!(matches!(fault, ServerFault::TooMuch { what: "messages", .. }));

    let long = vec![message::USERAUTH_REQUEST; server::MESSAGE_BYTES_MAX + 1];
    assert!(matches!(serving(connection()).handle(&long, NOW), Err(ServerFault::TooMuch { .. })));
    let mut long_name = vec![message::USERAUTH_REQUEST];
    for field in [&[b'x'; server::USER_NAME_BYTES_MAX + 1] as &[u8], b"ssh-connection", b"none"] {
        put_string(&mut long_name, field);
    }
    assert!(matches!(serving(connection()).handle(&long_name, NOW), Err(ServerFault::TooMuch { .. })));
}

/// A request by any private key, signed as RFC 4252 section 7 says, host-bound if a host key is given.
fn signed_by(
    key: &PrivateKey,
    algorithm: &[u8],
    certificate: &Certificate,
    host_key: Option<&[u8]>,
    sign: impl Fn(&PrivateKey, &[u8]) -> Vec<u8>,
) -> Vec<u8> {
    let method: &[u8] =
        if host_key.is_some() { b"publickey-hostbound-v00@openssh.com" } else { b"publickey" };
    let mut request = vec![message::USERAUTH_REQUEST];
    for field in [b"root+web-1" as &[u8], b"ssh-connection", method] {
        put_string(&mut request, field);
    }
    request.push(1);
    put_string(&mut request, algorithm);
    put_string(&mut request, &certificate.to_bytes().unwrap());
    if let Some(host_key) = host_key {
        put_string(&mut request, host_key);
    }
    let mut signed = Vec::new();
    put_string(&mut signed, SESSION);
    signed.extend_from_slice(&request);
    put_string(&mut request, &sign(key, &signed));
    request
}

fn plain_signature(key: &PrivateKey, signed: &[u8]) -> Vec<u8> {
    let signature: Signature = key.try_sign(signed).unwrap();
    Vec::try_from(signature).unwrap()
}

fn stock_key(name: &str, kind: &[&str]) -> PrivateKey {
    let path = SCRATCH.path().join(name);
    let status =
        Command::new("ssh-keygen").args(["-q", "-N", "", "-f"]).arg(&path).arg("-t").args(kind).status();
    assert!(status.unwrap().success());
    PrivateKey::read_openssh_file(&path).unwrap()
}

#[test]
fn ecdsa_and_rsa_keys_of_ssh_keygen() {
    for bits in ["256", "384", "521"] {
        let ecdsa = stock_key(&format!("ecdsa-{bits}"), &["ecdsa", "-b", bits]);
        let certificate = login_certificate(ecdsa.public_key());
        let name = format!("ecdsa-sha2-nistp{bits}-cert-v01@openssh.com");
        let right = signed_by(&ecdsa, name.as_bytes(), &certificate, None, plain_signature);
        let _proved = proved(serving(connection()).handle(&right, NOW).unwrap());
    }

    let rsa = stock_key("rsa", &["rsa", "-b", "2048"]);
    let certificate = login_certificate(rsa.public_key());
    // The library signs with SHA-512.
    let right = signed_by(&rsa, b"rsa-sha2-512-cert-v01@openssh.com", &certificate, None, plain_signature);
    let _proved = proved(serving(connection()).handle(&right, NOW).unwrap());
    let other = signed_by(&rsa, b"rsa-sha2-256-cert-v01@openssh.com", &certificate, None, plain_signature);
    let (why, _) = denied(serving(connection()).handle(&other, NOW).unwrap());
    assert_eq!(why, Denied::Signature(SignatureFault::OtherAlgorithm));
    // SHA-1, named by itself.
    let sha1 = |key: &PrivateKey, signed: &[u8]| {
        let signature: Signature = key.try_sign(signed).unwrap();
        let sha1 = Signature::new(Algorithm::Rsa { hash: None }, signature.as_bytes()).unwrap();
        Vec::try_from(sha1).unwrap()
    };
    let old = signed_by(&rsa, b"rsa-sha2-512-cert-v01@openssh.com", &certificate, None, sha1);
    let (why, _) = denied(serving(connection()).handle(&old, NOW).unwrap());
    assert_eq!(why, Denied::Signature(SignatureFault::OtherAlgorithm));
}

#[test]
fn bytes_behind_a_signature_are_refused() {
    let key = stock_key("trailing", &["ed25519"]);
    let certificate = login_certificate(key.public_key());
    let trailing = |key: &PrivateKey, signed: &[u8]| {
        let mut signature = plain_signature(key, signed);
        signature.push(0);
        signature
    };
    let request = signed_by(&key, b"ssh-ed25519-cert-v01@openssh.com", &certificate, None, trailing);
    let (why, _) = denied(serving(connection()).handle(&request, NOW).unwrap());
    assert_eq!(why, Denied::Signature(SignatureFault::Malformed));
}

#[test]
fn host_bound_requests_name_our_host_key() {
    let key = stock_key("hostbound", &["ed25519"]);
    let certificate = login_certificate(key.public_key());
    let name = b"ssh-ed25519-cert-v01@openssh.com";
    let right = signed_by(&key, name, &certificate, Some(HOST_KEY), plain_signature);
    let _proved = proved(serving(connection()).handle(&right, NOW).unwrap());
    let wrong = signed_by(&key, name, &certificate, Some(b"another"), plain_signature);
    let (why, _) = denied(serving(connection()).handle(&wrong, NOW).unwrap());
    assert_eq!(why, Denied::HostKey);
    let unaware = Connection { host_key: None, ..connection() };
    let (why, _) = denied(serving(unaware).handle(&right, NOW).unwrap());
    assert!(matches!(why, Denied::Method { .. }));
}

/// Each algorithm that EXT_INFO tells of can log in with a certificate, and no other can.
#[test]
fn what_clients_are_told_is_what_is_taken() {
    use crate::ssh::transport::leg::USER_SIGNATURE_ALGORITHMS;
    for name in USER_SIGNATURE_ALGORITHMS {
        let certified = format!("{}-cert-v01@openssh.com", name.trim_end_matches("@openssh.com"));
        let method = super::method::method(certified.as_bytes()).unwrap();
        assert_eq!(method.signature.as_str(), name);
        assert!(super::method::method(name.as_bytes()).is_none(), "a plain key");
    }
    for old in ["ssh-rsa-cert-v01@openssh.com", "ssh-dss-cert-v01@openssh.com", "ssh-rsa"] {
        assert!(super::method::method(old.as_bytes()).is_none(), "{old}");
    }
}

/// A client that has sent its request.
fn waiting() -> client::ExpectVerdict {
    let key = SessionKey::generate().unwrap();
    let certificate = login_certificate(&key.public_key());
    let (_, expect) = client::start(SESSION, "root", Credential { key, certificate }).unwrap();
    let mut accept = vec![message::SERVICE_ACCEPT];
    put_string(&mut accept, b"ssh-userauth");
    match expect.handle(&accept).unwrap() {
        client::ServiceStep::Accepted { next, .. } => next,
        client::ServiceStep::Waiting(_) => panic!("no request"),
    }
}

fn target_failure(methods: &[u8], partial: u8) -> Vec<u8> {
    let mut payload = vec![message::USERAUTH_FAILURE];
    put_string(&mut payload, methods);
    payload.push(partial);
    payload
}

#[test]
fn a_targets_answers() {
    let client::Step::Banner { text, next } = waiting().handle(&banners("No\u{1b}[2J entry\n")[0]).unwrap()
    else {
        panic!("no banner")
    };
    assert_eq!(text, "No?[2J entry\n");
    let client::Step::Accepted(accepted) = next.handle(&[message::USERAUTH_SUCCESS]).unwrap() else {
        panic!("not accepted")
    };
    assert_eq!(accepted.login(), "root");

    let refused = waiting().handle(&target_failure(b"publickey,password", 0)).unwrap_err();
    assert!(matches!(refused, TargetFault::Refused { .. }));
    assert!(refused.to_string().contains("custody node enroll"), "{refused}");
    let no_keys = waiting().handle(&target_failure(b"password", 0)).unwrap_err();
    assert!(matches!(no_keys, TargetFault::NoPublicKeys { .. }));
    let more = waiting().handle(&target_failure(b"keyboard-interactive", 1)).unwrap_err();
    assert!(matches!(more, TargetFault::WantsMore { .. }));
    let rude = waiting().handle(&target_failure(b"\x1b[2J\n", 0)).unwrap_err();
    assert!(!rude.to_string().contains(['\x1b', '\n']), "{rude:?}");

    let mut disconnect = vec![message::DISCONNECT, 0, 0, 0, 2];
    put_string(&mut disconnect, b"Too many authentication failures");
    let left = waiting().handle(&disconnect).unwrap_err();
    assert!(matches!(left, TargetFault::Left { code: 2, .. }));
    assert!(matches!(waiting().handle(&[94]), Err(TargetFault::Unexpected { .. })));
    assert!(matches!(waiting().handle(&[]), Err(TargetFault::Unexpected { .. })));

    let mut state = waiting();
    let fault = loop {
        match state.handle(&banners("x")[0]) {
            Ok(client::Step::Banner { next, .. }) => state = next,
            Ok(other) => panic!("{other:?}"),
            Err(fault) => break fault,
        }
    };
    assert!(matches!(fault, TargetFault::TooMuch { .. }));
}

#[test]
fn a_certificate_for_another_key_is_not_shown() {
    let certificate = login_certificate(&SessionKey::generate().unwrap().public_key());
    let credential = Credential { key: SessionKey::generate().unwrap(), certificate };
    assert!(matches!(client::start(SESSION, "root", credential), Err(TargetFault::Credential(_))));
}

/// What a person sees is what the target wrote, line ends and all, however much it is.
#[test]
fn a_targets_banner_is_passed_on_as_it_came() {
    let text_of = |payload: &[u8]| {
        let client::Step::Banner { text, .. } = waiting().handle(payload).unwrap() else { panic!("none") };
        text
    };
    for text in ["", "no end", "\tone\ntwo\r\n\n", &"ü long line\n".repeat(10_000)] {
        let payloads = banners(text);
        assert!(payloads.iter().all(|payload| payload.len() < 35_000));
        assert_eq!(payloads.iter().map(|payload| text_of(payload)).collect::<String>(), text);
    }
    assert_eq!(text_of(&banners("No\u{1b}[2J\u{7f}\u{85} entry")[0]), "No?[2J?? entry");

    // All of them together are bounded.
    let (mut state, mut sum) = (waiting(), 0);
    for payload in banners(&"b".repeat(2 * client::TARGET_BANNER_BYTES_MAX)) {
        let client::Step::Banner { text, next } = state.handle(&payload).unwrap() else { panic!("none") };
        sum += text.len();
        state = next;
    }
    assert_eq!(sum, client::TARGET_BANNER_BYTES_MAX);
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    let rubbish = proptest::collection::vec(any::<u8>(), 0..200);
    let behind = (prop_oneof![Just(5_u8), Just(6), Just(50), Just(51), Just(53), Just(60)], rubbish.clone());
    let behind = behind.prop_map(|(number, mut rest)| {
        rest.insert(0, number);
        rest
    });
    // A right request with a piece exchanged.
    let mutated = (any::<proptest::sample::Index>(), proptest::collection::vec(any::<u8>(), 1..20));
    let mutated = mutated.prop_map(|(at, bytes)| {
        let mut request = RIGHT_REQUEST.clone();
        let at = at.index(request.len());
        let end = request.len().min(at + bytes.len());
        request.splice(at..end, bytes);
        request
    });
    prop_oneof![rubbish, behind, mutated]
}

proptest! {
    #[test]
    fn no_rubbish_gets_in(payloads in proptest::collection::vec(payload(), 1..20)) {
        let mut server = Some(serving(connection()));
        let mut target = Some(waiting());
        for payload in &payloads {
            if let Some(state) = server.take() {
                match state.handle(payload, NOW) {
                    Ok(Step::Continue { next, .. }) => server = Some(next),
                    Ok(Step::Proved(_)) => prop_assert_eq!(payload, &*RIGHT_REQUEST),
                    Ok(Step::Asks { .. }) => prop_assert!(false, "passwords aren't asked for"),
                    Err(fault) => prop_assert!(!fault.to_string().contains('\n')),
                }
            }
            if let Some(state) = target.take() {
                match state.handle(payload) {
                    Ok(client::Step::Banner { next, .. } | client::Step::Waiting(next)) => target = Some(next),
                    Ok(client::Step::Accepted(_)) => prop_assert_eq!(payload.first(), Some(&52)),
                    Err(fault) => prop_assert!(!fault.to_string().contains('\n')),
                }
            }
            let _any = ExpectServiceRequest::new(connection()).handle(payload);
        }
    }
}
