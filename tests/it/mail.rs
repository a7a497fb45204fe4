//! Mails against a mail server of this test; where the real Alertmanager 0.25 sends
//! them too, beside it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rumqttc::tokio_rustls::TlsAcceptor;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};

use crate::alertmanager::{Alertmanager, URL, alert, at, configure};
use crate::broker::{certificates, free_port};
use crate::server::{Http, Server, eventually};

/// How the mail server behaves.
#[derive(Clone, Default)]
struct Ways {
    /// What it offers besides STARTTLS.
    offers: Vec<&'static str>,
    tls: Option<Arc<rustls::ServerConfig>>,
    /// Encrypted from the beginning.
    implicit: bool,
    /// What it says right behind its answer to STARTTLS, before the encryption.
    injects: &'static str,
    /// How many of the first recipients have to come again.
    greylists: usize,
    /// Whom it does not know.
    unknown: &'static str,
}

/// A mail as it came, and what was said before it.
#[derive(Clone, Debug)]
struct Got {
    said: Vec<String>,
    encrypted: bool,
    data: String,
}

#[derive(Clone, Default)]
struct Sink {
    ways: Ways,
    mails: Arc<Mutex<Vec<Got>>>,
    /// Everything that clients said, whatever came of it.
    said: Arc<Mutex<Vec<String>>>,
    recipients: Arc<Mutex<usize>>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Sink {
    async fn start(ways: Ways) -> (Sink, u16) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (Sink::on(listener, ways), port)
    }

    fn on(listener: tokio::net::TcpListener, ways: Ways) -> Sink {
        let sink = Sink {
            ways,
            ..Sink::default()
        };
        let shared = sink.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let sink = shared.clone();
                tokio::spawn(async move { drop(sink.serve(Box::new(stream)).await) });
            }
        });
        sink
    }

    fn mails(&self) -> Vec<Got> {
        self.mails.lock().unwrap().clone()
    }

    async fn serve(&self, stream: Box<dyn Stream>) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut encrypted = false;
        if self.ways.implicit {
            stream = self.encrypt(stream).await?;
            encrypted = true;
        }
        let mut said = Vec::new();
        stream.write_all(b"220 sink ready\r\n").await?;
        let mut line = String::new();
        let mut passwords = 0;
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let command = line.trim_end().to_owned();
            self.said.lock().unwrap().push(command.clone());
            said.push(command.clone());
            let answer = match command.split([' ', ':']).next().unwrap() {
                "EHLO" => self.offered(encrypted),
                "STARTTLS" => {
                    let answer = format!("220 go ahead\r\n{}", self.ways.injects);
                    stream.write_all(answer.as_bytes()).await?;
                    stream = self.encrypt(stream).await?;
                    encrypted = true;
                    continue;
                }
                "AUTH" if command == "AUTH LOGIN" => {
                    passwords = 2;
                    "334 VXNlcm5hbWU6\r\n".to_owned()
                }
                "AUTH" => "235 welcome\r\n".to_owned(),
                "RCPT" => self.recipient(&command),
                "DATA" => {
                    stream.write_all(b"354 go ahead\r\n").await?;
                    let data = read_data(&mut stream).await?;
                    self.mails.lock().unwrap().push(Got {
                        said: std::mem::take(&mut said),
                        encrypted,
                        data,
                    });
                    "250-taken\r\n250 as 4711\r\n".to_owned()
                }
                "MAIL" | "HELO" => "250 ok\r\n".to_owned(),
                "QUIT" => {
                    stream.write_all(b"221 bye\r\n").await?;
                    return Ok(());
                }
                // The two answers of LOGIN.
                _ if passwords == 2 => {
                    passwords = 1;
                    "334 UGFzc3dvcmQ6\r\n".to_owned()
                }
                _ => "235 welcome\r\n".to_owned(),
            };
            stream.write_all(answer.as_bytes()).await?;
        }
    }

    fn offered(&self, encrypted: bool) -> String {
        let mut offered = vec!["sink greets you"];
        if self.ways.tls.is_some() && !encrypted {
            offered.push("STARTTLS");
        }
        offered.extend(&self.ways.offers);
        let last = offered.pop().unwrap();
        let before = offered.iter().map(|line| format!("250-{line}\r\n"));
        before.collect::<String>() + &format!("250 {last}\r\n")
    }

    fn recipient(&self, command: &str) -> String {
        let mut recipients = self.recipients.lock().unwrap();
        *recipients += 1;
        if *recipients <= self.ways.greylists {
            return "451 come again\r\n".to_owned();
        }
        if !self.ways.unknown.is_empty() && command.contains(self.ways.unknown) {
            return "550 no such user\r\n".to_owned();
        }
        "250 ok\r\n".to_owned()
    }

    async fn encrypt(
        &self,
        stream: BufReader<Box<dyn Stream>>,
    ) -> std::io::Result<BufReader<Box<dyn Stream>>> {
        let acceptor = TlsAcceptor::from(Arc::clone(self.ways.tls.as_ref().unwrap()));
        let stream = acceptor.accept(stream.into_inner()).await?;
        Ok(BufReader::new(Box::new(stream)))
    }
}

