//! What is asked, typed, and how it is said to Cedar.

use super::{address, schema};
use crate::event::connection::Place;
use crate::event::{ByteString, SessionId, Timestamp};
use crate::state::locks::Subject;
use crate::state::{LOG, State};
use cedar_policy::{Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr;

/// How much of a command line a policy sees, in bytes; of a longer one the beginning, with `command_cut`.
pub const COMMAND_BYTES_MAX: usize = 4096;

/// How much of a login or a subsystem's name a policy sees, in bytes; longer ones are refused.
pub const NAME_BYTES_MAX: usize = 256;

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What may be allowed or not.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action { $($(#[$doc])* $variant,)* }

        impl Action {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its id in Cedar and in `decision.made`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

actions! {
    /// To reach a node.
    SshConnect = "ssh:connect",
    /// To run a login shell there.
    SshShell = "ssh:shell",
    /// To run one command there.
    SshExec = "ssh:exec",
    /// To run a subsystem there.
    SshSubsystem = "ssh:subsystem",
    /// To have it connect to somewhere.
    SshForward = "ssh:forward",
    /// To have it listen, and bring what comes in.
    SshListen = "ssh:listen",
    /// To let its programs use the person's agent.
    SshAgent = "ssh:agent",
    /// To let its programs show windows on the person's X server.
    SshX11 = "ssh:x11",
    /// To read a file there, or to list a directory, by sftp.
    SftpRead = "ssh:sftp-read",
    /// To write a file there, or to change names and attributes, by sftp.
    SftpWrite = "ssh:sftp-write",
    /// To see a session's recording.
    SessionView = "session:view",
    /// To end a session.
    SessionEnd = "session:end",
    /// To read the log.
    LogRead = "log:read",
    /// For a service account: to read events, and nothing else.
    EventsRead = "events:read",
    /// To read the state.
    StateRead = "state:read",
    /// To make a user.
    CreateUser = "admin:create-user",
    /// To set a user's roles.
    SetRoles = "admin:set-roles",
    /// To remove a user.
    RemoveUser = "admin:remove-user",
    /// To set a password.
    SetPassword = "admin:set-password",
    /// To make a role.
    CreateRole = "admin:create-role",
    /// To remove a role.
    RemoveRole = "admin:remove-role",
    /// To put a policy document in place.
    UploadPolicy = "admin:upload-policy",
    /// To remove a policy document.
    RemovePolicy = "admin:remove-policy",
    /// To make a node known.
    AddNode = "admin:add-node",
    /// To remove a node.
    RemoveNode = "admin:remove-node",
    /// To have a node's host key certified.
    EnrollNode = "admin:enroll-node",
    /// To lock.
    CreateLock = "admin:create-lock",
    /// To lift a lock.
    LiftLock = "admin:lift-lock",
    /// To make a service account.
    CreateService = "admin:create-service",
    /// To set a service account's roles.
    SetServiceRoles = "admin:set-service-roles",
    /// To give a service account another token.
    RotateService = "admin:rotate-service",
    /// To remove a service account.
    RemoveService = "admin:remove-service",
    /// To let an agent join in a node's name.
    CreateNodeToken = "admin:create-node-token",
    /// To restrict what sessions may reach.
    CreateRestriction = "admin:create-restriction",
    /// To lift a restriction.
    LiftRestriction = "admin:lift-restriction",
    /// To operate the log: its keys, its clock, its projections.
    OperateLog = "admin:operate-log",
    /// To operate a sink: hold it, let it go, have it deliver again or read it back.
    OperateSink = "admin:operate-sink",
}

impl Action {
    /// The action of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.name() == name)
    }
}

/// What stands around a request: the same fields in each Cedar context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Circumstances {
    /// The age of what proves the asker, in seconds: a user's certificate, a service account's token.
    pub certificate_seconds: u64,
    /// Whether a second factor was given at login.
    pub mfa: bool,
    /// The client's address.
    pub source: IpAddr,
    /// The moment of the request.
    pub time: Timestamp,
}

impl Circumstances {
    /// Reads them back from the context of a `decision.made`.
    #[must_use]
    pub fn from_context(context: &serde_json::Value) -> Option<Self> {
        #[derive(Deserialize)]
        struct Recorded {
            certificate_seconds: u64,
            mfa: bool,
            source: IpAddr,
            time: u64,
        }
        let Recorded { certificate_seconds, mfa, source, time } = Recorded::deserialize(context).ok()?;
        Some(Self { certificate_seconds, mfa, source, time: Timestamp::from_seconds(time) })
    }
}

/// What somebody wants to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Reach a node as `login`.
    Connect {
        /// The node's name.
        node: String,
        /// The account there.
        login: ByteString,
    },
    /// Run a login shell.
    Shell {
        /// The node's name.
        node: String,
        /// The account there.
        login: ByteString,
        /// Whether it has a terminal.
        terminal: bool,
    },
    /// Run a command.
    Exec {
        /// The node's name.
        node: String,
        /// The account there.
        login: ByteString,
        /// Whether it has a terminal.
        terminal: bool,
        /// The command line.
        command: ByteString,
    },
    /// Run a subsystem.
    Subsystem {
        /// The node's name.
        node: String,
        /// The account there.
        login: ByteString,
        /// The subsystem's name.
        subsystem: ByteString,
    },
    /// Connect from a node to somewhere.
    Forward {
        /// The node's name.
        node: String,
        /// The account there.
        login: ByteString,
        /// Where to.
        place: Place,
    },
    /// Have a node listen.
    Listen {
        /// The node's name.
        node: String,
        /// The account there.
        login: ByteString,
        /// Where.
        place: Place,
    },
    /// Let a node's programs use one's agent.
    Agent {
        /// The node's name.
        node: String,
        /// The account there.
        login: ByteString,
    },
    /// Let a node's programs show windows on one's X server.
    X11 {
        /// The node's name.
        node: String,
        /// The account there.
        login: ByteString,
    },
    /// Read or write a file by sftp.
    Sftp {
        /// The node's name.
        node: String,
        /// The account there.
        login: ByteString,
        /// [`Action::SftpRead`] or [`Action::SftpWrite`].
        action: Action,
        /// The path; empty for what isn't understood.
        path: ByteString,
        /// Whether `path` is known to be absolute.
        absolute: bool,
        /// Whether `path` is the beginning of a longer one.
        cut: bool,
    },
    /// See the recording of a session.
    View {
        /// Whose recording.
        session: SessionId,
    },
    /// Read the log.
    ReadLog,
    /// Read events, as a service account.
    ReadEvents,
    /// Read the state.
    ReadState,
    /// Change the state: see [`crate::state::change::Change::what`].
    Administer {
        /// One of the `admin:` actions.
        action: Action,
        /// The name of what is changed; its kind follows from the action.
        name: String,
    },
    /// Say which roles a user has.
    GiveRoles {
        /// [`Action::CreateUser`] or [`Action::SetRoles`].
        action: Action,
        /// The user.
        name: String,
        /// All roles from then on.
        roles: BTreeSet<String>,
    },
}

/// A request to be decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who: a user whose identity has been proved, or a service account ([`What::principal`]).
    pub user: String,
    /// What.
    pub what: What,
    /// The session within which it is asked: locks may match it.
    pub session: Option<SessionId>,
    /// Where, when and how.
    pub circumstances: Circumstances,
}

impl What {
    /// The Cedar action.
    #[must_use]
    pub fn action(&self) -> Action {
        match self {
            Self::Connect { .. } => Action::SshConnect,
            Self::Shell { .. } => Action::SshShell,
            Self::Exec { .. } => Action::SshExec,
            Self::Subsystem { .. } => Action::SshSubsystem,
            Self::Forward { .. } => Action::SshForward,
            Self::Listen { .. } => Action::SshListen,
            Self::Agent { .. } => Action::SshAgent,
            Self::X11 { .. } => Action::SshX11,
            Self::Sftp { action, .. } => *action,
            Self::View { .. } => Action::SessionView,
            Self::ReadLog => Action::LogRead,
            Self::ReadEvents => Action::EventsRead,
            Self::ReadState => Action::StateRead,
            Self::Administer { action, .. } | Self::GiveRoles { action, .. } => *action,
        }
    }

    /// The type of who asks, in Cedar: what is for service accounts isn't for people, and the other way round.
    #[must_use]
    pub const fn principal(&self) -> &'static str {
        match self {
            Self::ReadEvents => "Service",
            _ => "User",
        }
    }

    /// The node and the login that it is about, where it is about some.
    #[must_use]
    pub fn place(&self) -> Option<(&str, &ByteString)> {
        match self {
            Self::Connect { node, login }
            | Self::Shell { node, login, .. }
            | Self::Exec { node, login, .. }
            | Self::Subsystem { node, login, .. }
            | Self::Forward { node, login, .. }
            | Self::Listen { node, login, .. }
            | Self::Agent { node, login }
            | Self::X11 { node, login }
            | Self::Sftp { node, login, .. } => Some((node, login)),
            Self::View { .. }
            | Self::ReadLog
            | Self::ReadEvents
            | Self::ReadState
            | Self::Administer { .. }
            | Self::GiveRoles { .. } => None,
        }
    }

    /// The resource's type and id in Cedar.
    #[must_use]
    pub fn resource(&self) -> (&'static str, String) {
        match self {
            Self::Connect { node, .. }
            | Self::Shell { node, .. }
            | Self::Exec { node, .. }
            | Self::Subsystem { node, .. }
            | Self::Forward { node, .. }
            | Self::Listen { node, .. }
            | Self::Agent { node, .. }
            | Self::X11 { node, .. }
            | Self::Sftp { node, .. } => ("Node", node.clone()),
            Self::View { session } => ("Session", session.to_string()),
            Self::ReadLog | Self::ReadEvents => ("Log", LOG.to_owned()),
            Self::ReadState => ("State", "state".to_owned()),
            Self::Administer { action, name } | Self::GiveRoles { action, name, .. } => {
                (administered(*action), name.clone())
            }
        }
    }
}

