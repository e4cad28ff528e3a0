//! The files in the directory's folder: which database is the current one, and what goes.
//!
//! ```text
//! directory.db        the database that the folder was made with: number 0
//! directory-7.db      number 7: it came as a snapshot
//! current             which number is current, and the snapshot it came from; nothing: number 0
//! copy-9.db           of the current one, on its way to a peer
//! ```
//!
//! A snapshot is written under a number of its own and made current by replacing `current`, which is one rename. Nothing is ever
//! renamed to the name of a database: SQLite would take the old one's write-ahead log for the new one's. What is not current was
//! left by a crash, or was replaced: it goes when the folder is opened.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rove_core::directory::DirectoryError;
use rove_core::replica::Install;
use xxhash_rust::xxh3::xxh3_64;

use crate::storage::installed;

const POINTER: &str = "current";
const NEW_POINTER: &str = "current.new";
/// What SQLite puts beside a database.
const SUFFIXES: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// The folder. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DirectoryFiles(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    current: AtomicU32,
    /// The highest number that was given out.
    used: AtomicU32,
}

impl DirectoryFiles {
    /// Opens or makes the folder (for this user alone: it holds password hashes), and deletes what is not current.
    pub(super) fn open(dir: &Path) -> Result<Self, DirectoryError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|error| failed(dir, &error))?;
        let number = read_pointer(dir)?.map_or(0, |(number, _)| number);
        let files = Self(Arc::new(Inner {
            dir: dir.to_owned(),
            current: AtomicU32::new(number),
            used: AtomicU32::new(number),
        }));
        files.delete_leftovers().map_err(|error| failed(dir, &error))?;
        Ok(files)
    }

    /// The number of the current database.
    pub(super) fn current(&self) -> u32 {
        self.0.current.load(Ordering::Acquire)
    }

    /// The database with a number.
    pub(super) fn database(&self, number: u32) -> PathBuf {
        self.0.dir.join(name(number))
    }

    /// A new, empty file for a snapshot that comes in, and its number.
    pub(super) fn create_database(&self) -> Result<(u32, PathBuf, File), DirectoryError> {
        let number = self.next_number();
        let path = self.database(number);
        let file = create(&path).map_err(|error| failed(&path, &error))?;
        Ok((number, path, file))
    }

    /// A new, empty file for a copy.
    pub(super) fn create_copy(&self) -> Result<(PathBuf, File), DirectoryError> {
        let path = self.0.dir.join(format!("copy-{}.db", self.next_number()));
        let file = create(&path).map_err(|error| failed(&path, &error))?;
        Ok((path, file))
    }

    fn next_number(&self) -> u32 {
        self.0.used.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The snapshot that the current database came from; nothing if it never did.
    ///
    /// # Errors
    /// The folder's.
    pub fn installed(&self) -> Result<Option<Install>, DirectoryError> {
        Ok(read_pointer(&self.0.dir)?.map(|(_, install)| install))
    }

    /// From now on database `number` is current, durably. Whoever dies in here finds the one or the other.
    pub(super) fn make_current(&self, number: u32, install: &Install) -> Result<(), DirectoryError> {
        let dir = &self.0.dir;
        let row = installed::encode(number, install)
            .ok_or_else(|| DirectoryError::Store("the members of a snapshot cannot be encoded".to_owned()))?;
        let replace = || -> io::Result<()> {
            let new = dir.join(NEW_POINTER);
            delete(&new)?;
            let mut file = create(&new)?;
            file.write_all(&xxh3_64(&row).to_be_bytes())?;
            file.write_all(&row)?;
            file.sync_all()?;
            fs::rename(&new, dir.join(POINTER))?;
            self.sync()
        };
        replace().map_err(|error| failed(dir, &error))?;
        self.0.current.store(number, Ordering::Release);
        Ok(())
    }

    /// Makes the names of files durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.0.dir)?.sync_all()
    }

    fn delete_leftovers(&self) -> io::Result<()> {
        let current = name(self.current());
        for entry in fs::read_dir(&self.0.dir)? {
            let entry = entry?;
            let file = entry.file_name();
            let ours = |file: &OsStr| {
                let file = file.to_str()?;
                let database = file.strip_suffix("-wal").or_else(|| file.strip_suffix("-shm")).unwrap_or(file);
                let database = database.strip_suffix("-journal").unwrap_or(database);
                let is_one = database == name(0) || numbered(database, "directory-") || numbered(database, "copy-");
                Some((is_one && database != current) || file == NEW_POINTER)
            };
            if ours(&file).unwrap_or(false) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Deletes a database and what SQLite has put beside it. Whoever has it open reads on.
pub(super) fn delete_database(path: &Path) -> io::Result<()> {
    SUFFIXES.iter().try_for_each(|suffix| {
        let mut path = path.as_os_str().to_owned();
        path.push(suffix);
        delete(Path::new(&path))
    })
}

/// Makes a file that only this user may read; SQLite gives its other files the same mode.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)
}

pub(super) fn failed(path: &Path, error: &io::Error) -> DirectoryError {
    DirectoryError::Store(format!("{}: {error}", path.display()))
}

fn name(number: u32) -> String {
    if number == 0 { "directory.db".to_owned() } else { format!("directory-{number}.db") }
}

fn numbered(file: &str, prefix: &str) -> bool {
    let number = file.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(".db"));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

fn delete(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// `checksum (8) | row`: see [`installed`].
fn read_pointer(dir: &Path) -> Result<Option<(u32, Install)>, DirectoryError> {
    let path = dir.join(POINTER);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&path, &error)),
    };
    let row = bytes.split_first_chunk().filter(|(sum, row)| u64::from_be_bytes(**sum) == xxh3_64(row));
    let read = row.and_then(|(_, row)| installed::decode(row));
    read.map(Some).ok_or_else(|| DirectoryError::Corrupt(format!("{} is damaged", path.display())))
}
