//! Loki, alone in one process.

use super::{Http, ORIGIN, Searched, Store, endpoint, no_secrets};
use crate::cores::begun;
use custody_core::clock::SystemClock;
use custody_sinks::loki;
use custody_tests::servers::Loki;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub const TENANT: &str = "bench";

pub struct LokiStore(pub Loki);

impl Http for LokiStore {
    const STORES: &'static str = "/push";
}

impl Store for LokiStore {
    type Sink = loki::Loki;
    const NAME: &'static str = "Loki";

    fn start(dir: &Path) -> Self {
        let unlimited = [
            "ingestion_rate_mb: 10000",
            "ingestion_burst_size_mb: 10000",
            "per_stream_rate_limit: 10GB",
            "per_stream_rate_limit_burst: 10GB",
        ];
        let mut loki = Loki::prepare(dir, &unlimited);
        begun(|| loki.start());
        Self(loki)
    }

    fn port(&self) -> u16 {
        self.0.service.port()
    }

    fn sink(&self, port: u16) -> Self::Sink {
        let settings = loki::Settings {
            endpoint: endpoint(port),
            tenant: Some(TENANT.to_owned()),
            sends_old_again: false,
            job: "custody".to_owned(),
        };
        loki::Loki::new(settings, no_secrets(), ORIGIN, Arc::new(SystemClock::new()))
    }
}

impl Searched for LokiStore {
    fn shows(&self, index: u64) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_nanos();
        let now = u64::try_from(now).expect("this century");
        let query = format!("{{job=\"custody\"}} | log_index=\"{index}\"");
        !self.0.lines(TENANT, &query, (now - 60_000_000_000, now + 1_000_000_000)).is_empty()
    }
}
