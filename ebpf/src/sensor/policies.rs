//! The kernel's rules of each policy. A policy names a set of entries in the maps; a new set is written whole before the policy's one
//! write that turns to it, and the old set goes after that: nothing is ever judged by half a set. Policies that say the same share one.

use super::Tier;
use super::error::SensorError;
use super::files::{Entries, FileId, Found, Said, set_of_name};
use super::layout::{file_key, file_rule, name_key, net, net_key, net_rule, policy};
use super::load::open_map;
use super::pins::Generation;
use super::record::{put, read_u32};
use super::rules::{Entry, PolicyRules, compile};
use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, LpmTrie, MapData};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

type Trie = LpmTrie<MapData, [u8; net_key::SIZE - 4], [u8; net_rule::SIZE]>;
type Files = HashMap<MapData, [u8; file_key::SIZE], [u8; file_rule::SIZE]>;
type Names = HashMap<MapData, [u8; name_key::SIZE], [u8; file_rule::SIZE]>;

pub(super) struct Policies {
    tier: Tier,
    policies: HashMap<MapData, u32, [u8; policy::SIZE]>,
    denied: Trie,
    allowed: Trie,
    files: Files,
    names: Names,
    /// Which set each policy names that this run has set.
    known: BTreeMap<u32, u32>,
    /// Those sets.
    sets: BTreeMap<u32, Set>,
    /// Numbers of sets that have entries, or are named.
    used: BTreeSet<u32>,
}

/// A set of rules, as this run has written it.
struct Set {
    rules: PolicyRules,
    /// What it says of files.
    entries: Entries,
}

impl Policies {
    pub(super) fn open(generation: &Generation, tier: Tier) -> Result<Policies, SensorError> {
        let mut policies = Policies {
            tier,
            policies: open_map(generation, "policies")?,
            denied: open_map(generation, "denied")?,
            allowed: open_map(generation, "allowed")?,
            files: open_map(generation, "file_rules")?,
            names: open_map(generation, "name_rules")?,
            known: BTreeMap::new(),
            sets: BTreeMap::new(),
            used: BTreeSet::new(),
        };
        policies.sweep()?;
        Ok(policies)
    }

    /// Sets of rules that no policy names: an earlier run was killed while it wrote or removed them.
    fn sweep(&mut self) -> Result<(), SensorError> {
        let named = self.named()?;
        let orphans: BTreeSet<u32> = self.filled()?.difference(&named).copied().collect();
        self.sets.retain(|set, _| named.contains(set));
        self.used = named;
        orphans.into_iter().try_for_each(|set| self.remove_rules(set))
    }

    /// Removes all policies but these; gives the numbers of those that are left.
    pub(super) fn keep(&mut self, needed: &BTreeSet<u32>) -> Result<BTreeSet<u32>, SensorError> {
        let held = self.policies.keys().collect::<Result<BTreeSet<u32>, _>>();
        let held = held.map_err(|error| SensorError::kernel("listing the policies", error))?;
        let (kept, unneeded): (BTreeSet<u32>, BTreeSet<u32>) =
            held.into_iter().partition(|number| needed.contains(number));
        for number in &unneeded {
            self.known.remove(number);
            gone(self.policies.remove(number))?;
        }
        // All at once: each by itself would have the kernel's whole lists gone through.
        if !unneeded.is_empty() {
            self.sweep()?;
        }
        Ok(kept)
    }

    pub(super) fn holds(&self, number: u32) -> Result<bool, SensorError> {
        Ok(self.set_of(number)?.is_some())
    }

    /// Sets a policy's rules; `found` is what their paths lead to.
    pub(super) fn set(&mut self, number: u32, rules: &PolicyRules, found: &Found) -> Result<(), SensorError> {
        rules.files.check()?;
        let old = self.set_of(number)?;
        let same = self.sets.iter().find(|(_, set)| set.rules == *rules).map(|(set, _)| *set);
        let set = match same {
            Some(set) => set,
            None => {
                let mut entries = Entries::compile(&rules.files, found);
                if let Some(old) = old {
                    entries.keep_denied(&self.held(old)?, &rules.files);
                }
                self.write(Set { rules: rules.clone(), entries })?
            }
        };
        self.turn(number, set)?;
        old.map_or(Ok(()), |old| self.remove_unnamed(old))
    }

    /// The paths that rules of this run's policies speak of.
    pub(super) fn paths(&self) -> BTreeSet<PathBuf> {
        self.sets.values().flat_map(|set| set.rules.files.paths()).map(ToOwned::to_owned).collect()
    }

