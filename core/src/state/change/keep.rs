//! Nobody takes away the last means by which what he does could be undone.

use super::{Change, ChangeRefused};
use crate::event::{EventId, lock, policy, user};
use crate::policy::defaults::ADMIN;
use crate::policy::{Action, Circumstances, Marks, Request, What, decide};
use crate::state::State;
use crate::state::locks::Subject;
use crate::state::users::User;
use std::collections::BTreeSet;
use uuid::Uuid;

/// A name of nothing in particular: whether one document is fenced in, or one user, is for policy.
const ANYTHING: &str = "anything";

/// What somebody must be left for.
#[derive(Clone, Copy)]
enum Need {
    Role,
    Leave(Action),
}

/// Who may upload policies can allow everything else again.
const NEEDS: [Need; 3] = [Need::Role, Need::Leave(Action::UploadPolicy), Need::Leave(Action::SetRoles)];

/// Somebody must be left who has a password, isn't locked, and administers: holds the role `admin`, and may upload
/// policies and set roles by the policies as they are after `change`. Asked as whoever wants the change asks now, so
/// that what holds at other places and hours only is no way out. What nobody could do before isn't lost.
pub(super) fn keep_an_admin(
    state: &State,
    change: &Change,
    asked: &Circumstances,
) -> Result<(), ChangeRefused> {
    let Some(after) = after(state, change)? else { return Ok(()) };
    // A new login makes the certificate young.
    let asked = Circumstances { certificate_seconds: 0, ..*asked };
    let is_lost = |need: &Need| !is_met(*need, &after, &asked) && is_met(*need, state, &asked);
    let lost = match NEEDS.into_iter().find(is_lost) {
        None => return Ok(()),
        Some(Need::Role) => format!("holds the role {ADMIN}"),
        Some(Need::Leave(action)) => format!("may {}", action.name()),
    };
    Err(ChangeRefused::Conflict(format!(
        "nobody would be left who {lost}, has a password and isn't locked: see to it that somebody else does first"
    )))
}

/// Who may do what after the change, and nothing else of the state; nothing where the change takes nobody's rights.
fn after(state: &State, change: &Change) -> Result<Option<State>, ChangeRefused> {
    let mut after = State {
        locks: state.locks.clone(),
        policies: state.policies.clone(),
        users: state.users.clone(),
        ..State::default()
    };
    let done = match change {
        Change::SetRoles { name, roles } => {
            let roles = roles.iter().cloned().collect();
            after.users.changed(user::Changed { name: name.clone(), roles })
        }
        Change::RemoveUser { name } => after.users.removed(0, user::Removed { name: name.clone() }),
        Change::RemoveRole { name } => {
            after.users.role_removed(name);
            Ok(())
        }
        Change::UploadPolicy { name, text } => {
            after.policies.uploaded(0, policy::Uploaded { name: name.clone(), text: text.clone() })
        }
        Change::RemovePolicy { name } => after.policies.removed(&policy::Removed { name: name.clone() }),
        Change::CreateLock { name, matches, reason, expires } => {
            let (matches, name, reason) = (matches.clone(), name.clone(), reason.clone());
            let created = lock::Created { expires: *expires, matches, name, reason };
            // Nothing asks for the event.
            after.locks.created(0, EventId(Uuid::nil()), created)
        }
        Change::CreateUser { .. }
        | Change::SetPassword { .. }
        | Change::CreateRole { .. }
        | Change::AddNode { .. }
        | Change::RemoveNode { .. }
        | Change::LiftLock { .. }
        | Change::EndSession { .. }
        | Change::CreateService { .. }
        | Change::SetServiceRoles { .. }
        | Change::RotateService { .. }
        | Change::RemoveService { .. }
        | Change::CreateNodeToken { .. }
        | Change::CreateRestriction { .. }
        | Change::LiftRestriction { .. } => return Ok(None),
    };
    done.map(|()| Some(after)).map_err(|why| ChangeRefused::Conflict(why.to_owned()))
}

/// Whether there is somebody.
fn is_met(need: Need, state: &State, asked: &Circumstances) -> bool {
    match need {
        Need::Role => people(state).any(|(name, user)| administers(state, name, user, asked)),
        Need::Leave(action) => {
            let may = |(name, _): (&str, &User)| may(state, name, action, asked);
            let mut people = people(state);
            // Nearly always the first one may, and that is all that is asked.
            people.next().is_some_and(may) || unlike(state, action, people).any(may)
        }
    }
}

/// Who has a password. Administrators come first: most of the others would be asked in vain.
fn people(state: &State) -> impl Iterator<Item = (&str, &User)> {
    let of_role = move |wanted: bool| {
        state.users().iter().filter(move |(_, user)| user.roles.contains(ADMIN) == wanted)
    };
    of_role(true).chain(of_role(false)).filter(|(_, user)| user.password_version.is_some())
}