async fn read_data(stream: &mut BufReader<Box<dyn Stream>>) -> std::io::Result<String> {
    let mut data = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        assert!(line.ends_with("\r\n") && line.len() <= 1_000, "{line:?}");
        if line == ".\r\n" {
            return Ok(data);
        }
        data.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}

pub(crate) fn server_tls(dir: &Path) -> Arc<rustls::ServerConfig> {
    let chain = CertificateDer::pem_file_iter(dir.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key);
    Arc::new(config.unwrap())
}

/// The header fields, unfolded, and the parts with their own headers.
fn parts(mail: &str) -> (BTreeMap<String, String>, Vec<String>) {
    let (head, body) = mail.split_once("\r\n\r\n").unwrap();
    let head = head.replace("\r\n ", " ");
    let fields = head.split("\r\n").map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_owned(), value.to_owned())
    });
    let fields: BTreeMap<String, String> = fields.collect();
    let (_, boundary) = fields["Content-Type"].split_once("boundary=").unwrap();
    let end = format!("--{boundary}--\r\n");
    let body = body.strip_suffix(&end).unwrap();
    let start = format!("--{boundary}\r\n");
    let parts = body.split(&start).skip(1);
    (fields.clone(), parts.map(str::to_owned).collect())
}

/// What is different in each mail.
fn without_chance(mut fields: BTreeMap<String, String>) -> BTreeMap<String, String> {
    for name in ["Message-Id", "Date"] {
        assert!(fields.remove(name).is_some(), "{name}");
    }
    let kind = fields.get_mut("Content-Type").unwrap();
    kind.truncate(kind.find("boundary=").unwrap());
    fields
}

fn tree(receivers: &str) -> String {
    format!(
        "route:\n  receiver: all\n  group_by: [alertname, job]\n  group_wait: 1s\n  group_interval: 1s\n\
         receivers:\n- name: all\n  email_configs:\n{receivers}"
    )
}

/// One entry.
fn to(name: &str, port: u16, more: &str) -> String {
    format!(
        "  - to: {name}@example.com\n    from: '\"Alerts, all\" <alerts@example.com>'\n    \
         smarthost: localhost:{port}\n    send_resolved: true\n    require_tls: false\n{more}"
    )
}

/// Young alerts: the real one tells of the first of old ones at once.
static STARTED: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| at(1));

/// Labels that want to be more than text.
const HOSTILE: [(&str, &str); 6] = [
    ("alertname", "Heiß\r\nBcc: evil@example.com"),
    ("instance", "<script>alert(1)</script>"),
    ("job", "\r\n.\r\nMAIL FROM:<evil@example.com>"),
    ("severity", "a=b \" ' + & %41 ü \t"),
    ("link", "javascript:alert(1)"),
    (
        "long",
        "0123456789012345678901234567890123456789012345678901234567890123456789äöüß",
    ),
];

fn alerts(end: &str) -> String {
    let mut calm = HOSTILE;
    calm[1].1 = "calm";
    let [mut hostile, calm] = [HOSTILE, calm].map(|labels| alert(&labels, &STARTED, end));
    hostile["generatorURL"] = "http://p.example/graph?g0.expr=a+%3E+1&g0.tab=1".into();
    serde_json::to_string(&[hostile, calm]).unwrap()
}

