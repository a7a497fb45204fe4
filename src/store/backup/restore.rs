//! The way back: a backup, with those before it, into an empty directory.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Component, Path, PathBuf};

use redb::Database;

use super::archive::{ArchiveError, Base, Block, Contents, Head, Listed, Reader, io_error};
use super::hot;
use crate::store::disk::{RESTORE_MARK, sync_dir};
use crate::store::tables::{self, HOT_FILE, Meta};

/// How many backups may build on each other.
const CHAIN_MAX: usize = 1_000;

/// What came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// Everything up to this transaction.
    pub commit_seq: u64,
    /// How many files.
    pub files: usize,
}

/// A backup that was read whole, and those that it builds on, the last one first.
struct Chain {
    links: Vec<(PathBuf, Head)>,
    contents: Contents,
    /// Which link has each file.
    places: HashMap<String, usize>,
}

/// What a backup says that it holds. Looks at its last block only.
///
/// # Errors
/// When it is none, or is damaged there.
pub fn contents(path: &Path) -> Result<(Head, Contents), ArchiveError> {
    let head = first(&mut Reader::open(path)?)?;
    Ok((head, Reader::contents(path)?))
}

/// Reads a backup, and those that it builds on, from beginning to end and checks
/// every block. `base` stands for the place of the one before; without it that one
/// is looked for in the same folder. Memory is that of one block.
///
/// # Errors
/// With the first thing that is wrong, and where.
pub fn check(path: &Path, base: Option<&Path>) -> Result<Restored, ArchiveError> {
    let chain = chain(path, base)?;
    Ok(Restored {
        commit_seq: chain.contents.commit_seq,
        files: chain.contents.files.len(),
    })
}

/// Puts a backup into `dir`, which must be empty, not exist, or hold what a restore left
/// that was cut short. The whole backup is checked first; `dir` becomes a data directory
/// with the last step. Until then a mark in it keeps everybody else out.
///
/// # Errors
/// When something in the backup is wrong, `dir` is not empty, or cannot be written.
pub fn restore(path: &Path, base: Option<&Path>, dir: &Path) -> Result<Restored, ArchiveError> {
    let left = left_of_a_restore(dir)?;
    let chain = chain(path, base)?;
    fs::create_dir_all(dir).map_err(|err| io_error("create", dir, err))?;
    let mark = dir.join(RESTORE_MARK);
    fs::File::create(&mark)
        .and_then(|file| file.sync_all())
        .and_then(|()| sync_dir(dir))
        .map_err(|err| io_error("create", &mark, err))?;
    for path in left {
        fs::remove_file(&path).map_err(|err| io_error("remove", &path, err))?;
    }
    let mut links: Vec<usize> = (0..chain.links.len()).collect();
    links.reverse();
    for link in links {
        unpack(&chain, link, dir)?;
    }
    let (new, hot) = (dir.join(NEW_HOT), dir.join(HOT_FILE));
    fs::rename(&new, &hot)
        .and_then(|()| sync_dir(dir))
        .map_err(|err| io_error("rename", &new, err))?;
    fs::remove_file(&mark)
        .and_then(|()| sync_dir(dir))
        .map_err(|err| io_error("remove", &mark, err))?;
    Ok(Restored {
        commit_seq: chain.contents.commit_seq,
        files: chain.contents.files.len(),
    })
}

/// The name of the file until everything else is there.
const NEW_HOT: &str = "hot.redb.new";

/// The files that a restore left that was cut short; none where nothing is.
fn left_of_a_restore(dir: &Path) -> Result<Vec<PathBuf>, ArchiveError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(io_error("read", dir, err)),
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(|err| io_error("read", dir, err))?;
    let mark = dir.join(RESTORE_MARK);
    let is_ours = paths.contains(&mark) && paths.iter().all(|path| path.is_file());
    if !paths.is_empty() && !is_ours {
        let why = "it is not empty: name a new directory, or empty this one";
        let why = io::Error::new(io::ErrorKind::DirectoryNotEmpty, why);
        return Err(io_error("restore into", dir, why));
    }
    paths.retain(|path| *path != mark);
    Ok(paths)
}

