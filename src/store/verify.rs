//! `pulse verify`: every checksum of every file, and where one is wrong.
//!
//! A directory that no process uses is opened without a change, also after a crash
//! and on a read-only medium; one in use is checked by the process that has it.
//! `hot.redb` has checksums of ours on log records, state rows and series; where nobody
//! writes redb's own checksums of all its pages are walked too. Memory is that of a few pages.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use redb::{ReadTransaction, ReadableDatabase as _, ReadableTable as _};
use roaring::RoaringTreemap;
use serde::{Deserialize, Serialize};

use super::appended::{Appended, Broken, Held};
use super::catalog::Texts;
use super::caught::caught;
use super::days::finished::missing;
use super::days::quarantine::MISSING;
use super::days::{DayFile, Days, store_error};
use super::disk::{self, DirLock, causes, io_error};
use super::hot::Hot;
use super::sealed::{BadRow, Kind, SealedFile};
use super::tables::{self, HOT_FILE, Meta, SERIES, WAL, state_table};
use super::wal::Record;
use super::{Error, Table, transaction};

/// At most this many faults are listed; the rest is counted.
const LISTED_MAX: usize = 1_000;

/// The page cache of each file.
const CACHE_BYTES: usize = 4 << 20;

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Checked {
    /// Files that were read.
    pub files: u64,
    /// Rows and pages whose checksums were compared.
    pub rows: u64,
    /// Faults, those that are not listed included.
    pub fault_count: u64,
    /// The first of them.
    pub faults: Vec<Fault>,
}

/// Something that is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// Which page or row, and what is wrong.
    pub what: String,
    /// Where its bytes stand in the file, when they were found there.
    pub offset: Option<u64>,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)?;
        match self.offset {
            Some(offset) => write!(f, " (at byte {offset})"),
            None => Ok(()),
        }
    }
}

impl Checked {
    fn fault(&mut self, file: &Path, what: String, offset: Option<u64>) {
        self.fault_count += 1;
        if self.faults.len() < LISTED_MAX {
            let file = file.to_owned();
            self.faults.push(Fault { file, what, offset });
        }
    }

    fn row(&mut self, file: &Path, row: BadRow) {
        let offset = find(file, &row.bytes).unwrap_or(None);
        self.fault(file, row.what, offset);
    }

    /// Runs `work` on a file; redb panics on some of what it cannot read.
    fn file(&mut self, path: &Path, work: impl FnOnce(&mut Checked) -> Result<(), Error>) {
        self.files += 1;
        match caught(|| work(&mut *self)) {
            Some(Ok(())) => {}
            Some(Err(err)) => self.fault(path, causes(&err), None),
            None => self.fault(path, "its tree of pages cannot be read".to_owned(), None),
        }
    }

    /// A file that nobody writes; `store` may be 0.
    fn frozen(&mut self, path: &Path, store: u64) {
        self.file(path, |checked| {
            let backends = disk::frozen_files();
            let file = SealedFile::open_frozen(path, CACHE_BYTES, &backends);
            let file = file.map_err(store_error)?;
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some((_, start_s)) = name.and_then(Kind::parse) {
                file.check_place(store, start_s).map_err(store_error)?;
            }
            checked.sealed(&file, path)
        });
    }

    fn day(&mut self, days: &Days, day: &DayFile) {
        self.file(&day.path, |checked| {
            match days.with_file(day, |file| checked.sealed(file, &day.path)) {
                Ok(done) => done,
                Err(_) if day.is_gone() => Ok(()),
                Err(err) => Err(store_error(err)),
            }
        });
    }

    fn open_hot(&mut self, hot: &Hot, log: &Appended) {
        self.files += log.files();
        self.file(hot.path(), |checked| {
            hot_rows(hot, log, hot.path(), checked)
        });
    }

    fn sealed(&mut self, file: &SealedFile, path: &Path) -> Result<(), Error> {
        let mut bad = Vec::new();
        let walked = file.walk(&mut |row| bad.push(row));
        for row in bad {
            self.row(path, row);
        }
        self.rows += walked.map_err(store_error)?;
        Ok(())
    }

