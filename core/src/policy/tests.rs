use super::validate::{DOCUMENT_BYTES_MAX, check, check_upload};
use super::*;
use crate::event::ByteString;
use crate::event::connection::Place;
use crate::state::change::Change;
use crate::state::story::{Story, circumstances, connect, replayed};
use serde_json::json;

const REACH: &str =
    "@id(\"reach\") permit(principal in Role::\"operator\", action in Action::\"ssh\", resource);";

#[test]
fn the_schema_knows_each_action_and_what_it_is_about() {
    let schema = schema::schema().unwrap();
    let known: std::collections::BTreeSet<String> =
        schema.actions().map(|action| action.id().unescaped().to_owned()).collect();
    for action in Action::ALL {
        assert!(known.contains(action.name()), "{}", action.name());
    }
    assert_eq!(known.len(), Action::ALL.len() + 3, "and three groups: {known:?}");
}

#[test]
fn what_a_log_begins_with_is_valid() {
    let document = check("admin", defaults::ADMIN_POLICY).unwrap();
    assert_eq!(document.ids().collect::<Vec<_>>(), ["admins-administer", "admins-read"]);
}

/// Policy text, request, whether it is allowed, the policies that decide, and a word of the reason.
#[test]
fn decisions() {
    let forbid = |condition: &str| {
        format!(
            "{REACH}\n@id(\"no\") forbid(principal, action == Action::\"ssh:connect\", resource) when {{ {condition} }};"
        )
    };
    let table: Vec<(String, bool, &[&str], &str)> = vec![
        (String::new(), false, &[], "no policy allows alice to ssh:connect"),
        (REACH.into(), true, &["reach"], "allowed by reach"),
        (forbid("context.login == \"root\""), false, &["no"], "denied by no"),
        (forbid("context.login == \"www\""), true, &["reach"], "allowed"),
        (forbid("context.source.isInRange(ip(\"192.0.2.0/24\"))"), false, &["no"], "denied by no"),
        (forbid("context.source.isInRange(ip(\"198.51.100.0/24\"))"), true, &["reach"], "allowed"),
        (forbid("resource.hasTag(\"env\") && resource.getTag(\"env\") == \"prod\""), false, &["no"], "denied"),
        (forbid("resource.hasTag(\"env\") && resource.getTag(\"env\") == \"test\""), true, &["reach"], "allowed"),
        (forbid("context.hour < 8 && context.weekday == 2 && !context.mfa"), false, &["no"], "denied"),
        (forbid("context.certificate_seconds > 60"), false, &["no"], "denied"),
        // Overflows while it is evaluated: strict validation can't see it.
        (forbid("9223372036854775807 + context.time > 0"), false, &["no"], "could not be evaluated"),
        (
            "@id(\"err\") permit(principal, action == Action::\"ssh:connect\", resource) when { 9223372036854775807 + context.time > 0 };".into(),
            false,
            &[],
            "no policy allows",
        ),
        (
            format!("{REACH}\n@id(\"err\") permit(principal, action == Action::\"ssh:connect\", resource) when {{ 9223372036854775807 + context.time > 0 }};"),
            true,
            &["reach"],
            "allowed by reach",
        ),
        ("@id(\"p\") permit(principal in Role::\"admin\", action in Action::\"ssh\", resource);".into(), false, &[], "no policy"),
    ];
    for (text, allowed, policies, reason) in table {
        let story = Story::with_policy(&text);
        let decision = story.decide(&connect("alice", "web-1", "root"));
        assert_eq!(decision.allowed(), allowed, "{text}: {}", decision.made.reason);
        assert_eq!(decision.made.policies, policies, "{text}");
        assert!(decision.made.reason.contains(reason), "{text}: {}", decision.made.reason);
        assert_eq!(decision.made.errors.is_empty(), !text.contains("92233"), "{:?}", decision.made.errors);
        assert_eq!(decision.made.state, story.state.size());
        assert_eq!(decision.made.principal, "User::\"alice\"");
        assert_eq!(decision.made.resource, "Node::\"web-1\"");
    }
}

#[test]
fn a_lock_beats_a_permit_until_it_is_lifted() {
    let mut story = Story::with_policy(REACH);
    story.command(
        "create-lock",
        json!({"name": "l", "matches": {"user": "alice"}, "reason": "incident 4711"}),
    );
    let decision = story.decide(&connect("alice", "web-1", "root"));
    assert!(!decision.allowed());
    assert_eq!(decision.made.reason, "locked by l: incident 4711");
    assert_eq!(decision.lock.as_deref(), Some("l"));
    story.command("lift-lock", json!({"name": "l"}));
    assert!(story.decide(&connect("alice", "web-1", "root")).allowed());
}

