//! What a page is asked: path, query and the few cookies that are looks.

use std::convert::Infallible;
use std::fmt::Write as _;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use jiff::tz::TimeZone;

use crate::web::dashboard::interpolate::percent_encode;

/// A request for a page. The query string is the whole state of a page.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The path.
    pub(crate) path: String,
    pairs: Vec<(String, String)>,
    cookies: Vec<(String, String)>,
    if_none_match: String,
    host: String,
}

impl<S: Sync> FromRequestParts<S> for Request {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Request, Infallible> {
        let header = |name: header::HeaderName| {
            let values = parts.headers.get_all(name).iter();
            let texts: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
            texts.join("; ")
        };
        Ok(Request {
            path: parts.uri.path().to_owned(),
            pairs: parse(parts.uri.query().unwrap_or_default()),
            cookies: header(header::COOKIE)
                .split(';')
                .filter_map(|pair| pair.trim().split_once('='))
                .map(|(name, value)| (name.to_owned(), decoded(value)))
                .collect(),
            if_none_match: header(header::IF_NONE_MATCH),
            host: header(header::HOST),
        })
    }
}

impl Request {
    /// The last value of a name; `None` when it is not there or empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.pairs.iter().rev().find(|(n, _)| n == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    }

    /// Whether a name is there, with or without a value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(n, _)| n == name)
    }

    /// All values of a name.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let values = self.pairs.iter().filter(|(n, _)| n == name);
        values.map(|(_, value)| value.clone()).collect()
    }

    /// The names and values but those whose name `drop` picks: for forms.
    pub(crate) fn without(&self, drop: impl Fn(&str) -> bool) -> Vec<(String, String)> {
        let kept = self.pairs.iter().filter(|(name, _)| !drop(name));
        kept.cloned().collect()
    }

    /// The query string without some names.
    pub(crate) fn query_without(&self, names: &[&str]) -> String {
        encoded(&self.without(|name| names.contains(&name)))
    }

    /// The page's address with some names set anew; an empty value removes one.
    pub(crate) fn with(&self, changes: &[(&str, &str)]) -> String {
        let mut pairs = self.without(|name| changes.iter().any(|(n, _)| *n == name));
        for (name, value) in changes.iter().filter(|(_, value)| !value.is_empty()) {
            pairs.push(((*name).to_owned(), (*value).to_owned()));
        }
        match encoded(&pairs) {
            query if query.is_empty() => self.path.clone(),
            query => format!("{}?{query}", self.path),
        }
    }

    /// Where this browser reaches us: what a command copied from a page needs.
    pub(crate) fn host(&self) -> Option<&str> {
        Some(self.host.as_str()).filter(|host| !host.is_empty())
    }

    /// `dark`, `light`, or nothing: as the browser prefers.
    pub(crate) fn theme(&self) -> &'static str {
        match self.get("theme").or_else(|| self.cookie("theme")) {
            Some("dark") => "dark",
            Some("light") => "light",
            _ => "",
        }
    }

    /// The zone of times: asked for, that of the browser, that of the machine.
    pub(crate) fn zone(&self) -> TimeZone {
        let named = self.get("tz").or_else(|| self.cookie("tz"));
        let zone = named.and_then(|name| match name {
            "utc" => Some(TimeZone::UTC),
            "browser" => None,
            name => TimeZone::get(name).ok(),
        });
        zone.unwrap_or_else(TimeZone::system)
    }

    /// Whether the browser has what this tag stands for.
    pub(crate) fn has_tag(&self, tag: &str) -> bool {
        self.if_none_match.contains(tag)
    }

    /// A cookie's value.
    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        let found = self.cookies.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The names and values of a query string or of a form, at most 500.
pub(super) fn parse(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .take(500)
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = || {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            u8::from_str_radix(digits, 16).ok()
        };
        match first {
            b'%' if hex().is_some() => {
                bytes.extend(hex());
                rest = &tail[2..];
                continue;
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn encoded(pairs: &[(String, String)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        let amp = if out.is_empty() { "" } else { "&" };
        let _ = write!(
            out,
            "{amp}{}={}",
            percent_encode(name),
            percent_encode(value)
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn request(uri: &str, cookie: &str) -> Request {
        let request = axum::http::Request::builder()
            .uri(uri)
            .header("cookie", cookie);
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        Request::from_request_parts(&mut parts, &()).await.unwrap()
    }

    #[tokio::test]
    async fn the_query_is_the_state() {
        let r = request(
            "/d/x?var-a=1&var-a=%2B2&from=now-1h&kiosk&q=a+b",
            "theme=dark; tz=Europe%2FBerlin",
        )
        .await;
        assert_eq!(r.all("var-a"), ["1", "+2"]);
        assert!(r.has("kiosk") && r.get("kiosk").is_none());
        assert_eq!(r.get("q"), Some("a b"));
        assert_eq!(r.theme(), "dark");
        assert_eq!(r.zone().iana_name(), Some("Europe/Berlin"));
        assert_eq!(
            r.with(&[("from", "now-6h"), ("var-a", ""), ("q", "")]),
            "/d/x?kiosk=&from=now-6h"
        );
    }

    #[tokio::test]
    async fn broken_encoding_is_taken_as_it_is() {
        let r = request("/?a=%zz%4&b=%ff&=&&c", "theme=<script>").await;
        assert_eq!(r.get("a"), Some("%zz%4"));
        assert_eq!(r.get("b"), Some("\u{fffd}"));
        assert_eq!(r.theme(), "");
    }
}
