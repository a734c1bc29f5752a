//! `custody sinks`: how the log's deliveries do, and what to do about them.

mod until;

use crate::client::Client;
use crate::profile::{Home, Profile};
use crate::progress;
use crate::table;
use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use custody_core::delivery::{
    Comparing, DEAD_LETTERS_LISTED, DeadLetter, Findings, Numbers, Report, Standing, Verdict,
};
use custody_core::log::VerifierKey;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::ops::Range;
use std::time::Duration;
use until::Until;

/// Findings of each kind that are printed.
const SHOWN: usize = 10;

#[derive(Subcommand)]
pub enum Sinks {
    /// List sinks: how far each is, and what is wrong
    Ls {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Read a destination back, and prove that everything is there, once and unaltered
    Verify {
        /// The sink
        name: String,
        /// From this event or this time: what is older may be gone there, for its age
        #[arg(long, value_name = "INDEX|TIME")]
        from: Option<String>,
        /// Up to this size of the log, this time, or what a checkpoint covers that you have from elsewhere (a witness, an earlier
        /// day): the log must still hold it. Up to the newest checkpoint without it
        #[arg(long, value_name = "SIZE|TIME|CHECKPOINT-FILE")]
        to: Option<String>,
        /// Deliver again what is missing
        #[arg(long)]
        repair: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Deliver a part of the log once more; what is there already isn't sent
    Replay {
        /// The sink
        name: String,
        /// From this event or this time
        #[arg(long, value_name = "INDEX|TIME")]
        from: String,
        /// Up to this event or this time, exclusive
        #[arg(long, value_name = "INDEX|TIME")]
        to: Option<String>,
        /// Don't wait for its end
        #[arg(long)]
        detach: bool,
    },
    /// Hold a sink: it delivers nothing until it is released
    Pause {
        /// The sink
        name: String,
        #[command(flatten)]
        reason: Reason,
    },
    /// Let a held sink deliver again
    Release {
        /// The sink
        name: String,
    },
    /// List dead letters: events that the destination refused for what they are
    DeadLetters {
        /// The sink
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Send dead letters again
    Redrive {
        /// The sink
        name: String,
    },
    /// End a replay or a redrive where it is
    Cancel {
        /// The sink
        name: String,
    },
}

#[derive(Args)]
pub struct Reason {
    /// Why
    #[arg(long, default_value = "")]
    reason: String,
}

/// Does what was asked.
pub async fn sinks(command: Sinks) -> anyhow::Result<()> {
    let (client, profile) = Client::logged_in(&Home::find()?)?;
    match command {
        Sinks::Ls { json } => list(&client, json).await,
        Sinks::Verify { name, from, to, repair, json } => {
            let until = match to {
                Some(to) => Some(up_to(&client, &profile, &to).await?),
                None => None,
            };
            verify(&client, &name, (from, until), repair, json).await
        }
        Sinks::Replay { name, from, to, detach } => replay(&client, &name, &from, to, detach).await,
        Sinks::Pause { name, reason } => {
            let _: Value = post(&client, &name, "pause", &json!({ "reason": reason.reason })).await?;
            println!("{name} is held: it delivers nothing until `custody sinks release {name}`.");
            Ok(())
        }
        Sinks::Release { name } => {
            let _: Value = post(&client, &name, "release", &json!({})).await?;
            println!("{name} delivers again.");
            Ok(())
        }
        Sinks::DeadLetters { name, json } => dead_letters(&client, &name, json).await,
        Sinks::Redrive { name } => redrive(&client, &name).await,
        Sinks::Cancel { name } => {
            let _: Value = post(&client, &name, "cancel", &json!({})).await?;
            println!("It is ended: see `custody sinks verify {name}` for what is there.");
            Ok(())
        }
    }
}

async fn post<T: serde::de::DeserializeOwned>(
    client: &Client,
    name: &str,
    operation: &str,
    body: &Value,
) -> anyhow::Result<T> {
    client.post(&format!("/v1/sinks/{name}/{operation}"), body).await
}

async fn list(client: &Client, as_json: bool) -> anyhow::Result<()> {
    let answer: Value = client.get_json("/v1/sinks", &[]).await?;
    if as_json {
        println!("{answer}");
        return Ok(());
    }
    let sinks: Vec<Standing> = serde_json::from_value(answer)?;
    let rows = sinks.into_iter().map(|sink| {
        let state = state(&sink);
        vec![
            sink.name,
            sink.numbers.next.to_string(),
            sink.lag_events.to_string(),
            sink.lag_seconds.map_or_else(|| "unknown".to_owned(), |seconds| format!("{seconds} s")),
            sink.numbers.per_second.to_string(),
            sink.numbers.rejected.to_string(),
            sink.numbers.dead_letters.to_string(),
            state,
        ]
    });
    let header = ["sink", "next", "behind", "oldest", "events/s", "refused", "dead letters", "state"];
    table::print(&header, rows.collect(), "No sink is configured.");
    Ok(())
}

/// What it is at, and what is wrong with that, in a few words.
fn state(sink: &Standing) -> String {
    let Numbers { trouble, replay_trouble, .. } = &sink.numbers;
    match (&sink.paused, trouble, &sink.replaying, replay_trouble) {
        (Some(reason), ..) if reason.is_empty() => "held".to_owned(),
        (Some(reason), ..) => format!("held: {reason}"),
        (None, Some(trouble), ..) => format!("TROUBLE: {trouble}"),
        (None, None, Some(left), None) => format!("replays {} to {}", left.start, left.end),
        (None, None, Some(left), Some(trouble)) => {
            format!("replays {} to {}, TROUBLE: {trouble}", left.start, left.end)
        }
        // Of a redrive, or of a replay that couldn't go on.
        (None, None, None, Some(trouble)) => format!("delivers, TROUBLE beside it: {trouble}"),
        (None, None, None, None) => "delivers".to_owned(),
    }
}

/// An index as a number, and a time as the API has it.
fn place(text: &str) -> anyhow::Result<Value> {
    if let Ok(index) = text.parse::<u64>() {
        return Ok(json!(index));
    }
    Ok(json!(crate::at::moment(text).map_err(anyhow::Error::msg)?))
}

/// Up to where is compared, once the log is known to hold the checkpoint where it is one.
async fn up_to(client: &Client, profile: &Profile, to: &str) -> anyhow::Result<Until> {
    let key = VerifierKey::parse(&profile.log_key)?;
    let until = Until::parse(to, &key)?;
    if let Until::Known(known) = &until {
        until::holds(&client.log(), &key, known).await?;
        eprintln!("The log still holds that checkpoint of {} events.", known.size());
    }
    Ok(until)
}

async fn verify(
    client: &Client,
    name: &str,
    (from, until): (Option<String>, Option<Until>),
    repair: bool,
    as_json: bool,
) -> anyhow::Result<()> {
    let from = from.as_deref().map(place).transpose()?;
    let body = until::asked(from.as_ref(), until.as_ref(), repair);
    let response = client.send(&format!("/v1/sinks/{name}/verify"), &body).await?;
    let bar = progress::events("comparing")?;
    let mut heard = Heard::default();
    let mut lines = Lines::default();
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        for line in lines.feed(&piece.context("the answer broke off")?) {
            match serde_json::from_slice(&line)? {
                Comparing::Compared { events, of } => {
                    bar.set_length(of);
                    bar.set_position(events);
                }
                Comparing::Report(found) => heard.report = Some(found),
                Comparing::Repairing(ranges) => heard.repairing = ranges,
                Comparing::Error(reason) => heard.failed = Some(reason),
            }
        }
    }
    bar.finish_and_clear();
    heard.end(name, as_json, |text| print!("{text}"))
}

/// What a comparison has said.
#[derive(Default)]
struct Heard {
    report: Option<Box<Report>>,
    repairing: Vec<Range<u64>>,
    failed: Option<String>,
}

impl Heard {
    /// Prints the report, and says what all of it comes to. What was found counts also where the repair couldn't begin.
    fn end(self, name: &str, as_json: bool, print: impl FnOnce(&str)) -> anyhow::Result<()> {
        let Self { report, repairing, failed } = self;
        if let Some(report) = &report {
            let shown = if as_json {
                serde_json::to_string(&Judged { verdict: report.verdict(), report })? + "\n"
            } else {
                text(name, report)
            };
            print(&shown);
        }
        if let Some(reason) = failed {
            bail!("{}", table::printable(&reason));
        }
        let report = report.context("the answer broke off before the report")?;
        if !repairing.is_empty() {
            eprintln!(
                "Delivering {} missing events again; verify once more when `custody sinks ls` shows no replay.",
                report.missing.count
            );
        }
        match report.verdict() {
            Verdict::Proven => Ok(()),
            Verdict::Incomplete => Err(Incomplete { sink: name.to_owned(), events: report.rejected }.into()),
            Verdict::NotProven => bail!("{name} isn't proven"),
        }
    }
}

/// A report as it is printed for programs.
#[derive(Serialize)]
struct Judged<'a> {
    verdict: Verdict,
    #[serde(flatten)]
    report: &'a Report,
}

/// What is there is proven, and something was refused: not success, and not what an alarm is for. It has an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error(
    "{sink} has all but {events} events that it refused: see `custody sinks dead-letters {sink}`, and redrive them when it takes them"
)]
pub struct Incomplete {
    sink: String,
    events: u64,
}

