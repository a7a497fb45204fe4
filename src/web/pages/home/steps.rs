//! The way in: what there is to do, and what is done.

use super::super::request::Request;
use crate::web::context::Context;

pub(super) struct Step {
    pub(super) done: bool,
    pub(super) title: &'static str,
    pub(super) command: String,
}

/// Steps that are made in the configuration: title and what to write.
const CONFIGURATION: [(&str, &str); 3] = [
    (
        "Subscribe to an MQTT broker",
        "# config.toml\n[[source.mqtt]]\nname = \"plant\"\nurl = \"mqtt://127.0.0.1:1883\"\ntopics = [\"tenants/+/devices/+/telemetry\"]",
    ),
    (
        "Read a NATS JetStream stream",
        "# config.toml\n[[source.nats]]\nname = \"cloud\"\nurl = \"nats://127.0.0.1:4222\"\nstream = \"TELEMETRY\"",
    ),
    (
        "Load Prometheus rule files",
        "# config.toml\n[rules]\nfiles = [\"rules/*.yml\"]",
    ),
];

/// The way in, with commands that work where the browser is.
pub(super) fn steps(context: &Context, request: &Request) -> Vec<Step> {
    let config = context.config();
    let listen = config.server.listen.first();
    let url = match request.host() {
        Some(host) => format!("http://{host}"),
        None => listen.map_or_else(String::new, |addr| format!("http://{addr}")),
    };
    let sources = context.board.list();
    let received = |kind: &str| sources.iter().any(|s| s.kind == kind && s.messages > 0);
    vec![
        Step {
            done: received("http"),
            title: "Push a measurement by HTTP",
            command: format!(
                "curl -X POST {url}/api/v1/ingest/default \\\n  -H 'content-type: application/json' \\\n  -d '{{\"device_id\": \"sensor-1\", \"temperature\": 21.5}}'"
            ),
        },
        Step {
            done: received("mqtt"),
            title: CONFIGURATION[0].0,
            command: CONFIGURATION[0].1.to_owned(),
        },
        Step {
            done: received("nats"),
            title: CONFIGURATION[1].0,
            command: CONFIGURATION[1].1.to_owned(),
        },
        Step {
            done: !(context.groups)().is_empty(),
            title: CONFIGURATION[2].0,
            command: CONFIGURATION[2].1.to_owned(),
        },
        Step {
            done: false,
            title: "Let Grafana or Prometheus read it",
            command: format!(
                "# Grafana: a Prometheus data source with this URL\n{url}\n# Prometheus: a scrape target\n{url}/metrics"
            ),
        },
    ]
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn the_configuration_to_copy_is_valid() {
        for (title, text) in super::CONFIGURATION {
            let config = Config::parse(text, title).unwrap();
            assert!(crate::sources::mistakes(&config).is_empty());
        }
    }
}
