//! Witnesses: ours with our log, Torchwood's with our log, ours with Tessera's log; copies that were put back, a log that
//! its own key has rewritten, silence, and a witness that is killed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custody_core::log::cosignature::Cosigned;
use custody_core::log::embedded::import::Import;
use custody_core::log::note::{Ed25519Signer, NoteError};
use custody_core::log::tree::{Tiles, Tree, leaf_hash};
use custody_core::log::{Checkpoint, CosignerKey, Signer, VerifierKey, verify};
use custody_proxy::ca::store::{FileKeyStore, KeyStore as _};
use custody_tests::process::run;
use custody_tests::servers::custodyd::{Custodyd, Home, READER_TOKEN, layout};
use custody_tests::servers::golang;
use custody_tests::servers::sshd::path;
use custody_tests::servers::witness::{Litewitness, Witness};
use custody_tests::servers::world::ADMIN_PASSWORD;
use custody_tests::{program, wait};
use custody_witness::client::{Answer, Witness as Client};
use custody_witness::serve::token_hash;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

const ORIGIN: &str = "custody.test/log";

/// A log that runs, and its administrator.
struct Place {
    custodyd: Custodyd,
    admin: Home,
    key: String,
    // Last: the folder goes when the processes are gone.
    dir: TempDir,
}

impl Place {
    fn start() -> Place {
        let dir = tempfile::Builder::new().prefix("cw-").tempdir().expect("a temporary folder");
        let mut custodyd = Custodyd::init(&dir.path().join("custodyd"), "alice", ADMIN_PASSWORD);
        std::fs::write(dir.path().join("token"), READER_TOKEN).unwrap();
        custodyd.start();
        let admin = Home::new(&custodyd, &dir.path().join("alice"), "alice");
        admin.login(ADMIN_PASSWORD);
        let created = admin.entries("type=log.created").remove(0);
        let key = created.event["data"]["verifier_key"].as_str().unwrap().to_owned();
        Place { custodyd, admin, key, dir }
    }

    /// A witness of ours that knows this log.
    fn witness(&self, top: &str, copy: bool, more: &str) -> Witness {
        let top = format!("reader_token_sha256 = \"{}\"\n{top}", token_hash(READER_TOKEN));
        let logs = format!(
            "[[log]]\nkey = \"{}\"\nurl = \"http://127.0.0.1:{}/log\"\ntoken_file = \"{}\"\ncopy = {copy}\n{more}\n",
            self.key,
            self.custodyd.log_port,
            path(&self.token()),
        );
        Witness::init(&self.dir.path().join("witness"), &top, &logs)
    }

    fn token(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    /// The same configuration with these lines at its end from the next start on.
    fn configure(&self, lines: &str) -> String {
        let before = std::fs::read_to_string(self.custodyd.config()).unwrap();
        std::fs::write(self.custodyd.config(), format!("{before}\n{lines}\n")).unwrap();
        before
    }

    fn restart_with(&mut self, lines: &str) {
        self.configure(lines);
        self.custodyd.stop();
        self.custodyd.start();
    }

    /// Something happens, and is signed.
    fn role(&self, name: &str) {
        let answer = self.admin.post("create-role", &json!({"name": name, "description": "made by a test"}));
        let index = answer.json()["index"].as_u64().unwrap_or_else(|| panic!("{}", answer.text()));
        wait::until_true("it is signed", wait::DEADLINE, || self.signed().size() > index);
    }

    /// `custodyd run` that doesn't start: what it says.
    fn refused(&self) -> String {
        let mut command = Command::new(program("custodyd"));
        command.arg("run").arg("--config").arg(self.custodyd.config());
        let said = run(&mut command, b"", wait::DEADLINE);
        assert_ne!(said.code, 0, "it started: {}", said.err);
        said.err
    }

    fn log(&self) -> PathBuf {
        self.custodyd.data().join("log")
    }

    /// The newest cosignature of the witness with this key that the log has kept.
    fn kept(&self, key: &CosignerKey) -> Option<(Checkpoint, Cosigned)> {
        let note = std::fs::read_to_string(self.log().join("cosigned")).ok()?;
        let checkpoint = Checkpoint::verify(&note, &VerifierKey::parse(&self.key).unwrap()).ok()?;
        let cosigned = key.verify(checkpoint.note()).ok()?;
        Some((checkpoint, cosigned))
    }

    /// Waits until the witness has cosigned all that was signed when this was called.
    fn wait_until_cosigned(&self, witness: &Witness) -> u64 {
        let size = self.signed().size();
        wait::until("the witness has cosigned all", wait::DEADLINE, || {
            witness.status()["cosigned"].as_u64().filter(|cosigned| *cosigned >= size)
        })
    }

    /// `custody log recover --from-witness`
    fn recover(&self, witness: &Witness, witness_key: &str) -> Command {
        let mut command = Command::new(program("custody"));
        command.args(["log", "recover", "--from-witness", &witness.url(), "--key", &self.key]);
        command.args(["--witness", witness_key, "--data", path(&self.custodyd.data())]);
        command.args(["--token-file", path(&self.token())]);
        command
    }

    fn signed(&self) -> Checkpoint {
        let note = std::fs::read_to_string(self.log().join("checkpoint")).unwrap();
        Checkpoint::verify(&note, &VerifierKey::parse(&self.key).unwrap()).unwrap()
    }
}

fn copy_directory(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to), b"", wait::DEADLINE).ok();
}

