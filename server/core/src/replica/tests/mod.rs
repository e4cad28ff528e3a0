//! What a group of replicas must hold, whatever the network and the disks do.

mod cluster;
mod everything;
mod follow;
mod leadership;
mod members;
mod reads;
mod recovery;
mod snapshots;

use cluster::Cluster;
use raft::ReadOnlyOption;
use rove_protocol::ids::PartitionId;

use super::{ProposeError, ReplicaConfig, ReplicaRole};

const ALL: [u64; 3] = [1, 2, 3];

#[test]
fn nothing_that_raft_leaves_unlimited_or_unsafe_is_left_so() {
    let config = ReplicaConfig::new(PartitionId(1), 1, vec![1]).raft(0);
    assert!(config.check_quorum && config.pre_vote);
    assert_eq!(config.read_only_option, ReadOnlyOption::Safe);
    let limits = [config.max_size_per_msg, config.max_uncommitted_size, config.max_committed_size_per_ready];
    assert!(limits.iter().all(|limit| (1..u64::from(u32::MAX)).contains(limit)), "{limits:?}");
    assert!((1..=1_024).contains(&config.max_inflight_msgs));
}

#[test]
fn a_group_of_one_leads_at_once_and_commits_only_what_is_persisted() {
    let mut cluster = Cluster::new(1);
    cluster.slow_disk(1, true);
    cluster.replica(1).campaign_if_alone();
    cluster.settle();
    assert_eq!(cluster.replica(1).status().role, ReplicaRole::Leader);
    assert_eq!(cluster.replica(1).status().committed, 0);
    cluster.propose(1, "a").unwrap();
    cluster.settle();
    assert_eq!(cluster.replica(1).uncommitted(), 2);
    while cluster.sync_one(1) {}
    cluster.settle();
    assert_eq!(cluster.values(1), ["a"]);
    assert!(cluster.replica(1).leads_with_authority());
}

#[test]
fn a_group_of_three_never_elects_itself_alone() {
    let mut cluster = Cluster::new(3);
    cluster.replica(1).campaign_if_alone();
    assert_eq!(cluster.replica(1).status().role, ReplicaRole::Follower);
    cluster.isolate(1);
    for _ in 0..100 {
        cluster.replica(1).tick();
        cluster.settle();
        assert_ne!(cluster.replica(1).status().role, ReplicaRole::Leader);
    }
    assert_eq!(cluster.replica(1).status().term, 0, "pre-vote keeps its term from running away");
}

#[test]
fn three_replicas_elect_one_leader_and_apply_the_same_in_the_same_order() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect(&ALL);
    let leaders =
        ALL.into_iter().filter(|id| cluster.replica(*id).status().role == ReplicaRole::Leader).collect::<Vec<_>>();
    assert_eq!(leaders, [leader]);
    for value in ["a", "b", "c"] {
        cluster.propose(leader, value).unwrap();
    }
    cluster.settle();
    cluster.tick(5);
    for id in ALL {
        assert_eq!(cluster.values(id), ["a", "b", "c"]);
        assert_eq!(cluster.replica(id).status().leader, Some(leader));
    }
}

#[test]
fn a_follower_refuses_proposals_and_names_the_leader() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect(&ALL);
    let follower = ALL.into_iter().find(|id| *id != leader).unwrap();
    cluster.settle();
    assert_eq!(cluster.propose(follower, "x"), Err(ProposeError::NotLeader { leader: Some(leader) }));
    cluster.tick(5);
    assert!(cluster.values(leader).is_empty(), "nothing was forwarded behind our back");
}

