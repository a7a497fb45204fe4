//! Mounted file systems with blocks on a device.
//!
//! The table is read by hand: the procfs crate leaves the kernel's `\\040` for a
//! space as it is, and such a mount could then not be asked.

use std::collections::HashSet;

use rustix::fs::StatVfsMountFlags;

use super::Families;
use crate::telemetry::metrics::FamilyBuilder;

/// File systems that are views of the kernel or of other file systems, as
/// node_exporter leaves them out.
const PSEUDO: [&str; 29] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "erofs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "procfs",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tracefs",
    "fuse.lxcfs",
    "fuse.gvfsd-fuse",
    "fuse.portal",
];

/// File systems behind a network; see the module head of `host`.
const REMOTE: [&str; 12] = [
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "fuse.glusterfs",
    "fuse.s3fs",
    "fuse.sshfs",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
];

/// Places whose mounts are nobody's disks.
const PLACES: [&str; 5] = [
    "/dev",
    "/proc",
    "/sys",
    "/var/lib/docker",
    "/var/lib/containers/storage",
];

/// One line of the mount table.
struct Mount {
    device: String,
    place: String,
    kind: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Mount> {
        let mut fields = line.split(' ');
        Some(Mount {
            device: unescape(fields.next()?),
            place: unescape(fields.next()?),
            kind: unescape(fields.next()?),
        })
    }
}

/// A backslash and three octal digits stand for one byte.
fn unescape(field: &str) -> String {
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = field.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            out.push(byte);
            at += 4;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `/proc/mounts`; asks each file system for its size.
pub(super) fn mounts(text: &str, out: &mut Families) {
    let mounts: Vec<Mount> = text.lines().filter_map(Mount::parse).collect();
    let gauge = FamilyBuilder::gauge;
    let mut families = [
        gauge("node_filesystem_size_bytes", "Filesystem size in bytes."),
        gauge(
            "node_filesystem_free_bytes",
            "Filesystem free space in bytes.",
        ),
        gauge(
            "node_filesystem_avail_bytes",
            "Filesystem space available to non-root users in bytes.",
        ),
        gauge("node_filesystem_files", "Filesystem total file nodes."),
        gauge(
            "node_filesystem_files_free",
            "Filesystem total free file nodes.",
        ),
        gauge("node_filesystem_readonly", "Filesystem read-only status."),
    ];
    let mut seen = HashSet::new();
    // Of two mounts on one place only the later one can be seen.
    for mount in mounts.iter().rev() {
        if is_left_out(mount) || !seen.insert(mount.place.as_str()) {
            continue;
        }
        let Ok(stat) = rustix::fs::statvfs(&mount.place) else {
            continue;
        };
        let labels = [
            ("device", mount.device.as_str()),
            ("fstype", mount.kind.as_str()),
            ("mountpoint", mount.place.as_str()),
        ];
        let block = stat.f_frsize as f64;
        let values = [
            stat.f_blocks as f64 * block,
            stat.f_bfree as f64 * block,
            stat.f_bavail as f64 * block,
            stat.f_files as f64,
            stat.f_ffree as f64,
            f64::from(u8::from(stat.f_flag.contains(StatVfsMountFlags::RDONLY))),
        ];
        for (family, value) in families.iter_mut().zip(values) {
            family.add(&labels, value);
        }
    }
    for family in families {
        out.push(family);
    }
}

fn is_left_out(mount: &Mount) -> bool {
    let kind = mount.kind.as_str();
    let place = mount.place.as_str();
    PSEUDO.contains(&kind)
        || REMOTE.contains(&kind)
        || place.starts_with("/run/credentials/")
        || PLACES.iter().any(|prefix| {
            let rest = place.strip_prefix(prefix);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_bytes() {
        let check = |field, want| assert_eq!(unescape(field), want);
        check(r"/a\040b\011c\134d", "/a b\tc\\d");
        check(r"/\303\274", "/ü");
        check(r"\", r"\");
        check(r"\9", r"\9");
        check(r"\999x", r"\999x");
        check("ü\\04", "ü\\04");
    }
}
