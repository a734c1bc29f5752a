//! The kernel's rules of each policy. A policy names a set of entries in the tries; a new set is written whole before the policy's one
//! write that turns to it, and the old set goes after that: no connection is ever judged by half a set.

use super::error::SensorError;
use super::layout::{net_key, net_rule, policy};
use super::load::open_map;
use super::pins::Generation;
use super::record::put;
use super::rules::{Entry, PolicyRules, compile};
use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, LpmTrie, MapData};
use std::collections::{BTreeMap, BTreeSet};

type Trie = LpmTrie<MapData, [u8; net_key::SIZE - 4], [u8; net_rule::SIZE]>;

pub(super) struct Policies {
    policies: HashMap<MapData, u32, [u8; policy::SIZE]>,
    denied: Trie,
    allowed: Trie,
    /// What this run has set.
    known: BTreeMap<u32, PolicyRules>,
}

impl Policies {
    pub(super) fn open(generation: &Generation) -> Result<Policies, SensorError> {
        let mut policies = Policies {
            policies: open_map(generation, "policies")?,
            denied: open_map(generation, "denied")?,
            allowed: open_map(generation, "allowed")?,
            known: BTreeMap::new(),
        };
        policies.sweep()?;
        Ok(policies)
    }

    /// Sets of rules that no policy names: an earlier run was killed while it wrote or removed them.
    fn sweep(&mut self) -> Result<(), SensorError> {
        let named = self.named()?;
        let orphans: BTreeSet<u32> = self.sets()?.difference(&named).copied().collect();
        orphans.into_iter().try_for_each(|rules| self.remove_rules(rules))
    }

    pub(super) fn holds(&self, number: u32) -> Result<bool, SensorError> {
        Ok(self.rules_of(number)?.is_some())
    }

    pub(super) fn set(&mut self, number: u32, rules: &PolicyRules) -> Result<(), SensorError> {
        let denied = compile(&rules.denied)?;
        let allowed = compile(rules.allowed.as_deref().unwrap_or_default())?;
        let old = self.rules_of(number)?;
        let new = self.unused()?;
        let written =
            insert(&mut self.denied, &denied, new).and_then(|()| insert(&mut self.allowed, &allowed, new));
        if written.is_err() {
            self.remove_rules(new)?;
            return written;
        }
        let mut value = [0; policy::SIZE];
        put(&mut value, policy::RULES, &new.to_ne_bytes());
        put(&mut value, policy::FLAGS, &rules.flags().to_ne_bytes());
        self.policies
            .insert(number, value, 0)
            .map_err(|error| SensorError::kernel(format!("setting policy {number}"), error))?;
        self.known.insert(number, rules.clone());
        old.map_or(Ok(()), |old| self.remove_rules(old))
    }

    /// The rules that this run has set.
    pub(super) fn known(&self, number: u32) -> Option<&PolicyRules> {
        self.known.get(&number)
    }

    pub(super) fn remove(&mut self, number: u32) -> Result<(), SensorError> {
        self.known.remove(&number);
        let Some(rules) = self.rules_of(number)? else { return Ok(()) };
        self.policies
            .remove(&number)
            .map_err(|error| SensorError::kernel(format!("dropping policy {number}"), error))?;
        self.remove_rules(rules)
    }

    fn rules_of(&self, number: u32) -> Result<Option<u32>, SensorError> {
        match self.policies.get(&number, 0) {
            Ok(value) => Ok(rules_in(&value)),
            Err(error) if super::is_absent(&error) => Ok(None),
            Err(error) => Err(SensorError::kernel(format!("reading policy {number}"), error)),
        }
    }

    /// A number that no set of rules has.
    fn unused(&self) -> Result<u32, SensorError> {
        let mut used = self.named()?;
        used.append(&mut self.sets()?);
        Ok((0..u32::MAX).find(|number| !used.contains(number)).unwrap_or_default())
    }

    /// The sets that policies name.
    fn named(&self) -> Result<BTreeSet<u32>, SensorError> {
        let mut named = BTreeSet::new();
        for policy in self.policies.iter() {
            let (_, value) = policy.map_err(|error| SensorError::kernel("listing the policies", error))?;
            named.extend(rules_in(&value));
        }
        Ok(named)
    }

    /// The sets that have entries.
    fn sets(&self) -> Result<BTreeSet<u32>, SensorError> {
        let mut sets = BTreeSet::new();
        for key in self.denied.keys().chain(self.allowed.keys()) {
            let key = key.map_err(|error| SensorError::kernel("listing the rules", error))?;
            sets.extend(rules_of_key(&key));
        }
        Ok(sets)
    }

    fn remove_rules(&mut self, rules: u32) -> Result<(), SensorError> {
        for trie in [&mut self.denied, &mut self.allowed] {
            let keys: Vec<_> =
                trie.keys().filter_map(Result::ok).filter(|key| rules_of_key(key) == Some(rules)).collect();
            for key in keys {
                match trie.remove(&key) {
                    Ok(()) => {}
                    Err(error) if super::is_absent(&error) => {}
                    Err(error) => {
                        return Err(SensorError::kernel("removing rules that hold no longer", error));
                    }
                }
            }
        }
        Ok(())
    }
}

fn insert(trie: &mut Trie, entries: &[Entry], rules: u32) -> Result<(), SensorError> {
    for entry in entries {
        let (prefix, key) = entry.key(rules);
        trie.insert(&Key::new(prefix, key), entry.value(), 0).map_err(|error| {
            SensorError::kernel("writing a policy's rules (65,536 networks is the most)", error)
        })?;
    }
    Ok(())
}

fn rules_in(value: &[u8; policy::SIZE]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn rules_of_key(key: &Key<[u8; net_key::SIZE - 4]>) -> Option<u32> {
    key.data().first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}
