//! What somebody may have meant by a name that there isn't.

/// How much alike two names are that could be meant for each other (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.8;

/// `: did you mean NAME?`, where one of those that there are is like it; else nothing.
#[must_use]
pub fn or_perhaps<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> String {
    let alike = names.map(|name| (strsim::jaro_winkler(wrong, name), name));
    let best = alike.filter(|(alike, _)| *alike > ALIKE).max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.map_or_else(String::new, |(_, name)| format!(": did you mean {name}?"))
}
