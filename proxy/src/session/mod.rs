//! A session from the decision to its one end: [`open`] decides and announces, [`run`] does the same for each
//! program and [`forward`] for each connection, [`passage`] sees every message, [`files`] what is done to files, [`live`]
//! ends what is no longer allowed, [`close`] says the end.

pub mod close;
pub mod decide;
pub mod files;
pub mod forward;
pub mod identity;
pub mod listen;
pub mod live;
pub mod open;
pub mod passage;
pub mod rights;
pub mod run;
pub mod watch;

use crate::ca::SessionCertifier;
use crate::ingest::agents::Agents;
use crate::login::prove::PasswordLogin;
use crate::ssh::admission::Admission;
use crate::ssh::certificate::TrustedAuthorities;
use custody_core::clock::Clock;
use custody_core::event::{Actor, Draft, EventData, EventId, SessionId, Source, Target};
use custody_core::log::Producer;
use custody_core::policy::Circumstances;
use custody_core::recording::sealed::Auditor;
use custody_core::state::follow::Replica;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What the proxy has of the rest of Custody.
pub struct Access {
    /// Its own events.
    pub proxy: Arc<Producer>,
    /// State, folded from the log.
    pub replica: Arc<Replica>,
    /// Who certifies the keys of sessions.
    pub certifier: Arc<dyn SessionCertifier>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Where recordings lie.
    pub recordings: PathBuf,
    /// The addresses that targets see the proxy come from.
    pub source_addresses: Vec<IpAddr>,
    /// To whom the input of sessions that are recorded in full is sealed.
    pub auditors: Vec<Auditor>,
    /// Output of a program without a terminal that is recorded whole, in bytes.
    pub exec_bytes_max: u64,
    /// How long a session may go on while the log takes no evidence.
    pub log_outage: Duration,
    /// Whose certificates prove people.
    pub client_authorities: Arc<TrustedAuthorities>,
    /// Whose certificates prove nodes.
    pub host_authorities: Arc<TrustedAuthorities>,
    /// The sessions that live here.
    pub live: Arc<live::LiveSessions>,
    /// Places for connections that have proved nothing.
    pub admission: Arc<Admission>,
    /// The agents of watched nodes.
    pub agents: Arc<Agents>,
    /// Who proves people without a certificate, where that is configured.
    pub passwords: Option<Arc<PasswordLogin>>,
}

/// What stays the same in a session, for each of its events.
#[derive(Debug)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The person.
    pub actor: Actor,
    /// The person's user name.
    pub user: String,
    /// Where from.
    pub source: Source,
    /// Where to.
    pub target: Target,
    /// When and how the person came, for decisions; the time is each decision's own.
    pub circumstances: Circumstances,
    /// Since when the proof of who the person is was good, in seconds since 1970.
    pub proved_since: u64,
    /// The `session.requested`.
    pub announced: EventId,
}

impl Session {
    /// An event of the session that follows from `cause`; where the person came from is the caller's to add.
    pub fn draft<D: EventData>(&self, data: D, cause: EventId) -> Draft<D> {
        Draft::new(self.actor.clone(), data).cause(cause).session(self.id).target(self.target.clone())
    }
}
