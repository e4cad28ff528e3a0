//! Members come and go: exactly once, never to a group that is less safe, whoever dies on the way.

use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Message, MessageType};
use rove_protocol::ids::NodeId;

use super::ALL;
use super::cluster::{Cluster, config, logger};
use crate::replica::{
    MemberChange, MembersError, Membership, MessageError, PeerMessage, Recovered, Replica, ReplicaError, ReplicaRole,
    StepError, member_of,
};

const FOUR: [u64; 4] = [1, 2, 3, 4];

/// Three founders and a learner, 4, that has caught up.
fn with_learner() -> (Cluster, u64) {
    let mut cluster = Cluster::new(3);
    cluster.ships = true;
    let leader = cluster.elect(&ALL);
    cluster.post("before", leader);
    cluster.join(4);
    cluster.replica(leader).propose_members(MemberChange::AddLearner(4)).unwrap();
    cluster.settle();
    cluster.tick(10);
    assert_eq!(cluster.replica(leader).status().role, ReplicaRole::Leader);
    (cluster, leader)
}

fn voters(cluster: &mut Cluster, id: u64) -> Vec<u64> {
    let state = cluster.replica(id).conf_state();
    assert!(state.voters_outgoing.is_empty() && state.learners_next.is_empty(), "joint: {state:?}");
    let mut voters = state.voters.clone();
    voters.sort_unstable();
    voters
}

fn other_than(leader: u64) -> u64 {
    ALL.into_iter().find(|id| *id != leader).unwrap()
}

/// Whoever leads now among those that run.
pub(super) fn leader(cluster: &Cluster) -> Option<u64> {
    let leads = |id: &u64| cluster.members[id].replica.as_ref().is_some_and(Replica::leads_with_authority);
    cluster
        .members
        .keys()
        .copied()
        .filter(leads)
        .max_by_key(|id| cluster.members[id].replica.as_ref().map(|replica| replica.status().term))
}

#[test]
fn a_learner_gets_everything_from_a_snapshot_and_the_log_and_votes_only_when_promoted() {
    let (mut cluster, leader) = with_learner();
    assert_eq!(cluster.members[&4].installs, 1, "it was not there when the group began");
    assert_eq!(cluster.values(4), ["before"]);
    assert_eq!(cluster.replica(4).status().membership, Membership::Learner);
    cluster.replica(4).campaign();
    assert_eq!(cluster.replica(4).status().role, ReplicaRole::Follower);
    cluster.replica(leader).propose_members(MemberChange::Promote(4)).unwrap();
    cluster.settle();
    for id in FOUR {
        assert_eq!(voters(&mut cluster, id), FOUR);
        assert_eq!(cluster.replica(id).status().membership, Membership::Voter);
    }
    // Three of four are a majority now, two are not.
    let follower = other_than(leader);
    cluster.crash(follower);
    cluster.propose(leader, "three").unwrap();
    cluster.settle();
    assert_eq!(cluster.values(4), ["before", "three"]);
    cluster.isolate(4);
    cluster.propose(leader, "two").unwrap();
    cluster.settle();
    assert_eq!(cluster.values(leader), ["before", "three"]);
}

#[test]
fn a_learner_that_lags_is_not_promoted() {
    let (mut cluster, leader) = with_learner();
    cluster.isolate(4);
    for value in 0..20 {
        cluster.propose(leader, &value.to_string()).unwrap();
        cluster.settle();
    }
    let replace = MemberChange::Replace { old: other_than(leader), new: 4 };
    for change in [MemberChange::Promote(4), replace] {
        let refused = cluster.replica(leader).propose_members(change);
        assert!(matches!(refused, Err(MembersError::NotCaughtUp { id: 4, .. })), "{refused:?}");
    }
    cluster.heal();
    cluster.tick(6);
    cluster.replica(leader).propose_members(replace).unwrap();
    // One that was never heard of lacks everything.
    cluster.settle();
    cluster.tick(3);
    cluster.replica(leader).propose_members(MemberChange::AddLearner(5)).unwrap();
    cluster.settle();
    let refused = cluster.replica(leader).propose_members(MemberChange::Promote(5));
    assert!(matches!(refused, Err(MembersError::NotCaughtUp { id: 5, matched: 0, .. })), "{refused:?}");
}

#[test]
fn a_replica_is_replaced_in_one_joint_change_that_ends_by_itself() {
    let (mut cluster, leader) = with_learner();
    let old = other_than(leader);
    cluster.replica(leader).propose_members(MemberChange::Replace { old, new: 4 }).unwrap();
    let again = cluster.replica(leader).propose_members(MemberChange::Remove(old));
    assert_eq!(again, Err(MembersError::UnderWay));
    cluster.settle();
    let expected: Vec<u64> = FOUR.into_iter().filter(|id| *id != old).collect();
    for id in &expected {
        assert_eq!(voters(&mut cluster, *id), expected);
        assert_eq!(cluster.members[id].disk.conf_state.0, *cluster.members[id].replica.as_ref().unwrap().conf_state());
    }
    cluster.crash(old);
    cluster.post("after", 4);
}