impl Incomplete {
    pub const EXIT: u8 = 3;
}

fn text(name: &str, report: &Report) -> String {
    let mut out = String::new();
    let mut say = |line: String| out.extend([line.as_str(), "\n"]);
    let whole = report.proven - report.redacted;
    say(match report.from {
        0 => format!("{name}, compared with the first {} events of the log", report.size),
        from => format!("{name}, compared with the events of the log from {from} to {}", report.size),
    });
    say(format!("  proven      {} of {} ({whole} by all their bytes)", report.proven, report.expected));
    if report.by_original > 0 {
        let count = report.by_original;
        say(format!(
            "  {count} are of another version of the mapping: their events are compared, their other fields aren't"
        ));
    }
    if report.rejected > 0 {
        say(format!("  REFUSED     {}: custody sinks dead-letters {name}", report.rejected));
    }
    let mut list = |what: &str, findings: &Findings| {
        if findings.count == 0 {
            return;
        }
        say(format!("  {what:<11} {}", findings.count));
        for finding in findings.first.iter().take(SHOWN) {
            let index = finding.index.map_or_else(|| "-".to_owned(), |index| index.to_string());
            say(format!("    {index}: {}", table::printable(&finding.what)));
        }
        if findings.count > SHOWN as u64 {
            say(format!("    … and {} more", findings.count - SHOWN as u64));
        }
    };
    list("MISSING", &report.missing);
    list("ALTERED", &report.altered);
    list("DUPLICATED", &report.duplicated);
    list("EXTRA", &report.extra);
    for unshown in report.unproven.iter().take(SHOWN) {
        let to = if unshown.to == u64::MAX { "the end".to_owned() } else { unshown.to.to_string() };
        say(format!("  NOT PROVEN  {} to {to}: {}", unshown.from, table::printable(&unshown.reason)));
    }
    out
}

