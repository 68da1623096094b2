//! Shares the memory of equal label sets: a mesh has many endpoints and few sets.

use std::collections::BTreeSet;

use super::set::LabelSet;

/// Hands out one shared copy per set of labels.
#[derive(Debug, Default)]
pub struct LabelInterner {
    sets: BTreeSet<LabelSet>,
}

impl LabelInterner {
    /// The shared copy that equals `set`.
    pub fn intern(&mut self, set: LabelSet) -> LabelSet {
        if let Some(known) = self.sets.get(&set) {
            return known.clone();
        }
        self.sets.insert(set.clone());
        set
    }

    /// Forgets the set; copies in use live on.
    pub fn forget(&mut self, set: &LabelSet) {
        self.sets.remove(set);
    }

    /// How many sets it knows.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_share_memory() {
        let mut interner = LabelInterner::default();
        let first = interner.intern(LabelSet::parse(["k8s:a=1"]).unwrap());
        let second = interner.intern(LabelSet::parse(["k8s:a=1"]).unwrap());
        assert!(std::ptr::eq(first.iter().as_slice(), second.iter().as_slice()));
        assert_eq!(interner.len(), 1);
        interner.forget(&first);
        assert!(interner.is_empty());
    }
}
