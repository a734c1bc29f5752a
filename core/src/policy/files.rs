//! Which programs a session may run, and which files it may touch: all restrictions that hold for it, put together.
//!
//! What one denies is denied. Where several allow programs by a list, a program must stand in each of them.

use crate::event::node::Tier;
use crate::state::State;
use crate::state::locks::Subject;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How long a path may be, in bytes (Linux's own limit, PATH_MAX, with the zero byte at its end).
pub const PATH_BYTES_MAX: usize = 4095;

/// How many paths one session's lists may have when they are put together; with more, nothing may be run or touched.
pub const PATHS_MAX: usize = 1024;

/// How many lists of programs may hold for one session; with more, nothing may be run or touched.
pub const LISTS_MAX: usize = 16;

/// Why a path can't be in a restriction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It would depend on who asks.
    #[error("«{0}» is no absolute path: write it from / on")]
    Relative(String),
    /// It isn't the one that it looks like.
    #[error("«{0}» has a part that is empty, . or ..: write the path without it")]
    NotPlain(String),
    /// No file can have it.
    #[error("«{0}…» is no path: it has a zero byte, or more than {PATH_BYTES_MAX} bytes")]
    Impossible(String),
}

/// A file, or a directory with all below it, that is denied.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Whether a session that tries ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends_session: bool,
    /// Absolute, without a slash at its end.
    pub path: String,
    /// The restriction that says so.
    pub restriction: String,
}

/// A list of what alone may be run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Whether a session that tries something else ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends_session: bool,
    /// Absolute, without a slash at their ends.
    pub paths: Vec<String>,
    /// The restriction that says so.
    pub restriction: String,
}

/// What a session may run and touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Use {
    /// A program that isn't in each of these may not be run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_programs: Vec<List>,
    /// What may not be touched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_paths: Vec<Rule>,
    /// What may not be run, whatever is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_programs: Vec<Rule>,
}

impl Use {
    /// Whether nothing is restricted.
    #[must_use]
    pub fn is_free(&self) -> bool {
        *self == Self::default()
    }
}

/// A path as rules have it, of what stands in an event: whether a directory has a slash at its end says nothing.
///
/// # Errors
/// See [`PathError`].
pub fn parse(path: &str) -> Result<String, PathError> {
    let shown = || path.chars().take(64).collect::<String>().escape_debug().to_string();
    if path.len() > PATH_BYTES_MAX || path.contains('\0') {
        return Err(PathError::Impossible(shown()));
    }
    let Some(below) = path.strip_prefix('/') else { return Err(PathError::Relative(shown())) };
    let plain = below.strip_suffix('/').unwrap_or(below);
    if below.is_empty() {
        return Ok("/".to_owned());
    }
    if plain.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(PathError::NotPlain(shown()));
    }
    Ok(format!("/{plain}"))
}

/// What the restrictions of a state leave a session.
#[must_use]
pub fn usable(state: &State, subject: &Subject<'_>) -> Use {
    let mut usable = Use::default();
    for (name, restriction) in state.restrictions().of(subject) {
        // What can't be understood was refused when the restriction was made.
        let parsed = |paths: &[String]| paths.iter().filter_map(|path| parse(path).ok()).collect::<Vec<_>>();
        let rules = |paths: &[String]| {
            let rule =
                |path| Rule { ends_session: restriction.ends_session, path, restriction: name.to_owned() };
            parsed(paths).into_iter().map(rule).collect::<Vec<_>>()
        };
        usable.deny_paths.extend(rules(&restriction.deny_paths));
        usable.deny_programs.extend(rules(&restriction.deny_programs));
        if !restriction.allow_programs.is_empty() {
            usable.allow_programs.push(List {
                ends_session: restriction.ends_session,
                paths: parsed(&restriction.allow_programs),
                restriction: name.to_owned(),
            });
        }
    }
    bounded(usable)
}