/// Bytes as they come, cut into lines.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn feed(&mut self, piece: &[u8]) -> Vec<Vec<u8>> {
        self.0.extend_from_slice(piece);
        let mut lines = Vec::new();
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let rest = self.0.split_off(end + 1);
            lines.push(std::mem::replace(&mut self.0, rest));
        }
        lines
    }
}

#[derive(Deserialize)]
struct Replaying {
    index: u64,
    from: u64,
    to: u64,
}

async fn replay(
    client: &Client,
    name: &str,
    from: &str,
    to: Option<String>,
    detach: bool,
) -> anyhow::Result<()> {
    let to = to.as_deref().map(place).transpose()?;
    let body = json!({ "from": place(from)?, "to": to });
    let sink = standing(client, name).await?;
    let begun: Replaying = post(client, name, "replay", &body).await?;
    println!(
        "(event {}) Events {} to {} are delivered to {name} once more.",
        begun.index, begun.from, begun.to
    );
    let mut is_held = sink.paused.is_some();
    if let Some(said) = held(&sink) {
        eprintln!("{said}");
    }
    if detach {
        return Ok(());
    }
    let before = sink.numbers;
    let bar = progress::events("delivering")?;
    bar.set_length(begun.to.saturating_sub(begun.from));
    let after = loop {
        let sink = standing(client, name).await?;
        // Once, and not each time that it is looked at.
        if let Some(said) = held(&sink).filter(|_| !is_held) {
            bar.println(said);
        }
        is_held = sink.paused.is_some();
        let Some(left) = sink.replaying else {
            if sink.numbers.replays > before.replays {
                break sink.numbers;
            }
            let Numbers { replay_trouble, trouble, .. } = sink.numbers;
            let trouble = replay_trouble.or(trouble);
            let trouble = trouble.as_deref().unwrap_or("it was ended before its end");
            bail!(
                "how far it came isn't known, {}: see `custody sinks verify {name}`",
                table::printable(trouble)
            );
        };
        bar.set_position(sent_of(&begun, &left));
        if let Some(trouble) = sink.numbers.replay_trouble.or(sink.numbers.trouble) {
            bar.println(format!("{name}: {}", table::printable(&trouble)));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    bar.finish_and_clear();
    let letters =
        letters(client, name).await.context("it is sent, and what was refused of it isn't known")?;
    if letters.len() >= DEAD_LETTERS_LISTED {
        return replayed_among_many(name, &before, &after);
    }
    let (said, refused) = replayed(name, begun.from..begun.to, (&before, &after), &letters);
    if let Some(said) = said {
        println!("{said}");
    }
    match refused {
        0 => Ok(()),
        events => Err(Incomplete { sink: name.to_owned(), events }.into()),
    }
}

/// How much of a replay is sent. What is left may be of another one that somebody has begun since, and begin before it.
fn sent_of(begun: &Replaying, left: &Range<u64>) -> u64 {
    left.start.saturating_sub(begun.from)
}

/// What a replay of these events came to, and how many of them were refused: by the numbers before and after it, and by the dead letters that
/// there are now.
fn replayed(
    name: &str,
    events: Range<u64>,
    (before, after): (&Numbers, &Numbers),
    letters: &[DeadLetter],
) -> (Option<String>, u64) {
    let among = |of: Range<u64>| letters.iter().filter(|letter| of.contains(&letter.index)).count() as u64;
    // One that arrived this time is no dead letter any more.
    let refused = among(events);
    // What was new meanwhile may have been refused as well. Of a replay, what another document stands in the place of is counted as refused,
    // and becomes no dead letter.
    let rejected = after.rejected.saturating_sub(before.rejected);
    let taken = rejected.saturating_sub(refused).saturating_sub(among(before.next..u64::MAX));
    let said = match (taken, refused) {
        // Whoever can be read back is asked for what it has before anything is sent to it; of others nobody knows what they kept.
        (0, 0) if after.looked_up > before.looked_up => Some("All of it is there.".to_owned()),
        (0, 0) => Some("It is sent.".to_owned()),
        (0, _) => None,
        _ => {
            Some(format!("In the place of {taken} of it other documents stand: custody sinks verify {name}"))
        }
    };
    (said, refused)
}

/// The same where there are more dead letters than are listed: those of the replay may be among the others.
fn replayed_among_many(name: &str, before: &Numbers, after: &Numbers) -> anyhow::Result<()> {
    match after.rejected.checked_sub(before.rejected) {
        Some(0) => {
            println!("It is sent.");
            Ok(())
        }
        Some(rejected) => bail!(
            "{rejected} events were refused meanwhile, or other documents stand in their place: see `custody sinks verify {name}`"
        ),
        // Its program was started again.
        None => {
            bail!("it is sent, and what was refused of it isn't known: see `custody sinks verify {name}`")
        }
    }
}

/// Why nothing is sent, where somebody holds the sink.
fn held(sink: &Standing) -> Option<String> {
    let reason = sink.paused.as_deref()?;
    let why = if reason.is_empty() { String::new() } else { format!(" ({})", table::printable(reason)) };
    let name = &sink.name;
    Some(format!("{name} is held{why}: nothing is sent until `custody sinks release {name}`."))
}

async fn standing(client: &Client, name: &str) -> anyhow::Result<Standing> {
    let sinks: Vec<Standing> = client.get_json("/v1/sinks", &[]).await?;
    sinks.into_iter().find(|sink| sink.name == name).with_context(|| format!("there is no sink {name}"))
}

async fn letters(client: &Client, name: &str) -> anyhow::Result<Vec<DeadLetter>> {
    client.get_json(&format!("/v1/sinks/{name}/dead-letters"), &[]).await
}

async fn dead_letters(client: &Client, name: &str, as_json: bool) -> anyhow::Result<()> {
    let letters = letters(client, name).await?;
    let listed = letters.len();
    if as_json {
        println!("{}", serde_json::to_string(&letters)?);
    } else {
        let rows =
            letters.into_iter().map(|letter| vec![letter.index.to_string(), letter.kind, letter.reason]);
        table::print(&["event", "type", "the destination says"], rows.collect(), "There are none.");
    }
    if listed >= DEAD_LETTERS_LISTED {
        let all = standing(client, name).await?.numbers.dead_letters;
        eprintln!(
            "These are the newest {listed} of {all}: all of them stand in sinks/{name}/dead-letters.ndjson of the log's data."
        );
    }
    Ok(())
}

async fn redrive(client: &Client, name: &str) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Redriven {
        count: usize,
        left: usize,
    }
    // Whoever may not look at it may send them all the same.
    if let Some(said) = standing(client, name).await.ok().as_ref().and_then(held) {
        eprintln!("{said}");
    }
    let Redriven { count, left } = post(client, name, "redrive", &json!({})).await?;
    println!("{} of {count} dead letters arrived, {left} are left.", count.saturating_sub(left));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_however_they_come_in() {
        let mut lines = Lines::default();
        assert!(lines.feed(b"{\"a\"").is_empty());
        assert_eq!(lines.feed(b":1}\n{}\n{"), [b"{\"a\":1}\n".to_vec(), b"{}\n".to_vec()]);
    }

    #[test]
    fn a_replay_is_said_to_be_there_only_where_it_is() {
        let before = Numbers { looked_up: 7, next: 30, rejected: 4, ..Numbers::default() };
        let after = |looked_up, rejected| Numbers { looked_up, rejected, ..before.clone() };
        let letters = |indexes: &[u64]| -> Vec<DeadLetter> {
            indexes.iter().map(|index| DeadLetter::new(*index, "login.failed", "400")).collect()
        };
        let said = |after: Numbers, dead: &[u64]| {
            let (said, refused) = replayed("loki", 10..20, (&before, &after), &letters(dead));
            (said.unwrap_or_default(), refused)
        };
        let is = |said: &str, refused| (said.to_owned(), refused);
        let taken = "In the place of 3 of it other documents stand: custody sinks verify loki";
        assert_eq!(said(after(17, 4), &[]), is("All of it is there.", 0));
        // Nobody can ask a webhook what it has.
        assert_eq!(said(after(7, 4), &[]), is("It is sent.", 0));
        assert_eq!(said(after(17, 6), &[10, 19]), is("", 2));
        assert_eq!(said(after(17, 7), &[]), is(taken, 0));
        assert_eq!(said(after(17, 9), &[10, 19]), is(taken, 2));
        // Of another part of the log, and of what was new meanwhile.
        assert_eq!(said(after(17, 6), &[9, 20, 30, 31]), is("All of it is there.", 0));
        // Its program was started again.
        assert_eq!(said(after(3, 0), &[]), is("It is sent.", 0));
    }

    #[test]
    fn of_more_dead_letters_than_are_listed_no_replay_is_said_to_have_none() {
        let before = Numbers { rejected: 4, ..Numbers::default() };
        let after = |rejected| Numbers { rejected, ..before.clone() };
        assert!(replayed_among_many("loki", &before, &after(4)).is_ok());
        let said = replayed_among_many("loki", &before, &after(7)).unwrap_err().to_string();
        assert!(said.starts_with("3 events were refused meanwhile, or"), "{said}");
        let said = replayed_among_many("loki", &before, &after(3)).unwrap_err().to_string();
        assert!(said.contains("isn't known"), "{said}");
    }

    #[test]
    fn whoever_waits_for_a_held_sink_is_told_so() {
        let sink = |paused: Option<&str>| -> Standing {
            let paused = paused.map(str::to_owned);
            let name = "loki".to_owned();
            Standing {
                lag_events: 0,
                lag_seconds: Some(0),
                name,
                numbers: Numbers::default(),
                paused,
                replaying: None,
            }
        };
        assert_eq!(held(&sink(None)), None);
        let said = "loki is held: nothing is sent until `custody sinks release loki`.";
        assert_eq!(held(&sink(Some(""))).as_deref(), Some(said));
        let said = "loki is held (it\\nmoves): nothing is sent until `custody sinks release loki`.";
        assert_eq!(held(&sink(Some("it\nmoves"))).as_deref(), Some(said));
    }

    #[test]
    fn what_holds_a_sink_up_is_shown_whatever_it_is_at() {
        let standing = |paused: Option<&str>, trouble: Option<&str>, errand: Option<&str>, left| Standing {
            lag_events: 0,
            lag_seconds: Some(0),
            name: "loki".into(),
            numbers: Numbers {
                trouble: trouble.map(str::to_owned),
                replay_trouble: errand.map(str::to_owned),
                ..Numbers::default()
            },
            paused: paused.map(str::to_owned),
            replaying: left,
        };
        for (shown, sink) in [
            ("delivers", standing(None, None, None, None)),
            ("held", standing(Some(""), Some("429"), None, None)),
            ("held: a rebuild", standing(Some("a rebuild"), None, None, Some(3..9))),
            ("TROUBLE: 429", standing(None, Some("429"), Some("503"), Some(3..9))),
            ("replays 3 to 9", standing(None, None, None, Some(3..9))),
            ("replays 3 to 9, TROUBLE: 503", standing(None, None, Some("503"), Some(3..9))),
            ("delivers, TROUBLE beside it: 503", standing(None, None, Some("503"), None)),
        ] {
            assert_eq!(state(&sink), shown);
        }
    }

    #[test]
    fn a_report_names_what_is_wrong() {
        let mut report = Report { size: 40, expected: 39, proven: 37, ..Report::default() };
        report.lacks(11, "login.failed isn't there");
        report.extra.add(None, "a document without an index of this log");
        let text = text("loki", &report);
        assert!(
            text.contains("proven      37 of 39") && text.contains("11: login.failed isn't there"),
            "{text}"
        );
        assert!(text.contains("EXTRA") && !text.contains("ALTERED"), "{text}");
    }

    #[test]
    fn a_report_is_printed_also_where_its_repair_cannot_begin() {
        let heard = |report: Option<Report>| Heard {
            report: report.map(Box::new),
            failed: Some("a replay is under way".to_owned()),
            ..Heard::default()
        };
        let mut report = Report { size: 40, expected: 40, proven: 39, ..Report::default() };
        report.lacks(11, "login.failed isn't there");
        for as_json in [false, true] {
            let mut printed = String::new();
            let ended =
                heard(Some(report.clone())).end("loki", as_json, |text| printed.push_str(text)).unwrap_err();
            assert!(printed.contains("login.failed isn't there") && printed.ends_with('\n'), "{printed}");
            assert_eq!(ended.to_string(), "a replay is under way");
        }
        let ended = heard(None).end("loki", true, |text| panic!("{text}")).unwrap_err();
        assert_eq!(ended.to_string(), "a replay is under way");
    }

    #[test]
    fn a_replay_of_somebody_else_is_no_progress_of_this_one() {
        let begun = Replaying { index: 90, from: 20, to: 40 };
        assert_eq!((sent_of(&begun, &(30..40)), sent_of(&begun, &(3..9))), (10, 0));
    }

    #[test]
    fn what_was_refused_is_said_to_people_and_to_programs() {
        let report = Report { size: 40, expected: 37, proven: 37, rejected: 3, ..Report::default() };
        let part = Report { from: 20, ..report.clone() };
        assert!(
            super::text("loki", &part).starts_with("loki, compared with the events of the log from 20 to 40")
        );
        let text = text("loki", &report);
        assert!(text.contains("REFUSED     3: custody sinks dead-letters loki"), "{text}");
        let json = serde_json::to_value(Judged { verdict: report.verdict(), report: &report }).unwrap();
        assert_eq!((&json["verdict"], &json["rejected"]), (&json!("incomplete"), &json!(3)));
    }

    #[test]
    fn an_index_is_a_number_and_everything_else_a_time() {
        assert_eq!(place("40").unwrap(), json!(40));
        assert!(place("2026-11-25T09:00:00Z").unwrap().is_string());
        assert!(place("yesterday").is_err());
    }
}
