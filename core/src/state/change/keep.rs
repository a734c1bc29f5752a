//! Nobody takes away the last means by which what he does could be undone.

use super::{Change, ChangeRefused};
use crate::event::{EventId, lock, policy, user};
use crate::policy::defaults::ADMIN;
use crate::policy::{Action, Circumstances, Request, What, decide};
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

/// Whether there is somebody. Administrators are asked first: most of the others would be asked in vain.
fn is_met(need: Need, state: &State, asked: &Circumstances) -> bool {
    let of_role =
        |wanted: bool| state.users().iter().filter(move |(_, user)| user.roles.contains(ADMIN) == wanted);
    of_role(true)
        .chain(of_role(false))
        .filter(|(_, user)| user.password_version.is_some())
        .any(|(name, user)| meets(need, state, name, user, asked))
}

fn meets(need: Need, state: &State, name: &str, user: &User, asked: &Circumstances) -> bool {
    match need {
        Need::Role => {
            let roles = Some(&user.roles);
            let subject = Subject { user: name, roles, node: None, login: None, session: None };
            user.roles.contains(ADMIN) && state.locks().matching(&subject, asked.time).is_none()
        }
        Need::Leave(action) => {
            let anything = ANYTHING.to_owned();
            let what = match action {
                Action::SetRoles => What::GiveRoles { action, name: anything, roles: BTreeSet::new() },
                _ => What::Administer { action, name: anything },
            };
            let request = Request { user: name.to_owned(), what, session: None, circumstances: *asked };
            decide(state, &request).allowed()
        }
    }
}
