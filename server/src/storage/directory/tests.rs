//! The directory on a real disk.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rove_core::directory::{DirectoryMachine, contract};
use rove_core::replica::{ConfState, Install};

use super::*;

#[test]
fn sqlite_keeps_what_every_directory_store_keeps() {
    contract::suite(|| {
        let dir = tempfile::tempdir().unwrap();
        let db = DirectoryDb::open(dir.path()).unwrap();
        Kept { db, _dir: dir }
    });
}

/// A database that takes its folder with it.
struct Kept {
    db: DirectoryDb,
    _dir: tempfile::TempDir,
}

impl DirectoryStore for Kept {
    fn transaction(
        &mut self,
        work: &mut dyn FnMut(&mut dyn DirectoryTx) -> Result<(), DirectoryError>,
    ) -> Result<(), DirectoryError> {
        self.db.transaction(work)
    }
    fn read(
        &self,
        work: &mut dyn FnMut(&dyn DirectoryRead) -> Result<(), DirectoryError>,
    ) -> Result<(), DirectoryError> {
        self.db.read(work)
    }
}

#[test]
fn a_database_opened_again_continues_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut db = DirectoryDb::open(dir.path()).unwrap();
    let mut machine = DirectoryMachine::load(&db.committed()).unwrap();
    let mut rows = db.begin().unwrap();
    machine.apply(&mut rows, 1, &contract::sign_up(1, 5_000, "alice"), &mut Vec::new()).unwrap();
    rows.commit().unwrap();
    assert_eq!(db.checkpoint().unwrap(), Some(1));
    drop(db);

    let db = DirectoryDb::open(dir.path()).unwrap();
    let again = DirectoryMachine::load(&db.committed()).unwrap();
    assert_eq!((again.applied(), again.state_hash()), (1, machine.state_hash()));
    assert!(db.reader().unwrap().rows().unwrap().account_by_handle("alice").unwrap().is_some());
}

/// SQLite 3.51.1 could lock itself out there, and a node that stopped stood still for ever: in one of some hundred rounds like these.
#[test]
fn readers_that_are_closed_at_the_same_moment_do_not_wait_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..1_000 {
        let db = DirectoryDb::open(dir.path()).unwrap();
        let readers: Vec<_> = (0..4).map(|_| db.reader().unwrap()).collect();
        drop(db);
        let (closed, all_closed) = std::sync::mpsc::channel();
        let at_once = std::sync::Arc::new(std::sync::Barrier::new(readers.len()));
        for (number, mut reader) in readers.into_iter().enumerate() {
            let (closed, at_once) = (closed.clone(), at_once.clone());
            std::thread::spawn(move || {
                reader.rows().unwrap().meta().unwrap();
                at_once.wait();
                // Nearly.
                (0..number * 7).for_each(|_| std::hint::spin_loop());
                drop(reader);
                closed.send(()).unwrap();
            });
        }
        for _ in 0..4 {
            all_closed.recv_timeout(std::time::Duration::from_secs(60)).expect("a reader that is closed is soon");
        }
    }
}

#[test]
fn what_a_reader_still_needs_is_not_called_durable() {
    let dir = tempfile::tempdir().unwrap();
    let mut db = DirectoryDb::open(dir.path()).unwrap();
    let mut machine = DirectoryMachine::load(&db.committed()).unwrap();
    let reader = Connection::open(dir.path().join("directory.db")).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let _: i64 = reader.query_row("SELECT count(*) FROM account", [], |row| row.get(0)).unwrap();
    let mut rows = db.begin().unwrap();
    machine.apply(&mut rows, 1, &contract::sign_up(1, 5_000, "alice"), &mut Vec::new()).unwrap();
    rows.commit().unwrap();
    assert_eq!(db.checkpoint().unwrap(), None);
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(db.checkpoint().unwrap(), Some(1));
}

