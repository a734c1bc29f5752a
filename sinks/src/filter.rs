//! Which events a sink lets through.

use crate::item::Item;
use custody_core::event::{Event, Outcome};
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
        let kind = item.kind();
        let named = |names: &[String]| names.iter().any(|name| matches(name, kind));
        if (!self.include.is_empty() && !named(&self.include)) || named(&self.exclude) {
            return false;
        }
        let Some(event) = &item.event else {
            return self.outcome.is_empty() && self.user.is_empty() && self.target.is_empty();
        };
        self.attributes(event)
    }

    fn attributes(&self, event: &Event) -> bool {
        let one_of = |wanted: &[String], got: Option<&str>| {
            wanted.is_empty() || got.is_some_and(|got| wanted.iter().any(|wanted| wanted == got))
        };
        (self.outcome.is_empty() || event.outcome.is_some_and(|outcome| self.outcome.contains(&outcome)))
            && one_of(&self.user, event.actor.user())
            && one_of(&self.target, event.target.as_ref().map(|target| target.name.as_str()))
    }

    /// Whether each name could be one of an event's type.
    ///
    /// # Errors
    /// The one that couldn't.
    pub fn check(&self) -> Result<(), String> {
        for name in self.include.iter().chain(&self.exclude) {
            let good =
                name.split_once('.').is_some_and(|(family, what)| !family.is_empty() && !what.is_empty());
            if !good {
                return Err(format!("\"{name}\" is no type of event: write login.succeeded or login.*"));
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
    use custody_core::event::TYPES;
    use custody_core::log::Entry;

    fn items() -> Vec<Item> {
        let items = TYPES.iter().map(|info| {
            let bytes = (info.example)().unwrap().into();
            Item::new(Entry { index: 0, appended: Nanos(0), tag: info.family.tag(), bytes })
        });
        items.collect()
    }

    fn passing(filter: &Filter) -> Vec<String> {
        items().iter().filter(|item| filter.passes(item)).map(|item| item.kind().to_owned()).collect()
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
        for wrong in ["login", "", "*", ".*", "login."] {
            let filter = Filter { include: vec![wrong.into()], ..Filter::default() };
            assert!(filter.check().is_err(), "{wrong}");
        }
        assert!(
            Filter { exclude: vec!["login.*".into(), "a.b".into()], ..Filter::default() }.check().is_ok()
        );
    }
}
