//! A state instead of entries: for those who are behind, whatever dies on the way.

use raft::eraftpb::{ConfState, Entry, HardState, Message, MessageType};

use super::ALL;
use super::cluster::{Cluster, config, logger};
use crate::replica::{
    Install, MemberChange, MessageError, PeerMessage, Recovered, Replica, ReplicaError, SnapshotError, StepError,
    Truncated,
};

/// A follower that is down while the others go on and truncate their logs. (leader, follower)
fn behind(cluster: &mut Cluster) -> (u64, u64) {
    let leader = cluster.elect(&ALL);
    let follower = ALL.into_iter().find(|id| *id != leader).unwrap();
    cluster.post("early", follower);
    cluster.flush(follower);
    cluster.crash(follower);
    for value in 0..10 {
        cluster.post(&value.to_string(), leader);
    }
    for id in ALL {
        cluster.flush(id);
    }
    (leader, follower)
}

#[test]
fn a_follower_below_the_truncation_point_is_sent_a_snapshot_and_goes_on() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = behind(&mut cluster);
    cluster.restart(follower).unwrap();
    cluster.tick(5);
    assert!(cluster.wanted.contains(&(leader, follower)), "the leader asks for it");
    assert_eq!(cluster.ship(leader, follower), Ok(true));
    cluster.settle();
    assert_eq!(cluster.values(follower), cluster.values(leader));
    let status = cluster.replica(follower).status();
    assert_eq!(
        (status.applied, status.truncated.index),
        (status.committed, cluster.members[&leader].machine.applied())
    );
    cluster.propose(leader, "more").unwrap();
    cluster.tick(5);
    assert_eq!(cluster.values(follower).last().unwrap(), "more");
    assert_eq!(cluster.members[&follower].installs, 1);
    // And it is as good as any other: it may lead.
    cluster.crash(leader);
    let rest: Vec<u64> = ALL.into_iter().filter(|id| *id != leader).collect();
    cluster.elect(&rest);
    cluster.post("most", follower);
}

#[test]
fn a_snapshot_that_is_lost_on_the_way_is_wanted_again_and_nothing_is_dropped_for_it() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = behind(&mut cluster);
    cluster.restart(follower).unwrap();
    cluster.tick(5);
    for _ in 0..3 {
        cluster.wanted.clear();
        // The stream breaks half-way: nothing is staged.
        cluster.loss_percent = 100;
        let before = cluster.replica(follower).status();
        assert_eq!(cluster.ship(leader, follower), Ok(false));
        cluster.loss_percent = 0;
        cluster.tick(5);
        assert!(cluster.wanted.contains(&(leader, follower)), "it is wanted again");
        assert_eq!(cluster.replica(follower).status().last, before.last);
    }
    assert_eq!(cluster.ship(leader, follower), Ok(true));
    cluster.settle();
    assert_eq!(cluster.values(follower), cluster.values(leader));
}

#[test]
fn a_restart_at_each_step_of_an_install_ends_with_all_of_it_or_none() {
    for step in 0..4 {
        let mut cluster = Cluster::new(3);
        let (leader, follower) = behind(&mut cluster);
        cluster.restart(follower).unwrap();
        cluster.tick(5);
        cluster.slow_disk(follower, step == 2);
        let member = cluster.members.get_mut(&follower).unwrap();
        member.dies_when_installed = step == 1;
        if step > 0 {
            cluster.ship(leader, follower).unwrap();
            cluster.settle();
        }
        let (applied, begins) = {
            let member = &cluster.members[&follower];
            (member.machine.applied(), member.disk.truncated.index)
        };
        match step {
            // Staged, not taken up.
            0 => assert!(applied < cluster.members[&leader].machine.applied()),
            // The state is the new one, the log the old one.
            1 | 2 => assert!(begins < applied),
            _ => assert_eq!(begins, applied),
        }
        cluster.crash(follower);
        cluster.slow_disk(follower, false);
        cluster.restart(follower).unwrap();
        assert_eq!(cluster.replica(follower).status().applied, applied);
        // What the restart has decided must be on disk before it is built on: once more.
        cluster.settle();
        cluster.crash(follower);
        cluster.restart(follower).unwrap();
        assert_eq!(cluster.replica(follower).status().applied, applied, "step {step}");
        cluster.ships = true;
        cluster.tick(30);
        cluster.post("after", follower);
        assert_eq!(cluster.values(follower), cluster.values(leader), "step {step}");
        assert_eq!(cluster.members[&follower].installs, 1, "step {step}");
        let disk = &cluster.members[&follower].disk;
        assert_eq!(disk.entries.first().map(|entry| entry.index), Some(disk.truncated.index + 1));
    }
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    range.map(|index| Entry { index, term, ..Entry::default() }).collect()
}