    /// Everything in `hot.redb` that has a checksum of its own.
    fn hot(&mut self, path: &Path, read: &ReadTransaction) -> Result<(), redb::Error> {
        for table in Table::ALL {
            for row in read.open_table(state_table(table))?.iter()? {
                let (key, row) = row?;
                self.rows += 1;
                if tables::open_value(key.value(), row.value()).is_none() {
                    let what = format!("a row of {}: wrong checksum", table.name());
                    let bytes = row.value().to_vec();
                    self.row(path, BadRow { what, bytes });
                }
            }
        }
        let mut texts = Texts::of(read)?;
        for row in read.open_table(SERIES)?.iter()? {
            let (id, row) = row?;
            self.rows += 1;
            if !texts.are_right(id.value(), row.value())? {
                let what = format!("series {}: wrong checksum", id.value());
                let bytes = row.value().to_vec();
                self.row(path, BadRow { what, bytes });
            }
        }
        Ok(())
    }

    /// The records of both logs: what is wrong in them, and which are missing of those
    /// that are not sealed. `before` is what was appended before the snapshot was taken.
    fn logs(
        &mut self,
        path: &Path,
        read: &ReadTransaction,
        before: &Held,
        appended: &Held,
    ) -> Result<(), Error> {
        let fail = |err: redb::Error| io_error("read", path, err);
        let mut there = self.log(path, read).map_err(fail)?;
        let meta = Meta::read_in(read).map_err(fail)?;
        let sealed = meta.wal_sealed_seq;
        let last = there.max().unwrap_or(sealed).max(before.last);
        let mut records = appended.reader(sealed + 1);
        while let Some((seq, record)) = records.next_up_to(last)? {
            self.record(path, seq, record);
            there.insert(seq);
        }
        let mut broken = records.take_broken();
        // Behind the last whole record one may be cut off: with its number all before it
        // were there.
        let torn = broken.iter().map(|broken| broken.seq).max();
        let last = torn.map_or(last, |torn| last.max(torn - 1)).max(meta.end);
        let mut missing = RoaringTreemap::from_iter(sealed + 1..=last);
        missing -= there;
        broken.retain(|broken| missing.contains(broken.seq));
        for Broken { seq, path, at } in broken {
            missing.remove(seq);
            self.fault(
                &path,
                format!("log record of commit {seq}: damaged"),
                Some(at),
            );
        }
        for seq in missing {
            self.fault(path, format!("log record of commit {seq}: missing"), None);
        }
        Ok(())
    }

    /// The records in redb; gives their commits.
    fn log(&mut self, path: &Path, read: &ReadTransaction) -> Result<RoaringTreemap, redb::Error> {
        let mut there = RoaringTreemap::new();
        let mut record = Vec::new();
        for row in read.open_table(WAL)?.iter()? {
            let (key, piece) = row?;
            let (seq, _) = key.value();
            if let Some(done) = there.max().filter(|done| *done != seq) {
                self.record(path, done, &record);
                record.clear();
            }
            there.insert(seq);
            record.extend_from_slice(piece.value());
        }
        if let Some(last) = there.max() {
            self.record(path, last, &record);
        }
        Ok(there)
    }

    fn record(&mut self, path: &Path, seq: u64, bytes: &[u8]) {
        self.rows += 1;
        if let Err(err) = Record::parse(bytes) {
            let what = format!("log record of commit {seq}: {err}");
            // Its first piece: the others lie elsewhere.
            let first = transaction::pieces(bytes).next();
            let bytes = first.unwrap_or_default().to_vec();
            self.row(path, BadRow { what, bytes });
        }
    }
}

/// Checks a directory that no process uses. Changes nothing in it. Blocking.
///
/// # Errors
/// When another process has the directory, or it is none of ours. What is wrong in
/// it is in the answer.
pub fn verify_offline(dir: &Path) -> Result<Checked, Error> {
    let _lock = DirLock::take_to_read(dir)?;
    if disk::read_format(dir)? == disk::Format::Missing {
        let what = "it has no FORMAT file: this is no data directory";
        return Err(io_error("verify", dir, what));
    }
    let mut checked = Checked::default();
    let mut sealed: Vec<_> = Vec::new();
    for entry in fs::read_dir(dir).map_err(|err| io_error("read", dir, err))? {
        let path = entry.map_err(|err| io_error("read", dir, err))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.and_then(Kind::parse).is_some() {
            sealed.push(path);
        }
    }
    sealed.sort_unstable();
    // When it cannot be opened, that is told below.
    let hot = Hot::open_existing(dir, disk::frozen_files(), CACHE_BYTES);
    let (store, missing) = match hot {
        Ok((hot, meta)) => {
            let missing = caught(|| missing(dir, &*hot.database()?));
            (meta.store, missing.and_then(Result::ok).unwrap_or_default())
        }
        Err(_) => (0, Vec::new()),
    };
    for path in &sealed {
        checked.frozen(path, store);
    }
    for file in missing {
        checked.fault(&file.path, MISSING.to_owned(), None);
    }
    let hot = dir.join(HOT_FILE);
    if hot.exists() || !sealed.is_empty() {
        checked.file(&hot, |checked| hot_offline(dir, &hot, checked));
    }
    Ok(checked)
}

