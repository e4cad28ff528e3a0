//! The map and the steps that follow from it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rove_protocol::ids::{NodeId, PartitionId};

use super::*;
use crate::formation::StoreId;
use crate::placement::{DIRECTORY, Placement, ShardMap};
use crate::replica::{Group, GroupMember, MemberChange, Progress, member_of, node_of};

fn store(byte: u8) -> StoreId {
    StoreId([byte; 16])
}

fn founded(nodes: u8) -> MemberMap {
    MemberMap::founded(&(1..=nodes).map(|node| (NodeId(u64::from(node)), store(node))).collect(), 6)
}

/// The partition that is looked at where all are alike.
const ANY: PartitionId = PartitionId(1);

fn id(node: u64, rebuild: u32) -> GroupMember {
    member_of(NodeId(node), rebuild)
}

fn group(voters: &[GroupMember], learners: &[GroupMember]) -> Group {
    Group { voters: voters.to_vec(), learners: learners.to_vec(), joint: false }
}

const WELL: Progress = Progress { matched: 10, active: true, caught_up: true };
const AWAY: Progress = Progress { matched: 10, active: false, caught_up: false };
const BEHIND: Progress = Progress { matched: 1, active: true, caught_up: false };

fn change(change: MemberChange) -> Step {
    Step::Change(change)
}

#[test]
fn a_replaced_node_learns_first_and_then_takes_its_own_place_in_one_change() {
    let map = founded(3).replace(NodeId(3), store(9), None).unwrap();
    assert!(map.may_follow(None) && map.version == 1);
    let (old, new) = (id(3, 0), id(3, 1));
    let away = |replica| if replica == old { AWAY } else { WELL };
    let step = |group: &Group, progress: &dyn Fn(u64) -> Progress| next_step(&map, ANY, 1, group, progress);
    assert_eq!(step(&group(&[1, 2, old], &[]), &away), Some(change(MemberChange::AddLearner(new))));
    let learns = group(&[1, 2, old], &[new]);
    let behind = |replica| if replica == new { BEHIND } else { away(replica) };
    assert_eq!(step(&learns, &behind), None, "it lacks too much");
    assert_eq!(step(&learns, &away), Some(change(MemberChange::Replace { old, new })));
    assert_eq!(step(&Group { joint: true, ..learns }, &away), None, "one change at a time");
    let done = group(&[1, 2, new], &[]);
    assert_eq!(step(&done, &away), None);
    assert!(follows(&map, ANY, &done));
}

#[test]
fn where_there_are_fewer_than_three_a_new_node_learns_and_is_promoted() {
    let map = founded(2).add(NodeId(4), store(4), "four:7684").unwrap();
    let new = id(4, 1);
    assert_eq!(next_step(&map, ANY, 1, &group(&[1, 2], &[]), |_| WELL), Some(change(MemberChange::AddLearner(new))));
    assert_eq!(next_step(&map, ANY, 1, &group(&[1, 2], &[new]), |_| BEHIND), None);
    assert_eq!(next_step(&map, ANY, 1, &group(&[1, 2], &[new]), |_| WELL), Some(change(MemberChange::Promote(new))));
}

#[test]
fn a_node_that_leaves_goes_only_while_the_others_are_a_majority() {
    let map = founded(3).leave(NodeId(3)).unwrap();
    let all = group(&[1, 2, 3], &[]);
    assert_eq!(next_step(&map, ANY, 1, &all, |_| WELL), Some(change(MemberChange::Remove(3))));
    let two_away = |replica| if replica == 2 { AWAY } else { WELL };
    assert_eq!(next_step(&map, ANY, 1, &all, two_away), None);
    assert_eq!(next_step(&map, ANY, 3, &all, two_away), None, "the leader that goes finds no heir");
    assert_eq!(next_step(&map, ANY, 3, &all, |_| WELL), Some(Step::HandOver(NodeId(2))));
    assert!(follows(&map, ANY, &group(&[1, 2], &[])));
}

#[test]
fn the_last_voter_lets_its_successor_vote_before_it_goes() {
    let map = founded(1).add(NodeId(4), store(4), "a:1").unwrap().leave(NodeId(1)).unwrap();
    let new = id(4, 1);
    let step = |me, group: &Group| next_step(&map, ANY, me, group, |_| WELL);
    assert_eq!(step(1, &group(&[1], &[new])), Some(change(MemberChange::Promote(new))));
    let both = group(&[1, new], &[]);
    assert_eq!(step(1, &both), Some(Step::HandOver(NodeId(4))));
    assert_eq!(step(new, &both), Some(change(MemberChange::Remove(1))));
}