#[test]
fn changes_that_cannot_be_are_refused_with_a_reason() {
    let (mut cluster, leader) = with_learner();
    let follower = other_than(leader);
    let refused = |cluster: &mut Cluster, change| cluster.replica(leader).propose_members(change).unwrap_err();
    let not_leader = cluster.replica(follower).propose_members(MemberChange::Remove(4));
    assert_eq!(not_leader, Err(MembersError::NotLeader { leader: Some(leader) }));
    assert_eq!(refused(&mut cluster, MemberChange::AddLearner(4)), MembersError::AlreadyMember(4));
    assert_eq!(refused(&mut cluster, MemberChange::AddLearner(0)), MembersError::AlreadyMember(0));
    assert_eq!(refused(&mut cluster, MemberChange::Promote(follower)), MembersError::NotLearner(follower));
    assert_eq!(refused(&mut cluster, MemberChange::Remove(9)), MembersError::NotMember(9));
    assert_eq!(refused(&mut cluster, MemberChange::Remove(leader)), MembersError::Leads);
    assert_eq!(refused(&mut cluster, MemberChange::Replace { old: 9, new: 4 }), MembersError::NotVoter(9));
    let replace = MemberChange::Replace { old: leader, new: 4 };
    assert_eq!(refused(&mut cluster, replace), MembersError::Leads);
    assert!(cluster.replica(leader).transfer_leadership(follower));
    assert_eq!(refused(&mut cluster, MemberChange::Remove(4)), MembersError::HandingOver);
}

#[test]
fn a_number_lower_than_that_of_its_nodes_replica_is_refused() {
    let mut cluster = Cluster::new(3);
    cluster.ships = true;
    let leader = cluster.elect(&ALL);
    let (second, third) = (member_of(NodeId(5), 1), member_of(NodeId(5), 2));
    cluster.replica(leader).propose_members(MemberChange::AddLearner(second)).unwrap();
    cluster.settle();
    let refused = cluster.replica(leader).propose_members(MemberChange::AddLearner(5));
    assert_eq!(refused, Err(MembersError::Reused { id: 5, highest: second }));
    cluster.replica(leader).propose_members(MemberChange::AddLearner(third)).unwrap();
}

#[test]
fn the_last_voter_cannot_go() {
    let mut cluster = Cluster::new(1);
    cluster.replica(1).campaign_if_alone();
    cluster.settle();
    let refused = cluster.replica(1).propose_members(MemberChange::Remove(1));
    assert_eq!(refused, Err(MembersError::Leads));
}

#[test]
fn a_removed_replica_says_so_and_never_stands_for_election_even_after_a_restart() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect(&ALL);
    let gone = other_than(leader);
    cluster.replica(leader).propose_members(MemberChange::Remove(gone)).unwrap();
    cluster.settle();
    for restart in [false, true] {
        if restart {
            cluster.crash(gone);
            cluster.restart(gone).unwrap();
        }
        cluster.isolate(gone);
        cluster.replica(gone).campaign();
        for _ in 0..60 {
            cluster.replica(gone).tick();
            cluster.settle();
        }
        let status = cluster.replica(gone).status();
        assert_eq!((status.membership, status.role), (Membership::Removed, ReplicaRole::Follower));
    }
    cluster.heal();
    cluster.post("after", leader);
    assert!(!cluster.values(gone).contains(&"after".to_owned()));
}

#[test]
fn a_replica_that_joins_waits_and_never_elects_itself() {
    let mut cluster = Cluster::new(3);
    cluster.join(4);
    cluster.replica(4).campaign_if_alone();
    cluster.replica(4).campaign();
    for _ in 0..60 {
        cluster.replica(4).tick();
        cluster.settle();
    }
    let status = cluster.replica(4).status();
    assert_eq!((status.membership, status.role, status.term), (Membership::Joining, ReplicaRole::Follower, 0));
}

