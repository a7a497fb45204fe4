//! `http_config`: proxies and certificates, with a proxy and a TLS server of this test;
//! where the real Alertmanager 0.25 knows a word too, beside it.

use std::fs;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rumqttc::tokio_rustls::TlsAcceptor;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::alertmanager::{Alertmanager, URL, alert, at, configure};
use crate::broker::{certificates, free_port};
use crate::mail::server_tls;
use crate::server::{Http, Server, eventually};

/// The heads of the requests that came, in order.
#[derive(Clone, Default)]
struct Heads(Arc<Mutex<Vec<String>>>);

impl Heads {
    /// Those whose first line begins so.
    fn of(&self, start: &str) -> Vec<String> {
        let all = self.0.lock().unwrap();
        all.iter()
            .filter(|head| head.starts_with(start))
            .cloned()
            .collect()
    }

    async fn once(&self, start: &str) -> String {
        eventually(start, || async { self.of(start).pop() }).await
    }

    /// Takes one request and answers 200.
    async fn take(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
        while let Some(head) = read_head(&mut stream).await {
            let length = field(&head, "content-length").map_or(0, |text| text.parse().unwrap());
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.ok()?;
            self.0.lock().unwrap().push(head);
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer).await.ok()?;
        }
        Some(())
    }
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// The value of a header field.
fn field(head: &str, name: &str) -> Option<String> {
    head.lines().skip(1).find_map(|line| {
        let (field, value) = line.split_once(": ")?;
        field.eq_ignore_ascii_case(name).then(|| value.to_owned())
    })
}

/// A proxy, which makes no tunnels to port 1.
async fn proxy() -> (Heads, u16) {
    let heads = Heads::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let shared = heads.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let heads = shared.clone();
            tokio::spawn(async move {
                let mut first = [0; 1];
                stream.peek(&mut first).await.ok()?;
                if first[0] != b'C' {
                    return heads.take(stream).await;
                }
                let head = read_head(&mut stream).await?;
                heads.0.lock().unwrap().push(head.clone());
                let (_, port) = head.split(' ').nth(1)?.rsplit_once(':')?;
                if port == "1" {
                    let answer = b"HTTP/1.1 407 Who are you\r\n\r\n";
                    return stream.write_all(answer).await.ok();
                }
                let target = ("127.0.0.1", port.parse().ok()?);
                let mut target = TcpStream::connect(target).await.ok()?;
                let answer = b"HTTP/1.1 200 Here you are\r\nVia: test\r\n\r\n";
                stream.write_all(answer).await.ok()?;
                drop(tokio::io::copy_bidirectional(&mut stream, &mut target).await);
                Some(())
            });
        }
    });
    (heads, port)
}

/// A receiver that is reached encrypted, or not.
async fn receiver(tls: Option<Arc<rustls::ServerConfig>>) -> (Heads, u16) {
    let heads = Heads::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let shared = heads.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (heads, tls) = (shared.clone(), tls.clone());
            tokio::spawn(async move {
                match tls.map(TlsAcceptor::from) {
                    Some(tls) => heads.take(tls.accept(stream).await.ok()?).await,
                    None => heads.take(stream).await,
                }
            });
        }
    });
    (heads, port)
}

/// One receiver with these webhooks.
fn tree(webhooks: &str) -> String {
    format!(
        "route: {{receiver: a, group_wait: 0s}}\nreceivers:\n- name: a\n  webhook_configs:\n{webhooks}"
    )
}

