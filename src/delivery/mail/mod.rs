//! E-mail, as Alertmanager's `email_configs` send it.
//!
//! The mail of an outbox row is the same in every attempt: its date is that of the
//! row, its `Message-Id` and its boundary are the event's id, by which a mail server
//! or a reader knows a repeat. Its own default text names what Alertmanager's names;
//! whoever wants that one's look puts its `email.tmpl` among the `templates`.

mod mime;
mod smtp;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};

use super::http::{Outcome, Verdict};
use super::http_config::server_name;
use super::integration::Reader;
use super::retry::Hint;
use super::templates::{Notice, Templates, Text};
use crate::config::receivers::{EmailConfig, TlsConfig};
use crate::model::{Delivery, Timestamp};
use mime::Parts;
use smtp::{Envelope, Failure, Login, Security, Server};

/// The port on which the connection is encrypted from the beginning.
const SUBMISSIONS: u16 = 465;
const SUBJECT: &str = r#"{{ template "email.default.subject" . }}"#;

/// A checked `email_configs` entry.
pub(super) struct Mail {
    server: Server,
    from: Text,
    to: Text,
    headers: Vec<(String, Text)>,
    text: Option<Text>,
    html: Option<Text>,
}

impl Mail {
    /// Checks an entry; reads its password and certificates.
    ///
    /// # Errors
    /// With what is wrong, in Alertmanager's words where it has any.
    pub(super) fn new(
        config: &EmailConfig,
        reader: &mut Reader<'_>,
        templates: &Templates,
    ) -> anyhow::Result<Mail> {
        ensure!(!config.to.is_empty(), "missing to address in email config");
        let global = &reader.tree.global;
        let from = config.from.as_ref().or(global.smtp_from.as_ref());
        let from = from.ok_or_else(|| anyhow!("no global SMTP from set"))?;
        let mut headers = normalized(&config.headers)?;
        for (name, default) in [("Subject", SUBJECT), ("To", &config.to), ("From", from)] {
            let default = || default.to_owned();
            headers.entry(name.to_owned()).or_insert_with(default);
        }
        let headers = headers.into_iter().map(|(name, value)| {
            let text = templates.text(&format!("headers: {name}"), &value)?;
            Ok((name, text))
        });
        let text = |field: &str, text: &str| match text {
            "" => Ok(None),
            text => templates.text(field, text).map(Some),
        };
        Ok(Mail {
            from: templates.text("from", from)?,
            to: templates.text("to", &config.to)?,
            headers: headers.collect::<anyhow::Result<_>>()?,
            text: text("text", &config.text)?,
            html: text("html", &config.html)?,
            server: server(config, reader)?,
        })
    }

    /// Where it leads.
    pub(super) fn shown(&self) -> String {
        let scheme = match self.server.security {
            Security::Implicit(_) => "smtps",
            _ => "smtp",
        };
        format!("{scheme}://{}:{}", self.server.host, self.server.port)
    }

    /// Makes one attempt.
    pub(super) async fn attempt(&self, delivery: &Delivery, timeout: Duration) -> Outcome {
        let made = Notice::of(delivery).and_then(|notice| self.written(&notice));
        let (envelope, mail) = match made {
            Ok(made) => made,
            Err(error) => return Outcome::unmade("mail", &error),
        };
        let sent = Box::pin(smtp::send(&self.server, &envelope, &mail));
        match tokio::time::timeout(timeout, sent).await {
            Ok(Ok((answer, refused))) => delivered(answer, &refused),
            Ok(Err(failure)) => failed(failure),
            Err(_) => Outcome::failed(format!("no answer within {} ms", timeout.as_millis())),
        }
    }

    /// The mail and who gets it.
    fn written(&self, notice: &Notice) -> Result<(Envelope, Vec<u8>), String> {
        let mut from = mime::addresses(&notice.render(&self.from)?)?;
        let envelope = Envelope {
            to: mime::addresses(&notice.render(&self.to)?)?,
            from: match from.len() {
                1 => from.remove(0),
                many => return Err(format!("must be exactly one from address (got: {many})")),
            },
        };
        let headers = self.headers.iter();
        let headers = headers.map(|(name, text)| Ok((name.as_str(), notice.render(text)?)));
        let render = |text: &Option<Text>| text.as_ref().map(|text| notice.render(text));
        let html = self.html.as_ref().map(|html| notice.render_html(html));
        let parts = Parts {
            headers: headers.collect::<Result<_, String>>()?,
            id: &notice.event_id,
            domain: envelope.from.rsplit('@').next().unwrap_or_default(),
            date: date(notice.now),
            text: render(&self.text).transpose()?,
            html: html.transpose()?,
        };
        let mail = mime::mail(&parts);
        Ok((envelope, mail))
    }
}

/// Header names as they are sent: each word with a capital.
fn normalized(headers: &BTreeMap<String, String>) -> anyhow::Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for (name, value) in headers {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        ensure!(
            !name.is_empty() && name.chars().all(is_token),
            "headers: {name:?} is not a header name"
        );
        let words = name.split('-').map(|word| {
            let mut chars = word.chars();
            let first = chars.next().map(|c| c.to_ascii_uppercase());
            first.into_iter().chain(chars).collect::<String>()
        });
        let name = words.collect::<Vec<_>>().join("-");
        let text = format!("duplicate header {name:?} in email config");
        if all.insert(name, value.clone()).is_some() {
            bail!(text);
        }
    }
    Ok(all)
}

