use super::*;

const ALICE: AccountId = AccountId(1);
const BOB: AccountId = AccountId(2);
const PHONE: SessionId = SessionId(11);
const LAPTOP: SessionId = SessionId(12);
const WATCHER: SessionId = SessionId(21);
const BEAT: u64 = 20_000;
const LEASE: u64 = LEASE_HEARTBEATS * BEAT;

fn table() -> PresenceTable {
    PresenceTable::new(7, BEAT)
}

fn watching(accounts: &[AccountId]) -> PresenceTable {
    let mut table = table();
    table.watch(WATCHER, &accounts.iter().copied().collect());
    table
}

#[test]
fn an_account_is_online_while_any_device_is() {
    let mut table = watching(&[ALICE]);
    assert_eq!(table.beat(ALICE, PHONE, 0), vec![WATCHER]);
    assert_eq!(table.beat(ALICE, LAPTOP, 0), Told::new());
    assert_eq!(table.goodbye(ALICE, PHONE, 5), Told::new());
    assert!(table.is_online(ALICE));
    assert_eq!(table.goodbye(ALICE, LAPTOP, 9), vec![WATCHER]);
    assert!(!table.is_online(ALICE));
    assert_eq!(table.item(ALICE).last_seen_ms, 9);
}

#[test]
fn a_lease_lasts_three_heartbeats_and_each_renews_it() {
    let mut table = watching(&[ALICE]);
    table.beat(ALICE, PHONE, 0);
    assert_eq!(table.expire(3 * BEAT - 1), Told::new());
    assert_eq!(table.beat(ALICE, PHONE, 3 * BEAT - 1), Told::new());
    assert_eq!(table.expire(4 * BEAT), Told::new());
    assert_eq!(table.next_expiry(), Some(6 * BEAT - 1));
    assert_eq!(table.expire(6 * BEAT - 1), vec![WATCHER]);
    assert_eq!(table.item(ALICE).last_seen_ms, 3 * BEAT - 1);
}

#[test]
fn the_older_session_of_a_device_that_was_taken_over_does_not_take_it_offline() {
    let mut table = table();
    table.beat(ALICE, PHONE, 0);
    table.beat(ALICE, LAPTOP, 1);
    table.goodbye(ALICE, PHONE, 2);
    assert!(table.is_online(ALICE));
    assert_eq!(table.goodbye(ALICE, PHONE, 3), Told::new());
}

#[test]
fn versions_of_an_account_rise_even_when_its_row_was_dropped() {
    let mut table = table();
    let mut last = 0;
    for round in 0..5 {
        table.beat(ALICE, PHONE, round);
        table.beat(BOB, LAPTOP, round);
        let online = table.item(ALICE);
        table.goodbye(ALICE, PHONE, round);
        table.goodbye(BOB, LAPTOP, round);
        let offline = table.item(ALICE);
        assert!(last < online.version && online.version < offline.version);
        assert_eq!((online.incarnation, offline.incarnation), (7, 7));
        last = offline.version;
    }
    assert!(table.accounts.is_empty(), "nobody is there and nobody watches");
}

#[test]
fn a_watcher_that_lost_a_datagram_is_told_all_it_missed_once() {
    let mut table = watching(&[ALICE, BOB]);
    let seen = table.watch_version(WATCHER);
    table.beat(ALICE, PHONE, 0);
    table.goodbye(ALICE, PHONE, 1);
    table.beat(ALICE, PHONE, 2);
    let (items, newest) = table.changed_since(WATCHER, seen);
    assert_eq!(items.len(), 1, "only what changed, and once");
    assert_eq!((items[0].account, items[0].status), (ALICE, PresenceStatus::Online));
    assert_eq!(table.changed_since(WATCHER, newest).0, Vec::new());
}

