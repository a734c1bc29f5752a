//! What a node's kernel saw of a session: lines for people, in the order in which it happened, and as a tree of
//! processes.

use crate::client::Client;
use crate::events;
use crate::table::{field, printable};
use custody_core::event::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The longest command line in one line, in characters.
const LINE_CHARS_MAX: usize = 200;

/// So much of a container's id stands in a line, as its runtimes show it.
const CONTAINER_CHARS: usize = 12;

/// Families that kernels speak of.
const FAMILIES: [&str; 4] = ["command", "connection", "file", "node"];

/// What says that something isn't told.
const MISSING: [&str; 2] = ["producer.dropped", "producer.gap"];

/// How long after a session's last event it may be told that others were dropped: the agent looks twice a second.
const TOLD_WITHIN_NANOS: u64 = 2_000_000_000;

/// All that a kernel saw of a session, and what it or the log says to be missing from that time, in the order in which the
/// kernel's agent has numbered it: in that order the log takes it, whatever clocks are set to.
pub async fn seen(client: &Client, session: &str) -> anyhow::Result<Vec<Value>> {
    let mut entries = Vec::new();
    for family in FAMILIES {
        let query = [("type", family.to_owned()), ("session", session.to_owned())];
        events::pages(client, &query, usize::MAX, |line| {
            let entry: Value = serde_json::from_str(line)?;
            if entry["event"]["producer"]["kind"] == "node" {
                entries.push(entry);
            }
            Ok(())
        })
        .await?;
    }
    entries.sort_by_key(index);
    if let (Some(first), Some(last)) = (entries.first().cloned(), entries.last().cloned()) {
        let goes_on = goes_on(&entries);
        for kind in MISSING {
            let query = [("type", kind.to_owned()), ("from", index(&first).to_string())];
            events::pages(client, &query, usize::MAX, |line| {
                let entry: Value = serde_json::from_str(line)?;
                let is_lost = goes_on && is_end_lost(&entry, &last);
                if is_lost || is_missing_between(&entry, &first, &last) {
                    entries.push(entry);
                }
                Ok(())
            })
            .await?;
        }
    }
    entries.sort_by_key(index);
    Ok(entries.into_iter().map(|mut entry| entry["event"].take()).collect())
}

/// Its place in the log.
fn index(entry: &Value) -> u64 {
    entry["index"].as_u64().unwrap_or_default()
}

/// Whether something of the session still ran, as far as was told.
fn goes_on(entries: &[Value]) -> bool {
    let (mut all, mut ended) = (BTreeSet::new(), BTreeSet::new());
    for entry in entries {
        let event = &entry["event"];
        let Some(id) = id(event) else { continue };
        all.insert(id);
        if field(event, "/type") == "command.exited" {
            ended.insert(id);
        }
    }
    all != ended
}

/// Whether an entry says that the end of what the agent's run had to tell, which told this one, is lost: it says so when it starts
/// again, which is after all that it has told of the session.
fn is_end_lost(entry: &Value, last: &Value) -> bool {
    let (gap, told_by) = (&entry["event"]["data"], &last["event"]["producer"]);
    gap["unknown"] == true && gap["producer"] == told_by["id"] && gap["boot"] == told_by["boot"]
}

/// Whether an entry says that something of the producer of these two isn't told, which may have come between them.
fn is_missing_between(entry: &Value, first: &Value, last: &Value) -> bool {
    let event = &entry["event"];
    let producer = &first["event"]["producer"]["id"];
    if field(event, "/type") == "producer.gap" {
        let showed = event["data"]["index"].as_u64().unwrap_or_default();
        return event["data"]["producer"] == *producer && (index(first)..=index(last)).contains(&showed);
    }
    let end = time(&last["event"]).nanos().saturating_add(TOLD_WITHIN_NANOS);
    event["producer"]["id"] == *producer && (index(entry) <= index(last) || time(event).nanos() <= end)
}