fn first(reader: &mut Reader) -> Result<Head, ArchiveError> {
    match reader.next()? {
        Block::Head(head) => Ok(head),
        _ => Err(reader.damaged(15, "the first block is no head")),
    }
}

/// Reads and checks everything.
fn chain(path: &Path, base: Option<&Path>) -> Result<Chain, ArchiveError> {
    let mut links = Vec::new();
    let mut places = HashMap::new();
    let (head, contents) = walk(path, &mut |_, _| Ok(()))?;
    let wanted: HashMap<&str, &Listed> = contents
        .files
        .iter()
        .map(|file| (&*file.name, file))
        .collect();
    claim(&contents.files, &wanted, 0, &mut places);
    let mut before = head.base.clone();
    links.push((path.to_owned(), head));
    let mut given = base;
    while let Some(base) = before.filter(|_| places.len() < contents.files.len()) {
        let later = links[links.len() - 1].0.clone();
        let at = given.take().map_or_else(
            || later.with_file_name(Path::new(&base.name).file_name().unwrap_or_default()),
            Path::to_owned,
        );
        let (head, own) = open_base(&later, &at, &base, links.len())?;
        claim(&own.files, &wanted, links.len(), &mut places);
        before = head.base.clone();
        links.push((at, head));
    }
    if let Some(lost) = contents
        .files
        .iter()
        .find(|f| !places.contains_key(&f.name))
    {
        let base = links[0].1.base.as_ref().map_or("", |base| &base.name);
        return Err(ArchiveError::Base {
            path: path.to_owned(),
            base: PathBuf::from(base),
            why: format!("has no such {}", lost.name),
        });
    }
    Ok(Chain {
        links,
        contents,
        places,
    })
}

fn open_base(
    later: &Path,
    at: &Path,
    base: &Base,
    depth: usize,
) -> Result<(Head, Contents), ArchiveError> {
    let refused = |why: String| ArchiveError::Base {
        path: later.to_owned(),
        base: at.to_owned(),
        why,
    };
    if depth >= CHAIN_MAX {
        return Err(refused("is one too many".to_owned()));
    }
    if !at.exists() {
        return Err(refused("is missing".to_owned()));
    }
    let (head, contents) = walk(at, &mut |_, _| Ok(()))?;
    if head.id != base.id {
        return Err(refused("is another backup than that one".to_owned()));
    }
    Ok((head, contents))
}

/// Notes which of the wanted files a link has itself.
fn claim(
    own: &[Listed],
    wanted: &HashMap<&str, &Listed>,
    link: usize,
    places: &mut HashMap<String, usize>,
) {
    for file in own.iter().filter(|file| file.here) {
        let is_it = wanted
            .get(&*file.name)
            .is_some_and(|wanted| wanted.identity == file.identity && wanted.hash == file.hash);
        if is_it {
            places.entry(file.name.clone()).or_insert(link);
        }
    }
}

type OnBlock<'a> = &'a mut dyn FnMut(&super::archive::File, &Block) -> Result<(), ArchiveError>;