fn put_in_place(copy: &Path, place: &Path) {
    std::fs::remove_dir_all(place).unwrap();
    copy_directory(copy, place);
}

/// The log's own key, as whoever has broken into its machine has it.
struct RealKey {
    store: FileKeyStore,
    key: VerifierKey,
}

impl Signer for RealKey {
    fn verifier_key(&self) -> VerifierKey {
        self.key.clone()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], NoteError> {
        Ok(self.store.sign("log-signer", message).unwrap().try_into().unwrap())
    }
}

#[test]
fn our_witness_copies_our_log_and_cosigns_it() {
    let mut place = Place::start();
    let mut witness = place.witness("", true, "");
    witness.start();
    place.restart_with(&witness.as_configured());
    let key = CosignerKey::parse(&witness.key).unwrap();
    place.role("first");
    place.wait_until_cosigned(&witness);
    let told =
        wait::until("the log says so", wait::DEADLINE, || place.admin.entries("type=log.cosigned").pop());
    let data = &told.event["data"];
    assert_eq!(data["witness"], witness.key.as_str());
    // Whoever has the event and the log's own checkpoint of that size can check the signature.
    let note = format!(
        "{ORIGIN}\n{}\n{}\n\n{}\n",
        data["size"],
        data["root"].as_str().unwrap(),
        data["line"].as_str().unwrap()
    );
    let cosigned = key.verify(&custody_core::log::note::Note::parse(&note).unwrap()).unwrap();
    assert_eq!(data["at"], cosigned.at().to_string());
    // The checkpoint that is served to everybody carries the cosignature, and so does the witness's own.
    let served = wait::until("what is served is cosigned", wait::DEADLINE, || {
        let note = curl(&format!("http://127.0.0.1:{}/log/checkpoint", place.custodyd.log_port));
        let checkpoint = Checkpoint::verify(&note, &VerifierKey::parse(&place.key).unwrap()).ok()?;
        key.verify(checkpoint.note()).ok().map(|_| checkpoint)
    });
    assert!(served.size() > 0);
    let status = witness.status();
    assert_eq!((&status["alarms"], &status["origin"]), (&Value::Array(vec![]), &ORIGIN.into()));
    let copy = format!("{}/{}", witness.url(), status["path"].as_str().unwrap());
    let note = curl(&format!("{copy}/checkpoint"));
    let checkpoint = Checkpoint::verify(&note, &VerifierKey::parse(&place.key).unwrap()).unwrap();
    assert!(key.verify(checkpoint.note()).is_ok());
    // Its copy is a log directory like any other.
    witness.stop();
    let directory = witness.data().join("logs").join(status["path"].as_str().unwrap()).join("log");
    let known = [checkpoint];
    let key = VerifierKey::parse(&place.key).unwrap();
    let verified = verify::directory(&directory, &key, &known, &mut |_, _| {}, &mut |_| {}).unwrap();
    assert!(verified.signed >= known[0].size());
}