/// That something isn't told, in a line; `None` for all other events.
fn missing(event: &Value) -> Option<String> {
    let data = &event["data"];
    let what = match field(event, "/type").as_str() {
        "producer.gap" => match field(data, "/count").as_str() {
            "0" => "what this node hadn't told when its agent or its machine ended is lost".to_owned(),
            count => format!("{count} events of this node never reached the log"),
        },
        "producer.dropped" => {
            let counts = data["counts"].as_object().into_iter().flatten();
            let counts: Vec<_> = counts.map(|(kind, count)| format!("{count} {kind}")).collect();
            format!("{}, of this node's sessions: {}", counts.join(", "), field(data, "/reason"))
        }
        _ => return None,
    };
    Some(printable(&format!("EVIDENCE MAY BE INCOMPLETE: {what}")))
}

/// When it happened.
pub fn time(event: &Value) -> Timestamp {
    field(event, "/time").parse().unwrap_or_default()
}

/// One event in one line. Whoever was in the session chose much of what stands in it, the names of its processes too.
pub fn line(event: &Value) -> String {
    missing(event).unwrap_or_else(|| printable(&told(event)))
}

/// What a kernel saw, in a line that isn't fit for a terminal.
fn told(event: &Value) -> String {
    let data = &event["data"];
    let process = format!("{} [{}]", field(data, "/process/name"), field(data, "/process/pid"));
    let what = field(event, "/type");
    let said = match what.as_str() {
        "command.executed" => return format!("ran {} [{}]", command_line(data), field(data, "/process/pid")),
        "command.exited" => return format!("{process} ended{}", ending(data)),
        "command.denied" => format!("MAY NOT RUN {}: {}", field(data, "/given"), by(data)),
        "file.denied" => {
            format!("MAY NOT TOUCH {} ({}): {}", field(data, "/file/path"), field(data, "/tried"), by(data))
        }
        "connection.opened" => format!("connected to {}", remote(data)),
        "connection.accepted" => format!("was connected to from {}", remote(data)),
        "connection.unreached" => format!("didn't reach {}: error {}", remote(data), field(data, "/errno")),
        "connection.closed" => {
            let (sent, received) = (field(data, "/bytes_out"), field(data, "/bytes_in"));
            format!("closed {}: {sent} bytes sent, {received} received", remote(data))
        }
        "connection.denied" => match field(data, "/direction").as_str() {
            "inbound" => format!("MAY NOT BE REACHED FROM {}: {}", remote(data), by(data)),
            _ => format!("MAY NOT REACH {}: {}", remote(data), by(data)),
        },
        "file.opened" => {
            let times = match field(data, "/count").as_str() {
                "" | "1" => String::new(),
                count => format!(", {count} times"),
            };
            format!("opened {} to {}{times}", field(data, "/file/path"), field(data, "/access"))
        }
        "file.created" => {
            let leads_to = match field(data, "/leads_to").as_str() {
                "" => String::new(),
                path => format!(" to {path}"),
            };
            format!("made {} (a {}{leads_to})", field(data, "/file/path"), field(data, "/kind"))
        }
        "file.truncated" => format!("changed the length of {}", field(data, "/file/path")),
        "file.renamed" => format!("renamed {} to {}", field(data, "/file/path"), field(data, "/to")),
        "file.linked" => format!("linked {} to {}", field(data, "/file/path"), field(data, "/to")),
        "connection.daemon-reached" => format!("reached the daemon at {}", field(data, "/path")),
        "file.deleted" => format!("deleted {}", field(data, "/file/path")),
        "file.permission-changed" => {
            format!("gave {} the mode {}", field(data, "/file/path"), field(data, "/mode"))
        }
        "file.owner-changed" => {
            let ids = [("/uid", "user"), ("/gid", "group")].map(|(at, what)| (field(data, at), what));
            let to = ids.iter().filter(|(id, _)| !id.is_empty()).map(|(id, what)| format!(" {what} {id}"));
            format!("gave {} to{}", field(data, "/file/path"), to.collect::<Vec<_>>().join(","))
        }
        "file.attribute-changed" => {
            format!("changed {} of {}", field(data, "/attribute"), field(data, "/file/path"))
        }
        "node.kernel-changed" => format!("{} {}", field(data, "/change"), field(data, "/on")),
        "node.session-accepted" => return format!("the session came in at process {}", field(data, "/pid")),
        other => other.to_owned(),
    };
    format!("{process} {said}")
}

