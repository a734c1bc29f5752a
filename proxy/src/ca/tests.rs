use super::ssh::SessionRequest;
use super::store::FileKeyStore;
use super::*;
use crate::ssh::authenticate::client::SessionKey;

const NOW: u64 = 1_800_000_000;

fn open(scratch: &Path, now: u64) -> Result<Authorities, AuthoritiesError> {
    let store = FileKeyStore::open(&scratch.join("keys"))?;
    Authorities::open(Arc::new(store), &scratch.join("published"), now)
}

#[test]
fn the_first_opening_makes_them_and_later_ones_find_them() {
    let scratch = tempfile::tempdir().unwrap();
    let first = open(scratch.path(), NOW).unwrap();
    assert_eq!(first.made.len(), 7);
    let second = open(scratch.path(), NOW + 1000).unwrap();
    assert!(second.made.is_empty());
    assert_eq!(first.ssh_client.public_key(), second.ssh_client.public_key());
    assert_eq!(
        first.x509_server.certificate(),
        second.x509_server.certificate(),
        "the published one is kept"
    );
    let keys = [first.ssh_client.public_key(), first.ssh_target.public_key(), first.ssh_host.public_key()];
    assert!(keys[0].key_data() != keys[1].key_data() && keys[1].key_data() != keys[2].key_data());
}

#[test]
fn public_parts_are_made_again() {
    let scratch = tempfile::tempdir().unwrap();
    let first = open(scratch.path(), NOW).unwrap();
    std::fs::remove_dir_all(scratch.path().join("published")).unwrap();
    let second = open(scratch.path(), NOW + 1000).unwrap();
    assert_ne!(first.x509_server.certificate(), second.x509_server.certificate());
    let published = std::fs::read_to_string(scratch.path().join("published/x509-server-ca.pem")).unwrap();
    assert_eq!(published, second.x509_server.pem());

    // What the old certificate verified, the new one does: same key, same name.
    let leaf = first.x509_server.issue(NOW + 1000, &["localhost".to_owned()], &[], 3600).unwrap().issued;
    let path = scratch.path().join("leaf.pem");
    write_whole(&path, leaf.pem.as_bytes()).unwrap();
    let output = std::process::Command::new("openssl")
        .args(["verify", "-attime", &(NOW + 1000).to_string(), "-CAfile"])
        .arg(scratch.path().join("published/x509-server-ca.pem"))
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // A certificate of another key under that name isn't taken.
    let other = tempfile::tempdir().unwrap();
    let stranger = open(other.path(), NOW).unwrap();
    write_whole(&scratch.path().join("published/x509-server-ca.pem"), stranger.x509_server.pem().as_bytes())
        .unwrap();
    let third = open(scratch.path(), NOW + 2000).unwrap();
    assert_ne!(third.x509_server.pem(), stranger.x509_server.pem());
}

#[test]
fn a_lost_key_is_not_made_anew_but_that_of_a_new_authority_is() {
    let scratch = tempfile::tempdir().unwrap();
    let begun = || {
        let store = FileKeyStore::open(&scratch.path().join("keys")).unwrap();
        Authorities::open_begun(Arc::new(store), &scratch.path().join("published"), NOW)
    };
    let first = open(scratch.path(), NOW).unwrap();
    assert!(begun().unwrap().made.is_empty());
    let key = scratch.path().join("keys/ssh-client-ca.key");
    let content = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    // Also where the public parts, which can be made again, are gone as well.
    for _ in 0..2 {
        let error = begun().err().unwrap().to_string();
        assert!(error.contains("ssh-client-ca are missing: put them back"), "{error}");
        assert!(!key.exists());
        std::fs::remove_dir_all(scratch.path().join("published")).unwrap();
        std::fs::create_dir(scratch.path().join("published")).unwrap();
    }
    assert_eq!(std::fs::read_dir(scratch.path().join("published")).unwrap().count(), 0, "a file was made");
    super::private_file::create(&key, &content).unwrap();
    assert_eq!(begun().unwrap().ssh_client.public_key(), first.ssh_client.public_key());

    // As of a version before there were agents.
    std::fs::remove_file(scratch.path().join("keys/x509-agent-ca.key")).unwrap();
    std::fs::remove_file(scratch.path().join("published/x509-agent-ca.pem")).unwrap();
    assert_eq!(begun().unwrap().made, [X509_AGENT_CA]);
}

#[test]
fn an_authority_with_another_kind_of_key_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let store = FileKeyStore::open(&scratch.path().join("keys")).unwrap();
    store.generate(SSH_TARGET_CA, KeyAlgorithm::EcdsaP256).unwrap();
    let result = open(scratch.path(), NOW);
    assert!(matches!(result, Err(AuthoritiesError::OtherKind { name: SSH_TARGET_CA })));
}

#[tokio::test]
async fn a_proxy_gets_its_sessions_key_certified() {
    let scratch = tempfile::tempdir().unwrap();
    let authorities = Arc::new(open(scratch.path(), NOW).unwrap());
    let certifier: Arc<dyn SessionCertifier> = Arc::new(LocalCertifier::new(authorities, || NOW));
    let mut request = SessionRequest {
        public_key: SessionKey::generate().unwrap().public_key(),
        login: "root".to_owned(),
        session: "session-1".to_owned(),
        valid_seconds: 120,
        source_addresses: vec!["127.0.0.1".parse().unwrap()],
        permissions: vec![],
        force_command: None,
    };
    assert_eq!(certifier.certify(&request).await.unwrap().key_id, "session-1");
    request.login.clear();
    assert!(matches!(certifier.certify(&request).await, Err(CertifyError::Issue(_))));
}
