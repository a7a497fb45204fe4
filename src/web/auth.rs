//! Who may ask: host names, origins and the token.
//!
//! A page of another site must not reach us through a visitor's browser. It could by
//! a name that it lets point to our address (DNS rebinding), so requests must name us
//! by an IP address, `localhost` or a configured name; and by sending forms, so
//! requests that change something must come from our own pages. A request that
//! carries the token cannot have been made through a foreign name, and may use any:
//! that is how a scraper reaches us by the name of the machine. A bearer token no
//! other site can add either; the password of basic authentication a browser adds to
//! the forms of every site, so its origin counts all the same.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use axum::http::{HeaderMap, Method, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq as _;

use super::api::v2::scope::Scope;
use crate::config::{Config, Mistake, Secret};
use crate::delivery::address::bare;
use crate::model::matcher;

/// What browsers say about where a request comes from.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// The `Host` is none of ours.
    Host,
    /// Another site sent it.
    Origin,
    /// The token is missing or wrong.
    Auth,
}

/// The access rules of one configuration.
pub(super) struct Access {
    token: Token,
    /// Tenants with the digests of their tokens.
    tenants: Vec<(String, [u8; 32])>,
    hosts: Vec<String>,
    /// Which origins may read the query API.
    shared_with: Option<regex::Regex>,
}

enum Token {
    /// Everybody may.
    None,
    /// Whoever has the text with this digest may.
    Digest([u8; 32]),
    /// It could not be read: nobody may.
    Unreadable,
}

/// What only the web part can judge: listeners, access and the dashboards' folder.
pub fn mistakes(config: &Config) -> Vec<Mistake> {
    let mut found = Vec::new();
    let (server, token) = (&config.server, &config.auth.token);
    if server.listen.is_empty() {
        let text = "empty, expected at least one address";
        found.push(Mistake::new("server.listen", text));
    }
    for (at, open) in server.listen.iter().enumerate() {
        let path = format!("server.listen[{at}]");
        if server.listen[..at].contains(open) && open.port() != 0 {
            found.push(Mistake::new(path, format!("{open} is listened on twice")));
        } else if token.is_none() && !open.ip().is_loopback() {
            let text = format!(
                "{open} is reachable from outside, expected a token in [auth] or a loopback address"
            );
            found.push(Mistake::new(path, text));
        }
    }
    match token.as_ref().map(Secret::read) {
        Some(Ok(token)) if token.is_empty() => {
            found.push(Mistake::new("auth.token", "empty, expected a text"));
        }
        Some(Err(err)) => found.push(Mistake::new("auth.token", format!("{err:#}"))),
        _ => {}
    }
    if let Err(err) = matcher::anchored(&server.cors_origin) {
        found.push(Mistake::new("server.cors_origin", format!("{err:#}")));
    }
    for (at, host) in server.allowed_hosts.iter().enumerate() {
        if host.is_empty() || host.contains(['/', ':', ' ']) {
            let text = format!("{host:?} is not a host name, expected one without scheme and port");
            found.push(Mistake::new(format!("server.allowed_hosts[{at}]"), text));
        }
    }
    if let Some(folder) = &server.dashboards_dir {
        let folder = config.resolve(folder);
        if let Err(err) = std::fs::read_dir(&folder) {
            let text = format!("cannot read {}: {err}", folder.display());
            found.push(Mistake::new("server.dashboards_dir", text));
        }
    }
    found
}

impl Access {
    /// Reads the token; one that cannot be read shuts everybody out.
    pub(super) fn new(config: &Config) -> Access {
        let token = match config.auth.token.as_ref().map(crate::config::Secret::read) {
            None => Token::None,
            Some(Ok(text)) if !text.is_empty() => Token::Digest(sha256(text.as_bytes())),
            Some(_) => {
                tracing::error!("token of [auth] cannot be read, all requests are refused");
                Token::Unreadable
            }
        };
        let external = config.global.external_url.parse::<Uri>().ok();
        let external = external.and_then(|uri| uri.host().map(str::to_owned));
        let hosts = config.server.allowed_hosts.iter().cloned().chain(external);
        let tenants = config.tenant.iter().filter_map(|tenant| {
            let token = tenant.token.as_ref()?.read().ok()?;
            let digest = sha256(token.as_bytes());
            (!token.is_empty()).then(|| (tenant.id.as_str().to_owned(), digest))
        });
        let pattern = &config.server.cors_origin;
        let shared_with = match matcher::anchored(pattern) {
            Ok(regex) if !pattern.is_empty() => Some(regex),
            // A bad pattern was refused when the configuration was checked.
            _ => None,
        };
        Access {
            token,
            tenants: tenants.collect(),
            hosts: hosts.map(|host| host.to_ascii_lowercase()).collect(),
            shared_with,
        }
    }

