//! All entries were found, and together they aren't what was signed: then some of them aren't the log's, and another document
//! for the same index is. So all that destinations hold is compared with what was taken, and the signed root says which
//! of it is the log's.

use super::{Rebuilding, listed, waiting};
use anyhow::{anyhow, bail};
use custody_core::log::embedded::import::Import;
use custody_core::log::{Entry, ReadError};
use custody_sinks::restore::{Copied, Disputes, Walk, Ways};
use custody_sinks::sink::Held;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// So many entries are read at once, and so many bytes.
const ENTRIES: usize = 4_096;
const BYTES: usize = 4 << 20;
/// How many indexes are named together with what each sink has of them.
const EXPLAINED: usize = 3;
/// Around the time of a document, to see who shows it: no store's times are coarser.
const MOMENT: Duration = Duration::from_millis(1);
/// How long a sink may show nothing that is only asked who shows it.
const PATIENCE: Duration = Duration::from_secs(5);

impl Rebuilding<'_> {
    /// Takes other entries instead of those that were taken, so that it is what was signed; else says what there is to choose from.
    pub(super) async fn settle(&mut self) -> anyhow::Result<()> {
        // What was taken is read back.
        self.import.flush()?;
        let disputes = self.disputes().await?;
        let (pins, is_tried_out) = self.chosen(&disputes)?;
        let first = pins.as_ref().and_then(|pins| pins.keys().next().copied());
        if let (Some(first), Some(pins)) = (first, pins) {
            self.pins = pins;
            self.import.rewind_to(first, &mut |_, _, _| {})?;
            self.fill(first).await?;
        } else if !disputes.is_empty() {
            // Too much of it, perhaps since much was replaced here: all that the destinations have.
            let size = self.checkpoint.size();
            self.import.rewind(&mut |_, _, _| {})?;
            self.fetch(0..size, self.salvage.appended(size), true).await?;
        }
        if self.lacking.is_empty() && self.import.root() == self.checkpoint.root() {
            return Ok(());
        }
        self.replaced.clear();
        if disputes.is_empty() {
            bail!(
                "all entries were found, but together they aren't what was signed: one of them was replaced by another \
                 with a leaf hash of its own. Nothing was changed"
            );
        }
        let (named, advice) = self.explained(&disputes).await;
        let tried = if is_tried_out {
            "no choice among them is what was signed"
        } else {
            "there are more ways to choose among them than can be tried"
        };
        bail!("several entries claim the same index, and {tried}: {named}. {advice}. Nothing was changed");
    }

    /// What the destinations hold otherwise than it was taken.
    async fn disputes(&self) -> anyhow::Result<Disputes> {
        let size = self.checkpoint.size();
        let within = self.within(self.salvage.appended(size));
        let (mut disputes, mut taken) = (Disputes::default(), Taken::default());
        let mut walk = Walk::new(self.archives, within);
        loop {
            let shown = walk.next(&mut |reason: Option<&str>| waiting(&self.bar, reason)).await;
            let shown = shown.map_err(|reason| {
                anyhow!("what the sinks hold can't be compared: {reason}. Nothing was changed")
            })?;
            let Some(shown) = shown else { return Ok(disputes) };
            for (index, documents) in shown.range(..size) {
                if let Some(entry) = taken.at(&self.import, *index)? {
                    disputes.compare(entry, documents);
                }
            }
        }
    }

    /// What to take of the disputed indexes, where something is what was signed; and whether all that is possible was tried.
    fn chosen(&self, disputes: &Disputes) -> anyhow::Result<(Option<BTreeMap<u64, Copied>>, bool)> {
        if disputes.is_empty() {
            return Ok((None, true));
        }
        let (mut ways, mut next) = (Ways::default(), 0);
        while next < self.checkpoint.size() {
            let entries = self.import.read(next, ENTRIES, BYTES)?;
            if entries.is_empty() {
                bail!(
                    "entry {next} was written a moment ago and isn't there any more: is the disk in order?"
                );
            }
            for entry in entries {
                next = entry.index + 1;
                disputes.follow(&mut ways, &entry);
            }
        }
        let picks = ways.giving(self.checkpoint.root());
        Ok((picks.map(|picks| disputes.picked(picks)), !ways.is_pruned() && !disputes.is_full()))
    }

    /// The first disputed indexes with what each sink has of them, and what to do.
    async fn explained(&self, disputes: &Disputes) -> (String, String) {
        let (mut named, mut holders) = (Vec::new(), Vec::new());
        for (index, entries) in disputes.iter().take(EXPLAINED) {
            let (mut leaves, mut each) = (Vec::new(), Vec::new());
            for copied in entries {
                let names = self.shown_by(index, copied).await;
                let place = if names.is_empty() {
                    "no sink".to_owned()
                } else {
                    names.iter().copied().collect::<Vec<&str>>().join(" and ")
                };
                leaves.push(format!("leaf hash {} in {place}", copied.leaf()));
                each.push(names);
            }
            named.push(format!("entry {index}: {}", leaves.join(", or ")));
            holders.push(each);
        }
        let others = listed(&disputes.iter().skip(EXPLAINED).map(|(index, _)| index).collect::<Vec<u64>>());
        if !others.is_empty() {
            named.push(format!("as well {others}"));
        }
        (named.join("; "), self.advice(&holders))
    }

    /// Which sinks show this entry at the time at which it was found.
    async fn shown_by(&self, index: u64, copied: &Copied) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        for (archive, name) in self.archives.iter().zip(self.names) {
            let moment = copied.appended..copied.appended.saturating_add(MOMENT);
            let mut walk = Walk::new(std::slice::from_ref(archive), moment).with_patience(PATIENCE);
            // One that can't be asked any more isn't named.
            while let Ok(Some(shown)) = walk.next(&mut |_: Option<&str>| {}).await {
                let is_it = |held: &Held| held.original.as_ref() == Some(&copied.bytes);
                if shown.get(&index).is_some_and(|documents| documents.iter().any(is_it)) {
                    names.insert(name.as_str());
                }
            }
        }
        names
    }

    /// What to do, by who holds each of the entries that claim an index.
    fn advice(&self, holders: &[Vec<BTreeSet<&str>>]) -> String {
        let names = self.names.iter().map(String::as_str);
        let spoilers: Vec<&str> =
            names.filter(|name| holders.iter().all(|each| is_settled_without(name, each))).collect();
        if self.names.len() == 1 {
            "Restore from another sink, or remove from this one what isn't the log's".to_owned()
        } else if spoilers.is_empty() {
            "Restore from one sink at a time, or remove from them what isn't the log's".to_owned()
        } else {
            format!("Leave out --from {}", spoilers.join(", or else --from "))
        }
    }
}

/// Whether one entry is left of those that claim an index where this sink is left out, by who holds each of them.
fn is_settled_without(sink: &str, each: &[BTreeSet<&str>]) -> bool {
    let left = each.iter().filter(|names| names.iter().any(|name| *name != sink)).count();
    left <= 1 && each.iter().all(|names| !names.is_empty())
}

/// What was taken, read in pieces.
#[derive(Default)]
struct Taken(Vec<Entry>);

impl Taken {
    fn at(&mut self, import: &Import, index: u64) -> Result<Option<&Entry>, ReadError> {
        let place = |entries: &[Entry]| {
            let first = entries.first()?.index;
            let place = usize::try_from(index.checked_sub(first)?).ok()?;
            (place < entries.len()).then_some(place)
        };
        if place(&self.0).is_none() {
            self.0 = import.read(index, ENTRIES, BYTES)?;
        }
        Ok(place(&self.0).and_then(|place| self.0.get(place)))
    }
}
