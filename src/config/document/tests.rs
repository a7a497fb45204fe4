//! The same fields in both formats, and what only one of them takes.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Document, Error};

#[derive(Deserialize, PartialEq, Debug, Default)]
#[serde(default, deny_unknown_fields)]
struct Table {
    text: String,
    number: Option<u16>,
    factor: f64,
    flag: bool,
    names: Vec<String>,
    kind: Kind,
    below: Vec<Table>,
}

#[derive(Deserialize, PartialEq, Debug, Default)]
#[serde(rename_all = "snake_case")]
enum Kind {
    #[default]
    First,
    Second,
}

fn toml<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    let (document, errors) = Document::toml(text);
    assert!(errors.is_empty(), "{errors:?}");
    document.read()
}

fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    Document::yaml(text).unwrap().read()
}

/// The path that is wrong with its place, and why.
fn mistake(document: &Document<'_>) -> (String, usize, String) {
    let err = document.read::<Table>().unwrap_err();
    let field = document.field(&err.way()).unwrap();
    (field.shown, field.at, err.message)
}

#[test]
fn both_formats_give_the_same() {
    let wanted = Table {
        text: "a\"b".into(),
        number: Some(7),
        factor: 2.0,
        flag: true,
        names: vec!["x".into(), "ä".into()],
        kind: Kind::Second,
        below: vec![Table::default()],
    };
    let in_toml = "text = 'a\"b'\nnumber = 7\nfactor = 2\nflag = true\n\
                   names = ['x', 'ä']\nkind = 'second'\n[[below]]\n";
    let in_yaml = "text: 'a\"b'\nnumber: 7\nfactor: 2\nflag: true\n\
                   names: [x, ä]\nkind: second\nbelow: [{}]\n";
    assert_eq!(toml::<Table>(in_toml).unwrap(), wanted);
    assert_eq!(yaml::<Table>(in_yaml).unwrap(), wanted);
}

#[test]
fn without_quotes_yaml_takes_what_the_field_wants() {
    let read = yaml::<Table>("text: 1.10\nnames: [0x1F, yes, ~, 2026-01-02]\nbelow:\nnumber:\n");
    let read = read.unwrap();
    assert_eq!(read.text, "1.10");
    assert_eq!(read.names, ["0x1F", "yes", "", "2026-01-02"]);
    assert_eq!((read.below, read.number), (vec![], None));
    let (_, _, message) = mistake(&Document::toml("text = 1.10").0);
    assert_eq!(
        message,
        "invalid type: floating point `1.1`, expected a string"
    );
}

#[test]
fn a_mistake_has_its_field_and_place() {
    for (text, path, at, wanted) in [
        (
            "number: [1]",
            "number",
            0,
            "invalid type: sequence, expected u16",
        ),
        (
            "below: [{nuber: 1}]",
            "below[0].nuber",
            9,
            "unknown field `nuber`, expected one of",
        ),
        ("ä:\nbelow: []\n", "ä", 0, "unknown field `ä`"),
        (
            "#ä\nbelow:\n- number: 70000\n",
            "below[0].number",
            13,
            "invalid value: integer `70000`",
        ),
        (
            "names: [a, {b: c}]",
            "names[1]",
            11,
            "invalid type: map, expected a string",
        ),
        (
            "kind: third",
            "kind",
            0,
            "unknown variant `third`, expected `first` or `second`",
        ),
        (
            "flag: 'true'",
            "flag",
            0,
            "invalid type: string \"true\", expected a boolean",
        ),
    ] {
        let (shown, place, message) = mistake(&Document::yaml(text).unwrap());
        assert_eq!((shown.as_str(), place), (path, at), "{text}");
        assert!(message.starts_with(wanted), "{text}: {message}");
    }
    for (text, path, at, wanted) in [
        (
            "[[below]]\n[[below]]\nnumber = -1\n",
            "below[1].number",
            20,
            "invalid value: integer `-1`",
        ),
        (
            "number = 99999999999999999999",
            "number",
            0,
            "invalid type: floating point",
        ),
        (
            "text = 2026-01-02",
            "text",
            0,
            "invalid type: date, expected a string",
        ),
        (
            "below = [3]",
            "below[0]",
            9,
            "invalid type: integer `3`, expected struct Table",
        ),
    ] {
        let (shown, place, message) = mistake(&Document::toml(text).0);
        assert_eq!((shown.as_str(), place), (path, at), "{text}");
        assert!(message.starts_with(wanted), "{text}: {message}");
    }
}

#[test]
fn reading_goes_on_without_what_is_left_out() {
    let text = "names: [[], a, {}, b]\nnuber: 1\nflag: true\n";
    let mut document = Document::yaml(text).unwrap();
    let mut found = Vec::new();
    let read: Table = loop {
        match document.read() {
            Ok(read) => break read,
            Err(err) => {
                found.push(document.field(&err.way()).unwrap().shown);
                assert!(document.leave_out(&err.way()));
            }
        }
    };
    assert_eq!(found, ["names[0]", "names[2]", "nuber"]);
    assert_eq!(
        (read.names, read.flag),
        (vec!["a".into(), "b".into()], true)
    );
    let fields = document.fields();
    let paths: Vec<_> = fields
        .iter()
        .map(|f| (f.path.as_str(), f.shown.as_str()))
        .collect();
    let wanted = [
        ("names", "names"),
        ("names[0]", "names[1]"),
        ("names[1]", "names[3]"),
        ("flag", "flag"),
    ];
    assert_eq!(paths, wanted);
}

#[test]
fn an_alias_stands_for_what_its_anchor_holds() {
    let text = "text: &a 8080\nnames: [*a, &b yes, *b]\nbelow:\n- &c {text: 1.10, flag: true}\n\
                - {<<: *c, flag: false}\n- *c\n";
    let read = yaml::<Table>(text).unwrap();
    assert_eq!(
        (read.text.as_str(), read.names),
        ("8080", ["8080", "yes", "yes"].map(String::from).to_vec())
    );
    let below: Vec<_> = read
        .below
        .iter()
        .map(|t| (t.text.as_str(), t.flag))
        .collect();
    assert_eq!(below, [("1.10", true), ("1.10", false), ("1.10", true)]);
    let large = yaml::<Table>(
        "text: 12345678901234567890\nnames: [1234567890123456789012345678901234567890]",
    );
    let large = large.unwrap();
    assert_eq!(large.text, "12345678901234567890");
    assert_eq!(large.names, ["1234567890123456789012345678901234567890"]);
}
