//! From the path of a field to the line and the column where it stands. Made only when
//! there is a mistake to tell.

use super::document::{Document, Field};

/// A field and where it stands, both counted from 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// Its path as the configuration knows it: what was left out does not count.
    pub(super) path: String,
    /// Its path as it was written.
    pub(super) shown: String,
    pub(super) line: usize,
    pub(super) column: usize,
}

/// Fields that may be written under another name.
const ALIASES: [(&str, &str); 1] = [("rules.rule_files", "rules.files")];

/// The place of a field, or else of what it would be in. Gives the path to show too.
pub(super) fn find<'p>(places: &'p [Place], path: &str) -> Option<(&'p Place, String)> {
    let is_written = |name: &str| places.iter().any(|place| place.path == name);
    let alias = ALIASES.iter().find_map(|(name, other)| {
        let rest = path.strip_prefix(name)?;
        is_written(other).then(|| format!("{other}{rest}"))
    });
    let path = alias.as_deref().unwrap_or(path);
    let mut known = path;
    loop {
        if let Some(place) = places.iter().find(|place| place.path == known) {
            return Some((place, format!("{}{}", place.shown, &path[known.len()..])));
        }
        known = &known[..known.rfind(['.', '['])?];
    }
}

/// The line and the column of a byte, both counted from 1.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let at = at.min(text.len());
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[start..].chars().count() + 1)
}

/// The places of all fields of a text.
pub(super) fn places(document: &Document<'_>, text: &str) -> Vec<Place> {
    let place = |field: Field| {
        let (line, column) = position(text, field.at);
        Place {
            path: field.path,
            shown: field.shown,
            line,
            column,
        }
    };
    document.fields().into_iter().map(place).collect()
}
