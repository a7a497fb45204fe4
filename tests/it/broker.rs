//! Real brokers on free loopback ports, and sources with a stand-in for ingest.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pulse::config::Config;
use pulse::ingest::{Hand, Ingest, Message, Verdict};
use pulse::model::Clock;
use pulse::sources::{Board, Context, SourceState, SourceView, Sources};
use pulse::store::{self, Store, WriteBatch};
use pulse::tasks::Tasks;
use pulse::telemetry::Metrics;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long anything in these tests may take before it counts as failed: far longer than
/// it takes, so that a slow disk or a busy machine is no failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Where a program is; `None` after saying that its test is skipped.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = folders
        .map(|dir| dir.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        assert!(
            std::env::var_os("PULSE_TEST_FULL").is_none(),
            "{name} is not installed, and PULSE_TEST_FULL allows no skip"
        );
        say(&format!("SKIPPED: {name} is not installed"));
    }
    found
}

/// Says something past the capture of the test harness.
pub(crate) fn say(text: &str) {
    use std::io::Write as _;
    let thread = std::thread::current();
    let line = format!("{}: {text}\n", thread.name().unwrap_or("test"));
    drop(std::io::stderr().write_all(line.as_bytes()));
}

/// A loopback port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Asks until `probe` gives something; fails with `what` after [`PATIENCE`].
pub(crate) async fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A broker that can be killed and started again with the same files and port.
pub(crate) struct Broker {
    pub(crate) port: u16,
    pub(crate) dir: TempDir,
    program: PathBuf,
    args: Vec<String>,
    child: Option<Child>,
}

impl Broker {
    /// mosquitto without a limit on queued messages.
    pub(crate) fn mosquitto(extra: &str) -> Option<Broker> {
        Broker::mosquitto_in(tempfile::tempdir().unwrap(), extra)
    }

    /// The same, with files that `extra` names already in `dir`.
    pub(crate) fn mosquitto_in(dir: TempDir, extra: &str) -> Option<Broker> {
        let program = program("mosquitto")?;
        let port = free_port();
        let mut config = format!(
            "listener {port} 127.0.0.1\nmax_queued_messages 0\nset_tcp_nodelay true\n\
             persistence_location {}/\n{extra}\n",
            dir.path().display()
        );
        if !extra.contains("allow_anonymous") {
            config.push_str("allow_anonymous true\n");
        }
        let file = dir.path().join("mosquitto.conf");
        fs::write(&file, config).unwrap();
        let args = vec!["-c".to_owned(), file.display().to_string()];
        Some(Broker::run(port, dir, program, args))
    }

    /// nats-server with JetStream on files.
    pub(crate) fn nats(extra: &str) -> Option<Broker> {
        Broker::nats_in(tempfile::tempdir().unwrap(), extra)
    }

    /// The same, with files that `extra` names already in `dir`.
    pub(crate) fn nats_in(dir: TempDir, extra: &str) -> Option<Broker> {
        let program = program("nats-server")?;
        let port = free_port();
        let config = format!(
            "listen: 127.0.0.1:{port}\njetstream {{ store_dir: {:?} }}\n{extra}\n",
            dir.path().join("js")
        );
        let file = dir.path().join("nats.conf");
        fs::write(&file, config).unwrap();
        let args = vec!["-c".to_owned(), file.display().to_string()];
        Some(Broker::run(port, dir, program, args))
    }

