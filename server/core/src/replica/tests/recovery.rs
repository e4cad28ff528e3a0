//! Restarts, losses, and disks that cannot be trusted.

use raft::eraftpb::{Entry, HardState, Message, MessageType};

use super::ALL;
use super::cluster::{Cluster, config, logger};
use crate::replica::{
    MessageError, PeerMessage, Persist, Recovered, Replica, ReplicaError, ReplicaRole, StepError, Truncated,
};

#[test]
fn an_acknowledged_value_survives_the_loss_of_everything_unsynced_on_all_three() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect(&ALL);
    cluster.post("kept", leader);
    cluster.slow_disks();
    cluster.propose(leader, "not acknowledged").unwrap();
    cluster.settle();
    assert_eq!(cluster.values(leader), ["kept"]);
    for id in ALL {
        assert!(!cluster.members[&id].disk.pending.is_empty(), "there is something to lose");
        cluster.crash(id);
    }
    for id in ALL {
        cluster.slow_disk(id, false);
        cluster.restart(id).unwrap();
    }
    let leader = cluster.elect(&ALL);
    cluster.post("later", leader);
    cluster.tick(10);
    for id in ALL {
        assert_eq!(cluster.values(id), ["kept", "later"]);
    }
}

#[test]
fn a_follower_that_lost_what_it_had_not_synced_catches_up() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect(&ALL);
    let follower = ALL.into_iter().find(|id| *id != leader).unwrap();
    cluster.slow_disk(follower, true);
    for value in ["a", "b"] {
        cluster.propose(leader, value).unwrap();
        cluster.settle();
    }
    assert_eq!(cluster.values(leader), ["a", "b"], "the other two are a majority");
    cluster.crash(follower);
    cluster.slow_disk(follower, false);
    cluster.restart(follower).unwrap();
    cluster.tick(30);
    assert_eq!(cluster.values(follower), ["a", "b"]);
}

#[test]
fn a_vote_that_was_not_synced_was_not_given() {
    let mut cluster = Cluster::new(3);
    cluster.slow_disks();
    // Replica 1 stands first (its time-out is the shortest); nobody's vote is on disk, its own included.
    cluster.tick(40);
    for id in ALL {
        assert_ne!(cluster.replica(id).status().role, ReplicaRole::Leader);
    }
    for _ in 0..10 {
        for id in ALL {
            while cluster.sync_one(id) {}
        }
        cluster.settle();
    }
    assert!(ALL.into_iter().any(|id| cluster.replica(id).status().role == ReplicaRole::Leader));
}

#[test]
fn a_restart_applies_again_what_the_state_had_not_flushed() {
    let mut cluster = Cluster::new(1);
    cluster.replica(1).campaign_if_alone();
    cluster.settle();
    for value in ["a", "b"] {
        cluster.propose(1, value).unwrap();
    }
    cluster.settle();
    cluster.flush(1);
    for value in ["c", "d"] {
        cluster.propose(1, value).unwrap();
    }
    cluster.settle();
    cluster.crash(1);
    assert_eq!(cluster.values(1), ["a", "b"]);
    cluster.restart(1).unwrap();
    cluster.replica(1).campaign_if_alone();
    cluster.settle();
    assert_eq!(cluster.values(1), ["a", "b", "c", "d"]);
}

#[test]
fn the_log_is_truncated_only_below_what_is_applied_and_durable() {
    let mut cluster = Cluster::new(1);
    cluster.replica(1).campaign_if_alone();
    cluster.settle();
    for value in 0..10 {
        cluster.propose(1, &value.to_string()).unwrap();
    }
    cluster.settle();
    let status = cluster.replica(1).status();
    assert_eq!(cluster.replica(1).state_durable(0), None);
    let truncated = cluster.replica(1).state_durable(4).unwrap();
    assert_eq!(truncated, Truncated { index: 4, term: 1 });
    let truncated = cluster.replica(1).state_durable(u64::MAX).unwrap();
    assert_eq!(truncated.index, status.applied, "never above what is applied");
    assert_eq!(cluster.replica(1).status().log_bytes, 0);
    cluster.propose(1, "more").unwrap();
    cluster.settle();
    assert_eq!(cluster.values(1).last().unwrap(), "more");
}