/// F30: a replica is replaced under load, and whoever leads dies after each possible number of messages.
#[test]
fn a_replace_ends_in_one_group_wherever_the_leader_dies_on_the_way() {
    let (mut went_through, mut came_to_nothing) = (0, 0);
    for run in 0..120 {
        let messages = run % 40;
        let (mut cluster, first) = with_learner();
        cluster.seed(run as u64);
        cluster.shuffles = run >= 40;
        let old = other_than(first);
        cluster.deliveries = Some(messages);
        cluster.replica(first).propose_members(MemberChange::Replace { old, new: 4 }).unwrap();
        for value in ["a", "b", "c"] {
            let _ = cluster.propose(first, value);
            cluster.settle();
        }
        cluster.deliveries = None;
        cluster.crash(first);
        cluster.silence(first);
        cluster.shuffles = false;
        let rest: Vec<u64> = FOUR.into_iter().filter(|id| *id != first).collect();
        let second = cluster.elect(&rest);
        cluster.post("second", second);
        cluster.restart(first).unwrap();
        cluster.tick(60);
        let second = leader(&cluster).expect("somebody leads");
        let now = voters(&mut cluster, second);
        let replaced: Vec<u64> = FOUR.into_iter().filter(|id| *id != old).collect();
        if now == replaced {
            went_through += 1;
        } else {
            assert_eq!(now, ALL, "run {run}: neither the old group nor the new");
            came_to_nothing += 1;
            if second == old {
                assert!(cluster.replica(second).transfer_leadership(other_than(old)));
                cluster.tick(5);
            }
            let third = leader(&cluster).unwrap();
            cluster.replica(third).propose_members(MemberChange::Replace { old, new: 4 }).unwrap();
            cluster.tick(5);
        }
        cluster.crash(old);
        cluster.post("after", 4);
        cluster.tick(30);
        for id in &replaced {
            assert_eq!(voters(&mut cluster, *id), replaced, "run {run}");
            assert_eq!(cluster.values(*id), cluster.values(4));
        }
    }
    assert!(went_through > 50 && came_to_nothing > 0, "{went_through} went through, {came_to_nothing} did not");
}

#[test]
fn a_joint_configuration_is_left_by_the_next_leader_and_a_leader_that_goes_steps_down() {
    let (mut cluster, first) = with_learner();
    let old = other_than(first);
    // The change begins, and its first leader dies before it has ended it.
    cluster.replica(first).propose_members(MemberChange::Replace { old, new: 4 }).unwrap();
    for messages in 0..40 {
        if !cluster.replica(old).conf_state().voters_outgoing.is_empty() {
            break;
        }
        cluster.deliveries = Some(usize::from(messages > 0));
        cluster.settle();
    }
    assert!(!cluster.replica(old).conf_state().voters_outgoing.is_empty(), "it is in between");
    cluster.crash(first);
    cluster.silence(first);
    cluster.deliveries = None;
    // The one that is to go stands first, before others who have just started and know of no leader; watched message by message.
    for id in FOUR.into_iter().filter(|id| *id != first && *id != old) {
        cluster.crash(id);
        cluster.restart(id).unwrap();
    }
    cluster.replica(old).campaign();
    let mut led = false;
    for _ in 0..60 {
        cluster.deliveries = Some(1);
        cluster.settle();
        led |= cluster.replica(old).status().role == ReplicaRole::Leader;
    }
    cluster.deliveries = None;
    assert!(led, "the old voters still count");
    cluster.settle();
    let rest: Vec<u64> = FOUR.into_iter().filter(|id| *id != first && *id != old).collect();
    let last = cluster.elect(&rest);
    let expected: Vec<u64> = FOUR.into_iter().filter(|id| *id != old).collect();
    assert_eq!(voters(&mut cluster, last), expected);
    assert_ne!(cluster.replica(old).status().role, ReplicaRole::Leader);
    cluster.post("after", last);
}

#[test]
fn a_change_takes_effect_once_whatever_was_stored_when_the_power_went() {
    for writes in 0..6 {
        for flushed in [false, true] {
            let (mut cluster, leader) = with_learner();
            let follower = other_than(leader);
            let third = ALL.into_iter().find(|id| *id != leader && *id != follower).unwrap();
            cluster.slow_disk(follower, true);
            cluster.replica(leader).propose_members(MemberChange::Replace { old: third, new: 4 }).unwrap();
            for _ in 0..writes {
                cluster.settle();
                cluster.sync_one(follower);
            }
            cluster.settle();
            if flushed {
                cluster.flush(follower);
            }
            cluster.crash(follower);
            cluster.slow_disk(follower, false);
            cluster.restart(follower).unwrap();
            cluster.tick(30);
            let at_leader = cluster.replica(leader).conf_state().clone();
            assert_eq!(*cluster.replica(follower).conf_state(), at_leader, "{writes} writes, flushed: {flushed}");
            cluster.crash(follower);
            cluster.restart(follower).unwrap();
            assert_eq!(*cluster.replica(follower).conf_state(), at_leader, "again");
            cluster.post("after", follower);
        }
    }
}

