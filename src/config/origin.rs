//! Where a configuration was written, so that a mistake found much later can be told
//! with its place.

use std::fmt;

use super::document::{Document, Field, Way};
use super::mistake::{Mistake, Mistakes, Told, told};
use super::places;

/// Stands in paths for the tree that `[alerting] config_file` names.
pub(super) const TREE_FILE: &str = "alerting.file";

/// Mistakes of names and values that are told at once.
const MISTAKES_MAX: usize = 100;

/// Longer lines are not shown.
const PICTURE_BYTES_MAX: usize = 200;

/// Tables whose fields are judged together.
const JUDGED_AS_ONE: [&str; 7] = [
    "source",
    "destination",
    "ingest",
    "alerting",
    "route",
    "tenant",
    "auth",
];

/// Tables that are judged by what another one says.
const JUDGED_BY: [(&str, &str); 3] = [
    ("server", "auth"),
    ("route", "destination"),
    ("alerting", "destination"),
];

/// Where a configuration was written.
#[derive(Clone, Default)]
pub struct Origin {
    pub(super) file: Written,
    /// The `alertmanager.yml`.
    pub(super) tree: Written,
    /// Why there is none.
    pub(super) not_read: Option<Mistake>,
    /// Fields that the command line set, and by what.
    pub(super) flags: Vec<(&'static str, &'static str)>,
}

/// A file's name and text; both empty for the built-in defaults.
#[derive(Clone, Default)]
pub(super) struct Written {
    pub(super) name: String,
    pub(super) text: String,
    is_yaml: bool,
    /// The mistakes of form with their lines, told already.
    pub(super) told: Vec<(usize, Told)>,
    /// What was passed over because of them.
    pub(super) left_out: Vec<LeftOut>,
}

/// A field that was passed over.
#[derive(Clone)]
pub(super) struct LeftOut {
    pub(super) way: Way,
    /// Its path as it was written.
    pub(super) shown: String,
}

impl Origin {
    /// Notes that a field was not set by the file but by this argument.
    pub fn set_by(&mut self, path: &'static str, flag: &'static str) {
        self.flags.push((path, flag));
    }

    /// The mistakes with their places, those of form before them, in the order of the
    /// lines. What may only follow from a mistake of form is left out.
    pub(super) fn tell(&self, mistakes: Vec<Mistake>) -> Mistakes {
        let mut all: Vec<((usize, usize), Told)> = Vec::new();
        for (number, written) in [&self.file, &self.tree].into_iter().enumerate() {
            let told = written.told.iter();
            all.extend(told.map(|(line, told)| ((number, *line), told.clone())));
        }
        if !mistakes.is_empty() {
            let fields = (self.file.fields(), self.tree.fields());
            let located = mistakes.iter().filter_map(|m| self.locate(m, &fields));
            all.extend(located.take(MISTAKES_MAX));
        }
        all.sort_by_key(|(place, _)| *place);
        all.dedup_by(|a, b| a.1.line == b.1.line);
        Mistakes(all.into_iter().map(|(_, told)| told).collect())
    }

    /// A mistake with its place: first by file, then by line. `None` when it may only
    /// follow from another.
    fn locate(
        &self,
        mistake: &Mistake,
        (of_file, of_tree): &(Vec<Field>, Vec<Field>),
    ) -> Option<((usize, usize), Told)> {
        let (path, text) = (&mistake.path, &mistake.message);
        let flag = self.flags.iter().find(|(flag, _)| starts_with(path, flag));
        if let Some((_, flag)) = flag {
            return Some(((0, 0), Told::plain(format!("{flag}: {text}"))));
        }
        if path.is_empty() {
            return Some(((2, 0), Told::plain(text.clone())));
        }
        if let Some(path) = path.strip_prefix(TREE_FILE) {
            let path = path.trim_start_matches('.');
            let shown = places::find(of_tree, path).map(|(_, shown)| shown);
            let may_follow = self
                .tree
                .left_out
                .iter()
                .any(|LeftOut { shown: gone, .. }| {
                    of_the_tree_follows(shown.as_deref().unwrap_or(path), gone)
                });
            let (line, told) = self.tree.locate(of_tree, path, text);
            return (!may_follow).then_some(((1, line), told));
        }
        if self.may_follow(mistake, of_file) {
            return None;
        }
        let (line, told) = self.file.locate(of_file, path, text);
        Some(((0, line), told))
    }

    /// Whether a mistake may be one only because something was left out.
    fn may_follow(&self, mistake: &Mistake, fields: &[Field]) -> bool {
        let shown = places::find(fields, &mistake.path).map(|(_, shown)| shown);
        let path = shown.as_ref().unwrap_or(&mistake.path);
        let top = mistake.top();
        self.file
            .left_out
            .iter()
            .any(|LeftOut { shown: gone, .. }| {
                let judged_by = JUDGED_BY
                    .iter()
                    .any(|(table, by)| *table == top && starts_with(gone, by));
                let as_one = JUDGED_AS_ONE.contains(&top) && one_of(gone) == one_of(path);
                judged_by || as_one || starts_with(gone, path)
            })
    }
}