    /// Judges a request. `own_credentials`: the handler checks who asks by itself.
    pub(super) fn judge(
        &self,
        method: &Method,
        headers: &HeaderMap,
        own_credentials: bool,
    ) -> Result<(), Refusal> {
        if let Token::Digest(_) = self.token
            && self.knows(headers)
        {
            let host = headers.get(HOST).and_then(|host| host.to_str().ok());
            let is_foreign = !method.is_safe()
                && is_basic(headers)
                && is_from_elsewhere(headers, host.unwrap_or(""));
            return if is_foreign {
                Err(Refusal::Origin)
            } else {
                Ok(())
            };
        }
        // Whether they are good is for the handler to say.
        if own_credentials && headers.contains_key(AUTHORIZATION) {
            return Ok(());
        }
        let host = headers.get(HOST).map(|host| host.to_str().unwrap_or(""));
        if host.is_some_and(|host| !self.is_our_name(host)) {
            return Err(Refusal::Host);
        }
        if !method.is_safe() && is_from_elsewhere(headers, host.unwrap_or("")) {
            return Err(Refusal::Origin);
        }
        match self.token {
            Token::None => Ok(()),
            _ if own_credentials => Ok(()),
            Token::Digest(_) | Token::Unreadable => Err(Refusal::Auth),
        }
    }

    /// Who asks; `None` when a token is needed and none that is known was given.
    pub(super) fn scope(&self, headers: &HeaderMap) -> Option<Scope> {
        if self.knows(headers) {
            return Some(Scope::Operator);
        }
        if let Some(token) = presented(headers) {
            let given = sha256(&token);
            let mut tenants = self.tenants.iter();
            if let Some((id, _)) = tenants.find(|(_, digest)| bool::from(given.ct_eq(digest))) {
                return Some(Scope::Tenant(id.clone()));
            }
        }
        matches!(self.token, Token::None).then_some(Scope::Operator)
    }

    /// Whether pages of this origin may read the query API.
    pub(super) fn shares_with(&self, origin: &str) -> bool {
        let shared_with = self.shared_with.as_ref();
        shared_with.is_some_and(|regex| regex.is_match(origin))
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        let Token::Digest(wanted) = &self.token else {
            return false;
        };
        // Digests of equal length: the comparison tells nothing about the token.
        presented(headers).is_some_and(|token| bool::from(sha256(&token).ct_eq(wanted)))
    }

    fn is_our_name(&self, host: &str) -> bool {
        let name = host_name(host).to_ascii_lowercase();
        bare(&name).parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.hosts.contains(&name)
    }
}

