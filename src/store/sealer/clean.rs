//! Taking deleted samples out of the files.

use std::sync::mpsc::Receiver;

use tokio::sync::oneshot;

use super::super::Error;
use super::super::days::store_error;
use super::super::disk::io_error;
use super::super::sealed::Kind;
use super::{Command, Gone, Sealer};

/// How often a day is rewritten whose hours grow meanwhile.
const ROUNDS_MAX: usize = 5;

impl Sealer {
    /// Rewrites every day that has deleted samples, and lets series go that have
    /// nothing left.
    pub(super) fn clean(
        &mut self,
        reply: oneshot::Sender<Result<(), Error>>,
        commands: &Receiver<Command>,
    ) -> Result<(), Gone> {
        let mut done = self.rewrite_reached(commands)?;
        if done.is_ok() {
            done = self.clean_rolls(commands)?;
        }
        if done.is_ok() {
            done = self.forget_unheld()?;
        }
        // A caller that went away wants no answer.
        drop(reply.send(done));
        Ok(())
    }

    /// A rewritten day has nothing deleted any more; hours that grew while they were
    /// rewritten stay beside it and have to go too.
    fn rewrite_reached(&mut self, commands: &Receiver<Command>) -> Result<Result<(), Error>, Gone> {
        for round in 0..ROUNDS_MAX {
            let days = match self.shared.days.reached_by_tombstones() {
                Ok(days) => days,
                Err(err) => return Ok(Err(store_error(err))),
            };
            let mut starts: Vec<u32> = days
                .iter()
                .filter(|day| round == 0 || day.kind == Kind::Hours)
                .map(|day| day.start_s)
                .collect();
            starts.dedup();
            if starts.is_empty() {
                return Ok(Ok(()));
            }
            for start_s in starts {
                if let Err(err) = self.rewrite(start_s, commands)? {
                    return Ok(Err(err));
                }
            }
        }
        let text = "late samples of the deleted time come in faster than days are rewritten";
        Ok(Err(io_error("clean", &self.shared.dir, text)))
    }
}
