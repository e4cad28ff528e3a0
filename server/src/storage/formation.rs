//! What a node of a cluster knows of its formation, in one small file of the data directory.
//!
//! The file also holds the directory's own random id, so that an emptied directory is another one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom as _, SystemRandom};
use rove_core::formation::{Record, StoreId};
use serde::{Deserialize, Serialize};

/// Its name in the data directory.
const NAME: &str = "cluster.json";

/// Bytes of a file that is read at most: a hundred nodes take a tenth of it.
const MAX_BYTES: u64 = 256 * 1024;

/// Why it cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}; check the disk; if the file is damaged, {}", super::REBUILD)]
pub struct FormationFileError {
    path: PathBuf,
    source: io::Error,
}

#[derive(Serialize, Deserialize)]
struct Content {
    store: StoreId,
    record: Record,
}

/// The file. Whoever opens it holds the lock of the data directory.
#[derive(Debug)]
pub struct FormationFile {
    path: PathBuf,
    store: StoreId,
}

impl FormationFile {
    /// Reads the file in `data_dir`, or makes a new one with a new id.
    ///
    /// # Errors
    /// [`FormationFileError`].
    pub fn open(data_dir: &Path) -> Result<(Self, Record), FormationFileError> {
        let path = data_dir.join(NAME);
        let error = |source| FormationFileError { path: path.clone(), source };
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > MAX_BYTES => {
                Err(error(io::Error::new(io::ErrorKind::InvalidData, "it is too large")))
            }
            Ok(_) => {
                let bytes = fs::read(&path).map_err(error)?;
                let content: Content = serde_json::from_slice(&bytes).map_err(|cause| error(cause.into()))?;
                Ok((Self { path, store: content.store }, content.record))
            }
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                let mut id = [0; 16];
                SystemRandom::new()
                    .fill(&mut id)
                    .map_err(|_| error(io::Error::other("the system gives no randomness")))?;
                let file = Self { path, store: StoreId(id) };
                let record = Record::default();
                file.save(&record)?;
                Ok((file, record))
            }
            Err(cause) => Err(error(cause)),
        }
    }

    /// The data directory's own id.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// Writes the record, durably: whole or not at all.
    ///
    /// # Errors
    /// [`FormationFileError`]; what was there before is there still.
    pub fn save(&self, record: &Record) -> Result<(), FormationFileError> {
        let write = || {
            let content = Content { store: self.store, record: record.clone() };
            let new = self.path.with_extension("json.new");
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec_pretty(&content)?)?;
            file.sync_all()?;
            fs::rename(&new, &self.path)?;
            // The name is part of the directory, which is synced on its own.
            self.path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
        };
        write().map_err(|source| FormationFileError { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use rove_core::membership::MemberMap;
    use rove_protocol::ids::NodeId;

    use super::*;

    #[test]
    fn the_id_stays_with_the_directory_and_a_new_directory_has_another() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (file, record) = FormationFile::open(one.path()).unwrap();
        assert_eq!(record, Record::default());
        let map = MemberMap::founded(&[(NodeId(1), file.store())].into(), 6);
        file.save(&Record { map: Some(map.clone()), ..Record::default() }).unwrap();
        let (again, record) = FormationFile::open(one.path()).unwrap();
        assert_eq!((again.store(), record.map), (file.store(), Some(map)));
        assert_ne!(FormationFile::open(other.path()).unwrap().0.store(), file.store());
    }

    #[test]
    fn a_damaged_file_is_refused_with_its_name_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), b"{\"store\": 1").unwrap();
        let error = FormationFile::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("cluster.json"), "{error}");
        assert_eq!(fs::read(dir.path().join(NAME)).unwrap(), b"{\"store\": 1");
    }
}