fn server(config: &EmailConfig, reader: &mut Reader<'_>) -> anyhow::Result<Server> {
    let global = &reader.tree.global;
    let smarthost = config.smarthost.as_ref().or(global.smtp_smarthost.as_ref());
    let smarthost = smarthost.ok_or_else(|| anyhow!("no global SMTP smarthost set"))?;
    let parts = smarthost.rsplit_once(':');
    let parts = parts.map(|(host, port)| (host.trim_matches(['[', ']']), port_of(port)));
    let Some((host, Some(port))) = parts else {
        bail!("smarthost: expected HOST:PORT, got {smarthost:?}");
    };
    // As in Go, where no host is this one.
    let host = if host.is_empty() { "localhost" } else { host };
    let hello = config.hello.as_ref().or(global.smtp_hello.as_ref());
    let hello = hello.map_or("localhost", String::as_str);
    ensure!(
        !hello.is_empty() && hello.bytes().all(|b| b.is_ascii_graphic()),
        "hello: expected a host name, got {hello:?}"
    );
    let require_tls = config.require_tls.or(global.smtp_require_tls);
    let plain = TlsConfig::default();
    let tls_config = config
        .tls_config
        .as_ref()
        .or(global.smtp_tls_config.as_ref());
    let tls_config = tls_config.unwrap_or(&plain);
    let tls = |reader: &mut Reader<'_>| {
        let tls = reader.tls(tls_config);
        tls.context("tls_config").map(Arc::new)
    };
    let security = match (port, require_tls.unwrap_or(true)) {
        (SUBMISSIONS, _) => Security::Implicit(tls(reader)?),
        (_, true) => Security::StartTls(tls(reader)?),
        (_, false) => Security::None,
    };
    Ok(Server {
        host: host.to_owned(),
        port,
        hello: hello.to_owned(),
        security,
        server_name: server_name(tls_config).context("tls_config")?,
        login: login(config, reader)?,
    })
}

/// A port's number, or that of a service of mail by its name.
fn port_of(text: &str) -> Option<u16> {
    match text {
        "smtp" => Some(25),
        "smtps" | "submissions" => Some(SUBMISSIONS),
        "submission" => Some(587),
        number => number.parse().ok(),
    }
}

fn login(config: &EmailConfig, reader: &mut Reader<'_>) -> anyhow::Result<Option<Login>> {
    let global = &reader.tree.global;
    ensure!(
        [&config.auth_secret, &global.smtp_auth_secret]
            .iter()
            .all(|secret| secret.is_none())
            && [&config.auth_secret_file, &global.smtp_auth_secret_file]
                .iter()
                .all(|file| file.is_none()),
        "auth_secret: CRAM-MD5 is not supported, expected auth_password"
    );
    let user = config.auth_username.as_ref();
    let Some(user) = user.or(global.smtp_auth_username.as_ref()) else {
        return Ok(None);
    };
    let identity = config.auth_identity.as_ref();
    let identity = identity.or(global.smtp_auth_identity.as_ref());
    let own = (&config.auth_password, &config.auth_password_file);
    let (secret, file) = match own {
        (None, None) => (&global.smtp_auth_password, &global.smtp_auth_password_file),
        own => own,
    };
    let password = reader.required("auth_password", secret.as_ref(), file.as_deref())?;
    Ok(Some(Login {
        identity: identity.cloned().unwrap_or_default(),
        user: user.clone(),
        password,
    }))
}

/// As RFC 1123 writes a time, in UTC.
fn date(at: Timestamp) -> String {
    let at = jiff::Timestamp::from_millisecond(at.as_ms()).unwrap_or_default();
    at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

fn delivered(answer: String, refused: &[String]) -> Outcome {
    let answer = match refused {
        [] => answer,
        some => format!("{answer}; not taken for {}", some.join(", ")),
    };
    Outcome {
        verdict: Verdict::Delivered,
        status: Some(250),
        error: None,
        answer,
        receiver_failed: false,
        unmade: false,
    }
}

fn failed(failure: Failure) -> Outcome {
    match failure {
        Failure::Broken(error) => Outcome::failed(error),
        Failure::Impossible(error) => Outcome::refused(error),
        Failure::Refused {
            code,
            text,
            about_us,
        } => Outcome {
            verdict: Verdict::Failed(Hint {
                refused: code >= 500,
                retry_after: None,
            }),
            status: Some(code),
            receiver_failed: about_us,
            ..Outcome::failed(text)
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_names_have_capitals_and_are_unique() {
        let headers = |names: &[&str]| {
            let pair = |name: &&str| ((*name).to_owned(), String::new());
            normalized(&names.iter().map(pair).collect())
        };
        let names: Vec<String> = headers(&["x-mailer", "subject"])
            .unwrap()
            .into_keys()
            .collect();
        assert_eq!(names, ["Subject", "X-Mailer"]);
        let err = headers(&["subject", "Subject"]).unwrap_err().to_string();
        assert!(err.contains("duplicate header \"Subject\""), "{err}");
        assert!(headers(&["a: b\r\nBcc"]).is_err());
    }

    #[test]
    fn dates_are_those_of_mails() {
        let at = Timestamp::from_ms(784_111_777_000);
        assert_eq!(date(at), "Sun, 06 Nov 1994 08:49:37 +0000");
    }

    #[test]
    fn what_a_refusal_says_decides_what_follows() {
        let outcome = |code, about_us| {
            let text = String::new();
            failed(Failure::Refused {
                code,
                text,
                about_us,
            })
        };
        let refused = |outcome: &Outcome| match &outcome.verdict {
            Verdict::Failed(hint) => hint.refused,
            _ => panic!("delivered"),
        };
        let greylisted = outcome(450, false);
        assert!(!refused(&greylisted) && !greylisted.receiver_failed);
        let unknown = outcome(550, false);
        assert!(refused(&unknown) && !unknown.receiver_failed);
        let bad_password = outcome(535, true);
        assert!(refused(&bad_password) && bad_password.receiver_failed);
    }
}