fn group() -> ConfState {
    ConfState { voters: vec![1, 2, 3], ..ConfState::default() }
}

fn installed(index: u64, term: u64) -> Install {
    Install { index, term, conf_state: group() }
}

#[test]
fn after_a_crash_in_an_install_a_log_that_does_not_hold_the_snapshot_begins_anew() {
    // It ends below the snapshot, or has something else there that was never committed.
    for log in [entries(1..=5, 1), entries(1..=20, 1)] {
        let recovered = Recovered {
            hard_state: HardState { term: 1, vote: 2, commit: 4, ..HardState::default() },
            entries: log,
            applied: 8,
            installed: Some(installed(8, 3)),
            ..Recovered::default()
        };
        let mut replica = Replica::recover(config(1, 3), recovered, &logger()).unwrap();
        let status = replica.status();
        assert_eq!((status.last, status.committed, status.applied, status.term), (8, 8, 8, 3));
        let persist = replica.outputs().unwrap().unwrap().persist.unwrap();
        assert_eq!((persist.ticket, persist.reset), (0, Some(Truncated { index: 8, term: 3 })));
        assert_eq!(persist.conf_state, Some((group(), 8)));
        assert_eq!(persist.hard_state.unwrap().vote, 0, "in that term it has voted for nobody");
        assert!(persist.must_sync && persist.entries.is_empty());
    }
    let holds = Recovered {
        hard_state: HardState { term: 3, commit: 8, ..HardState::default() },
        truncated: Truncated { index: 8, term: 3 },
        entries: entries(9..=12, 3),
        applied: 8,
        installed: Some(installed(8, 3)),
        conf_state: group(),
        conf_index: 8,
    };
    let mut replica = Replica::recover(config(1, 3), holds, &logger()).unwrap();
    assert_eq!(replica.status().last, 12, "a log that holds it is kept");
    assert!(replica.outputs().unwrap().is_none_or(|outputs| outputs.persist.is_none()));
}

#[test]
fn a_log_that_lost_more_than_an_install_explains_is_refused() {
    let lost = |commit: u64, applied: u64| {
        let recovered = Recovered {
            hard_state: HardState { term: 3, commit, ..HardState::default() },
            entries: entries(1..=5, 1),
            applied,
            installed: Some(installed(8, 3)),
            ..Recovered::default()
        };
        Replica::recover(config(1, 3), recovered, &logger()).map(|_| ()).unwrap_err()
    };
    assert_eq!(lost(4, 9), ReplicaError::LogLost { last: 5, needed: 9 }, "the state has gone on since");
    assert_eq!(lost(10, 8), ReplicaError::LogLost { last: 5, needed: 10 }, "more was committed since");
}

fn snapshot(index: u64, term: u64) -> Message {
    let mut message = Message { from: 2, to: 1, term: 5, ..Message::default() };
    message.set_msg_type(MessageType::MsgSnapshot);
    let metadata = message.mut_snapshot().mut_metadata();
    metadata.index = index;
    metadata.term = term;
    metadata.set_conf_state(group());
    message
}

