//! What of its own settings a Loki tells (`/config`, and of a tenant's limits `/config/tenant/v1/limits`), and what follows from them.

use std::time::Duration;

/// How far a line may lie behind its stream's newest where Loki's `max_chunk_age` is as it is by default: half of that.
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
/// The longest span of one question: Loki's own limit is thirty days.
pub(super) const SPAN: Duration = Duration::from_secs(7 * 86_400);
/// How far clocks may be apart, and what is asked from what is answered.
pub(super) const APART: Duration = Duration::from_secs(10 * 60);
/// What is younger is always shown where nothing else is told: less than the shortest of Loki's defaults, two hours and three quarters.
const SHOWN: Duration = Duration::from_secs(2 * 3_600 + 1_800);

const HIDES: &str = "Loki doesn't show lines older than its settings say until they are flushed, so it isn't known what it has: \
    see docs/sinks.md for the two settings, or set sends_old_again = true (and perhaps some arrive twice)";
const SHOWS_NOTHING_OLD: &str = "Loki says of what is older than limits_config.max_query_lookback that there is nothing: \
    allow it to look farther back, see docs/sinks.md";
const LIMITS_UNTOLD: &str = "Loki may have limits of the tenant's own (runtime_config) and isn't asked for them, so it isn't known how far \
    back it looks: let GET /config/tenant/v1/limits through to it, see docs/sinks.md, or set sends_old_again = true \
    (and perhaps some arrive twice)";

/// How a Loki takes lines and shows them by its configuration, which only a restart changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shows {
    /// How old a line may be that is certainly looked for in the memory of those who hold it; nothing where any is.
    within: Option<Duration>,
    /// How far a line may lie behind its stream's newest.
    pub behind: Duration,
    /// The limits of those who have none of their own.
    common: Bounds,
    /// Whether somebody may have limits of their own.
    has_own: bool,
    /// Whether there are tenants. Somebody in between may say which one it is, as the gateway of Loki's own chart does.
    has_tenants: bool,
}

impl Shows {
    /// By a configuration, which tells the values that count. By an empty one, all is as the defaults have it.
    pub fn of(configuration: &str) -> Self {
        let age = value(section(configuration, "ingester"), "max_chunk_age").and_then(duration);
        let file = value(section(configuration, "runtime_config"), "file");
        Self {
            within: within(configuration),
            behind: age.map_or(HOUR, |age| (age / 2).min(HOUR)),
            common: Bounds::of(configuration),
            has_own: file.is_some_and(|file| !file.trim_matches(['"', '\'']).is_empty()),
            has_tenants: configuration.lines().any(|line| line == "auth_enabled: true"),
        }
    }

    /// Why a Loki may have more of what is so old than it shows, to a tenant whose own limits are these as far as they are told.
    /// `is_tenant`: it is said to be one.
    pub fn hides(&self, own: Bounds, is_tenant: bool, age: Duration) -> Option<&'static str> {
        if own.lookback.or(self.common.lookback).is_some_and(|lookback| age > lookback) {
            return Some(SHOWS_NOTHING_OLD);
        }
        if (is_tenant || self.has_tenants) && self.has_own && own.lookback.is_none() && age > SHOWN {
            return Some(LIMITS_UNTOLD);
        }
        self.within.is_some_and(|within| age > within).then_some(HIDES)
    }

    /// How long a span one question may be for. Loki reckons it from a nanosecond before its begin.
    pub fn longest(&self, own: Bounds) -> Duration {
        let second = Duration::from_secs(1);
        let length = own.length.or(self.common.length).unwrap_or(Duration::MAX);
        length.saturating_sub(second).clamp(second, SPAN)
    }
}