/// What kind of thing an `admin:` action changes.
pub(crate) const fn administered(action: Action) -> &'static str {
    match action {
        Action::CreateUser | Action::SetRoles | Action::RemoveUser | Action::SetPassword => "User",
        Action::CreateRole | Action::RemoveRole => "Role",
        Action::UploadPolicy | Action::RemovePolicy => "Policy",
        Action::CreateLock | Action::LiftLock => "Lock",
        Action::CreateRestriction | Action::LiftRestriction => "Restriction",
        Action::StateRead => "State",
        Action::LogRead | Action::EventsRead | Action::OperateLog => "Log",
        Action::CreateService | Action::SetServiceRoles | Action::RotateService | Action::RemoveService => {
            "Service"
        }
        Action::OperateSink => "Sink",
        Action::SessionView | Action::SessionEnd => "Session",
        Action::AddNode
        | Action::RemoveNode
        | Action::EnrollNode
        | Action::CreateNodeToken
        | Action::SshConnect
        | Action::SshShell
        | Action::SshExec
        | Action::SshSubsystem
        | Action::SshForward
        | Action::SshListen
        | Action::SshAgent
        | Action::SshX11
        | Action::SftpRead
        | Action::SftpWrite => "Node",
    }
}

/// An entity as Cedar writes it, e.g. `Node::"web-1"`: the form in `decision.made`.
#[must_use]
pub fn entity_text(kind: &str, id: &str) -> String {
    format!("{kind}::\"{}\"", id.escape_debug())
}

