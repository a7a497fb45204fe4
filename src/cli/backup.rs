//! `pulse backup`, `pulse restore` and `pulse verify`.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::{ended, local};
use crate::config::Config;
use crate::model::Clock;
use crate::store::Error;
use crate::store::backup::{self, Base, Plan};
use crate::store::verify::{self, Checked};

/// Which data directory.
#[derive(Args)]
pub(super) struct DirArgs {
    /// The configuration file that names the data directory.
    #[arg(long, env = "PULSE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory [default: ./data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl DirArgs {
    pub(super) fn dir(&self) -> anyhow::Result<PathBuf> {
        let config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::default(),
        };
        let dir = self.data_dir.clone().unwrap_or(config.server.data_dir);
        ensure!(dir.is_dir(), "there is no data directory {}", dir.display());
        Ok(dir)
    }
}

/// Arguments of `pulse backup`.
#[derive(Args)]
pub(super) struct BackupArgs {
    /// The file to write; it must not be there yet.
    file: PathBuf,
    /// A former backup: what that one has is left out. A restore needs both then.
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    #[command(flatten)]
    dir: DirArgs,
}

/// Arguments of `pulse restore`.
#[derive(Args)]
pub(super) struct RestoreArgs {
    /// The backup.
    file: PathBuf,
    /// Where to; the directory must be empty or not exist. A restore that was cut short
    /// is repeated in its place.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The backup that it builds on, when that one is elsewhere or has another name.
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
}

/// Arguments of `pulse verify`.
#[derive(Args)]
pub(super) struct VerifyArgs {
    /// A backup, or a data directory: the same as --data-dir.
    #[arg(value_name = "FILE|DIR", conflicts_with_all = ["config", "data_dir"])]
    what: Option<PathBuf>,
    #[command(flatten)]
    dir: DirArgs,
}

/// Writes a backup, through the process that has the directory when there is one.
pub(super) fn backup(args: &BackupArgs) -> ExitCode {
    ended(write(args))
}

fn write(args: &BackupArgs) -> anyhow::Result<String> {
    let dir = args.dir.dir()?;
    ensure!(
        !args.file.exists(),
        "{} is there already",
        args.file.display()
    );
    refuse_inside(&args.file, &dir)?;
    let plan = match &args.base {
        Some(base) => plan(base)?,
        None => Plan::default(),
    };
    let name = args
        .file
        .file_name()
        .context("expected the name of a file")?;
    let mut part = name.to_owned();
    part.push(".part");
    let part = args.file.with_file_name(part);
    let written = write_part(&dir, &plan, &part).and_then(|()| {
        let base = args.base.as_deref();
        Ok(backup::check(&part, base)?)
    });
    let held = match written {
        Ok(held) => held,
        Err(err) => {
            // It is of no use, and the error counts.
            drop(fs::remove_file(&part));
            return Err(err);
        }
    };
    fs::rename(&part, &args.file)
        .and_then(|()| sync_dir_of(&args.file))
        .with_context(|| format!("cannot rename {}", part.display()))?;
    let bytes = fs::metadata(&args.file)?.len();
    Ok(format!(
        "{}: {} files, {bytes} bytes, everything up to commit {}",
        args.file.display(),
        held.files,
        held.commit_seq
    ))
}

/// A backup in the directory that it is of would have to hold itself.
fn refuse_inside(file: &Path, dir: &Path) -> anyhow::Result<()> {
    let parent = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let cannot = || format!("cannot write {}", file.display());
    let parent = parent.canonicalize().with_context(cannot)?;
    ensure!(
        !parent.starts_with(dir.canonicalize()?),
        "{} is inside the data directory {}, expected a place outside of it",
        file.display(),
        dir.display()
    );
    Ok(())
}

/// What a former backup has.
fn plan(base: &Path) -> anyhow::Result<Plan> {
    let (head, contents) = backup::contents(base)?;
    let name = base.file_name().context("expected the name of a file")?;
    Ok(Plan {
        base: Some(Base {
            id: head.id,
            name: name.to_string_lossy().into_owned(),
        }),
        files: contents.files,
    })
}

fn write_part(dir: &Path, plan: &Plan, part: &Path) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", part.display());
    let file = fs::File::create(part).with_context(cannot)?;
    let mut out = io::BufWriter::with_capacity(1 << 20, file);
    match backup::write_offline(dir, plan, Clock::System.now(), &mut out) {
        Ok(_) => {}
        Err(Error::Locked { .. }) => {
            let plan = serde_json::to_vec(plan).expect("plain data is JSON");
            local::backup(dir, plan, &mut out)?;
        }
        Err(err) => return Err(err.into()),
    }
    out.flush().with_context(cannot)?;
    out.get_ref().sync_all().with_context(cannot)
}

fn sync_dir_of(file: &Path) -> io::Result<()> {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    fs::File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

/// Puts a backup into an empty directory and checks what is there then.
pub(super) fn restore(args: &RestoreArgs) -> ExitCode {
    let restored = || {
        let done = backup::restore(&args.file, args.base.as_deref(), &args.data_dir)?;
        let checked = verify::verify_offline(&args.data_dir)?;
        if checked.fault_count > 0 {
            bail!("{}", report(&checked));
        }
        Ok(format!(
            "{}: {} files, everything up to commit {}",
            args.data_dir.display(),
            done.files,
            done.commit_seq
        ))
    };
    ended(restored())
}

/// Walks every checksum.
pub(super) fn verify(args: &VerifyArgs) -> ExitCode {
    match &args.what {
        Some(dir) if dir.is_dir() => ended(verify_dir(dir)),
        Some(file) => ended(backup::check(file, None).map_err(Into::into).map(|held| {
            format!(
                "{}: {} files, everything up to commit {}, no fault",
                file.display(),
                held.files,
                held.commit_seq
            )
        })),
        None => ended(args.dir.dir().and_then(|dir| verify_dir(&dir))),
    }
}

fn verify_dir(dir: &Path) -> anyhow::Result<String> {
    let checked = match verify::verify_offline(dir) {
        Err(Error::Locked { .. }) => {
            serde_json::from_slice(&local::verify(dir)?).context("not a report")?
        }
        other => other?,
    };
    if checked.fault_count > 0 {
        bail!("{}", report(&checked));
    }
    Ok(report(&checked))
}

fn report(checked: &Checked) -> String {
    let faults = checked.faults.iter().map(|fault| format!("{fault}\n"));
    format!(
        "{}{} files, {} rows, {} faults",
        faults.collect::<String>(),
        checked.files,
        checked.rows,
        checked.fault_count
    )
}
