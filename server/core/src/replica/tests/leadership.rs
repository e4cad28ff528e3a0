//! Handing leadership over.

use super::ALL;
use super::cluster::Cluster;
use crate::replica::{MemberChange, ProposeError, ReplicaRole};

#[test]
fn a_handover_to_a_voter_that_is_gone_ends_by_itself_and_the_leader_leads_on() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect(&ALL);
    let gone = ALL.into_iter().find(|id| *id != leader).unwrap();
    cluster.crash(gone);
    assert!(cluster.replica(leader).transfer_leadership(gone));
    assert!(cluster.replica(leader).is_transferring());
    assert_eq!(cluster.propose(leader, "x"), Err(ProposeError::Busy));
    cluster.tick(25);
    assert!(!cluster.replica(leader).is_transferring());
    assert_eq!(cluster.replica(leader).status().role, ReplicaRole::Leader);
    cluster.propose(leader, "y").unwrap();
    cluster.settle();
    assert_eq!(cluster.values(leader), ["y"]);
}

#[test]
fn a_second_handover_puts_an_end_to_the_first() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect(&ALL);
    let others: Vec<u64> = ALL.into_iter().filter(|id| *id != leader).collect();
    cluster.crash(others[0]);
    assert!(cluster.replica(leader).transfer_leadership(others[0]));
    assert!(cluster.replica(leader).transfer_leadership(others[1]));
    cluster.settle();
    assert_eq!(cluster.elect(&[others[1]]), others[1]);
}

#[test]
fn leadership_is_handed_over_only_by_the_leader_and_only_to_another_voter() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect(&ALL);
    let follower = ALL.into_iter().find(|id| *id != leader).unwrap();
    assert!(!cluster.replica(follower).transfer_leadership(follower));
    assert!(!cluster.replica(leader).transfer_leadership(leader));
    assert!(!cluster.replica(leader).transfer_leadership(9));
    cluster.replica(leader).propose_members(MemberChange::AddLearner(4)).unwrap();
    cluster.settle();
    assert!(!cluster.replica(leader).transfer_leadership(4), "a learner cannot lead");
    assert!(!cluster.replica(leader).is_transferring());
    cluster.settle();
    assert_eq!(cluster.replica(leader).status().role, ReplicaRole::Leader);
}

#[test]
fn in_a_storm_of_handovers_everything_that_was_acknowledged_is_kept_in_one_order() {
    let mut total = 0;
    for seed in 0..10 {
        let mut cluster = Cluster::new(3);
        cluster.seed(seed);
        cluster.shuffles = true;
        cluster.elect(&ALL);
        let mut terms = std::collections::BTreeSet::new();
        let mut acknowledged: Vec<String> = Vec::new();
        for round in 0..200 {
            cluster.loss_percent = 5;
            let (from, to) = (1 + cluster.random(3), 1 + cluster.random(3));
            cluster.replica(from).transfer_leadership(to);
            for id in ALL {
                let _ = cluster.propose(id, &format!("{round}/{id}"));
            }
            cluster.tick(1);
            terms.insert(cluster.replica(1).status().term);
            let longest = ALL.into_iter().map(|id| cluster.values(id)).max_by_key(Vec::len).unwrap();
            assert_eq!(longest[..acknowledged.len()], acknowledged, "seed {seed}, round {round}");
            acknowledged = longest;
        }
        total += acknowledged.len();
        assert!(terms.len() > 20, "seed {seed}: leadership changed {} times only", terms.len());
        cluster.heal();
        cluster.elect(&ALL);
        cluster.tick(30);
        for id in ALL {
            assert_eq!(cluster.values(id)[..acknowledged.len()], acknowledged);
            assert_eq!(cluster.values(id), cluster.values(1));
        }
    }
    assert!(total > 500, "{total} values were acknowledged in the storm");
}

#[test]
fn what_was_lost_with_a_link_is_sent_again() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect(&ALL);
    let follower = ALL.into_iter().find(|id| *id != leader).unwrap();
    cluster.isolate(follower);
    for value in ["a", "b", "c"] {
        cluster.propose(leader, value).unwrap();
        cluster.settle();
    }
    cluster.heal();
    cluster.tick(4);
    assert_eq!(cluster.values(follower), ["a", "b", "c"]);
}
