//! What the log says is done; and in between it is looked whether what lives is still watched.

use super::connection::{Link, LinkError};
use crate::evidence::{Shared, Telling};
use crate::sensor::{Found, PolicyRules, SensorError, TakenDown, Tuple};
use crate::sessions::{Session, Sessions, running};
use custody_core::event::{SessionId, node};
use custody_core::ingest::message::{Expected, Said, Told};
use custody_core::policy::files;
use custody_core::policy::networks::{self, Reach};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How often it is looked which sessions have processes. The kernel's whole table is read for that, and the heartbeat waits meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why a session ends of which no process is known though it lives.
const UNWATCHED: &str = "no process of it is watched any more: the agent's programs, or what they knew, were taken from the kernel while it \
    ran, or all that it ran has ended";

/// Does what the log says over a connection, one thing after the other: of two words about a session the later must hold.
pub(super) async fn obey(
    link: Arc<Link>,
    connection: u64,
    mut orders: mpsc::Receiver<Told>,
    say: mpsc::Sender<Vec<u8>>,
) -> LinkError {
    // The first look is at what the log says to live, which is its first word.
    let mut due = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut missed = BTreeSet::new();
    loop {
        let told = tokio::select! {
            told = orders.recv() => match told {
                Some(told) => Some(told),
                None => return LinkError::Stopped,
            },
            _ = due.tick() => None,
        };
        let link = Arc::clone(&link);
        // Files are written and synced.
        let done = tokio::task::spawn_blocking(move || match told {
            Some(told) => (take_word(&link, connection, told), BTreeSet::new()),
            None => {
                // A session that ends is live to the log for a moment after its last process.
                let unwatched = unwatched(&link, connection);
                (missing(unwatched.intersection(&missed).copied()), unwatched)
            }
        });
        let Ok((said, now)) = done.await else { return LinkError::Stopped };
        missed = now;
        for said in said {
            let body = match said.encode() {
                Ok(body) => body,
                Err(error) => return error.into(),
            };
            if say.send(body).await.is_err() {
                return LinkError::Stopped;
            }
        }
    }
}

/// Does one thing that the log says; there may be answers.
fn take_word(link: &Link, connection: u64, told: Told) -> Vec<Said> {
    let shared = &link.shared;
    match told {
        Told::Expect(expected) => {
            let session = expected.session;
            let able = able(&link.joined, &expected.reach);
            let expected = able.and_then(|()| expect(link, connection, *expected));
            return vec![match expected {
                Ok(()) => Said::Expecting { session },
                Err(reason) => Said::Refused { session, reason },
            }];
        }
        Told::Live { sessions } => {
            only(link, connection, &sessions);
            return missing(unwatched(link, connection));
        }
        Told::Over { session } => over(link, connection, session),
        Told::Reach { change, session, reach } => {
            let able = able(&link.joined, &reach);
            let Some(taken) = set_reach(link, connection, session, reach) else { return Vec::new() };
            let told = taken.and_then(|taken| tell_taken(&link.tell, taken));
            return vec![match able.and(told).and_then(|()| followed(shared, session)) {
                Ok(()) => Said::Held { change, session },
                Err(reason) => {
                    tracing::error!(%session, "what the session may reach now isn't enforced: {reason}");
                    Said::Unheld { change, reason, session }
                }
            }];
        }
        Told::Certificate { certificate } => match link.identity.certified(&certificate) {
            Ok(()) => tracing::info!("got a new certificate"),
            Err(error) => tracing::error!("the new certificate can't be kept: {error}"),
        },
        Told::Alive | Told::Acknowledged { .. } => {}
    }
    Vec::new()
}

/// Whether the kernel can hold a session to that: the log asks only for what it can, as this agent has said of it.
fn able(joined: &node::Joined, reach: &Reach) -> Result<(), String> {
    if !reach.files.deny_paths.is_empty() {
        files::keeps_paths(joined.tier, &joined.limits)
            .map_err(|why| format!("it can't keep files from it: {why}"))?;
    }
    if reach.allow.is_some() || !reach.deny.is_empty() {
        networks::keeps_networks(&joined.limits)
            .map_err(|why| format!("it can't keep networks from it: {why}"))?;
    }
    Ok(())
}

