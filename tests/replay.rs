//! The log is the only state: without projections the same answers come, byte for byte.

use custody_tests::servers::World;
use custody_tests::servers::custodyd::layout;

#[test]
fn without_projections_the_same_answers_come() {
    let mut world = World::start();
    world.ssh(&[], "echo first", b"").ok();
    world.admin.custody(&["lock", "--user", "bob", "--reason", "a moment"]);
    let middle = serde_json::from_str::<serde_json::Value>(&world.entries("").pop().unwrap().line).unwrap();
    let at = middle["appended"].as_str().unwrap().to_owned();
    let lock =
        world.entries("type=lock.created").pop().unwrap().event["data"]["name"].as_str().unwrap().to_owned();
    world.admin.custody(&["unlock", &lock]);
    world.ssh(&[], "echo second", b"").ok();
    let questions = [
        format!("/v1/state?at={at}"),
        format!("/v1/events?limit=1000&until={at}"),
        format!("/v1/events?limit=1000&text=echo&until={at}"),
        format!("/v1/events?limit=1000&type=decision&user=bob&until={at}"),
    ];
    let ask = |world: &World| -> Vec<String> {
        questions
            .iter()
            .map(|q| {
                let answer = world.admin.request(q, &["-H", "Accept: application/x-ndjson"]);
                assert_eq!(answer.status, 200, "{q}: {}", answer.text());
                answer.text()
            })
            .collect()
    };
    let before = ask(&world);
    assert!(before[0].contains(&lock) && !before[2].is_empty());
    assert!(!world.admin.request("/v1/state", &[]).text().contains(&lock), "the lock is lifted by now");
    for round in 0..2 {
        world.custodyd.stop();
        let projections = world.custodyd.data().join(layout::PROJECTIONS);
        assert!(projections.is_dir(), "{} isn't there", projections.display());
        if round == 0 {
            std::fs::remove_dir_all(&projections).unwrap();
        } else {
            // Rubbish in it is thrown away too, not believed.
            for entry in std::fs::read_dir(&projections).unwrap().flatten().filter(|e| e.path().is_file()) {
                std::fs::write(entry.path(), b"rubbish").unwrap();
            }
        }
        world.custodyd.start();
        let after = ask(&world);
        for ((question, before), after) in questions.iter().zip(&before).zip(&after) {
            assert_eq!(before, after, "{question}, round {round}");
        }
    }
}
