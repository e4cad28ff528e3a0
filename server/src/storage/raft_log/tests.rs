//! The log on disk, through restarts.

mod killed;

use super::*;

const ONE: PartitionId = PartitionId(1);
const TWO: PartitionId = PartitionId(2);

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<LogEntry> {
    range.map(|index| LogEntry { index, term, data: format!("{term}/{index}").into(), ..LogEntry::default() }).collect()
}

fn persist(entries: Vec<LogEntry>, term: u64, commit: u64) -> Persist {
    let hard_state = HardState { term, commit, vote: 1, ..HardState::default() };
    Persist { ticket: 1, hard_state: Some(hard_state), entries, must_sync: true, ..Persist::default() }
}

fn write(log: &RaftLog, partition: PartitionId, persist: &Persist) {
    let mut round = Round::default();
    round.persist(partition, persist).unwrap();
    assert!(log.write(round).unwrap().synced.is_some());
}

#[test]
fn a_round_of_several_partitions_is_read_back_by_each() {
    let dir = tempfile::tempdir().unwrap();
    let log = RaftLog::open(dir.path()).unwrap();
    let mut round = Round::default();
    let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    let with_members = Persist { conf_state: Some((conf_state.clone(), 2)), ..persist(entries(1..=3, 1), 1, 2) };
    round.persist(ONE, &with_members).unwrap();
    round.persist(TWO, &persist(entries(1..=1, 4), 4, 0)).unwrap();
    log.write(round).unwrap();
    drop(log);

    let log = RaftLog::open(dir.path()).unwrap();
    let one = log.load(ONE, 2).unwrap();
    assert_eq!((one.entries, one.hard_state.commit, one.applied), (entries(1..=3, 1), 2, 2));
    assert_eq!((one.conf_state, one.conf_index), (conf_state, 2));
    let two = log.load(TWO, 0).unwrap();
    assert_eq!((two.entries, two.hard_state.term), (entries(1..=1, 4), 4));
    assert_eq!(log.load(PartitionId(0), 0).unwrap().last(), 0);
}

#[test]
fn conflicting_entries_give_way_even_within_one_round_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = RaftLog::open(dir.path()).unwrap();
    write(&log, ONE, &persist(entries(1..=5, 1), 1, 2));
    let mut round = Round::default();
    round.persist(ONE, &persist(entries(6..=7, 1), 1, 2)).unwrap();
    round.persist(ONE, &persist(entries(3..=4, 2), 2, 2)).unwrap();
    log.write(round).unwrap();
    let expected = [entries(1..=2, 1), entries(3..=4, 2)].concat();
    assert_eq!(log.load(ONE, 0).unwrap().entries, expected);
    drop(log);
    assert_eq!(RaftLog::open(dir.path()).unwrap().load(ONE, 0).unwrap().entries, expected);
}

#[test]
fn a_truncated_log_begins_after_its_truncation_point_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = RaftLog::open(dir.path()).unwrap();
    write(&log, ONE, &persist(entries(1..=5, 1), 1, 5));
    let mut round = Round::default();
    round.truncate(ONE, Truncated { index: 5, term: 1 }).unwrap();
    log.write(round).unwrap();
    write(&log, ONE, &persist(entries(6..=6, 2), 2, 5));
    drop(log);
    let found = RaftLog::open(dir.path()).unwrap().load(ONE, 5).unwrap();
    assert_eq!((found.truncated, found.entries), (Truncated { index: 5, term: 1 }, entries(6..=6, 2)));
}