#[test]
fn of_those_that_go_the_dead_one_is_first() {
    let map = founded(3).leave(NodeId(1)).unwrap().leave(NodeId(3)).unwrap();
    let third_away = |replica| if replica == 3 { AWAY } else { WELL };
    let step = next_step(&map, ANY, 2, &group(&[1, 2, 3], &[]), third_away);
    assert_eq!(step, Some(change(MemberChange::Remove(3))));
}

#[test]
fn a_leader_whose_map_is_old_takes_out_nobody_who_came_later() {
    let old = founded(3);
    for group in [group(&[1, 2, id(3, 1)], &[]), group(&[1, 2, 3], &[id(3, 1)]), group(&[1, 2, 3, id(4, 1)], &[])] {
        assert_eq!(next_step(&old, ANY, 1, &group, |_| WELL), None, "{group:?}");
    }
}

#[test]
fn numbers_of_replicas_are_never_given_out_twice() {
    let map = founded(3).add(NodeId(4), store(4), "a:1").unwrap();
    assert_eq!(map.nodes[&NodeId(4)].rebuild, 1);
    let gone = map.leave(NodeId(4)).unwrap().without_leaving().unwrap();
    assert!(gone.present(NodeId(4)).is_none() && gone.is_obsolete(id(4, 1)));
    let again = gone.add(NodeId(4), store(5), "a:1").unwrap();
    assert_eq!(again.nodes[&NodeId(4)].rebuild, 2);
    assert_eq!(again.replace(NodeId(4), store(6), None).unwrap().nodes[&NodeId(4)].rebuild, 3);
}

#[test]
fn changes_that_cannot_be_are_refused_with_what_to_do() {
    let map = founded(3);
    let leaving = map.leave(NodeId(3)).unwrap();
    let said = |change: Result<MemberMap, ChangeError>| change.unwrap_err().to_string();
    assert!(said(map.replace(NodeId(4), store(9), None)).contains("cluster add 4"));
    assert!(said(map.add(NodeId(3), store(9), "a:1")).contains("cluster replace 3"));
    assert!(said(map.replace(NodeId(3), store(3), None)).contains("nothing to replace"));
    assert!(said(map.replace(NodeId(3), store(2), None)).contains("that of node 2"));
    assert!(said(map.add(NodeId(4), store(9), "")).contains("--address"));
    assert!(said(leaving.replace(NodeId(3), store(9), None)).contains("cluster remove 3"));
    assert_eq!(leaving.leave(NodeId(3)), Err(ChangeError::Leaving(NodeId(3))));
    assert_eq!(founded(1).leave(NodeId(1)), Err(ChangeError::Last(NodeId(1))));
    assert_eq!(founded(9).add(NodeId(10), store(10), "a:1"), Err(ChangeError::Full(MEMBERS)));
    assert_eq!(map.without_leaving(), None);
}

#[test]
fn a_map_that_forgets_or_goes_back_may_not_follow() {
    let first = founded(3).replace(NodeId(3), store(9), None).unwrap();
    let next = first.leave(NodeId(3)).unwrap();
    assert!(next.may_follow(Some(&first)) && !next.may_follow(None) && !first.may_follow(Some(&first)));
    let with = |change: &dyn Fn(&mut MemberMap)| {
        let mut map = next.clone();
        change(&mut map);
        map.may_follow(Some(&first))
    };
    assert!(with(&|_| {}));
    assert!(!with(&|map| drop(map.nodes.remove(&NodeId(1)))), "forgets a node");
    assert!(!with(&|map| map.nodes.get_mut(&NodeId(3)).unwrap().rebuild = 0), "a number goes back");
    assert!(!with(&|map| map.nodes.get_mut(&NodeId(3)).unwrap().store = store(8)), "a number has two directories");
    assert!(!with(&|map| map.nodes.values_mut().for_each(|member| member.standing = Standing::Removed)), "nobody left");
    assert!(!with(&|map| map.nodes.get_mut(&NodeId(1)).unwrap().address = "x".repeat(ADDRESS_BYTES + 1)), "too large");
    let removed = next.without_leaving().unwrap();
    let mut back = removed.clone();
    back.version += 1;
    back.nodes.get_mut(&NodeId(3)).unwrap().standing = Standing::Member;
    assert!(!back.may_follow(Some(&removed)), "a removed directory comes back under its number");
}

