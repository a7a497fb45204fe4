//! The backup file: checked blocks, one after the other.
//!
//! ```text
//! file    = "pulse backup 1\n" | block.. | trailer
//! block   = payload length u32 | kind u8 | payload | xxh3-64 of kind and payload
//! trailer = offset of the last block u64 | "pulsend\n"
//! ```
//!
//! All numbers are little endian. A checksum is seeded with the number of its
//! block, so that a block that is missing, repeated or moved is as wrong as a
//! wrong bit. The last block says what must have come before it: a file without
//! it is cut short and is of no use.
//!
//! | kind | payload |
//! |---|---|
//! | 1 head | [`Head`] as JSON |
//! | 2 file | [`File`] as JSON; what follows belongs to it |
//! | 3 bytes | the next bytes of the file |
//! | 4 hole | how many zero bytes come next, u64 |
//! | 5 rows | name of a table, then rows: each text and value behind its length u32 |
//! | 6 end of file | xxh3-64 over the payloads of its blocks, u64 |
//! | 7 failure | why the writer gave up, as text |
//! | 8 end | [`Contents`] as JSON |

use std::io::{self, BufRead as _, Read, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

/// What every backup of this version starts with.
const MAGIC: &[u8; 15] = b"pulse backup 1\n";
/// What backups of all versions start with.
const MAGIC_ANY: &[u8] = b"pulse backup ";
const TRAILER: &[u8; 8] = b"pulsend\n";

/// A block's payload is at most this long.
const PAYLOAD_MAX: usize = 17 << 20;

/// Bytes are read and written in pieces of this length.
pub(super) const PIECE: usize = 1 << 20;

const KIND_HEAD: u8 = 1;
const KIND_FILE: u8 = 2;
const KIND_BYTES: u8 = 3;
const KIND_HOLE: u8 = 4;
const KIND_ROWS: u8 = 5;
const KIND_FILE_END: u8 = 6;
const KIND_FAILURE: u8 = 7;
const KIND_END: u8 = 8;

/// Why a backup cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Not made by us.
    #[error("{path} is no backup of pulse")]
    Foreign {
        /// The backup.
        path: PathBuf,
    },
    /// Made by a later version.
    #[error("backup {path} is of form {found:?}, this version reads 1: written by a newer pulse")]
    Newer {
        /// The backup.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// It ends too early.
    #[error("backup {path} is cut short at byte {at}")]
    Short {
        /// The backup.
        path: PathBuf,
        /// Where the piece begins that is not whole.
        at: u64,
    },
    /// A block is not as it was written.
    #[error("backup {path} is damaged at byte {at}: {what}")]
    Damaged {
        /// The backup.
        path: PathBuf,
        /// Where the block begins.
        at: u64,
        /// What is wrong with it.
        what: String,
    },
    /// Whoever wrote it gave up.
    #[error("backup {path} was given up by its writer: {why}")]
    GivenUp {
        /// The backup.
        path: PathBuf,
        /// The writer's words.
        why: String,
    },
    /// It needs another backup that is not there.
    #[error("backup {path} holds only what changed since {base}, which {why}")]
    Base {
        /// The backup.
        path: PathBuf,
        /// The one before it.
        base: PathBuf,
        /// What is wrong with that one.
        why: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The first block.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    /// Tells backups apart.
    pub id: String,
    /// When it was begun, RFC 3339.
    pub created_at: String,
    /// The backup that holds what this one leaves out.
    pub base: Option<Base>,
}

/// The backup before an incremental one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Base {
    /// Its [`Head::id`].
    pub id: String,
    /// Its file name; it is looked for beside the later one.
    pub name: String,
}

/// What begins a file of the data directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct File {
    /// Its name in the data directory.
    pub name: String,
    /// What is in it, in short: files with one name and one identity hold the same.
    pub identity: u64,
}

/// One file of the data directory as the last block lists it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// See [`File::identity`].
    pub identity: u64,
    /// The hash of its blocks.
    pub hash: u64,
    /// Whether the blocks are in this backup, or in one before it.
    pub here: bool,
}

/// The last block.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Contents {
    /// Everything up to this transaction is in the backup.
    pub commit_seq: u64,
    /// All files of the data directory.
    pub files: Vec<Listed>,
}

/// Writes a backup.
pub(super) struct Writer<W> {
    out: W,
    at: u64,
    block: u64,
    file: Xxh3,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(mut out: W, head: &Head) -> io::Result<Writer<W>> {
        out.write_all(MAGIC)?;
        let mut writer = Writer {
            out,
            at: MAGIC.len() as u64,
            block: 0,
            file: Xxh3::new(),
        };
        writer.json(KIND_HEAD, head)?;
        Ok(writer)
    }