/// The token of the request: a bearer token, or the password of basic authentication.
fn presented(headers: &HeaderMap) -> Option<Vec<u8>> {
    let (scheme, rest) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = BASE64.decode(rest.trim()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

/// Whether the credentials are such as a browser sends on its own.
fn is_basic(headers: &HeaderMap) -> bool {
    let given = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
    let scheme = given.and_then(|given| given.split_once(' '));
    scheme.is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
}

fn is_from_elsewhere(headers: &HeaderMap, host: &str) -> bool {
    if let Some(origin) = headers.get(ORIGIN) {
        let origin = origin.to_str().unwrap_or("null");
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        return authority.is_none_or(|authority| !authority.eq_ignore_ascii_case(host));
    }
    headers
        .get(SEC_FETCH_SITE)
        .is_some_and(|site| site != "same-origin" && site != "none")
}

/// A `Host` without its port.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest(&SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Remembers the rules of the configuration in force.
pub(super) struct AccessCache(std::sync::Mutex<Option<(Arc<Config>, Arc<Access>)>>);

impl AccessCache {
    pub(super) fn new() -> AccessCache {
        AccessCache(std::sync::Mutex::new(None))
    }

    /// The rules of this configuration; made when it is another one than before.
    pub(super) fn of(&self, config: Arc<Config>) -> Arc<Access> {
        let mut cached = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*cached {
            Some((known, access)) if Arc::ptr_eq(known, &config) => Arc::clone(access),
            _ => {
                let access = Arc::new(Access::new(&config));
                *cached = Some((config, Arc::clone(&access)));
                access
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(text: &str) -> Access {
        Access::new(&Config::parse(text, "c.toml").unwrap())
    }

    fn judge(access: &Access, method: Method, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        access.judge(&method, &map, false)
    }

    #[test]
    fn only_our_names_are_answered() {
        let access = access(
            "[server]\nallowed_hosts = [\"Box.lan\"]\n[global]\nexternal_url = \"https://pulse.example/x\"",
        );
        for host in [
            "127.0.0.1:8080",
            "127.0.0.1",
            "192.168.1.7:9090",
            "[::1]:8080",
            "[::1]",
            "localhost:8080",
            "LOCALHOST",
            "a.localhost",
            "box.lan:1",
            "pulse.example",
        ] {
            assert_eq!(
                judge(&access, Method::GET, &[("host", host)]),
                Ok(()),
                "{host}"
            );
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example:8080",
            "notlocalhost",
            "",
        ] {
            let verdict = judge(&access, Method::GET, &[("host", host)]);
            assert_eq!(verdict, Err(Refusal::Host), "{host}");
        }
        assert_eq!(judge(&access, Method::GET, &[]), Ok(()), "no browser");
    }

    #[test]
    fn other_sites_change_nothing() {
        let access = access("");
        let host = ("host", "localhost:8080");
        for (headers, want) in [
            (vec![host], Ok(())),
            (vec![host, ("origin", "http://localhost:8080")], Ok(())),
            (
                vec![host, ("origin", "http://localhost:9999")],
                Err(Refusal::Origin),
            ),
            (
                vec![host, ("origin", "http://evil.example")],
                Err(Refusal::Origin),
            ),
            (vec![host, ("origin", "null")], Err(Refusal::Origin)),
            (
                vec![host, ("sec-fetch-site", "cross-site")],
                Err(Refusal::Origin),
            ),
            (vec![host, ("sec-fetch-site", "same-origin")], Ok(())),
        ] {
            assert_eq!(judge(&access, Method::POST, &headers), want, "{headers:?}");
            assert_eq!(judge(&access, Method::GET, &headers), Ok(()), "{headers:?}");
        }
    }

    #[test]
    fn the_token_opens_the_door_in_two_forms_and_under_any_name() {
        let access = access("[auth]\ntoken = \"s3cret\"");
        let basic = format!("Basic {}", BASE64.encode("any:s3cret"));
        let wrong = format!("Basic {}", BASE64.encode("s3cret:"));
        for (header, want) in [
            ("Bearer s3cret", Ok(())),
            ("bearer s3cret", Ok(())),
            (basic.as_str(), Ok(())),
            ("Bearer s3cre", Err(Refusal::Auth)),
            ("Bearer", Err(Refusal::Auth)),
            ("Basic %%%", Err(Refusal::Auth)),
            (wrong.as_str(), Err(Refusal::Auth)),
            ("", Err(Refusal::Auth)),
        ] {
            let headers = [("host", "localhost"), ("authorization", header)];
            assert_eq!(judge(&access, Method::GET, &headers), want, "{header}");
        }
        let headers = [
            ("host", "edge-box:8080"),
            ("authorization", "Bearer s3cret"),
        ];
        assert_eq!(judge(&access, Method::POST, &headers), Ok(()));
        assert_eq!(
            judge(&access, Method::GET, &[("host", "edge-box:8080")]),
            Err(Refusal::Host)
        );
    }

    #[test]
    fn a_browsers_password_does_not_open_the_door_for_other_sites() {
        let access = access("[auth]\ntoken = \"s3cret\"");
        let basic = format!("Basic {}", BASE64.encode("any:s3cret"));
        let host = ("host", "edge-box:8080");
        for (credentials, from, want) in [
            (basic.as_str(), ("origin", "http://edge-box:8080"), Ok(())),
            (basic.as_str(), ("x-none", ""), Ok(())),
            (
                basic.as_str(),
                ("origin", "http://evil.example"),
                Err(Refusal::Origin),
            ),
            (
                basic.as_str(),
                ("sec-fetch-site", "cross-site"),
                Err(Refusal::Origin),
            ),
            ("Bearer s3cret", ("origin", "http://evil.example"), Ok(())),
        ] {
            let headers = [host, ("authorization", credentials), from];
            let verdict = judge(&access, Method::POST, &headers);
            assert_eq!(verdict, want, "{credentials} {from:?}");
            assert_eq!(judge(&access, Method::GET, &headers), Ok(()));
        }
    }

    #[test]
    fn a_device_with_a_token_of_its_own_may_use_any_name() {
        let access = access("");
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "edge-box:8080".parse().unwrap());
        let judge = |headers: &HeaderMap| access.judge(&Method::POST, headers, true);
        assert_eq!(judge(&headers), Err(Refusal::Host));
        headers.insert(AUTHORIZATION, "Bearer of-a-tenant".parse().unwrap());
        assert_eq!(judge(&headers), Ok(()));
        assert_eq!(
            access.judge(&Method::POST, &headers, false),
            Err(Refusal::Host)
        );
    }

    #[test]
    fn a_token_that_cannot_be_read_lets_nobody_in() {
        let access = access("[auth]\ntoken = { file = \"/none\" }");
        let headers = [("host", "localhost"), ("authorization", "Bearer ")];
        assert_eq!(judge(&access, Method::GET, &headers), Err(Refusal::Auth));
    }

    #[test]
    fn an_open_listener_needs_a_token() {
        let check = |text: &str| mistakes(&Config::parse(text, "c.toml").unwrap()).len();
        let open = "[server]\nlisten = [\"0.0.0.0:8080\"]\n";
        let found = mistakes(&Config::parse(open, "c.toml").unwrap());
        assert!(found[0].to_string().contains("expected a token in [auth]"));
        assert_eq!(check(&format!("{open}[auth]\ntoken = \"x\"")), 0);
        assert_eq!(check(&format!("{open}[auth]\ntoken = \"\"")), 1);
        assert_eq!(check(""), 0);
        assert_eq!(check("[server]\nlisten = [\"[::1]:8080\"]"), 0);
        assert_eq!(check("[server]\nallowed_hosts = [\"http://x\"]"), 1);
        assert_eq!(check("[server]\ndashboards_dir = \"/nowhere/at/all\""), 1);
    }
}