/// The restriction that a denial comes from, or its reason.
fn by(data: &Value) -> String {
    let by = field(data, "/restriction");
    if by.is_empty() { field(data, "/reason") } else { by }
}

/// The arguments as a shell would take them, the program that ran where they call it otherwise, and what is strange about
/// it; and the container where it ran in one.
fn command_line(data: &Value) -> String {
    let arguments = data["arguments"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut line = arguments.map(quoted).collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        line = field(data, "/given");
    }
    if line.chars().count() > LINE_CHARS_MAX {
        line = line.chars().take(LINE_CHARS_MAX).collect::<String>() + "…";
    } else if data["arguments_cut"] == true {
        line += " …";
    }
    let path = field(data, "/executable/path");
    if !path.is_empty() && !calls(&field(data, "/arguments/0"), &path) {
        let cut = if data["executable"]["path_cut"] == true { "…" } else { "" };
        line = format!("{cut}{} as {line}", quoted(&path));
    }
    if !field(data, "/interpreter").is_empty() {
        line += &format!(" (the script {})", quoted(&field(data, "/given")));
    }
    if data["executable"]["unlinked"] == true {
        line += " (in memory only, or deleted)";
    }
    let container = field(data, "/container/id");
    if !container.is_empty() {
        line += &format!(" in container {}", container.chars().take(CONTAINER_CHARS).collect::<String>());
    }
    printable(&line)
}

/// Whether a program that lies there is called by its name: by its path, also where /bin is a part of /usr, or by the last
/// part of it, as login shells are with a hyphen before.
fn calls(name: &str, path: &str) -> bool {
    let same_name = |name: &str| name.rsplit('/').next() == path.rsplit('/').next();
    if name.starts_with('/') {
        name == path || path.strip_prefix("/usr") == Some(name)
    } else {
        same_name(name) || name.strip_prefix('-').is_some_and(same_name)
    }
}

fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

fn remote(data: &Value) -> String {
    let (address, port) = (field(data, "/ends/remote/address"), field(data, "/ends/remote/port"));
    let address = if address.contains(':') { format!("[{address}]") } else { address };
    let name = field(data, "/ends/name");
    let name = if name.is_empty() { name } else { format!(" ({name})") };
    format!("{}://{address}:{port}{name}", field(data, "/ends/protocol"))
}

fn ending(data: &Value) -> String {
    let (status, signal) = (field(data, "/exit_status"), field(data, "/signal"));
    let ending = match (status.as_str(), signal.as_str()) {
        ("0", _) => String::new(),
        ("", signal) => format!(" by signal {signal}"),
        (status, _) => format!(" with status {status}"),
    };
    printable(&ending)
}

/// A process: the number it has, and when it began, which name it for good.
type Id = (u64, u64);

/// Which process an event is of.
fn id(event: &Value) -> Option<Id> {
    let process = &event["data"]["process"];
    process["pid"].as_u64().zip(process["started_us"].as_u64())
}

/// A process of the tree.
#[derive(Default)]
struct Node {
    /// As it was at first: who loses its parent gets another.
    parent: Option<u64>,
    /// What it ran, one after the other.
    ran: Vec<String>,
    /// How it ended.
    ended: Option<String>,
    /// What else it did.
    did: Vec<String>,
    children: Vec<Id>,
}

/// The processes of a session, by who descends from whom.
pub struct Tree {
    nodes: BTreeMap<Id, Node>,
    roots: Vec<Id>,
    /// What isn't told.
    missing: Vec<String>,
}

impl Tree {
    /// Puts together what a kernel saw.
    pub fn of(seen: &[Value]) -> Self {
        let mut nodes: BTreeMap<Id, Node> = BTreeMap::new();
        for event in seen {
            let process = &event["data"]["process"];
            let Some((pid, began)) = id(event) else { continue };
            let node = nodes.entry((pid, began)).or_default();
            node.parent = node.parent.or_else(|| process["parent"].as_u64());
            match field(event, "/type").as_str() {
                "command.executed" => node.ran.push(command_line(&event["data"])),
                "command.exited" => {
                    let ending = ending(&event["data"]);
                    node.ended = Some(if ending.is_empty() { " ended".to_owned() } else { ending });
                }
                _ => {
                    let name = printable(&format!("{} [{pid}] ", field(process, "/name")));
                    let line = line(event);
                    node.did.push(line.strip_prefix(&name).unwrap_or(&line).to_owned());
                }
            }
        }
        let missing = seen.iter().filter_map(missing).collect();
        let mut tree = Self { nodes, roots: Vec::new(), missing };
        tree.connect();
        tree
    }

