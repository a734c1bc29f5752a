//! By what policies tell people apart: whoever has a question about thousands asks it about one of each kind.

use super::request::{Action, entity_text};
use super::schema::schema;
use super::validate::{Compiled, code};
use cedar_policy::{ActionConstraint, Entities, EntityUid, Policy};
use std::collections::BTreeSet;

/// What tells users apart who want the same thing under the same circumstances: two who hold the same of these roles, and of
/// whom neither is among these users or is himself the resource, get the same answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Whether a policy may look at the letters of users' names, so that no two are alike.
    pub letters: bool,
    /// Roles that a policy names.
    pub roles: BTreeSet<String>,
    /// Users whom a policy names.
    pub users: BTreeSet<String>,
}

impl Compiled {
    /// By what the policies that may decide about `action` tell users apart: where that isn't clear, by more than they do.
    #[must_use]
    pub fn marks(&self, action: Action) -> Marks {
        let asked: Option<EntityUid> = entity_text("Action", action.name()).parse().ok();
        let known = asked.zip(schema().ok().and_then(|schema| schema.action_entities().ok()));
        let mut marks = Marks::default();
        for policy in self.set.policies() {
            if known.as_ref().is_some_and(|(asked, actions)| !concerns(policy, asked, actions)) {
                continue;
            }
            marks.letters |= policy.to_cedar().is_none_or(|text| looks_at_names(&text));
            for named in policy.entity_literals() {
                let marked = match named.type_name().to_string().as_str() {
                    "Role" => &mut marks.roles,
                    "User" => &mut marks.users,
                    _ => continue,
                };
                marked.insert(named.id().unescaped().to_owned());
            }
        }
        marks
    }
}

/// Whether the policy's scope lets it apply to the action.
fn concerns(policy: &Policy, asked: &EntityUid, actions: &Entities) -> bool {
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::In(named) => {
            named.iter().any(|named| named == asked || actions.is_ancestor_of(named, asked))
        }
        ActionConstraint::Eq(named) => named == *asked,
    }
}

/// Whether the text of a policy has an attribute `name` of anything but the resource, which is the same for all, or one that
/// is written in brackets, where a string may spell it in many ways. An attribute `resource` isn't the resource.
fn looks_at_names(text: &str) -> bool {
    let tokens = tokens(text);
    let mut before = ["", "", ""];
    for token in &tokens {
        let [first, second, third] = before;
        let is_name = third == "." && token == "name" && (second != "resource" || first == ".");
        // Whatever stands behind a dot is an attribute, whose name may be a word that means something elsewhere.
        let is_in_brackets = token == "[" && (second == "." || ends_value(third));
        if is_name || is_in_brackets {
            return true;
        }
        before = [second, third, token];
    }
    false
}

/// Words, and what stands between them, character by character; of a string its first quote.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut in_word = false;
    for (_, c) in code(text) {
        let is_of_word = is_of_word(c);
        match tokens.last_mut().filter(|_| in_word && is_of_word) {
            Some(word) => word.push(c),
            None if c.is_whitespace() => {}
            None => tokens.push(c.to_string()),
        }
        in_word = is_of_word;
    }
    tokens
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether something ends with this token of which an attribute may be taken; behind all others a bracket begins a set.
fn ends_value(token: &str) -> bool {
    match token {
        "in" | "if" | "then" | "else" => false,
        ")" | "]" | "}" | "\"" => true,
        other => other.starts_with(is_of_word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::validate::check;

    fn marks(text: &str, action: Action) -> Marks {
        let document = check("test", text).unwrap();
        Compiled::of([("test", &document)]).unwrap().marks(action)
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn whom_a_policy_names_is_marked_wherever_it_does() {
        let text = r#"
            @id("a") permit(principal == User::"ann", action in Action::"admin", resource);
            @id("b") permit(principal in Role::"ops", action, resource);
            @id("c") forbid(principal is User in Role::"guests", action in [Action::"read", Action::"admin"], resource)
                unless { [User::"bob", User::"c\u{64}"].contains(principal) || principal in [Role::"night"] };
            @id("d") permit(principal == User::"dora", action in [Action::"ssh", Action::"read"], resource);
            @id("e") permit(principal == User::"eve", action == Action::"admin:create-lock", resource)
                when { principal.name == "eve" };
        "#;
        let roles = set(&["guests", "night", "ops"]);
        let wanted = Marks { letters: false, roles: roles.clone(), users: set(&["ann", "bob", "cd"]) };
        assert_eq!(marks(text, Action::UploadPolicy), wanted);
        let users = set(&["ann", "bob", "cd", "eve"]);
        assert_eq!(marks(text, Action::CreateLock), Marks { letters: true, roles, users });
        assert_eq!(Compiled::default().marks(Action::SetRoles), Marks::default());
    }

    #[test]
    fn what_may_look_at_letters_is_seen() {
        for (condition, expected) in [
            (r#"principal.name == "ann""#, true),
            ("principal // who\n . name like \"a*\"", true),
            (r#"principal["name"] == "ann""#, true),
            (r#"principal["n\u{61}me"] == "ann""#, true),
            (r#"(if context.mfa then principal else principal).name == "ann""#, true),
            (r#"{resource: principal}.resource.name == "ann""#, true),
            (r#"{"a b": principal}["a b"] == principal"#, true),
            (r#"{in: principal}.in["name"] == "ann""#, true),
            (r#"context.mfa // principal.name"#, false),
            (r#"resource.name == "principal.name""#, false),
            (r#"principal in [Role::"ops", Role::"a[b]"]"#, false),
            (r#"["a", "b"].contains(resource.name) && principal has name"#, false),
            (r#"(if context.mfa then ["a"] else ["b"]).contains("a")"#, false),
        ] {
            let text = format!("@id(\"x\") permit(principal, action, resource) when {{ {condition}\n }};");
            assert_eq!(looks_at_names(&text), expected, "{condition}");
        }
        let by_name = r#"@id("own") permit(principal, action in Action::"ssh", resource) when { context.login == principal.name };"#;
        assert!(marks(by_name, Action::SshConnect).letters);
        assert!(!marks(by_name, Action::UploadPolicy).letters, "it is about other things");
    }
}
