//! Where a destination may lead to.
//!
//! A name is resolved once, every address it has is checked, and the connection goes
//! to one of the checked addresses. So a name that changes its address between check
//! and connection (DNS rebinding) gains nothing, and neither does an address in
//! disguise: IPv4 inside IPv6 (mapped, compatible, NAT64, 6to4) is judged as the
//! IPv4 address it leads to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long after its question the answer of a resolver is taken.
const NAME_HOLDS: Duration = Duration::from_secs(1);

/// Who named the destination decides where it may lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// The operator, in the configuration: this host and the local network are
    /// allowed, because that is where an edge box has its receivers.
    Operator,
    /// A tenant: only public addresses.
    Tenant,
}

/// An address that a policy does not allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("address {address} is not allowed: {reason}")]
pub struct Denied {
    /// The address.
    pub address: IpAddr,
    /// Why.
    pub reason: &'static str,
}

impl Policy {
    /// Checks one address.
    ///
    /// # Errors
    /// When the policy does not allow it.
    pub fn check(self, address: IpAddr) -> Result<(), Denied> {
        let reason = match unwrapped(address) {
            IpAddr::V4(v4) => never_v4(v4).or_else(|| self.tenant_only(|| local_v4(v4))),
            IpAddr::V6(v6) => never_v6(v6).or_else(|| self.tenant_only(|| local_v6(v6))),
        };
        reason.map_or(Ok(()), |reason| Err(Denied { address, reason }))
    }

    fn tenant_only(self, reason: impl Fn() -> Option<&'static str>) -> Option<&'static str> {
        match self {
            Policy::Operator => None,
            Policy::Tenant => reason(),
        }
    }
}

/// The IPv4 address that an IPv6 address leads to, or the address itself.
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let s = v6.segments();
    let tail = || {
        let [a, b] = s[6].to_be_bytes();
        let [c, d] = s[7].to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        // ::ffff:a.b.c.d (mapped) and ::ffff:0:a.b.c.d (translated, RFC 2765).
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => tail(),
        // ::a.b.c.d (compatible), but not :: and ::1.
        [0, 0, 0, 0, 0, 0, hi, lo] if hi != 0 || lo > 1 => tail(),
        // 64:ff9b::/96 and the local-use 64:ff9b:1::/48 (NAT64).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => tail(),
        // 2002:a.b.c.d::/48 (6to4).
        [0x2002, hi, lo, ..] => {
            let [[a, b], [c, d]] = [hi, lo].map(u16::to_be_bytes);
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        _ => address,
    }
}

/// Never a receiver, whoever says so.
fn never_v4(ip: Ipv4Addr) -> Option<&'static str> {
    if ip.octets()[0] == 0 {
        Some("unspecified")
    } else if ip.is_multicast() || ip.is_broadcast() {
        Some("multicast or broadcast")
    } else if ip.is_link_local() || ip == Ipv4Addr::new(100, 100, 100, 200) {
        Some("link-local or cloud metadata")
    } else {
        None
    }
}

fn never_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let aws_metadata = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    if ip.is_unspecified() {
        Some("unspecified")
    } else if ip.is_multicast() {
        Some("multicast or broadcast")
    } else if ip.is_unicast_link_local() || ip == aws_metadata {
        Some("link-local or cloud metadata")
    } else {
        None
    }
}

/// Not reachable from the public network, or reserved.
fn local_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = ip.octets();
    if ip.is_loopback() {
        Some("loopback")
    } else if ip.is_private() || (a == 100 && (64..128).contains(&b)) {
        Some("private network")
    } else if a >= 240
        || (a, b, c) == (192, 0, 0)
        || (a, b & 0xfe) == (198, 18)
        || ip.is_documentation()
    {
        Some("reserved")
    } else {
        None
    }
}

fn local_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let s = ip.segments();
    if ip.is_loopback() {
        Some("loopback")
    } else if ip.is_unique_local() || s[0] & 0xffc0 == 0xfec0 {
        Some("private network")
    } else if s[0] & 0xe000 != 0x2000 || (s[0] == 0x2001 && (s[1] == 0 || s[1] == 0xdb8)) {
        // Outside global unicast, Teredo, documentation.
        Some("reserved")
    } else {
        None
    }
}

/// Connects to the first checked address of a host that answers.
///
/// # Errors
/// When there is none, or one may not be asked.
pub(super) async fn connect(
    policy: Policy,
    host: &str,
    port: u16,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let names = Names::default();
    names.connect(policy, host, port, timeout).await
}

async fn connect_to(
    policy: Policy,
    addresses: &[SocketAddr],
    deadline: Instant,
) -> io::Result<TcpStream> {
    for address in addresses {
        policy
            .check(address.ip())
            .map_err(|denied| io::Error::new(io::ErrorKind::PermissionDenied, denied))?;
    }
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (i, address) in addresses.iter().enumerate() {
        // An address that swallows packets must leave time for the next ones.
        let left = u32::try_from(addresses.len() - i).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(err)) => error = err,
            Err(_) => error = io::Error::new(io::ErrorKind::TimedOut, "connecting timed out"),
        }
    }
    Err(error)
}

