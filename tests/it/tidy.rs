//! The project's own rules, checked on its sources as text.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Imports point from a later entry to an earlier one, never back.
const LAYERS: [&str; 17] = [
    "model",
    "config",
    "tasks",
    "telemetry",
    "codec",
    "gotmpl",
    "chart",
    "promql",
    "store",
    "ingest",
    "delivery",
    "alerting",
    "rules",
    "sources",
    "web",
    "app",
    "cli",
];

fn files_below(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every `crate::MODULE` in the code part of a source file, tests included.
fn imports(text: &str) -> BTreeSet<&str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| {
            rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next()
                .unwrap_or("")
        })
        .filter(|module| !module.is_empty())
        .collect()
}

#[test]
fn imports_point_down_only() {
    let src = root("src");
    let mut broken = Vec::new();
    for file in files_below(&src, "rs") {
        let inside = file.strip_prefix(&src).unwrap();
        let module = inside
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap();
        let module = module.trim_end_matches(".rs");
        if module == "lib" || module == "main" {
            continue;
        }
        let layer = LAYERS.iter().position(|l| *l == module);
        let layer = layer.unwrap_or_else(|| panic!("{module} is not on the map"));
        let text = fs::read_to_string(&file).unwrap();
        for import in imports(&text) {
            match LAYERS.iter().position(|l| *l == import) {
                Some(to) if to <= layer => {}
                _ => broken.push(format!("{} uses crate::{import}", inside.display())),
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_source_file_says_what_it_is() {
    for dir in ["src", "tests", "benches"] {
        for file in files_below(&root(dir), "rs") {
            let text = fs::read_to_string(&file).unwrap();
            assert!(
                text.starts_with("//! "),
                "{} has no //! head",
                file.display()
            );
        }
    }
}

#[test]
fn foreign_types_stay_in_their_module() {
    let bound = [
        ("redb::", &["store"][..]),
        ("axum::", &["web", "sources/push"][..]),
        ("rumqttc::", &["sources", "delivery/mqtt"][..]),
        ("async_nats::", &["sources", "delivery/nats"][..]),
    ];
    let src = root("src");
    for file in files_below(&src, "rs") {
        let inside = file
            .strip_prefix(&src)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let text = fs::read_to_string(&file).unwrap();
        for (name, homes) in bound {
            let at_home = homes.iter().any(|home| inside.starts_with(home));
            assert!(at_home || !text.contains(name), "{inside} uses {name}");
        }
    }
}

#[test]
fn pure_modules_do_no_io() {
    let forbidden = [
        "tokio::",
        "std::fs",
        "std::net",
        "SystemTime",
        "Instant::now",
        "tracing::",
    ];
    for module in ["promql", "chart", "gotmpl", "codec"] {
        for file in existing(&root("src").join(module)) {
            let text = fs::read_to_string(&file).unwrap();
            let code: Vec<&str> = text
                .lines()
                .filter(|l| !l.trim_start().starts_with("//"))
                .collect();
            let text = code.join("\n");
            for word in forbidden {
                assert!(!text.contains(word), "{} uses {word}", file.display());
            }
        }
    }
}

fn existing(dir: &Path) -> Vec<PathBuf> {
    if dir.exists() {
        files_below(dir, "rs")
    } else {
        Vec::new()
    }
}
