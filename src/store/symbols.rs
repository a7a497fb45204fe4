//! Label names and values, each kept once.

use ahash::RandomState;
use hashbrown::HashTable;

use super::paged::Paged;

/// Texts by number and numbers by text. Numbers start at 1 and are never used twice.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    texts: Paged<Symbol>,
    ids: HashTable<Hashed>,
    hasher: RandomState,
    last: u32,
}

#[derive(Debug)]
struct Symbol {
    text: Box<str>,
    /// How many label pairs use it.
    uses: u32,
}

/// An id with the upper half of its text's hash, so that a growing table need
/// not look at the texts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hashed {
    pub(super) id: u32,
    hash: u32,
}

impl Hashed {
    /// Keeps the upper half of `hash`.
    pub(super) fn new(id: u32, hash: u64) -> Hashed {
        Hashed {
            id,
            hash: (hash >> 32) as u32,
        }
    }

    /// The same hash for another id.
    pub(super) fn with_id(self, id: u32) -> Hashed {
        Hashed { id, ..self }
    }

    /// The table's hash: the kept half, spread over 64 bits again.
    pub(super) fn spread(self) -> u64 {
        u64::from(self.hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Symbols {
    /// The number of a text.
    pub(super) fn get(&self, text: &str) -> Option<u32> {
        let hash = Hashed::new(0, self.hasher.hash_one(text)).spread();
        self.ids
            .find(hash, |entry| self.text(entry.id) == text)
            .map(|entry| entry.id)
    }

    /// The text of a number; empty when it is unknown.
    pub(super) fn text(&self, id: u32) -> &str {
        self.texts.get(id).map_or("", |symbol| &symbol.text)
    }

    /// The number of a text, which is used once more now; says whether it is new.
    pub(super) fn take(&mut self, text: &str) -> (u32, bool) {
        if let Some(id) = self.get(text) {
            self.use_once_more(id);
            return (id, false);
        }
        let id = self.last + 1;
        self.restore(id, text);
        self.use_once_more(id);
        (id, true)
    }

    /// Counts one more use of a known number.
    pub(super) fn use_once_more(&mut self, id: u32) {
        if let Some(symbol) = self.texts.get_mut(id) {
            symbol.uses += 1;
        }
    }

    /// Puts a stored text back under its number.
    pub(super) fn restore(&mut self, id: u32, text: &str) {
        let symbol = || Symbol {
            text: text.into(),
            uses: 0,
        };
        self.texts.get_or_insert_with(id, symbol);
        let entry = Hashed::new(id, self.hasher.hash_one(text));
        self.ids
            .insert_unique(entry.spread(), entry, |entry| entry.spread());
        self.last = self.last.max(id);
    }

    /// Gives one use back; says whether it was the last and the text is gone.
    pub(super) fn release(&mut self, id: u32) -> bool {
        let Some(symbol) = self.texts.get_mut(id) else {
            return false;
        };
        symbol.uses -= 1;
        if symbol.uses > 0 {
            return false;
        }
        let hash = Hashed::new(id, self.hasher.hash_one(&*symbol.text)).spread();
        if let Ok(entry) = self.ids.find_entry(hash, |entry| entry.id == id) {
            entry.remove();
        }
        self.texts.remove(id);
        true
    }

    /// Takes out every text that nothing uses.
    pub(super) fn drop_unused(&mut self) {
        let texts = &mut self.texts;
        self.ids.retain(|entry| {
            let is_used = texts.get(entry.id).is_some_and(|symbol| symbol.uses > 0);
            if !is_used {
                texts.remove(entry.id);
            }
            is_used
        });
    }

    /// The last number that was given.
    pub(super) fn last(&self) -> u32 {
        self.last
    }

    /// Never gives a number up to `last` again.
    pub(super) fn skip_to(&mut self, last: u32) {
        self.last = self.last.max(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_never_used_twice() {
        let mut symbols = Symbols::default();
        assert_eq!(symbols.take("a"), (1, true));
        assert_eq!(symbols.take("b"), (2, true));
        assert_eq!(symbols.take("a"), (1, false));
        assert!(!symbols.release(1));
        assert!(symbols.release(1));
        assert_eq!(symbols.get("a"), None);
        assert_eq!(symbols.take("a"), (3, true));
        assert_eq!(symbols.text(3), "a");
        assert_eq!(symbols.text(1), "");
    }
}