#[test]
fn an_isolated_leader_steps_down_and_what_it_could_not_commit_gives_way() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect(&ALL);
    cluster.post("before", old);
    cluster.isolate(old);
    cluster.propose(old, "lost 1").unwrap();
    cluster.propose(old, "lost 2").unwrap();
    cluster.settle();
    let others: Vec<u64> = ALL.into_iter().filter(|id| *id != old).collect();
    let new = cluster.elect(&others);
    // It notices within two of its election time-outs.
    cluster.tick(30);
    assert_ne!(cluster.replica(old).status().role, ReplicaRole::Leader, "check quorum");
    cluster.propose(new, "after").unwrap();
    cluster.settle();
    cluster.heal();
    cluster.tick(30);
    for id in ALL {
        assert_eq!(cluster.values(id), ["before", "after"]);
        let entries: Vec<_> = cluster.members[&id].disk.entries.iter().map(|entry| (entry.index, entry.term)).collect();
        let of_new: Vec<_> = cluster.members[&new].disk.entries.iter().map(|entry| (entry.index, entry.term)).collect();
        assert_eq!(entries, of_new, "conflicting entries are gone from the disk as well");
    }
}

#[test]
fn leadership_is_handed_over_and_proposals_are_refused_meanwhile() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect(&ALL);
    let heir = ALL.into_iter().find(|id| *id != old).unwrap();
    cluster.replica(old).transfer_leadership(heir);
    assert_eq!(cluster.propose(old, "x"), Err(ProposeError::Busy));
    cluster.settle();
    assert_eq!(cluster.elect(&[heir]), heir);
    cluster.post("y", heir);
    cluster.tick(5);
    assert_eq!(cluster.values(old), ["y"]);
}

#[test]
fn every_value_is_applied_everywhere_although_a_third_of_the_messages_is_lost() {
    let mut cluster = Cluster::new(3);
    cluster.elect(&ALL);
    cluster.loss_percent = 33;
    for value in 0..20 {
        let witness = 1 + value % 3;
        cluster.post(&value.to_string(), witness);
    }
    assert!(cluster.lost > 20, "the fault fired");
    cluster.heal();
    cluster.elect(&ALL);
    cluster.tick(30);
    let first = cluster.values(1);
    for value in 0..20 {
        assert!(first.contains(&value.to_string()));
    }
    for id in ALL {
        assert_eq!(cluster.values(id), first);
    }
}

#[test]
fn nothing_is_committed_before_a_majority_has_it_on_disk() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect(&ALL);
    cluster.slow_disks();
    cluster.propose(leader, "a").unwrap();
    cluster.settle();
    let before = cluster.replica(leader).status();
    assert_eq!(before.committed + 1, before.last, "all three have it, none on disk");

    while cluster.sync_one(leader) {}
    cluster.settle();
    assert_eq!(cluster.replica(leader).status().committed, before.committed, "one of three is no majority");

    let follower = ALL.into_iter().find(|id| *id != leader).unwrap();
    while cluster.sync_one(follower) {}
    cluster.settle();
    assert_eq!(cluster.replica(leader).status().committed, before.last);
    assert_eq!(cluster.values(leader), ["a"]);
}

#[test]
fn followers_alone_can_commit_but_the_leader_applies_only_what_its_own_disk_has() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect(&ALL);
    cluster.slow_disk(leader, true);
    cluster.propose(leader, "a").unwrap();
    cluster.settle();
    let status = cluster.replica(leader).status();
    assert_eq!(status.committed, status.last, "two followers are a majority");
    assert!(cluster.values(leader).is_empty());
    while cluster.sync_one(leader) {}
    cluster.settle();
    assert_eq!(cluster.values(leader), ["a"]);
}

#[test]
fn writes_that_pile_up_are_persisted_in_order_and_acknowledged_together() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect(&ALL);
    cluster.slow_disks();
    for value in ["a", "b", "c"] {
        cluster.propose(leader, value).unwrap();
        cluster.settle();
    }
    assert!(cluster.members[&leader].disk.pending.len() >= 3);
    for id in ALL {
        while cluster.sync_one(id) {}
    }
    cluster.settle();
    for id in ALL {
        while cluster.sync_one(id) {}
    }
    cluster.settle();
    assert_eq!(cluster.values(leader), ["a", "b", "c"]);
}
