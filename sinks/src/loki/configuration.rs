//! What of its own settings a Loki tells (`/config`, and of a tenant's limits `/config/tenant/v1/limits`), and what follows from them.

use std::time::Duration;

/// Whether a Loki with this configuration (which tells the values that count) looks for lines of any age in
/// the memory of those who hold them: by `query_store_max_look_back_period` if that isn't zero, and else by
/// `query_ingesters_within`, which is left out where it is zero.
pub(super) fn shows_all(configuration: &str) -> bool {
    if !configuration.lines().any(|line| line == "querier:") {
        return false;
    }
    match value(configuration.lines(), "query_store_max_look_back_period").unwrap_or("0s") {
        "0s" => value(configuration.lines(), "query_ingesters_within").is_none_or(|within| within == "0s"),
        period => period.starts_with('-'),
    }
}

/// How far back a Loki looks at all by these limits (`max_query_lookback`), if they say: to a question for what is older, it answers
/// that there is nothing. `Some(None)`: any distance.
pub(super) fn limit_of(limits: &str) -> Option<Option<Duration>> {
    let lookback = duration(value(limits.lines(), "max_query_lookback")?)?;
    Some((!lookback.is_zero()).then_some(lookback))
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
        whole += Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(milliseconds)?);
        rest = after;
    }
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn what_loki_shows_follows_from_its_configuration() {
        let with = |period: &str, within: &str| format!("querier:\n{within}\ningester:\n{period}\n");
        let period = |value: &str| format!("  query_store_max_look_back_period: {value}");
        let within = "  query_ingesters_within: 3h0m0s";
        assert!(!shows_all(&with(&period("2h41m0s"), within)), "the default of a single process");
        assert!(!shows_all(&with(&period("2h41m0s"), "")));
        assert!(!shows_all(&with(&period("0s"), within)), "the default of many");
        assert!(shows_all(&with(&period("0s"), "")));
        assert!(shows_all(&with(&period("-1ns"), within)));
        assert!(!shows_all("not found"));
    }

    #[test]
    fn how_far_back_loki_looks_follows_from_its_limits() {
        let with = |period: &str| limit_of(&format!("limits_config:\n  max_query_lookback: {period}\n"));
        assert_eq!((with("0s"), limit_of(""), limit_of("max_line_size: 1")), (Some(None), None, None));
        assert_eq!(with("720h0m0s"), Some(Some(30 * DAY)));
        assert_eq!(with("4w2d"), Some(Some(30 * DAY)));
        assert_eq!(
            (with("1500ms"), with("x"), with("1")),
            (Some(Some(Duration::from_millis(1500))), None, None)
        );
    }
}
