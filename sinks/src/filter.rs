//! Which events a sink lets through.

use crate::item::Item;
use crate::suggest::or_perhaps;
use custody_core::event::{Head, Outcome, TYPES};
use serde::Deserialize;

/// What must hold of an event. Everything is let through when nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Types, `login.succeeded`, or whole families, `login.*`. All where none are named.
    pub include: Vec<String>,
    /// Types and families that are left out all the same.
    pub exclude: Vec<String>,
    /// Outcomes; events without one pass only where none are named.
    pub outcome: Vec<Outcome>,
    /// Users who act.
    pub user: Vec<String>,
    /// Names of targets.
    pub target: Vec<String>,
}

impl Filter {
    /// Whether the event is delivered. What isn't an event passes a filter that asks for nothing of an event.
    #[must_use]
    pub fn passes(&self, item: &Item) -> bool {
        if *self == Self::default() {
            return true;
        }
        let head = item.head();
        let kind = head.as_ref().map_or("", |head| &head.kind);
        let named = |names: &[String]| names.iter().any(|name| matches(name, kind));
        if (!self.include.is_empty() && !named(&self.include)) || named(&self.exclude) {
            return false;
        }
        if self.outcome.is_empty() && self.user.is_empty() && self.target.is_empty() {
            return true;
        }
        head.is_some_and(|head| self.attributes(&head))
    }

    fn attributes(&self, head: &Head<'_>) -> bool {
        let one_of = |wanted: &[String], got: Option<&str>| {
            wanted.is_empty() || got.is_some_and(|got| wanted.iter().any(|wanted| wanted == got))
        };
        (self.outcome.is_empty() || head.outcome.is_some_and(|outcome| self.outcome.contains(&outcome)))
            && one_of(&self.user, head.user().map(|user| &**user))
            && one_of(&self.target, head.target.as_ref().map(|target| &*target.name))
    }

    /// Whether each name is one of an event's type, or of a family: a wrong one would let through nothing, or everything.
    ///
    /// # Errors
    /// The one that isn't.
    pub fn check(&self) -> Result<(), String> {
        for name in self.include.iter().chain(&self.exclude) {
            if !TYPES.iter().any(|info| matches(name, info.name)) {
                let names = TYPES.iter().map(|info| info.name);
                return Err(format!(
                    "no event has the type {name}{}; write login.succeeded or login.*",
                    or_perhaps(name, names)
                ));
            }
        }
        Ok(())
    }
}

fn matches(name: &str, kind: &str) -> bool {
    match name.strip_suffix(".*") {
        Some(family) => kind.strip_prefix(family).is_some_and(|rest| rest.starts_with('.')),
        None => name == kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::clock::Nanos;
    use custody_core::log::Entry;

    fn items() -> Vec<Item> {
        let items = TYPES.iter().map(|info| {
            let bytes = (info.example)().unwrap().into();
            Item::new(Entry { index: 0, appended: Nanos(0), tag: info.family.tag(), bytes })
        });
        items.collect()
    }

    fn passing(filter: &Filter) -> Vec<String> {
        items().iter().filter(|item| filter.passes(item)).map(Item::kind).collect()
    }

    #[test]
    fn by_type_and_family() {
        assert_eq!(passing(&Filter::default()).len(), TYPES.len());
        let filter = Filter {
            include: vec!["login.*".into(), "lock.created".into()],
            exclude: vec!["login.failed".into()],
            ..Filter::default()
        };
        assert_eq!(passing(&filter), ["login.succeeded", "lock.created"]);
        let nothing_like_it = Filter { include: vec!["log.*".into()], ..Filter::default() };
        assert!(passing(&nothing_like_it).iter().all(|kind| kind.starts_with("log.")));
    }

    #[test]
    fn by_attributes() {
        let by_user = |user: &str| Filter { user: vec![user.into()], ..Filter::default() };
        assert_eq!(passing(&by_user("alice")).len(), TYPES.len());
        assert!(passing(&by_user("bob")).is_empty());
        let by_outcome = Filter { outcome: vec![Outcome::Denied], ..Filter::default() };
        assert!(passing(&by_outcome).is_empty(), "the examples have no outcome");
    }

    #[test]
    fn what_is_no_event_passes_only_where_nothing_is_asked() {
        let item = Item::new(Entry { index: 0, appended: Nanos(0), tag: 0, bytes: b"no event"[..].into() });
        assert!(Filter::default().passes(&item));
        assert!(Filter { exclude: vec!["login.*".into()], ..Filter::default() }.passes(&item));
        assert!(!Filter { include: vec!["login.*".into()], ..Filter::default() }.passes(&item));
        assert!(!Filter { user: vec!["alice".into()], ..Filter::default() }.passes(&item));
    }

    #[test]
    fn names_that_are_no_types_are_refused() {
        let check = |name: &str| Filter { exclude: vec![name.into()], ..Filter::default() }.check();
        for wrong in ["login", "", "*", ".*", "login.", "logins.*"] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
        assert!(check("login.suceeded").unwrap_err().contains("did you mean login.succeeded?"));
        assert_eq!((check("login.*"), check("login.failed")), (Ok(()), Ok(())));
    }
}
