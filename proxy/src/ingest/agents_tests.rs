use super::*;
use custody_core::event::Actor;

const AT: fn(u64) -> Duration = Duration::from_secs;

fn expected(session: SessionId) -> Expected {
    Expected {
        actor: Actor::system("test"),
        from: "192.0.2.1:40000".parse().unwrap(),
        login: "root".into(),
        reach: Reach::default(),
        session,
        to: "192.0.2.2:22".parse().unwrap(),
    }
}

/// An agent that can watch, and has heard which sessions live.
async fn there(agents: &Arc<Agents>, node: &str) -> Linked {
    let mut linked = agents.connected(node, AT(0));
    linked.told.recv().await.unwrap();
    linked.ready(None);
    linked.taken();
    linked
}

/// A session whose connection that agent waits for.
async fn awaited(agents: &Arc<Agents>, linked: &mut Linked) -> (SessionId, Expecting) {
    let session = SessionId::new();
    let asking = tokio::spawn({
        let (agents, node) = (Arc::clone(agents), linked.node().to_owned());
        async move { agents.expect(&node, expected(session)).await }
    });
    assert!(matches!(linked.told.recv().await, Some(Told::Expect(_))));
    linked.expecting(session);
    (session, asking.await.unwrap().unwrap())
}

#[tokio::test]
async fn nothing_is_opened_before_the_agent_waits_nor_used_before_it_has_seen() {
    let agents = Arc::new(Agents::default());
    let session = SessionId::new();
    let none = agents.expect("web-1", expected(session)).await;
    assert_eq!(none.err(), Some(Unwatched::NotThere("web-1".into())));
    let mut linked = agents.connected("web-1", AT(0));
    assert_eq!(linked.told.try_recv(), Ok(Told::Live { sessions: [].into() }));
    let other = agents.connected("web-2", AT(0));
    let asking = tokio::spawn({
        let agents = Arc::clone(&agents);
        async move { agents.expect("web-1", expected(session)).await }
    });
    tokio::task::yield_now().await;
    assert!(linked.told.try_recv().is_err(), "one that has just come isn't asked before it can watch");
    linked.ready(None);
    tokio::task::yield_now().await;
    assert!(linked.told.try_recv().is_err(), "nor before something of it has arrived");
    linked.taken();
    assert!(matches!(linked.told.recv().await, Some(Told::Expect(_))));
    other.expecting(session);
    assert!(!asking.is_finished(), "another node's word counts for nothing");
    linked.expecting(session);
    let expecting = asking.await.unwrap().unwrap();
    let seeing = tokio::spawn(expecting.seen());
    other.seen(session);
    tokio::task::yield_now().await;
    assert!(!seeing.is_finished());
    linked.seen(session);
    let seen = seeing.await.unwrap().unwrap();
    drop(seen);
    assert_eq!(linked.told.recv().await, Some(Told::Over { session }));
}

#[tokio::test]
async fn an_agent_that_refuses_or_cannot_is_no_agent() {
    let agents = Arc::new(Agents::default());
    let mut linked = there(&agents, "web-1").await;
    let session = SessionId::new();
    let asking = tokio::spawn({
        let agents = Arc::clone(&agents);
        async move { agents.expect("web-1", expected(session)).await }
    });
    assert!(matches!(linked.told.recv().await, Some(Told::Expect(_))));
    linked.refused(session, "no room".into());
    let refused = asking.await.unwrap().err();
    assert_eq!(refused, Some(Unwatched::Refused { node: "web-1".into(), reason: "no room".into() }));
    linked.ready(Some("the spool is full".into()));
    assert!(agents.expect("web-1", expected(session)).await.is_err());
}

/// That it can't watch is said at once, and that it can is believed when something of it has arrived.
#[tokio::test]
async fn what_an_agent_says_of_itself_counts_as_far_as_its_evidence_arrives() {
    let agents = Arc::new(Agents::default());
    let linked = agents.connected("web-1", AT(0));
    linked.ready(Some("the spool is full".into()));
    let reason = "the spool is full".to_owned();
    let unwatched = agents.expect("web-1", expected(SessionId::new())).await.err();
    assert_eq!(unwatched, Some(Unwatched::Refused { node: "web-1".into(), reason }));
    linked.ready(None);
    let untaken = || agents.with(|inner| inner.is_taken_from("web-1"));
    assert_eq!(untaken(), Err(Unwatched::Untaken("web-1".into())));
    let readiness = || agents.with(|inner| inner.links["web-1"].readiness.borrow().clone());
    assert_eq!(readiness(), Readiness::Coming);
    linked.taken();
    assert_eq!((untaken(), readiness()), (Ok(()), Readiness::Ready));
}

