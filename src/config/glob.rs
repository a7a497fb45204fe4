//! File patterns as Go's `filepath.Glob` reads them: `*`, `?` and `[a-z]` in any
//! part of a path; a part never matches across a slash.

use std::io;
use std::path::{Path, PathBuf};

/// Files that one pattern may name.
const FILES_MAX: usize = 10_000;

/// Whether a text has anything to expand.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// The files that a pattern names, sorted. A folder that does not exist holds none.
///
/// # Errors
/// When a folder cannot be read, and when there are more than 10,000 files.
pub fn find(pattern: &str) -> io::Result<Vec<PathBuf>> {
    let start = if pattern.starts_with('/') { "/" } else { "" };
    let parts = pattern.split('/').filter(|part| !part.is_empty());
    let mut found = vec![PathBuf::from(start)];
    for part in parts {
        if !is_pattern(part) {
            found.iter_mut().for_each(|path| path.push(part));
            found.retain(|path| path.exists());
            continue;
        }
        let mut next = Vec::new();
        for folder in &found {
            next.extend(matching(folder, part)?);
        }
        if next.len() > FILES_MAX {
            return Err(io::Error::other("more than 10,000 files match"));
        }
        found = next;
    }
    found.retain(|path| path.is_file());
    found.sort_unstable();
    Ok(found)
}

fn matching(folder: &Path, part: &str) -> io::Result<Vec<PathBuf>> {
    let shown = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    if !shown.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(shown)? {
        let name = entry?.file_name();
        if name.to_str().is_some_and(|name| fits(part, name)) {
            found.push(folder.join(name));
        }
    }
    Ok(found)
}

/// Whether a name fits one part of a pattern. A name with a leading dot fits only
/// a pattern with one: editors leave their copies there.
fn fits(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    // The places to go on from when the rest does not fit: after the last star.
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
        } else if let Some(len) = one(&pattern[p..], name[n]) {
            p += len;
            n += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (p, n) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// How much of the pattern stands for this one character; `None` when it does not fit.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '\\' => (pattern.get(1) == Some(&c)).then_some(2),
        '[' => {
            let end = pattern.iter().skip(2).position(|c| *c == ']')? + 2;
            let (negated, set) = match pattern[1] {
                '^' => (true, &pattern[2..end]),
                _ => (false, &pattern[1..end]),
            };
            (in_set(set, c) != negated).then_some(end + 1)
        }
        literal => (*literal == c).then_some(1),
    }
}

fn in_set(mut set: &[char], c: char) -> bool {
    loop {
        match set {
            [low, '-', high, rest @ ..] => {
                if (*low..=*high).contains(&c) {
                    return true;
                }
                set = rest;
            }
            [one, rest @ ..] => {
                if *one == c {
                    return true;
                }
                set = rest;
            }
            [] => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_go() {
        for (pattern, name, want) in [
            ("*.yml", "a.yml", true),
            ("*.yml", ".a.yml", false),
            ("*.yml", "a.yaml", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("*", "anything", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]1", "b1", true),
            ("[^a-c]1", "b1", false),
            ("[^a-c]1", "x1", true),
            ("[ab", "a", false),
            ("\\*", "*", true),
            ("*a*", "bbbab", true),
        ] {
            assert_eq!(fits(pattern, name), want, "{pattern} {name}");
        }
    }

    #[test]
    fn every_part_of_a_path_may_be_a_pattern() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["x1/a.yml", "x2/b.yml", "y/c.yml", "x2/d.txt"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let pattern = format!("{}/x*/*.yml", dir.path().display());
        let found = find(&pattern).unwrap();
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(names, ["a.yml", "b.yml"]);
        assert!(find("/no such place/*/x").unwrap().is_empty());
    }
}