    fn run(port: u16, dir: TempDir, program: PathBuf, args: Vec<String>) -> Broker {
        let mut broker = Broker {
            port,
            dir,
            program,
            args,
            child: None,
        };
        broker.start();
        broker
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let child = Command::new(&self.program)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(
                start.elapsed() < PATIENCE,
                "nothing listens on {}",
                self.port
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// SIGTERM, and waits until it has saved what it saves.
    pub(crate) fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            drop(child.wait());
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A CA of our own and a server certificate for `name`, as files in `dir`.
/// `None` after saying that the test is skipped.
pub(crate) fn certificates(dir: &Path, name: &str) -> Option<()> {
    let openssl = program("openssl")?;
    let run = |args: &[&str]| {
        let output = Command::new(&openssl)
            .args(args)
            .current_dir(dir)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let ca = ["req", "-x509", "-days", "2", "-subj", "/CN=pulse test CA"];
    run(&[&ca[..], &key, &["-keyout", "ca.key", "-out", "ca.pem"]].concat());
    let server = [
        "req",
        "-subj",
        "/CN=broker",
        "-keyout",
        "server.key",
        "-out",
        "server.csr",
    ];
    run(&[&server[..], &key].concat());
    let extensions = format!("subjectAltName={name}\nbasicConstraints=CA:FALSE\n");
    fs::write(dir.join("server.ext"), extensions).unwrap();
    run(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-extfile",
        "server.ext",
        "-out",
        "server.pem",
    ]);
    Some(())
}

/// Sources, a real store, and a stand-in for ingest that the test plays.
pub(crate) struct Bed {
    pub(crate) store: Store,
    pub(crate) metrics: Arc<Metrics>,
    board: Board,
    _dir: TempDir,
}

/// Running sources and what they handed over.
pub(crate) struct Run {
    pub(crate) sources: Sources,
    pub(crate) hands: mpsc::Receiver<Hand>,
    store: Store,
    board: Board,
    tasks: Tasks,
    stop: CancellationToken,
}

impl Bed {
    pub(crate) fn new() -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Metrics::new();
        let options = store::Options {
            dir: dir.path().to_owned(),
            store: pulse::config::Store::default(),
            limits: pulse::config::Limits::default(),
            tenants: Vec::new(),
        };
        let store = Store::open(options, Clock::System, Arc::clone(&metrics)).unwrap();
        Bed {
            store,
            metrics,
            board: Board::default(),
            _dir: dir,
        }
    }

    /// Starts the sources of a configuration.
    pub(crate) fn run(&self, config: &str) -> Run {
        let config = Config::parse(config, "test.toml").unwrap();
        let (queue, hands) = mpsc::channel(16);
        let context = Context {
            ingest: Ingest::with_queue(queue),
            store: self.store.clone(),
            board: self.board.clone(),
            metrics: Arc::clone(&self.metrics),
            clock: Clock::System,
            tasks: Tasks::new(self.metrics.task_restarts.clone()),
            stop: CancellationToken::new(),
        };
        Run {
            tasks: context.tasks.clone(),
            stop: context.stop.clone(),
            sources: Sources::start(&config, context).unwrap(),
            hands,
            store: self.store.clone(),
            board: self.board.clone(),
        }
    }

    /// What the board says of all sources.
    pub(crate) fn views(&self) -> Vec<SourceView> {
        self.board.list()
    }

    /// The value of an instrument of a source.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.metrics.gather();
        let metrics = families
            .iter()
            .filter(|family| family.name() == name)
            .flat_map(|family| family.get_metric());
        let is_wanted = |metric: &&prometheus::proto::Metric| {
            labels.iter().all(|(name, value)| {
                let mut own = metric.get_label().iter();
                own.any(|label| label.name() == *name && label.value() == *value)
            })
        };
        metrics
            .filter(is_wanted)
            .map(|m| m.get_counter().get_value() + m.get_gauge().get_value())
            .sum()
    }
}

impl Run {
    /// What the board says of the only source.
    pub(crate) fn view(&self) -> SourceView {
        self.board.list().pop().unwrap()
    }

    /// Waits until the only source is up.
    pub(crate) async fn up(&self) {
        let connected = || (self.view().state == SourceState::Up).then_some(());
        eventually("source is up", connected).await;
    }

    /// Waits until the only source is down for a reason with these words.
    pub(crate) async fn down(&self, words: &str) -> String {
        let reason = || match self.view().state {
            SourceState::Down(reason) if reason.contains(words) => Some(reason),
            _ => None,
        };
        eventually(&format!("source is down: {words}"), reason).await
    }