#[test]
fn a_new_watch_set_says_the_state_of_all_of_it() {
    let mut table = table();
    table.beat(ALICE, PHONE, 0);
    let before = table.watch_version(WATCHER);
    table.watch(WATCHER, &[ALICE, BOB].into());
    let (items, newest) = table.changed_since(WATCHER, before);
    let said: Vec<_> = items.iter().map(|item| (item.account, item.status)).collect();
    assert_eq!(said, vec![(ALICE, PresenceStatus::Online), (BOB, PresenceStatus::Offline)]);
    table.watch(WATCHER, &[BOB].into());
    assert!(table.watch_version(WATCHER) > newest);
    assert_eq!(table.beat(ALICE, LAPTOP, 1), Told::new());
    table.goodbye(ALICE, PHONE, 2);
    assert_eq!(table.goodbye(ALICE, LAPTOP, 2), Told::new(), "no longer watched");
}

#[test]
fn a_watcher_that_leaves_leaves_nothing_behind() {
    let mut table = watching(&[ALICE, BOB]);
    table.unwatch(WATCHER);
    assert!(table.accounts.is_empty() && table.watches.is_empty());
    assert_eq!(table.beat(ALICE, PHONE, 0), Told::new());
}

const NODE: NodeId = NodeId(2);

fn said(stamp: (u64, u64), came: &[AccountId], went: &[AccountId]) -> Said {
    let stamp = Stamp { incarnation: stamp.0, version: stamp.1 };
    Said::News { stamp, came: came.to_vec(), went: went.iter().map(|account| (*account, 5)).collect() }
}

#[test]
fn an_account_is_online_while_it_is_at_any_node() {
    let mut table = watching(&[ALICE]);
    assert_eq!(table.hear(NODE, said((1, 1), &[ALICE], &[]), 0).0, vec![WATCHER]);
    assert_eq!(table.beat(ALICE, PHONE, 0), Told::new());
    assert_eq!((table.online(), table.item(ALICE).status), (1, PresenceStatus::Online));
    assert_eq!(table.hear(NODE, said((1, 2), &[], &[ALICE]), 1).0, Told::new());
    assert_eq!(table.hear(NODE, said((1, 3), &[ALICE], &[]), 2).0, Told::new());
    assert_eq!(table.goodbye(ALICE, PHONE, 3), Told::new());
    assert_eq!(table.whereabouts(&[ALICE, BOB]), BTreeMap::from([(NODE, vec![ALICE])]));
    assert_eq!(table.hear(NODE, said((1, 4), &[], &[ALICE]), 9).0, vec![WATCHER]);
    assert_eq!((table.item(ALICE).status, table.item(ALICE).last_seen_ms), (PresenceStatus::Offline, 5));
}

#[test]
fn a_node_that_falls_silent_is_believed_for_its_lease_and_no_longer() {
    let mut table = watching(&[ALICE]);
    table.hear(NODE, said((1, 1), &[ALICE], &[]), 100);
    assert_eq!(table.next_expiry(), Some(100 + LEASE));
    table.hear(NODE, Said::Digest { stamp: Stamp { incarnation: 1, version: 1 }, digest: Digest::default() }, 200);
    assert_eq!(table.expire(199 + LEASE), Told::new());
    assert_eq!(table.expire(200 + LEASE), vec![WATCHER]);
    assert_eq!(table.item(ALICE).last_seen_ms, 200);
    assert_eq!(table.next_expiry(), None);
}

#[test]
fn what_is_older_than_what_was_heard_has_no_effect() {
    let mut table = watching(&[ALICE, BOB]);
    table.hear(NODE, said((5, 9), &[ALICE], &[]), 0);
    assert_eq!(table.hear(NODE, said((5, 8), &[], &[ALICE]), 0).0, Told::new());
    assert_eq!(table.hear(NODE, said((4, 99), &[BOB], &[ALICE]), 0).0, Told::new());
    assert!(table.is_online(ALICE) && !table.is_online(BOB));
}