    pub(super) fn begin_file(&mut self, file: &File) -> io::Result<()> {
        self.file.reset();
        self.json(KIND_FILE, file)
    }

    /// Adds bytes to the file, at most [`PIECE`] of them.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.iter().all(|byte| *byte == 0) {
            let hole = (bytes.len() as u64).to_le_bytes();
            return self.part(KIND_HOLE, &hole);
        }
        self.part(KIND_BYTES, bytes)
    }

    /// Adds rows of one table, as [`Rows`] gathers them.
    pub(super) fn rows(&mut self, rows: &Rows) -> io::Result<()> {
        self.part(KIND_ROWS, &rows.0)
    }

    fn part(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        self.file.update(payload);
        self.block(kind, payload)
    }

    /// Ends the file; gives the hash of its blocks.
    pub(super) fn end_file(&mut self) -> io::Result<u64> {
        let hash = self.file.digest();
        self.block(KIND_FILE_END, &hash.to_le_bytes())?;
        Ok(hash)
    }

    /// Tells the reader why there is no more.
    pub(super) fn give_up(mut self, why: &str) -> io::Result<()> {
        self.block(KIND_FAILURE, why.as_bytes())?;
        self.out.flush()
    }

    /// Ends the backup; gives its length.
    pub(super) fn finish(mut self, contents: &Contents) -> io::Result<u64> {
        let last = self.at;
        self.json(KIND_END, contents)?;
        self.out.write_all(&last.to_le_bytes())?;
        self.out.write_all(TRAILER)?;
        self.out.flush()?;
        Ok(self.at + 16)
    }

    fn json(&mut self, kind: u8, value: &impl Serialize) -> io::Result<()> {
        let payload = serde_json::to_vec(value).map_err(io::Error::other)?;
        self.block(kind, &payload)
    }

    fn block(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
        self.out.write_all(&len.to_le_bytes())?;
        self.out.write_all(&[kind])?;
        self.out.write_all(payload)?;
        self.out
            .write_all(&checksum(self.block, kind, payload).to_le_bytes())?;
        self.block += 1;
        self.at += 4 + 1 + payload.len() as u64 + 8;
        Ok(())
    }
}

fn checksum(block: u64, kind: u8, payload: &[u8]) -> u64 {
    let seed = xxh3_64_with_seed(&[kind], block);
    xxh3_64_with_seed(payload, seed)
}

/// Rows of one table on their way into a block.
pub(super) struct Rows(Vec<u8>);

impl Rows {
    pub(super) fn of(table: &str) -> Rows {
        let mut rows = Rows(Vec::new());
        rows.put(table.as_bytes());
        rows
    }

    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) {
        self.put(key);
        self.put(value);
    }

    fn put(&mut self, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).expect("a row is far below 4 GiB");
        self.0.extend_from_slice(&len.to_le_bytes());
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The table and its rows.
    pub(super) fn split(&self) -> (String, Vec<Row>) {
        split_rows(&self.0).expect("they were put together here")
    }
}

/// One block that was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Block {
    Head(Head),
    File(File),
    Bytes(Vec<u8>),
    Hole(u64),
    Rows(String, Vec<(Vec<u8>, Vec<u8>)>),
    FileEnd(u64),
    End(Contents),
}

/// Reads a backup from its beginning, checking every block. Memory is that of one block.
pub(super) struct Reader {
    path: PathBuf,
    input: io::BufReader<std::fs::File>,
    at: u64,
    block: u64,
    file: Xxh3,
}

impl Reader {
    /// Opens a backup.
    pub(super) fn open(path: &Path) -> Result<Reader, ArchiveError> {
        let file = std::fs::File::open(path).map_err(|err| io_error("open", path, err))?;
        let mut reader = Reader {
            path: path.to_owned(),
            input: io::BufReader::with_capacity(PIECE, file),
            at: 0,
            block: 0,
            file: Xxh3::new(),
        };
        let mut magic = [0; MAGIC.len()];
        reader.fill(&mut magic, 0)?;
        if magic == *MAGIC {
            return Ok(reader);
        }
        let path = path.to_owned();
        Err(match magic.strip_prefix(MAGIC_ANY) {
            Some(version) => ArchiveError::Newer {
                path,
                found: String::from_utf8_lossy(version).trim_end().to_owned(),
            },
            None => ArchiveError::Foreign { path },
        })
    }

