//! Reads the directory, whichever database is the current one.

use rove_core::directory::DirectoryError;
use rusqlite::Connection;

use super::files::DirectoryFiles;
use super::read_only;
use super::sql::DirectoryRows;

/// A connection of its own that reads what is committed and cannot write: one for each thread of the read pool.
#[derive(Debug)]
pub struct DirectoryReader {
    files: DirectoryFiles,
    number: u32,
    rows: DirectoryRows<Box<Connection>>,
}

impl DirectoryReader {
    pub(super) fn open(files: DirectoryFiles) -> Result<Self, DirectoryError> {
        let number = files.current();
        let rows = DirectoryRows::new(Box::new(read_only(&files.database(number))?));
        Ok(Self { files, number, rows })
    }

    /// The rows of the database that is current now.
    ///
    /// # Errors
    /// The database's: it cannot be opened.
    pub fn rows(&mut self) -> Result<&DirectoryRows<Box<Connection>>, DirectoryError> {
        while self.number != self.files.current() {
            *self = Self::open(self.files.clone())?;
        }
        Ok(&self.rows)
    }
}