/// Who may set roles may give all but the one that may do everything; and a policy may say which.
#[test]
fn only_an_administrator_gives_the_role_admin_or_takes_it() {
    let helpdesk = "@id(\"helpdesk\") permit(principal in Role::\"operator\", action in [Action::\"admin:create-user\", Action::\"admin:set-roles\"], resource)";
    let roles = |of: &[&str]| of.iter().map(|role| (*role).to_owned()).collect();
    let set = |name: &str, of: &[&str]| Change::SetRoles { name: name.into(), roles: roles(of) };
    let create = |name: &str, of: &[&str]| Change::CreateUser { name: name.into(), roles: roles(of) };
    let only = "only who holds the role admin";
    for (condition, user, change, expected) in [
        ("", "alice", set("alice", &["admin", "operator"]), only),
        ("", "alice", set("root2", &[]), only),
        ("", "alice", create("eve", &["admin"]), only),
        ("", "alice", set("root2", &["admin", "operator"]), "allowed by helpdesk"),
        ("", "alice", set("alice", &[]), "allowed by helpdesk"),
        ("", "alice", create("eve", &["operator"]), "allowed by helpdesk"),
        ("", "root", set("alice", &["admin"]), "allowed by admins-administer"),
        ("", "root", set("root2", &[]), "allowed by admins-administer"),
        (
            "when { context.roles == [\"operator\"] }",
            "alice",
            set("alice", &["operator"]),
            "allowed by helpdesk",
        ),
        (
            "when { context.roles == [\"operator\"] }",
            "alice",
            create("eve", &["operator"]),
            "allowed by helpdesk",
        ),
        ("when { context.roles == [\"operator\"] }", "alice", set("alice", &[]), "no policy allows alice"),
    ] {
        let mut story = Story::with_policy(&format!("{helpdesk} {condition};"));
        story.command("create-user", json!({"name": "root2", "roles": ["admin"]}));
        let what = change.what();
        let decision =
            story.decide(&Request { user: user.into(), what, session: None, circumstances: circumstances() });
        assert!(
            decision.made.reason.starts_with(expected),
            "{condition} {change:?}: {}",
            decision.made.reason
        );
        assert_eq!(decision.allowed(), expected.starts_with("allowed"));
    }
}

#[test]
fn nobody_and_nowhere_are_denied_whatever_policy_says() {
    let story = Story::with_policy("@id(\"all\") permit(principal, action, resource);");
    assert!(story.decide(&connect("alice", "web-1", "root")).allowed());
    assert!(!story.decide(&connect("nobody", "web-1", "root")).allowed());
    assert!(!story.decide(&connect("alice", "web-2", "root")).allowed());
    let long = "x".repeat(10_000);
    assert!(!story.decide(&connect("alice", "web-1", &long)).allowed());
}

#[test]
fn a_service_account_reads_events_and_nothing_else_however_much_is_allowed() {
    let all = "@id(\"all\") permit(principal, action, resource);";
    let siem = json!({"name": "siem", "roles": ["operator"], "expires": "2099-01-01T00:00:00Z", "secret_version": 1});
    let asks = |user: &str, what: What| Request {
        user: user.into(),
        what,
        session: None,
        circumstances: circumstances(),
    };
    let mut story = Story::with_policy(all);
    story.command("create-service", siem.clone());
    let allowed = |story: &Story, request: Request| story.decide(&request).made;
    let made = allowed(&story, asks("siem", What::ReadEvents));
    assert!(
        made.allowed && made.principal == "Service::\"siem\"" && made.resource == "Log::\"log\"",
        "{made:?}"
    );
    for (request, reason) in [
        (asks("siem", What::ReadLog), "there is no user siem"),
        (asks("siem", What::ReadState), "there is no user siem"),
        (
            asks("siem", What::Administer { action: Action::CreateUser, name: "x".into() }),
            "there is no user siem",
        ),
        (connect("siem", "web-1", "root"), "there is no user siem"),
        (asks("alice", What::ReadEvents), "there is no service account alice"),
    ] {
        let made = allowed(&story, request);
        assert!(!made.allowed && made.reason.contains(reason), "{made:?}");
    }
    for matches in [json!({"user": "siem"}), json!({"role": "operator"})] {
        story.command("create-lock", json!({"name": "l", "matches": matches, "reason": "stolen"}));
        let made = allowed(&story, asks("siem", What::ReadEvents));
        assert!(!made.allowed && made.reason == "locked by l: stolen", "{made:?}");
        story.command("lift-lock", json!({"name": "l"}));
    }

    // What is allowed to begin with says nothing of service accounts; a role does once a policy says so.
    let mut story = Story::with_policy("");
    story.command("create-service", siem);
    let made = allowed(&story, asks("siem", What::ReadEvents));
    assert!(!made.allowed && made.reason == "no policy allows siem to events:read", "{made:?}");
    let text =
        "@id(\"siem\") permit(principal in Role::\"operator\", action == Action::\"events:read\", resource);";
    story.command("upload-policy", json!({"name": "siem", "text": text}));
    assert!(allowed(&story, asks("siem", What::ReadEvents)).allowed);
}

