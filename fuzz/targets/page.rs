//! The page reader on any bytes behind a right checksum: no panic, no endless walk,
//! and nothing but what lies inside the page.

use pulse::store::sealed::column::decode;
use pulse::store::sealed::page::Page;
use xxhash_rust::xxh3::xxh3_64;

/// One input.
pub(crate) fn run(data: &[u8]) {
    assert!(Page::open(data).is_err() || data.len() >= 8);
    let mut bytes = vec![1];
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
    let Ok(page) = Page::open(&bytes) else {
        return;
    };
    let mut column_bytes = 0;
    for entry in page.entries() {
        let Ok(entry) = entry else {
            break;
        };
        column_bytes += entry.column.len();
        assert!(column_bytes <= bytes.len());
        let n = entry.span.map_or(100, |span| span.count as usize % 10_000);
        let mut values = Vec::new();
        if decode(entry.column, n, &mut values).is_ok() {
            assert_eq!(values.len(), n);
        }
    }
}