    /// Has the rules hold for what their paths lead to now.
    pub(super) fn found(&mut self, found: &Found) -> Result<(), SensorError> {
        let mut changed = Vec::new();
        // What was set since they were looked up was looked up by itself.
        let looked_up = |set: &&Set| set.rules.files.paths().all(|path| found.has(path));
        for (old, set) in self.sets.iter().filter(|(_, set)| looked_up(set)) {
            let mut entries = Entries::compile(&set.rules.files, found);
            entries.keep_denied(&set.entries.files, &set.rules.files);
            if entries != set.entries {
                changed.push((*old, Set { rules: set.rules.clone(), entries }));
            }
        }
        for (old, set) in changed {
            let of_old: Vec<u32> =
                self.known.iter().filter(|(_, set)| **set == old).map(|(number, _)| *number).collect();
            let new = self.write(set)?;
            of_old.into_iter().try_for_each(|number| self.turn(number, new))?;
            self.remove_unnamed(old)?;
        }
        Ok(())
    }

    /// The rules that this run has set.
    pub(super) fn known(&self, number: u32) -> Option<&PolicyRules> {
        self.known.get(&number).and_then(|set| self.sets.get(set)).map(|set| &set.rules)
    }

    pub(super) fn remove(&mut self, number: u32) -> Result<(), SensorError> {
        self.known.remove(&number);
        let Some(set) = self.set_of(number)? else { return Ok(()) };
        self.policies
            .remove(&number)
            .map_err(|error| SensorError::kernel(format!("dropping policy {number}"), error))?;
        self.remove_unnamed(set)
    }

    /// Writes a set that no policy names yet; gives its number.
    fn write(&mut self, content: Set) -> Result<u32, SensorError> {
        let denied = compile(&content.rules.denied)?;
        let allowed = compile(content.rules.allowed.as_deref().unwrap_or_default())?;
        let set = (0..u32::MAX).find(|number| !self.used.contains(number)).unwrap_or_default();
        self.used.insert(set);
        let written = insert(&mut self.denied, &denied, set)
            .and_then(|()| insert(&mut self.allowed, &allowed, set))
            .and_then(|()| self.insert_files(&content.entries, set));
        if written.is_err() {
            self.remove_rules(set)?;
        }
        written?;
        self.sets.insert(set, content);
        Ok(set)
    }

    /// The one write by which a policy turns to a set that this run has written.
    fn turn(&mut self, number: u32, set: u32) -> Result<(), SensorError> {
        let Set { rules, entries } = self.sets.get(&set).ok_or(SensorError::NoPolicy(number))?;
        // By LSM each script is asked for as itself.
        let no_scripts = self.tier == Tier::Tracepoint && entries.of_scripts;
        let unfollowed = self.flags(number)? & net::UNFOLLOWED;
        let flags = rules.flags() | unfollowed | if no_scripts { net::NO_SCRIPTS } else { 0 };
        let mut value = [0; policy::SIZE];
        put(&mut value, policy::RULES, &set.to_ne_bytes());
        put(&mut value, policy::FLAGS, &flags.to_ne_bytes());
        put(&mut value, policy::LISTS, &rules.files.lists().to_ne_bytes());
        for (index, list) in rules.files.allowed_programs.iter().enumerate() {
            put(&mut value, policy::LIST + index * 4, &list.id.to_ne_bytes());
        }
        self.policies.insert(number, value, 0).map_err(|error| {
            SensorError::kernel(format!("setting policy {number} (16,384 is the most)"), error)
        })?;
        self.known.insert(number, set);
        Ok(())
    }

    fn insert_files(&mut self, entries: &Entries, set: u32) -> Result<(), SensorError> {
        let full = |error| {
            SensorError::kernel(
                "writing a policy's rules of files (262,144 files and names is the most)",
                error,
            )
        };
        for (file, said) in &entries.files {
            self.files.insert(file.key(set), said.value(), 0).map_err(full)?;
        }
        for ((directory, name), said) in &entries.names {
            // A longer name is none that a file can have.
            let Some(key) = directory.name_key(name, set) else { continue };
            self.names.insert(key, said.value(), 0).map_err(full)?;
        }
        Ok(())
    }

