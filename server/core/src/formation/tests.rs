//! Three empty nodes become one cluster, and what is not of it stays out.

use super::*;

fn boot(store: u8, number: u64, nonce: u64) -> Boot {
    Boot { store: StoreId([store; 16]), number, nonce }
}

fn nodes() -> Vec<NodeId> {
    vec![NodeId(1), NodeId(2), NodeId(3)]
}

fn begin(id: u64, boot: Boot, nodes: Vec<NodeId>, record: Record) -> Formation {
    let me = Identity {
        node: NodeId(id),
        boot,
        address: format!("node{id}:7684"),
        partitions: 6,
        applies: ApplyVersions::THIS,
    };
    Formation::new(me, nodes, record)
}

fn node(id: u8, record: Record) -> Formation {
    begin(u64::from(id), boot(id, 1, u64::from(id)), nodes(), record)
}

/// All hear each other until nothing is new.
fn meet(formations: &mut [Formation]) {
    loop {
        let mut news = false;
        for from in 0..formations.len() {
            for to in (0..formations.len()).filter(|to| *to != from) {
                let (node, introduction) = (formations[from].me.node, formations[from].introduction());
                news |= formations[to].hear(node, &introduction).unwrap();
            }
        }
        if !news {
            return;
        }
    }
}

fn formed() -> Vec<Formation> {
    let mut all: Vec<_> = (1..=3).map(|id| node(id, Record::default())).collect();
    meet(&mut all);
    all
}

#[test]
fn three_empty_nodes_form_one_cluster_and_two_never_do() {
    let mut two: Vec<_> = (1..=2).map(|id| node(id, Record::default())).collect();
    meet(&mut two);
    assert!(two.iter().all(|formation| formation.map().is_none() && formation.missing() == [NodeId(3)]));
    let all = formed();
    assert!(all.iter().all(|formation| formation.rebuild() == Some(0)));
    assert!(all.iter().all(|formation| formation.record().map == all[0].record().map));
}

#[test]
fn one_that_hears_of_the_forming_last_follows_it() {
    let mut all: Vec<_> = (1..=3).map(|id| node(id, Record::default())).collect();
    let said: Vec<_> = all.iter().map(Formation::introduction).collect();
    all[0].hear(NodeId(2), &said[1]).unwrap();
    assert!(all[0].hear(NodeId(3), &said[2]).unwrap());
    assert!(all[0].map().is_some());
    let formed = all[0].introduction();
    assert!(all[2].hear(NodeId(1), &formed).unwrap());
    assert_eq!(all[2].record().map, formed.map);
}

#[test]
fn an_empty_disk_is_recognised_by_its_peers_and_by_itself() {
    let mut all = formed();
    let mut empty = begin(3, boot(9, 1, 9), nodes(), Record::default());
    let refused = all[0].hear(NodeId(3), &empty.introduction());
    assert!(matches!(refused, Err(FormationError::OtherStore { node: NodeId(3), .. })), "{refused:?}");
    let refused = empty.hear(NodeId(1), &all[0].introduction());
    assert!(matches!(refused, Err(FormationError::OtherStore { node: NodeId(3), .. })), "{refused:?}");
    assert!(empty.rebuild().is_none());
}

#[test]
fn an_old_copy_is_recognised_also_when_it_counts_the_same_boot() {
    let mut all = formed();
    let record = all[2].record().clone();
    let restart = |number, nonce| begin(3, boot(3, number, nonce), nodes(), record.clone());
    assert_eq!(all[0].hear(NodeId(3), &restart(3, 30).introduction()), Ok(true));
    assert_eq!(all[0].hear(NodeId(3), &restart(3, 30).introduction()), Ok(false), "a reconnect");
    for copy in [restart(2, 20), restart(3, 31)] {
        let refused = all[0].hear(NodeId(3), &copy.introduction());
        assert!(matches!(refused, Err(FormationError::OldCopy { known: 3, .. })), "{refused:?}");
    }
    assert_eq!(all[0].hear(NodeId(3), &restart(4, 40).introduction()), Ok(true));
}

#[test]
fn a_cluster_of_other_nodes_is_not_joined_and_a_node_alone_waits_for_nobody() {
    let mut alone = begin(1, boot(1, 1, 1), vec![NodeId(1)], Record::default());
    assert!(alone.map().is_some());
    let all = formed();
    let refused = alone.hear(NodeId(2), &all[1].introduction());
    assert!(matches!(refused, Err(FormationError::OtherMembers { node: NodeId(2), .. })), "{refused:?}");
}