#[test]
fn the_most_recorded_of_the_deciding_permits_counts() {
    let permit = |id: &str, annotation: &str| {
        format!("@id(\"{id}\") {annotation} permit(principal, action in Action::\"ssh\", resource);\n")
    };
    let table = [
        (vec![""], RecordingLevel::Terminal),
        (vec!["@recording(\"none\")"], RecordingLevel::None),
        (vec!["@recording(\"none\")", "@recording(\"metadata\")"], RecordingLevel::Metadata),
        (vec!["@recording(\"none\")", ""], RecordingLevel::Terminal),
        (vec!["@recording(\"full\")", "", "@recording(\"none\")"], RecordingLevel::Full),
    ];
    for (annotations, level) in table {
        let text: String = annotations
            .iter()
            .enumerate()
            .map(|(n, annotation)| permit(&format!("p{n}"), annotation))
            .collect();
        let decision = Story::with_policy(&text).decide(&connect("alice", "web-1", "root"));
        assert!(decision.allowed());
        assert_eq!(decision.recording, level, "{text}");
    }
}

#[test]
fn each_kind_of_request_reaches_its_policy() {
    let text = r#"
@id("shell") permit(principal, action == Action::"ssh:shell", resource) when { context.terminal };
@id("exec") permit(principal, action == Action::"ssh:exec", resource) when { context.command like "uptime*" && !context.command_cut };
@id("sub") permit(principal, action == Action::"ssh:subsystem", resource) when { context.subsystem == "sftp" };
@id("own") permit(principal, action == Action::"session:view", resource) when { resource.owner == principal };
@id("in") permit(principal, action == Action::"ssh:connect", resource);
@id("log") permit(principal in Role::"operator", action == Action::"log:read", resource);
"#;
    let mut story = Story::with_policy(text);
    let id = story.open("alice", "web-1", "root");
    let (node, login) = (|| "web-1".to_owned(), || ByteString::from("root"));
    let exec =
        |command: &str| What::Exec { node: node(), login: login(), terminal: false, command: command.into() };
    let table = [
        ("alice", What::Shell { node: node(), login: login(), terminal: true }, true),
        ("alice", What::Shell { node: node(), login: login(), terminal: false }, false),
        ("alice", exec("uptime -p"), true),
        ("alice", exec("reboot"), false),
        ("alice", exec(&format!("uptime{}", " ".repeat(5000))), false),
        ("alice", What::Subsystem { node: node(), login: login(), subsystem: "sftp".into() }, true),
        ("alice", What::View { session: id }, true),
        ("alice", What::View { session: crate::event::SessionId::new() }, false),
        ("root", What::View { session: id }, true),
        ("alice", What::ReadLog, true),
        ("alice", What::ReadState, false),
        ("root", What::ReadState, true),
        ("alice", What::Administer { action: Action::SetPassword, name: "alice".into() }, false),
        ("root", What::Administer { action: Action::SetPassword, name: "root".into() }, true),
        ("root", What::Administer { action: Action::EnrollNode, name: "web-1".into() }, true),
    ];
    for (user, what, allowed) in table {
        let request = Request { user: user.into(), what, session: None, circumstances: circumstances() };
        let decision = story.decide(&request);
        assert_eq!(decision.allowed(), allowed, "{request:?}: {}", decision.made.reason);
        let unknown = decision.made.reason.contains("there is no session");
        assert_eq!(decision.made.errors.is_empty(), !unknown, "{:?}", decision.made.errors);
        assert_eq!(Circumstances::from_context(&decision.made.context.0), Some(circumstances()));
        crate::event::canonical::event_bytes(&decision.made).unwrap();
    }
}

