//! The device registry: which devices of which tenants were ever heard of.
//!
//! `Table::Device` holds `tenant 0x00 device` to `{"first_seen","last_seen"}`
//! (milliseconds). The row of a new device goes into the commit of its first
//! sample. The time of the last message is kept in memory and written with a
//! later message of the device when the row is an hour behind, so a busy device
//! costs one row an hour and a silent one nothing.
//!
//! In memory a device is 24 bytes behind a 64-bit hash of its name; two of a
//! million devices share one with a chance of 1 in 37 million, and then only the
//! second row would be missing. Per tenant `limits.devices_per_tenant_max` are
//! registered. Messages of others are taken like any other (their series have a
//! limit of their own); nothing is kept about them.

use std::collections::HashMap;
use std::ops::Bound;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::model::{TenantId, Timestamp};
use crate::store::{self, StateOp, Store, Table};

/// How far a row's `last_seen` may be behind, in milliseconds.
const STALE_MS: i64 = 3_600_000;

/// Rows read at once at start.
const SCAN_ROWS: usize = 4_096;

/// The value of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeviceRow {
    /// When its first message came.
    pub first_seen: Timestamp,
    /// When its last message came; at most an hour behind.
    pub last_seen: Timestamp,
}

/// All registered devices.
#[derive(Default)]
pub struct Registry {
    devices: HashMap<u64, Device, ahash::RandomState>,
    of_tenant: HashMap<TenantId, usize>,
}

#[derive(Clone, Copy)]
struct Device {
    first_seen: Timestamp,
    /// The `last_seen` of the row.
    written: Timestamp,
}

/// What a message means for its device.
#[derive(Debug, PartialEq)]
pub enum Sight {
    /// Nothing to write.
    Known,
    /// First sight: the row to write. Must be followed by [`Registry::settle`].
    New(StateOp),
    /// The row is behind: the row to write.
    Behind(StateOp),
    /// The tenant has as many devices as it may.
    Full,
}

/// The key of a device in memory.
pub fn device_key(tenant: &TenantId, device: &str) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(tenant.as_str().as_bytes());
    hash.update(&[0]);
    hash.update(device.as_bytes());
    hash.digest()
}

/// The key of a device's row.
pub fn row_key(tenant: &str, device: &str) -> Vec<u8> {
    let mut key = tenant.as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(device.as_bytes());
    key
}

impl Registry {
    /// Reads the registered devices. Blocking. Rows that cannot be read are left
    /// out and written again by the next message of their device.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn load(store: &Store) -> Result<Registry, store::Error> {
        let mut registry = Registry::default();
        let mut from: Option<bytes::Bytes> = None;
        loop {
            let start = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let rows = store.scan(Table::Device, (start, Bound::Unbounded), SCAN_ROWS)?;
            for (key, value) in &rows {
                registry.read(key, value);
            }
            match rows.into_iter().next_back() {
                Some((last, _)) => from = Some(last),
                None => return Ok(registry),
            }
        }
    }

    fn read(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let (tenant, device) = std::str::from_utf8(key).ok()?.split_once('\0')?;
        let tenant = TenantId::new(tenant).ok()?;
        let row: DeviceRow = serde_json::from_slice(value).ok()?;
        let read = Device {
            first_seen: row.first_seen,
            written: row.last_seen,
        };
        self.devices.insert(device_key(&tenant, device), read);
        *self.of_tenant.entry(tenant).or_default() += 1;
        Some(())
    }

    /// Notes a message of a device; `key` is its [`device_key`].
    pub fn sight(
        &mut self,
        tenant: &TenantId,
        (device, key): (&str, u64),
        max: usize,
        now: Timestamp,
    ) -> Sight {
        if let Some(known) = self.devices.get_mut(&key) {
            if now.ms_since(known.written) < STALE_MS {
                return Sight::Known;
            }
            known.written = now;
            return Sight::Behind(put(tenant, device, known.first_seen, now));
        }
        // No entry is made for a tenant that is refused.
        if self.of_tenant.get(tenant).copied().unwrap_or(0) >= max {
            return Sight::Full;
        }
        *self.of_tenant.entry(tenant.clone()).or_default() += 1;
        let new = Device {
            first_seen: now,
            written: now,
        };
        self.devices.insert(key, new);
        Sight::New(put(tenant, device, now, now))
    }

    /// Takes a first sight back: its row was not written.
    pub fn withdraw(&mut self, tenant: &TenantId, key: u64) {
        if self.devices.remove(&key).is_some()
            && let Some(count) = self.of_tenant.get_mut(tenant)
        {
            *count -= 1;
            if *count == 0 {
                self.of_tenant.remove(tenant);
            }
        }
    }

    /// How many devices are registered.
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }
}

fn put(tenant: &TenantId, device: &str, first_seen: Timestamp, last_seen: Timestamp) -> StateOp {
    let row = DeviceRow {
        first_seen,
        last_seen,
    };
    StateOp::Put {
        table: Table::Device,
        key: row_key(tenant.as_str(), device).into(),
        value: serde_json::to_vec(&row)
            .expect("a row is plain data")
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(registry: &mut Registry, device: &str, max: usize, ms: i64) -> Sight {
        let tenant = TenantId::new("a").unwrap();
        let key = device_key(&tenant, device);
        registry.sight(&tenant, (device, key), max, Timestamp::from_ms(ms))
    }

    #[test]
    fn a_device_is_written_at_first_sight_and_once_an_hour() {
        let mut registry = Registry::default();
        let Sight::New(StateOp::Put { table, key, value }) = sight(&mut registry, "d", 9, 5) else {
            panic!("first sight writes the row");
        };
        assert_eq!((table, &key[..]), (Table::Device, &b"a\0d"[..]));
        assert_eq!(&value[..], br#"{"first_seen":5,"last_seen":5}"#);
        assert_eq!(sight(&mut registry, "d", 9, 3_600_004), Sight::Known);
        let Sight::Behind(StateOp::Put { value, .. }) = sight(&mut registry, "d", 9, 3_600_005)
        else {
            panic!("the row is an hour behind");
        };
        assert_eq!(&value[..], br#"{"first_seen":5,"last_seen":3600005}"#);
        assert_eq!(sight(&mut registry, "d", 9, 3_600_006), Sight::Known);
    }

    #[test]
    fn known_devices_go_on_when_the_tenant_is_full() {
        let mut registry = Registry::default();
        assert!(matches!(sight(&mut registry, "d1", 1, 0), Sight::New(_)));
        for i in 0..1_000 {
            assert_eq!(sight(&mut registry, &format!("x{i}"), 1, 0), Sight::Full);
        }
        assert_eq!(sight(&mut registry, "d1", 1, 0), Sight::Known);
        assert_eq!(registry.len(), 1);
        let tenant = TenantId::new("a").unwrap();
        registry.withdraw(&tenant, device_key(&tenant, "d1"));
        assert!(matches!(sight(&mut registry, "d2", 1, 0), Sight::New(_)));
    }

    #[test]
    fn rows_that_cannot_be_read_are_left_out() {
        let mut registry = Registry::default();
        for (key, value) in [
            (&b"a\0d"[..], &br#"{"first_seen":1,"last_seen":2}"#[..]),
            (b"a\0e", b"{"),
            (b"no-device", br#"{"first_seen":1,"last_seen":2}"#),
            (b"\xff\0d", br#"{"first_seen":1,"last_seen":2}"#),
        ] {
            registry.read(key, value);
        }
        assert_eq!(registry.len(), 1);
        assert_eq!(sight(&mut registry, "d", 1, 2), Sight::Known);
    }
}
