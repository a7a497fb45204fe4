//! The requirements of the source documents, and what shows each of them.
//!
//! A requirement `0.18` is shown by a test whose name starts with `r0_18_`, or
//! by a shipped file (dashboard, rule file, README, reference configuration)
//! that carries the mark `[0.18]`. Everything else stands in
//! `tests/data/requirements-open.txt`, which may only shrink.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// How many requirements are open. Lower it with each one that is shown.
const OPEN_MAX: usize = 153;

/// Files and folders that may show a requirement.
const PLACES: [&str; 6] = [
    "tests/it",
    "assets/dashboards",
    "assets/rules",
    "README.md",
    "config.toml",
    "tests/data/rules",
];

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn ids() -> BTreeSet<String> {
    let table = fs::read_to_string(root("tests/data/requirements.tsv")).unwrap();
    table
        .lines()
        .skip(1)
        .map(|line| line.split('\t').next().unwrap().to_owned())
        .collect()
}

fn collect(path: &Path, into: &mut BTreeMap<String, Vec<PathBuf>>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), into);
        }
    } else if path.ends_with("tests/it/requirements.rs") {
        // Its examples show nothing.
    } else if let Ok(text) = fs::read_to_string(path) {
        for id in marks(&text) {
            into.entry(id).or_default().push(path.to_owned());
        }
    }
}

/// The ids that a text carries: `fn r0_18_...` and `[0.18]`.
fn marks(text: &str) -> BTreeSet<String> {
    let tests = text.split("fn r").skip(1).filter_map(|rest| {
        let mut parts = rest.splitn(3, '_');
        let (document, item) = (parts.next()?, parts.next()?);
        parts.next()?;
        number(document)
            .zip(number(item))
            .map(|(d, i)| (d.to_owned(), i.to_owned()))
    });
    let brackets = text.split('[').skip(1).filter_map(|rest| {
        let (document, item) = rest.split(']').next()?.split_once('.')?;
        number(document)
            .zip(number(item))
            .map(|(d, i)| (d.to_owned(), i.to_owned()))
    });
    tests
        .chain(brackets)
        .map(|(d, i)| format!("{d}.{i}"))
        .collect()
}

fn number(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then_some(text)
}

#[test]
fn every_requirement_is_shown_or_listed_as_open() {
    let ids = ids();
    assert_eq!(ids.len(), 263);
    let mut shown = BTreeMap::new();
    for place in PLACES {
        if root(place).exists() {
            collect(&root(place), &mut shown);
        }
    }
    let open: BTreeSet<String> = fs::read_to_string(root("tests/data/requirements-open.txt"))
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    let unknown: Vec<_> = open.difference(&ids).collect();
    assert!(
        unknown.is_empty(),
        "listed as open but no requirement: {unknown:?}"
    );
    let forgotten: Vec<_> = ids
        .iter()
        .filter(|id| !open.contains(*id) && !shown.contains_key(*id))
        .collect();
    assert!(
        forgotten.is_empty(),
        "neither shown nor open: {forgotten:?}"
    );
    let closed: Vec<_> = open.iter().filter(|id| shown.contains_key(*id)).collect();
    assert!(closed.is_empty(), "shown, so no longer open: {closed:?}");
    assert!(
        open.len() <= OPEN_MAX,
        "{} are open, at most {OPEN_MAX} may be",
        open.len()
    );
}

#[test]
fn marks_are_found_in_names_and_brackets() {
    let text = "fn r0_18_lag() {} // [3.05] [a] fn rate_x fn r1_x";
    assert_eq!(
        marks(text),
        BTreeSet::from(["0.18".to_owned(), "3.05".to_owned()])
    );
}
