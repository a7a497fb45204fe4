//! What surrounds every page: bar, navigation, time range, refresh, looks.

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use xxhash_rust::xxh3::xxh3_64;

use super::request::Request;
use crate::rules::{AlertState, RuleKind};
use crate::web::assets;
use crate::web::context::Context;
use crate::web::dashboard::timerange::Range;

/// The frame of a page.
pub(crate) struct Frame {
    pub(crate) title: String,
    pub(crate) path: &'static str,
    pub(crate) crumb: Option<(&'static str, &'static str)>,
    pub(crate) theme: &'static str,
    pub(crate) theme_url: String,
    pub(crate) kiosk: bool,
    pub(crate) zone: String,
    pub(crate) firing: usize,
    pub(crate) time: Option<TimeBar>,
    pub(crate) refresh_secs: u64,
    pub(crate) refreshes: Vec<Choice>,
    pub(crate) panels: Option<String>,
    pub(crate) style: String,
    pub(crate) script: String,
    pub(crate) logo: String,
    pub(crate) version: &'static str,
}

/// The time range in the bar.
pub(crate) struct TimeBar {
    pub(crate) label: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) back: String,
    pub(crate) forward: String,
    pub(crate) ranges: Vec<Choice>,
    pub(crate) hidden: Vec<(String, String)>,
}

/// A link that sets one thing.
pub(crate) struct Choice {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) active: bool,
}

/// A page of the navigation.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) active: bool,
}

const PAGES: [(&str, &str); 6] = [
    ("Home", "/"),
    ("Dashboards", "/dashboards"),
    ("Explore", "/graph"),
    ("Alerts", "/alerts"),
    ("Targets", "/targets"),
    ("Status", "/status"),
];

const RANGES: [(&str, &str); 12] = [
    ("Last 5 minutes", "now-5m"),
    ("Last 15 minutes", "now-15m"),
    ("Last 30 minutes", "now-30m"),
    ("Last hour", "now-1h"),
    ("Last 3 hours", "now-3h"),
    ("Last 6 hours", "now-6h"),
    ("Last 12 hours", "now-12h"),
    ("Last 24 hours", "now-24h"),
    ("Last 2 days", "now-2d"),
    ("Last 7 days", "now-7d"),
    ("Last 30 days", "now-30d"),
    ("Last year", "now-1y"),
];

impl Frame {
    /// A frame for the page that stands at `path` in the navigation.
    pub(crate) fn new(
        context: &Context,
        request: &Request,
        title: &str,
        path: &'static str,
    ) -> Frame {
        let theme = request.theme();
        let other = if theme == "dark" { "light" } else { "dark" };
        Frame {
            title: title.to_owned(),
            path,
            crumb: None,
            theme,
            theme_url: request.with(&[("theme", other)]),
            kiosk: request.has("kiosk"),
            zone: zone_name(request),
            firing: firing(context),
            time: None,
            refresh_secs: 0,
            refreshes: Vec::new(),
            panels: None,
            style: assets::style_path(),
            script: assets::script_path(),
            logo: assets::logo_path(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// With a time range.
    pub(crate) fn with_time(mut self, request: &Request, range: &Range) -> Frame {
        let span = range.span_ms();
        let shifted = |by: i64| {
            let (from, to) = (range.from.plus_ms(by).as_ms(), range.to.plus_ms(by).as_ms());
            request.with(&[("from", &from.to_string()), ("to", &to.to_string())])
        };
        let ranges = RANGES.map(|(name, from)| Choice {
            name: name.to_owned(),
            url: request.with(&[("from", from), ("to", "now")]),
            active: range.from_text == from && range.to_text == "now",
        });
        self.time = Some(TimeBar {
            label: range.label(&request.zone()),
            from: range.from_text.clone(),
            to: range.to_text.clone(),
            back: shifted(-span / 2),
            forward: shifted(span / 2),
            ranges: ranges.into(),
            hidden: request.without(|name| name == "from" || name == "to"),
        });
        self
    }

    /// With a refresh: what the URL says, else `default` seconds; not while
    /// `paused`, because an old range does not change.
    pub(crate) fn with_refresh(mut self, request: &Request, default: u64, paused: bool) -> Frame {
        let asked = match request.get("refresh") {
            Some("off") => Some(0),
            Some(text) => seconds(text),
            None => Some(default),
        };
        let wanted = asked.unwrap_or(default);
        self.refresh_secs = if paused || wanted == 0 {
            0
        } else {
            wanted.max(2)
        };
        self.refreshes = ["off", "5s", "15s", "30s", "1m", "5m"]
            .map(|text| Choice {
                name: if text == "off" {
                    "Paused".to_owned()
                } else {
                    format!("Every {text}")
                },
                url: request.with(&[("refresh", text)]),
                active: seconds(text).unwrap_or(0) == wanted,
            })
            .into();
        self
    }

    /// The navigation.
    pub(crate) fn pages(&self) -> Vec<Entry> {
        PAGES
            .map(|(name, path)| Entry {
                name,
                path,
                active: path == self.path,
            })
            .into()
    }
}

/// The zone in words. `Etc/UTC` is only a longer name of UTC.
fn zone_name(request: &Request) -> String {
    let zone = request.zone();
    let name = zone.iana_name().unwrap_or("UTC");
    name.strip_prefix("Etc/").unwrap_or(name).to_owned()
}

/// A duration text in seconds; `None` for `off` and what is none.
pub(crate) fn seconds(text: &str) -> Option<u64> {
    let ms = crate::model::duration::parse_ms(text).ok()?;
    Some(ms / 1000)
}

fn firing(context: &Context) -> usize {
    let groups = (context.groups)();
    let alerts = groups
        .iter()
        .flat_map(|group| &group.rules)
        .filter_map(|rule| match &rule.kind {
            RuleKind::Alerting { alerts, .. } => Some(alerts),
            RuleKind::Recording => None,
        });
    alerts
        .flatten()
        .filter(|alert| alert.state == AlertState::Firing)
        .count()
}

/// What the browser may do with a page: nothing but our own files.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'self'; base-uri 'none'";

/// A rendered page, with a tag of its content: the same page is not sent twice.
pub(crate) fn respond(request: &Request, status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => respond_with(request, status, html, "text/html; charset=utf-8"),
        Err(err) => {
            tracing::error!(error = %err, "cannot render a page");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A finished body with its tag, its media type and the browser's limits.
pub(crate) fn respond_with(
    request: &Request,
    status: StatusCode,
    body: String,
    media_type: &'static str,
) -> Response {
    let tag = format!("\"{:016x}\"", xxh3_64(body.as_bytes()));
    let mut response = if status == StatusCode::OK && request.has_tag(&tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        (status, body).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::VARY, HeaderValue::from_static("cookie"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    if let Some(theme @ ("dark" | "light")) = request.get("theme") {
        let cookie = format!("theme={theme}; Path=/; Max-Age=31536000; SameSite=Lax");
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            headers.insert(header::SET_COOKIE, cookie);
        }
    }
    response
}