/// Where to, by name, by port, by network; where from, by the node's label; whose, by role.
#[test]
fn connections_are_decided_by_where_they_lead() {
    let text = r#"
@id("databases") permit(principal in Role::"operator", action == Action::"ssh:forward", resource)
when { context.host == "db.internal" && context.port == 5432 };
@id("network") permit(principal, action == Action::"ssh:forward", resource)
when { context has address && context.address.isInRange(ip("10.1.0.0/16")) };
@id("docker") permit(principal, action == Action::"ssh:forward", resource) when { context.path == "/run/docker.sock" };
@id("own-ports") permit(principal, action == Action::"ssh:listen", resource)
when { context.host == "localhost" && context.port == 0 && context.path == "" };
@id("agent") permit(principal, action == Action::"ssh:agent", resource)
unless { resource.hasTag("env") && resource.getTag("env") == "prod" };
@id("x11") permit(principal in Role::"admin", action == Action::"ssh:x11", resource);
"#;
    let story = Story::with_policy(text);
    let (node, login) = (|| "web-1".to_owned(), || ByteString::from("root"));
    let forward = |place| What::Forward { node: node(), login: login(), place };
    let listen = |place| What::Listen { node: node(), login: login(), place };
    let (tcp, socket) =
        (|host: &str, port| Place::tcp(host.as_bytes(), port), |path: &str| Place::socket(path.as_bytes()));
    let table = [
        ("alice", forward(tcp("db.internal", 5432)), true),
        ("root", forward(tcp("db.internal", 5432)), false),
        ("alice", forward(tcp("db.internal", 22)), false),
        ("alice", forward(tcp("DB.internal", 5432)), false),
        ("alice", forward(tcp("10.1.2.3", 22)), true),
        ("alice", forward(tcp("0x0a.1.515", 22)), true),
        ("alice", forward(tcp("10.2.0.1", 22)), false),
        ("alice", forward(tcp("::ffff:10.1.2.3", 22)), true),
        ("alice", forward(socket("/run/docker.sock")), true),
        ("alice", forward(socket("/run/other.sock")), false),
        ("alice", forward(tcp("/run/docker.sock", 1)), false),
        ("alice", forward(Place { host: Some("x".repeat(257).as_str().into()), ..Place::default() }), false),
        ("alice", listen(tcp("localhost", 0)), true),
        ("alice", listen(tcp("*", 0)), false),
        ("alice", listen(tcp("localhost", 80)), false),
        ("alice", listen(socket("/tmp/s")), false),
        ("alice", What::Agent { node: node(), login: login() }, false),
        ("root", What::X11 { node: node(), login: login() }, true),
        ("alice", What::X11 { node: node(), login: login() }, false),
    ];
    for (user, what, allowed) in table {
        let request = Request { user: user.into(), what, session: None, circumstances: circumstances() };
        let decision = story.decide(&request);
        assert_eq!(decision.allowed(), allowed, "{request:?}: {}", decision.made.reason);
        assert_eq!(Circumstances::from_context(&decision.made.context.0), Some(circumstances()));
        crate::event::canonical::event_bytes(&decision.made).unwrap();
    }
}

#[test]
fn uploads_are_refused_with_the_line_and_the_reason() {
    let table = [
        ("permit(principal, action, resource);", 1, "no @id"),
        (
            "\n\n// a\n@id(\"a\") permit(principal, action, resource);\n// b;\npermit(principal, action, resource);",
            6,
            "no @id",
        ),
        (
            "@id(\"a\") permit(principal, action, resource);\n@id(\"a\") permit(principal, action, resource);",
            2,
            "used twice",
        ),
        ("@id(\"A b\") permit(principal, action, resource);", 1, "isn't a name"),
        (
            "@id(\"a\")\n@recordng(\"none\")\npermit(principal, action, resource);",
            1,
            "@recordng means nothing",
        ),
        ("@id(\"a\") @recording(\"everything\") permit(principal, action, resource);", 1, "is no level"),
        ("@id(\"a\") @recording(\"full\") forbid(principal, action, resource);", 1, "stands on a permit"),
        ("@id(\"a\") permit(principal == ?principal, action, resource);", 1, "templates"),
        ("@id(\"a\") permit(principal, action, resource)\nwhen { context.nonsense };", 2, "nonsense"),
        (
            "@id(\"a\") permit(principal, action == Action::\"ssh:connect\", resource)\nwhen {\n  context.login == 3 };",
            3,
            "",
        ),
        ("@id(\"a\") permit(principal, action == Action::\"ssh:fly\", resource);", 1, "ssh:fly"),
        (
            "@id(\"a\") permit(principal, action == Action::\"ssh:connect\", resource) when { resource.getTag(\"env\") == \"x\" };",
            1,
            "env",
        ),
        ("@id(\"a\") permit(principal, action, resource);\npermit(principal action, resource);", 2, "action"),
        ("@id(\"a\") permit(principal, action, resource)", 1, ""),
        (NEVER[0], 2, "write `in`, not `==`"),
        (NEVER[1], 2, "write `in`, not `==`"),
        (NEVER[2], 2, "false whatever is asked"),
    ];
    for (text, line, expected) in table {
        let error = check_upload("doc", text).unwrap_err();
        let shown = error.to_string();
        assert!(shown.contains(expected), "{text}: {shown}");
        assert!(!shown.contains('\n'), "{shown}");
        let got = match error {
            PolicyError::Syntax { line, .. }
            | PolicyError::Rule { line, .. }
            | PolicyError::Schema { line, .. } => line,
            other => panic!("{other}"),
        };
        assert_eq!(got, line, "{text}: {shown}");
    }
}

