//! What was given of the settings, by file, environment and flags: two readings compared tell what has changed.

use std::collections::{BTreeMap, BTreeSet};

use config::{Value, ValueKind};

/// The given values. They may be secrets, so they are compared and never shown.
#[derive(Clone)]
pub struct Given(BTreeMap<String, ValueKind>);

impl Given {
    pub(super) fn of(read: &config::Config) -> Self {
        let table = match &read.cache.kind {
            ValueKind::Table(table) => {
                table.iter().map(|(key, Value { kind, .. })| (key.clone(), kind.clone())).collect()
            }
            _ => BTreeMap::new(),
        };
        Self(table)
    }

    /// The keys that differ, those given only once among them.
    #[must_use]
    pub fn differing(&self, other: &Self) -> BTreeSet<String> {
        let keys = self.0.keys().chain(other.0.keys());
        keys.filter(|key| self.0.get(*key) != other.0.get(*key)).cloned().collect()
    }

    /// Takes over what `other` says of `keys`.
    pub fn take(&mut self, other: &Self, keys: &BTreeSet<String>) {
        for key in keys {
            match other.0.get(key) {
                Some(value) => drop(self.0.insert(key.clone(), value.clone())),
                None => drop(self.0.remove(key)),
            }
        }
    }
}

impl std::fmt::Debug for Given {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}
