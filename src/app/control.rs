//! The file by which the command line reaches the process that has a data directory.
//!
//! `CONTROL` says where the process listens and carries a secret made at its start.
//! Whoever can read it could read the data as well, so the secret opens what needs
//! nothing but that: backup and verification. It is readable by the owner only.

use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use ring::rand::{SecureRandom as _, SystemRandom};

const FILE: &str = "CONTROL";

/// What the file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Control {
    /// Where the process listens.
    pub url: String,
    /// The secret, sent as a bearer token.
    pub token: Arc<str>,
}

impl Control {
    /// A new secret for a process that listens at `addrs`.
    ///
    /// # Errors
    /// When the machine has no random numbers.
    pub fn new(addrs: &[SocketAddr]) -> anyhow::Result<Control> {
        let mut bytes = [0; 32];
        SystemRandom::new()
            .fill(&mut bytes)
            .ok()
            .context("no random numbers")?;
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let addr = addrs.first().context("nowhere to listen")?;
        Ok(Control {
            url: format!("http://{}", reachable(*addr)),
            token: token.into(),
        })
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join("CONTROL.new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        writeln!(file, "{}\n{}", self.url, self.token)?;
        fs::rename(&new, path(dir))
    }

    /// Removes the file.
    pub fn remove(dir: &Path) {
        if let Err(err) = fs::remove_file(path(dir)) {
            tracing::debug!(error = %err, "no control file to remove");
        }
    }

    /// Reads the file of a running process.
    ///
    /// # Errors
    /// When it is not there or says something else.
    pub fn read(dir: &Path) -> anyhow::Result<Control> {
        let path = path(dir);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut lines = text.lines();
        let (url, token) = lines
            .next()
            .zip(lines.next())
            .with_context(|| format!("{} says nothing", path.display()))?;
        Ok(Control {
            url: url.to_owned(),
            token: token.into(),
        })
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// The address under which a process on this machine reaches a listener.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_file_is_the_owners_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let addrs = ["0.0.0.0:8080".parse().unwrap()];
        let control = Control::new(&addrs).unwrap();
        assert_eq!(control.url, "http://127.0.0.1:8080");
        assert_eq!(control.token.len(), 64);
        control.write(dir.path()).unwrap();
        assert_eq!(Control::read(dir.path()).unwrap(), control);
        let mode = fs::metadata(path(dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        Control::remove(dir.path());
        let err = Control::read(dir.path()).unwrap_err().to_string();
        assert!(err.contains("CONTROL"), "{err}");
    }
}
