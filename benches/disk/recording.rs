//! A recording of a real node exporter.

use std::collections::BTreeMap;
use std::path::Path;

use pulse::model::Labels;

/// The scrapes of a recording: one text file each, in the order of their names.
/// The series of the first one, and for each scrape the values, NaN where one is
/// missing.
pub(crate) fn recording(dir: &Path) -> (Vec<Labels>, Vec<Vec<f64>>) {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .expect("a directory of scrapes")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let mut order: BTreeMap<String, usize> = BTreeMap::new();
    let mut scrapes: Vec<Vec<f64>> = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).expect("a scrape");
        let mut values = vec![f64::NAN; order.len()];
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let next = order.len();
            let at = *order.entry(series.to_owned()).or_insert(next);
            values.resize(order.len(), f64::NAN);
            values[at] = value.parse().expect("a number");
        }
        scrapes.push(values);
    }
    let mut labels = vec![Labels::default(); order.len()];
    for (series, at) in order {
        labels[at] = parse_series(&series);
    }
    (labels, scrapes)
}

/// `name{a="b",..}`; the exporter's values hold no comma behind a quote.
fn parse_series(text: &str) -> Labels {
    let (name, rest) = text.split_once('{').unwrap_or((text, ""));
    let rest = rest.trim_end_matches('}').trim_end_matches(',');
    let mut pairs = vec![
        ("__name__", name),
        ("instance", "recorded:9100"),
        ("job", "node"),
    ];
    for pair in rest.split("\",").filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once("=\"").expect("a label");
        pairs.push((name, value.trim_end_matches('"')));
    }
    Labels::from_pairs(pairs)
}