/// A replica whose log is 1..=6 of term 2, of which 4 are committed.
fn replica() -> Replica {
    let recovered = Recovered {
        hard_state: HardState { term: 2, commit: 4, ..HardState::default() },
        entries: entries(1..=6, 2),
        applied: 4,
        conf_state: group(),
        ..Recovered::default()
    };
    Replica::recover(config(1, 3), recovered, &logger()).unwrap()
}

#[test]
fn a_snapshot_that_is_empty_or_cannot_be_is_refused_and_changes_nothing() {
    let mut replica = replica();
    let before = replica.status();
    let mut refusals = |message: Message| replica.step_snapshot(PeerMessage(message)).unwrap_err();
    assert_eq!(refusals(snapshot(0, 0)), StepError::Message(MessageError::EmptySnapshot));
    assert_eq!(refusals(snapshot(9, 0)), StepError::Message(MessageError::EmptySnapshot));
    let mut other = snapshot(9, 3);
    other.to = 2;
    assert_eq!(refusals(other), StepError::Message(MessageError::NotForUs { to: 2 }));
    let mut kind = snapshot(9, 3);
    kind.set_msg_type(MessageType::MsgAppend);
    assert_eq!(refusals(kind), StepError::Message(MessageError::Kind));
    let mut newer = snapshot(9, 3);
    newer.mut_snapshot().mut_metadata().term = 6;
    assert!(matches!(refusals(newer), StepError::Message(MessageError::Snapshot(_))));
    let mut data = snapshot(9, 3);
    data.mut_snapshot().data = vec![1].into();
    assert!(matches!(refusals(data), StepError::Message(MessageError::Snapshot(_))));
    for voters in [vec![], vec![2, 3], vec![1, 1], vec![0, 1]] {
        let mut members = snapshot(9, 3);
        members.mut_snapshot().mut_metadata().mut_conf_state().voters = voters;
        assert!(matches!(refusals(members), StepError::Message(MessageError::Snapshot(_))));
    }
    assert_eq!(refusals(snapshot(4, 3)), StepError::Quarantine(ReplicaError::Contradicted { index: 4 }));
    assert_eq!(replica.step(PeerMessage(snapshot(9, 3))), Err(StepError::Message(MessageError::Kind)));
    assert_eq!(replica.status(), before);
    assert_eq!(replica.outputs().unwrap(), None);
}

#[test]
fn a_stale_snapshot_drops_nothing() {
    let mut replica = replica();
    // Below what is committed; and what the log has, which only commits it.
    for (index, committed) in [(3, 4), (6, 6)] {
        assert_eq!(replica.step_snapshot(PeerMessage(snapshot(index, 2))), Ok(false));
        let outputs = replica.outputs().unwrap().unwrap();
        assert_eq!(outputs.install, None);
        assert_eq!((replica.status().last, replica.status().committed), (6, committed));
    }
    let mut past = snapshot(9, 2);
    past.term = 2;
    assert_eq!(replica.step_snapshot(PeerMessage(past)), Ok(false), "from a leader of the past");
    assert_eq!(replica.status().last, 6);
}

#[test]
fn while_a_snapshot_is_installed_there_is_no_election_and_no_other_snapshot() {
    let mut replica = replica();
    assert_eq!(replica.step_snapshot(PeerMessage(snapshot(9, 3))), Ok(true));
    let outputs = replica.outputs().unwrap().unwrap();
    assert_eq!(outputs.install, Some(installed(9, 3)));
    let persist = outputs.persist.unwrap();
    assert_eq!(persist.reset, Some(Truncated { index: 9, term: 3 }));
    assert!(persist.must_sync && persist.hard_state.is_some() && persist.conf_state == Some((group(), 9)));
    assert!(outputs.messages.is_empty(), "it is acknowledged only when it is there");
    assert_eq!(replica.step_snapshot(PeerMessage(snapshot(10, 3))), Err(StepError::Message(MessageError::Installing)));
    let mut now = Message { from: 2, to: 1, term: 5, ..Message::default() };
    now.set_msg_type(MessageType::MsgTimeoutNow);
    replica.step(PeerMessage(now)).unwrap();
    replica.campaign();
    for _ in 0..100 {
        replica.tick();
    }
    assert_eq!(replica.outputs().unwrap(), None);
    assert_eq!(replica.applied(9), Err(ReplicaError::AppliedTooFar { applied: 9, handed_out: 4 }), "not yet");
    replica.persisted(persist.ticket);
    assert_eq!(replica.status().applied, 9);
    let outputs = replica.outputs().unwrap().unwrap();
    assert_eq!(outputs.messages.len(), 1, "{outputs:?}");
    replica.campaign();
    assert!(replica.outputs().unwrap().is_some(), "it may stand again");
}

