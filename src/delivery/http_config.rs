//! How the requests of receivers are made: `http_config` in Alertmanager's words.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::Uri;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use rustls::SupportedProtocolVersion;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};

use super::address::Policy;
use super::http::Way;
use super::integration::Reader;
use super::options;
use super::proxy::{self, Proxy};
use super::tls::{self, Pem, Pems};
use crate::config::Secret;
use crate::config::receivers::{HeaderValues, HttpConfig, TlsConfig};

/// What to say of `insecure_skip_verify`.
pub(super) const TRUSTS_ANYBODY: &str = "insecure_skip_verify: whoever answers is taken for the \
    server and gets the alerts and the credentials; better name its certificate in ca_file";

/// What to say of `min_version: TLS10` and `TLS11`.
pub(super) const ASKS_OLD_TLS: &str = "min_version: TLS 1.2 is the oldest version that is spoken";

/// Where and how requests go.
pub(super) struct Http {
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) way: Way,
}

impl Reader<'_> {
    /// How requests to `url` are made.
    pub(super) fn http(&mut self, own: Option<&HttpConfig>, url: &str) -> anyhow::Result<Http> {
        let uri = options::uri(url)?;
        let plain = HttpConfig::default();
        let global = self.tree.global.http_config.as_ref();
        let config = own.or(global).unwrap_or(&plain);
        let mut headers = HeaderMap::new();
        if let Some(value) = self.authorization(config).context("http_config")? {
            let mut value = HeaderValue::from_str(&value)
                .map_err(|_| anyhow!("http_config: the credentials hold control characters"))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        self.more_headers(config, &mut headers)
            .context("http_config: http_headers")?;
        ensure!(
            config.oauth2.is_none(),
            "http_config: oauth2: not supported, expected authorization or basic_auth"
        );
        let proxy = self.proxy(config, &uri).context("http_config")?;
        let pems = self.pems(&config.tls_config);
        let pems = pems.context("http_config: tls_config")?;
        let tls = if proxy::is_https(&uri) {
            self.trusts_anybody |= config.tls_config.insecure_skip_verify;
            let client = tls::client(&pems);
            Some(Arc::new(client.context("http_config: tls_config")?))
        } else {
            None
        };
        // The one of `global` is not in what is written of the receiver.
        self.note(&format!("{config:?}"));
        let server_name = server_name(&config.tls_config).context("http_config: tls_config")?;
        let way = Way {
            server_name,
            tls,
            proxy: proxy.map(Arc::new),
            redirects: config
                .follow_redirects
                .unwrap_or(true)
                .then(|| Arc::new(pems)),
            policy: Policy::Operator,
        };
        Ok(Http { uri, headers, way })
    }

    /// As [`Reader::http`], of an address that may hold a user and a password: these go
    /// before those of `http_config`, as in Go.
    pub(super) fn http_of_secret(
        &mut self,
        own: Option<&HttpConfig>,
        url: &str,
    ) -> anyhow::Result<Http> {
        let (url, pair) = split_user(url).context("url")?;
        let mut http = self.http(own, &url)?;
        if let Some(pair) = pair {
            let value = format!("Basic {}", BASE64.encode(pair));
            let mut value = HeaderValue::from_str(&value).expect("base64 is a header value");
            value.set_sensitive(true);
            http.headers.insert(header::AUTHORIZATION, value);
        }
        Ok(http)
    }

    /// Adds the configured headers.
    fn more_headers(&mut self, config: &HttpConfig, headers: &mut HeaderMap) -> anyhow::Result<()> {
        for (header, value) in self.header_values(&config.http_headers)? {
            ensure!(
                !options::RESERVED_HEADERS.contains(&header),
                "{:?} is set by pulse or by another option",
                header.as_str()
            );
            headers.append(header, value);
        }
        Ok(())
    }

    /// Header values from wherever they stand.
    fn header_values(
        &mut self,
        given: &BTreeMap<String, HeaderValues>,
    ) -> anyhow::Result<Vec<(HeaderName, HeaderValue)>> {
        let mut all = Vec::new();
        for (name, given) in given {
            let header: HeaderName = name
                .parse()
                .map_err(|_| anyhow!("{name:?} is not a header name"))?;
            let mut texts = given.values.clone();
            for secret in &given.secrets {
                texts.extend(self.optional(name, Some(secret), None)?);
            }
            for file in &given.files {
                texts.extend(self.optional(name, None, Some(file))?);
            }
            for text in texts {
                let mut value = HeaderValue::from_str(&text)
                    .map_err(|_| anyhow!("a value of {name:?} holds control characters"))?;
                value.set_sensitive(true);
                all.push((header.clone(), value));
            }
        }
        Ok(all)
    }

    /// How a server is trusted.
    pub(super) fn tls(&mut self, config: &TlsConfig) -> anyhow::Result<rustls::ClientConfig> {
        self.trusts_anybody |= config.insecure_skip_verify;
        tls::client(&self.pems(config)?)
    }

    fn pems(&mut self, config: &TlsConfig) -> anyhow::Result<Pems> {
        let versions = versions(config)?;
        self.asks_old_tls |= matches!(config.min_version.as_deref(), Some("TLS10" | "TLS11"));
        Ok(Pems {
            ca: self.pem("ca", config.ca.as_ref(), config.ca_file.as_deref())?,
            cert: self.pem("cert", config.cert.as_ref(), config.cert_file.as_deref())?,
            key: self.pem("key", config.key.as_ref(), config.key_file.as_deref())?,
            trusts_anybody: config.insecure_skip_verify,
            versions,
        })
    }

    fn pem(
        &mut self,
        field: &str,
        inline: Option<&Secret>,
        file: Option<&Path>,
    ) -> anyhow::Result<Option<Pem>> {
        let (field, file) = match (inline, file) {
            (Some(_), Some(_)) => {
                bail!("at most one of {field} and {field}_file must be configured")
            }
            (Some(Secret::File(file)), None) => (field.to_owned(), file.as_path()),
            (Some(secret), None) => {
                let bytes = secret
                    .read()
                    .with_context(|| field.to_owned())?
                    .into_bytes();
                self.read.push(bytes.clone());
                let field = field.to_owned();
                return Ok(Some(Pem { field, bytes }));
            }
            (None, Some(file)) => (format!("{field}_file"), file),
            (None, None) => return Ok(None),
        };
        let file = self.tree.base_dir.join(file);
        Pem::of_file(&field, &file, &mut self.read).map(Some)
    }

    /// The proxy on the way to `uri`.
    fn proxy(&mut self, config: &HttpConfig, uri: &Uri) -> anyhow::Result<Option<Proxy>> {
        let url = self.optional("proxy_url", config.proxy_url.as_ref(), None)?;
        let url = url.filter(|url| !url.is_empty());
        let no_proxy = config.no_proxy.as_deref().unwrap_or_default();
        let of_environment = config.proxy_from_environment;
        ensure!(
            !of_environment || (url.is_none() && no_proxy.is_empty()),
            "proxy_from_environment: expected neither proxy_url nor no_proxy beside it"
        );
        ensure!(
            url.is_some() || no_proxy.is_empty(),
            "no_proxy: expected proxy_url beside it"
        );
        ensure!(
            url.is_some() || of_environment || config.proxy_connect_header.is_empty(),
            "proxy_connect_header: expected proxy_url or proxy_from_environment beside it"
        );
        let scheme = uri.scheme_str().unwrap_or_default();
        let (field, (url, no_proxy)) = match url {
            Some(url) => ("proxy_url", (url, no_proxy.to_owned())),
            None if !of_environment => return Ok(None),
            None => match proxy::of_environment(scheme) {
                Some(found) => ("proxy_from_environment", found),
                None => return Ok(None),
            },
        };
        self.note(&url);
        let mut proxy = Proxy::of_url(&url).context(field)?;
        // As in Go, where nobody is spared when nobody is named.
        let is_named = of_environment || !no_proxy.is_empty();
        if is_named && proxy::is_spared(uri, &no_proxy) {
            return Ok(None);
        }
        for (name, value) in self
            .header_values(&hidden(&config.proxy_connect_header))
            .context("proxy_connect_header")?
        {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            proxy
                .connect_lines
                .push_str(&format!("{name}: {value}\r\n"));
        }
        Ok(Some(proxy))
    }

    fn authorization(&mut self, config: &HttpConfig) -> anyhow::Result<Option<String>> {
        let forms = [
            config.basic_auth.is_some(),
            config.authorization.is_some(),
            config.bearer_token.is_some() || config.bearer_token_file.is_some(),
        ];
        ensure!(
            forms.iter().filter(|used| **used).count() <= 1,
            "at most one of basic_auth, authorization & bearer_token must be configured"
        );
        if let Some(basic) = &config.basic_auth {
            let file = basic.username_file.as_deref();
            let user = Some(Secret::Literal(basic.username.clone()));
            let user = user.filter(|_| !basic.username.is_empty());
            let user = self.optional("username", user.as_ref(), file)?;
            let file = basic.password_file.as_deref();
            let password = self.optional("password", basic.password.as_ref(), file)?;
            let pair = format!(
                "{}:{}",
                user.unwrap_or_default(),
                password.unwrap_or_default()
            );
            self.read.push(pair.clone().into_bytes());
            return Ok(Some(format!("Basic {}", BASE64.encode(pair))));
        }
        if let Some(auth) = &config.authorization {
            let file = auth.credentials_file.as_deref();
            let credentials = self.optional("credentials", auth.credentials.as_ref(), file)?;
            let scheme = auth.scheme.as_deref().unwrap_or_default().trim();
            ensure!(
                !scheme.eq_ignore_ascii_case("basic"),
                "authorization type cannot be set to \"basic\", use \"basic_auth\" instead"
            );
            let scheme = if scheme.is_empty() { "Bearer" } else { scheme };
            let credentials = credentials.unwrap_or_default();
            return Ok(Some(format!("{scheme} {credentials}")));
        }
        let file = config.bearer_token_file.as_deref();
        let token = self.optional("bearer_token", config.bearer_token.as_ref(), file)?;
        Ok(token.map(|token| format!("Bearer {token}")))
    }
}

