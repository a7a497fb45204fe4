//! From the path of a field to the line and the column where it stands.

use super::document::Field;

/// Fields that may be written under another name.
const ALIASES: [(&str, &str); 1] = [("rules.rule_files", "rules.files")];

/// Where a field begins, or else what it would be in; with the path to show.
pub(super) fn find(fields: &[Field], path: &str) -> Option<(usize, String)> {
    let is_written = |name: &str| fields.iter().any(|field| field.path == name);
    let alias = ALIASES.iter().find_map(|(name, other)| {
        let rest = path.strip_prefix(name)?;
        is_written(other).then(|| format!("{other}{rest}"))
    });
    let path = alias.as_deref().unwrap_or(path);
    let mut known = path;
    loop {
        if let Some(field) = fields.iter().find(|field| field.path == known) {
            return Some((field.at, format!("{}{}", field.shown, &path[known.len()..])));
        }
        known = &known[..known.rfind(['.', '['])?];
    }
}

/// The line and the column of a byte, both counted from 1.
pub fn position(text: &str, at: usize) -> (usize, usize) {
    let at = at.min(text.len());
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[start..].chars().count() + 1)
}