    /// A parent is the newest process of that number that began before its child; who has none here is a root.
    fn connect(&mut self) {
        let ids: Vec<_> =
            self.nodes.iter().map(|(id, node)| (*id, node.parent.unwrap_or_default())).collect();
        for (id, parent) in ids {
            let (pid, began) = id;
            let candidates = self.nodes.range((parent, 0)..=(parent, began));
            let parent = candidates.map(|(id, _)| *id).rfind(|candidate| *candidate != (pid, began));
            match parent.and_then(|parent| self.nodes.get_mut(&parent)) {
                Some(parent) => parent.children.push(id),
                None => self.roots.push(id),
            }
        }
        let begins = |id: &Id| id.1;
        self.roots.sort_by_key(begins);
        self.nodes.values_mut().for_each(|node| node.children.sort_by_key(begins));
    }

    /// As text: a line a process, what it did below it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // From the back: what is pushed last is printed first.
        let mut open: Vec<_> =
            self.roots.iter().rev().map(|id| (*id, String::new(), String::new())).collect();
        while let Some((id, mark, indent)) = open.pop() {
            let Some(node) = self.nodes.get(&id) else { continue };
            let what = if node.ran.is_empty() { "(forked)".to_owned() } else { node.ran.join(" → ") };
            let ended = node.ended.as_deref().unwrap_or(" goes on");
            text.push_str(&format!("{mark}{} {what}{}\n", id.0, if ended == " ended" { "" } else { ended }));
            let last = node.children.len();
            for did in &node.did {
                text.push_str(&format!("{indent}{} · {did}\n", if last > 0 { "│" } else { " " }));
            }
            for (place, child) in node.children.iter().enumerate().rev() {
                let is_last = place + 1 == last;
                let (branch, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
                open.push((*child, format!("{indent}{branch}"), format!("{indent}{below}")));
            }
        }
        self.missing.iter().for_each(|line| text.push_str(&format!("{line}\n")));
        text
    }

    /// What isn't told, each in a line.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// As JSON: a list of processes, each with the number of its parent.
    pub fn json(&self) -> Value {
        let of = |(id, node): (&Id, &Node)| {
            json!({
                "pid": id.0,
                "started_us": id.1,
                "parent": node.parent,
                "ran": node.ran,
                "ended": node.ended.as_deref().map(str::trim),
                "did": node.did,
            })
        };
        self.nodes.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, (pid, parent, began): (u64, u64, u64), data: Value) -> Value {
        let mut data = data;
        data["process"] = json!({"pid": pid, "parent": parent, "started_us": began, "name": "sh", "uid": 0});
        json!({"type": kind, "time": "2026-01-02T03:04:05Z", "data": data, "producer": {"kind": "node", "seq": began}})
    }

    #[test]
    fn processes_stand_below_those_they_descend_from() {
        let ends = json!({"ends": {"name": "a.example", "protocol": "tcp", "remote": {"address": "192.0.2.1", "port": 80}}, "bytes_in": 1, "bytes_out": 2});
        let seen = [
            event("command.executed", (10, 1, 5), json!({"arguments": ["sh", "-c", "a b"]})),
            event("command.executed", (11, 10, 6), json!({"arguments": ["curl", "x\u{1b}"]})),
            event("connection.closed", (11, 10, 6), ends),
            event("command.exited", (11, 10, 6), json!({"exit_status": 3})),
            event("command.exited", (12, 10, 7), json!({"signal": 9})),
            // Another process of the same number, later: nobody's child here.
            event(
                "command.executed",
                (11, 99, 8),
                json!({"arguments": ["other"], "container": {"id": "0123456789abcdef"}}),
            ),
            event("command.exited", (10, 1, 5), json!({"exit_status": 0})),
        ];
        let text = Tree::of(&seen).text();
        let wanted = "10 sh -c 'a b'\n\
            ├─ 11 curl 'x\\u{1b}' with status 3\n\
            │    · closed tcp://192.0.2.1:80 (a.example): 2 bytes sent, 1 received\n\
            └─ 12 (forked) by signal 9\n\
            11 other in container 0123456789ab goes on\n";
        assert_eq!(text, wanted);
    }