fn hot_offline(dir: &Path, path: &Path, checked: &mut Checked) -> Result<(), Error> {
    let (hot, meta) = Hot::open_existing(dir, disk::frozen_files(), CACHE_BYTES)?;
    let log = Appended::open(dir, disk::frozen_files(), meta, 0, false)?;
    checked.files += log.files();
    if let Some(path) = log.lost() {
        let what = "missing, empty, cut short or not of this store: its records are lost";
        checked.fault(path, what.to_owned(), None);
    }
    hot_rows(&hot, &log, path, checked)?;
    if !hot.check_integrity()? {
        let what = "redb's checksums are wrong: start pulse on it, which reads it without redb \
                    and keeps it in quarantine/salvaged";
        checked.fault(path, what.to_owned(), None);
    }
    Ok(())
}

/// Both logs, catalog and state.
fn hot_rows(hot: &Hot, log: &Appended, path: &Path, checked: &mut Checked) -> Result<(), Error> {
    let fail = |err: redb::Error| io_error("read", path, err);
    let before = log.hold();
    let read = hot.database()?.begin_read();
    let read = read.map_err(|err| fail(err.into()))?;
    checked.logs(path, &read, &before, &log.hold())?;
    drop(before);
    checked.hot(path, &read).map_err(fail)
}

/// Checks the files of an open store.
pub(super) fn verify_open(hot: &Hot, log: &Appended, days: &Days) -> Checked {
    let mut checked = Checked::default();
    for day in days.all_kinds() {
        checked.day(days, &day);
    }
    for path in days.missing() {
        checked.fault(&path, MISSING.to_owned(), None);
    }
    checked.open_hot(hot, log);
    checked
}

/// Checks a sealed file through the store that has it open.
pub(super) fn verify_day(days: &Days, day: &DayFile) -> Checked {
    let mut checked = Checked::default();
    checked.day(days, day);
    checked
}

/// Checks the files of what is not sealed, of an open store.
pub(super) fn verify_hot(hot: &Hot, log: &Appended) -> Checked {
    let mut checked = Checked::default();
    checked.open_hot(hot, log);
    checked
}

/// Checks a file that nobody writes as it is on the disk.
pub(super) fn verify_file(path: &Path) -> Checked {
    let mut checked = Checked::default();
    disk::forget(path);
    checked.frozen(path, 0);
    checked
}

/// The first place where these bytes stand in a file.
fn find(path: &Path, wanted: &[u8]) -> io::Result<Option<u64>> {
    const STEP: usize = 1 << 20;
    if wanted.is_empty() {
        return Ok(None);
    }
    let mut file = fs::File::open(path)?;
    let mut buffer: Vec<u8> = Vec::new();
    let mut at = 0;
    loop {
        let kept = buffer.len();
        let read = file.by_ref().take(STEP as u64).read_to_end(&mut buffer)?;
        if let Some(found) = position(&buffer, wanted) {
            return Ok(Some(at + found as u64));
        }
        if read == 0 {
            return Ok(None);
        }
        let keep = buffer.len().min(wanted.len() - 1);
        let drop_n = buffer.len() - keep;
        debug_assert!(kept <= STEP + wanted.len());
        buffer.drain(..drop_n);
        at += drop_n as u64;
    }
}