type Found = Result<Arc<[SocketAddr]>, Arc<io::Error>>;
type Lookup = Shared<BoxFuture<'static, Found>>;

/// The names of one destination. A resolver that hangs holds a thread long after whoever
/// asked it has given up, so one lookup is under way at a time: all who ask meanwhile wait
/// for that one, and who asks within a moment after it takes what it found.
#[derive(Clone, Default)]
pub(super) struct Names(Arc<Mutex<Option<Asked>>>);

struct Asked {
    host: String,
    port: u16,
    at: Instant,
    lookup: Lookup,
}

impl Names {
    /// As [`connect`].
    pub(super) async fn connect(
        &self,
        policy: Policy,
        host: &str,
        port: u16,
        timeout: Duration,
    ) -> io::Result<TcpStream> {
        let deadline = Instant::now() + timeout;
        let asked = (host.to_owned(), port);
        let found = self
            .looked_up(host, port, || Box::pin(look_up(asked)))
            .await;
        let addresses = found.map_err(|err| io::Error::new(err.kind(), err.to_string()))?;
        connect_to(policy, &addresses, deadline).await
    }

    fn looked_up(
        &self,
        host: &str,
        port: u16,
        look_up: impl FnOnce() -> BoxFuture<'static, Found>,
    ) -> Lookup {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = &*last
            && (asked.host.as_str(), asked.port) == (host, port)
            && (asked.lookup.peek().is_none() || asked.at.elapsed() < NAME_HOLDS)
        {
            return asked.lookup.clone();
        }
        let lookup = look_up().shared();
        *last = Some(Asked {
            host: host.to_owned(),
            port,
            at: Instant::now(),
            lookup: lookup.clone(),
        });
        lookup
    }
}

async fn look_up((host, port): (String, u16)) -> Found {
    let found = tokio::net::lookup_host((host.as_str(), port)).await;
    found.map(Iterator::collect).map_err(Arc::new)
}

/// A host without the brackets of an IPv6 address.
pub fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_hangs_is_asked_once_by_all_who_wait() {
        let (names, asked) = (Names::default(), AtomicUsize::new(0));
        let ask = |host, port, answers: bool| {
            names.looked_up(host, port, || {
                asked.fetch_add(1, Ordering::Relaxed);
                match answers {
                    false => Box::pin(std::future::pending()),
                    true => Box::pin(async { Ok(Arc::from([])) }),
                }
            })
        };
        let count = || asked.swap(0, Ordering::Relaxed);
        for _ in 0..64 {
            let wait = Duration::from_secs(5);
            assert!(
                tokio::time::timeout(wait, ask("a", 1, false))
                    .await
                    .is_err()
            );
        }
        assert_eq!(count(), 1);
        for (host, port) in [("b", 1), ("b", 2)] {
            for _ in 0..3 {
                assert!(ask(host, port, true).await.is_ok());
            }
            assert_eq!(count(), 1, "{host} {port}");
        }
        tokio::time::advance(NAME_HOLDS).await;
        assert!(ask("b", 2, true).await.is_ok());
        assert_eq!(count(), 1, "an answer holds for a moment");
    }

    fn check(address: &str, operator: bool, tenant: bool) {
        let ip: IpAddr = address.parse().unwrap();
        assert_eq!(Policy::Operator.check(ip).is_ok(), operator, "{address}");
        assert_eq!(Policy::Tenant.check(ip).is_ok(), tenant, "{address}");
    }

    #[test]
    fn nobody_reaches_metadata_unspecified_or_multicast() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
        ] {
            check(address, false, false);
        }
    }

    #[test]
    fn only_the_operator_reaches_this_host_and_the_local_network() {
        for address in [
            "127.0.0.1",
            "127.255.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "240.0.0.1",
            "::1",
            "fc00::1",
            "fd12:3456::1",
            "fec0::1",
            "2001:db8::1",
            "2001::1",
        ] {
            check(address, true, false);
        }
    }

    #[test]
    fn everybody_reaches_public_addresses() {
        for address in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.32.0.1",
            "198.20.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
        ] {
            check(address, true, true);
        }
    }

    #[test]
    fn disguised_addresses_are_judged_by_where_they_lead() {
        for address in [
            "::ffff:169.254.169.254",
            "::ffff:0:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "::ffff:0.0.0.0",
            "64:ff9b::224.0.0.1",
        ] {
            check(address, false, false);
        }
        for address in [
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:c0a8:101::1",
            "::ffff:192.168.0.1",
        ] {
            check(address, true, false);
        }
    }
}
