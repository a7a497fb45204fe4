//! What a sealed file says of itself: store, day, contents, series.

use redb::{ReadTransaction, ReadableTable};

use super::{Error, SealedFile, Trouble};
use crate::model::{Labels, Timestamp};
use crate::store::sealed::tables::{self, SERIES, STAT, SYM, WINDOW};

impl SealedFile {
    /// Writes down which store the file is of.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn sign(&self, store: u64) -> Result<(), Error> {
        let mut write = self.begin_write()?;
        write.set_quick_repair(true);
        let row = tables::encode_stat(tables::STAT_STORE, &[store]);
        let put = || -> Result<(), Trouble> {
            let mut stat = write.open_table(STAT)?;
            stat.insert(tables::STAT_STORE, row.as_slice())?;
            Ok(())
        };
        put().map_err(|t| self.trouble("write", t))?;
        self.commit(write)
    }

    /// Checks that a file with the name of this day (its first second) is of this day
    /// and store. A file that says nothing of its store, and 0, are of any.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it is another's.
    pub fn check_place(&self, store: u64, start_s: u32) -> Result<(), Error> {
        let day = start_s..start_s.saturating_add(86_400);
        let generations = self.generations();
        let other = generations
            .iter()
            .find(|g| !day.contains(&g.window_start_s));
        if let Some(other) = other {
            let from = Timestamp::from_ms(i64::from(other.window_start_s) * 1_000);
            return Err(self.damaged(&format!("it has samples of another day, from {from} on")));
        }
        let theirs = self.store()?;
        match store != 0 && theirs != 0 && theirs != store {
            true => Err(self.damaged("it is of another store")),
            false => Ok(()),
        }
    }

    /// The number of the store that wrote the file; 0 when it says nothing of it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn store(&self) -> Result<u64, Error> {
        let load = || -> Result<u64, Trouble> {
            let stat = self.begin_read()?.open_table(STAT)?;
            let Some(row) = stat.get(tables::STAT_STORE)? else {
                return Ok(0);
            };
            let [store] = tables::decode_stat(tables::STAT_STORE, row.value())
                .map_err(Trouble::at(tables::STAT_STORE))?;
            Ok(store)
        };
        load().map_err(|t| self.trouble("read", t))
    }

    /// A number for what is in the file: over its generations with the hashes of
    /// their pages. Two files with one name and one number hold the same samples.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn identity(&self) -> Result<u64, Error> {
        let compute = || -> Result<u64, Trouble> {
            let mut hash = xxhash_rust::xxh3::Xxh3::new();
            for row in self.begin_read()?.open_table(WINDOW)?.iter()? {
                let (key, row) = row?;
                let (window, generation) = key.value();
                hash.update(&window.to_le_bytes());
                hash.update(&generation.to_le_bytes());
                hash.update(row.value());
            }
            for (window, seqs) in &self.rewritten {
                for number in [u64::from(*window), seqs.start().0, seqs.end().0] {
                    hash.update(&number.to_le_bytes());
                }
            }
            Ok(hash.digest())
        };
        compute().map_err(|t| self.trouble("read", t))
    }

    /// Bytes on disk, as allocated: the file is sparse.
    ///
    /// # Errors
    /// When the file is gone.
    pub fn disk_bytes(&self) -> Result<u64, Error> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(&self.path);
        metadata
            .map(|metadata| metadata.blocks() * 512)
            .map_err(|err| self.trouble("look at", redb::Error::from(err).into()))
    }

    /// Every series that has a row in this file: ref, metric symbol, labels.
    ///
    /// # Errors
    /// When a row is damaged.
    pub fn series(&self) -> Result<Vec<(u32, u32, Labels)>, Error> {
        load_series(&self.begin_read_here()?).map_err(|t| self.trouble("read", t))
    }

    /// The refs of the series that have a row in this file, ascending.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn series_ids(&self) -> Result<Vec<u32>, Error> {
        let load = || -> Result<Vec<u32>, Trouble> {
            let table = self.begin_read()?.open_table(SERIES)?;
            table.iter()?.map(|row| Ok(row?.0.value())).collect()
        };
        load().map_err(|t| self.trouble("read", t))
    }

    /// The metric symbol and the ref of every series that has a row here, ascending.
    ///
    /// # Errors
    /// When a row is damaged.
    pub fn series_keys(&self) -> Result<Vec<(u32, u32)>, Error> {
        let load = || -> Result<Vec<(u32, u32)>, Trouble> {
            let mut keys = Vec::new();
            for row in self.begin_read()?.open_table(SERIES)?.iter()? {
                let (ref_id, row) = row?;
                let ref_id = ref_id.value();
                let (metric_sym, _) =
                    tables::decode_series(row.value(), ref_id).map_err(Trouble::at("series"))?;
                keys.push((metric_sym, ref_id));
            }
            keys.sort_unstable();
            Ok(keys)
        };
        load().map_err(|t| self.trouble("read", t))
    }
}

fn load_series(read: &ReadTransaction) -> Result<Vec<(u32, u32, Labels)>, Trouble> {
    let mut texts: Vec<String> = Vec::new();
    for row in read.open_table(SYM)?.iter()? {
        let (number, text) = row?;
        let number = number.value();
        let text = tables::decode_symbol(text.value(), number).map_err(Trouble::at("sym"))?;
        if number as usize != texts.len() {
            return Err(Trouble::Damaged(format!("symbol {} is gone", texts.len())));
        }
        texts.push(text.to_owned());
    }
    let text = |number: &u32| {
        texts
            .get(*number as usize)
            .ok_or_else(|| Trouble::Damaged(format!("symbol {number} is gone")))
    };
    let mut all = Vec::new();
    for row in read.open_table(SERIES)?.iter()? {
        let (ref_id, row) = row?;
        let ref_id = ref_id.value();
        let (metric_sym, symbols) =
            tables::decode_series(row.value(), ref_id).map_err(Trouble::at("series"))?;
        let pairs = symbols
            .chunks_exact(2)
            .map(|pair| Ok((text(&pair[0])?, text(&pair[1])?)))
            .collect::<Result<Vec<_>, Trouble>>()?;
        all.push((ref_id, metric_sym, Labels::from_pairs(pairs)));
    }
    Ok(all)
}