/// Why a request can't be put to policy; nothing is allowed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request can't be put to policy: {0}")]
pub struct RequestError(String);

fn failed(error: impl ToString) -> RequestError {
    RequestError(error.to_string().replace('\n', " "))
}

impl Request {
    /// Gives `with` whom and what it is about: for what holds by that, as locks and restrictions do.
    pub fn about<T>(&self, state: &State, with: impl FnOnce(&Subject<'_>) -> T) -> T {
        let roles = match self.what.principal() {
            "Service" => state.services().get(&self.user).map(|service| &service.roles),
            _ => state.users().get(&self.user).map(|user| &user.roles),
        };
        let place = self.what.place();
        let login = place.map(|(_, login)| login.to_text());
        with(&Subject {
            user: &self.user,
            roles,
            node: place.map(|(node, _)| node),
            login: login.as_deref(),
            session: self.session,
        })
    }

    /// The whole Cedar context as it stands in `decision.made`.
    #[must_use]
    pub fn context(&self) -> serde_json::Value {
        let Circumstances { certificate_seconds, mfa, source, time } = self.circumstances;
        let seconds = time.seconds();
        let mut context = BTreeMap::from([
            ("certificate_seconds", certificate_seconds.min(MAX_SECONDS).into()),
            ("hour", (seconds / 3600 % 24).into()),
            ("mfa", mfa.into()),
            ("source", source.to_canonical().to_string().into()),
            ("time", seconds.into()),
            // 1970-01-01 was a Thursday, the fourth day.
            ("weekday", ((seconds / 86_400 + 3) % 7 + 1).into()),
        ]);
        let mut put = |key, value: serde_json::Value| drop(context.insert(key, value));
        if let Some((_, login)) = self.what.place() {
            put("login", login.to_text().into());
        }
        match &self.what {
            What::Shell { terminal, .. } => put("terminal", (*terminal).into()),
            What::Exec { terminal, command, .. } => {
                let whole = command.as_bytes();
                put("command", ByteString::cut(whole, COMMAND_BYTES_MAX).to_text().into());
                put("command_cut", (whole.len() > COMMAND_BYTES_MAX).into());
                put("terminal", (*terminal).into());
            }
            What::Subsystem { subsystem, .. } => put("subsystem", subsystem.to_text().into()),
            What::Forward { place, .. } | What::Listen { place, .. } => put_place(place, &mut put),
            What::Sftp { path, absolute, cut, .. } => {
                put("absolute", (*absolute).into());
                put("path", path.to_text().into());
                put("path_cut", (*cut).into());
            }
            What::GiveRoles { roles, .. } => put("roles", roles.iter().cloned().collect()),
            What::Connect { .. }
            | What::Agent { .. }
            | What::X11 { .. }
            | What::View { .. }
            | What::ReadLog
            | What::ReadEvents
            | What::ReadState
            | What::Administer { .. } => {}
        }
        context.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// The request and the entities that it needs, in Cedar's terms.
    pub(super) fn to_cedar(&self, state: &State) -> Result<(cedar_policy::Request, Entities), RequestError> {
        let schema = schema::schema().map_err(failed)?;
        for name in self.what.place().map(|(_, login)| login).into_iter().chain(self.names()) {
            if name.as_bytes().len() > NAME_BYTES_MAX {
                return Err(failed(format!("a name of more than {NAME_BYTES_MAX} bytes")));
            }
        }
        let principal = uid(self.what.principal(), &self.user)?;
        let action = uid("Action", self.what.action().name())?;
        let (kind, id) = self.what.resource();
        let resource = uid(kind, &id)?;
        let context = Context::from_json_value(self.context(), Some((schema, &action))).map_err(failed)?;
        let request =
            cedar_policy::Request::new(principal, action, resource, context, Some(schema)).map_err(failed)?;
        let entities =
            Entities::from_entities(self.entities(state, kind, &id)?, Some(schema)).map_err(failed)?;
        Ok((request, entities))
    }

    /// What the context holds of a client's words, besides the login and the command.
    fn names(&self) -> impl Iterator<Item = &ByteString> {
        let names = match &self.what {
            What::Subsystem { subsystem, .. } => [Some(subsystem), None],
            What::Forward { place, .. } | What::Listen { place, .. } => {
                [place.host.as_ref(), place.path.as_ref()]
            }
            _ => [None, None],
        };
        names.into_iter().flatten()
    }

    /// Each entity once: who asks, with the roles of this moment, and the resource.
    fn entities(&self, state: &State, kind: &str, id: &str) -> Result<Vec<Entity>, RequestError> {
        let mut entities = BTreeMap::new();
        match self.what.principal() {
            "Service" => add_service(&mut entities, state, &self.user)?,
            _ => add_user(&mut entities, state, &self.user)?,
        }
        match kind {
            "User" => add_user(&mut entities, state, id)?,
            "Service" => add_service(&mut entities, state, id)?,
            "Role" => add_role(&mut entities, id)?,
            "Node" => {
                let labels = state.nodes().get(id).map(|node| &node.labels);
                let tags = labels.into_iter().flatten().map(|(k, v)| (k.clone(), text(v)));
                add(&mut entities, kind, id, [("name", text(id))], Vec::new(), tags)?;
            }
            "Session" => {
                let session = id.parse().ok().and_then(|id| state.sessions().get(id));
                let session = session.ok_or_else(|| failed(format!("there is no session {id}")))?;
                let owner = session.user().unwrap_or_default();
                add_user(&mut entities, state, owner)?;
                let attributes = [
                    ("owner", RestrictedExpression::new_entity_uid(uid("User", owner)?)),
                    ("node", text(&session.opened.node)),
                    ("login", text(&session.opened.login)),
                ];
                add(&mut entities, kind, id, attributes, Vec::new(), [])?;
            }
            "Policy" | "Lock" | "Restriction" | "Sink" => {
                add(&mut entities, kind, id, [("name", text(id))], Vec::new(), [])?
            }
            _ => add(&mut entities, kind, id, [], Vec::new(), [])?,
        }
        Ok(entities.into_values().collect())
    }
}

/// A host and a port, or a socket's path; what a place doesn't have is empty, and its port 0. A host that is an address,
/// however it is written, is there as one too, so that networks can be matched.
fn put_place(place: &Place, put: &mut impl FnMut(&'static str, serde_json::Value)) {
    let text = |part: &Option<ByteString>| part.as_ref().map(ToString::to_string).unwrap_or_default();
    put("host", text(&place.host).into());
    put("path", text(&place.path).into());
    put("port", place.port.unwrap_or_default().into());
    if let Some(address) = place.host.as_ref().and_then(|host| address::literal(host.as_bytes())) {
        put("address", address.to_string().into());
    }
}

/// Cedar's integers are signed; more seconds than these no certificate lives.
const MAX_SECONDS: u64 = 1 << 40;

fn uid(kind: &str, id: &str) -> Result<EntityUid, RequestError> {
    let kind = EntityTypeName::from_str(kind).map_err(failed)?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

type Collected = BTreeMap<String, Entity>;

fn add(
    entities: &mut Collected,
    kind: &str,
    id: &str,
    attributes: impl IntoIterator<Item = (&'static str, RestrictedExpression)>,
    parents: Vec<EntityUid>,
    tags: impl IntoIterator<Item = (String, RestrictedExpression)>,
) -> Result<(), RequestError> {
    let attributes = attributes.into_iter().map(|(key, value)| (key.to_owned(), value));
    let entity =
        Entity::new_with_tags(uid(kind, id)?, attributes, parents.into_iter().collect::<Vec<_>>(), tags)
            .map_err(failed)?;
    entities.insert(entity_text(kind, id), entity);
    Ok(())
}

fn add_role(entities: &mut Collected, name: &str) -> Result<(), RequestError> {
    add(entities, "Role", name, [("name", text(name))], Vec::new(), [])
}

fn add_user(entities: &mut Collected, state: &State, name: &str) -> Result<(), RequestError> {
    add_member(entities, "User", name, state.users().get(name).map(|user| &user.roles))
}

fn add_service(entities: &mut Collected, state: &State, name: &str) -> Result<(), RequestError> {
    add_member(entities, "Service", name, state.services().get(name).map(|service| &service.roles))
}

/// Somebody with roles, and the roles.
fn add_member(
    entities: &mut Collected,
    kind: &str,
    name: &str,
    roles: Option<&BTreeSet<String>>,
) -> Result<(), RequestError> {
    let mut parents = Vec::new();
    for role in roles.into_iter().flatten() {
        parents.push(uid("Role", role)?);
        add_role(entities, role)?;
    }
    add(entities, kind, name, [("name", text(name))], parents, [])
}