#[test]
fn a_captured_state_that_is_of_no_use_is_refused_with_a_reason() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = behind(&mut cluster);
    let other = ALL.into_iter().find(|id| *id != leader && *id != follower).unwrap();
    let (index, term) = (cluster.members[&leader].machine.applied(), cluster.members[&leader].machine.applied_term());
    let not_leader = cluster.replica(other).snapshot_message(follower, index, term);
    assert_eq!(not_leader, Err(SnapshotError::NotLeader { leader: Some(leader) }));
    let replica = cluster.replica(leader);
    let begins = replica.status().truncated.index;
    assert!(begins > 1);
    assert_eq!(replica.snapshot_message(follower, 0, 0), Err(SnapshotError::Empty));
    assert_eq!(replica.snapshot_message(follower, 1, 1), Err(SnapshotError::Old { index: 1, begins }));
    let future = index + 1;
    assert_eq!(
        replica.snapshot_message(follower, future, term),
        Err(SnapshotError::NotCommitted { index: future, term })
    );
    assert_eq!(replica.snapshot_message(follower, index, 9), Err(SnapshotError::NotCommitted { index, term: 9 }));
    assert_eq!(replica.snapshot_message(9, index, term), Err(SnapshotError::NotMember(9)));
    assert_eq!(replica.snapshot_message(leader, index, term), Err(SnapshotError::NotMember(leader)));
    assert_eq!(replica.snapshot_message(other, index, term), Err(SnapshotError::NotNeeded { index, has: index }));
    replica.propose_members(MemberChange::AddLearner(4)).unwrap();
    cluster.settle();
    let changed = cluster.members[&leader].machine.applied();
    let old = cluster.replica(leader).snapshot_message(follower, index, term);
    assert_eq!(old, Err(SnapshotError::MembersChanged { index, changed }));
    assert!(cluster.replica(leader).snapshot_message(follower, changed, term).is_ok());
}

#[test]
fn a_learner_whose_acknowledgement_overtakes_the_report_of_its_snapshot_may_vote_although_nothing_is_said() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect(&ALL);
    cluster.join(4);
    cluster.replica(leader).propose_members(MemberChange::AddLearner(4)).unwrap();
    cluster.settle();
    assert_eq!(cluster.ship_unreported(leader, 4), Ok(Some(true)));
    cluster.settle();
    cluster.replica(leader).snapshot_done(4, true);
    cluster.tick(10);
    assert!(cluster.replica(leader).member_progress(4).caught_up);
    cluster.replica(leader).propose_members(MemberChange::Promote(4)).unwrap();
}

#[test]
fn what_follows_a_snapshot_on_its_way_is_kept_until_it_is_done() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = behind(&mut cluster);
    cluster.restart(follower).unwrap();
    cluster.tick(5);
    let (index, term) = (cluster.members[&leader].machine.applied(), cluster.members[&leader].machine.applied_term());
    cluster.replica(leader).snapshot_message(follower, index, term).unwrap();
    for value in ["x", "y", "z"] {
        cluster.post(value, leader);
    }
    cluster.flush(leader);
    assert_eq!(cluster.replica(leader).status().truncated.index, index);
    cluster.replica(leader).snapshot_done(follower, false);
    cluster.flush(leader);
    assert!(cluster.replica(leader).status().truncated.index > index);
}
