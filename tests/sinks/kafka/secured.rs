//! TLS with an authority of one's own and a client's certificate, and a user by password and by SCRAM.

use super::topic::{check, settings};
use crate::campaign::{ORIGIN, Source};
use custody_sinks::secret::Secrets;
use custody_sinks_kafka::{Mechanism, Sasl, Settings, Tls};
use custody_tests::servers::Kafka;
use custody_tests::servers::kafka::{PASSWORD, STRANGER, USER};
use custody_tests::servers::tls::Identity;
use custody_tests::wait::{DEADLINE, until};

#[test]
fn credentials_are_shown_and_read_anew_and_what_is_wrong_with_them_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::new();
    let mut kafka = Kafka::secured(&dir.path().join("kafka"), &identity);
    kafka.start();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let tls = Tls {
        ca: Some(file("ca.pem", &Identity::new().ca)),
        certificate: Some(file("client.pem", &identity.client_certificate)),
        key: Some("kafka-key".to_owned()),
    };
    let secrets = Secrets::new(&dir.path().join("secrets"));
    let secured = |mechanism, user: &str| Settings {
        tls: Some(tls.clone()),
        sasl: Some(Sasl { mechanism, user: user.to_owned(), secret: "kafka-password".to_owned() }),
        ..settings(&format!("127.0.0.1:{}", kafka.brokers[0].secure_port.unwrap()))
    };
    let sink = |settings| custody_sinks_kafka::Kafka::new(settings, secrets.clone(), "tested", ORIGIN);
    let source = Source::new();
    source.grow(20);
    let run = source.deliver(sink(secured(Mechanism::ScramSha512, USER)));
    let told = |says: &str| {
        let mut last = None;
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(says, DEADLINE * 2, || {
                last = run.control.health().numbers().trouble;
                last.clone().filter(|trouble| trouble.contains(says))
            })
        }));
        let told = told.unwrap_or_else(|_| panic!("{last:?} instead of {says}"));
        assert!(!told.contains(PASSWORD) && !told.contains("hunter2"), "{told}");
    };
    told("custodyd secret put kafka-key");
    secrets.put("kafka-key", &identity.client_key).unwrap();
    told("custodyd secret put kafka-password");
    secrets.put("kafka-password", "hunter2").unwrap();
    told("certificate verify failed");
    file("ca.pem", &identity.ca);
    told("uthentication failed");
    secrets.put("kafka-password", PASSWORD).unwrap();
    source.delivered(&run);
    assert!(source.prove(&run).is_proven());
    source.stop(run);

    let run = source.deliver(sink(secured(Mechanism::Plain, USER)));
    source.grow(20);
    source.delivered(&run);
    check(&kafka, &source);
    source.stop(run);

    // Whom the brokers know and allow nothing.
    let run = source.deliver(sink(secured(Mechanism::ScramSha512, STRANGER)));
    source.grow(20);
    let told = until("it says what to allow", DEADLINE, || {
        run.control.health().numbers().trouble.filter(|trouble| trouble.contains("allow it"))
    });
    assert!(told.contains("uthorization"), "{told}");
    source.kill(run);
}
