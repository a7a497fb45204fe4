//! HTTP proxies on the way to a receiver, in the words of `http_config`.
//!
//! `http://` goes through one as a request for the whole address, `https://` through a
//! tunnel (`CONNECT`). A receiver's address does not change, so whether it has a proxy is
//! settled when the configuration is read. The rules of `no_proxy` and of the environment
//! are Go's: names also cover what is below them, this host is never asked for by a proxy.
//!
//! A proxy resolves the names of receivers itself: only its own address is checked.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context as _, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::Uri;
use hyper::header::{self, HeaderMap, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::address::bare;

/// Longer heads of an answer are refused.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    /// A name or an address.
    pub(super) host: String,
    pub(super) port: u16,
    /// `Basic ...`, when its URL has a user.
    pub(super) authorization: Option<String>,
    /// More lines for the head of `CONNECT`, each with its end.
    pub(super) connect_lines: String,
}

impl Proxy {
    /// The proxy of a URL.
    ///
    /// # Errors
    /// With what was expected; the URL may hold a password and is not told.
    pub(super) fn of_url(text: &str) -> anyhow::Result<Proxy> {
        let expected = "expected http://[USER:PASSWORD@]HOST[:PORT]";
        let uri: Uri = text.parse().map_err(|err| anyhow!("{err}, {expected}"))?;
        let scheme = uri.scheme_str().unwrap_or_default();
        ensure!(scheme == "http", "{scheme:?} is not supported, {expected}");
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let user = authority.rsplit_once('@').map(|(user, _)| user);
        let authorization = user
            .map(|user| unescaped(user).map(|user| format!("Basic {}", BASE64.encode(user))))
            .transpose()
            .with_context(|| expected.to_owned())?;
        let host = uri.host().unwrap_or_default();
        ensure!(!host.is_empty(), "no host, {expected}");
        Ok(Proxy {
            host: bare(host).to_owned(),
            port: port_of(&uri),
            authorization,
            connect_lines: String::new(),
        })
    }

    /// Says who asks, where the proxy is asked for a whole address; for a tunnel it is told
    /// when that is made.
    pub(super) fn authorize(&self, uri: &Uri, headers: &mut HeaderMap) {
        if let Some(value) = self.authorization.as_deref().filter(|_| !is_https(uri)) {
            let value = HeaderValue::from_str(value).expect("base64 is a header value");
            headers.insert(header::PROXY_AUTHORIZATION, value);
        }
    }

    /// Asks the proxy for a tunnel.
    ///
    /// # Errors
    /// When it makes none.
    pub(super) async fn tunnel(
        &self,
        stream: &mut TcpStream,
        host: &str,
        port: u16,
    ) -> io::Result<()> {
        let mut head = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
        if let Some(value) = &self.authorization {
            head = format!("{head}Proxy-Authorization: {value}\r\n");
        }
        head = format!("{head}{}\r\n", self.connect_lines);
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        // The server behind says nothing before it is spoken to.
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() > HEAD_BYTES_MAX || stream.read_buf(&mut answer).await? == 0 {
                return Err(io::Error::other("the proxy answers no HTTP"));
            }
        }
        let answer = String::from_utf8_lossy(&answer);
        let line = answer.lines().next().unwrap_or_default();
        let is_made = line
            .split(' ')
            .nth(1)
            .is_some_and(|code| code.starts_with('2'));
        match is_made {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "the proxy makes no tunnel: {line}"
            ))),
        }
    }
}

/// The proxy that the environment names for a scheme, with the hosts that have none.
pub(super) fn of_environment(scheme: &str) -> Option<(String, String)> {
    let var = |name: &str| {
        let text = std::env::var(name).or_else(|_| std::env::var(name.to_lowercase()));
        text.ok().filter(|text| !text.is_empty())
    };
    let url = var(match scheme {
        "https" => "HTTPS_PROXY",
        _ => "HTTP_PROXY",
    })?;
    let url = match url.contains("://") {
        true => url,
        false => format!("http://{url}"),
    };
    Some((url, var("NO_PROXY").unwrap_or_default()))
}

