//! Where a request goes when its answer names another place, as in Go's client.
//!
//! 307 and 308 keep method and body; 301, 302 and 303 make a GET without a body of it.
//! Credentials go to the same host only, and not from `https://` to `http://`. Which
//! addresses may be reached is checked when the connection is made, for each place anew.

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode, Uri};

use super::options;
use super::proxy::is_https;

/// A request, which may be made anew elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Hop {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Hop {
    /// Turns to where an answer leads; says whether it leads anywhere.
    ///
    /// # Errors
    /// When nobody can go there.
    pub(super) fn turn(&mut self, status: StatusCode, answer: &HeaderMap) -> Result<bool, String> {
        let keeps_body = match status.as_u16() {
            301..=303 => false,
            307 | 308 => true,
            _ => return Ok(false),
        };
        let Some(place) = answer.get(header::LOCATION).filter(|to| !to.is_empty()) else {
            return Ok(false);
        };
        let uri = resolved(&self.uri, place);
        let uri = uri.map_err(|err| format!("status {}: location: {err}", status.as_u16()))?;
        if !keeps_body {
            self.method = Method::GET;
            self.body = Bytes::new();
            self.headers.remove(header::CONTENT_TYPE);
        }
        let is_weaker = is_https(&self.uri) && !is_https(&uri);
        if self.uri.host() != uri.host() || is_weaker {
            self.headers = without_credentials(&self.headers);
        }
        self.uri = uri;
        Ok(true)
    }
}

fn without_credentials(headers: &HeaderMap) -> HeaderMap {
    let is_credential = |name: &HeaderName, value: &HeaderValue| {
        value.is_sensitive() || [header::AUTHORIZATION, header::COOKIE].contains(name)
    };
    let mut kept = HeaderMap::new();
    for (name, value) in headers {
        if !is_credential(name, value) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

/// A `Location`, which may be relative to where the request went.
fn resolved(from: &Uri, place: &HeaderValue) -> Result<Uri, String> {
    let place = place.to_str().map_err(|err| err.to_string())?;
    let place = place.split('#').next().unwrap_or_default();
    let scheme = from.scheme_str().unwrap_or_default();
    let authority = from.authority().map_or("", |a| a.as_str());
    let (path, query) = place.find('?').map_or((place, ""), |at| place.split_at(at));
    let is_absolute = path
        .split('/')
        .next()
        .is_some_and(|first| first.contains(':'));
    let text = if is_absolute {
        place.to_owned()
    } else if place.starts_with("//") {
        format!("{scheme}:{place}")
    } else if path.is_empty() {
        format!("{scheme}://{authority}{}{query}", from.path())
    } else {
        let folder = from
            .path()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        let path = match path.starts_with('/') {
            true => without_dots(path),
            false => without_dots(&format!("{folder}/{path}")),
        };
        format!("{scheme}://{authority}{path}{query}")
    };
    options::uri(&text).map_err(|err| format!("{err:#}"))
}

/// A path without `.` and `..`.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        match part {
            "." | ".." => {
                if part == ".." {
                    kept.pop();
                }
                if parts.peek().is_none() {
                    kept.push("");
                }
            }
            part => kept.push(part),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(uri: &str) -> Hop {
        let mut headers = HeaderMap::new();
        let mut hidden = HeaderValue::from_static("key");
        hidden.set_sensitive(true);
        headers.insert("x-key", hidden);
        for (name, value) in [
            (header::AUTHORIZATION, "Basic x"),
            (header::CONTENT_TYPE, "application/json"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        Hop {
            method: Method::POST,
            uri: uri.parse().unwrap(),
            headers,
            body: Bytes::from_static(b"{}"),
        }
    }

    fn turned(from: &str, status: u16, to: &str) -> Result<Option<Hop>, String> {
        let mut hop = hop(from);
        let mut answer = HeaderMap::new();
        answer.insert(header::LOCATION, HeaderValue::from_str(to).unwrap());
        let goes_on = hop.turn(StatusCode::from_u16(status).unwrap(), &answer)?;
        Ok(goes_on.then_some(hop))
    }

    #[test]
    fn only_307_and_308_keep_method_and_body() {
        for (status, want) in [
            (301, Some("GET")),
            (302, Some("GET")),
            (303, Some("GET")),
            (307, Some("POST")),
            (308, Some("POST")),
            (300, None),
            (304, None),
            (200, None),
            (500, None),
        ] {
            let hop = turned("http://a/x", status, "/y").unwrap();
            let got = hop.as_ref().map(|hop| hop.method.as_str());
            assert_eq!(got, want, "{status}");
            if let Some(hop) = hop {
                assert_eq!(hop.body.is_empty(), hop.method == Method::GET);
                let typed = hop.headers.contains_key(header::CONTENT_TYPE);
                assert_eq!(typed, hop.method == Method::POST);
            }
        }
        let nowhere = hop("http://a/x").turn(StatusCode::FOUND, &HeaderMap::new());
        assert_eq!(nowhere, Ok(false));
    }

    #[test]
    fn a_location_may_be_relative() {
        let check = |to: &str, want: &str| {
            let hop = turned("http://a:1/b/c?q=1", 307, to).unwrap().unwrap();
            assert_eq!(hop.uri.to_string(), want, "{to}");
        };
        check("/x?y=:/z", "http://a:1/x?y=:/z");
        check("x", "http://a:1/b/x");
        check("../x/./y", "http://a:1/x/y");
        check("../../..", "http://a:1/");
        check("?z", "http://a:1/b/c?z");
        check("x#part", "http://a:1/b/x");
        check("//h/x", "http://h/x");
        check("https://h:2/x", "https://h:2/x");
        for to in ["ftp://h/x", "http:///x", "javascript:x", "http://u:p@h/"] {
            assert!(turned("http://a/", 307, to).is_err(), "{to}");
        }
    }

    #[test]
    fn credentials_stay_with_their_host() {
        let check = |from: &str, to: &str, want: [bool; 2]| {
            let hop = turned(from, 307, to).unwrap().unwrap();
            let has = |name: &str| hop.headers.contains_key(name);
            assert_eq!([has("authorization"), has("x-key")], want, "{from} {to}");
            assert!(has("content-type"));
        };
        check("http://a/", "http://a:2/", [true; 2]);
        check("http://a/", "https://a/", [true; 2]);
        check("http://a/", "http://b/", [false; 2]);
        check("https://a/", "http://a/", [false; 2]);
    }
}