    /// The last block, without reading those before it.
    pub(super) fn contents(path: &Path) -> Result<Contents, ArchiveError> {
        let mut reader = Reader::open(path)?;
        let len = std::fs::metadata(path).map_err(|err| io_error("look at", path, err))?;
        let len = len.len();
        let short = |at| ArchiveError::Short {
            path: path.to_owned(),
            at,
        };
        let end = len.checked_sub(16).ok_or_else(|| short(0))?;
        let mut seek = |to| {
            let sought = reader.input.seek(SeekFrom::Start(to));
            sought.map_err(|err| io_error("read", path, err)).map(drop)
        };
        seek(end)?;
        reader.at = end;
        let last = reader.trailer()?;
        if last >= end {
            return Err(short(end));
        }
        reader
            .input
            .seek(SeekFrom::Start(last))
            .map_err(|err| io_error("read", path, err))?;
        reader.at = last;
        // Its number is not known here; the whole reading checks it.
        let (kind, payload, _) = reader.raw()?;
        match kind {
            KIND_END => reader.parse(last, &payload),
            _ => Err(reader.damaged(last, "the last block is of another kind")),
        }
    }

    /// The next block. After [`Block::End`] the trailer is checked too.
    pub(super) fn next(&mut self) -> Result<Block, ArchiveError> {
        let at = self.at;
        let (kind, payload, sum) = self.raw()?;
        if sum != checksum(self.block, kind, &payload) {
            return Err(self.damaged(at, "wrong checksum"));
        }
        self.block += 1;
        Ok(match kind {
            KIND_HEAD => Block::Head(self.parse(at, &payload)?),
            KIND_FILE => {
                self.file.reset();
                Block::File(self.parse(at, &payload)?)
            }
            KIND_BYTES => {
                self.file.update(&payload);
                Block::Bytes(payload)
            }
            KIND_HOLE => {
                self.file.update(&payload);
                Block::Hole(self.number(at, &payload)?)
            }
            KIND_ROWS => {
                self.file.update(&payload);
                let rows = split_rows(&payload);
                let (table, rows) = rows.ok_or_else(|| self.damaged(at, "rows of no form"))?;
                Block::Rows(table, rows)
            }
            KIND_FILE_END => {
                let hash = self.number(at, &payload)?;
                if hash != self.file.digest() {
                    return Err(self.damaged(at, "a file's blocks are not those written"));
                }
                Block::FileEnd(hash)
            }
            KIND_FAILURE => {
                let path = self.path.clone();
                let why = String::from_utf8_lossy(&payload).into_owned();
                return Err(ArchiveError::GivenUp { path, why });
            }
            KIND_END => {
                let contents = self.parse(at, &payload)?;
                let trailer_at = self.at;
                if self.trailer()? != at {
                    return Err(self.damaged(trailer_at, "wrong trailer"));
                }
                self.must_be_over()?;
                Block::End(contents)
            }
            kind => return Err(self.damaged(at, &format!("unknown kind of block {kind}"))),
        })
    }

    fn raw(&mut self) -> Result<(u8, Vec<u8>, u64), ArchiveError> {
        let at = self.at;
        let mut head = [0; 5];
        self.fill(&mut head, at)?;
        let [a, b, c, d, kind] = head;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        if len > PAYLOAD_MAX {
            return Err(self.damaged(at, "a block of impossible length"));
        }
        let mut payload = vec![0; len];
        self.fill(&mut payload, at)?;
        let mut sum = [0; 8];
        self.fill(&mut sum, at)?;
        Ok((kind, payload, u64::from_le_bytes(sum)))
    }

    fn trailer(&mut self) -> Result<u64, ArchiveError> {
        let at = self.at;
        let (mut offset, mut mark) = ([0; 8], [0; 8]);
        self.fill(&mut offset, at)?;
        self.fill(&mut mark, at)?;
        if mark == *TRAILER {
            Ok(u64::from_le_bytes(offset))
        } else {
            let path = self.path.clone();
            Err(ArchiveError::Short { path, at })
        }
    }

    fn must_be_over(&mut self) -> Result<(), ArchiveError> {
        match self.input.fill_buf() {
            Ok([]) => Ok(()),
            Ok(_) => Err(self.damaged(self.at, "something follows its end")),
            Err(err) => Err(io_error("read", &self.path, err)),
        }
    }

    fn fill(&mut self, out: &mut [u8], block_at: u64) -> Result<(), ArchiveError> {
        match self.input.read_exact(out) {
            Ok(()) => {
                self.at += out.len() as u64;
                Ok(())
            }
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => Err(ArchiveError::Short {
                path: self.path.clone(),
                at: block_at,
            }),
            Err(err) => Err(io_error("read", &self.path, err)),
        }
    }

    fn parse<T: for<'d> Deserialize<'d>>(&self, at: u64, json: &[u8]) -> Result<T, ArchiveError> {
        serde_json::from_slice(json).map_err(|err| self.damaged(at, &err.to_string()))
    }

    fn number(&self, at: u64, payload: &[u8]) -> Result<u64, ArchiveError> {
        let bytes = payload.try_into();
        bytes
            .map(u64::from_le_bytes)
            .map_err(|_| self.damaged(at, "not a number"))
    }