/// Reads a backup to its end; `on_block` gets what lies within files.
fn walk(path: &Path, on_block: OnBlock<'_>) -> Result<(Head, Contents), ArchiveError> {
    let mut reader = Reader::open(path)?;
    let head = first(&mut reader)?;
    let mut file = None;
    let mut hashes = HashMap::new();
    loop {
        let at = reader.position();
        let block = reader.next()?;
        match (&block, &file) {
            (Block::File(next), None) => {
                if !is_plain_name(&next.name) {
                    return Err(reader.damaged(at, "a file with a path"));
                }
                on_block(next, &block)?;
                file = Some(next.clone());
            }
            (Block::Bytes(_) | Block::Hole(_) | Block::Rows(..), Some(file)) => {
                on_block(file, &block)?;
            }
            (Block::FileEnd(hash), Some(ended)) => {
                on_block(ended, &block)?;
                hashes.insert(ended.name.clone(), *hash);
                file = None;
            }
            (Block::End(contents), None) => {
                let mut here = contents.files.iter().filter(|file| file.here);
                if here.all(|file| hashes.get(&file.name) == Some(&file.hash)) {
                    return Ok((head, contents.clone()));
                }
                return Err(reader.damaged(at, "a listed file is not in it"));
            }
            _ => return Err(reader.damaged(at, "a block out of place")),
        }
    }
}

/// Whether a name stays within its directory.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none()
}

/// Writes the files that one link has.
fn unpack(chain: &Chain, link: usize, dir: &Path) -> Result<(), ArchiveError> {
    let mut target = None;
    walk(&chain.links[link].0, &mut |file, block| {
        if chain.places.get(&file.name) != Some(&link) {
            return Ok(());
        }
        if let Block::File(_) = block {
            target = Some(Target::new(dir, &file.name)?);
        }
        let open = target.as_mut().expect("a file begins with its head");
        open.take(block)?;
        if let Block::FileEnd(_) = block {
            target.take().map_or(Ok(()), Target::finish)?;
        }
        Ok(())
    })?;
    Ok(())
}

/// A file that is being written.
enum Target {
    Plain {
        path: PathBuf,
        file: fs::File,
        len: u64,
    },
    Hot {
        path: PathBuf,
        db: Box<Database>,
    },
}

impl Target {
    fn new(dir: &Path, name: &str) -> Result<Target, ArchiveError> {
        if name == HOT_FILE {
            let path = dir.join(NEW_HOT);
            let make = || -> Result<Database, redb::Error> {
                let db = Database::builder()
                    .set_cache_size(hot::CACHE_BYTES)
                    .create(&path)?;
                tables::make_tables(&db, Meta::default())?;
                Ok(db)
            };
            let db = Box::new(make().map_err(|err| redb_error(&path, err))?);
            return Ok(Target::Hot { path, db });
        }
        let path = dir.join(name);
        let file = fs::File::create(&path).map_err(|err| io_error("create", &path, err))?;
        let len = 0;
        Ok(Target::Plain { path, file, len })
    }

    fn take(&mut self, block: &Block) -> Result<(), ArchiveError> {
        match (self, block) {
            (Target::Plain { path, file, len }, Block::Bytes(bytes)) => {
                *len += bytes.len() as u64;
                file.write_all(bytes)
                    .map_err(|err| io_error("write", path, err))
            }
            (Target::Plain { path, file, len }, Block::Hole(hole)) => {
                *len += hole;
                file.seek(SeekFrom::Start(*len))
                    .map(drop)
                    .map_err(|err| io_error("write", path, err))
            }
            (Target::Hot { path, db }, Block::Rows(table, rows)) => {
                let put = hot::insert(db, table, rows).map_err(|err| redb_error(path, err))?;
                put.ok_or_else(|| ArchiveError::Newer {
                    path: path.clone(),
                    found: format!("table {table}"),
                })
            }
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<(), ArchiveError> {
        match self {
            Target::Plain { path, file, len } => file
                .set_len(len)
                .and_then(|()| file.sync_all())
                .map_err(|err| io_error("write", &path, err)),
            Target::Hot { mut db, path } => {
                db.compact()
                    .map_err(|err| redb_error(&path, redb::Error::from(err)))?;
                drop(db);
                fs::File::open(&path)
                    .and_then(|file| file.sync_all())
                    .map_err(|err| io_error("sync", &path, err))
            }
        }
    }
}

fn redb_error(path: &Path, err: redb::Error) -> ArchiveError {
    io_error("write", path, io::Error::other(err))
}