async fn post(url: String, body: String) {
    let answer = Http::new().post_owned(url, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a14_mails_are_those_of_the_real_alertmanager() {
    let offers = vec!["8BITMIME", "AUTH LOGIN PLAIN"];
    let ways = Ways {
        offers,
        ..Ways::default()
    };
    let [(theirs, their_port), (ours, our_port)] =
        [Sink::start(ways.clone()).await, Sink::start(ways).await];
    let own = "    auth_username: me\n    auth_password: secret\n    \
               headers: {subject: 'Ä {{ .CommonLabels.alertname }} {{ .CommonLabels.long }}', x-mailer: probe}\n    \
               text: '{{ .CommonLabels.job }}{{ range .Alerts }}{{ .Labels.severity }}{{ end }}'\n    \
               html: '<a title={{ .CommonLabels.severity }} href=\"{{ .CommonLabels.link }}\">{{ .CommonLabels.severity }}</a>\
               <a href=\"/x?y={{ .CommonLabels.severity }}\" style=\"color: {{ .Status }}\">{{ (index .Alerts 0).Labels.instance }}</a>\
               {{ .CommonAnnotations.summary | safeHtml }}'\n";
    let both = |port| to("default", port, "") + &to("own", port, own);
    let Some(real) = Alertmanager::start(&tree(&both(their_port)), URL).await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let look = "templates: ['/usr/share/prometheus/alertmanager/email.tmpl']\n";
    configure(dir.path(), &(tree(&both(our_port)) + look));
    let server = Server::start(dir.path(), free_port()).await;
    for (secs, wanted) in [(3_600, 2), (0, 4)] {
        let body = alerts(&at(secs));
        post(real.url("/api/v2/alerts"), body.clone()).await;
        post(server.url("/api/v2/alerts"), body).await;
        eventually("both sent both mails", || async {
            let counts = [&theirs, &ours].map(|sink| sink.mails().len());
            (counts == [wanted; 2]).then_some(())
        })
        .await;
    }
    let by_subject = |sink: &Sink| -> BTreeMap<String, Got> {
        let subject = |got: &Got| {
            let (fields, _) = parts(&got.data);
            format!("{} {}", fields["To"], fields["Subject"])
        };
        sink.mails()
            .into_iter()
            .map(|got| (subject(&got), got))
            .collect()
    };
    let (theirs, ours) = (by_subject(&theirs), by_subject(&ours));
    assert_eq!(
        theirs.keys().collect::<Vec<_>>(),
        ours.keys().collect::<Vec<_>>()
    );
    for (subject, theirs) in &theirs {
        let ours = &ours[subject];
        let ((their_fields, their_parts), (fields, our_parts)) =
            (parts(&theirs.data), parts(&ours.data));
        assert_eq!(without_chance(their_fields), without_chance(fields.clone()));
        assert_eq!(their_parts, our_parts, "{subject}");
        let said = |got: &Got, start: &str| -> Vec<String> {
            let lines = got.said.iter().filter(|line| line.starts_with(start));
            lines
                .map(|line| line.trim_end_matches(" BODY=8BITMIME").to_owned())
                .collect()
        };
        for start in ["EHLO", "AUTH", "MAIL", "RCPT"] {
            assert_eq!(said(theirs, start), said(ours, start), "{subject}");
        }
        assert!(!fields.contains_key("Bcc"));
    }
}

/// A configuration with one entry, which trusts the CA in `dir`.
fn configure_one(dir: &Path, port: u16, more: &str) {
    let entry = format!(
        "  - to: 'a@example.com, b@example.com'\n    from: alerts@example.com\n    \
         smarthost: localhost:{port}\n{more}"
    );
    configure(dir, &tree(&entry));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mails_go_out_encrypted_and_a_recipient_that_is_unknown_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let Some(()) = certificates(dir.path(), "DNS:localhost") else {
        return;
    };
    let ways = Ways {
        offers: vec!["AUTH LOGIN"],
        tls: Some(server_tls(dir.path())),
        greylists: 1,
        unknown: "b@example.com",
        ..Ways::default()
    };
    let (sink, port) = Sink::start(ways).await;
    configure_one(
        dir.path(),
        port,
        "    auth_username: me\n    auth_password: s3cret\n    tls_config: {ca_file: ca.pem}\n",
    );
    let server = Server::start(dir.path(), free_port()).await;
    post(server.url("/api/v2/alerts"), alerts(&at(3_600))).await;
    eventually("the mail is there after it had to come again", || async {
        (sink.mails().len() == 1).then_some(())
    })
    .await;
    let mail = sink.mails().remove(0);
    assert!(mail.encrypted);
    assert!(
        mail.said.contains(&BASE64.encode("s3cret")),
        "{:?}",
        mail.said
    );
    assert!(mail.said.contains(&"RCPT TO:<a@example.com>".to_owned()));
    let (fields, parts) = parts(&mail.data);
    assert!(fields["Message-Id"].starts_with("<ntf_"), "{fields:?}");
    assert!(
        fields["Message-Id"].ends_with("@example.com>"),
        "{fields:?}"
    );
    // Ours, not Alertmanager's; and what is hostile is text in it.
    assert!(parts[0].contains("2 alerts for"), "{}", parts[0]);
    assert!(parts[0].contains("&lt;script&gt;") && !parts[0].contains("<script"));
    let attempts = || {
        sink.said
            .lock()
            .unwrap()
            .iter()
            .filter(|s| *s == "STARTTLS")
            .count()
    };
    assert_eq!(attempts(), 2, "one attempt was greylisted");
    for path in ["/targets", "/api/v2/status", "/metrics"] {
        assert!(!server.get(path).await.text().contains("s3cret"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_can_be_encrypted_from_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    // The port decides; as root in a container it is free.
    let Ok(listener) = tokio::net::TcpListener::bind("127.0.0.1:465").await else {
        crate::broker::say("SKIPPED: port 465 cannot be used here");
        return;
    };
    let Some(()) = certificates(dir.path(), "DNS:localhost") else {
        return;
    };
    let ways = Ways {
        tls: Some(server_tls(dir.path())),
        implicit: true,
        ..Ways::default()
    };
    let sink = Sink::on(listener, ways);
    configure_one(dir.path(), 465, "    tls_config: {ca_file: ca.pem}\n");
    let server = Server::start(dir.path(), free_port()).await;
    post(server.url("/api/v2/alerts"), alerts(&at(3_600))).await;
    eventually("the mail is there", || async {
        (sink.mails().len() == 1).then_some(())
    })
    .await;
    assert!(sink.mails()[0].encrypted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_before_the_encryption_is_never_believed() {
    let dir = tempfile::tempdir().unwrap();
    let Some(()) = certificates(dir.path(), "DNS:localhost") else {
        return;
    };
    let ways = Ways {
        offers: vec!["AUTH PLAIN"],
        tls: Some(server_tls(dir.path())),
        injects: "250-sink\r\n250 AUTH PLAIN\r\n",
        ..Ways::default()
    };
    let (injecting, port) = Sink::start(ways).await;
    let more =
        "    auth_username: me\n    auth_password: s3cret\n    tls_config: {ca_file: ca.pem}\n";
    configure_one(dir.path(), port, more);
    let server = Server::start(dir.path(), free_port()).await;
    post(server.url("/api/v2/alerts"), alerts(&at(3_600))).await;
    eventually("it was tried again", || async {
        let said = injecting.said.lock().unwrap();
        (said.iter().filter(|line| *line == "STARTTLS").count() >= 2).then_some(())
    })
    .await;
    assert_eq!(injecting.mails().len(), 0);
    let said = injecting.said.lock().unwrap().clone();
    assert!(
        !said.iter().any(|line| line.starts_with("AUTH")),
        "{said:?}"
    );
    drop(server);

    // A server that offers no encryption gets nothing at all.
    let (plain, port) = Sink::start(Ways::default()).await;
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path(), "DNS:localhost").unwrap();
    configure_one(dir.path(), port, more);
    let server = Server::start(dir.path(), free_port()).await;
    post(server.url("/api/v2/alerts"), alerts(&at(3_600))).await;
    eventually("it was tried", || async {
        (!plain.said.lock().unwrap().is_empty()).then_some(())
    })
    .await;
    let said = plain.said.lock().unwrap().clone();
    assert!(said.iter().all(|line| line.starts_with("EHLO")), "{said:?}");
}