#[test]
fn the_largest_map_fits_into_what_nodes_tell_each_other() {
    let mut map = founded(32);
    map.version = u64::MAX;
    for (node, member) in &mut map.nodes {
        let present = node.0 <= MEMBERS as u64;
        let address = if present { "x".repeat(ADDRESS_BYTES) } else { String::new() };
        let standing = if present { Standing::Member } else { Standing::Removed };
        *member = Member { rebuild: u32::MAX, address, standing, ..member.clone() };
    }
    // Nine nodes with the highest numbers, that vote in all of 256 partitions.
    map.shards = ShardMap::even(256);
    let nodes: BTreeSet<NodeId> = (0..MEMBERS as u64).map(|node| NodeId(u64::from(u32::MAX) - node)).collect();
    map.placement = Placement::founded(256, &nodes, MEMBERS);
    assert!(postcard::to_allocvec(&map).unwrap().len() <= 20_000);
}

/// A group that does what it is told, and who is alive.
struct Model {
    partition: PartitionId,
    group: Group,
    /// The voters before a joint change, and after.
    half_done: Option<(Vec<GroupMember>, Vec<GroupMember>)>,
    dead: BTreeSet<GroupMember>,
    /// How often each number was taken in.
    seen: BTreeMap<GroupMember, u32>,
}

impl Model {
    fn progress(&self, replica: GroupMember) -> Progress {
        if self.dead.contains(&replica) { AWAY } else { WELL }
    }

    fn has_majority(&self, voters: &[GroupMember]) -> bool {
        voters.iter().filter(|voter| !self.dead.contains(voter)).count() > voters.len() / 2
    }

    fn carry_out(&mut self, change: MemberChange) {
        assert!(self.half_done.is_none(), "two changes at once");
        let before = self.group.voters.clone();
        let mut voters = before.clone();
        match change {
            MemberChange::AddLearner(new) => {
                let times = self.seen.entry(new).or_default();
                *times += 1;
                self.group.learners.push(new);
            }
            MemberChange::Promote(new) => {
                self.group.learners.retain(|learner| *learner != new);
                voters.push(new);
            }
            MemberChange::Demote(old) => {
                self.group.learners.push(old);
                voters.retain(|voter| *voter != old);
            }
            MemberChange::Remove(old) => {
                self.group.learners.retain(|learner| *learner != old);
                voters.retain(|voter| *voter != old);
            }
            MemberChange::Replace { old, new } => {
                self.group.learners.retain(|learner| *learner != new);
                voters.retain(|voter| *voter != old);
                voters.push(new);
                self.half_done = Some((before.clone(), voters.clone()));
                self.group.joint = true;
            }
        }
        assert!(!voters.is_empty());
        assert!(self.has_majority(&voters), "{change:?} leaves {voters:?} without a majority");
        if self.half_done.is_none() {
            assert!(overlap(&before, &voters), "{before:?} and {voters:?} decide apart");
            self.group.voters = voters;
        }
    }

    fn finish(&mut self) {
        if let Some((_, voters)) = self.half_done.take() {
            self.group.voters = voters;
            self.group.joint = false;
        }
    }
}

/// Whether every majority of one and every majority of the other have somebody in common: they differ by one member at most.
fn overlap(before: &[GroupMember], after: &[GroupMember]) -> bool {
    let (before, after): (BTreeSet<_>, BTreeSet<_>) = (before.iter().collect(), after.iter().collect());
    before.symmetric_difference(&after).count() <= 1
}

#[derive(Clone, Debug)]
enum Deed {
    Replace(u8),
    Add(u8),
    Leave(u8),
    Forget,
    /// A leader takes some steps, with a map this many versions old.
    Lead {
        leader: u8,
        steps: u8,
        old: u8,
    },
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let lead = (any::<u8>(), 1..4u8, 0..3u8).prop_map(|(leader, steps, old)| Deed::Lead { leader, steps, old });
    let deed = prop_oneof![
        1 => (1..7u8).prop_map(Deed::Replace),
        1 => (1..7u8).prop_map(Deed::Add),
        1 => (1..7u8).prop_map(Deed::Leave),
        1 => Just(Deed::Forget),
        8 => lead,
    ];
    proptest::collection::vec(deed, 1..60)
}