#[test]
fn entries_are_kept_for_peers_and_a_follower_restarts_from_a_truncated_log() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect(&ALL);
    let follower = ALL.into_iter().find(|id| *id != leader).unwrap();
    for value in 0..10 {
        cluster.post(&value.to_string(), follower);
    }
    assert!(cluster.flush(follower).is_some());
    cluster.crash(follower);
    cluster.restart(follower).unwrap();
    cluster.post("more", follower);
    assert_eq!(cluster.values(follower).len(), 11);
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, ..Entry::default() }
}

fn found(term: u64, commit: u64, entries: &[(u64, u64)], truncated: (u64, u64), applied: u64) -> Recovered {
    Recovered {
        hard_state: HardState { term, commit, ..HardState::default() },
        truncated: Truncated { index: truncated.0, term: truncated.1 },
        entries: entries.iter().map(|(index, term)| entry(*index, *term)).collect(),
        applied,
        ..Recovered::default()
    }
}

fn reason(recovered: Recovered) -> ReplicaError {
    Replica::recover(config(1, 3), recovered, &logger()).map(|_| ()).unwrap_err()
}

#[test]
fn a_disk_that_cannot_be_trusted_is_a_reason_and_never_a_panic() {
    let log = [(1, 1), (2, 1), (3, 2)];
    assert_eq!(reason(found(2, 0, &[(1, 1), (3, 2)], (0, 0), 0)), ReplicaError::Gap { expected: 2, found: 3 });
    assert_eq!(reason(found(2, 0, &log, (1, 1), 1)), ReplicaError::Gap { expected: 2, found: 1 });
    assert_eq!(
        reason(found(2, 0, &[(1, 2), (2, 1)], (0, 0), 0)),
        ReplicaError::TermWentBack { index: 2, term: 1, previous: 2 }
    );
    assert_eq!(reason(found(1, 0, &log, (0, 0), 0)), ReplicaError::StaleHardState { term: 1, last_term: 2 });
    assert_eq!(reason(found(2, 4, &log, (0, 0), 0)), ReplicaError::LogLost { last: 3, needed: 4 });
    assert_eq!(reason(found(2, 1, &log, (0, 0), 5)), ReplicaError::LogLost { last: 3, needed: 5 });
    assert_eq!(reason(found(2, 3, &[(3, 2)], (2, 1), 1)), ReplicaError::StateLost { applied: 1, truncated: 2 });
    let mut stranger = config(4, 3);
    stranger.voters = vec![1, 2, 3];
    let stranger = Replica::recover(stranger, Recovered::default(), &logger()).map(|_| ());
    assert!(matches!(stranger, Err(ReplicaError::NotMember { id: 4, .. })));
    let mut wrong = config(1, 1);
    wrong.election_ticks = 1..2;
    assert!(matches!(Replica::recover(wrong, Recovered::default(), &logger()), Err(ReplicaError::Config(_))));
}

#[test]
fn the_commit_index_rises_to_what_the_state_has_applied() {
    let replica = Replica::recover(config(1, 1), found(2, 1, &[(1, 1), (2, 1), (3, 2)], (0, 0), 2), &logger()).unwrap();
    let status = replica.status();
    assert_eq!((status.committed, status.applied, status.last), (2, 2, 3));
}

/// Carries out everything, and returns what was written.
fn writes(replica: &mut Replica) -> Vec<Persist> {
    let mut written = Vec::new();
    while let Some(outputs) = replica.outputs().unwrap() {
        if let Some(last) = outputs.committed.last() {
            replica.applied(last.index).unwrap();
        }
        if let Some(persist) = outputs.persist {
            replica.persisted(persist.ticket);
            written.push(persist);
        }
    }
    written
}