/// A URL without its user and password, and those two.
fn split_user(url: &str) -> anyhow::Result<(String, Option<Vec<u8>>)> {
    let none = || Ok((url.to_owned(), None));
    let Some((scheme, rest)) = url.split_once("://") else {
        return none();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let Some((user, host)) = rest[..end].rsplit_once('@') else {
        return none();
    };
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let mut pair = proxy::unescaped(user)?;
    pair.push(b':');
    pair.extend(proxy::unescaped(password)?);
    Ok((format!("{scheme}://{host}{}", &rest[end..]), Some(pair)))
}

static ONLY_12: &[&SupportedProtocolVersion] = &[&TLS12];
static ONLY_13: &[&SupportedProtocolVersion] = &[&TLS13];

/// Which versions of TLS are spoken: we know 1.2 and 1.3.
fn versions(config: &TlsConfig) -> anyhow::Result<&'static [&'static SupportedProtocolVersion]> {
    let is_old = match config.min_version.as_deref() {
        None | Some("TLS10" | "TLS11" | "TLS12") => true,
        Some("TLS13") => false,
        Some(other) => bail!("min_version: unknown TLS version: {other}"),
    };
    let is_new = match config.max_version.as_deref() {
        None | Some("TLS13") => true,
        Some("TLS12") => false,
        Some("TLS10" | "TLS11") => bail!("max_version: not supported below TLS12"),
        Some(other) => bail!("max_version: unknown TLS version: {other}"),
    };
    match (is_old, is_new) {
        (true, true) => Ok(&[]),
        (true, false) => Ok(ONLY_12),
        (false, true) => Ok(ONLY_13),
        (false, false) => bail!("min_version: is not a valid one, max_version is below it"),
    }
}

/// By which name a server is known, when not by that in its address.
pub(super) fn server_name(config: &TlsConfig) -> anyhow::Result<Option<ServerName<'static>>> {
    let name = config.server_name.clone().unwrap_or_default();
    if name.is_empty() {
        return Ok(None);
    }
    let server = ServerName::try_from(name.clone());
    let server = server.map_err(|_| anyhow!("server_name: {name:?} is not a valid name"))?;
    Ok(Some(server))
}

/// Headers for a proxy: here Alertmanager takes lists of secrets, and nothing else.
fn hidden(headers: &BTreeMap<String, Vec<Secret>>) -> BTreeMap<String, HeaderValues> {
    let mut hidden = BTreeMap::new();
    for (name, secrets) in headers {
        let secrets = secrets.clone();
        let values = HeaderValues {
            secrets,
            ..HeaderValues::default()
        };
        hidden.insert(name.clone(), values);
    }
    hidden
}
