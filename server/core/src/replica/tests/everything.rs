//! Everything at once: replicas die, disks are slow, members and leaders change, logs are truncated, snapshots are installed and killed
//! half-way (F32), messages are lost and come in any order. What anybody has applied nobody contradicts, and in the end all are the
//! same.

use super::ALL;
use super::cluster::{Applied, Cluster};
use crate::replica::MemberChange;

const FIVE: [u64; 5] = [1, 2, 3, 4, 5];
const ROUNDS: u64 = 400;

/// What happened, to see that enough did.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    installs: usize,
    deaths: usize,
    changes: usize,
}

fn revive_all(cluster: &mut Cluster) {
    for id in FIVE {
        if cluster.members[&id].replica.is_none() {
            cluster.restart(id).unwrap_or_else(|error| panic!("replica {id}: {error}"));
        }
    }
}

/// One thing goes wrong, or right.
fn disturb(cluster: &mut Cluster, counts: &mut Counts) {
    let id = 1 + cluster.random(5);
    match cluster.random(20) {
        0 => cluster.crash(id),
        1 => cluster.members.get_mut(&id).unwrap().dies_when_installed = true,
        2..=4 => revive_all(cluster),
        5 => cluster.isolate(id),
        6 | 7 => cluster.heal(),
        8..=10 => {
            cluster.flush(id);
        }
        11 => cluster.slow_disk(id, true),
        12 => FIVE.into_iter().for_each(|id| cluster.slow_disk(id, false)),
        choice => counts.changes += usize::from(change(cluster, id, choice)),
    }
}

/// Asks one replica for a change of the members or the leader. Nobody is removed but learners that never voted: their number is
/// given out again here, which nothing but a lost vote would mind.
fn change(cluster: &mut Cluster, id: u64, choice: u64) -> bool {
    let other = 1 + cluster.random(5);
    let Some(replica) = cluster.members.get_mut(&id).and_then(|member| member.replica.as_mut()) else { return false };
    let change = match choice {
        13 => MemberChange::AddLearner(other),
        14 | 15 => MemberChange::Promote(other),
        16 if replica.conf_state().learners.contains(&other) => MemberChange::Remove(other),
        _ => {
            replica.transfer_leadership(other);
            return false;
        }
    };
    replica.propose_members(change).is_ok()
}

/// Runs one seed and gives what was applied.
fn run(seed: u64, counts: &mut Counts) -> Vec<Applied> {
    let mut cluster = Cluster::new(3);
    cluster.seed(seed);
    cluster.ships = true;
    cluster.shuffles = true;
    cluster.elect(&ALL);
    cluster.join(4);
    cluster.join(5);
    let mut history: Vec<Applied> = Vec::new();
    for round in 0..ROUNDS {
        cluster.loss_percent = 5;
        let alive = |cluster: &Cluster| FIVE.iter().filter(|id| cluster.members[id].replica.is_some()).count();
        let before = alive(&cluster);
        disturb(&mut cluster, counts);
        for id in FIVE {
            if cluster.members[&id].replica.is_some() {
                let _ = cluster.propose(id, &format!("{round}/{id}"));
            }
        }
        cluster.tick(1);
        counts.deaths += before.saturating_sub(alive(&cluster));
        for member in cluster.members.values() {
            let both = history.len().min(member.machine.log.len());
            assert_eq!(history[..both], member.machine.log[..both], "seed {seed}, round {round}");
            history.extend_from_slice(&member.machine.log[both..]);
        }
    }
    counts.installs += cluster.members.values().map(|member| member.installs).sum::<usize>();
    settle_down(&mut cluster, seed);
    assert_eq!(history[..], cluster.members[&1].machine.log[..history.len()], "seed {seed}: something applied is gone");
    history
}

/// Nothing is wrong any more: all who are members come to the same.
fn settle_down(cluster: &mut Cluster, seed: u64) {
    cluster.heal();
    for id in FIVE {
        cluster.slow_disk(id, false);
        cluster.members.get_mut(&id).unwrap().dies_when_installed = false;
    }
    revive_all(cluster);
    let leader = cluster.elect(&FIVE);
    cluster.post("end", leader);
    cluster.tick(60);
    let members = cluster.replica(leader).conf_state().clone();
    assert!(members.voters_outgoing.is_empty(), "seed {seed}: {members:?}");
    for id in members.voters.iter().chain(&members.learners) {
        assert_eq!(cluster.members[id].machine.log, cluster.members[&leader].machine.log, "seed {seed}, replica {id}");
        assert_eq!(*cluster.replica(*id).conf_state(), members, "seed {seed}, replica {id}");
    }
}

#[test]
fn five_replicas_agree_through_everything_at_once() {
    let mut counts = Counts::default();
    for seed in 0..24 {
        run(seed, &mut counts);
    }
    assert!(counts.installs > 50 && counts.deaths > 200 && counts.changes > 25, "{counts:?}");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let mut counts = [Counts::default(), Counts::default()];
    assert_eq!(run(7, &mut counts[0]), run(7, &mut counts[1]));
    assert_eq!(counts[0], counts[1]);
}
