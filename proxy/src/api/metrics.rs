//! `/metrics`: some two dozen numbers in Prometheus' text form, written by hand.

use super::error::ApiError;
use super::{Api, ApiContext, Caller, blocking};
use axum::extract::State as Shared;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use custody_core::delivery::Numbers;
use custody_core::log::cosigned::Health;
use custody_core::log::{Distribution, SYNC_BOUNDS_NS, WRITE_BOUNDS_EVENTS};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// One metric's lines: name, type, help, and values by label.
fn metric(out: &mut String, name: &str, kind: &str, help: &str, values: &[(String, u64)]) {
    // Writing into a String can't fail.
    let _infallible = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in values {
        let _infallible = writeln!(out, "{name}{labels} {value}");
    }
}

fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{{{name}=\"{value}\"}}")
}

/// One histogram's lines. `bounds` and values are `scale` of the unit that the name ends with.
fn histogram(
    out: &mut String,
    (name, help): (&str, &str),
    bounds: &[u64],
    values: &Distribution,
    scale: f64,
) {
    let _infallible = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
    let mut below = 0;
    let bounds = bounds.iter().map(|bound| (*bound as f64 * scale).to_string());
    for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(values.counts) {
        below += count;
        let _infallible = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {below}");
    }
    let _infallible = writeln!(out, "{name}_sum {}\n{name}_count {below}", values.sum as f64 * scale);
}

/// A metric: its name, its help, and a value for each set of labels.
type Gauge<'a> = (&'a str, &'a str, Vec<(String, u64)>);

/// `GET /metrics`
pub async fn metrics(Shared(api): Shared<Arc<Api>>, _caller: Caller) -> Result<impl IntoResponse, ApiError> {
    let context = &api.context;
    let size = context.log.size();
    let indexed = context.search.progress().borrow().clone();
    let statistics = context.log.statistics();
    let (live, users, gaps, unknown_gaps, refused) = context.replica.read(|state| {
        let (live, producers) = (state.sessions().live().count() as u64, state.producers());
        let users = state.users().len() as u64;
        (live, users, producers.gaps(), producers.unknown_gaps(), state.refused().count())
    });
    let clock_ahead = context.operations.clock_ahead().map_or(0, |ahead| ahead.as_secs());
    let applied = context.replica.size();
    let checkpoint = context.log.checkpoint().size();
    let search = Arc::clone(&context.search);
    // One that is made anew begins with nothing, and a counter doesn't go back.
    let is_counted = api.counted.fetch_max(indexed.next, Relaxed) <= indexed.next;
    let families = blocking("counted events", move || search.families()).await?.unwrap_or_default();
    let families = families.into_iter().filter(|_| is_counted);
    let families: Vec<_> = families.map(|(family, n)| (label("family", &family), n)).collect();
    let one = |value: u64| vec![(String::new(), value)];
    let attempts = context.passwords.attempts();
    let logins = [
        (label("outcome", "success"), attempts.succeeded()),
        (label("outcome", "failure"), attempts.failed()),
        (label("outcome", "limited"), attempts.limited()),
    ];
    let admission = &context.admission;
    let turned_away: Vec<_> = admission.refused().map(|(why, n)| (label("reason", why.name()), n)).collect();
    let version = vec![(label("version", env!("CARGO_PKG_VERSION")), 1)];
    let mut out = String::new();
    let gauges: [Gauge<'_>; 18] = [
        ("custody_build_info", "The program's version.", version),
        ("custody_log_up", "1 while the log takes events.", one(api.takes_events().is_ok().into())),
        ("custody_log_entries", "Durable entries of the log.", one(size)),
        (
            "custody_log_checkpoint_entries",
            "Entries that the newest signed checkpoint covers.",
            one(checkpoint),
        ),
        ("custody_log_disk_bytes", "Bytes of the log's segments.", one(statistics.disk_bytes)),
        ("custody_log_queue_batches", "Batches that wait to be written.", one(statistics.queued_batches)),
        ("custody_log_queue_bytes", "Bytes that wait to be written.", one(statistics.queued_bytes)),
        (
            "custody_log_clock_ahead_seconds",
            "By how much the machine's clock is ahead of the log's time, which doesn't follow it; 0 if it does.",
            one(clock_ahead),
        ),
        ("custody_producers_missing_events", "Numbers of producers that the log never got.", one(gaps)),
        (
            "custody_producers_unknown_gaps",
            "How often a producer had forgotten what it told: whether numbers are missing then isn't known.",
            one(unknown_gaps),
        ),
        ("custody_events_refused", "Entries of the log that the state didn't apply.", one(refused)),
        (
            "custody_state_lag_entries",
            "Entries that the state hasn't applied yet.",
            one(size.saturating_sub(applied)),
        ),
        (
            "custody_search_lag_entries",
            "Entries that aren't searchable yet.",
            one(size.saturating_sub(indexed.next)),
        ),
        (
            "custody_search_up",
            "1 while the search projection follows the log.",
            one(indexed.stopped.is_none().into()),
        ),
        (
            "custody_subscriptions",
            "Subscriptions and long polls that are open.",
            one(u64::try_from(api.places.taken()).unwrap_or(u64::MAX)),
        ),
        ("custody_sessions_live", "Sessions whose end wasn't told.", one(live)),
        (
            "custody_ssh_unproved_connections",
            "SSH connections whose person isn't proved yet.",
            one(u64::try_from(admission.unproved()).unwrap_or(u64::MAX)),
        ),
        ("custody_users", "Users.", one(users)),
    ];
    for (name, help, values) in gauges {
        metric(&mut out, name, "gauge", help, &values);
    }
    histogram(
        &mut out,
        ("custody_log_sync_seconds", "How long the sync behind each write took."),
        &SYNC_BOUNDS_NS,
        &statistics.sync_ns,
        1e-9,
    );
    histogram(
        &mut out,
        ("custody_log_write_events", "How many events each write held."),
        &WRITE_BOUNDS_EVENTS,
        &statistics.write_events,
        1.0,
    );
    metric(
        &mut out,
        "custody_events_total",
        "counter",
        "Searchable entries of the log by family.",
        &families,
    );
    cosignatures(&mut out, context);
    deliveries(&mut out, &api).await;
    metric(
        &mut out,
        "custody_ssh_refused_total",
        "counter",
        "SSH connections that ended before their person was proved, since the start.",
        &turned_away,
    );
    metric(
        &mut out,
        "custody_logins_total",
        "counter",
        "Logins by password since the start, at the API and by SSH.",
        &logins,
    );
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], out))
}

