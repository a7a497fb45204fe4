//! Files that people write: read whole, within a bound, as text.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};

use super::places;

/// The largest file that is read.
const BYTES_MAX: u64 = 16 << 20;

/// Reads a file.
///
/// # Errors
/// With its name: when it cannot be read, is larger than 16 MiB or is no text; of a
/// text that is not UTF-8 with line and column.
pub fn read(path: &Path) -> anyhow::Result<String> {
    let shown = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(shown)?;
    let about = file.metadata().with_context(shown)?;
    ensure!(!about.is_dir(), "{}: it is a directory", shown());
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .with_context(shown)?;
    ensure!(
        bytes.len() as u64 <= BYTES_MAX,
        "{}: it is larger than 16 MiB",
        shown()
    );
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(err) => {
            let good = err.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(&err.as_bytes()[..good]).into_owned();
            let (line, column) = places::position(&text, good);
            bail!("{}:{line}:{column}: not UTF-8", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("latin1"), b"a = 1\nb = \"caf\xe9\"\n").unwrap();
        std::os::unix::fs::symlink(at("loop"), at("loop")).unwrap();
        for (path, want) in [
            (at("latin1"), "latin1:2:9: not UTF-8"),
            (at("loop"), "loop: Too many levels"),
            (at("none"), "none: No such file"),
            (dir.path().to_owned(), "it is a directory"),
            ("/dev/zero".into(), "it is larger than 16 MiB"),
        ] {
            let err = format!("{:#}", read(&path).unwrap_err());
            assert!(err.contains(want), "{err}");
        }
    }
}