#[test]
fn the_log_is_not_truncated_above_members_that_are_not_stored() {
    let mut cluster = Cluster::new(1);
    cluster.replica(1).campaign_if_alone();
    cluster.settle();
    cluster.replica(1).propose_members(MemberChange::AddLearner(2)).unwrap();
    cluster.settle();
    cluster.replica(1).propose_members(MemberChange::Remove(2)).unwrap();
    let changed = cluster.replica(1).status().last;
    let outputs = cluster.replica(1).outputs().unwrap().unwrap();
    cluster.replica(1).persisted(outputs.persist.unwrap().ticket);
    let outputs = cluster.replica(1).outputs().unwrap().unwrap();
    assert_eq!(outputs.committed.last().unwrap().index, changed);
    let persist = outputs.persist.unwrap();
    assert_eq!(persist.conf_state.as_ref().unwrap().1, changed);
    assert!(persist.must_sync);
    cluster.replica(1).applied(changed).unwrap();
    let kept = cluster.replica(1).state_durable(changed);
    assert!(kept.is_none_or(|truncated| truncated.index < changed), "{kept:?}");
    cluster.replica(1).persisted(persist.ticket);
    assert_eq!(cluster.replica(1).state_durable(changed).unwrap().index, changed);
}

#[test]
fn members_that_were_not_stored_are_taken_from_the_log() {
    let (mut cluster, leader) = with_learner();
    let disk = &cluster.members[&leader].disk;
    let recovered = Recovered {
        hard_state: disk.hard_state.clone(),
        entries: disk.entries.clone(),
        applied: cluster.members[&leader].machine.applied(),
        conf_state: ConfState { voters: vec![1, 2, 3], ..ConfState::default() },
        ..Recovered::default()
    };
    let replica = Replica::recover(config(leader, 3), recovered, &logger()).unwrap();
    assert_eq!(replica.conf_state().learners, [4]);
    assert_eq!(*replica.conf_state(), *cluster.replica(leader).conf_state());
}

#[test]
fn a_configuration_that_was_edited_does_not_change_a_group_that_exists() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect(&ALL);
    let disk = &cluster.members[&leader].disk;
    assert_eq!(disk.conf_state, (ConfState { voters: vec![1, 2, 3], ..ConfState::default() }, 0));
    let recovered = Recovered {
        hard_state: disk.hard_state.clone(),
        entries: disk.entries.clone(),
        conf_state: disk.conf_state.0.clone(),
        ..Recovered::default()
    };
    let mut edited = config(leader, 3);
    edited.voters = vec![leader];
    let replica = Replica::recover(edited, recovered, &logger()).unwrap();
    assert_eq!(replica.conf_state().voters, [1, 2, 3]);
}

#[test]
fn members_that_no_group_can_have_are_a_reason_and_never_a_panic() {
    let with = |conf_state: ConfState| {
        let recovered = Recovered { conf_state, ..Recovered::default() };
        Replica::recover(config(1, 3), recovered, &logger()).map(|_| ()).unwrap_err()
    };
    let twice = ConfState { voters: vec![1, 1], ..ConfState::default() };
    assert!(matches!(with(twice), ReplicaError::Members { index: 0, .. }));
    let both = ConfState { voters: vec![1], learners: vec![1], ..ConfState::default() };
    assert!(matches!(with(both), ReplicaError::Members { index: 0, .. }));
    let ends = ConfState { voters: vec![1], auto_leave: true, ..ConfState::default() };
    assert!(matches!(with(ends), ReplicaError::Members { index: 0, .. }));
    let ahead = Recovered {
        conf_state: ConfState { voters: vec![1], ..ConfState::default() },
        conf_index: 5,
        ..Recovered::default()
    };
    let lost = Replica::recover(config(1, 3), ahead, &logger()).map(|_| ());
    assert_eq!(lost.unwrap_err(), ReplicaError::LogLost { last: 0, needed: 5 });
    // A change in the log that leads to no group.
    let mut entry = Entry { index: 1, term: 1, ..Entry::default() };
    entry.set_entry_type(EntryType::EntryConfChangeV2);
    let recovered = Recovered {
        hard_state: HardState { term: 1, ..HardState::default() },
        entries: vec![entry],
        applied: 1,
        ..Recovered::default()
    };
    let impossible = Replica::recover(config(1, 3), recovered, &logger()).map(|_| ());
    assert!(matches!(impossible, Err(ReplicaError::Members { index: 1, .. })), "{impossible:?}");
}

#[test]
fn a_peers_entry_that_is_no_change_of_members_is_dropped() {
    let mut replica = Replica::recover(config(1, 3), Recovered::default(), &logger()).unwrap();
    for (kind, data) in [(EntryType::EntryConfChangeV2, vec![0xff; 5]), (EntryType::EntryConfChange, vec![])] {
        let mut entry = Entry { index: 1, term: 1, data: data.into(), ..Entry::default() };
        entry.set_entry_type(kind);
        let mut message = Message { from: 2, to: 1, term: 1, ..Message::default() };
        message.set_msg_type(MessageType::MsgAppend);
        message.set_entries(vec![entry].into());
        assert_eq!(replica.step(PeerMessage(message)), Err(StepError::Message(MessageError::Entries)));
    }
}
