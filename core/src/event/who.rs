//! Who may say what: producer kind → families. Checked before an append and again by the fold, so that a
//! proxy that was broken into can't make itself users, and a node speaks only of what a node can know.

use super::{Family, ProducerKind};

/// Whether producers of `kind` may speak of `family`.
#[must_use]
pub const fn may_say(kind: ProducerKind, family: Family) -> bool {
    use Family as F;
    match kind {
        ProducerKind::Log => !matches!(family, F::Command | F::Connection | F::File),
        ProducerKind::Proxy => {
            matches!(
                family,
                F::Login
                    | F::Session
                    | F::Command
                    | F::Connection
                    | F::File
                    | F::Decision
                    | F::Node
                    | F::Producer
                    | F::Recording
            )
        }
        ProducerKind::Node => {
            matches!(family, F::Command | F::Connection | F::File | F::Node | F::Producer)
        }
        ProducerKind::Witness => matches!(family, F::Producer),
    }
}

/// The one type about sessions that is a command, and so the log role's to say.
const END_REQUESTED: &str = "session.end-requested";

/// What nobody knows but an agent, from the kernel of its node.
const SEEN_BY_KERNELS: [&str; 22] = [
    "command.executed",
    "command.exited",
    "command.denied",
    "connection.opened",
    "connection.accepted",
    "connection.daemon-reached",
    "connection.unreached",
    "connection.closed",
    "connection.denied",
    "file.opened",
    "file.created",
    "file.truncated",
    "file.renamed",
    "file.linked",
    "file.deleted",
    "file.permission-changed",
    "file.owner-changed",
    "file.attribute-changed",
    "file.denied",
    "node.joined",
    "node.session-accepted",
    "node.kernel-changed",
];

/// What a proxy may say of nodes.
const HOST_KEY_REFUSED: &str = "node.host-key-refused";

/// Whether a kind may say an event of this type: some of an allowed family it may not say all the same.
#[must_use]
pub fn may_say_type(kind: ProducerKind, family: Family, name: &str) -> bool {
    let seen = SEEN_BY_KERNELS.contains(&name);
    may_say(kind, family)
        && match kind {
            ProducerKind::Log => !seen && (family != Family::Session || name == END_REQUESTED),
            ProducerKind::Proxy => {
                !seen && name != END_REQUESTED && (family != Family::Node || name == HOST_KEY_REFUSED)
            }
            ProducerKind::Node => seen || family == Family::Producer,
            ProducerKind::Witness => true,
        }
}

/// The kind of producer that usually says an event of this type.
#[must_use]
pub fn usual(family: Family, name: &str) -> ProducerKind {
    match family {
        _ if SEEN_BY_KERNELS.contains(&name) => ProducerKind::Node,
        Family::Session if name == END_REQUESTED => ProducerKind::Log,
        Family::Session | Family::Command | Family::Connection | Family::File => ProducerKind::Proxy,
        _ => ProducerKind::Log,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::TYPES;

    #[test]
    fn only_the_log_role_changes_users_roles_policies_locks_and_nodes() {
        for info in TYPES {
            let changes_state =
                ["user.", "role.", "policy.", "lock.", "certificate.", "service.", "restriction."]
                    .iter()
                    .any(|f| info.name.starts_with(f))
                    || matches!(
                        info.name,
                        "node.added"
                            | "node.removed"
                            | "node.token-created"
                            | "node.enrolled"
                            | "node.lost"
                            | "log.created"
                            | "log.sealed"
                            | END_REQUESTED
                    );
            if changes_state {
                for kind in [ProducerKind::Proxy, ProducerKind::Node, ProducerKind::Witness] {
                    assert!(!may_say_type(kind, info.family, info.name), "{kind:?} {}", info.name);
                }
            }
            assert!(may_say_type(usual(info.family, info.name), info.family, info.name), "{}", info.name);
        }
    }
}
