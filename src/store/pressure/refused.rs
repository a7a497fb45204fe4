//! A disk that refuses, and what goes on in memory meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::ladder::{DEADLINE, Machine, SOON, SmallDisk, bare, exhaust};
use crate::store::disk::Backends;
use crate::store::tests::{T0, manual, options};
use crate::store::{DirLock, StateOp, Store, Table, WriteBatch};
use crate::telemetry::Metrics;

#[tokio::test]
async fn a18_on_a_full_disk_alerts_go_on_in_memory_and_are_saved_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let options = bare(&disk.data());
    let machine = Machine::open(options.clone());
    let store = machine.store.clone();
    let put = |key: &str, value: &str| StateOp::Put {
        table: Table::Alert,
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    let delete = |key: &str| StateOp::Delete {
        table: Table::Alert,
        key: Bytes::copy_from_slice(key.as_bytes()),
    };
    let before = [("a", "1"), ("c", "1"), ("e", "1")].map(|(k, v)| put(k, v));
    let written = store.write(WriteBatch::of_state(before.to_vec())).await;
    assert!(written.is_ok());
    let filler = disk.fill(0);
    assert!(exhaust(&machine).await, "the disk took everything");

    let changes = store.changes(Table::Alert);
    let even_unsaved = async |ops| {
        let write = store.write(WriteBatch::of_state(ops).even_unsaved());
        tokio::time::timeout(DEADLINE, write)
            .await
            .unwrap()
            .unwrap();
    };
    even_unsaved(vec![put("b", "2"), delete("c"), put("e", "2")]).await;
    even_unsaved(vec![put("d", "2"), put("a", "2"), put("f", "2")]).await;
    assert!(changes.has_changed().unwrap());
    let rows = |store: &Store, limit, backwards| {
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        // Between a refusal and the next opening nothing can be read for a moment.
        let rows = loop {
            let rows = match backwards {
                true => store.scan_back(Table::Alert, all, limit),
                false => store.scan(Table::Alert, all, limit),
            };
            if rows.is_ok() {
                break rows;
            }
        };
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let rows = rows.unwrap().into_iter();
        rows.map(|(k, v)| text(k) + &text(v)).collect::<Vec<_>>()
    };
    let want = ["a2", "b2", "d2", "e2", "f2"];
    assert_eq!(rows(&store, 9, false), want);
    assert_eq!(rows(&store, 3, false), want[..3]);
    assert_eq!(rows(&store, 3, true), ["f2", "e2", "d2"]);
    assert_eq!(store.get(Table::Alert, b"c").unwrap(), None);
    assert!(store.unsaved_rows() >= 6 && store.is_failing() && !store.takes_samples());
    // The control: who did not ask for it, is not answered before the commit.
    let silence = store.write(WriteBatch::of_state(vec![put("x", "2")]));
    assert!(tokio::time::timeout(SOON, silence).await.is_err());
    assert_eq!(store.get(Table::Alert, b"x").unwrap(), None);

    std::fs::remove_file(&filler).unwrap();
    assert!(machine.state("going on").await);
    while store.unsaved_rows() > 0 {
        tokio::task::yield_now().await;
    }
    let want = ["a2", "b2", "d2", "e2", "f2", "x2"];
    assert_eq!(rows(&store, 9, false), want);
    store.close().await;
    drop((machine, store));
    assert_eq!(rows(&Machine::open(options).store, 9, false), want);
}

/// A file on a medium that takes no writes while the flag is set.
#[derive(Debug)]
struct Sticky {
    file: redb::backends::FileBackend,
    is_stuck: Arc<AtomicBool>,
}

impl Sticky {
    fn check(&self) -> std::io::Result<()> {
        match self.is_stuck.load(Ordering::SeqCst) {
            true => Err(std::io::ErrorKind::ReadOnlyFilesystem.into()),
            false => Ok(()),
        }
    }
}

impl redb::StorageBackend for Sticky {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.check()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check()?;
        self.file.write(offset, data)
    }
}

#[tokio::test]
async fn a18_on_a_medium_that_turned_read_only_alerts_go_on_beside_what_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let is_stuck = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_stuck);
    let files: Backends = Arc::new(move |path| {
        let mut options = std::fs::File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        let sticky = Sticky {
            file: redb::backends::FileBackend::new(options.open(path)?).unwrap(),
            is_stuck: Arc::clone(&flag),
        };
        sticky.check()?;
        Ok(Box::new(sticky))
    });
    let (clock, _) = manual(T0 + 60_000);
    let lock = DirLock::take(dir.path()).unwrap();
    let opened = Store::open_on(files, lock, options(dir.path()), clock, Metrics::new());
    let store = opened.unwrap();
    let put = |key: &'static [u8]| {
        let (key, value) = (Bytes::from_static(key), Bytes::from_static(b"v"));
        let table = Table::Alert;
        WriteBatch::of_state(vec![StateOp::Put { table, key, value }])
    };
    store.write(put(b"a")).await.unwrap();
    is_stuck.store(true, Ordering::SeqCst);
    let write = store.write(put(b"b").even_unsaved());
    tokio::time::timeout(DEADLINE, write)
        .await
        .unwrap()
        .unwrap();
    let keys = |store: &Store| {
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        let rows = store.scan(Table::Alert, all, 9);
        rows.map(|rows| rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>())
    };
    // Between a refusal and the next opening nothing can be read for a moment.
    let seen = loop {
        match keys(&store) {
            Ok(keys) => break keys,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(seen, ["a", "b"]);
    assert!(store.is_failing());
    is_stuck.store(false, Ordering::SeqCst);
    store.write(put(b"c")).await.unwrap();
    store.close().await;
    drop(store);
    let (clock, _) = manual(T0 + 60_000);
    let store = Store::open(options(dir.path()), clock, Metrics::new()).unwrap();
    assert_eq!(keys(&store).unwrap(), ["a", "b", "c"]);
}