/// How old a line may be that is certainly looked for in memory: by `query_store_max_look_back_period` if that isn't zero (a single
/// process derives it from `max_chunk_age`), and else by `query_ingesters_within`, which is left out where it is zero.
fn within(configuration: &str) -> Option<Duration> {
    if !configuration.lines().any(|line| line == "querier:") {
        return Some(SHOWN);
    }
    let told = |name| value(configuration.lines(), name).unwrap_or("0s");
    let within = match told("query_store_max_look_back_period") {
        "0s" => told("query_ingesters_within"),
        period => period,
    };
    // What can't be read is as short as can be: another negative time than this one has Loki look for nothing in memory.
    (!matches!(within, "0s" | "-1ns"))
        .then(|| duration(within).unwrap_or_default().saturating_sub(APART).min(SHOWN))
}

/// What limits say of questions: nothing where they don't, and the longest time where there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// How far back Loki looks at all: to a question for what is older, it answers that there is nothing.
    lookback: Option<Duration>,
    /// How long a span one question may be for.
    length: Option<Duration>,
}

impl Bounds {
    /// As they are told, by themselves or in a configuration.
    pub fn of(limits: &str) -> Self {
        let limit = |name| {
            let limit = duration(value(limits.lines(), name)?)?;
            Some(if limit.is_zero() { Duration::MAX } else { limit })
        };
        Self { lookback: limit("max_query_lookback"), length: limit("max_query_length") }
    }
}

/// The lines of one section of a configuration.
fn section<'a>(configuration: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let from_it = configuration.lines().skip_while(move |line| line.strip_suffix(':') != Some(name));
    from_it.skip(1).take_while(|line| line.starts_with(' '))
}

/// A setting's value, wherever it stands.
fn value<'a>(mut lines: impl Iterator<Item = &'a str>, name: &str) -> Option<&'a str> {
    lines.find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// A duration as Prometheus writes it: `4w2d`, `720h0m0s`.