/// With more than can be held, nothing may be run or touched.
fn bounded(mut usable: Use) -> Use {
    let listed: usize = usable.allow_programs.iter().map(|list| list.paths.len()).sum();
    let paths = listed + usable.deny_paths.len() + usable.deny_programs.len();
    if usable.allow_programs.len() > LISTS_MAX || paths > PATHS_MAX {
        let ends_session = usable.allow_programs.iter().any(|list| list.ends_session);
        let restriction = "too many restrictions".to_owned();
        let all = Rule { ends_session, path: "/".to_owned(), restriction: restriction.clone() };
        usable.deny_programs.clear();
        usable.deny_paths = vec![all];
        usable.allow_programs = vec![List { ends_session, paths: Vec::new(), restriction }];
    }
    usable
}

/// What an agent must be able to do so that files can be kept from its sessions, as it names it (`limits` of `node.joined`).
const KEEPS_PATHS: [&str; 11] = [
    "file attributes",
    "file create",
    "file delete",
    "file link",
    "file open",
    "file owner",
    "file permissions",
    "file rename",
    "file truncate",
    "unix connect",
    "unix datagram deny",
];

/// Whether a node's agent can keep files from sessions, or why not.
///
/// # Errors
/// Why it can't, in half a line.
pub fn keeps_paths(tier: Tier, limits: &BTreeMap<String, String>) -> Result<(), String> {
    if tier != Tier::Lsm {
        return Err("its kernel lacks BPF LSM".to_owned());
    }
    lacks_none(&KEEPS_PATHS, limits)
}

/// Whether an agent has all of these features, or why not.
pub(super) fn lacks_none(features: &[&str], limits: &BTreeMap<String, String>) -> Result<(), String> {
    let missing = features.iter().find_map(|feature| Some((feature, limits.get(*feature)?)));
    missing.map_or(Ok(()), |(feature, why)| Err(format!("it lacks {feature}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_and_plain() {
        let good =
            [("/", "/"), ("/usr/bin/", "/usr/bin"), ("/usr/bin/curl", "/usr/bin/curl"), ("/a b/ü", "/a b/ü")];
        for (written, meant) in good {
            assert_eq!(parse(written).as_deref(), Ok(meant));
        }
        for wrong in ["", "usr/bin", "./x", "~/x"] {
            assert!(matches!(parse(wrong), Err(PathError::Relative(_))), "{wrong}");
        }
        for wrong in ["//", "/a//b", "/a/../b", "/.", "/a/./b", "/a//"] {
            assert!(matches!(parse(wrong), Err(PathError::NotPlain(_))), "{wrong}");
        }
        for wrong in ["/a\0b", &format!("/{}", "a".repeat(4095))] {
            assert!(matches!(parse(wrong), Err(PathError::Impossible(_))), "{wrong}");
        }
    }

    #[test]
    fn more_than_can_be_held_lets_nothing_run() {
        let list = List { ends_session: true, paths: vec!["/bin/sh".into()], restriction: "r".into() };
        let few = Use { allow_programs: vec![list.clone(); LISTS_MAX], ..Use::default() };
        assert_eq!(bounded(few.clone()), few);
        let many = bounded(Use { allow_programs: vec![list; LISTS_MAX + 1], ..Use::default() });
        assert!(many.allow_programs[0].paths.is_empty() && many.allow_programs[0].ends_session);
        let rule = Rule { ends_session: false, path: "/x".into(), restriction: "r".into() };
        let many = bounded(Use { deny_programs: vec![rule; PATHS_MAX + 1], ..Use::default() });
        assert_eq!((many.allow_programs.len(), many.deny_programs.len()), (1, 0));
    }

    #[test]
    fn a_kernel_keeps_files_by_lsm_with_all_that_it_takes() {
        let none = BTreeMap::new();
        assert_eq!(keeps_paths(Tier::Lsm, &none), Ok(()));
        assert!(keeps_paths(Tier::Tracepoint, &none).unwrap_err().contains("BPF LSM"));
        let lacks = BTreeMap::from([("file open".to_owned(), "no such hook".to_owned())]);
        assert_eq!(keeps_paths(Tier::Lsm, &lacks).unwrap_err(), "it lacks file open: no such hook");
    }
}
