//! Rows with equal keys.

use hashbrown::HashMap;

use crate::model::labels::push_text;

/// Puts rows with equal keys together.
///
/// The key of a row is written into a buffer by the caller; members keep the
/// order of the rows, groups that of their first row.
pub(in crate::promql) struct Groups {
    index: HashMap<String, usize>,
    key: String,
}

impl Groups {
    /// No groups yet.
    pub(in crate::promql) fn new() -> Groups {
        Groups {
            index: HashMap::new(),
            key: String::new(),
        }
    }

    /// The group with the key that `write` writes; a new key gets the next number.
    pub(in crate::promql) fn assign(&mut self, write: impl FnOnce(&mut String)) -> usize {
        self.key.clear();
        write(&mut self.key);
        let next = self.index.len();
        *self.index.entry_ref(self.key.as_str()).or_insert(next)
    }

    /// The group with that key, if there is one.
    pub(in crate::promql) fn find(&mut self, write: impl FnOnce(&mut String)) -> Option<usize> {
        self.key.clear();
        write(&mut self.key);
        self.index.get(self.key.as_str()).copied()
    }
}

/// Appends a label to a key. Lengths keep the parts apart.
pub(in crate::promql) fn write_pair(key: &mut String, name: &str, value: &str) {
    push_text(key, name);
    push_text(key, value);
}