/// Has the kernel wait for a session's connection.
fn expect(link: &Link, connection: u64, expected: Expected) -> Result<(), String> {
    let shared = &link.shared;
    let id = expected.session;
    let (rules, found) = looked_up(shared, &expected.reach)?;
    let changing = link.newest.leave(connection, shared.changing());
    let _changing = changing.ok_or("the log has connected anew since it asked for that")?;
    let policy = shared.sessions().new_policy();
    // Before it is remembered: each start would else try what can't be.
    shared.sensor().set_policy_of(policy, &rules, &found).map_err(|error| error.to_string())?;
    let forgotten = shared.sessions().expect(expected, policy);
    if let Err(error) = remember(shared) {
        shared.sessions().unexpect(id);
        let dropped = shared.sensor().drop_policy(policy).err().map(|error| format!("; {error}"));
        return Err(format!("{error}{}", dropped.unwrap_or_default()));
    }
    let tuple = shared.sessions().get(id).map(Session::tuple);
    let tuple = tuple.ok_or("it was forgotten")?;
    let watched = await_connection(shared, id, tuple, policy, &forgotten);
    if watched.is_err() {
        let mut sessions = shared.sessions();
        sessions.over(id);
        forget(shared, &sessions, id);
    }
    watched.map_err(|error| error.to_string())
}

/// From here on the kernel waits for it, and no longer knows what nobody needs any more.
fn await_connection(
    shared: &Shared,
    id: SessionId,
    tuple: Tuple,
    policy: u32,
    forgotten: &[u32],
) -> Result<(), SensorError> {
    let mut sensor = shared.sensor();
    sensor.expect(tuple, id.0.into_bytes(), policy)?;
    forgotten.iter().try_for_each(|policy| sensor.drop_policy(*policy))
}

/// Writes the sessions as they are now to the disk, while nobody waits for the lock on them or on the sensor. They are changed, and so
/// written, by one at a time ([`Shared::changing`]): no older state takes the place of a later one.
fn remember(shared: &Shared) -> Result<(), String> {
    let snapshot = shared.sessions().snapshot();
    let kept = snapshot.and_then(|snapshot| snapshot.keep());
    kept.map_err(|error| format!("it can't be remembered: {error}"))
}

/// What the kernel is to hold a session to, and what the paths of that lead to: looked up while nobody waits for a lock.
fn looked_up(shared: &Shared, reach: &Reach) -> Result<(PolicyRules, Found), String> {
    let rules = shared.sessions().rules(reach);
    let found = Found::of(&rules.files)?;
    Ok((rules, found))
}

/// Those that the log doesn't name are over, as far as this agent didn't know that.
fn only(link: &Link, connection: u64, live: &BTreeSet<SessionId>) {
    let shared = &link.shared;
    let Some(_changing) = link.newest.leave(connection, shared.changing()) else { return };
    let mut sessions = shared.sessions();
    for id in sessions.only(live) {
        forget(shared, &sessions, id);
    }
}

fn over(link: &Link, connection: u64, id: SessionId) {
    let shared = &link.shared;
    let Some(_changing) = link.newest.leave(connection, shared.changing()) else { return };
    let mut sessions = shared.sessions();
    sessions.over(id);
    forget(shared, &sessions, id);
}

/// Has the kernel no longer wait for a session's connection.
fn forget(shared: &Shared, sessions: &Sessions, id: SessionId) {
    let Some(session) = sessions.get(id) else { return };
    if let Err(error) = shared.sensor().forget(&session.tuple()) {
        tracing::error!(session = %id, "the session's connection is still waited for: {error}");
    }
}

