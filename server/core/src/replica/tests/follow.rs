//! F30: a group becomes what the map of members says, whoever leads and whoever dies on the way.

use std::collections::BTreeMap;

use rove_protocol::ids::{NodeId, PartitionId};

use super::ALL;
use super::cluster::Cluster;
use super::members::leader;
use crate::formation::StoreId;
use crate::membership::{MemberMap, Step, follows, next_step};
use crate::replica::{member_of, node_of};

/// The group is the directory's: that every node has.
const PARTITION: PartitionId = PartitionId(0);

fn founded() -> MemberMap {
    let stores: BTreeMap<_, _> = (1..=3_u8).map(|node| (NodeId(u64::from(node)), StoreId([node; 16]))).collect();
    MemberMap::founded(&stores, 1)
}

/// Whoever leads takes its next step, if there is one and it can. Who that was.
fn step(cluster: &mut Cluster, map: &MemberMap) -> Option<u64> {
    let id = leader(cluster)?;
    let replica = cluster.replica(id);
    match next_step(map, PARTITION, id, &replica.group(), |member| replica.member_progress(member))? {
        Step::Change(change) => replica.propose_members(change).ok()?,
        Step::HandOver(node) => {
            let heir = replica.voters().into_iter().find(|voter| node_of(*voter) == node)?;
            replica.transfer_leadership(heir).then_some(())?;
        }
    }
    Some(id)
}

/// Lets the group follow; at the `fatal`-th step its leader dies when so many more `messages` have arrived, and comes back later.
/// Whether that step was ever taken.
fn run(cluster: &mut Cluster, map: &MemberMap, fatal: usize, messages: usize) -> bool {
    let (mut taken, mut back) = (0, None);
    for tick in 0..300 {
        if let Some(leader) = step(cluster, map) {
            taken += 1;
            if taken == fatal {
                cluster.deliveries = Some(messages);
                cluster.settle();
                cluster.deliveries = None;
                cluster.crash(leader);
                cluster.silence(leader);
                back = Some((tick + 50, leader));
            }
        }
        if let Some((_, leader)) = back.take_if(|(when, _)| *when == tick) {
            cluster.restart(leader).unwrap();
        }
        cluster.tick(1);
    }
    taken >= fatal
}

#[test]
fn a_node_with_an_empty_disk_is_rebuilt_wherever_the_leader_dies_on_the_way() {
    let map = founded().replace(NodeId(3), StoreId([9; 16]), None).unwrap();
    let new = member_of(NodeId(3), 1);
    let mut deaths = 0;
    for fatal in 1..=4 {
        for messages in (0..40).step_by(2) {
            let mut cluster = Cluster::new(3);
            cluster.ships = true;
            let first = cluster.elect(&ALL[..2]);
            cluster.post("before", first);
            // Its disk is gone, with everything that it had acknowledged.
            cluster.crash(3);
            cluster.silence(3);
            cluster.join(new);
            deaths += usize::from(run(&mut cluster, &map, fatal, messages));
            for id in [1, 2, new] {
                let group = cluster.replica(id).group();
                assert!(
                    follows(&map, PARTITION, &group),
                    "death at step {fatal} after {messages} messages: {id} has {group:?}"
                );
            }
            // It votes: without one of the others there is still a majority.
            cluster.crash(1);
            cluster.post("after", new);
            assert_eq!(cluster.values(new), ["before", "after"]);
        }
    }
    assert!(deaths >= 40, "{deaths} leaders died");
}

#[test]
fn a_node_that_leaves_hands_over_and_goes_wherever_the_leader_dies_on_the_way() {
    for leaving in ALL {
        let map = founded().leave(NodeId(leaving)).unwrap();
        for messages in (0..20).step_by(2) {
            let mut cluster = Cluster::new(3);
            cluster.ships = true;
            // The one that leaves leads at first.
            let first = cluster.elect(&ALL);
            if first != leaving {
                assert!(cluster.replica(first).transfer_leadership(leaving));
                cluster.tick(5);
            }
            cluster.post("before", leaving);
            assert!(run(&mut cluster, &map, 1, messages));
            let rest: Vec<u64> = ALL.into_iter().filter(|id| *id != leaving).collect();
            let first = leader(&cluster).expect("somebody leads");
            assert!(first != leaving && follows(&map, PARTITION, &cluster.replica(first).group()));
            cluster.crash(leaving);
            cluster.post("after", rest[0]);
        }
    }
}