/// A leader takes a step. False if there is nothing to do.
fn lead(model: &mut Model, map: &MemberMap, leader: usize) -> bool {
    model.finish();
    let alive: Vec<_> = model.group.voters.iter().copied().filter(|voter| !model.dead.contains(voter)).collect();
    // Without a majority nobody leads.
    if !model.has_majority(&model.group.voters) {
        return false;
    }
    let me = alive[leader % alive.len()];
    match next_step(map, model.partition, me, &model.group, |replica| model.progress(replica)) {
        Some(Step::Change(change)) => {
            assert!(!matches!(change, MemberChange::Remove(old) | MemberChange::Replace { old, .. } if old == me));
            model.carry_out(change);
            true
        }
        Some(Step::HandOver(heir)) => {
            assert!(heir != node_of(me));
            let heir = model.group.voters.iter().position(|voter| node_of(*voter) == heir).unwrap();
            let heir = alive.iter().position(|alive| *alive == model.group.voters[heir]).unwrap();
            let step = next_step(map, model.partition, alive[heir], &model.group, |replica| model.progress(replica));
            match step {
                Some(Step::Change(change)) => model.carry_out(change),
                other => panic!("the heir was to go on, and does {other:?}"),
            }
            true
        }
        None => false,
    }
}

fn change_map(model: &mut Model, map: &MemberMap, next_store: &mut u8, deed: &Deed) -> Option<MemberMap> {
    let node = |node: &u8| NodeId(u64::from(*node));
    *next_store = next_store.wrapping_add(1);
    match deed {
        // Its old disk is gone, and the new one answers at once. Only if the others decide without it, as an operator is told.
        Deed::Replace(lost) => {
            let next = map.replace(node(lost), store(*next_store), None).ok()?;
            let mut dead = model.dead.clone();
            dead.extend(model.group.voters.iter().filter(|voter| node_of(**voter) == node(lost)));
            dead.extend(model.group.learners.iter().filter(|learner| node_of(**learner) == node(lost)));
            let alive = model.group.voters.iter().filter(|voter| !dead.contains(voter)).count();
            (alive > model.group.voters.len() / 2 && follows(map, model.partition, &model.group))
                .then(|| model.dead = dead)?;
            Some(next)
        }
        Deed::Add(new) => map.add(node(new), store(*next_store), "a:1").ok(),
        Deed::Leave(old) => map.leave(node(old)).ok(),
        // Who is removed is told so, and ends.
        Deed::Forget if follows(map, model.partition, &model.group) => {
            let leaving = map.nodes.iter().filter(|(_, member)| member.standing == Standing::Leaving);
            model.dead.extend(leaving.map(|(node, member)| member_of(*node, member.rebuild)));
            map.without_leaving()
        }
        Deed::Forget | Deed::Lead { .. } => None,
    }
}

proptest! {
    #[test]
    fn whatever_is_changed_majorities_overlap_and_the_group_becomes_what_the_last_map_says(deeds in deeds(), partition in 0..3_u16) {
        let mut maps = vec![founded(3)];
        let mut model = Model {
            partition: PartitionId(partition),
            group: group(&[1, 2, 3], &[]),
            half_done: None,
            dead: BTreeSet::new(),
            seen: BTreeMap::new(),
        };
        let mut next_store = 100;
        for deed in &deeds {
            let newest = maps.last().unwrap().clone();
            if let Deed::Lead { leader, steps, old } = deed {
                let map = maps[maps.len().saturating_sub(1 + usize::from(*old))].clone();
                for _ in 0..*steps {
                    lead(&mut model, &map, usize::from(*leader));
                }
            } else {
                model.finish();
                if let Some(next) = change_map(&mut model, &newest, &mut next_store, deed) {
                    prop_assert!(next.may_follow((newest.version > 0).then_some(&newest)));
                    maps.push(next);
                }
            }
        }
        let newest = maps.last().unwrap().clone();
        for _ in 0..40 {
            lead(&mut model, &newest, 0);
        }
        model.finish();
        prop_assert!(follows(&newest, model.partition, &model.group), "{:?} is not {newest:?}", model.group);
        // Whoever is in the group is of the number that the map gives to its node, and no other was ever made again.
        for replica in model.seen.keys() {
            prop_assert!(newest.nodes[&node_of(*replica)].rebuild >= crate::replica::rebuild_of(*replica));
        }
    }
}

#[test]
fn when_every_number_is_used_up_the_advice_is_one_that_helps() {
    let newcomer = |map: &MemberMap, node: u8, byte: u8| map.add(NodeId(node.into()), store(byte), "a:1");
    let removed = |map: &MemberMap, node: u8| map.leave(NodeId(node.into())).unwrap().without_leaving().unwrap();
    let all = 4..=u8::try_from(NODES).unwrap();
    let full = all.fold(founded(3), |map, node| removed(&newcomer(&map, node, node).unwrap(), node));
    let error = newcomer(&full, 99, 99).unwrap_err();
    assert_eq!(error, ChangeError::NoNumber(NODES));
    assert!(error.to_string().contains("number of one that was removed"), "{error}");
    // Removing another would not have helped; what it says does.
    assert_eq!(newcomer(&removed(&full, 3), 99, 99), Err(error));
    assert!(newcomer(&full, 4, 99).is_ok());
}