    /// A process gives itself any name (prctl(2)), programs and files may have any, and so may what the session asks a name server for.
    #[test]
    fn nothing_that_a_session_chose_moves_a_terminal_s_cursor() {
        let evil = "\u{1b}[1A\u{1b}[2K\r\n\u{9b}2J";
        let process = json!({"pid": 10, "parent": 1, "started_us": 5, "name": evil, "uid": 0});
        let ends = json!({"name": evil, "protocol": evil, "remote": {"address": evil, "port": evil}});
        let mut all =
            json!({"process": process, "ends": ends, "arguments": ["sh", evil], "counts": {evil: 3}});
        all["container"] = json!({"id": evil});
        all["executable"] = json!({"path": evil});
        all["file"] = json!({"path": evil});
        let texts = "access attribute bytes_in bytes_out change count direction errno exit_status gid given interpreter kind leads_to \
            mode on path pid reason restriction signal to tried uid";
        for name in texts.split_whitespace() {
            all[name] = json!(evil);
        }
        let kinds = [
            "command.executed",
            "command.exited",
            "command.denied",
            "connection.opened",
            "connection.accepted",
            "connection.unreached",
            "connection.closed",
            "connection.denied",
            "connection.daemon-reached",
            "file.denied",
            "file.opened",
            "file.created",
            "file.truncated",
            "file.renamed",
            "file.linked",
            "file.deleted",
            "file.permission-changed",
            "file.owner-changed",
            "file.attribute-changed",
            "node.kernel-changed",
            "node.session-accepted",
            "producer.dropped",
            "producer.gap",
            evil,
        ];
        let seen = kinds.map(|kind| {
            let mut event = json!({"type": kind, "time": "2026-01-02T03:04:05Z", "data": all});
            if MISSING.contains(&kind) {
                event["data"]["process"] = Value::Null;
            }
            event
        });
        for event in &seen {
            let line = line(event);
            assert!(!line.is_empty() && !line.contains(char::is_control), "{line:?}");
        }
        let tree = Tree::of(&seen);
        let text = tree.text();
        assert!(!text.replace('\n', "").contains(char::is_control), "{text:?}");
        // A line for what it ran and how that ended, one for each other thing, and one for each that is missing.
        assert_eq!(text.lines().count(), 1 + (kinds.len() - 4) + 2, "{text}");
        assert!(!text.contains("[10] "), "its name isn't said again: {text}");
        assert!(!tree.json().to_string().contains(char::is_control));
    }

    #[test]
    fn a_program_is_called_by_what_it_is() {
        let shown = |path: &str, arguments: Value, marks: Value| {
            let mut data = json!({"arguments": arguments, "given": "/given", "executable": {"path": path}});
            for (name, value) in marks.as_object().unwrap() {
                match name.strip_prefix("executable.") {
                    Some(name) => data["executable"][name] = value.clone(),
                    None => data[name] = value.clone(),
                }
            }
            command_line(&data)
        };
        assert_eq!(shown("/usr/bin/ls", json!(["ls", "-l"]), json!({})), "ls -l");
        assert_eq!(shown("/usr/bin/ls", json!(["/bin/ls"]), json!({})), "/bin/ls");
        assert_eq!(shown("/usr/bin/bash", json!(["-bash"]), json!({})), "-bash");
        assert_eq!(shown("/srv/tools/run", json!(["./run"]), json!({})), "./run");
        assert_eq!(shown("/tmp/evil", json!(["ls"]), json!({})), "/tmp/evil as ls");
        assert_eq!(shown("/tmp/ls", json!(["/bin/ls"]), json!({})), "/tmp/ls as /bin/ls");
        assert_eq!(
            shown("memfd:x", json!(["ls"]), json!({"executable.unlinked": true, "arguments_cut": true})),
            "memfd:x as ls … (in memory only, or deleted)"
        );
        assert_eq!(
            shown("/evil", json!(["ls"]), json!({"executable.path_cut": true})),
            "…/evil as ls",
            "of a path that is too long its end is known"
        );
        assert_eq!(
            shown("/usr/bin/python3.13", json!(["python3", "/given"]), json!({"interpreter": "python3"})),
            "/usr/bin/python3.13 as python3 /given (the script /given)"
        );
    }