/// What an agent is told of what a session may reach.
fn told_reach(linked: &mut Linked) -> Option<(u64, Reach)> {
    match linked.told.try_recv() {
        Ok(Told::Reach { change, reach, .. }) => Some((change, reach)),
        Ok(Told::Live { .. }) => told_reach(linked),
        _ => None,
    }
}

#[tokio::test]
async fn what_a_session_may_reach_is_told_until_its_agent_holds_it_to_that() {
    let agents = Arc::new(Agents::default());
    let mut linked = there(&agents, "web-1").await;
    let (session, _expecting) = awaited(&agents, &mut linked).await;
    let other = || Reach { ends_session: true, ..Reach::default() };
    let look = |now, reach: Reach| agents.reach_changed(now, |_| Some(reach.clone()));
    assert!(look(AT(100), Reach::default()).is_empty());
    assert_eq!(told_reach(&mut linked), None, "it is as the agent heard it with the session");
    assert!(look(AT(101), other()).is_empty());
    assert_eq!(told_reach(&mut linked), Some((1, other())));
    // The connection ends before the agent has said that it holds: the next one hears it again, once.
    linked.ended(AT(102));
    let mut linked = agents.connected("web-1", AT(103));
    assert_eq!(linked.told.try_recv(), Ok(Told::Live { sessions: [session].into() }));
    assert!(look(AT(103), other()).is_empty());
    assert_eq!((told_reach(&mut linked), told_reach(&mut linked)), (Some((1, other())), None));
    linked.held(session, 0);
    agents.connected("web-2", AT(103)).held(session, 1);
    assert_eq!(look(AT(112), other()), [(session, "web-1".to_owned())], "nobody has said that it holds");
    linked.held(session, 1);
    assert!(look(AT(113), other()).is_empty());
    assert!(look(AT(200), Reach::default()).is_empty(), "a new change has its own time");
    assert_eq!(look(AT(211), Reach::default()), [(session, "web-1".to_owned())]);
}

#[tokio::test]
async fn a_session_that_its_agent_cannot_hold_ends_or_does_not_begin_watched() {
    let agents = Arc::new(Agents::default());
    let mut linked = there(&agents, "web-1").await;
    let other = there(&agents, "web-2").await;
    let (session, expecting) = awaited(&agents, &mut linked).await;
    assert!(!other.unheld(session, "not mine"), "another node's word counts for nothing");
    assert!(!linked.unheld(session, "no process of it"), "it hasn't begun");
    let unseen = expecting.seen().await.err();
    let reason = "no process of it".to_owned();
    assert_eq!(unseen, Some(Unwatched::Refused { node: "web-1".into(), reason }));
    assert!(!linked.unheld(session, "no process of it"), "it isn't waited for any more");
    assert_eq!(linked.told.recv().await, Some(Told::Over { session }));
    let (session, expecting) = awaited(&agents, &mut linked).await;
    linked.seen(session);
    let _seen = expecting.seen().await.unwrap();
    assert!(!other.unheld(session, "not mine") && linked.unheld(session, "no process of it"));
}

#[test]
fn an_agent_that_is_gone_is_lost_after_a_while_unless_something_of_it_is_taken() {
    let agents = Arc::new(Agents::default());
    let first = agents.connected("web-1", AT(0));
    first.taken();
    let second = agents.connected("web-1", AT(1));
    first.ended(AT(1));
    assert!(agents.is_there("web-1"), "the later connection counts");
    second.taken();
    assert!(agents.lost(AT(9)).is_empty());
    second.ended(AT(2));
    assert!(!agents.is_there("web-1"));
    assert!(agents.lost(AT(1)).is_empty());
    assert_eq!(agents.lost(AT(2)), ["web-1"]);
    // A short break.
    let back = agents.connected("web-1", AT(5));
    assert_eq!(agents.lost(AT(2)), ["web-1"], "to come back isn't enough");
    back.taken();
    assert!(agents.lost(AT(9)).is_empty());
    // A long one.
    back.ended(AT(10));
    agents.told_lost("web-1");
    assert!(agents.lost(AT(19)).is_empty(), "that is told once");
    let back = agents.connected("web-1", AT(20));
    assert!(agents.lost(AT(29)).is_empty());
    back.taken();
    back.ended(AT(30));
    assert!(agents.lost(AT(29)).is_empty());
    assert_eq!(agents.lost(AT(30)), ["web-1"]);
}

