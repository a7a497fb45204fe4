//! Lookups, matchers, removal and rebuild of the index.

use proptest::prelude::*;

use super::*;

fn index(sets: &[&[(&str, &str)]]) -> Index {
    let mut index = Index::default();
    for set in sets {
        index.add(&Labels::from_pairs(set.iter().copied()), 0);
    }
    index
}

#[test]
fn series_are_found_by_their_labels() {
    let index = index(&[&[("a", "1")], &[("a", "1"), ("b", "2")], &[]]);
    let find = |pairs: &[(&str, &str)]| index.lookup(&Labels::from_pairs(pairs.to_vec()));
    assert_eq!(find(&[("a", "1")]), Some(1));
    assert_eq!(find(&[("b", "2"), ("a", "1")]), Some(2));
    assert_eq!(find(&[]), Some(3));
    assert_eq!(find(&[("a", "2")]), None);
    assert_eq!(find(&[("b", "2")]), None);
}

#[test]
fn matchers_meet_missing_labels_as_prometheus_does() {
    let index = index(&[
        &[("__name__", "m"), ("job", "a"), ("env", "x")],
        &[("__name__", "m"), ("job", "b")],
        &[("__name__", "m"), ("job", "c"), ("env", "y")],
        &[("__name__", "n"), ("job", "a")],
    ]);
    let check = |matchers: &[(&str, MatchOp, &str)], want: &[u32]| {
        let matchers: Vec<_> = matchers
            .iter()
            .map(|(n, op, v)| Matcher::new(n, *op, v).unwrap())
            .collect();
        let got: Vec<u32> = index.matching(&matchers).iter().collect();
        assert_eq!(got, want, "{matchers:?}");
    };
    use MatchOp::{Equal, NotEqual, NotRegex, Regex};
    let m = ("__name__", Equal, "m");
    check(&[], &[1, 2, 3, 4]);
    check(&[m], &[1, 2, 3]);
    check(&[m, ("env", Equal, "")], &[2]);
    check(&[m, ("env", NotEqual, "")], &[1, 3]);
    check(&[m, ("env", NotEqual, "x")], &[2, 3]);
    check(&[m, ("env", Regex, "x|")], &[1, 2]);
    check(&[m, ("env", Regex, "x|y|z")], &[1, 3]);
    check(&[m, ("env", NotRegex, "x|y")], &[2]);
    check(&[m, ("env", Regex, ".*")], &[1, 2, 3]);
    check(&[m, ("env", Regex, ".+")], &[1, 3]);
    check(&[m, ("env", NotRegex, ".+")], &[2]);
    check(&[m, ("env", NotRegex, "x.*|")], &[3]);
    check(&[("job", Regex, "[ab]")], &[1, 2, 4]);
    check(&[m, ("job", Equal, "zzz")], &[]);
    check(&[("nope", NotEqual, "q")], &[1, 2, 3, 4]);
    check(&[("nope", Equal, "q")], &[]);
}

#[test]
fn removed_series_leave_nothing_behind() {
    let mut index = index(&[
        &[("__name__", "m"), ("tenant_id", "t"), ("id", "1")],
        &[("__name__", "m"), ("tenant_id", "t"), ("id", "2")],
    ]);
    let one = Labels::from_pairs([("__name__", "m"), ("tenant_id", "t"), ("id", "1")]);
    assert_eq!(index.tenant_series(&one), 2);
    let removed = index.remove(&[1].into_iter().collect());
    assert_eq!(removed.series, [1]);
    // Only the text "1" was used by nothing else.
    assert_eq!(removed.symbols.len(), 1);
    assert_eq!(index.lookup(&one), None);
    assert_eq!(index.tenant_series(&one), 1);
    assert_eq!(index.values_in("id", index.all()), ["2"]);
    // A new series never takes the old number.
    assert_eq!(index.add(&one, 0).series, 3);
    index.remove(&[2, 3].into_iter().collect());
    assert_eq!(index.names_in(&[2, 3].into_iter().collect()), [""; 0]);
    assert!(index.names.is_empty() && index.len() == 0);
}

#[test]
fn a_rebuilt_index_is_the_same() {
    let mut index = Index::default();
    let labels: Vec<Labels> = (0..50)
        .map(|i| Labels::from_pairs([("i", i.to_string()), ("m", (i % 5).to_string())]))
        .collect();
    let rows: Vec<Added> = labels.iter().map(|l| index.add(l, 7)).collect();
    let mut again = Index::default();
    for (id, text) in rows.iter().flat_map(|row| &row.symbols) {
        again.restore_symbol(*id, text);
    }
    for row in &rows {
        again.restore_series(row.series, &row.row).unwrap();
    }
    for (label_set, row) in labels.iter().zip(&rows) {
        assert_eq!(again.lookup(label_set), Some(row.series));
        assert_eq!(again.labels(row.series).as_ref(), Some(label_set));
    }
    assert_eq!(again.last(), index.last());
    assert!(again.restore_series(99, &[0, 0, 0, 200, 1]).is_none());
    assert!(again.restore_series(99, &[0, 0, 0x80]).is_none());
}

fn patterns() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "", "x", "y", "xy", "x|y", "x|", "xx|yy|z", ".*", ".+", "[xy]*", "x.?", "(x|z).*",
    ])
}

proptest! {
    #[test]
    fn matching_is_what_looking_at_each_series_gives(
        sets in prop::collection::vec(prop::collection::btree_map("[a-c]", "[x-z]{0,2}", 0..4), 0..30),
        wanted in prop::collection::vec(("[a-d]", 0..4_usize, patterns()), 0..4),
    ) {
        let mut index = Index::default();
        let mut all = Vec::new();
        for set in &sets {
            let labels = Labels::from_pairs(set);
            if index.lookup(&labels).is_none() {
                let series = index.add(&labels, 0).series;
                all.push((series, labels));
            }
        }
        let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
        let matchers: Vec<_> = wanted
            .iter()
            .map(|(name, op, value)| Matcher::new(name, ops[*op], value).unwrap())
            .collect();
        let got: Vec<u32> = index.matching(&matchers).iter().collect();
        let want: Vec<u32> = all
            .iter()
            .filter(|(_, labels)| matchers.iter().all(|m| m.matches_labels(labels)))
            .map(|(series, _)| *series)
            .collect();
        prop_assert_eq!(got, want);
    }
}