fn duration(text: &str) -> Option<Duration> {
    let mut whole = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return None,
        };
        let part = Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(milliseconds)?);
        whole = whole.checked_add(part)?;
        rest = after;
    }
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn what_loki_shows_follows_from_its_configuration() {
        let with = |period: &str, within: &str| {
            Shows::of(&format!("querier:\n{within}\ningester:\n{period}\n")).within
        };
        let period = |value: &str| format!("  query_store_max_look_back_period: {value}");
        let within = "  query_ingesters_within: 3h0m0s";
        assert_eq!(with(&period("2h41m0s"), within), Some(SHOWN), "the default of a single process");
        assert_eq!(with(&period("2h41m0s"), ""), Some(SHOWN));
        assert_eq!(with(&period("0s"), within), Some(SHOWN), "the default of many");
        assert_eq!(with(&period("0s"), ""), None);
        assert_eq!(with(&period("-1ns"), within), None);
        assert_eq!(with(&period("-1s"), within), Some(Duration::ZERO), "Loki looks for nothing then");
        assert_eq!(Shows::of("not found").within, Some(SHOWN));
    }

    #[test]
    fn what_loki_looks_for_in_memory_for_a_shorter_time_is_hidden_sooner() {
        let hides = |configuration: &str, minutes: u32| {
            Shows::of(configuration).hides(Bounds::default(), true, MINUTE * minutes).is_some()
        };
        let many =
            "querier:\n  query_ingesters_within: 1h0m0s\ningester:\n  query_store_max_look_back_period: 0s\n";
        assert_eq!((hides(many, 70), hides(many, 55), hides(many, 45)), (true, true, false));
        // As a single process derives it from a max_chunk_age of one hour.
        let one = "querier:\n  query_ingesters_within: 3h0m0s\ningester:\n  query_store_max_look_back_period: 1h41m0s\n";
        assert_eq!((hides(one, 120), hides(one, 90)), (true, false));
        assert_eq!((hides("", 151), hides("", 149)), (true, false));
    }

    #[test]
    fn how_far_back_loki_looks_follows_from_its_limits() {
        let with =
            |period: &str| Bounds::of(&format!("limits_config:\n  max_query_lookback: {period}\n")).lookback;
        let untold = |limits: &str| Bounds::of(limits).lookback;
        assert_eq!((with("0s"), untold(""), untold("max_line_size: 1")), (Some(Duration::MAX), None, None));
        assert_eq!(with("720h0m0s"), Some(30 * DAY));
        assert_eq!(with("4w2d"), Some(30 * DAY));
        assert_eq!((with("1500ms"), with("x"), with("1")), (Some(Duration::from_millis(1500)), None, None));
    }

    #[test]
    fn a_tenants_own_limits_come_before_the_common_ones() {
        let limits = |lookback: &str| format!("max_query_lookback: {lookback}\n");
        let shows = Shows::of(&format!("querier:\ningester:\nlimits_config:\n  {}", limits("5h0m0s")));
        let hides = |own: &str, hours: u32| shows.hides(Bounds::of(own), true, HOUR * hours).is_some();
        assert_eq!((hides("", 6), hides("", 4)), (true, false));
        assert_eq!((hides(&limits("0s"), 6), hides(&limits("3h"), 4)), (false, true));
    }

    /// As they aren't by the gateway of Loki's own chart, which knows the path `/config` and none below it.
    #[test]
    fn where_a_tenant_may_have_limits_that_are_not_told_what_is_old_is_not_known() {
        let shows =
            |file: &str| Shows::of(&format!("querier:\nruntime_config:\n  period: 10s\n  file: {file}\n"));
        let (with, without) = (shows("/etc/loki/runtime-config.yaml"), shows("\"\""));
        let old = 3 * HOUR;
        assert_eq!(with.hides(Bounds::default(), true, old), Some(LIMITS_UNTOLD));
        assert_eq!(with.hides(Bounds::default(), true, HOUR), None);
        assert_eq!(with.hides(Bounds::of("max_query_lookback: 0s"), true, old), None, "they are told");
        assert_eq!(with.hides(Bounds::default(), false, old), None, "there are no tenants");
        assert_eq!(without.hides(Bounds::default(), true, old), None, "nobody has limits of his own");
        let by_gateway = Shows::of(
            "auth_enabled: true\nquerier:\nruntime_config:\n  file: /etc/loki/runtime-config.yaml\n",
        );
        assert_eq!(by_gateway.hides(Bounds::default(), false, old), Some(LIMITS_UNTOLD));
        assert_eq!(by_gateway.hides(Bounds::default(), false, HOUR), None);
        assert_eq!(by_gateway.hides(Bounds::of("max_query_lookback: 0s"), false, old), None);
    }

    #[test]
    fn no_question_is_longer_than_the_limits_allow() {
        let shows = Shows::of("querier:\nlimits_config:\n  max_query_length: 1d\n");
        let longest = |own: &str| shows.longest(Bounds::of(own));
        let second = Duration::from_secs(1);
        assert_eq!(longest(""), DAY - second);
        assert_eq!(longest("max_query_length: 1h"), HOUR - second);
        assert_eq!((longest("max_query_length: 0s"), longest("max_query_length: 30d1h")), (SPAN, SPAN));
        assert_eq!(longest("max_query_length: 1ms"), second);
        assert_eq!(Shows::of("").longest(Bounds::default()), SPAN);
    }

    #[test]
    fn how_far_behind_its_stream_a_line_may_lie_is_half_of_what_a_chunk_may_last() {
        let behind = |age: &str| {
            let of_patterns = "pattern_ingester:\n  max_chunk_age: 10m0s\n";
            Shows::of(&format!(
                "{of_patterns}ingester:\n  wal:\n    dir: x\n  max_chunk_age: {age}\n{of_patterns}"
            ))
            .behind
        };
        assert_eq!((behind("1h0m0s"), behind("2h0m0s"), behind("12h0m0s")), (30 * MINUTE, HOUR, HOUR));
        assert_eq!(Shows::of("").behind, HOUR);
    }
}