#[test]
fn a_snapshot_takes_the_place_of_the_whole_log_even_within_one_round_and_after_a_restart() {
    for one_round in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let log = RaftLog::open(dir.path()).unwrap();
        write(&log, ONE, &persist(entries(1..=100, 1), 1, 40));
        write(&log, TWO, &persist(entries(1..=3, 1), 1, 3));
        let begins = Truncated { index: 80, term: 3 };
        let conf_state = ConfState { voters: vec![1, 4], learners: vec![5], ..ConfState::default() };
        let reset =
            Persist { reset: Some(begins), conf_state: Some((conf_state.clone(), 80)), ..persist(Vec::new(), 3, 80) };
        let mut round = Round::default();
        round.persist(ONE, &persist(entries(101..=103, 1), 1, 40)).unwrap();
        if !one_round {
            log.write(round).unwrap();
            round = Round::default();
        }
        round.persist(ONE, &reset).unwrap();
        round.persist(ONE, &persist(entries(81..=82, 3), 3, 81)).unwrap();
        // Decided before the snapshot came.
        round.truncate(ONE, Truncated { index: 30, term: 1 }).unwrap();
        log.write(round).unwrap();
        let check = |log: &RaftLog| {
            let found = log.load(ONE, 80).unwrap();
            assert_eq!((found.truncated, found.entries), (begins, entries(81..=82, 3)));
            assert_eq!((found.conf_state, found.conf_index), (conf_state.clone(), 80));
            assert_eq!((found.hard_state.term, found.hard_state.commit), (3, 81));
            assert_eq!(log.load(TWO, 3).unwrap().entries, entries(1..=3, 1), "the other is as it was");
        };
        check(&log);
        drop(log);
        let log = RaftLog::open(dir.path()).unwrap();
        check(&log);
        write(&log, ONE, &persist(entries(83..=83, 3), 3, 82));
        drop(log);
        let found = RaftLog::open(dir.path()).unwrap().load(ONE, 80).unwrap();
        assert_eq!((found.last(), found.conf_index), (83, 80));
    }
}

#[test]
fn purging_gives_space_back_and_loses_nothing_that_is_not_truncated() {
    let dir = tempfile::tempdir().unwrap();
    let open = || RaftLog::open_with(dir.path(), 16 * 1024, 64 * 1024).unwrap();
    let log = open();
    write(&log, TWO, &persist(entries(1..=3, 1), 1, 3));
    for byte in 1..=200u8 {
        let data = vec![byte; 4_096];
        let index = u64::from(byte);
        let entry = LogEntry { index, term: 1, data: data.into(), ..LogEntry::default() };
        write(&log, ONE, &persist(vec![entry], 1, index - 1));
        if index % 20 == 0 {
            let mut round = Round::default();
            round.truncate(ONE, Truncated { index: index - 5, term: 1 }).unwrap();
            log.write(round).unwrap();
            log.purge().unwrap();
        }
    }
    assert!(log.used_bytes() < 300 * 1024, "{} bytes", log.used_bytes());
    let check = |log: &RaftLog| {
        let found = log.load(ONE, 195).unwrap();
        assert_eq!((found.truncated.index, found.entries.len(), found.last()), (195, 5, 200));
        assert_eq!(log.load(TWO, 0).unwrap().entries, entries(1..=3, 1));
    };
    check(&log);
    drop(log);
    let log = open();
    check(&log);
    log.purge().unwrap();
    check(&log);
}

#[test]
fn the_identity_is_kept_and_a_newer_layout_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = RaftLog::open(dir.path()).unwrap();
    assert_eq!(log.identity().unwrap(), None);
    let identity = Identity { node: NodeId(7), partitions: 6, incarnation: 3 };
    log.set_identity(identity).unwrap();
    log.sync().unwrap();
    drop(log);
    let log = RaftLog::open(dir.path()).unwrap();
    assert_eq!(log.identity().unwrap(), Some(identity));
    let mut round = Round::default();
    round.batch.put(NODE_REGION, IDENTITY.to_vec(), vec![LAYOUT + 1]).unwrap();
    log.write(round).unwrap();
    assert!(matches!(log.identity(), Err(RaftLogError::Layout { found: 2, known: 1 })));
}

#[test]
fn a_torn_tail_loses_only_what_was_torn() {
    let dir = tempfile::tempdir().unwrap();
    let log = RaftLog::open(dir.path()).unwrap();
    write(&log, ONE, &persist(entries(1..=3, 1), 1, 3));
    let file = || {
        let mut files: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "raftlog"))
            .collect();
        files.sort();
        files.pop().unwrap()
    };
    let whole = std::fs::read(file()).unwrap();
    write(&log, ONE, &persist(entries(4..=4, 1), 1, 3));
    drop(log);
    // The last write is cut in the middle: its sync never completed.
    let longer = std::fs::read(file()).unwrap();
    let end = whole.iter().zip(&longer).take_while(|(a, b)| a == b).count();
    std::fs::write(file(), &longer[..end + 20]).unwrap();
    let found = RaftLog::open(dir.path()).unwrap().load(ONE, 3).unwrap();
    assert_eq!(found.entries, entries(1..=3, 1));
}