/// The second policy of each is right for Cedar and never applies.
const NEVER: [&str; 3] = [
    "@id(\"a\") permit(principal, action, resource);\n@id(\"b\")\nforbid(principal == Role::\"contractor\", action, resource);",
    "@id(\"a\") permit(principal, action, resource);\n@id(\"b\") forbid(principal, action == Action::\"ssh\", resource);",
    "@id(\"a\") permit(principal, action, resource);\n@id(\"b\") forbid(principal, action == Action::\"ssh:connect\", resource) when { context has command && context.command like \"rm*\" };",
];

#[test]
fn a_path_in_another_script_may_be_uploaded() {
    let text = "@id(\"a\") permit(principal, action == Action::\"ssh:sftp-read\", resource) when { context.path like \"/srv/отчёты/*\" };";
    assert!(check_upload("doc", text).is_ok(), "{:?}", check_upload("doc", text));
}

/// What was taken once goes on counting, else an old log would say something else than it did.
#[test]
fn what_never_applies_isnt_taken_any_more_and_counts_in_a_log_that_holds_it() {
    for text in NEVER {
        let mut story = Story::with_policy(REACH);
        let upload = || Change::UploadPolicy { name: "old".into(), text: text.into() };
        assert!(story.change("root", upload()).unwrap_err().contains("never applies"), "{text}");
        let index = story.decided("root", upload()).unwrap();
        assert_eq!(story.reason(index), None, "{text}");
        assert_eq!(story.state.policies().get("old").unwrap().text, text);
        assert_eq!(replayed(&story.entries).canonical().unwrap(), story.state.canonical().unwrap());
    }
}

#[test]
fn what_would_cost_too_much_is_refused_before_it_is_parsed() {
    let policy =
        |condition: String| format!("@id(\"a\") permit(principal, action, resource) when {{ {condition} }};");
    let table = [
        policy("true".to_owned() + &" && true".repeat(1000)),
        policy("(".repeat(3000) + "true" + &")".repeat(3000)),
        policy("[".repeat(40) + &"]".repeat(40)),
        policy("if true then true else ".repeat(900) + "true"),
        policy("!".repeat(5000) + "true"),
        policy(format!("context{} has x", ".a".repeat(3000))),
        "x".repeat(DOCUMENT_BYTES_MAX + 1),
        "@id(\"a\u{0}\") permit(principal, action, resource);".to_owned(),
    ];
    for text in table {
        assert!(matches!(check("doc", &text), Err(PolicyError::TooMuch { .. })), "{:.80}", text);
    }
    // As long as is allowed: no stack is exceeded.
    let _answer = check("doc", &policy("true".to_owned() + &" && true".repeat(300)));
    let _answer = check("doc", &policy("if true then true else ".repeat(200) + "true"));
    let brackets = "// ((((\n@id(\"a\") permit(principal, action, resource) unless { \"((((\" == \"x\" };";
    assert!(check("doc", brackets).is_ok(), "{:?}", check("doc", brackets));
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "(@id\\(\"[a-z]\"\\) ?|permit|forbid|\\(|\\)|principal|action|resource|,|;|when|\\{|\\}|\"|\\\\|//|\n|context\\.login|==| |é|[0-9]){0,40}") {
        let _answer = check("doc", &text);
    }
}
