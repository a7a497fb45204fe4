//! The configuration in force as text in the shape of `config.toml`, every option
//! with its value, for pages and the API. Secrets, and what may hold one, are `***`.
//!
//! Each table is taken apart field by field, so that a new option cannot be forgotten.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;

use super::*;

/// The text. The notification tree, which may stand in a file of its own, is not in it.
pub(super) fn text(config: &Config) -> String {
    let mut out = Out::default();
    out.server(&config.server);
    out.global(&config.global);
    out.store(&config.store);
    out.limits(&config.limits);
    out.query(&config.query);
    out.rules(&config.rules);
    out.alerting(&config.alerting);
    out.head("[metrics]");
    let Metrics { views, max_tenants } = &config.metrics;
    out.set("views", views).set("max_tenants", max_tenants);
    out.head("[auth]");
    let Auth { token } = &config.auth;
    out.set("token", token);
    config
        .source
        .mqtt
        .iter()
        .for_each(|source| out.mqtt(source));
    config
        .source
        .nats
        .iter()
        .for_each(|source| out.nats(source));
    config.ingest.map.iter().for_each(|map| out.map(map));
    let webhooks = &config.destination.webhook;
    webhooks.iter().for_each(|webhook| out.webhook(webhook));
    config.route.iter().for_each(|route| out.route(route));
    config.tenant.iter().for_each(|tenant| out.tenant(tenant));
    out.0
}

#[derive(Default)]
struct Out(String);

impl Out {
    fn head(&mut self, head: &str) -> &mut Out {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(head);
        self.0.push('\n');
        self
    }

    /// A line `name = value`; none for an option without a value.
    fn set(&mut self, name: &str, value: &dyn Value) -> &mut Out {
        if let Some(value) = value.toml() {
            self.0.push_str(&format!("{name} = {value}\n"));
        }
        self
    }

    fn server(&mut self, table: &Server) {
        let Server {
            listen,
            data_dir,
            connections_max,
            body_max,
            allowed_hosts,
            cors_origin,
            dashboards_dir,
            enable_admin_api,
            log_level,
            log_format,
        } = table;
        let listen: Vec<String> = listen.iter().map(ToString::to_string).collect();
        self.head("[server]")
            .set("listen", &listen)
            .set("data_dir", data_dir)
            .set("connections_max", connections_max)
            .set("body_max", body_max)
            .set("allowed_hosts", allowed_hosts)
            .set("cors_origin", cors_origin)
            .set("dashboards_dir", dashboards_dir)
            .set("enable_admin_api", enable_admin_api)
            .set("log_level", log_level)
            .set("log_format", &word(log_format));
    }

    fn global(&mut self, table: &Global) {
        let Global {
            scrape_interval,
            evaluation_interval,
            rule_query_offset,
            external_labels,
            external_url,
            trust_clock,
        } = table;
        self.head("[global]")
            .set("scrape_interval", scrape_interval)
            .set("evaluation_interval", evaluation_interval)
            .set("rule_query_offset", rule_query_offset)
            .set("external_labels", external_labels)
            .set("external_url", external_url)
            .set("trust_clock", trust_clock);
    }

    fn store(&mut self, table: &Store) {
        let Store {
            retention,
            rollup_5m_retention,
            rollup_1h_retention,
            size_max,
            max_late,
            linger,
            hot_cache,
            l0_cache,
            head_max,
            memory_limit,
            free_min,
            reserve,
            write_budget,
            read_only,
        } = table;
        self.head("[store]")
            .set("retention", retention)
            .set("rollup_5m_retention", rollup_5m_retention)
            .set("rollup_1h_retention", rollup_1h_retention)
            .set("size_max", size_max)
            .set("max_late", max_late)
            .set("linger", linger)
            .set("hot_cache", hot_cache)
            .set("l0_cache", l0_cache)
            .set("head_max", head_max)
            .set("memory_limit", memory_limit)
            .set("free_min", free_min)
            .set("reserve", reserve)
            .set("write_budget", write_budget)
            .set("read_only", read_only);
    }