#[test]
fn that_something_is_committed_is_written_with_what_comes_next_and_not_for_its_own_sake() {
    let mut replica = Replica::recover(config(1, 1), Recovered::default(), &logger()).unwrap();
    replica.campaign_if_alone();
    writes(&mut replica);
    let committed = replica.status().committed;
    for index in committed + 1..committed + 4 {
        replica.propose(b"post".to_vec()).unwrap();
        let written = writes(&mut replica);
        assert_eq!(replica.status().committed, index);
        assert_eq!((written.len(), written[0].entries.len()), (1, 1), "{written:?}");
        assert_eq!(written[0].hard_state.as_ref().map(|state| state.commit), Some(index - 1));
    }
}

fn message(kind: MessageType, term: u64) -> Message {
    let mut message = Message { from: 2, to: 1, term, ..Message::default() };
    message.set_msg_type(kind);
    message
}

#[test]
fn a_heartbeat_that_commits_what_the_log_has_lost_quarantines_the_replica() {
    let mut replica =
        Replica::recover(config(1, 3), found(2, 1, &[(1, 1)], (0, 0), 1), &logger()).unwrap_or_else(|error| {
            panic!("{error}");
        });
    let mut heartbeat = message(MessageType::MsgHeartbeat, 2);
    heartbeat.commit = 7;
    assert_eq!(
        replica.step(PeerMessage(heartbeat.clone())),
        Err(StepError::Quarantine(ReplicaError::LogLost { last: 1, needed: 7 }))
    );
    heartbeat.term = 1;
    assert_eq!(replica.step(PeerMessage(heartbeat)), Ok(()), "an old term proves nothing");
}

#[test]
fn a_peers_bad_message_is_dropped() {
    let mut replica = Replica::recover(config(1, 3), Recovered::default(), &logger()).unwrap();
    let step = |replica: &mut Replica, message: Message| match replica.step(PeerMessage(message)) {
        Err(StepError::Message(error)) => error,
        other => panic!("{other:?}"),
    };
    for kind in [MessageType::MsgPropose, MessageType::MsgHup, MessageType::MsgTransferLeader, MessageType::MsgSnapshot]
    {
        assert_eq!(step(&mut replica, message(kind, 1)), MessageError::Kind);
    }
    let mut holes = message(MessageType::MsgAppend, 1);
    holes.set_entries(vec![entry(1, 1), entry(3, 1)].into());
    assert_eq!(step(&mut replica, holes), MessageError::Entries);
    let mut boast = message(MessageType::MsgAppendResponse, 1);
    boast.index = 9;
    assert_eq!(step(&mut replica, boast), MessageError::Acknowledges { index: 9, last: 0 });
    assert_eq!(step(&mut replica, message(MessageType::MsgRequestVote, 0)), MessageError::NoTerm);
    let mut other = message(MessageType::MsgHeartbeat, 1);
    other.to = 3;
    assert_eq!(step(&mut replica, other), MessageError::NotForUs { to: 3 });
    assert!(matches!(PeerMessage::decode(&[0xff; 9]), Err(MessageError::Malformed(_))));
    assert!(matches!(PeerMessage::decode(&vec![0; 4 << 20]), Err(MessageError::TooLarge(_))));
}

#[test]
fn saying_that_something_is_applied_that_was_never_handed_out_is_an_error() {
    let mut cluster = Cluster::new(1);
    cluster.replica(1).campaign_if_alone();
    cluster.settle();
    assert_eq!(cluster.replica(1).applied(9), Err(ReplicaError::AppliedTooFar { applied: 9, handed_out: 1 }));
    assert_eq!(cluster.replica(1).applied(0), Err(ReplicaError::AppliedWentBack { applied: 0, before: 1 }));
}