/// Of `people` one of each kind that neither a policy nor a lock tells apart, so that thousands with one role are one question.
fn unlike<'a>(
    state: &'a State,
    action: Action,
    people: impl Iterator<Item = (&'a str, &'a User)>,
) -> impl Iterator<Item = (&'a str, &'a User)> {
    let Marks { letters, mut roles, mut users } = state.policies().compiled().marks(action);
    for (_, lock) in state.locks().iter() {
        roles.extend(lock.matches.role.clone());
        users.extend(lock.matches.user.clone());
    }
    // Besides what policies say, only who holds this role gives it; and whose name this is, is asked about himself.
    roles.insert(ADMIN.to_owned());
    users.insert(ANYTHING.to_owned());
    let mut kinds = BTreeSet::new();
    people.filter(move |&(name, user)| {
        letters || users.contains(name) || {
            let told_apart = user.roles.iter().filter(|role| roles.contains(*role));
            kinds.insert(told_apart.map(String::as_str).collect::<Vec<&'a str>>())
        }
    })
}

fn administers(state: &State, name: &str, user: &User, asked: &Circumstances) -> bool {
    let roles = Some(&user.roles);
    let subject = Subject { user: name, roles, node: None, login: None, session: None };
    user.roles.contains(ADMIN) && state.locks().matching(&subject, asked.time).is_none()
}

fn may(state: &State, name: &str, action: Action, asked: &Circumstances) -> bool {
    let anything = ANYTHING.to_owned();
    let what = match action {
        Action::SetRoles => What::GiveRoles { action, name: anything, roles: BTreeSet::new() },
        _ => What::Administer { action, name: anything },
    };
    let request = Request { user: name.to_owned(), what, session: None, circumstances: *asked };
    decide(state, &request).allowed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::story::{Story, circumstances};

    /// The state of a log with one administrator, `root`, and these users, operators with a password; the policies of the
    /// role `admin` are `text`.
    fn with(names: impl Iterator<Item = String>, text: &str) -> State {
        let mut state = Story::with_policy("").state;
        for name in names {
            let roles = vec!["operator".to_owned()];
            state.users.created(0, user::Created { name: name.clone(), roles }).unwrap();
            state.users.password_set(user::PasswordSet { name, secret_version: 1 }).unwrap();
        }
        let uploaded = policy::Uploaded { name: ADMIN.to_owned(), text: text.to_owned() };
        state.policies.uploaded(0, uploaded).unwrap();
        state
    }

    fn lock(state: &mut State, user: &str) {
        let matches = lock::Matches { user: Some(user.to_owned()), ..lock::Matches::default() };
        let (name, reason) = (format!("lock-{user}"), "x".to_owned());
        let created = lock::Created { expires: None, matches, name, reason };
        state.locks.created(0, EventId(Uuid::nil()), created).unwrap();
    }

    fn asked(state: &State) -> usize {
        unlike(state, Action::UploadPolicy, people(state)).count()
    }

    /// Nobody may upload policies for an hour, and a lock is to be made in that hour.
    #[test]
    fn of_thousands_with_one_role_one_is_asked() {
        let night = r#"@id("n") permit(principal in Role::"admin", action in Action::"admin", resource)
            unless { context.hour == 0 };
            @id("own") permit(principal, action in Action::"ssh", resource) when { context.login == principal.name };"#;
        let mut state = with((0..5_000).map(|n| format!("user-{n}")), night);
        let midnight = Circumstances { time: crate::event::Timestamp::from_seconds(0), ..circumstances() };
        assert!(!is_met(Need::Leave(Action::UploadPolicy), &state, &midnight));
        assert_eq!(asked(&state), 2, "root and an operator");
        lock(&mut state, "user-7");
        assert_eq!(asked(&state), 3, "and whom a lock names");
        let change = Change::CreateLock {
            name: "another".to_owned(),
            matches: lock::Matches { user: Some("user-8".to_owned()), ..lock::Matches::default() },
            reason: "x".to_owned(),
            expires: None,
        };
        assert_eq!(keep_an_admin(&state, &change, &midnight), Ok(()), "what nobody could do isn't lost");
    }

    /// However a policy tells him apart, the one who is left is found.
    #[test]
    fn who_is_left_is_found_among_many() {
        let everything = "action in Action::\"admin\", resource";
        let when =
            |condition: &str| format!("@id(\"x\") permit(principal, {everything}) when {{ {condition} }};");
        for text in [
            format!("@id(\"x\") permit(principal == User::\"user-7\", {everything});"),
            format!("@id(\"x\") permit(principal in User::\"user-7\", {everything});"),
            format!(
                "@id(\"x\") permit(principal, {everything});
                 @id(\"y\") forbid(principal, {everything}) unless {{ principal == User::\"user-7\" }};"
            ),
            when(r#"[User::"user-7", User::"nobody"].contains(principal)"#),
            when(r#"principal.name == "user-7""#),
            when(r#"principal["name"] like "*-7""#),
            when(r#"{resource: principal}.resource.name == "user-7""#),
        ] {
            let mut state = with((0..40).map(|n| format!("user-{n}")), &text);
            for action in [Action::UploadPolicy, Action::SetRoles] {
                assert!(is_met(Need::Leave(action), &state, &circumstances()), "{text}");
            }
            lock(&mut state, "user-7");
            for action in [Action::UploadPolicy, Action::SetRoles] {
                assert!(!is_met(Need::Leave(action), &state, &circumstances()), "{text}");
            }
        }
    }

    /// Whoever has the name that is asked about is no one like the others.
    #[test]
    fn who_may_change_himself_is_found() {
        let text = r#"@id("x") permit(principal, action == Action::"admin:set-roles", resource) when { principal == resource };"#;
        let state = with(["a", ANYTHING, "z"].map(str::to_owned).into_iter(), text);
        assert!(is_met(Need::Leave(Action::SetRoles), &state, &circumstances()));
    }
}