    fn limits(&mut self, table: &Limits) {
        let Limits {
            payload_max,
            samples_per_message_max,
            depth_max,
            labels_max,
            label_name_bytes_max,
            label_value_bytes_max,
            series_max,
            series_per_tenant_max,
            new_series_per_hour,
            new_series_per_tenant_per_hour,
            label_values_max,
            devices_per_tenant_max,
            samples_per_second_all,
            samples_per_second,
            messages_per_second,
            messages_burst,
            buffer_per_tenant,
            outbox_max,
            dead_letters_max,
        } = table;
        self.head("[limits]")
            .set("payload_max", payload_max)
            .set("samples_per_message_max", samples_per_message_max)
            .set("depth_max", depth_max)
            .set("labels_max", labels_max)
            .set("label_name_bytes_max", label_name_bytes_max)
            .set("label_value_bytes_max", label_value_bytes_max)
            .set("series_max", series_max)
            .set("series_per_tenant_max", series_per_tenant_max)
            .set("new_series_per_hour", new_series_per_hour)
            .set(
                "new_series_per_tenant_per_hour",
                new_series_per_tenant_per_hour,
            )
            .set("label_values_max", label_values_max)
            .set("devices_per_tenant_max", devices_per_tenant_max)
            .set("samples_per_second_all", samples_per_second_all)
            .set("samples_per_second", samples_per_second)
            .set("messages_per_second", messages_per_second)
            .set("messages_burst", messages_burst)
            .set("buffer_per_tenant", buffer_per_tenant)
            .set("outbox_max", outbox_max)
            .set("dead_letters_max", dead_letters_max);
    }

    fn query(&mut self, table: &Query) {
        let Query {
            timeout,
            concurrency,
            samples_max,
            series_max,
            lookback_delta,
            cache,
            features,
        } = table;
        let features: Vec<String> = features.iter().map(|f| f.as_str().to_owned()).collect();
        self.head("[query]")
            .set("timeout", timeout)
            .set("concurrency", concurrency)
            .set("samples_max", samples_max)
            .set("series_max", series_max)
            .set("lookback_delta", lookback_delta)
            .set("cache", cache)
            .set("features", &features);
    }

    fn rules(&mut self, table: &Rules) {
        let Rules {
            rule_files,
            packs,
            for_grace_period,
            for_outage_tolerance,
            resend_delay,
        } = table;
        self.head("[rules]")
            .set("rule_files", rule_files)
            .set("packs", packs)
            .set("for_grace_period", for_grace_period)
            .set("for_outage_tolerance", for_outage_tolerance)
            .set("resend_delay", resend_delay);
    }

    /// What is not in the tree.
    fn alerting(&mut self, table: &Alerting) {
        self.head("[alerting]")
            .set("config_file", &table.config_file)
            .set("send_resolved", &table.send_resolved)
            .set("max_alerts", &table.max_alerts)
            .set("resolve_through_silence", &table.resolve_through_silence);
        if table.config_file.is_none() && table.route.is_none() {
            self.set("receiver", &table.receiver)
                .set("group_by", &table.group_by)
                .set("group_wait", &table.group_wait)
                .set("group_interval", &table.group_interval)
                .set("repeat_interval", &table.repeat_interval);
        }
    }

    fn mqtt(&mut self, table: &Mqtt) {
        let Mqtt {
            name,
            url,
            protocol,
            topics,
            qos,
            client_id,
            username,
            password,
            tls,
            keep_alive,
            receive_maximum,
            session_expiry,
            packet_max,
        } = table;
        let protocol = match protocol {
            MqttProtocol::V5 => "5",
            MqttProtocol::V3 => "3.1.1",
        };
        self.head("[[source.mqtt]]")
            .set("name", name)
            .set("url", url)
            .set("protocol", &protocol.to_owned())
            .set("topics", topics)
            .set("qos", qos)
            .set("client_id", client_id)
            .set("username", username)
            .set("password", password)
            .set("tls", tls)
            .set("keep_alive", keep_alive)
            .set("receive_maximum", receive_maximum)
            .set("session_expiry", session_expiry)
            .set("packet_max", packet_max);
    }

    fn nats(&mut self, table: &Nats) {
        let Nats {
            name,
            url,
            mode,
            stream,
            consumer,
            subjects,
            deliver,
            consumer_type,
            ack_wait,
            max_ack_pending,
            username,
            password,
            token,
            credentials_file,
            nkey,
            tls,
        } = table;
        self.head("[[source.nats]]")
            .set("name", name)
            .set("url", url)
            .set("mode", &word(mode))
            .set("stream", stream)
            .set("consumer", consumer)
            .set("subjects", subjects)
            .set("deliver", &word(deliver))
            .set("consumer_type", &word(consumer_type))
            .set("ack_wait", ack_wait)
            .set("max_ack_pending", max_ack_pending)
            .set("username", username)
            .set("password", password)
            .set("token", token)
            .set("credentials_file", credentials_file)
            .set("nkey", nkey)
            .set("tls", tls);
    }

    fn map(&mut self, table: &Map) {
        let Map {
            topic,
            format,
            metric_name,
            fields,
            labels,
            time,
            time_format,
        } = table;
        self.head("[[ingest.map]]")
            .set("topic", topic)
            .set("format", &word(format))
            .set("metric_name", metric_name)
            .set("fields", fields)
            .set("labels", labels)
            .set("time", time)
            .set("time_format", &word(time_format));
    }

