//! A checked `[[source.nats]]`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::{ConnectOptions, ServerAddr};

use super::super::tls;
use crate::config::{self, Config, NatsConsumerType, NatsDeliver, NatsMode, Tls};
use crate::delivery::nats_servers;

/// Half-open connections are noticed within two of these.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// The client gives up a message for a plain subscription beyond this.
const SUBSCRIPTION_MESSAGES_MAX: usize = 16_384;
const RECONNECT_WAIT_MIN_MS: u64 = 100;
const RECONNECT_WAIT_MAX_MS: u64 = 5_000;

/// One consumer or subscription, valid by construction.
#[derive(Clone)]
pub struct Options {
    /// Names the source.
    pub(in super::super) name: String,
    /// As configured; it holds no credentials.
    pub(in super::super) url: String,
    servers: Vec<ServerAddr>,
    pub(super) mode: NatsMode,
    pub(super) stream: String,
    pub(super) consumer: String,
    pub(super) subjects: Vec<String>,
    pub(super) deliver: NatsDeliver,
    pub(super) historical: bool,
    pub(super) ack_wait: Duration,
    pub(super) max_ack_pending: u16,
    auth: Auth,
    require_tls: bool,
    ca_file: Option<PathBuf>,
    client_certificate: Option<(PathBuf, PathBuf)>,
    /// Changes with the secrets and certificates, which a reload cannot see in
    /// the configuration itself.
    pub(in super::super) fingerprint: u64,
}

#[derive(Clone)]
enum Auth {
    None,
    User { name: String, password: String },
    Token(String),
    Nkey(String),
    Credentials(String),
}

impl Options {
    /// Checks a `[[source.nats]]` and reads the secrets and certificates that it names.
    ///
    /// # Errors
    /// When a value is of no use or a file cannot be read; the text begins with the field.
    pub fn from_config(source: &config::Nats, config: &Config) -> anyhow::Result<Options> {
        checked(source, config)
    }

    /// What it promises, as pages show it.
    pub(in super::super) fn guarantee(&self) -> &'static str {
        match self.mode {
            NatsMode::Jetstream => "at least once",
            NatsMode::Core => "at most once",
        }
    }

    /// Where to connect.
    pub(super) fn servers(&self) -> &[ServerAddr] {
        &self.servers
    }

    /// How to connect.
    ///
    /// # Errors
    /// When the credentials are not what they seemed.
    pub(super) fn connect_options(&self) -> std::io::Result<ConnectOptions> {
        let mut options = ConnectOptions::new()
            .name(format!("pulse {}", self.name))
            .ping_interval(PING_INTERVAL)
            .connection_timeout(CONNECT_TIME_MAX)
            .request_timeout(Some(REQUEST_TIME_MAX))
            .subscription_capacity(SUBSCRIPTION_MESSAGES_MAX)
            .max_reconnects(None)
            .require_tls(self.require_tls)
            .reconnect_delay_callback(|attempts| {
                let step = 1 << attempts.min(10);
                let wait = (RECONNECT_WAIT_MIN_MS * step).min(RECONNECT_WAIT_MAX_MS);
                Duration::from_millis(wait)
            });
        if let Some(path) = &self.ca_file {
            options = options.add_root_certificates(path.clone());
        }
        if let Some((cert, key)) = &self.client_certificate {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        Ok(match self.auth.clone() {
            Auth::None => options,
            Auth::User { name, password } => options.user_and_password(name, password),
            Auth::Token(token) => options.token(token),
            Auth::Nkey(seed) => options.nkey(seed),
            Auth::Credentials(text) => options.credentials(&text)?,
        })
    }
}

fn checked(source: &config::Nats, config: &Config) -> anyhow::Result<Options> {
    ensure!(
        !source.name.is_empty() && !source.name.contains('\0'),
        "name: expected at least one character, and no NUL"
    );
    let servers = nats_servers(&source.url).with_context(|| format!("url: {:?}", source.url))?;
    let require_tls = servers.iter().any(ServerAddr::tls_required);
    ensure!(
        require_tls || source.tls == Tls::default(),
        "tls: set, but the url is nats://, expected tls://"
    );
    let consumer = source
        .consumer
        .clone()
        .unwrap_or_else(|| format!("pulse-{}", source.name));
    if source.mode == NatsMode::Jetstream {
        check_name("stream", &source.stream)?;
        check_name("consumer", &consumer)?;
    }
    ensure!(
        !source.subjects.is_empty(),
        "subjects: expected at least one"
    );
    for subject in &source.subjects {
        check_subject(subject)?;
    }
    ensure!(
        source.ack_wait.get() >= Duration::from_secs(1),
        "ack_wait: {:?}, expected at least 1s",
        source.ack_wait
    );
    ensure!(
        source.max_ack_pending > 0,
        "max_ack_pending: expected at least 1"
    );
    if require_tls {
        // Only to find what is wrong with the files now; the client reads them at each connect.
        tls::client_config(&source.tls, config)?;
    }
    let (auth, secret) = auth(source, config)?;
    let resolve = |path: &Option<PathBuf>| path.as_ref().map(|path| config.resolve(path));
    Ok(Options {
        name: source.name.clone(),
        url: source.url.clone(),
        servers,
        mode: source.mode,
        stream: source.stream.clone(),
        consumer,
        subjects: source.subjects.clone(),
        deliver: source.deliver,
        historical: source.consumer_type == NatsConsumerType::Historical,
        ack_wait: source.ack_wait.get(),
        max_ack_pending: source.max_ack_pending,
        auth,
        require_tls,
        ca_file: resolve(&source.tls.ca_file),
        client_certificate: resolve(&source.tls.cert_file).zip(resolve(&source.tls.key_file)),
        fingerprint: tls::fingerprint(&source.tls, config, &[secret.as_deref()]),
    })
}

