//! The log's keys are rotated, and whoever pinned the first one still knows the log.

use custody_tests::servers::World;
use custody_tests::servers::custodyd::Home;
use custody_tests::servers::world::{ADMIN_PASSWORD, OPERATOR_PASSWORD};
use serde_json::Value;

fn keys(world: &World) -> Vec<String> {
    let status: Value =
        serde_json::from_str(&world.admin.custody(&["log", "status", "--json"]).text()).unwrap();
    status["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect()
}

fn checkpoint_signatures(world: &World) -> usize {
    let checkpoint = world.admin.request("/v1/checkpoint", &[]).text();
    checkpoint.lines().filter(|line| line.starts_with('\u{2014}')).count()
}

fn verify(world: &World, key: &str) -> (i32, String) {
    let data = world.custodyd.data();
    let said = world.admin.try_custody(&["verify", data.to_str().unwrap(), "--key", key], b"");
    (said.code, format!("{}{}", said.text(), said.err))
}

#[test]
fn both_keys_sign_for_a_while_and_trust_goes_from_the_old_one_to_the_new_one() {
    let mut world = World::start();
    let old = keys(&world).pop().unwrap();
    let pinned = |world: &World| std::fs::read_to_string(world.admin.dir.join("profile.toml")).unwrap();
    assert!(pinned(&world).contains(&old));
    world.admin.custody(&["log", "add-key", "--reason", "yearly"]);
    let both = keys(&world);
    assert_eq!((both.len(), &both[0]), (2, &old));
    let new = both[1].clone();
    world.ssh(&[], "echo while both sign", b"").ok();
    custody_tests::wait::until_true("both keys sign", custody_tests::wait::DEADLINE, || {
        checkpoint_signatures(&world) == 2
    });

    // Killed in the middle of a rotation it goes on with both.
    world.custodyd.kill_now();
    world.custodyd.start();
    assert_eq!(keys(&world), both);
    world.ssh(&[], "echo after a crash", b"").ok();
    for key in &both {
        let (code, said) = verify(&world, key);
        assert_eq!(code, 0, "{said}");
    }

    // Whoever logs in while both sign is told of the new key and keeps the old one, however the server's URL is written.
    let login = |person: &Home, url: &str, password: &str, more: &[&str]| {
        let arguments = [&["login", "--password-stdin", "--api", url], more].concat();
        person.try_custody(&arguments, format!("{password}\n").as_bytes())
    };
    let url = world.custodyd.url();
    for url in [url.clone(), format!("{url}/")] {
        let said = login(&world.admin, &url, ADMIN_PASSWORD, &[]).ok();
        assert!(said.text().contains(&new) && said.text().contains("--log-key KEY"), "{}", said.text());
        assert!(pinned(&world).contains(&old) && !pinned(&world).contains(&new));
    }
    // He moves on by a key that he has from elsewhere, and that signs.
    let other = old.replacen("custody.test/log", "custody.other/log", 1);
    let refused = login(&world.admin, &url, ADMIN_PASSWORD, &["--log-key", &other]);
    assert!(refused.code != 0 && refused.err.contains("isn't signed by"), "{}", refused.err);
    assert!(pinned(&world).contains(&old));
    login(&world.admin, &url, ADMIN_PASSWORD, &["--log-key", &new]).ok();
    assert!(pinned(&world).contains(&new));
    world.admin.custody(&["log", "retire-key", &old, "--reason", "yearly"]);
    assert_eq!(keys(&world), std::slice::from_ref(&new));
    world.ssh(&[], "echo under the new key", b"").ok();
    custody_tests::wait::until_true("the new key signs alone", custody_tests::wait::DEADLINE, || {
        checkpoint_signatures(&world) == 1
    });
    world.custodyd.stop();
    for key in &both {
        let (code, said) = verify(&world, key);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("is what was signed"), "{said}");
    }
    // The private half of the old key may be destroyed, and the log goes on.
    std::fs::remove_file(world.custodyd.data().join("keys/log-signer.key")).unwrap();
    world.custodyd.start();
    world.ssh(&[], "echo without the old key", b"").ok();

    // By its URL too, for whoever may read the entries: they are what says so.
    let url = format!("{}/log", world.custodyd.url());
    for key in &both {
        let said = world.admin.custody(&["verify", &url, "--key", key]).text();
        assert!(
            said.contains("is what was signed") && said.contains(&format!("signed by    {new}")),
            "{said}"
        );
        assert_eq!(said.contains("took over from"), *key == old, "{said}");
    }
    let ca = world.admin.dir.join("ca.pem");
    let stranger = ["verify", &url, "--key", &old, "--ca", ca.to_str().unwrap()];
    let said = world.admin.try_custody(&stranger, b"");
    assert!(said.code != 0 && said.err.contains("may read them"), "{}", said.err);

    // Who missed the overlap is told, and how to go on; and so is who never pinned it.
    let late = world.operator.try_login(OPERATOR_PASSWORD);
    assert!(
        late.code != 0 && late.err.contains("rotated away") && late.err.contains("--log-key"),
        "{}",
        late.err
    );
    login(&world.operator, &world.custodyd.url(), OPERATOR_PASSWORD, &["--log-key", &new]).ok();
    assert_ne!(verify(&world, &other).0, 0);
    let told: Vec<_> = world.entries("type=log").into_iter().map(|e| e.kind().to_owned()).collect();
    assert!(
        told.iter().any(|kind| kind == "log.key-added") && told.iter().any(|kind| kind == "log.key-retired")
    );

    let by_operator = world.operator.try_custody(&["log", "add-key", "--reason", "mine"], b"");
    assert!(by_operator.code != 0 && by_operator.err.contains("access denied"), "{}", by_operator.err);
}