#[test]
fn the_people_of_a_node_that_starts_anew_have_its_lease_to_come_back() {
    let mut table = watching(&[ALICE, BOB]);
    table.hear(NODE, said((1, 90), &[ALICE, BOB], &[]), 0);
    let fresh = |version| said((2, version), if version == 0 { &[] } else { &[ALICE] }, &[]);
    assert_eq!(table.hear(NODE, fresh(0), 1_000).0, Told::new());
    assert_eq!(table.hear(NODE, fresh(1), 2_000).0, Told::new());
    assert_eq!(table.expire(LEASE), vec![WATCHER], "Bob has not come back");
    assert!(table.is_online(ALICE) && !table.is_online(BOB));
    // A third start within the lease of the first two ends the oldest of them.
    table.hear(NODE, said((3, 1), &[BOB], &[]), LEASE);
    assert!(table.is_online(ALICE) && table.is_online(BOB));
    assert_eq!(table.hear(NODE, said((4, 1), &[BOB], &[]), LEASE).0, vec![WATCHER], "Alice is gone");
    assert!(!table.is_online(ALICE) && table.is_online(BOB));
    assert_eq!(table.peers.starts(NODE), 2);
}

#[test]
fn who_goes_from_one_node_to_another_is_never_seen_offline() {
    let (here, there) = (SessionId(1), SessionId(2));
    let (mut left, mut joined) = (table().among_peers(), PresenceTable::new(1, BEAT).among_peers());
    let mut third = watching(&[ALICE]).among_peers();
    left.watch(WATCHER, &[ALICE].into());
    left.beat(ALICE, here, 0);
    left.news().into_iter().for_each(|said| drop(third.hear(NodeId(1), said, 0)));
    // The new session is there first, but its node is slow to say so.
    joined.beat(ALICE, there, 1_000);
    assert_eq!(left.goodbye(ALICE, here, 1_100), Told::new());
    assert!(!left.has_news());
    for said in joined.news() {
        assert_eq!(third.hear(NODE, said.clone(), 1_200).0, Told::new());
        assert_eq!(left.hear(NODE, said, 1_200).0, Told::new());
    }
    assert_eq!(left.expire(1_100 + SETTLE_MS), Told::new());
    for said in left.news() {
        assert_eq!(third.hear(NodeId(1), said, 2_200).0, Told::new());
    }
    assert!(left.is_online(ALICE) && third.is_online(ALICE) && left.online() == 0);
    // And who really leaves is seen to, when it has settled.
    joined.goodbye(ALICE, there, 3_000);
    assert_eq!(joined.next_expiry(), Some(3_000 + SETTLE_MS));
    joined.expire(3_000 + SETTLE_MS);
    let news = joined.news();
    assert_eq!(third.hear(NODE, news[0].clone(), 4_100).0, vec![WATCHER]);
    assert_eq!(third.item(ALICE).last_seen_ms, 3_000);
}

#[test]
fn what_was_missed_is_asked_for_page_by_page() {
    let mut other = PresenceTable::new(1, BEAT).among_peers();
    let people = 2 * PAGE_ACCOUNTS as u64 + 1;
    for id in 1..=people {
        other.beat(AccountId(id), SessionId(id), 0);
    }
    let mut table = watching(&[AccountId(people)]);
    let mut pages = 0;
    let mut told = Told::new();
    let mut next = Some(other.digest());
    while let Some(said) = next {
        let (news, question) = table.hear(NODE, said, 0);
        told.extend(news);
        pages += usize::from(question.is_some());
        next = question.and_then(|question| other.hear(NodeId(1), question, 0).1);
    }
    assert_eq!((pages, told), (3, vec![WATCHER]));
    assert_eq!(table.hear(NODE, other.digest(), 0).1, None, "now it knows all");
}

#[test]
fn no_order_of_a_page_harms() {
    let stamp = Stamp { incarnation: 1, version: 1 };
    let page = Said::Page { stamp, from: AccountId(9), to: AccountId(1), online: vec![BOB, ALICE] };
    assert_eq!(table().hear(NODE, page, 0), (Told::new(), None));
}
