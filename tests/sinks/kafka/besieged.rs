//! One broker under siege, its disk full at times.

use super::topic::{TOPIC, settings, sink, stored};
use crate::siege::{Store, besiege};
use custody_sinks::sink::{Limits, Sink as _};
use custody_tests::servers::Kafka;
use custody_tests::servers::flaky::Flaky;

/// Few, so that there are many transactions.
const TRANSACTION_EVENTS: usize = 2_000;

struct Besieged {
    kafka: Kafka,
    /// Before the broker, which tells everybody that it is there.
    proxy: Option<Flaky>,
}

impl Store for Besieged {
    const EVENTS: u64 = 40_000;
    const SPEAKS_HTTP: bool = false;

    fn table(&self, port: u16) -> String {
        format!(
            "[sink.kafka]\nbrokers = [\"127.0.0.1:{port}\"]\ntopic = \"{TOPIC}\"\npartitions = 3\ntimeout_seconds = 5\ntransaction_events = {TRANSACTION_EVENTS}\n"
        )
    }

    fn limits(&self) -> Limits {
        let mut settings = settings(&self.kafka.bootstrap());
        settings.transaction_events = TRANSACTION_EVENTS;
        sink(settings).limits()
    }

    fn proxy(&mut self) -> Flaky {
        self.proxy.take().unwrap()
    }

    fn kill(&mut self) {
        self.kafka.brokers[0].service.kill_now();
    }

    fn start(&mut self) {
        self.kafka.start();
    }

    /// It ends itself when it can't write.
    fn relieve(&mut self) {
        self.kill();
        self.start();
    }

    fn age(&self) {}

    fn count(&self) -> u64 {
        stored(&self.kafka).len() as u64
    }
}

#[test]
fn kafka_under_siege_has_each_event_once() {
    besiege(|disk| {
        let kafka = Kafka::prepare(disk, 1, &[]);
        let proxy = Flaky::tcp(kafka.brokers[0].service.port());
        kafka.advertise(0, proxy.port);
        Besieged { kafka, proxy: Some(proxy) }
    });
}