    pub(super) fn damaged(&self, at: u64, what: &str) -> ArchiveError {
        ArchiveError::Damaged {
            path: self.path.clone(),
            at,
            what: what.to_owned(),
        }
    }

    /// Where the next block begins.
    pub(super) fn position(&self) -> u64 {
        self.at
    }
}

type Row = (Vec<u8>, Vec<u8>);

fn split_rows(payload: &[u8]) -> Option<(String, Vec<Row>)> {
    let mut rest = payload;
    let table = String::from_utf8(take(&mut rest)?.to_vec()).ok()?;
    let mut rows = Vec::new();
    while !rest.is_empty() {
        let key = take(&mut rest)?.to_vec();
        rows.push((key, take(&mut rest)?.to_vec()));
    }
    Some((table, rows))
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, after) = rest.split_first_chunk::<4>()?;
    let (bytes, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *rest = after;
    Some(bytes)
}

pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> ArchiveError {
    let path = path.to_owned();
    ArchiveError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head() -> Head {
        Head {
            id: "a".to_owned(),
            created_at: "now".to_owned(),
            base: None,
        }
    }

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, &head()).unwrap();
        let file = File {
            name: "x.redb".to_owned(),
            identity: 7,
        };
        writer.begin_file(&file).unwrap();
        writer.bytes(&[1, 2, 3]).unwrap();
        writer.bytes(&[0; 5_000]).unwrap();
        let mut rows = Rows::of("wal");
        rows.push(b"k", b"v");
        rows.push(b"", b"");
        writer.rows(&rows).unwrap();
        let hash = writer.end_file().unwrap();
        let contents = Contents {
            commit_seq: 9,
            files: vec![Listed {
                name: "x.redb".to_owned(),
                identity: 7,
                hash,
                here: true,
            }],
        };
        let len = writer.finish(&contents).unwrap();
        assert_eq!(len, out.len() as u64);
        out
    }

    fn read(bytes: &[u8]) -> Result<Vec<Block>, ArchiveError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        std::fs::write(&path, bytes).unwrap();
        let mut reader = Reader::open(&path)?;
        let mut blocks = Vec::new();
        loop {
            blocks.push(reader.next()?);
            if let Some(Block::End(contents)) = blocks.last() {
                assert_eq!(Reader::contents(&path).unwrap(), *contents);
                return Ok(blocks);
            }
        }
    }

    #[test]
    fn blocks_come_back() {
        let blocks = read(&sample()).unwrap();
        assert_eq!(blocks.len(), 7);
        assert_eq!(blocks[0], Block::Head(head()));
        assert_eq!(blocks[2], Block::Bytes(vec![1, 2, 3]));
        assert_eq!(blocks[3], Block::Hole(5_000));
        let Block::Rows(table, rows) = &blocks[4] else {
            panic!("no rows: {blocks:?}");
        };
        assert_eq!((table.as_str(), rows.len()), ("wal", 2));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_seen() {
        let whole = sample();
        for at in 0..whole.len() {
            assert!(read(&whole[..at]).is_err(), "cut at {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(read(&flipped).is_err(), "bit of byte {at}");
        }
    }

    #[test]
    fn what_follows_the_end_is_refused() {
        for more in [&b"\0"[..], b"pulsend\n", &sample()] {
            let err = read(&[&sample(), more].concat()).unwrap_err().to_string();
            assert!(err.contains("something follows its end"), "{err}");
        }
    }

    #[test]
    fn a_swapped_block_is_seen() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, &head()).unwrap();
        writer.bytes(&[1; 10]).unwrap();
        writer.bytes(&[2; 10]).unwrap();
        // The last two blocks, of 4 + 1 + 10 + 8 bytes each.
        let first = out.len() - 2 * 23;
        out[first..].rotate_left(23);
        let err = read(&out).unwrap_err().to_string();
        assert!(err.contains(&format!("damaged at byte {first}")), "{err}");
    }

    #[test]
    fn other_files_and_newer_forms_are_refused_with_a_sentence() {
        let text = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert!(text(b"something else entirely").contains("is no backup of pulse"));
        assert!(text(b"pulse backup 2\nabc").contains("written by a newer pulse"));
        assert!(text(b"").contains("cut short at byte 0"));
    }

    #[test]
    fn a_writer_that_gave_up_says_why() {
        let mut out = Vec::new();
        let writer = Writer::new(&mut out, &head()).unwrap();
        writer.give_up("the disk is gone").unwrap();
        let err = read(&out).unwrap_err().to_string();
        assert!(err.ends_with("given up by its writer: the disk is gone"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut file = MAGIC.to_vec();
            file.extend_from_slice(&bytes);
            prop_assert!(read(&file).is_err());
        }
    }
}