/// Whether requests for a host go there straight, by a list of hosts, domains, addresses
/// and ranges with commas between them.
pub(super) fn is_spared(uri: &Uri, no_proxy: &str) -> bool {
    let host = bare(uri.host().unwrap_or_default()).to_lowercase();
    let port = port_of(uri);
    let ip: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
        return true;
    }
    no_proxy.split(',').any(|entry| {
        let entry = entry.trim().to_lowercase();
        if entry == "*" {
            return true;
        }
        if let Some((range, bits)) = entry.split_once('/') {
            let range = range.parse().ok().zip(bits.parse().ok());
            return ip
                .zip(range)
                .is_some_and(|(ip, (range, bits))| within(ip, range, bits));
        }
        let (name, of_port) = match entry.rsplit_once(':') {
            Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
                (name, digits.parse::<u16>().ok())
            }
            _ => (entry.as_str(), None),
        };
        if name.is_empty() || of_port.is_some_and(|of_port| of_port != port) {
            return false;
        }
        if ip.is_some() {
            return bare(name).parse().ok() == ip;
        }
        let name = name.strip_prefix('*').unwrap_or(name);
        let below = host.strip_suffix(name.trim_start_matches('.'));
        below.is_some_and(|below| match below {
            "" => !name.starts_with('.'),
            below => below.ends_with('.'),
        })
    })
}

/// Whether an address lies in a range of the same family.
fn within(ip: IpAddr, range: IpAddr, bits: u32) -> bool {
    let number = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (Ipv6Addr::to_bits(v6), 128),
    };
    let ((a, width), (b, of_range)) = (number(ip), number(range));
    let differing = (a ^ b).leading_zeros();
    width == of_range && bits <= width && differing >= bits
}

/// Whether requests go there by TLS.
pub(super) fn is_https(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

/// The port that requests go to: the URI's own, or its scheme's.
pub(super) fn port_of(uri: &Uri) -> u16 {
    let of_scheme = if is_https(uri) { 443 } else { 80 };
    uri.port_u16().unwrap_or(of_scheme)
}

/// A user and its password with the bytes that percent signs stand for.
pub(super) fn unescaped(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let byte = part
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let Some(byte) = byte else {
            bail!("a percent sign without two hexadecimal digits in the user or the password");
        };
        bytes.push(byte);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_proxy_has_a_host_and_may_have_a_user() {
        let proxy = |text: &str| Proxy::of_url(text).map_err(|err| format!("{err:#}"));
        let plain = proxy("http://p.example:3128").unwrap();
        assert_eq!((plain.host.as_str(), plain.port), ("p.example", 3128));
        assert_eq!(plain.authorization, None);
        assert_eq!(proxy("http://[::1]/").unwrap().host, "::1");
        assert_eq!(proxy("http://p").unwrap().port, 80);
        let secret = proxy("http://me:a%3Ab%40@p").unwrap().authorization;
        assert_eq!(
            secret.unwrap(),
            format!("Basic {}", BASE64.encode("me:a:b@"))
        );
        for bad in [
            "socks5://p",
            "https://p",
            "p:3128",
            "http://",
            "http://a%zz@p",
            "",
        ] {
            let err = proxy(bad).err().unwrap();
            assert!(err.contains("expected http://"), "{bad}: {err}");
        }
    }

    #[test]
    fn a_proxy_hears_who_asks_with_each_request_that_it_reads() {
        for (url, uri, want) in [
            ("http://u:p@h", "http://x/", Some("Basic dTpw")),
            ("http://u:p@h", "https://x/", None),
            ("http://h", "http://x/", None),
        ] {
            let mut headers = HeaderMap::new();
            let proxy = Proxy::of_url(url).unwrap();
            proxy.authorize(&uri.parse().unwrap(), &mut headers);
            let said = headers.get(header::PROXY_AUTHORIZATION);
            assert_eq!(said.map(|said| said.to_str().unwrap()), want, "{url} {uri}");
        }
    }

    #[test]
    fn no_proxy_is_read_as_go_reads_it() {
        for (uri, list, want) in [
            ("http://localhost/", "", true),
            ("http://127.9.9.9/", "", true),
            ("http://[::1]:90/", "", true),
            ("http://a.example/", "", false),
            ("http://a.example/", "*", true),
            ("http://a.example/", "b.example, A.EXAMPLE", true),
            ("http://x.a.example/", "a.example", true),
            ("http://xa.example/", "a.example", false),
            ("http://a.example/", ".a.example", false),
            ("http://x.a.example/", ".a.example", true),
            ("http://x.a.example/", "*.a.example", true),
            ("http://a.example/", "a.example:80", true),
            ("https://a.example/", "a.example:80", false),
            ("http://10.1.2.3/", "10.0.0.0/8", true),
            ("http://11.1.2.3/", "10.0.0.0/8", false),
            ("http://10.1.2.3/", "::/0", false),
            ("http://[fd00::1]/", "fd00::/16", true),
            ("http://10.1.2.3:90/", "10.1.2.3", true),
            ("http://10.1.2.3:90/", "10.1.2.3:91", false),
            ("http://[fd00::1]:90/", "fd00::1", true),
            ("http://10.1.2.3/", "2.3", false),
        ] {
            assert_eq!(is_spared(&uri.parse().unwrap(), list), want, "{uri} {list}");
        }
    }
}
