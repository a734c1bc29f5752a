//! What somebody may have meant by a name that there isn't.

/// How many letters may be wrong.
const WRONG_MAX: usize = 2;

/// `: did you mean NAME?`, where one of those that there are is like it; else nothing. Names are lower case, and a node is
/// typed with `.custody` elsewhere.
pub(super) fn or_perhaps<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> String {
    let wrong = wrong.to_ascii_lowercase();
    let wrong = wrong.strip_suffix(".custody").unwrap_or(&wrong);
    let alike = names.map(|name| (distance(wrong, name), name));
    let best = alike.filter(|(distance, name)| *distance <= WRONG_MAX.min(name.len() / 3)).min();
    best.map_or_else(String::new, |(_, name)| format!(": did you mean {name}?"))
}

/// How many letters must be put in, taken out or changed to make one of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut above: Vec<usize> = (0..=other.chars().count()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut left = line + 1;
        let mut row = vec![left];
        for (places, wanted) in above.windows(2).zip(other.chars()) {
            let [diagonal, up] = places else { continue };
            left = (diagonal + usize::from(letter != wanted)).min(up + 1).min(left + 1);
            row.push(left);
        }
        above = row;
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_differ_are_counted() {
        for (one, other, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("operater", "operator", 1),
            ("web1", "web-1", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn the_nearest_is_named_and_nothing_that_is_far() {
        let perhaps = |wrong| or_perhaps(wrong, ["web-1", "web-12", "bob", "operator"].into_iter());
        for (wrong, expected) in [
            ("web-1.custody", ": did you mean web-1?"),
            ("Bob", ": did you mean bob?"),
            ("operater", ": did you mean operator?"),
            ("web-13", ": did you mean web-1?"),
            ("db-7", ""),
            ("", ""),
        ] {
            assert_eq!(perhaps(wrong), expected, "{wrong}");
        }
    }
}