/// Notes which sessions have ended, and gives those that live and of which no process is known though their connections have come
/// in. Where the kernel refuses root nothing, he takes the programs from it with all that they knew, and has the agent started anew: then
/// his session is held to nothing, and only its connection can be ended.
fn unwatched(link: &Link, connection: u64) -> BTreeSet<SessionId> {
    let shared = &link.shared;
    let Some(_changing) = link.newest.leave(connection, shared.changing()) else { return BTreeSet::new() };
    {
        // Before the kernel is asked, which had marked their processes before it told of them.
        let accepted = link.take_accepted();
        let mut sessions = shared.sessions();
        accepted.into_iter().for_each(|id| sessions.accepted(id));
        if sessions.have_ended() {
            return BTreeSet::new();
        }
    }
    let look = || -> Result<Vec<SessionId>, SensorError> {
        let running = running(&shared.sensor())?;
        Ok(shared.sessions().look(&running))
    };
    // Processes come and go while the kernel's table is read: what isn't found in it is looked for once more.
    let unwatched = look().and_then(|unwatched| if unwatched.is_empty() { Ok(unwatched) } else { look() });
    let unwatched = unwatched.unwrap_or_else(|error| {
        tracing::error!("which sessions have processes isn't known, so none is missed: {error}");
        Vec::new()
    });
    unwatched.into_iter().collect()
}

/// The word about those.
fn missing(sessions: impl IntoIterator<Item = SessionId>) -> Vec<Said> {
    let word = |session: SessionId| {
        tracing::error!(%session, "{UNWATCHED}");
        Said::Unheld { change: 0, reason: UNWATCHED.to_owned(), session }
    };
    sessions.into_iter().map(word).collect()
}

/// Holds a session to what it may reach now, and takes down what it has open elsewhere. One that can't be held to it may do nothing any
/// more. Nothing is done where the log has connected anew since: it has said what holds.
fn set_reach(
    link: &Link,
    connection: u64,
    id: SessionId,
    reach: Reach,
) -> Option<Result<Vec<TakenDown>, String>> {
    let looked_up = looked_up(&link.shared, &reach);
    let _changing = link.newest.leave(connection, link.shared.changing())?;
    Some(hold(&link.shared, id, reach, looked_up))
}

/// The same, while nobody else changes sessions.
fn hold(
    shared: &Shared,
    id: SessionId,
    reach: Reach,
    looked_up: Result<(PolicyRules, Found), String>,
) -> Result<Vec<TakenDown>, String> {
    let policy = shared.sessions().get(id).map(|session| session.policy);
    let policy = policy.ok_or("the agent doesn't know the session")?;
    let set = looked_up.and_then(|(rules, found)| {
        let set = shared.sensor().set_policy_of(policy, &rules, &found);
        set.map_err(|error| error.to_string())
    });
    if set.is_err() {
        shared.sensor().drop_policy(policy).map_err(|error| error.to_string())?;
    }
    // In any case: at the next start, too, it is held to this, or may do nothing.
    shared.sessions().reach(id, reach);
    remember(shared)?;
    set?;
    let taken = shared.sensor().take_down(policy);
    taken.map_err(|error| error.to_string())
}

/// Whether nothing of a session leads around what networks it may reach: a socket that it made before may.
fn followed(shared: &Shared, id: SessionId) -> Result<(), String> {
    let sessions = shared.sessions();
    let restricted = sessions.get(id).filter(|of| of.reach.allow.is_some() || !of.reach.deny.is_empty());
    let Some(session) = restricted else { return Ok(()) };
    if shared.sensor().unfollowed(session.policy).map_err(|error| error.to_string())? {
        return Err("it has made sockets before whose packets can't be kept from a network".to_owned());
    }
    Ok(())
}

/// Tells what was taken down; what couldn't be goes on, which the log must hear.
fn tell_taken(tell: &Sender<Telling>, taken: Vec<TakenDown>) -> Result<(), String> {
    let mut outcome = Ok(());
    for TakenDown { connection, ended } in taken {
        if let Err(why) = ended {
            outcome = Err(format!("a connection to a network that is denied now goes on: {why}"));
        } else if tell.send(Telling::TakenDown(Box::new(connection))).is_err() {
            tracing::error!("a connection was taken down, and nobody is there to tell it");
        }
    }
    outcome
}