/// What it said of its coming stands before the word of its loss in the log.
#[tokio::test]
async fn an_agent_that_came_back_while_its_loss_was_written_has_to_come_anew() {
    let agents = Arc::new(Agents::default());
    let mut linked = there(&agents, "web-1").await;
    assert!(agents.is_there("web-1"));
    agents.told_lost("web-1");
    assert!(!agents.is_there("web-1"));
    assert_eq!(linked.told.recv().await, None, "its connection is let go");
    linked.ended(AT(9));
    assert!(agents.lost(AT(99)).is_empty(), "that is told already");
    let back = agents.connected("web-1", AT(100));
    back.taken();
    back.ended(AT(200));
    assert_eq!(agents.lost(AT(200)), ["web-1"]);
}

/// A network that loses long packets lets through what connecting takes.
#[tokio::test]
async fn an_agent_that_comes_again_and_again_and_of_which_nothing_arrives_is_lost() {
    let agents = Arc::new(Agents::default());
    let mut linked = there(&agents, "web-1").await;
    let (session, expecting) = awaited(&agents, &mut linked).await;
    linked.seen(session);
    let _seen = expecting.seen().await.unwrap();
    linked.ended(AT(10));
    for second in 11..15 {
        let linked = agents.connected("web-1", AT(second));
        linked.ready(None);
        linked.ended(AT(second));
    }
    assert!(agents.lost(AT(9)).is_empty());
    assert_eq!(agents.lost(AT(10)), ["web-1"], "since the last of which something was taken");
    assert!(agents.watches(session), "it has a while to come back");
    agents.told_lost("web-1");
    assert!(!agents.watches(session));
    let back = agents.connected("web-1", AT(20));
    assert!(!agents.watches(session));
    back.taken();
    assert!(agents.watches(session));
    // Each connection takes the place of the one before, which nobody has seen end.
    let _connections = [30, 32, 34].map(|second| agents.connected("web-2", AT(second)));
    assert!(agents.lost(AT(29)).is_empty());
    assert_eq!(agents.lost(AT(30)), ["web-2"]);
}

#[tokio::test]
async fn an_agent_of_which_nothing_is_taken_is_lost_however_often_it_comes_until_something_is() {
    let agents = Arc::new(Agents::default());
    let refusal = Refusal { boot: None, reason: "a batch is signed by another key".into() };
    for (second, is_news) in [(1, true), (3, false), (5, false)] {
        let linked = agents.connected("web-1", AT(second));
        linked.ready(None);
        assert_eq!(linked.ended_refused(AT(second), &refusal), is_news);
    }
    assert!(agents.lost(AT(0)).is_empty());
    let linked = agents.connected("web-1", AT(6));
    linked.ready(None);
    assert_eq!(agents.lost(AT(1)), ["web-1"], "since the first refusal, and though it is connected");
    let session = SessionId::new();
    let reason = format!("the log takes nothing from it: {refusal}");
    let unwatched = agents.expect("web-1", expected(session)).await.err();
    assert_eq!(unwatched, Some(Unwatched::Refused { node: "web-1".into(), reason }));
    assert!(!agents.watches(session));
    agents.told_lost("web-1");
    assert!(!linked.ended_refused(AT(20), &refusal));
    assert!(agents.lost(AT(20)).is_empty(), "that is told once");
    let linked = agents.connected("web-1", AT(21));
    linked.taken();
    assert_eq!(agents.refusal("web-1"), None);
    linked.ended(AT(30));
    assert!(agents.lost(AT(29)).is_empty());
    assert_eq!(agents.lost(AT(30)), ["web-1"], "from then on it is as any other");
}

#[test]
fn a_refusal_over_a_connection_that_another_has_replaced_stands_for_nothing() {
    let agents = Arc::new(Agents::default());
    let refusal = Refusal { boot: None, reason: "other bytes".into() };
    let first = agents.connected("web-1", AT(0));
    let _second = agents.connected("web-1", AT(0));
    assert!(first.ended_refused(AT(1), &refusal), "it is told all the same");
    assert_eq!(agents.refusal("web-1"), None);
    assert!(agents.is_there("web-1"));
}
