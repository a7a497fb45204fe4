//! The shipped `config.toml` is the reference: defaults and options agree with the types.

use pulse::config::Config;

const REFERENCE: &str = include_str!("../../config.toml");

/// The file with the marked lines in force: `#key` always, `#| ...` on request.
fn uncommented(examples: Option<&str>) -> String {
    REFERENCE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
            Some(rest) => examples
                .and_then(|mark| rest.strip_prefix(mark))
                .unwrap_or(""),
            None => line,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_reference_shows_the_defaults() {
    let config = Config::parse(&uncommented(None), "config.toml").unwrap();
    assert_eq!(config, Config::default());
}

#[test]
fn the_reference_as_shipped_changes_nothing() {
    assert_eq!(
        Config::parse(REFERENCE, "config.toml").unwrap(),
        Config::default()
    );
}

#[test]
fn the_examples_are_legal() {
    let config = Config::parse(&uncommented(Some("| ")), "config.toml").unwrap();
    assert_eq!(config.source.mqtt.len(), 1);
    assert_eq!(config.route[0].destination, "ops");
}

#[test]
fn the_tree_of_the_reference_is_legal() {
    let config = Config::parse(&uncommented(Some(": ")), "config.toml").unwrap();
    let tree = config.notification_tree().unwrap();
    assert_eq!(tree.route.as_ref().unwrap().all().len(), 2);
}

/// The options that a table knows, as its own error message lists them.
fn options_of(table: &str) -> Vec<String> {
    let text = format!("{table}\nno_such_option = 1\n");
    let err = Config::parse(&text, "x").unwrap_err().to_string();
    let (_, list) = err.split_once("expected one of ").unwrap_or_else(|| {
        err.split_once("expected ")
            .unwrap_or_else(|| panic!("{table}: {err}"))
    });
    let list = list.lines().next().unwrap();
    list.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_option_is_in_the_reference() {
    let tables = [
        "[server]",
        "[global]",
        "[store]",
        "[limits]",
        "[query]",
        "[rules]",
        "[alerting]",
        "[metrics]",
        "[auth]",
        "[[source.mqtt]]",
        "[[source.nats]]",
        "[[ingest.map]]",
        "[[destination.webhook]]",
        "[[route]]",
        "[[tenant]]",
    ];
    for table in tables {
        let lines = REFERENCE.lines();
        let section: Vec<&str> = lines
            .skip_while(|line| line.trim_start_matches("#| ") != table)
            .skip(1)
            .take_while(|line| !line.trim_start_matches("#| ").starts_with('['))
            .collect();
        for option in options_of(table) {
            let shown = section.iter().any(|line| {
                line.trim_start_matches(['#', '|', ':', ' '])
                    .starts_with(&format!("{option} = "))
            });
            // The one option with an older name.
            let is_alias = (table, option.as_str()) == ("[rules]", "files");
            assert!(shown || is_alias, "{table} {option} is not in config.toml");
        }
    }
}