    #[test]
    fn an_orphan_stays_where_it_came_from_and_what_is_missing_is_said() {
        let dropped = json!({"type": "producer.dropped", "producer": {"id": "node/a"},
            "data": {"counts": {"executed": 3}, "reason": "no room"}});
        let gap = json!({"type": "producer.gap", "data": {"count": 2, "producer": "node/a", "index": 9}});
        let opened = json!({"file": {"path": "/etc/passwd"}, "access": "read", "count": 12});
        let seen = [
            event("command.executed", (10, 1, 5), json!({"arguments": ["sh"]})),
            event("command.executed", (11, 10, 6), json!({"arguments": ["job"]})),
            dropped.clone(),
            event("command.exited", (10, 1, 5), json!({"exit_status": 0})),
            // Its parent is gone.
            event("file.opened", (11, 1, 6), opened),
            gap.clone(),
        ];
        let tree = Tree::of(&seen);
        let wanted = "10 sh\n\
            └─ 11 job goes on\n\
            \u{20}    · opened /etc/passwd to read, 12 times\n\
            EVIDENCE MAY BE INCOMPLETE: 3 executed, of this node's sessions: no room\n\
            EVIDENCE MAY BE INCOMPLETE: 2 events of this node never reached the log\n";
        assert_eq!(tree.text(), wanted);
        assert_eq!(tree.missing().len(), 2);
        assert_eq!(line(&gap), tree.missing()[1]);
        // Of others, and of other times, nothing is said.
        let at = |index: u64, event: &Value| json!({"index": index, "event": event});
        let mut own = seen[0].clone();
        own["producer"]["id"] = json!("node/a");
        let (first, last) = (at(5, &own), at(12, &own));
        assert!(is_missing_between(&at(13, &gap), &first, &last));
        assert!(!is_missing_between(&at(13, &gap), &at(10, &own), &last));
        assert!(is_missing_between(&at(7, &dropped), &first, &last));
        let mut late = dropped;
        late["time"] = json!("2026-01-02T03:04:06Z");
        assert!(is_missing_between(&at(13, &late), &first, &last));
        late["time"] = json!("2026-01-02T03:04:09Z");
        assert!(!is_missing_between(&at(13, &late), &first, &last));
        late["producer"]["id"] = json!("node/b");
        assert!(!is_missing_between(&at(7, &late), &first, &last));
    }

    #[test]
    fn that_an_agent_s_last_words_are_lost_is_said_of_what_still_ran() {
        let at = |index: u64, event: Value| json!({"index": index, "event": event});
        let mut ran = event("command.executed", (10, 1, 5), json!({"arguments": ["sh"]}));
        ran["producer"] = json!({"id": "node/a", "kind": "node", "boot": "one", "seq": 5});
        let mut exited = ran.clone();
        exited["type"] = json!("command.exited");
        // Its sockets are closed once it has ended.
        let mut closed = ran.clone();
        closed["type"] = json!("connection.closed");
        let entries = [at(5, ran), at(6, exited), at(7, closed)];
        assert!(goes_on(&entries[..1]) && !goes_on(&entries));
        let gap = |producer: &str, boot: &str, unknown: bool| {
            let data = json!({"boot": boot, "count": 0, "first": 6, "index": 90, "producer": producer, "unknown": unknown});
            at(91, json!({"type": "producer.gap", "data": data}))
        };
        let told = gap("node/a", "one", true);
        assert!(is_end_lost(&told, &entries[0]) && !is_missing_between(&told, &entries[0], &entries[2]));
        for other in [gap("node/b", "one", true), gap("node/a", "two", true), gap("node/a", "one", false)] {
            assert!(!is_end_lost(&other, &entries[0]), "{other}");
        }
        assert!(line(&told["event"]).ends_with("ended is lost"));
    }
}