async fn fire(url: String) {
    let body = [alert(&[("alertname", "Hot")], &at(-5), &at(3_600))];
    let body = serde_json::to_string(&body).unwrap();
    assert_eq!(Http::new().post_owned(url, body).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_is_asked_for_the_whole_address_as_alertmanager_asks_it() {
    let (straight, direct) = receiver(None).await;
    let (heads, port) = proxy().await;
    let proxied = |path: &str| {
        format!(
            "  - url: http://receiver.example/{path}?a=b\n    \
             http_config: {{proxy_url: 'http://me:s%40y@127.0.0.1:{port}'}}\n"
        )
    };
    // The two receivers are one for us: each way of telling has its own client.
    let spared = format!(
        "  - url: http://127.0.0.1:{direct}/spared\n    http_config:\n      \
         proxy_url: http://127.0.0.1:{port}\n      no_proxy: '10.0.0.0/8'\n"
    );
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), &tree(&(proxied("ours") + &spared)));
    let server = Server::start(dir.path(), free_port()).await;
    fire(server.url("/api/v2/alerts")).await;
    let ours = heads
        .once("POST http://receiver.example/ours?a=b HTTP/1.1")
        .await;
    assert_eq!(field(&ours, "host").unwrap(), "receiver.example");
    let user = field(&ours, "proxy-authorization").unwrap();
    assert_eq!(user, "Basic bWU6c0B5");
    straight.once("POST /spared HTTP/1.1").await;
    for path in ["/targets", "/status", "/api/v2/status", "/metrics"] {
        let page = server.get(path).await;
        assert!(!page.text().contains("s%40y"), "{path}");
    }
    if let Some(theirs) = Alertmanager::start(&tree(&proxied("theirs")), URL).await {
        fire(theirs.url("/api/v2/alerts")).await;
        let theirs = heads
            .once("POST http://receiver.example/theirs?a=b HTTP/1.1")
            .await;
        for name in ["host", "proxy-authorization"] {
            assert_eq!(field(&theirs, name), field(&ours, name), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_of_the_environment_is_taken_when_it_is_asked_for() {
    let (heads, port) = proxy().await;
    let dir = tempfile::tempdir().unwrap();
    let webhooks = "  - url: http://receiver.example/env\n    \
         http_config: {proxy_from_environment: true}\n  \
         - url: http://spared.example/env\n    http_config: {proxy_from_environment: true}\n";
    configure(dir.path(), &tree(webhooks));
    let port_of_server = free_port();
    let config = dir.path().join("pulse.toml");
    let text = fs::read_to_string(&config).unwrap();
    let server = format!("[server]\nlisten = [\"127.0.0.1:{port_of_server}\"]\n");
    fs::write(&config, server + &text).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_pulse"))
        .args(["run", "--config"])
        .arg(&config)
        .env("HTTP_PROXY", format!("127.0.0.1:{port}"))
        .env("NO_PROXY", "spared.example")
        .current_dir(dir.path())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let base = format!("http://127.0.0.1:{port_of_server}");
    eventually("it is ready", || async {
        let request = hyper::Request::get(format!("{base}/-/ready"));
        let request = request.body(http_body_util::Full::default()).unwrap();
        let answer = Http::new().try_send(request).await?;
        (answer.status == 200).then_some(())
    })
    .await;
    fire(format!("{base}/api/v2/alerts")).await;
    heads
        .once("POST http://receiver.example/env HTTP/1.1")
        .await;
    assert_eq!(heads.of("POST http://spared"), Vec::<String>::new());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_goes_through_a_tunnel_and_certificates_may_stand_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let Some(()) = certificates(dir.path(), "DNS:localhost") else {
        return;
    };
    let (heads, proxy_port) = proxy().await;
    let (inside, port) = receiver(Some(server_tls(dir.path()))).await;
    let ca = fs::read_to_string(dir.path().join("ca.pem")).unwrap();
    let ca = ca.replace('\n', "\n          ");
    let blind = format!(
        "  - url: https://127.0.0.1:{port}/blind\n    http_config:\n      \
         proxy_url: http://me:pw@127.0.0.1:{proxy_port}\n      \
         tls_config: {{insecure_skip_verify: true}}\n"
    );
    let webhooks = format!(
        "{blind}      proxy_connect_header: {{X-Tunnel: ['yes']}}\n  \
         - url: https://localhost:{port}/inline\n    http_config:\n      \
         tls_config:\n        ca: |\n          {ca}\n  \
         - url: https://127.0.0.1:{port}/other-name\n    http_config:\n      \
         tls_config:\n        ca: |\n          {ca}\n  \
         - url: https://localhost:1/refused\n    http_config:\n      \
         proxy_url: http://127.0.0.1:{proxy_port}\n"
    );
    configure(dir.path(), &tree(&webhooks));
    let server = Server::start(dir.path(), free_port()).await;
    fire(server.url("/api/v2/alerts")).await;
    let head = inside.once("POST /blind HTTP/1.1").await;
    // What is for the proxy does not reach the receiver.
    assert_eq!(field(&head, "proxy-authorization"), None);
    assert_eq!(field(&head, "x-tunnel"), None);
    let tunnel = heads
        .once(&format!("CONNECT 127.0.0.1:{port} HTTP/1.1"))
        .await;
    assert_eq!(
        field(&tunnel, "proxy-authorization").unwrap(),
        "Basic bWU6cHc="
    );
    assert_eq!(field(&tunnel, "x-tunnel").unwrap(), "yes");
    inside.once("POST /inline HTTP/1.1").await;
    eventually("both failures are told", || async {
        let page = server.get("/targets").await.text().to_owned();
        let parts = [
            "the proxy makes no tunnel: HTTP/1.1 407 Who are you",
            "invalid peer certificate",
        ];
        parts.iter().all(|part| page.contains(part)).then_some(())
    })
    .await;
    assert_eq!(inside.of("POST /other-name"), Vec::<String>::new());

    let checked = Command::new(env!("CARGO_BIN_EXE_pulse"))
        .arg("check")
        .arg(dir.path().join("pulse.toml"))
        .output()
        .unwrap();
    assert!(checked.status.success());
    let said = String::from_utf8(checked.stderr).unwrap();
    let want = "alertmanager.yml:3:3: receivers[0]: insecure_skip_verify: whoever answers";
    assert!(
        said.starts_with("WARNING: ") && said.contains(want),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");

    if let Some(theirs) = Alertmanager::start(&tree(&blind), URL).await {
        fire(theirs.url("/api/v2/alerts")).await;
        eventually("the tunnel of the real one", || async {
            (inside.of("POST /blind").len() == 2).then_some(())
        })
        .await;
        let theirs = heads.of("CONNECT 127.0.0.1").pop().unwrap();
        let user = field(&theirs, "proxy-authorization");
        assert_eq!(user, field(&tunnel, "proxy-authorization"));
        assert_eq!(field(&theirs, "host"), field(&tunnel, "host"));
    }
}

#[test]
fn a_detour_that_makes_no_sense_is_refused_at_its_line() {
    for (fields, want) in [
        (
            "proxy_url: 'socks5://p:1'",
            "http_config.proxy_url: \"socks5\" is not supported",
        ),
        (
            "no_proxy: a",
            "http_config.no_proxy: expected proxy_url beside it",
        ),
        (
            "proxy_from_environment: true, proxy_url: 'http://p'",
            "http_config.proxy_from_environment: expected neither proxy_url nor no_proxy beside it",
        ),
        (
            "proxy_connect_header: {a: [b]}",
            "http_config.proxy_connect_header: expected proxy_url or",
        ),
        (
            "tls_config: {ca: x, ca_file: y}",
            "http_config.tls_config: at most one of ca and ca_file must be configured",
        ),
        (
            "tls_config: {ca: x}",
            "http_config.tls_config.ca: holds no certificate",
        ),
        (
            "oauth2: {client_id: a}",
            "http_config.oauth2: not supported",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let webhook = format!("  - url: https://h/\n    http_config: {{{fields}}}\n");
        configure(dir.path(), &tree(&webhook));
        let checked = Command::new(env!("CARGO_BIN_EXE_pulse"))
            .arg("check")
            .arg(dir.path().join("pulse.toml"))
            .output()
            .unwrap();
        let said = String::from_utf8(checked.stderr).unwrap();
        assert!(
            said.contains(":6:5: ") || said.contains(":6:"),
            "{fields}: {said}"
        );
        assert!(said.contains(want), "{fields}: {said}");
    }
}

/// A server with a certificate of X.509 version 1, which holds no names.
fn old_server_tls(dir: &std::path::Path) -> Arc<rustls::ServerConfig> {
    let args = "x509 -req -days 2 -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial";
    let made = Command::new("openssl")
        .args(args.split(' '))
        .args(["-out", "old.pem"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let told = Command::new("openssl")
        .args(["x509", "-in", "old.pem", "-noout", "-text"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&told.stdout).contains("Version: 1 (0x0)"));
    let chain = CertificateDer::pem_file_iter(dir.join("old.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = provider.key_provider.load_private_key(key).unwrap();
    // Not the usual way, which reads the certificate.
    let certified = CertifiedKey::new(chain.map(Result::unwrap).collect(), key);
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    Arc::new(config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_known_by_the_name_that_is_configured_or_by_none() {
    let dir = tempfile::tempdir().unwrap();
    let Some(()) = certificates(dir.path(), "DNS:localhost") else {
        return;
    };
    let (named, port) = receiver(Some(server_tls(dir.path()))).await;
    let (old, old_port) = receiver(Some(old_server_tls(dir.path()))).await;
    let ca = dir.path().join("ca.pem").display().to_string();
    let tls = |url: String, tls: &str| {
        format!("  - url: {url}\n    http_config:\n      tls_config: {{{tls}}}\n")
    };
    let blind = "insecure_skip_verify: true";
    let webhooks = [
        tls(
            format!("https://u:p%40@127.0.0.1:{port}/named"),
            &format!("ca_file: '{ca}', server_name: localhost, min_version: TLS13"),
        ),
        tls(
            format!("https://localhost:{port}/other"),
            &format!("ca_file: '{ca}', server_name: other"),
        ),
        tls(format!("https://127.0.0.1:{old_port}/13"), blind),
        tls(
            format!("https://127.0.0.1:{old_port}/12"),
            &format!("{blind}, max_version: TLS12"),
        ),
    ];
    configure(dir.path(), &tree(&webhooks.concat()));
    let server = Server::start(dir.path(), free_port()).await;
    fire(server.url("/api/v2/alerts")).await;
    let head = named.once("POST /named").await;
    assert_eq!(field(&head, "authorization").unwrap(), "Basic dTpwQA==");
    assert!(!head.contains("u:p"), "{head}");
    old.once("POST /13").await;
    old.once("POST /12").await;
    eventually("the other name is refused", || async {
        let page = server.get("/targets").await;
        page.text()
            .contains("invalid peer certificate")
            .then_some(())
    })
    .await;
    assert_eq!(named.of("POST /other"), Vec::<String>::new());
    for page in ["/targets", "/status", "/api/v2/status"] {
        let text = server.get(page).await.text().to_owned();
        assert!(!text.contains("u:p%40"), "{page}: {text}");
    }
}
