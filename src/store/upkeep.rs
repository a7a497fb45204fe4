//! What an operator has a running store do: copies, checks, and what is due anyway.

use std::io::Write;

use tokio::sync::oneshot;

use super::sealer::Command;
use super::{Error, Store, backup, verify};

impl Store {
    /// Writes a backup of everything that is acknowledged when it ends. Blocking;
    /// nothing else waits for it. See [`backup`].
    ///
    /// # Errors
    /// When a file cannot be read, or `out` fails.
    pub fn backup(&self, plan: &backup::Plan, out: impl Write) -> Result<backup::Done, Error> {
        backup::write(&self.backup_source(), plan, self.shared.clock.now(), out)
    }

    /// Makes a snapshot: a directory below `snapshots` in the data directory that
    /// can itself be one. Gives its name. `skip_head` leaves out what is not sealed.
    /// Blocking; nothing waits for it.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn snapshot(&self, skip_head: bool) -> Result<String, Error> {
        let now = self.shared.clock.now();
        backup::snapshot(&self.backup_source(), skip_head, now)
    }

    fn backup_source(&self) -> backup::Source<'_> {
        backup::Source {
            dir: &self.shared.dir,
            hot: &self.shared.hot,
            log: &self.shared.log,
            days: &self.shared.days,
        }
    }

    /// Walks every checksum of every file. Blocking; nothing waits for it.
    pub fn verify(&self) -> verify::Checked {
        verify::verify_open(&self.shared.hot, &self.shared.log, &self.shared.days)
    }

    /// Seals everything in memory, the open window included, and removes what is
    /// older than the retention. For tests and for operators; the sealer does it
    /// by itself every hour.
    ///
    /// # Errors
    /// When a sealed file cannot be written; the samples stay in memory and log.
    pub async fn seal_now(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .try_send(Command::Seal(reply))
            .map_err(|_| self.refusal())?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Seals everything in memory and rewrites every day that has sealed hours into
    /// its long columns, the open day included. The sealer does it by itself two
    /// hours after a day's end.
    ///
    /// # Errors
    /// When a file cannot be read or written; the samples stay where they were.
    pub async fn compact_now(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .try_send(Command::Compact(reply))
            .map_err(|_| self.refusal())?;
        answer.await.map_err(|_| Error::Closed)?
    }
}
