//! Requests that are not in the outbox: alerts for other Alertmanagers, which are
//! sent again and again as long as they fire.

use std::time::Duration;

use anyhow::{anyhow, bail, ensure};
use hyper::Uri;
use hyper::header::{self, HeaderMap, HeaderValue};

use super::http::{Call, Client, Verdict};
use super::integration::Reader;
use super::options;
use crate::config::alertmanagers::AlertmanagersConfig;
use crate::config::{Alertmanager, Config, Mistake};
use crate::model::Timestamp;

/// Posts JSON to one place.
pub struct Poster {
    url: String,
    uri: Uri,
    headers: HeaderMap,
    client: Client,
}

impl Poster {
    /// Where it posts; without credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Posts once, `now` by the wall clock.
    ///
    /// # Errors
    /// When it was not taken, with the reason.
    pub async fn post(&self, body: Vec<u8>, now: Timestamp) -> Result<(), String> {
        let call = Call {
            uri: self.uri.clone(),
            headers: self.headers.clone(),
            body,
        };
        let outcome = self.client.send(Ok(call), now).await;
        match outcome.verdict {
            Verdict::Delivered => Ok(()),
            _ => Err(outcome.error.unwrap_or_default()),
        }
    }
}

/// The Alertmanagers of the configuration, in its order.
///
/// # Errors
/// With the entry and the field that is wrong.
pub fn alertmanagers(config: &Config) -> Result<Vec<Poster>, Mistake> {
    let mut all: Vec<Poster> = Vec::new();
    for (i, entry) in config.alerting.alertmanagers.iter().enumerate() {
        let path = format!("alerting.alertmanagers[{i}]");
        let made = of_entry(entry, config).map_err(|err| Mistake::within(&path, &err));
        for poster in made? {
            if !all.iter().any(|known| known.url == poster.url) {
                all.push(poster);
            }
        }
    }
    Ok(all)
}

fn of_entry(entry: &AlertmanagersConfig, config: &Config) -> anyhow::Result<Vec<Poster>> {
    if !matches!(entry.scheme.as_str(), "http" | "https") {
        bail!("scheme: expected http or https, got {:?}", entry.scheme);
    }
    ensure!(
        entry.api_version == "v2",
        "api_version: expected v2, got {:?}",
        entry.api_version
    );
    let timeout = options::timeout(entry.timeout)?;
    let tree = Alertmanager {
        base_dir: config.base_dir.clone(),
        ..Alertmanager::default()
    };
    let mut reader = Reader::new(&tree);
    let targets = entry.static_configs.iter().flat_map(|group| &group.targets);
    let prefix = entry.path_prefix.trim_matches('/');
    let path = if prefix.is_empty() {
        "api/v2/alerts".to_owned()
    } else {
        format!("{prefix}/api/v2/alerts")
    };
    targets
        .map(|target| {
            ensure!(
                !target.is_empty() && !target.contains(['/', '?', '#', '@']),
                "targets: expected HOST:PORT, got {target:?}"
            );
            let url = format!("{}://{target}/{path}", entry.scheme);
            poster(entry, &url, timeout, &mut reader)
        })
        .collect()
}

fn poster(
    entry: &AlertmanagersConfig,
    url: &str,
    timeout: Duration,
    reader: &mut Reader<'_>,
) -> anyhow::Result<Poster> {
    let http = reader.http(Some(&entry.http()), url)?;
    let mut headers = http.headers;
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    Ok(Poster {
        url: url.to_owned(),
        client: Client::new(&http.way, timeout),
        uri: url.parse().map_err(|err| anyhow!("targets: {err}"))?,
        headers,
    })
}