    /// The next hand.
    pub(crate) async fn hand(&mut self) -> Hand {
        let hand = tokio::time::timeout(PATIENCE, self.hands.recv()).await;
        hand.expect("a hand in time").expect("sources run")
    }

    /// Answers hands until `count` messages were handed over, and gives them.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        while messages.len() < count {
            let hand = self.hand().await;
            let verdicts = vec![Verdict::Committed; hand.messages.len()];
            messages.extend(hand.messages);
            drop(hand.reply.send(verdicts));
        }
        messages
    }

    /// Takes `count` messages without answering: that goes on as long as the hands are held.
    pub(crate) async fn hold(&mut self, count: usize) -> (Vec<Hand>, Vec<Message>) {
        let (mut hands, mut messages) = (Vec::new(), Vec::new());
        while messages.len() < count {
            let hand = self.hand().await;
            messages.extend(hand.messages.iter().cloned());
            hands.push(hand);
        }
        (hands, messages)
    }

    /// Writes the rows of messages as ingest does when their stamps are used.
    pub(crate) async fn commit(&self, messages: &[Message]) {
        let rows = messages.iter().flat_map(|message| message.state.clone());
        let batch = WriteBatch::of_state(rows.collect());
        self.store.write(batch).await.unwrap();
    }

    /// Stops as a shutdown does.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        let answering = async {
            while let Some(hand) = self.hands.recv().await {
                let verdicts = vec![Verdict::Committed; hand.messages.len()];
                drop(hand.reply.send(verdicts));
            }
        };
        tokio::select! {
            () = self.tasks.join() => {}
            () = answering => self.tasks.join().await,
        }
    }

    /// Stops as if ingest had gone: nothing is answered any more.
    pub(crate) async fn abandon(self) {
        drop(self.hands);
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.tasks.join())
            .await
            .expect("sources end when ingest has ended");
    }
}

/// The payloads as text.
pub(crate) fn payloads(messages: &[Message]) -> Vec<String> {
    let text = |m: &Message| String::from_utf8_lossy(&m.payload).into_owned();
    messages.iter().map(text).collect()
}

/// A TCP proxy that can swallow everything, as a dead network does.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    dead: Arc<AtomicBool>,
    tasks: Tasks,
    stop: CancellationToken,
}

impl Proxy {
    /// Passes connections to `target` on.
    pub(crate) async fn start(target: u16, bed: &Bed) -> Proxy {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy {
            port: listener.local_addr().unwrap().port(),
            dead: Arc::default(),
            tasks: Tasks::new(bed.metrics.task_restarts.clone()),
            stop: CancellationToken::new(),
        };
        let (dead, tasks, stop) = (
            Arc::clone(&proxy.dead),
            proxy.tasks.clone(),
            proxy.stop.clone(),
        );
        proxy.tasks.spawn_once(async move {
            while let Some(Ok((inside, _))) = stop.run_until_cancelled(listener.accept()).await {
                let outside = tokio::net::TcpStream::connect(("127.0.0.1", target)).await;
                let Ok(outside) = outside else { continue };
                let ((ir, iw), (or, ow)) = (inside.into_split(), outside.into_split());
                tasks.spawn_once(pump(ir, ow, Arc::clone(&dead), stop.clone()));
                tasks.spawn_once(pump(or, iw, Arc::clone(&dead), stop.clone()));
            }
        });
        proxy
    }

    /// From now on nothing gets through; or everything again.
    pub(crate) fn set_dead(&self, dead: bool) {
        self.dead.store(dead, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    dead: Arc<AtomicBool>,
    stop: CancellationToken,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Some(Ok(n)) = stop.run_until_cancelled(from.read(&mut buffer)).await {
        if n == 0 {
            return;
        }
        if !dead.load(Ordering::SeqCst) && to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}