/// A stream's or consumer's name is one token of a subject.
fn check_name(field: &str, name: &str) -> anyhow::Result<()> {
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
    ensure!(
        !name.is_empty() && !name.contains(is_bad),
        "{field}: {name:?}, expected a name without blanks and without . * > / \\"
    );
    Ok(())
}

fn check_subject(subject: &str) -> anyhow::Result<()> {
    let mut tokens = subject.split('.').peekable();
    while let Some(token) = tokens.next() {
        let is_last = tokens.peek().is_none();
        let fits = match token {
            "" => false,
            "*" => true,
            ">" => is_last,
            _ => !token.contains(|c: char| c.is_whitespace() || c.is_control() || "*>".contains(c)),
        };
        ensure!(
            fits,
            "subjects: {subject:?} is not a subject, expected * for one token or > at the end"
        );
    }
    Ok(())
}

/// At most one way to prove who we are, and the secret in it.
fn auth(source: &config::Nats, config: &Config) -> anyhow::Result<(Auth, Option<String>)> {
    let ways = [
        source.username.is_some(),
        source.token.is_some(),
        source.nkey.is_some(),
        source.credentials_file.is_some(),
    ];
    ensure!(
        ways.iter().filter(|set| **set).count() <= 1,
        "username, token, nkey, credentials_file: expected at most one of them"
    );
    ensure!(
        source.password.is_none() || source.username.is_some(),
        "password: set without username"
    );
    if let Some(name) = &source.username {
        let password = match &source.password {
            Some(secret) => secret.read().context("password")?,
            None => String::new(),
        };
        let name = name.clone();
        let secret = password.clone();
        return Ok((Auth::User { name, password }, Some(secret)));
    }
    if let Some(token) = &source.token {
        let token = token.read().context("token")?;
        return Ok((Auth::Token(token.clone()), Some(token)));
    }
    if let Some(nkey) = &source.nkey {
        let seed = nkey.read().context("nkey")?;
        ensure!(
            seed.starts_with("SU"),
            "nkey: expected a user's seed, which starts with SU"
        );
        return Ok((Auth::Nkey(seed.clone()), Some(seed)));
    }
    if let Some(path) = &source.credentials_file {
        let path = config.resolve(path);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("credentials_file: cannot read {}", path.display()))?;
        ConnectOptions::with_credentials(&text)
            .with_context(|| format!("credentials_file: {} is damaged", path.display()))?;
        return Ok((Auth::Credentials(text.clone()), Some(text)));
    }
    Ok((Auth::None, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(fields: &str) -> anyhow::Result<Options> {
        let text = format!("[[source.nats]]\nname = \"site\"\n{fields}");
        let config = Config::parse(&text, "c.toml").unwrap();
        Options::from_config(&config.source.nats[0], &config)
    }

    fn check_error(fields: &str, want: &str) {
        let err = format!("{:#}", parse(fields).err().expect("an error"));
        assert!(err.contains(want), "{want:?} not in {err}");
    }

    #[test]
    fn defaults_make_a_durable_consumer() {
        let options = parse("url = \"nats://h, nats://i:1\"\nstream = \"S\"").unwrap();
        assert_eq!(options.servers.len(), 2);
        assert_eq!(options.consumer, "pulse-site");
        assert_eq!(options.guarantee(), "at least once");
        let core = parse("url = \"nats://h\"\nmode = \"core\"").unwrap();
        assert_eq!(core.guarantee(), "at most once");
    }

    #[test]
    fn errors_name_source_and_field() {
        let url = "url = \"nats://h\"\nstream = \"S\"\n";
        for (fields, want) in [
            (
                "url = \"h:1\"\nstream = \"S\"",
                "url: \"h:1\": expected nats://",
            ),
            (
                "url = \"nats://u:p@h\"\nstream = \"S\"",
                "do not belong into the url",
            ),
            ("url = \"nats://h\"", "stream: \"\", expected a name"),
            (&format!("{url}consumer = \"a.b\""), "consumer: \"a.b\""),
            (&format!("{url}subjects = []"), "subjects: expected"),
            (
                &format!("{url}subjects = [\"a.>.b\"]"),
                "subjects: \"a.>.b\"",
            ),
            (&format!("{url}subjects = [\"a..b\"]"), "subjects: \"a..b\""),
            (&format!("{url}ack_wait = \"10ms\""), "ack_wait: 10ms"),
            (&format!("{url}max_ack_pending = 0"), "max_ack_pending: "),
            (&format!("{url}password = \"x\""), "password: set without"),
            (
                &format!("{url}nkey = \"x\""),
                "nkey: expected a user's seed",
            ),
            (
                &format!("{url}token = \"x\"\nusername = \"u\""),
                "expected at most one of them",
            ),
            (
                &format!("{url}credentials_file = \"/nowhere\""),
                "credentials_file: cannot read /nowhere",
            ),
            (&format!("{url}tls.ca_file = \"x\""), "tls: set, but"),
            (
                "url = \"tls://h\"\nstream = \"S\"\ntls.ca_file = \"/nowhere\"",
                "tls.ca_file: cannot read certificates from /nowhere",
            ),
        ] {
            check_error(fields, want);
        }
    }
}
