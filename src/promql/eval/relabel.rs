//! `label_replace` and `label_join`.

use super::super::ast::Expr;
use super::super::grid::{Grid, Steps};
use super::{EvalError, Evaluator, Result};
use crate::model::labels::METRIC_NAME;
use crate::model::matcher;

impl Evaluator<'_> {
    /// Sets a label to what a pattern makes of another one.
    pub(super) fn label_replace(&mut self, args: &[Expr], steps: Steps) -> Result<Grid> {
        let target = self.text(&args[1], steps)?;
        let replacement = self.text(&args[2], steps)?;
        let source = self.text(&args[3], steps)?;
        let pattern = self.text(&args[4], steps)?;
        let regex = matcher::anchored(&pattern).map_err(|_| {
            let message = format!("invalid regular expression in label_replace(): {pattern}");
            EvalError::execution(message)
        })?;
        check_name(&target, "destination", "label_replace")?;
        let mut grid = self.vector(&args[0], steps)?;
        grid.relabel(|row| {
            let labels = row.labels();
            let Some(captures) = regex.captures(row.value(&source)) else {
                return labels;
            };
            let mut value = String::new();
            captures.expand(&replacement, &mut value);
            if target == METRIC_NAME {
                row.keep_name();
            }
            labels.to_builder().set(&target, &value).build()
        });
        Ok(grid.join_same()?)
    }

    /// Sets a label to the values of others with a separator between them.
    pub(super) fn label_join(&mut self, args: &[Expr], steps: Steps) -> Result<Grid> {
        let target = self.text(&args[1], steps)?;
        let separator = self.text(&args[2], steps)?;
        let mut sources = Vec::with_capacity(args.len() - 3);
        for arg in &args[3..] {
            let source = self.text(arg, steps)?;
            check_name(&source, "source", "label_join")?;
            sources.push(source);
        }
        check_name(&target, "destination", "label_join")?;
        let mut grid = self.vector(&args[0], steps)?;
        grid.relabel(|row| {
            let values: Vec<&str> = sources.iter().map(|source| row.value(source)).collect();
            let value = values.join(&separator);
            if target == METRIC_NAME {
                row.keep_name();
            }
            row.labels().to_builder().set(&target, &value).build()
        });
        Ok(grid.join_same()?)
    }
}

/// Any text but the empty one names a label.
fn check_name(name: &str, role: &str, function: &str) -> Result<()> {
    if name.is_empty() {
        return Err(EvalError::execution(format!(
            "invalid {role} label name in {function}(): {name}"
        )));
    }
    Ok(())
}