/// Node 3 comes with an empty disk, and an operator lets it in at node 1.
fn replaced() -> (Vec<Formation>, Formation) {
    let mut all = formed();
    let mut empty = begin(3, boot(9, 1, 9), nodes(), Record::default());
    all[0].hear(NodeId(3), &empty.introduction()).unwrap_err();
    let stranger = all[0].strangers()[&NodeId(3)].clone();
    assert_eq!((stranger.empty, stranger.address.as_str()), (true, "node3:7684"));
    let map = all[0].map().unwrap().replace(NodeId(3), stranger.store, None).unwrap();
    assert!(all[0].adopt(&map) && !all[0].adopt(&map));
    assert!(all[0].strangers().is_empty());
    // It is taken, and learns from whoever takes it that it belongs to the cluster.
    assert_eq!(all[0].hear(NodeId(3), &empty.introduction()), Ok(true));
    let said = all[0].introduction();
    assert_eq!(empty.hear(NodeId(1), &said), Ok(true));
    assert_eq!(empty.rebuild(), Some(1));
    (all, empty)
}

#[test]
fn an_empty_disk_that_an_operator_lets_in_belongs_to_the_cluster_as_a_new_number() {
    let (mut all, rebuilt) = replaced();
    // Node 2 was not told by the directory yet: the newcomer's own map will do, for it names node 2's store.
    assert_eq!(all[1].hear(NodeId(3), &rebuilt.introduction()), Ok(true));
    assert_eq!(all[1].map(), rebuilt.map());
}

#[test]
fn the_disk_that_was_replaced_is_refused_for_ever_and_knows_it() {
    let (mut all, rebuilt) = replaced();
    let back = all[2].introduction();
    let other_store = |refused: Result<bool, FormationError>| {
        assert!(matches!(refused, Err(FormationError::OtherStore { node: NodeId(3), .. })), "{refused:?}");
    };
    other_store(all[0].hear(NodeId(3), &back));
    assert!(!all[0].strangers()[&NodeId(3)].empty, "it is no disk to rebuild on");
    let said = all[0].introduction();
    other_store(all[2].hear(NodeId(1), &said));
    // The boots of the old disk say nothing of the new one's.
    assert_eq!(all[0].hear(NodeId(3), &rebuilt.introduction()), Ok(false));
}

#[test]
fn a_new_node_waits_until_it_is_added_and_a_removed_one_is_told_so() {
    let mut all = formed();
    let mut four = begin(4, boot(4, 1, 4), (1..=4).map(NodeId).collect(), Record::default());
    let refused = all[0].hear(NodeId(4), &four.introduction());
    assert_eq!(refused, Err(FormationError::NotMember { node: NodeId(4) }));
    assert_eq!(four.hear(NodeId(1), &all[0].introduction()), refused);
    let stranger = all[0].strangers()[&NodeId(4)].clone();
    let map = all[0].map().unwrap().add(NodeId(4), stranger.store, &stranger.address).unwrap();
    all[0].adopt(&map);
    assert_eq!(all[0].hear(NodeId(4), &four.introduction()), Ok(true));
    assert_eq!(four.hear(NodeId(1), &all[0].introduction()), Ok(true));
    assert_eq!(four.rebuild(), Some(1));
    // Two of the same version, one of them new to the third.
    assert_eq!(all[1].hear(NodeId(4), &four.introduction()), Ok(true));

    let leaving = map.leave(NodeId(4)).unwrap();
    all[0].adopt(&leaving);
    assert_eq!(all[0].hear(NodeId(4), &four.introduction()), Ok(false), "it still belongs to it");
    all[0].adopt(&leaving.without_leaving().unwrap());
    let refused = Err(FormationError::Removed { node: NodeId(4) });
    assert_eq!(all[0].hear(NodeId(4), &four.introduction()), refused);
    assert!(all[0].strangers().is_empty(), "nobody has to do anything about it");
    assert_eq!(four.hear(NodeId(1), &all[0].introduction()), refused);
}

#[test]
fn a_map_of_another_cluster_is_not_taken_however_new_it_is() {
    let mut all = formed();
    let map = all[0].map().unwrap().clone();
    let foreign = Record {
        map: Some(MemberMap { version: 9, ..map.replace(NodeId(1), StoreId([77; 16]), None).unwrap() }),
        ..Record::default()
    };
    let foreign = begin(2, boot(2, 1, 2), nodes(), foreign);
    let refused = all[0].hear(NodeId(2), &foreign.introduction());
    assert!(matches!(refused, Err(FormationError::OtherStore { node: NodeId(1), .. })), "{refused:?}");
    assert_eq!(all[0].map(), Some(&map));
}

#[test]
fn strangers_are_remembered_up_to_a_bound() {
    let mut all = formed();
    for node in 10..100 {
        let stranger = begin(node, boot(9, 1, 9), nodes(), Record::default());
        all[0].hear(NodeId(node), &stranger.introduction()).unwrap_err();
    }
    assert_eq!(all[0].strangers().len(), NODES);
}