#[test]
fn a_schema_of_the_future_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(DirectoryDb::open(dir.path()).unwrap());
    Connection::open(dir.path().join("directory.db")).unwrap().pragma_update(None, "user_version", 999).unwrap();
    assert!(matches!(DirectoryDb::open(dir.path()), Err(DirectoryError::SchemaTooNew { found: 999, .. })));
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("directory.db"), [7; 8_192]).unwrap();
    assert!(matches!(DirectoryDb::open(dir.path()), Err(DirectoryError::Store(_))));
}

#[test]
fn only_the_owner_may_look_inside() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("directory");
    let mut db = DirectoryDb::open(&folder).unwrap();
    let mut machine = DirectoryMachine::load(&db.committed()).unwrap();
    let mut rows = db.begin().unwrap();
    machine.apply(&mut rows, 1, &contract::sign_up(1, 5_000, "alice"), &mut Vec::new()).unwrap();
    rows.commit().unwrap();
    for entry in fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
    }
}

#[test]
fn a_reader_cannot_write() {
    let dir = tempfile::tempdir().unwrap();
    let db = DirectoryDb::open(dir.path()).unwrap();
    let mut reader = db.reader().unwrap();
    assert!(reader.rows().unwrap().connection().execute("DELETE FROM account", []).is_err());
}

/// A directory with some accounts, and its machine.
fn filled(dir: &Path, accounts: std::ops::RangeInclusive<u64>) -> (DirectoryDb, DirectoryMachine) {
    let mut db = DirectoryDb::open(dir).unwrap();
    let mut machine = DirectoryMachine::load(&db.committed()).unwrap();
    for number in accounts {
        sign_up(&mut db, &mut machine, number);
    }
    (db, machine)
}

fn sign_up(db: &mut DirectoryDb, machine: &mut DirectoryMachine, number: u64) {
    let mut rows = db.begin().unwrap();
    let entry = contract::sign_up(number, 5_000, &format!("account{number}"));
    machine.apply(&mut rows, number, &entry, &mut Vec::new()).unwrap();
    rows.commit().unwrap();
}

/// Everything of `capture`, staged in `to`.
fn ship(capture: DirectoryCapture, to: &DirectoryDb, limit: usize) -> StagedDirectory {
    let copy = capture.copy(|| true).unwrap().unwrap();
    let mut staged = to.files().stage().unwrap();
    for number in 0.. {
        let Some(chunk) = copy.chunk(number, limit).unwrap() else { break };
        assert_eq!(copy.chunk(number, limit).unwrap().unwrap(), chunk, "the same each time");
        staged.write(&chunk).unwrap();
    }
    staged
}

fn install(index: u64) -> Install {
    Install { index, term: 4, conf_state: ConfState { voters: vec![1, 2, 3], ..ConfState::default() } }
}

/// The files of a folder, in order, as a killed process would leave them.
fn files_of(dir: &Path) -> Vec<String> {
    let mut files: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    files
}

fn killed_now(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in files_of(dir) {
        fs::copy(dir.join(&file), copy.path().join(&file)).unwrap();
    }
    copy
}

#[test]
fn a_snapshot_is_of_one_moment_and_takes_the_place_of_the_database_for_its_readers_too() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut from, mut machine) = filled(one.path(), 1..=50);
    let (mut to, _) = filled(other.path(), 1..=3);
    let mut reader = to.reader().unwrap();
    assert!(reader.rows().unwrap().account_by_handle("account50").unwrap().is_none());
    let (capture, hash) = (from.files().capture().unwrap(), machine.state_hash());
    sign_up(&mut from, &mut machine, 51);
    assert_eq!(capture.applied(), 50);
    let staged = ship(capture, &to, 10_000);
    assert_eq!(staged.applied().unwrap(), 50);
    assert_eq!(to.committed().meta().unwrap().applied, 3, "nobody sees it yet");
    to.install(staged, &install(50)).unwrap();
    let mut installed = DirectoryMachine::load(&to.committed()).unwrap();
    assert_eq!((installed.applied(), installed.state_hash()), (50, hash));
    assert!(reader.rows().unwrap().account_by_handle("account50").unwrap().is_some());
    sign_up(&mut to, &mut installed, 51);
    assert!(reader.rows().unwrap().account_by_handle("account51").unwrap().is_some());
    assert_eq!(to.checkpoint().unwrap(), Some(51));

    drop((to, reader));
    let to = DirectoryDb::open(other.path()).unwrap();
    assert_eq!(to.files().installed().unwrap(), Some(install(50)));
    assert_eq!(DirectoryMachine::load(&to.committed()).unwrap().state_hash(), machine.state_hash());
    drop(to);
    assert_eq!(files_of(other.path()), ["current", "directory-1.db"], "the old one is gone");
    drop(from);
    assert_eq!(files_of(one.path()), ["directory.db"], "the copy is gone");
}

