//! Own CPU time of a QoS 1 message from a real mosquitto to its acknowledgement.
//!
//! `cargo bench --profile quick --bench mqtt [-- MESSAGES]` prints, as medians of
//! 5 rounds, messages per second and per second of our own CPU:
//! `source` is our MQTT source with a stand-in for ingest that answers at once,
//! `rumqttc` is rumqttc's own event loop with manual acknowledgements.
//! The publisher is a child process, so that its time does not count.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pulse::config::Config;
use pulse::ingest::{Ingest, Verdict};
use pulse::model::Clock;
use pulse::sources::{Board, Context, SourceState, Sources};
use pulse::store::{self, Store};
use pulse::tasks::Tasks;
use pulse::telemetry::Metrics;
use rumqttc::v5;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 5;
const MESSAGES: usize = 200_000;
const TOPIC: &str = "tenants/acme/devices/d1/telemetry";
const PAYLOAD: &str = r#"{"ts":1700000000000,"temperature":21.5,"humidity":40.25}"#;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    if let Some(at) = arguments.iter().position(|a| a == "publish") {
        let port = arguments[at + 1].parse()?;
        let count = arguments[at + 2].parse()?;
        return runtime.block_on(publish(port, count));
    }
    let count = arguments.iter().find_map(|a| a.parse().ok());
    let count = count.unwrap_or(MESSAGES);
    runtime.block_on(async {
        measure("source", count, source).await?;
        measure("rumqttc", count, event_loop).await
    })
}

/// Runs the rounds of one kind of client.
async fn measure<F: Future<Output = anyhow::Result<()>>>(
    name: &str,
    count: usize,
    client: impl Fn(u16, usize) -> F,
) -> anyhow::Result<()> {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let broker = Mosquitto::start()?;
        let (since, cpu) = (Instant::now(), own_cpu()?);
        client(broker.port, count).await?;
        let (wall, cpu) = (since.elapsed().as_secs_f64(), own_cpu()? - cpu);
        rounds.push((count as f64 / wall, count as f64 / cpu));
    }
    rounds.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (wall, cpu) = rounds[ROUNDS / 2];
    writeln!(
        std::io::stdout(),
        "{name:8} {wall:8.0} messages/s, {cpu:8.0} messages per second of own CPU ({:.2} us each)",
        1e6 / cpu
    )?;
    Ok(())
}

/// Our source; what it hands over is answered at once.
async fn source(port: u16, count: usize) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let metrics = Metrics::new();
    let options = store::Options {
        dir: dir.path().to_owned(),
        store: pulse::config::Store::default(),
        limits: pulse::config::Limits::default(),
        tenants: Vec::new(),
    };
    let store = Store::open(options, Clock::System, Arc::clone(&metrics))?;
    let config = format!("[[source.mqtt]]\nname = \"t\"\nurl = \"mqtt://127.0.0.1:{port}\"\n");
    let (queue, mut hands) = mpsc::channel(4);
    let context = Context {
        ingest: Ingest::with_queue(queue),
        store: store.clone(),
        board: Board::default(),
        metrics: Arc::clone(&metrics),
        clock: Clock::System,
        tasks: Tasks::new(metrics.task_restarts.clone()),
        stop: CancellationToken::new(),
    };
    let (tasks, stop, board) = (
        context.tasks.clone(),
        context.stop.clone(),
        context.board.clone(),
    );
    let _sources = Sources::start(&Config::parse(&config, "bench")?, context)?;
    let is_up = || {
        board
            .list()
            .iter()
            .any(|source| source.state == SourceState::Up)
    };
    while !is_up() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let publisher = publisher(port, count)?;
    let (mut taken, mut hands_taken) = (0, 0);
    while taken < count {
        let hand = hands.recv().await.context("the source has ended")?;
        taken += hand.messages.len();
        hands_taken += 1;
        drop(
            hand.reply
                .send(vec![Verdict::Committed; hand.messages.len()]),
        );
    }
    writeln!(
        std::io::stdout(),
        "# {} messages in a hand",
        taken / hands_taken
    )?;
    stop.cancel();
    tasks.join().await;
    store.close().await;
    ended(publisher)
}

/// rumqttc's event loop: the acknowledgement follows each message.
async fn event_loop(port: u16, count: usize) -> anyhow::Result<()> {
    let mut options = v5::MqttOptions::new("bench", "127.0.0.1", port);
    options.set_manual_acks(true);
    options.set_receive_maximum(Some(5_000));
    options.set_outgoing_inflight_upper_limit(100);
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    let (client, mut events) = v5::AsyncClient::new(options, 70_000);
    client.try_subscribe(
        "tenants/+/devices/+/telemetry",
        v5::mqttbytes::QoS::AtLeastOnce,
    )?;
    let (mut publisher_child, mut taken, mut acked) = (None, 0, 0);
    while acked < count {
        match events.poll().await? {
            v5::Event::Incoming(v5::Incoming::SubAck(_)) => {
                publisher_child = Some(publisher(port, count)?);
            }
            v5::Event::Incoming(v5::Incoming::Publish(message)) => {
                taken += 1;
                client.try_ack(&message)?;
            }
            v5::Event::Outgoing(rumqttc::Outgoing::PubAck(_)) => acked += 1,
            _ => {}
        }
    }
    anyhow::ensure!(taken == count, "{taken} of {count}");
    ended(publisher_child.context("no publisher")?)
}

/// Publishes with QoS 1, 1,000 in flight.
async fn publish(port: u16, count: usize) -> anyhow::Result<()> {
    let mut options = MqttOptions::new("publisher", "127.0.0.1", port);
    options.set_inflight(1_000);
    let (client, mut events) = AsyncClient::new(options, 2_000);
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    let sending = async {
        for _ in 0..count {
            client
                .publish(TOPIC, QoS::AtLeastOnce, false, PAYLOAD)
                .await?;
        }
        anyhow::Ok(())
    };
    let acks = async {
        let mut acked = 0;
        while acked < count {
            if let Event::Incoming(Packet::PubAck(_)) = events.poll().await? {
                acked += 1;
            }
        }
        anyhow::Ok(())
    };
    tokio::try_join!(sending, acks).map(drop)
}

fn publisher(port: u16, count: usize) -> anyhow::Result<Child> {
    let own = std::env::current_exe()?;
    let arguments = ["publish".to_owned(), port.to_string(), count.to_string()];
    Ok(Command::new(own).args(arguments).spawn()?)
}

fn ended(mut publisher: Child) -> anyhow::Result<()> {
    anyhow::ensure!(publisher.wait()?.success(), "the publisher failed");
    Ok(())
}

/// User and system time of this process in seconds.
fn own_cpu() -> anyhow::Result<f64> {
    let stat = procfs::process::Process::myself()?.stat()?;
    let ticks = stat.utime + stat.stime;
    Ok(ticks as f64 / procfs::ticks_per_second() as f64)
}

/// mosquitto on a free port, killed when dropped.
struct Mosquitto {
    port: u16,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Mosquitto {
    fn start() -> anyhow::Result<Mosquitto> {
        let dir = tempfile::tempdir()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n\
             max_inflight_messages 0\nset_tcp_nodelay true\n"
        );
        let file = dir.path().join("mosquitto.conf");
        std::fs::write(&file, config)?;
        let program = ["/usr/sbin/mosquitto", "mosquitto"].map(PathBuf::from);
        let program = program.into_iter().find(|p| p.is_file());
        let child = Command::new(program.context("mosquitto is not installed")?)
            .arg("-c")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Mosquitto {
            port,
            child,
            _dir: dir,
        })
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