#[test]
fn nodes_with_other_numbers_of_partitions_form_no_cluster_and_join_none() {
    let mut all = formed();
    for map in [None, all[0].introduction().map] {
        let said = Introduction { partitions: 4, map, ..all[1].introduction() };
        let refused = all[0].hear(NodeId(2), &said);
        assert_eq!(refused, Err(FormationError::OtherPartitions { node: NodeId(2), found: 4, ours: 6 }));
    }
    let mut new = node(1, Record::default());
    let said = Introduction { partitions: 4, ..node(2, Record::default()).introduction() };
    assert!(new.hear(NodeId(2), &said).is_err());
    assert_eq!(new.missing(), [NodeId(2), NodeId(3)]);
}

#[test]
fn a_node_that_ran_alone_is_the_whole_cluster_and_one_that_forgot_its_cluster_forms_none() {
    let founded =
        |record: &Record, found: &[GroupMember]| founders(NodeId(1), nodes(), record, &found.iter().copied().collect());
    let nothing = Record::default();
    assert_eq!(founded(&nothing, &[]), Some(nodes()));
    assert_eq!(founded(&nothing, &[1]), Some(vec![NodeId(1)]));
    for others in [&[1, 2, 3][..], &[2], &[member_of(NodeId(1), 1)]] {
        assert_eq!(founded(&nothing, others), None);
    }
    // What was kept counts, whatever the configuration says by now.
    let map = MemberMap::founded(&[(NodeId(1), StoreId([1; 16]))].into(), 6);
    let kept = Record { map: Some(map), ..Record::default() };
    assert_eq!(founded(&kept, &[]), Some(vec![NodeId(1)]));
}

#[test]
fn two_that_formed_the_cluster_with_different_disks_of_a_third_are_not_one_cluster() {
    let mut all = formed();
    let mut said = all[1].introduction();
    let third = said.map.as_mut().and_then(|map| map.nodes.get_mut(&NodeId(3))).unwrap();
    third.store = StoreId([9; 16]);
    let refused = all[0].hear(NodeId(2), &said);
    assert_eq!(refused, Err(FormationError::OtherFounding { node: NodeId(2), of: NodeId(3) }));
}

fn with_versions(mut formation: Formation, highest: u16) -> Formation {
    formation.me.applies = ApplyVersions { lowest: 1, highest };
    formation
}

#[test]
fn the_apply_version_is_raised_when_every_member_was_heard_to_have_it_also_those_that_are_away_now() {
    let mut all = formed();
    // The first two are upgraded: each is another boot of the same directory.
    let upgraded = |before: &Formation, id: u8| {
        let boot = boot(id, 2, 77);
        with_versions(begin(u64::from(id), boot, nodes(), before.record().clone()), 2)
    };
    all[0] = upgraded(&all[0], 1);
    all[1] = upgraded(&all[1], 2);
    meet(&mut all[..2]);
    assert_eq!(all[0].raised(), None, "the third was not heard since this node started");
    meet(&mut all);
    assert_eq!((all[0].raised(), all[2].raised()), (None, None), "the third has the old one");
    all[2] = upgraded(&all[2], 3);
    meet(&mut all);
    assert_eq!(all[0].raised(), Some((2, 0)), "nobody has to be there still");
    assert!(all[0].set_apply_version(2) && !all[0].set_apply_version(2));
    assert_eq!(all[0].raised(), None);
}

#[test]
fn a_member_whose_new_disk_was_not_heard_holds_the_apply_version() {
    let mut all: Vec<_> = formed().into_iter().map(|formation| with_versions(formation, 2)).collect();
    meet(&mut all);
    assert_eq!(all[0].raised(), Some((2, 0)));
    let map = all[0].map().unwrap().replace(NodeId(3), StoreId([9; 16]), None).unwrap();
    assert!(all[0].adopt(&map));
    assert_eq!(all[0].raised(), None);
}

#[test]
fn a_binary_that_cannot_apply_what_is_in_force_is_refused_by_its_peers_and_knows_it() {
    let mut all = formed();
    all[0] = with_versions(all[0].clone(), 2);
    assert!(all[0].set_apply_version(2));
    let cannot = FormationError::CannotApply {
        node: NodeId(3),
        why: CannotApply { needed: 2, has: ApplyVersions { lowest: 1, highest: 1 } },
    };
    let (newer, older) = (all[0].introduction(), all[2].introduction());
    assert_eq!(all[2].hear(NodeId(1), &newer), Err(cannot.clone()));
    assert_eq!(all[0].hear(NodeId(3), &older), Err(cannot));
    assert!(all[0].strangers().is_empty(), "no operator lets it in");
}