/// How the log's witnesses do.
fn cosignatures(out: &mut String, context: &ApiContext) {
    let (witnesses, now) = (context.cosigned.witnesses(), context.clock.wall().0 / 1_000_000_000);
    let each = |value: &dyn Fn(&Health) -> Option<u64>| -> Vec<(String, u64)> {
        let values = witnesses.iter().map(|health| (label("witness", &health.witness), value(health)));
        values.filter_map(|(label, value)| Some((label, value?))).collect()
    };
    let age = |health: &Health| match health.last_seconds.load(Relaxed) {
        0 => None,
        last => Some(now.saturating_sub(last)),
    };
    let gauge = |out: &mut String, name, help, values: &[_]| metric(out, name, "gauge", help, values);
    let count = |out: &mut String, name, help, values: &[_]| metric(out, name, "counter", help, values);
    let entries = each(&|health| Some(health.cosigned.load(Relaxed)));
    gauge(out, "custody_log_cosigned_entries", "Entries that each witness has cosigned.", &entries);
    let ages = each(&age);
    gauge(out, "custody_log_cosignature_age_seconds", "Since each witness last cosigned.", &ages);
    let made = each(&|health| Some(health.cosignatures.load(Relaxed)));
    count(out, "custody_log_cosignatures_total", "Cosignatures since the start.", &made);
    let failed = each(&|health| Some(health.failures.load(Relaxed)));
    count(out, "custody_log_cosigning_failures_total", "Submissions that were not cosigned.", &failed);
}

/// How the sinks do.
async fn deliveries(out: &mut String, api: &Api) {
    let (mut sinks, mut behind, mut since) = (Vec::new(), Vec::new(), Vec::new());
    for sink in &api.context.sinks {
        let (numbers, label) = (sink.numbers(), label("sink", sink.name()));
        let (events, seconds) = super::sinks::lag(api, &numbers).await;
        behind.push((label.clone(), events));
        // What isn't known has no value: none of them would be true.
        since.extend(seconds.map(|seconds| (label.clone(), seconds)));
        sinks.push((label, numbers));
    }
    let each = |value: &dyn Fn(&Numbers) -> u64| -> Vec<(String, u64)> {
        sinks.iter().map(|(label, numbers)| (label.clone(), value(numbers))).collect()
    };
    let gauges: [Gauge<'_>; 4] = [
        ("custody_sink_lag_events", "Events that aren't delivered yet.", behind),
        ("custody_sink_lag_seconds", "How old the oldest undelivered event is.", since),
        ("custody_sink_up", "1 while nothing is wrong.", each(&|sink| sink.trouble.is_none().into())),
        ("custody_sink_dead_letters", "Events that were refused.", each(&|sink| sink.dead_letters)),
    ];
    for (name, help, values) in gauges {
        metric(out, name, "gauge", help, &values);
    }
    let counters: [Gauge<'_>; 5] = [
        ("custody_sink_delivered_events_total", "Events confirmed since the start.", each(&|s| s.confirmed)),
        ("custody_sink_delivered_bytes_total", "Bytes confirmed since the start.", each(&|s| s.bytes)),
        ("custody_sink_rejected_events_total", "Events refused since the start.", each(&|s| s.rejected)),
        ("custody_sink_retries_total", "Attempts that came to nothing.", each(&|s| s.retries)),
        (
            "custody_sink_looked_up_events_total",
            "Events in doubt that were looked up.",
            each(&|s| s.looked_up),
        ),
    ];
    for (name, help, values) in counters {
        metric(out, name, "counter", help, &values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_prometheus_reads() {
        let mut out = String::new();
        metric(
            &mut out,
            "a_total",
            "counter",
            "Things.",
            &[(label("family", "x\"\\\n"), 3), (String::new(), 4)],
        );
        assert_eq!(
            out,
            "# HELP a_total Things.\n# TYPE a_total counter\na_total{family=\"x\\\"\\\\\\n\"} 3\na_total 4\n"
        );
    }

    #[test]
    fn a_histogram_s_buckets_add_up() {
        let mut out = String::new();
        let mut values = Distribution { sum: 7_000, ..Distribution::default() };
        (values.counts[0], values.counts[1], values.counts[2]) = (1, 2, 4);
        histogram(&mut out, ("h_seconds", "Time."), &[1_000, 2_000], &values, 1e-3);
        assert_eq!(
            out,
            "# HELP h_seconds Time.\n# TYPE h_seconds histogram\nh_seconds_bucket{le=\"1\"} 1\n\
             h_seconds_bucket{le=\"2\"} 3\nh_seconds_bucket{le=\"+Inf\"} 7\nh_seconds_sum 7\nh_seconds_count 7\n"
        );
    }
}
