//! `pulse run`: start, serve, stop on a signal.

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{EXIT_USAGE, RunArgs, complain};
use crate::app::App;
use crate::config::Config;
use crate::model::{Clock, clock};
use crate::telemetry::logging;

/// Signals that come this soon after the first are its repeats.
const REPEAT: Duration = Duration::from_secs(1);

/// Runs until a signal or until a part without which nothing works has ended.
pub(super) fn run(args: &RunArgs) -> ExitCode {
    let config = match prepare(args) {
        Ok(config) => config,
        Err(error) => {
            complain(&error);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match serve(config, args.clone()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Everything that can be wrong before anything has started.
fn prepare(args: &RunArgs) -> anyhow::Result<Config> {
    let config = args.load()?;
    let report = crate::app::check(&config)?;
    logging::init(&config.server.log_level, config.server.log_format)?;
    report.log();
    Ok(config)
}

fn serve(config: Config, args: RunArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let load = Box::new(move || args.load());
        let clock = Clock::System.guarded(clock::build_date(), config.global.trust_clock);
        let app = tokio::select! {
            started = App::start(config, load, clock) => started?,
            () = signals.stop() => return Ok(()),
        };
        let ended = until_stop(&app, &mut signals).await;
        tokio::select! {
            () = app.stop() => ended,
            () = second_signal() => anyhow::bail!("stopped at once by a second signal"),
        }
    })
}

/// Reloads on each hang-up until it is time to stop.
async fn until_stop(app: &App, signals: &mut Signals) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            wish = signals.next() => match wish {
                Wish::Stop => return Ok(()),
                Wish::Reload => app.reload().await,
            },
            () = app.failed() => anyhow::bail!("a part without which nothing works has ended"),
        }
    }
}

/// Waits for somebody who has lost patience. A repeat within a second is none:
/// process groups and supervisors signal twice.
async fn second_signal() {
    tokio::time::sleep(REPEAT).await;
    match Signals::new() {
        Ok(mut signals) => signals.stop().await,
        Err(_) => std::future::pending().await,
    }
}

/// What a signal asks for.
enum Wish {
    Stop,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }

    /// Waits for a stop; a hang-up before that is forgotten.
    async fn stop(&mut self) {
        while let Wish::Reload = self.next().await {}
    }
}