/// Twenty seconds: two heartbeats have to pass to show that nothing else does.
#[test]
fn an_idle_log_stays_still_and_its_witness_hears_of_it() {
    let mut place = Place::start();
    let mut witness = place.witness("", false, "");
    witness.start();
    place.restart_with(&witness.as_configured());
    let metric = |witness: &Witness, name: &str| -> u64 {
        let text = curl(&format!("{}/metrics", witness.url()));
        let line = text.lines().find(|line| line.starts_with(&format!("custody_witness_{name}{{"))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    // What the start and its cosignature say; the last of them comes ten seconds after the one before at most.
    let mut still = (0, 0);
    wait::until_true("two heartbeats and nothing new", Duration::from_secs(90), || {
        let (size, count) = (metric(&witness, "cosigned_entries"), metric(&witness, "cosignatures_total"));
        if size != still.0 {
            still = (size, count);
        }
        count >= still.1 + 3
    });
    assert_eq!(place.signed().size(), still.0);
    let told = place.admin.entries("type=log.cosigned").len();
    assert!((1..=3).contains(&told), "{told} log.cosigned");
    assert_eq!(witness.status()["alarms"], Value::Array(vec![]));
}

/// Both directions over TLS, each with the authority that it is told.
#[test]
fn our_witness_and_our_log_meet_over_tls() {
    let mut place = Place::start();
    let (certificate, key) = (place.dir.path().join("w.pem"), place.dir.path().join("w.key"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]);
    openssl.args(["-subj", "/CN=witness", "-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl.arg("-out").arg(&certificate).arg("-keyout").arg(&key);
    run(&mut openssl, b"", wait::DEADLINE).ok();
    let top = format!("tls_certificate = \"{}\"\ntls_key = \"{}\"\n", path(&certificate), path(&key));
    let logs = format!(
        "[[log]]\nkey = \"{}\"\nurl = \"{}/log\"\nca = \"{}\"\ntoken_file = \"{}\"\ncopy = true\n",
        place.key,
        place.custodyd.url(),
        path(&place.custodyd.data().join(layout::SERVER_CA)),
        path(&place.token()),
    );
    let mut witness = Witness::init(&place.dir.path().join("witness"), &top, &logs);
    witness.start();
    let url = witness.url().replace("http://", "https://");
    place.restart_with(&format!(
        "[[witness]]\nkey = \"{}\"\nurl = \"{url}\"\nca = \"{}\"\n",
        witness.key,
        path(&certificate)
    ));
    place.role("first");
    let size = place.signed().size();
    let key = CosignerKey::parse(&witness.key).unwrap();
    wait::until_true("it is cosigned", wait::DEADLINE, || {
        place.kept(&key).is_some_and(|(checkpoint, _)| checkpoint.size() >= size)
    });
    // Entries and their times are for readers alone.
    for part in ["tile/entries/000.p/1", "appended/000.p/1"] {
        let url = format!("http://127.0.0.1:{}/log/{part}", place.custodyd.log_port);
        let status = |arguments: &[&str]| {
            let mut command = Command::new("curl");
            command
                .args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", &url])
                .args(arguments);
            run(&mut command, b"", wait::DEADLINE).ok().text()
        };
        assert_eq!(status(&[]), "401", "{part}");
        assert_eq!(status(&["-H", &format!("Authorization: Bearer {READER_TOKEN}")]), "200", "{part}");
    }
}

#[test]
fn torchwoods_litewitness_cosigns_our_log() {
    let mut place = Place::start();
    let lite = Litewitness::start(&place.dir.path().join("lite"), ORIGIN, &place.key);
    let configured = format!("[[witness]]\nkey = \"{}\"\nurl = \"{}\"\n", lite.key, lite.url);
    place.restart_with(&configured);
    place.role("first");
    let size = place.signed().size();
    let (checkpoint, _) = wait::until("it is cosigned", wait::DEADLINE, || {
        place.kept(&lite.key).filter(|(checkpoint, _)| checkpoint.size() >= size)
    });
    // A start asks it first, and finds the same history.
    place.custodyd.stop();
    place.custodyd.start();
    place.role("second");
    wait::until_true("it goes on", wait::DEADLINE, || {
        place.kept(&lite.key).is_some_and(|(later, _)| later.size() > checkpoint.size())
    });
}

#[test]
fn our_witness_cosigns_tesseras_log() {
    let dir = TempDir::new().unwrap();
    let seed = [5; 32];
    let log = Ed25519Signer::from_seed("tessera.test/log", &seed).unwrap();
    let key = log.verifier_key();
    let logs = format!("[[log]]\nkey = \"{key}\"\nsilence_seconds = 600\n");
    let mut witness = Witness::init(&dir.path().join("witness"), "", &logs);
    witness.start();
    // Go's form of a private key: its name, its id, and the algorithm with the seed.
    let mut private = vec![1];
    private.extend_from_slice(&seed);
    let private = format!("PRIVATE+KEY+tessera.test/log+{:08x}+{}", key.id(), STANDARD.encode(&private));
    std::fs::write(dir.path().join("private"), private).unwrap();
    let policy = format!("witness ours {} {}\nquorum ours\n", witness.key, witness.url());
    std::fs::write(dir.path().join("policy"), policy).unwrap();
    let mut cosigned = 0;
    for round in 1..=3 {
        let entries = dir.path().join(format!("entries-{round}"));
        std::fs::create_dir(&entries).unwrap();
        for n in 0..round * 100 {
            std::fs::write(entries.join(format!("{n}")), format!("entry {n} of round {round}")).unwrap();
        }
        let mut command = golang::tool("posix-oneshot");
        command.arg(format!("--storage_dir={}", path(&dir.path().join("tessera"))));
        command.arg(format!("--entries={}/*", path(&entries)));
        command.arg(format!("--private_key={}", path(&dir.path().join("private"))));
        command.arg(format!("--witness_policy_file={}", path(&dir.path().join("policy"))));
        run(&mut command, b"", Duration::from_secs(60)).ok();
        let note = std::fs::read_to_string(dir.path().join("tessera/checkpoint")).unwrap();
        let checkpoint = Checkpoint::verify(&note, &key).unwrap();
        CosignerKey::parse(&witness.key).unwrap().verify(checkpoint.note()).unwrap();
        assert!(checkpoint.size() > cosigned, "{note}");
        cosigned = checkpoint.size();
    }
    assert_eq!(cosigned, 600);
    assert_eq!(witness.status()["cosigned"], 600);
}

#[test]
fn a_copy_that_is_put_back_is_refused_and_completed_from_the_witness() {
    let mut place = Place::start();
    let mut witness = place.witness("", true, "");
    witness.start();
    place.restart_with(&witness.as_configured());
    place.custodyd.stop();
    let copy = place.dir.path().join("copy");
    copy_directory(&place.log(), &copy);
    place.custodyd.start();
    place.role("after-the-copy");
    place.wait_until_cosigned(&witness);
    place.custodyd.stop();
    let whole = place.signed();
    put_in_place(&copy, &place.log());
    let before = place.signed();

    let said = place.refused();
    let says = format!("the witness witness.test has cosigned {}", witness.status()["cosigned"]);
    assert!(said.contains(&says) && said.contains("custody log recover --from-witness"), "{said}");
    assert_eq!(place.signed(), before, "nothing was changed");

    let stranger = "witness.example+a50367b6+BP0XJDhaoMdbZPt4zWAvodmR/ev3axPFjtcC6sg16fYY";
    let refused = run(&mut place.recover(&witness, stranger), b"", wait::DEADLINE);
    assert!(refused.code != 0 && refused.err.contains("isn't cosigned by it"), "{}", refused.err);
    let said = run(&mut place.recover(&witness, &witness.key), b"", wait::DEADLINE).ok().text();
    assert!(said.contains("were brought back"), "{said}");
    let again = run(&mut place.recover(&witness, &witness.key), b"", wait::DEADLINE).ok().text();
    assert!(again.contains("Nothing is missing"), "{again}");
    place.custodyd.start();
    assert!(place.signed().size() >= witness.status()["cosigned"].as_u64().unwrap());
    assert!(place.signed().size() >= before.size() && whole.size() > before.size());
    let roles: Vec<_> = place.admin.entries("type=role.created").into_iter().collect();
    assert!(roles.iter().any(|entry| entry.event["data"]["name"] == "after-the-copy"), "{roles:?}");
    let recovered = place.admin.entries("type=log.recovered").pop().expect("the log says so");
    assert_eq!(recovered.event["data"]["from"], "witness");
    place.role("goes-on");
    place.wait_until_cosigned(&witness);
    assert_eq!(witness.status()["alarms"], Value::Array(vec![]));
}

#[test]
fn an_old_copy_that_goes_on_without_its_witness_is_noticed() {
    let mut place = Place::start();
    let mut witness = place.witness("", true, "");
    witness.start();
    let without = place.configure(&witness.as_configured());
    place.custodyd.stop();
    let copy = place.dir.path().join("copy");
    copy_directory(&place.log(), &copy);
    let forked_at = place.signed().size();
    place.custodyd.start();
    place.role("one-history");
    place.wait_until_cosigned(&witness);
    place.custodyd.stop();
    put_in_place(&copy, &place.log());
    // Whoever wants to hide it doesn't ask the witness.
    std::fs::write(place.custodyd.config(), without).unwrap();
    place.custodyd.start();
    place.role("another-history");
    let alarm = witness.alarm("rewrite");
    assert_eq!(alarm["index"], forked_at, "{alarm}");
    assert!(witness.output().contains("ALARM"));
    let evidence = alarm["evidence"].as_array().unwrap();
    assert_eq!(evidence.len(), 2, "both checkpoints are kept: {alarm}");
    let kept = witness.data().join("logs").join(witness.status()["path"].as_str().unwrap()).join("evidence");
    for name in evidence {
        let note = std::fs::read_to_string(kept.join(name.as_str().unwrap())).unwrap();
        Checkpoint::verify(&note, &VerifierKey::parse(&place.key).unwrap()).unwrap();
    }
    // And with the witness it doesn't start at all any more.
    place.custodyd.stop();
    place.configure(&witness.as_configured());
    let said = place.refused();
    assert!(said.contains("has forked") || said.contains("has cosigned"), "{said}");
    // What it was is brought back into an empty directory; what it became can't be completed with it.
    let refused = run(&mut place.recover(&witness, &witness.key), b"", wait::DEADLINE);
    assert!(
        refused.code != 0 && refused.err.contains(&format!("entry {forked_at} is the first that differs")),
        "{}",
        refused.err
    );
    std::fs::rename(place.log(), place.dir.path().join("evidence")).unwrap();
    run(&mut place.recover(&witness, &witness.key), b"", wait::DEADLINE).ok();
    place.custodyd.start();
    let roles: Vec<String> = place
        .admin
        .entries("type=role.created")
        .iter()
        .map(|entry| entry.event["data"]["name"].to_string())
        .collect();
    assert!(
        roles.contains(&"\"one-history\"".to_owned()) && !roles.contains(&"\"another-history\"".to_owned()),
        "{roles:?}"
    );
}

/// Whoever has the machine and its key can sign what he likes. The witness remembers what it was.
#[test]
fn what_the_real_key_has_rewritten_is_named_within_a_minute() {
    for (what, from) in [("a tampered event", 9_u64), ("a removed one", 9), ("a rewritten tail", 20)] {
        let mut place = Place::start();
        let mut witness = place.witness("", true, "");
        witness.start();
        let without = place.configure(&witness.as_configured());
        place.custodyd.stop();
        place.custodyd.start();
        place.role("somebody-was-here");
        place.wait_until_cosigned(&witness);
        place.custodyd.stop();
        let key = VerifierKey::parse(&place.key).unwrap();
        let real = RealKey {
            store: FileKeyStore::open(&place.custodyd.data().join("keys")).unwrap(),
            key: key.clone(),
        };
        let rewritten = place.dir.path().join("rewritten");
        let mut import = Import::begin(&rewritten, &key, &mut |_, _, _| {}).unwrap();
        let mut entries = Vec::new();
        verify::directory(&place.log(), &key, &[], &mut |_, _| {}, &mut |entry| entries.push(entry.clone()))
            .unwrap();
        for entry in &entries {
            if what == "a removed one" && entry.index == from {
                continue;
            }
            let is_changed = entry.index == from || (what == "a rewritten tail" && entry.index > from);
            let mut text = String::from_utf8(entry.bytes.to_vec()).unwrap();
            if is_changed {
                // Another time of the same length: the form is right, the statement is not.
                let at = text.find("\"time\":\"").unwrap() + 8;
                text.replace_range(at..at + 4, "2025");
            }
            import.push(entry.appended, text.as_bytes()).unwrap();
        }
        import.seal(&Checkpoint::sign(import.size(), import.root(), &real).unwrap()).unwrap();
        drop(import);
        put_in_place(&rewritten, &place.log());
        // Asked, the witness doesn't know this history.
        let said = place.refused();
        assert!(said.contains("has forked") || said.contains("has cosigned"), "{what}: {said}");
        std::fs::write(place.custodyd.config(), without).unwrap();
        place.custodyd.start();
        let alarm = witness.alarm("rewrite");
        assert_eq!(alarm["index"], from, "{what}: {alarm}");
    }
}

#[test]
fn silence_is_an_alarm_that_a_webhook_hears() {
    let hook = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", hook.local_addr().unwrap());
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let hears = heard.clone();
    std::thread::spawn(move || {
        // The first is turned away: it is told again.
        for (count, stream) in hook.incoming().flatten().enumerate() {
            let mut stream = stream;
            let mut bytes = Vec::new();
            let mut piece = [0; 4_096];
            while !String::from_utf8_lossy(&bytes).contains("}") {
                match stream.read(&mut piece) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => bytes.extend_from_slice(&piece[..read]),
                }
            }
            let status = if count == 0 { "503 Later" } else { "204 Heard" };
            hears.lock().unwrap().push(String::from_utf8_lossy(&bytes).into_owned());
            drop(stream.write_all(
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes(),
            ));
        }
    });
    let mut place = Place::start();
    let mut witness = place.witness(&format!("webhook = \"{url}\""), false, "silence_seconds = 14");
    witness.start();
    place.restart_with(&witness.as_configured());
    place.wait_until_cosigned(&witness);
    assert_eq!(witness.status()["alarms"], Value::Array(vec![]));
    place.custodyd.kill_now();
    let alarm = witness.alarm("silence");
    assert_eq!(alarm["log"], ORIGIN);
    wait::until_true("the webhook heard of it twice", wait::DEADLINE, || heard.lock().unwrap().len() >= 2);
    let last = heard.lock().unwrap()[1].clone();
    assert!(last.starts_with("POST / ") && last.contains("\"alarm\":\"silence\""), "{last}");
    place.custodyd.start();
    wait::until_true("it is over when the log is back", wait::DEADLINE, || {
        witness.status()["alarms"] == Value::Array(vec![])
    });
}

#[test]
fn without_its_witness_a_log_starts_only_when_told_to() {
    let mut place = Place::start();
    let mut witness = place.witness("", false, "");
    witness.start();
    let without = place.configure(&witness.as_configured());
    place.custodyd.stop();
    witness.stop();
    let before = place.signed();
    let said = place.refused();
    assert!(said.contains("witness.test can't be asked") && said.contains("--without-witness"), "{said}");
    assert_eq!(place.signed(), before);

    // Once, by whoever starts it.
    let mut command = Command::new("sh");
    let program = program("custodyd");
    command.args(["-c", "exec \"$@\" --without-witness", "sh", path(&program)]);
    place.custodyd.spawn(&mut command);
    place.custodyd.wait_until_it_serves();
    let told = place.admin.entries("type=log.unwitnessed").pop().expect("the log says so");
    assert_eq!(told.event["data"]["size"], before.size());
    place.custodyd.stop();
    let before = place.signed();
    assert!(place.refused().contains("--without-witness"), "the next start asks again");

    // Always, by the configuration.
    std::fs::write(
        place.custodyd.config(),
        format!("{without}\n{}at_start = \"warn\"\n", witness.as_configured()),
    )
    .unwrap();
    place.custodyd.start();
    let told = place.admin.entries("type=log.unwitnessed").pop().expect("the log says so");
    assert_eq!(
        (&told.event["data"]["witness"], &told.event["data"]["size"]),
        (&"witness.test".into(), &before.size().into())
    );
    // And once it is there again, it cosigns.
    witness.start();
    place.role("later");
    place.wait_until_cosigned(&witness);
}

#[test]
fn a_new_epoch_says_what_it_is_and_keeps_the_old_log() {
    let mut place = Place::start();
    place.role("kept");
    place.custodyd.stop();
    let old = place.signed();
    let epoch = |origin: &str, reason: &str| {
        let mut command = Command::new(program("custodyd"));
        command
            .args(["new-epoch", "--origin", origin, "--reason", reason, "--config"])
            .arg(place.custodyd.config());
        run(&mut command, b"", wait::DEADLINE)
    };
    for (origin, reason, says) in [
        (ORIGIN, "x", "already"),
        ("https://x", "x", "without scheme"),
        ("custody.test/log-2", " ", "--reason"),
    ] {
        let said = epoch(origin, reason);
        assert!(said.code != 0 && said.err.contains(says), "{}", said.err);
    }
    let said = epoch("custody.test/log-2", "the disk burnt").ok().text();
    let key = VerifierKey::parse(said.lines().find(|l| l.contains("+")).unwrap().trim()).unwrap();
    let old_key = VerifierKey::parse(&std::mem::replace(&mut place.key, key.to_string())).unwrap();
    assert!(place.refused().contains(ORIGIN));
    let config = std::fs::read_to_string(place.custodyd.config()).unwrap();
    std::fs::write(place.custodyd.config(), config.replace(ORIGIN, "custody.test/log-2")).unwrap();
    place.custodyd.start();
    let begun = place.admin.entries("type=log.epoch-begun").pop().unwrap();
    assert_eq!((begun.index, &begun.event["data"]["root"]), (old.size(), &old.root().to_base64().into()));
    assert_eq!(begun.event["data"]["reason"], "the disk burnt");
    place.role("after");
    place.custodyd.stop();
    verify::directory(&place.log(), &key, &[], &mut |_, _| {}, &mut |_| {}).unwrap();
    let aside = place.custodyd.data().join("log.custody.test-log");
    let verified = verify::directory(&aside, &old_key, &[], &mut |_, _| {}, &mut |_| {});
    assert_eq!(verified.unwrap().root, old.root());
}

/// Two histories are submitted at once, again and again, while the witness is killed and started: whatever it has ever
/// said yes to is one history.
#[test]
fn a_witness_that_is_killed_in_the_middle_never_cosigns_two_histories() {
    const SHARED: u64 = 10;
    let dir = TempDir::new().unwrap();
    let log = Arc::new(Ed25519Signer::from_seed("fork.test/log", &[6; 32]).unwrap());
    let logs = format!("[[log]]\nkey = \"{}\"\nsilence_seconds = 600\n", log.verifier_key());
    let mut witness = Witness::init(&dir.path().join("witness"), "", &logs);
    let branch =
        |name: &'static str| move |n: u64| leaf_hash(if n < SHARED { "both" } else { name }.as_bytes());
    let key = CosignerKey::parse(&witness.key).unwrap();
    let client = Client::new(&witness.url(), key, None).unwrap();
    let cosigned: Arc<Mutex<Vec<(u64, &'static str)>>> = Arc::default();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let submit = |name: &'static str| {
        let (client, cosigned, stop, log) = (client.clone(), cosigned.clone(), stop.clone(), log.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (mut tree, mut known) = (Tree::new(), 0);
            (0..SHARED).for_each(|n| tree.push(branch(name)(n)));
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let size = tree.size();
                let checkpoint = Checkpoint::sign(size, tree.root(), &*log).unwrap();
                let proof = tree.consistency_proof(known, size, &Tiles::new()).unwrap();
                match runtime.block_on(client.ask(known, proof, &checkpoint)) {
                    Ok(Answer::Cosigned(_)) => {
                        cosigned.lock().unwrap().push((size, name));
                        known = size;
                        tree.push(branch(name)(size));
                    }
                    // The other was first, or an answer was lost: begin where the witness is.
                    Ok(Answer::Conflict(theirs)) => {
                        while tree.size() < theirs {
                            tree.push(branch(name)(tree.size()));
                        }
                        known = theirs;
                    }
                    Ok(Answer::BadProof) | Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
                if tree.size() >= 250 {
                    return;
                }
            }
        })
    };
    let threads = [submit("one"), submit("other")];
    for _ in 0..6 {
        witness.start();
        let before = cosigned.lock().unwrap().len();
        wait::until_true("it cosigns", wait::DEADLINE, || {
            cosigned.lock().unwrap().len() > before + 5
                || threads.iter().any(std::thread::JoinHandle::is_finished)
        });
        witness.kill_now();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    let said = cosigned.lock().unwrap().clone();
    let winners: std::collections::BTreeSet<&str> =
        said.iter().filter(|(size, _)| *size > SHARED).map(|(_, name)| *name).collect();
    assert_eq!(winners.len(), 1, "{said:?}");
}

fn curl(url: &str) -> String {
    let mut command = Command::new("curl");
    run(command.args(["--silent", "--show-error", "--fail", "--max-time", "20", url]), b"", wait::DEADLINE)
        .ok()
        .text()
}
