//! A small least-recently-used cache, bounded by the sum of its values' weights.

use std::collections::HashMap;
use std::hash::Hash;

/// Keeps the most recently used values whose weights fit into a budget.
///
/// Eviction looks at every entry; our caches hold tens of entries, where that beats a linked list.
#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    entries: HashMap<K, Entry<V>>,
    budget: usize,
    weight: usize,
    uses: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    weight: usize,
    last_use: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Lru<K, V> {
    /// An empty cache; `budget` is in the unit of the weights given to [`Lru::insert`].
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            entries: HashMap::new(),
            budget,
            weight: 0,
            uses: 0,
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.weight = 0;
    }

    /// The value, which becomes the most recently used one.
    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        self.uses += 1;
        let entry = self.entries.get_mut(key)?;
        entry.last_use = self.uses;
        Some(entry.value.clone())
    }

    /// Keeps `value`, dropping the least recently used ones until all fit. A value heavier than the
    /// budget is not kept at all.
    pub(crate) fn insert(&mut self, key: K, value: V, weight: usize) {
        if let Some(old) = self.entries.remove(&key) {
            self.weight -= old.weight;
        }
        if weight > self.budget {
            return;
        }
        while self.weight + weight > self.budget {
            // Uses are numbered once each, so the oldest is unique and eviction is deterministic.
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last_use);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            if let Some(entry) = self.entries.remove(&oldest) {
                self.weight -= entry.weight;
            }
        }
        self.uses += 1;
        self.weight += weight;
        self.entries.insert(
            key,
            Entry {
                value,
                weight,
                last_use: self.uses,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_value_goes_first() {
        let mut cache = Lru::new(3);
        for key in 0..3 {
            cache.insert(key, key * 10, 1);
        }
        assert_eq!(cache.get(&0), Some(0));
        cache.insert(3, 30, 1);
        assert_eq!(cache.get(&1), None);
        assert_eq!(cache.get(&0), Some(0));
        cache.insert(4, 40, 3);
        assert_eq!((cache.get(&0), cache.get(&4)), (None, Some(40)));
    }

    #[test]
    fn a_value_heavier_than_the_budget_is_not_kept() {
        let mut cache = Lru::new(3);
        cache.insert(1, 1, 2);
        cache.insert(2, 2, 4);
        assert_eq!((cache.get(&1), cache.get(&2)), (Some(1), None));
    }
}
