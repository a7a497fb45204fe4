//! Variables: what a file defines, what a page offers, what the URL chose.

use serde_json::Value;

use super::json::{at, count, flag, list, text, words};

/// The URL's and the files' word for all values.
pub const ALL: &str = "$__all";

/// Where a variable's values come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A query like `label_values(up, job)`.
    Query(String),
    /// A list in the file.
    Custom,
    /// A list of durations in the file.
    Interval,
    /// One fixed value.
    Constant,
    /// Free words.
    TextBox,
    /// Always our own.
    DataSource,
    /// Matchers for every selector.
    AdHoc,
}

/// A variable of a dashboard.
#[derive(Clone, PartialEq, Debug)]
pub struct Variable {
    /// Its name in queries.
    pub name: String,
    /// Its name for people.
    pub label: String,
    /// Where its values come from.
    pub kind: Kind,
    /// Whether several may be chosen.
    pub multi: bool,
    /// Whether all may be chosen.
    pub include_all: bool,
    /// What all stands for, if not for the list.
    pub all_value: Option<String>,
    /// Whether the page shows it.
    pub hidden: bool,
    /// A pattern that picks or cuts values.
    pub regex: String,
    /// How values are sorted: Grafana's numbers.
    pub sort: usize,
    /// The file's choice.
    pub current: Vec<String>,
    /// The file's list.
    pub options: Vec<Choice>,
}

/// A value with the words that stand for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// For people.
    pub text: String,
    /// For queries.
    pub value: String,
}

/// A variable with its values and what was chosen of them.
#[derive(Clone, PartialEq, Debug)]
pub struct Resolved {
    /// The definition.
    pub variable: Variable,
    /// What may be chosen.
    pub options: Vec<Choice>,
    /// What was chosen; empty with `all`.
    pub values: Vec<String>,
    /// Whether all were chosen.
    pub all: bool,
}

impl Variable {
    pub(super) fn parse(json: &Value) -> Option<Variable> {
        let name = words(json, "name")?;
        let kind = match text(json, "type")?.as_str() {
            "query" => Kind::Query(query_of(json)),
            "custom" => Kind::Custom,
            "interval" => Kind::Interval,
            "constant" => Kind::Constant,
            "textbox" => Kind::TextBox,
            "datasource" => Kind::DataSource,
            "adhoc" => Kind::AdHoc,
            _ => return None,
        };
        let hide = text(json, "hide").unwrap_or_default();
        Some(Variable {
            label: words(json, "label").unwrap_or_else(|| name.clone()),
            hidden: hide == "2" || hide == "hideVariable" || kind == Kind::Constant,
            multi: flag(json, "multi"),
            include_all: flag(json, "includeAll"),
            all_value: words(json, "allValue"),
            regex: text(json, "regex").unwrap_or_default(),
            sort: count(json, "sort").unwrap_or(0),
            current: current(json),
            options: listed(json, &kind),
            name,
            kind,
        })
    }

    /// Chooses from `options` by the URL's values, else by the file's choice,
    /// else the first or all.
    pub fn resolve(&self, options: Vec<Choice>, asked: Option<&[String]>) -> Resolved {
        let open = matches!(self.kind, Kind::TextBox | Kind::AdHoc);
        let wished: &[String] = match asked {
            Some(asked) => asked,
            None => &self.current,
        };
        let all = wished
            .iter()
            .any(|v| v == ALL || v == "All" && self.include_all);
        let known = |value: &String| {
            open || asked.is_some() || options.iter().any(|option| option.value == *value)
        };
        let mut values: Vec<String> = wished
            .iter()
            .filter(|value| *value != ALL && known(value))
            .cloned()
            .collect();
        if !self.multi {
            values.truncate(1);
        }
        let all = self.include_all && (all || values.is_empty());
        if all {
            values.clear();
        } else if values.is_empty() && !open {
            values.extend(options.first().map(|option| option.value.clone()));
        }
        Resolved {
            variable: self.clone(),
            options,
            values,
            all,
        }
    }

    /// Cuts, filters and sorts values that a query gave.
    pub fn arrange(&self, values: Vec<String>) -> Vec<Choice> {
        let pattern = self.regex.trim();
        let pattern = pattern
            .strip_prefix('/')
            .and_then(|p| p.rsplit_once('/'))
            .map_or(pattern, |(p, _)| p);
        let regex = (!pattern.is_empty())
            .then(|| {
                regex::RegexBuilder::new(pattern)
                    .size_limit(1 << 20)
                    .build()
                    .ok()
            })
            .flatten();
        let mut choices: Vec<Choice> = Vec::new();
        for value in values {
            let Some(choice) = cut(&value, regex.as_ref()) else {
                continue;
            };
            if !choices.contains(&choice) {
                choices.push(choice);
            }
        }
        self.sort(&mut choices);
        choices
    }

    fn sort(&self, choices: &mut [Choice]) {
        let number = |choice: &Choice| {
            let digits: String = choice
                .text
                .chars()
                .skip_while(|c| !c.is_ascii_digit())
                .take_while(char::is_ascii_digit)
                .collect();
            digits.parse::<u64>().unwrap_or(u64::MAX)
        };
        match self.sort {
            1 | 2 => choices.sort_by(|a, b| a.text.cmp(&b.text)),
            3 | 4 => choices.sort_by_key(number),
            5..=8 => choices.sort_by_key(|choice| choice.text.to_lowercase()),
            _ => {}
        }
        if matches!(self.sort, 2 | 4 | 6 | 8) {
            choices.reverse();
        }
    }
}

