//! How much is measured, as the environment says it.

/// A variable, or what stands in for it.
pub fn text(name: &str, otherwise: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}

/// The same as a number that isn't zero.
pub fn number(name: &str, otherwise: u64) -> u64 {
    let text = text(name, &otherwise.to_string());
    text.parse().ok().filter(|number| *number > 0).unwrap_or_else(|| panic!("{name}={text}: not a number"))
}

/// The same as a number of things.
pub fn count(name: &str, otherwise: u64) -> usize {
    usize::try_from(number(name, otherwise)).expect("no more than memory can hold")
}
