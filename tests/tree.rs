//! The source tree itself: what style asks for and a machine can check.

use custody_core::event::TYPES;
use custody_tests::root;
use std::path::PathBuf;
use std::process::Command;

/// The longest source file, in lines: beyond it there are two subjects.
const LINES_MAX: usize = 700;

fn tracked() -> Vec<PathBuf> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root())
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output();
    let output = output.expect("git is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files: Vec<PathBuf> = output
        .stdout
        .split(|b| *b == 0)
        .filter(|p| !p.is_empty())
        .map(|p| PathBuf::from(String::from_utf8_lossy(p).as_ref()))
        .collect();
    assert!(files.len() > 50, "only {} files: is this a checkout?", files.len());
    files.into_iter().filter(|p| root().join(p).is_file()).collect()
}

fn text(path: &PathBuf) -> Option<String> {
    std::fs::read_to_string(root().join(path)).ok()
}

fn with_extension(extensions: &[&str]) -> Vec<PathBuf> {
    tracked()
        .into_iter()
        .filter(|p| p.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e)))
        .collect()
}

#[test]
fn source_files_have_one_subject_each() {
    let mut wrong = Vec::new();
    for path in with_extension(&["rs", "py", "sh", "c"]) {
        let lines = text(&path).unwrap_or_default().lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{}: {lines} lines, at most {LINES_MAX}", path.display()));
        }
        let named_for_nothing = path.components().any(|part| {
            let name = part.as_os_str().to_string_lossy();
            ["utils", "util", "common", "helpers", "helper", "manager", "misc"]
                .contains(&name.split('.').next().unwrap_or_default())
        });
        if named_for_nothing {
            wrong.push(format!("{}: a name that says nothing", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_to_do_and_no_test_is_switched_off() {
    // Put together here, so that this file doesn't find itself.
    let words = [
        ["to", "do!("].concat(),
        ["unimple", "mented!("].concat(),
        ["#[ig", "nore"].concat(),
        ["FIX", "ME"].concat(),
    ];
    let mut wrong = Vec::new();
    for path in with_extension(&["rs"]) {
        for (n, line) in text(&path).unwrap_or_default().lines().enumerate() {
            if words.iter().any(|w| line.contains(w.as_str())) {
                wrong.push(format!("{}:{}: {}", path.display(), n + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_type_of_event_has_schema_example_and_a_section_in_the_docs() {
    let docs = std::fs::read_to_string(root().join("docs/events.md")).unwrap();
    let mappings = std::fs::read_to_string(root().join("docs/mappings.md")).unwrap();
    for info in TYPES {
        for path in [
            format!("schemas/events/{}.json", info.name),
            format!("schemas/events/examples/{}.json", info.name),
        ] {
            assert!(root().join(&path).is_file(), "{path} is missing: run `make schemas`");
        }
        for (page, text) in [("events", &docs), ("mappings", &mappings)] {
            assert!(text.contains(&format!("### `{}`", info.name)), "docs/{page}.md lacks {}", info.name);
        }
    }
}

/// A clone builds from whatever registry its machine is set up for.
#[test]
fn no_registry_is_named() {
    let hosts = [
        ["crates", ".io"],
        ["pypi", ".org"],
        ["registry.npm", "js"],
        ["proxy.go", "lang"],
        ["deb.deb", "ian.org"],
        ["repo1.ma", "ven"],
    ];
    let mut wrong = Vec::new();
    for path in tracked().into_iter().filter(|p| p.file_name().is_none_or(|n| n != "Cargo.lock")) {
        for (n, line) in text(&path).unwrap_or_default().lines().enumerate() {
            if hosts.iter().any(|h| line.contains(&h.concat())) {
                wrong.push(format!("{}:{}", path.display(), n + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each relative link of the documentation leads to a file, and each attack in docs/attacks.md to a test that exists.
#[test]
fn links_and_named_tests_of_the_documentation_exist() {
    let mut wrong = Vec::new();
    for path in with_extension(&["md"]) {
        let page = text(&path).unwrap_or_default();
        let folder = root().join(&path).parent().unwrap().to_owned();
        for target in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") && !folder.join(file).exists() {
                wrong.push(format!("{}: {target}", path.display()));
            }
        }
    }
    let sources: String = with_extension(&["rs"]).iter().filter_map(text).collect();
    let attacks = std::fs::read_to_string(root().join("docs/attacks.md")).unwrap();
    let mut named = 0;
    for test in attacks.split("test `").skip(1).filter_map(|rest| rest.split('`').next()) {
        named += 1;
        let function = test.rsplit("::").next().unwrap();
        if !sources.contains(&format!("fn {function}(")) {
            wrong.push(format!("docs/attacks.md: there is no test {test}"));
        }
    }
    assert!(named >= 10, "docs/attacks.md names {named} tests");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