/// Three nodes and a fourth, which votes in some partitions in the place of another.
fn four() -> (MemberMap, GroupMember, PartitionId, PartitionId) {
    let map = founded(3).add(NodeId(4), store(4), "four:7684").unwrap();
    let votes = |votes: bool| (1..=6).map(PartitionId).find(|id| map.placement.has(*id, NodeId(4)) == votes).unwrap();
    let (moves, stays) = (votes(true), votes(false));
    (map, id(4, 1), moves, stays)
}

#[test]
fn every_node_learns_what_it_does_not_vote_in() {
    let (map, new, _, stays) = four();
    let (three, settled) = (group(&[1, 2, 3], &[]), group(&[1, 2, 3], &[new]));
    for partition in [DIRECTORY, stays] {
        assert_eq!(next_step(&map, partition, 1, &three, |_| WELL), Some(change(MemberChange::AddLearner(new))));
        assert_eq!(next_step(&map, partition, 1, &settled, |_| WELL), None);
        assert!(follows(&map, partition, &settled) && !follows(&map, partition, &three));
        // A cluster that had four voters before makes a learner of one, which is never the leader.
        let voters = group(&[1, 2, 3, new], &[]);
        assert_eq!(next_step(&map, partition, 1, &voters, |_| WELL), Some(change(MemberChange::Demote(new))));
        assert!(matches!(next_step(&map, partition, new, &voters, |_| WELL), Some(Step::HandOver(_))));
    }
}

#[test]
fn the_vote_moves_to_a_replica_that_has_everything_and_a_leader_hands_over_first() {
    let (map, new, moves, _) = four();
    let old = (1..=3).find(|node| !map.placement.has(moves, NodeId(*node))).unwrap();
    let other = (1..=3).find(|node| *node != old).unwrap();
    let learns = group(&[1, 2, 3], &[new]);
    assert_eq!(next_step(&map, moves, other, &learns, |replica| if replica == new { BEHIND } else { WELL }), None);
    assert_eq!(next_step(&map, moves, other, &learns, |_| WELL), Some(change(MemberChange::Promote(new))));
    let voters = group(&[1, 2, 3, new], &[]);
    assert_eq!(next_step(&map, moves, other, &voters, |_| WELL), Some(change(MemberChange::Demote(old))));
    let heir = next_step(&map, moves, old, &voters, |_| WELL);
    assert!(matches!(heir, Some(Step::HandOver(heir)) if heir != NodeId(old)));
    let rest: Vec<_> = [1, 2, 3, new].into_iter().filter(|voter| *voter != old).collect();
    assert!(follows(&map, moves, &group(&rest, &[old])));
}

#[test]
fn a_learner_takes_the_place_of_a_voter_that_goes() {
    let (map, new, _, stays) = four();
    let map = map.leave(NodeId(2)).unwrap();
    let replaced = Some(change(MemberChange::Replace { old: 2, new }));
    for partition in [DIRECTORY, stays] {
        assert_eq!(next_step(&map, partition, 1, &group(&[1, 2, 3], &[new]), |_| WELL), replaced);
    }
}

#[test]
fn a_placement_that_leaves_a_partition_to_nobody_may_not_follow() {
    let first = founded(3).add(NodeId(4), store(4), "four:7684").unwrap();
    let next = first.replace(NodeId(4), store(9), None).unwrap();
    assert!(next.may_follow(Some(&first)));
    let with = |change: &dyn Fn(&mut MemberMap)| {
        let mut map = next.clone();
        change(&mut map);
        map.may_follow(Some(&first))
    };
    let of = |nodes: &[u64]| Placement::founded(6, &nodes.iter().copied().map(NodeId).collect(), 3);
    assert!(with(&|map| map.placement = of(&[1, 2, 4])));
    assert!(!with(&|map| map.placement = of(&[1, 2])), "too few");
    assert!(!with(&|map| map.placement = of(&[1, 2, 7])), "somebody else");
    assert!(!with(&|map| map.placement = Placement::founded(5, &map.founders, 3)), "a partition is forgotten");
    assert!(!with(&|map| map.shards = ShardMap::even(5)), "conversations move");
}