fn position(haystack: &[u8], wanted: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(next) = haystack.get(from..)?.iter().position(|b| *b == wanted[0]) {
        from += next;
        if haystack[from..].starts_with(wanted) {
            return Some(from);
        }
        from += 1;
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::store::tests::{T0, batch, manual, options, row};
    use crate::store::{StateOp, Store, WriteBatch};
    use crate::telemetry::Metrics;

    async fn filled(dir: &Path) -> Store {
        let (clock, _) = manual(T0 + 60_000);
        let store = Store::open(options(dir), clock, Metrics::new()).unwrap();
        for i in 0..40 {
            let rows = (0..50).map(|d| row("v", &format!("d{d}"), T0 + i * 1_000, i as f64 * 0.7));
            store.write(batch(rows)).await.unwrap();
            if i == 10 {
                store.compact_now().await.unwrap();
            }
            if i == 20 {
                store.seal_now().await.unwrap();
            }
        }
        let put = StateOp::Put {
            table: Table::Kv,
            key: "answer".into(),
            value: vec![42; 500].into(),
        };
        store.write(WriteBatch::of_state(vec![put])).await.unwrap();
        store
    }

    #[tokio::test]
    async fn a_whole_directory_passes_in_use_and_after() {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path()).await;
        let online = store.verify();
        assert_eq!(online.faults, []);
        assert!(online.files >= 3 && online.rows > 20, "{online:?}");
        let refused = verify_offline(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("in use by process"), "{refused}");
        store.close().await;
        drop(store);
        let offline = verify_offline(dir.path()).unwrap();
        assert_eq!((offline.faults, offline.files), (vec![], online.files));
    }

    /// Flips one bit in each row of a file that has a pattern; every one is found
    /// under its file's name, at its place.
    #[tokio::test]
    async fn every_flipped_bit_of_a_page_is_found_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path()).await;
        store.close().await;
        drop(store);
        for name in ["day-20231114.redb", "l0-20231114.redb"] {
            let path = dir.path().join(name);
            let whole = fs::read(&path).unwrap();
            let pages = pages_of(&path);
            assert!(!pages.is_empty());
            for page in pages {
                let start = position(&whole, &page).unwrap();
                let mut flipped = whole.clone();
                flipped[start + page.len() / 2] ^= 4;
                fs::write(&path, &flipped).unwrap();
                let checked = verify_offline(dir.path()).unwrap();
                let fault = &checked.faults[0];
                assert_eq!(fault.file, path);
                assert!(fault.what.contains("page of metric"), "{fault}");
                assert!(fault.what.contains("wrong checksum"), "{fault}");
                assert_eq!(fault.offset, Some(start as u64), "{fault}");
            }
            fs::write(&path, &whole).unwrap();
        }
        assert_eq!(verify_offline(dir.path()).unwrap().faults, []);
    }

    pub(in crate::store) fn pages_of(path: &Path) -> Vec<Vec<u8>> {
        let file = SealedFile::open(path, CACHE_BYTES, &disk::frozen_files()).unwrap();
        file.pages()
    }

    #[tokio::test]
    async fn a_flipped_bit_of_hot_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(dir.path()).await;
        store.close().await;
        drop(store);
        let path = dir.path().join(HOT_FILE);
        let whole = fs::read(&path).unwrap();
        // All rows of that value, stale copies included: one of them is in force.
        let mut flipped = whole.clone();
        let mut from = 0;
        while let Some(at) = position(&whole[from..], &[42; 500]) {
            flipped[from + at + 100] ^= 1;
            from += at + 500;
        }
        fs::write(&path, flipped).unwrap();
        let checked = verify_offline(dir.path()).unwrap();
        let texts: Vec<_> = checked.faults.iter().map(ToString::to_string).collect();
        assert!(
            texts[0].contains("a row of kv: wrong checksum (at byte"),
            "{texts:?}"
        );
        fs::write(&path, whole).unwrap();
        assert_eq!(verify_offline(dir.path()).unwrap().faults, []);
    }

    #[test]
    fn bytes_are_found_across_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut bytes = vec![7; 3 << 20];
        let at = (2 << 20) - 3;
        bytes[at..at + 6].copy_from_slice(b"needle");
        fs::write(&path, &bytes).unwrap();
        assert_eq!(find(&path, b"needle").unwrap(), Some(at as u64));
        assert_eq!(find(&path, b"noodle").unwrap(), None);
        assert_eq!(find(&path, b"").unwrap(), None);
    }
}
