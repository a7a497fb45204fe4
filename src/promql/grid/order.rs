//! Rows in the order of their labels.
//!
//! Most sets begin with the metric's name, and the store hands series over metric by
//! metric. So the names are put in order first, each of them once: then a number decides
//! between rows of different metrics, which is most of the comparisons.

use super::Row;

/// Which row comes first, second and so on.
pub(super) fn of(rows: &[Row]) -> Vec<usize> {
    let mut order: Vec<(usize, usize)> = ranks(rows).into_iter().zip(0..).collect();
    let labels = |row: usize| &rows[row].labels;
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| labels(a.1).cmp(labels(b.1))));
    order.into_iter().map(|(_, row)| row).collect()
}

/// The place of each row's metric among all; all are equal if one has no metric in front.
fn ranks(rows: &[Row]) -> Vec<usize> {
    let metrics: Option<Vec<&str>> = rows.iter().map(|row| row.labels.leading_metric()).collect();
    let metrics = metrics.unwrap_or_else(|| vec![""; rows.len()]);
    let mut sorted = metrics.clone();
    sorted.dedup();
    sorted.sort_unstable();
    sorted.dedup();
    let mut last = ("", 0);
    let mut rank = |metric| {
        if last.0 != metric {
            let at = sorted.partition_point(|other| *other < metric);
            last = (metric, at);
        }
        last.1
    };
    metrics.into_iter().map(&mut rank).collect()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::model::Labels;
    use crate::promql::grid::Grid;

    #[test]
    fn rows_are_in_the_order_of_their_labels() {
        let mut all = Vec::new();
        for (i, metric) in ["b", "a", "b", "", "ab", "a"].iter().enumerate() {
            for zone in ["", "z", "a"] {
                let at = i.to_string();
                // A label that comes before the metric's name, in some of them.
                all.push([
                    ("__name__", (*metric).to_owned()),
                    ("Zone", zone.to_owned()),
                    ("at", at),
                ]);
            }
        }
        for zones in [true, false] {
            let mut grid = Grid::default();
            let mut want = Vec::new();
            for pairs in &all {
                let pairs = pairs.iter().filter(|(name, _)| zones || *name != "Zone");
                let labels = Labels::from_pairs(pairs.map(|(name, value)| (*name, value)));
                grid.push(Cow::Borrowed(&labels), 0, |cells| cells.push(1.0));
                want.push(labels);
            }
            want.sort();
            grid.sort_by_labels();
            let found: Vec<Labels> = grid.rows().iter().map(Row::labels).collect();
            assert_eq!(found, want);
        }
    }
}