    /// What a set says of files: as this run wrote it, or as the kernel has it from an earlier one.
    fn held(&self, set: u32) -> Result<BTreeMap<FileId, Said>, SensorError> {
        if let Some(set) = self.sets.get(&set) {
            return Ok(set.entries.files.clone());
        }
        let mut held = BTreeMap::new();
        for entry in self.files.iter() {
            let (key, value) =
                entry.map_err(|error| SensorError::kernel("listing the rules of files", error))?;
            let (file, of_set) = FileId::of_key(&key);
            if of_set == set {
                held.insert(file, Said::of_value(&value));
            }
        }
        Ok(held)
    }

    fn set_of(&self, number: u32) -> Result<Option<u32>, SensorError> {
        Ok(self.value(number)?.and_then(|value| read_u32(&value, policy::RULES)))
    }

    /// Whether a socket was made under the policy that no rule can keep from a network.
    pub(super) fn unfollowed(&self, number: u32) -> Result<bool, SensorError> {
        Ok(self.flags(number)? & net::UNFOLLOWED != 0)
    }

    /// None, of a policy that isn't there.
    fn flags(&self, number: u32) -> Result<u32, SensorError> {
        Ok(self.value(number)?.and_then(|value| read_u32(&value, policy::FLAGS)).unwrap_or_default())
    }

    fn value(&self, number: u32) -> Result<Option<[u8; policy::SIZE]>, SensorError> {
        match self.policies.get(&number, 0) {
            Ok(value) => Ok(Some(value)),
            Err(error) if super::is_absent(&error) => Ok(None),
            Err(error) => Err(SensorError::kernel(format!("reading policy {number}"), error)),
        }
    }

    /// The sets that policies name.
    fn named(&self) -> Result<BTreeSet<u32>, SensorError> {
        let mut named = BTreeSet::new();
        for policy in self.policies.iter() {
            let (_, value) = policy.map_err(|error| SensorError::kernel("listing the policies", error))?;
            named.extend(read_u32(&value, policy::RULES));
        }
        Ok(named)
    }

    /// The sets that have entries.
    fn filled(&self) -> Result<BTreeSet<u32>, SensorError> {
        let failed = |error| SensorError::kernel("listing the rules", error);
        let mut sets = BTreeSet::new();
        for key in self.denied.keys().chain(self.allowed.keys()) {
            sets.extend(set_of_network(&key.map_err(failed)?));
        }
        for key in self.files.keys() {
            sets.insert(FileId::of_key(&key.map_err(failed)?).1);
        }
        for key in self.names.keys() {
            sets.insert(set_of_name(&key.map_err(failed)?));
        }
        Ok(sets)
    }

    fn remove_unnamed(&mut self, set: u32) -> Result<(), SensorError> {
        // Nearly all policies say the same: the kernel's whole list is gone through only for what nobody here names.
        if self.known.values().any(|named| *named == set) {
            return Ok(());
        }
        self.sets.remove(&set);
        if self.named()?.contains(&set) { Ok(()) } else { self.remove_rules(set) }
    }

    fn remove_rules(&mut self, set: u32) -> Result<(), SensorError> {
        for trie in [&mut self.denied, &mut self.allowed] {
            let keys: Vec<_> =
                trie.keys().filter_map(Result::ok).filter(|key| set_of_network(key) == Some(set)).collect();
            for key in keys {
                gone(trie.remove(&key))?;
            }
        }
        let files: Vec<_> =
            self.files.keys().filter_map(Result::ok).filter(|key| FileId::of_key(key).1 == set).collect();
        for key in files {
            gone(self.files.remove(&key))?;
        }
        let names: Vec<_> =
            self.names.keys().filter_map(Result::ok).filter(|key| set_of_name(key) == set).collect();
        for key in names {
            gone(self.names.remove(&key))?;
        }
        self.used.remove(&set);
        Ok(())
    }
}

fn gone(removed: Result<(), aya::maps::MapError>) -> Result<(), SensorError> {
    match removed {
        Err(error) if !super::is_absent(&error) => {
            Err(SensorError::kernel("removing rules that hold no longer", error))
        }
        _ => Ok(()),
    }
}

fn insert(trie: &mut Trie, entries: &[Entry], set: u32) -> Result<(), SensorError> {
    for entry in entries {
        let (prefix, key) = entry.key(set);
        trie.insert(&Key::new(prefix, key), entry.value(), 0).map_err(|error| {
            SensorError::kernel("writing a policy's rules (65,536 networks is the most)", error)
        })?;
    }
    Ok(())
}

fn set_of_network(key: &Key<[u8; net_key::SIZE - 4]>) -> Option<u32> {
    key.data().first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}
