//! Host and port of a broker's URL, and our own name.

use anyhow::{Context as _, bail, ensure};

/// Reads `HOST`, `HOST:PORT` or `[IPV6]:PORT`.
///
/// # Errors
/// When there is more or less than that.
pub(super) fn parse(text: &str, default_port: u16) -> anyhow::Result<(String, u16)> {
    ensure!(
        !text.contains('@'),
        "credentials do not belong into the url, use username and password"
    );
    let text = text.strip_suffix('/').unwrap_or(text);
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').context("a [ without its ]")?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => bail!("{rest:?} behind the host, expected :PORT"),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    ensure!(!host.is_empty(), "no host");
    ensure!(
        !host.contains(['/', '?', '#', ' ']),
        "{host:?} is no host name"
    );
    let port = match port {
        None => default_port,
        Some(port) => match port.parse() {
            Ok(port) if port > 0 => port,
            _ => bail!("port {port:?}, expected 1 to 65535"),
        },
    };
    Ok((host.to_owned(), port))
}

/// The name of this machine; `localhost` when it has none.
pub(super) fn host_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name
    }
}