impl Resolved {
    /// The chosen values, all of them when all are chosen.
    pub fn members(&self) -> Vec<&str> {
        if self.all {
            return self.options.iter().map(|o| o.value.as_str()).collect();
        }
        self.values.iter().map(String::as_str).collect()
    }

    /// For people: `All`, `a`, `a + 2`.
    pub fn summary(&self) -> String {
        if self.all {
            return "All".to_owned();
        }
        match self.values.as_slice() {
            [] => "–".to_owned(),
            [one] => self.text_of(one),
            [first, rest @ ..] => format!("{} + {}", self.text_of(first), rest.len()),
        }
    }

    /// Whether this value is chosen.
    pub fn has(&self, value: &str) -> bool {
        self.values.iter().any(|v| v == value)
    }

    fn text_of(&self, value: &str) -> String {
        let found = self.options.iter().find(|o| o.value == value);
        found.map_or(value, |o| o.text.as_str()).to_owned()
    }
}

/// The query as a text or as an object with one.
fn query_of(json: &Value) -> String {
    match at(json, "query") {
        Some(Value::String(query)) => query.clone(),
        Some(Value::Object(_)) => words(json, "query.query").unwrap_or_default(),
        _ => text(json, "definition").unwrap_or_default(),
    }
}

fn current(json: &Value) -> Vec<String> {
    let values = match at(json, "current.value") {
        Some(Value::Array(values)) => values
            .iter()
            .filter_map(|value| Some(value.as_str()?.to_owned()))
            .collect(),
        Some(Value::String(value)) => vec![value.clone()],
        Some(Value::Number(value)) => vec![value.to_string()],
        _ => Vec::new(),
    };
    if values.is_empty() && text(json, "type").as_deref() == Some("textbox") {
        return words(json, "query").into_iter().collect();
    }
    values
}

/// `a,b : c,d\,e` or the options that Grafana has written out.
fn listed(json: &Value, kind: &Kind) -> Vec<Choice> {
    let query = match kind {
        Kind::Custom | Kind::Interval | Kind::Constant => text(json, "query").unwrap_or_default(),
        _ => return Vec::new(),
    };
    if *kind == Kind::Constant {
        return vec![choice(&query)];
    }
    let query = query.replace("\\,", "\u{0}");
    let mut choices: Vec<Choice> = query
        .split(',')
        .map(|part| part.replace('\u{0}', ","))
        .filter(|part| !part.trim().is_empty())
        .map(|part| match part.split_once(" : ") {
            Some((text, value)) => Choice {
                text: text.trim().to_owned(),
                value: value.trim().to_owned(),
            },
            None => choice(part.trim()),
        })
        .collect();
    if choices.is_empty() {
        let options = list(json, "options").iter();
        let values = options.filter_map(|option| words(option, "value"));
        choices = values.filter(|v| v != ALL).map(|v| choice(&v)).collect();
    }
    choices
}

fn choice(value: &str) -> Choice {
    Choice {
        text: value.to_owned(),
        value: value.to_owned(),
    }
}

/// The part of a value that a pattern's groups name; `None` when it does not match.
fn cut(value: &str, regex: Option<&regex::Regex>) -> Option<Choice> {
    let Some(regex) = regex else {
        return Some(choice(value));
    };
    let found = regex.captures(value)?;
    let named = |name: &str| found.name(name).map(|m| m.as_str());
    let first = found.get(1).map(|m| m.as_str());
    let picked = named("value").or(first).unwrap_or(value);
    let text = named("text").unwrap_or(picked);
    Some(Choice {
        text: text.to_owned(),
        value: picked.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn strings(values: &[&str]) -> Vec<String> {
        values.iter().map(|v| (*v).to_owned()).collect()
    }

    #[test]
    fn the_url_wins_over_the_file_and_the_file_over_the_first() {
        let json = json!({"name": "x", "type": "custom", "query": "a, b : 2,c\\,d", "current": {"value": "2"}});
        let variable = Variable::parse(&json).unwrap();
        let options = variable.options.clone();
        assert_eq!(
            options.iter().map(|o| o.value.as_str()).collect::<Vec<_>>(),
            ["a", "2", "c,d"]
        );
        let chosen = |asked: Option<&[String]>| variable.resolve(options.clone(), asked).values;
        assert_eq!(chosen(None), ["2"]);
        assert_eq!(chosen(Some(&strings(&["zz"]))), ["zz"]);
        let mut other = variable.clone();
        other.current = strings(&["gone"]);
        assert_eq!(other.resolve(options.clone(), None).values, ["a"]);
    }

    #[test]
    fn all_is_chosen_by_its_word_and_when_nothing_is() {
        let json = json!({"name": "x", "type": "query", "query": {"query": "label_values(job)"}, "multi": true, "includeAll": true});
        let variable = Variable::parse(&json).unwrap();
        assert_eq!(variable.kind, Kind::Query("label_values(job)".into()));
        let options = variable.arrange(strings(&["a", "b"]));
        assert!(variable.resolve(options.clone(), None).all);
        assert!(
            variable
                .resolve(options.clone(), Some(&strings(&["$__all"])))
                .all
        );
        let two = variable.resolve(options, Some(&strings(&["a", "b"])));
        assert_eq!(two.summary(), "a + 1");
    }

    #[test]
    fn a_pattern_cuts_filters_and_order_follows_the_number() {
        let json = json!({"name": "x", "type": "query", "query": "q", "regex": "/node-(\\d+)/", "sort": 4});
        let variable = Variable::parse(&json).unwrap();
        let got = variable.arrange(strings(&["node-2", "other", "node-10", "node-2"]));
        assert_eq!(
            got.iter().map(|c| c.value.as_str()).collect::<Vec<_>>(),
            ["10", "2"]
        );
    }
}
