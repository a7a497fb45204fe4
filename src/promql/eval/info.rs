//! `info`: adds labels of info metrics to the series that they describe.
//!
//! Info series are matched by `instance` and `job` and looked at like instant
//! selectors, with the time of their samples: of two that describe the same at
//! one step, the later one counts. The first offset of the enriched expression
//! holds for them too.

use std::collections::BTreeMap;

use super::super::ast::{Bounds, Expr, ExprKind, Selector};
use super::super::grid::{Element, Grid, Row, Steps, is_absent};
use super::super::length::Length;
use super::{EvalError, Evaluator, Result};
use crate::model::labels::METRIC_NAME;
use crate::model::{Labels, MatchOp, Matcher};

/// The labels by which info series are matched.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// The info metric, unless the query names others.
const DEFAULT_METRIC: &str = "target_info";

/// Which info series count, and what is taken from them.
struct Wanted {
    names: Vec<Matcher>,
    data: Vec<Matcher>,
}

impl Evaluator<'_> {
    pub(super) fn info(&mut self, args: &[Expr], steps: Steps) -> Result<Grid> {
        let wanted = Wanted::of(args.get(1));
        let base = self.vector(&args[0], steps)?;
        let selector = Selector {
            name: String::new(),
            matchers: wanted.names.iter().chain(&wanted.data).cloned().collect(),
            offset: first_offset(&args[0]),
            at: None,
            bounds: Bounds::Inside,
        };
        // The times of the samples, which decide between series.
        let infos = self.instant(&selector, steps, true)?;
        let mut by_identity: BTreeMap<[&str; 2], Vec<usize>> = BTreeMap::new();
        for (i, row) in infos.rows().iter().enumerate() {
            by_identity.entry(identity(row)).or_default().push(i);
        }
        let mut result = Grid::default();
        for (i, row) in base.rows().iter().enumerate() {
            self.check_cancel()?;
            let id = identity(row);
            let described = id.iter().any(|value| !value.is_empty());
            let candidates = by_identity.get(&id).filter(|_| described);
            if wanted.is_info(row) {
                result.push_elements_like(row, base.elements(i, row.end()));
            } else {
                let candidates = candidates.map_or(&[][..], Vec::as_slice);
                enrich(&base, i, (&infos, candidates), &wanted, &mut result)?;
            }
        }
        Ok(result.join_same()?)
    }
}

impl Wanted {
    fn of(arg: Option<&Expr>) -> Wanted {
        let matchers: &[Matcher] = match arg.map(|arg| &arg.kind) {
            Some(ExprKind::Selector(selector)) => &selector.matchers,
            _ => &[],
        };
        let (mut names, data): (Vec<Matcher>, Vec<Matcher>) = matchers
            .iter()
            .cloned()
            .partition(|m| m.name == METRIC_NAME);
        let positive = |m: &Matcher| matches!(m.op, MatchOp::Equal | MatchOp::Regex);
        if names.is_empty() {
            names.push(Matcher::equal(METRIC_NAME, DEFAULT_METRIC));
        } else if !names.iter().any(positive) {
            let any_info = Matcher::new(METRIC_NAME, MatchOp::Regex, ".+_info");
            names.push(any_info.expect("the pattern is valid"));
        }
        Wanted { names, data }
    }

    /// Whether a series is an info series itself, which stays as it is.
    fn is_info(&self, row: &Row) -> bool {
        let name = row.value(METRIC_NAME);
        self.names.iter().all(|m| m.matches(name))
    }

    /// Whether a label of an info series is asked for.
    fn takes(&self, name: &str) -> bool {
        let data = name != METRIC_NAME && !IDENTIFYING.contains(&name);
        data && (self.data.is_empty() || self.data.iter().any(|m| m.name == name))
    }

    /// Whether a series may go without info.
    fn is_optional(&self) -> bool {
        self.data.iter().all(|m| m.matches(""))
    }
}

fn identity(row: &Row) -> [&str; 2] {
    IDENTIFYING.map(|name| row.value(name))
}

/// The offset of the first selector inside.
fn first_offset(expr: &Expr) -> Length {
    match &expr.kind {
        ExprKind::Selector(selector) => selector.offset.clone(),
        ExprKind::Matrix(matrix) => matrix.selector.offset.clone(),
        ExprKind::Subquery(subquery) => first_offset(&subquery.expr),
        ExprKind::Paren(inner) => first_offset(inner),
        ExprKind::Unary(unary) => first_offset(&unary.expr),
        ExprKind::Binary(binary) => first_offset(&binary.lhs),
        ExprKind::Aggregate(aggregate) => first_offset(&aggregate.expr),
        ExprKind::Call(call) => call
            .args
            .iter()
            .map(first_offset)
            .next()
            .unwrap_or_default(),
        ExprKind::Number(_) | ExprKind::String(_) => Length::default(),
    }
}

/// Adds a base row, once for each set of labels that info series give it.
fn enrich(
    base: &Grid,
    at: usize,
    (infos, candidates): (&Grid, &[usize]),
    wanted: &Wanted,
    result: &mut Grid,
) -> Result<()> {
    let row = &base.rows()[at];
    let mut by_labels: BTreeMap<Labels, Vec<Element>> = BTreeMap::new();
    let mut last: Option<(Vec<usize>, Labels)> = None;
    for step in base.present(at) {
        let chosen = newest(infos, candidates, step)?;
        if chosen.is_empty() && !wanted.is_optional() {
            continue;
        }
        let labels = match last.take() {
            Some((same, labels)) if same == chosen => labels,
            _ => enriched(row, infos, &chosen, wanted)?,
        };
        let cells = by_labels
            .entry(labels.clone())
            .or_insert_with(|| vec![Element::Absent; row.end()]);
        cells[step] = base.element(at, step);
        last = Some((chosen, labels));
    }
    for (labels, values) in by_labels {
        result.push_elements_relabelled(row, &labels, values);
    }
    Ok(())
}

/// Of each info metric the row with the latest sample at a step.
fn newest(infos: &Grid, candidates: &[usize], step: usize) -> Result<Vec<usize>> {
    let mut chosen: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
    for row in candidates {
        let t = infos.value(*row, step);
        if is_absent(t) {
            continue;
        }
        let name = infos.rows()[*row].value(METRIC_NAME);
        match chosen.get(name) {
            Some((existing, other)) if *existing == t => {
                let (a, b) = (&infos.rows()[*other], &infos.rows()[*row]);
                return Err(EvalError::execution(format!(
                    "found duplicate series for info metric: existing {} @ {t}, new {} @ {t}",
                    a.labels(),
                    b.labels()
                )));
            }
            Some((existing, _)) if *existing > t => {}
            _ => {
                chosen.insert(name, (t, *row));
            }
        }
    }
    Ok(chosen.into_values().map(|(_, row)| row).collect())
}

/// The labels of a row with those that info series add. Its own ones win.
fn enriched(row: &Row, infos: &Grid, chosen: &[usize], wanted: &Wanted) -> Result<Labels> {
    let mut added: BTreeMap<&str, &str> = BTreeMap::new();
    for info in chosen {
        for (name, value) in infos.rows()[*info].pairs() {
            if !wanted.takes(name) || !row.value(name).is_empty() {
                continue;
            }
            if added
                .insert(name, value)
                .is_some_and(|other| other != value)
            {
                return Err(EvalError::execution(format!("conflicting label: {name}")));
            }
        }
    }
    let mut labels = row.full_labels().to_builder();
    for (name, value) in added {
        labels.set(name, value);
    }
    Ok(labels.build())
}