impl Written {
    pub(super) fn new(name: &str, text: &str) -> Written {
        Written {
            name: name.to_owned(),
            text: text.to_owned(),
            ..Written::default()
        }
    }

    /// As [`Written::new`], in YAML.
    pub(super) fn yaml(name: &str, text: &str) -> Written {
        Written {
            is_yaml: true,
            ..Written::new(name, text)
        }
    }

    /// The fields that were not left out. The text is read again: who has no mistake
    /// keeps no tree.
    fn fields(&self) -> Vec<Field> {
        let document = match self.is_yaml {
            true => Document::yaml(&self.text).ok(),
            false => Some(Document::toml(&self.text).0),
        };
        document.map_or_else(Vec::new, |mut document| {
            for gone in &self.left_out {
                document.leave_out(&gone.way);
            }
            document.fields()
        })
    }

    /// The line of a field, and what to tell of it.
    fn locate(&self, fields: &[Field], path: &str, message: &str) -> (usize, Told) {
        match places::find(fields, path) {
            Some((at, shown)) => {
                let place = places::position(&self.text, at);
                (place.0, self.told_at(place, &self.named(&shown, message)))
            }
            None => (0, self.told_of(&self.named(path, message))),
        }
    }

    /// What is wrong with a field, in the way in which its format writes paths.
    pub(super) fn named(&self, path: &str, message: &str) -> String {
        match self.is_yaml && !path.is_empty() {
            true => format!("{path}: {message}"),
            false => told(path, message),
        }
    }

    /// Something to tell of a line.
    pub(super) fn told_at(&self, (line, column): (usize, usize), message: &str) -> Told {
        Told {
            line: format!("{}:{line}:{column}: {}", self.name, one_line(message)),
            picture: picture(&self.text, line, column),
        }
    }

    /// Something to tell of the whole file.
    fn told_of(&self, message: &str) -> Told {
        Told::plain(match self.name.is_empty() {
            true => format!("built-in configuration: {}", one_line(message)),
            false => format!("{}: {}", self.name, one_line(message)),
        })
    }
}

impl Told {
    /// A line without a picture.
    pub(super) fn plain(line: String) -> Told {
        Told {
            line,
            picture: None,
        }
    }
}

/// As one line: what parsers say may have more.
fn one_line(message: &str) -> String {
    let lines: Vec<&str> = message.trim().lines().map(str::trim).collect();
    lines.join(" ")
}

fn picture(text: &str, line: usize, column: usize) -> Option<String> {
    let shown = text.lines().nth(line.checked_sub(1)?)?;
    if shown.len() > PICTURE_BYTES_MAX || shown.contains(char::is_control) {
        return None;
    }
    let gutter = " ".repeat(line.to_string().len());
    let indent = " ".repeat(column.saturating_sub(1));
    Some(format!(
        "{gutter} |\n{line} | {shown}\n{gutter} | {indent}^\n"
    ))
}

/// Whether a path is the field or something in it.
pub(super) fn starts_with(path: &str, field: &str) -> bool {
    let rest = path.strip_prefix(field);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Whether a mistake in a field of an `alertmanager.yml` may be one only because another
/// field was left out: one that is in it, that names what it refers to, or that says for
/// all receivers of a kind what it lacks.
fn of_the_tree_follows(path: &str, gone: &str) -> bool {
    let (list, rest) = gone.split_at(gone.find(['.', '[']).unwrap_or(gone.len()));
    // What a receiver or an interval holds is not its name.
    let may_be_name = !rest.contains("_configs") && !rest.contains(".time_intervals");
    let is_named = may_be_name
        && match list {
            "receivers" => path.ends_with(".receiver") || path.ends_with("].name"),
            "time_intervals" | "mute_time_intervals" => path.contains("_time_intervals["),
            _ => false,
        };
    let kind = match rest.trim_start_matches('.').split('_').next() {
        Some("smtp") => "email",
        kind => kind.unwrap_or_default(),
    };
    let is_shared = list == "global" && path.contains(&format!(".{kind}_configs"));
    starts_with(gone, path) || is_named || is_shared
}

/// The table that a field is judged with: the member of an array, or all of it.
fn one_of(path: &str) -> &str {
    let table = path.find('.').unwrap_or(path.len());
    path.find(']').map_or(&path[..table], |end| &path[..=end])
}

/// Where it was written changes nothing of what it says.
impl PartialEq for Origin {
    fn eq(&self, _: &Origin) -> bool {
        true
    }
}

/// The text may hold secrets.
impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.file.name)
    }
}