#[test]
fn a_crash_leaves_the_old_database_or_the_new_one_and_nothing_beside_it() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, _) = filled(one.path(), 1..=50);
    let (mut to, _) = filled(other.path(), 1..=3);
    let copying = from.files().capture().unwrap().copy(|| true).unwrap();
    let sender = killed_now(one.path());
    assert!(files_of(sender.path()).iter().any(|file| file.starts_with("copy-")));
    drop(DirectoryDb::open(sender.path()).unwrap());
    assert_eq!(files_of(sender.path()), ["directory.db"]);
    drop(copying);

    let staged = ship(from.files().capture().unwrap(), &to, 10_000);
    assert_eq!(staged.applied().unwrap(), 50);
    let before = killed_now(other.path());
    to.install(staged, &install(50)).unwrap();
    let after = killed_now(other.path());
    // As if it had died before the old one was deleted.
    fs::copy(one.path().join("directory.db"), after.path().join("directory.db")).unwrap();
    fs::write(after.path().join("directory.db-wal"), "old").unwrap();
    for (image, applied, installed, files) in
        [(before, 3, None, vec!["directory.db"]), (after, 50, Some(install(50)), vec!["current", "directory-1.db"])]
    {
        let db = DirectoryDb::open(image.path()).unwrap();
        assert_eq!((db.committed().meta().unwrap().applied, db.files().installed().unwrap()), (applied, installed));
        drop(db);
        assert_eq!(files_of(image.path()), files);
    }
}

#[test]
fn a_snapshot_that_is_damaged_or_from_a_newer_program_or_not_wanted_any_more_is_none() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut from, _) = filled(one.path(), 1..=200);
    let (to, _) = filled(other.path(), 1..=3);
    assert!(from.files().capture().unwrap().copy(|| false).unwrap().is_none());
    let copy = from.files().capture().unwrap().copy(|| true).unwrap().unwrap();
    let chunk = copy.chunk(0, 100_000_000).unwrap().unwrap();
    for (cut, bytes) in [chunk.slice(..chunk.len() / 2), vec![9; 100_000].into()].into_iter().enumerate() {
        let mut staged = to.files().stage().unwrap();
        staged.write(&bytes).unwrap();
        assert!(staged.applied().is_err(), "{cut}");
        staged.discard();
    }
    from.connection.pragma_update(None, "user_version", 999).unwrap();
    let staged = ship(from.files().capture().unwrap(), &to, 10_000);
    assert!(matches!(staged.applied(), Err(DirectoryError::SchemaTooNew { found: 999, .. })));
    staged.discard();
    from.checkpoint().unwrap();
    assert!(files_of(other.path()).iter().all(|file| file.starts_with("directory.db")), "{:?}", files_of(other.path()));
}

#[test]
fn a_damaged_pointer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(DirectoryDb::open(dir.path()).unwrap());
    fs::write(dir.path().join("current"), [1; 40]).unwrap();
    assert!(matches!(DirectoryDb::open(dir.path()), Err(DirectoryError::Corrupt(_))));
    assert!(dir.path().join("directory.db").exists(), "and nothing is deleted");
}