    fn webhook(&mut self, table: &Webhook) {
        let Webhook {
            name,
            url,
            secret,
            secret_old,
            headers,
            bearer_token,
            timeout,
            concurrency,
            ordered,
            retry,
            notification_max_age,
            tls,
        } = table;
        // Many an API takes its key in a header.
        let hidden = |name: &String| (name.clone(), "***".to_owned());
        let headers: BTreeMap<String, String> = headers.keys().map(hidden).collect();
        self.head("[[destination.webhook]]")
            .set("name", name)
            .set("url", url)
            .set("secret", secret)
            .set("secret_old", secret_old)
            .set("headers", &headers)
            .set("bearer_token", bearer_token)
            .set("timeout", timeout)
            .set("concurrency", concurrency)
            .set("ordered", ordered)
            .set("retry", retry)
            .set("notification_max_age", notification_max_age)
            .set("tls", tls);
    }

    fn route(&mut self, table: &Route) {
        let Route {
            name,
            tenant,
            topic,
            metric,
            destination,
        } = table;
        self.head("[[route]]")
            .set("name", name)
            .set("tenant", tenant)
            .set("topic", topic)
            .set("metric", metric)
            .set("destination", destination);
    }

    fn tenant(&mut self, table: &Tenant) {
        let Tenant {
            id,
            enabled,
            messages_per_second,
            messages_burst,
            samples_per_second,
            series_max,
            retention,
            token,
        } = table;
        self.head("[[tenant]]")
            .set("id", &id.as_str().to_owned())
            .set("enabled", enabled)
            .set("messages_per_second", messages_per_second)
            .set("messages_burst", messages_burst)
            .set("samples_per_second", samples_per_second)
            .set("series_max", series_max)
            .set("retention", retention)
            .set("token", token);
    }
}

/// A variant of an enum as it is written: `UnixMs` is `unix_ms`.
fn word(variant: &dyn Debug) -> String {
    let mut word = String::new();
    for c in format!("{variant:?}").chars() {
        if c.is_ascii_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.push(c.to_ascii_lowercase());
    }
    word
}

/// A text in quotes; TOML's escapes are JSON's, with one character more.
fn quoted(text: &str) -> String {
    let json = serde_json::to_string(text).expect("a text is always JSON");
    json.replace('\u{7f}', "\\u007F")
}

/// A value of an option; `None` when it has none.
trait Value {
    fn toml(&self) -> Option<String>;
}

/// Numbers, truth values, and what is written between quotes as it prints.
macro_rules! values {
    ($($kind:ty => $shown:expr),* $(,)?) => {
        $(impl Value for $kind {
            fn toml(&self) -> Option<String> {
                let shown: fn(&$kind) -> String = $shown;
                Some(shown(self))
            }
        })*
    };
}

values! {
    bool => |v| v.to_string(),
    u8 => |v| v.to_string(),
    u16 => |v| v.to_string(),
    u32 => |v| v.to_string(),
    usize => |v| v.to_string(),
    String => |v| quoted(v),
    PathBuf => |v| quoted(&v.to_string_lossy()),
    Span => |v| quoted(&format!("{v:?}")),
    Size => |v| quoted(&format!("{v:?}")),
    // Prints in quotes, without its query.
    Address => |v| format!("{v:?}"),
    Secret => |v| match v {
        Secret::File(path) => format!("{{ file = {} }}", quoted(&path.to_string_lossy())),
        Secret::Env(name) => format!("{{ env = {} }}", quoted(name)),
        Secret::Literal(_) => quoted("***"),
    },
    BTreeMap<String, String> => |v| {
        let pairs = v.iter().map(|(name, value)| format!("{} = {}", quoted(name), quoted(value)));
        table(&pairs.collect::<Vec<_>>())
    },
}

impl<T: Value> Value for Option<T> {
    fn toml(&self) -> Option<String> {
        self.as_ref()?.toml()
    }
}

impl<T: Value> Value for Vec<T> {
    fn toml(&self) -> Option<String> {
        let members: Vec<String> = self.iter().filter_map(Value::toml).collect();
        Some(format!("[{}]", members.join(", ")))
    }
}

impl Value for Tls {
    fn toml(&self) -> Option<String> {
        let Tls {
            ca_file,
            cert_file,
            key_file,
        } = self;
        let files = [
            ("ca_file", ca_file),
            ("cert_file", cert_file),
            ("key_file", key_file),
        ];
        let named = files.iter().filter_map(|(name, file)| {
            let file = file.toml()?;
            Some(format!("{name} = {file}"))
        });
        let named: Vec<String> = named.collect();
        (!named.is_empty()).then(|| table(&named))
    }
}

fn table(fields: &[String]) -> String {
    match fields.is_empty() {
        true => "{}".to_owned(),
        false => format!("{{ {} }}", fields.join(", ")),
    }
}

#[cfg(test)]
mod tests;
