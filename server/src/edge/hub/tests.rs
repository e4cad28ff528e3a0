use std::sync::Arc;

use bytes::Bytes;
use rove_protocol::ids::ConversationId;

use super::subscriber::tests::{Fake, subscriber};
use super::*;

const PARTITION: PartitionId = PartitionId(1);
const CHAT: ConversationId = ConversationId([7; 16]);

/// Alice (1) and Bob (2) are in [`CHAT`]; Carol (3) is not.
fn hub() -> Arc<Hub> {
    let hub = Hub::new(&HubConfig {
        partitions: 6,
        heartbeat: Duration::from_secs(20),
        pull: PullThreshold { members: 1, active: 1 },
    });
    let members =
        |_, conversation| (conversation == CHAT).then(|| [1, 2].map(|id| (AccountId(id), Role::Member)).into());
    hub.attach(ShardMap::even(6), Box::new(members));
    hub
}

fn join(hub: &Arc<Hub>, session: u64, account: u64) -> (Arc<Subscriber>, Arc<Fake>) {
    let (subscriber, fake) = subscriber(session, account, account * 10 + session);
    hub.register(&subscriber);
    subscriber.listen();
    (subscriber, fake)
}

fn event(seq: u64) -> Effect {
    Effect::Event {
        conversation: CHAT,
        seq: Seq(seq),
        message_id: MessageId(seq * 100),
        body: Bytes::from(vec![7; 20]),
    }
}

fn is_dirty(subscriber: &Subscriber) -> bool {
    !subscriber.take_dirty().conversations.is_empty()
}

#[test]
fn every_session_of_an_online_member_is_marked_and_nobody_elses() {
    let hub = hub();
    let (phone, _) = join(&hub, 1, 1);
    let (laptop, _) = join(&hub, 2, 1);
    let (carol, _) = join(&hub, 3, 3);
    hub.publish(PARTITION, &[event(1), event(2)]);
    assert!(is_dirty(&phone) && is_dirty(&laptop) && !is_dirty(&carol));
    assert_eq!(hub.published(PARTITION), MessageId(200));
    assert_eq!(hub.published(PartitionId(2)), MessageId(0));
}

#[tokio::test]
async fn an_open_conversation_has_its_events_in_the_ring_encoded_once() {
    let hub = hub();
    let (one, other) = (hub.open(CHAT), hub.open(CHAT));
    let mut changed = one.subscribe();
    hub.publish(PARTITION, &[event(4), event(5)]);
    changed.changed().await.unwrap();
    assert!(!changed.has_changed().unwrap(), "one wake a round");
    let (mine, yours) = (one.tail(Seq(3), 1_000), other.tail(Seq(3), 1_000));
    assert_eq!((mine.frames.len(), mine.head), (2, Seq(5)));
    assert_eq!(mine.frames[0].as_ptr(), yours.frames[0].as_ptr(), "shared, not copied");
}

#[test]
fn a_conversation_nobody_has_open_keeps_nothing() {
    let hub = hub();
    let open = hub.open(CHAT);
    let other = hub.open(CHAT);
    drop(open);
    assert_eq!(hub.lives.lock().len(), 1);
    drop(other);
    hub.publish(PARTITION, &[event(1)]);
    assert_eq!(hub.lives.lock().len(), 0);
}

#[test]
fn who_is_taken_out_is_told_and_hears_no_more() {
    let hub = hub();
    let (bob, _) = join(&hub, 1, 2);
    let open = hub.open(CHAT);
    hub.publish(PARTITION, &[event(1)]);
    assert!(is_dirty(&bob));
    let changes = vec![(AccountId(2), Role::None)];
    hub.publish(PARTITION, &[event(2), Effect::Members { conversation: CHAT, changes }]);
    assert!(is_dirty(&bob), "the line that says so");
    assert_eq!(open.gone(AccountId(2)), Some(Seq(2)));
    hub.publish(PARTITION, &[event(3)]);
    assert!(!is_dirty(&bob));
}

#[test]
fn who_is_let_in_is_told_of_the_event_that_did_it() {
    let hub = hub();
    let (carol, _) = join(&hub, 1, 3);
    hub.publish(PARTITION, &[event(1)]);
    assert!(!is_dirty(&carol));
    let changes = vec![(AccountId(3), Role::Member)];
    hub.publish(PARTITION, &[event(2), Effect::Members { conversation: CHAT, changes }]);
    assert!(is_dirty(&carol));
    hub.publish(PARTITION, &[event(3)]);
    assert!(is_dirty(&carol));
}

#[test]
fn reading_on_one_device_marks_the_others_of_the_account() {
    let hub = hub();
    let ((alice, _), (bob, _)) = (join(&hub, 1, 1), join(&hub, 2, 2));
    hub.publish(PARTITION, &[Effect::Read { conversation: CHAT, account: AccountId(1), read: Seq(3) }]);
    assert!(is_dirty(&alice) && !is_dirty(&bob));
}

#[test]
fn a_newer_session_of_a_device_closes_the_older_and_stays() {
    let hub = hub();
    let (older, closed) = subscriber(1, 1, 9);
    hub.register(&older);
    hub.beat(AccountId(1), SessionId(1));
    let (newer, alive) = subscriber(2, 1, 9);
    hub.register(&newer);
    hub.beat(AccountId(1), SessionId(2));
    assert_eq!(*closed.closed.lock(), Some(ErrorCode::Replaced));
    hub.unregister(&older);
    assert_eq!(*alive.closed.lock(), None);
    assert!(hub.presence.lock().is_online(AccountId(1)));
    newer.listen();
    hub.publish(PARTITION, &[event(1)]);
    assert!(is_dirty(&newer));
}

#[test]
fn a_revoked_device_loses_its_session_and_no_other_does() {
    let hub = hub();
    let ((_, revoked), (_, other)) = (join(&hub, 1, 1), join(&hub, 2, 1));
    hub.device_revoked(DeviceId(11));
    assert_eq!([revoked, other].map(|fake| *fake.closed.lock()), [Some(ErrorCode::Revoked), None]);
}

#[tokio::test]
async fn a_watcher_is_woken_when_somebody_comes_and_when_they_go() {
    let hub = hub();
    let (alice, _) = join(&hub, 1, 1);
    hub.watch(&alice, &[AccountId(2)].into());
    alice.presence_wake.notified().await;
    let (_, seen) = hub.presence_since(alice.session, 0);
    hub.beat(AccountId(2), SessionId(5));
    alice.presence_wake.notified().await;
    let (items, seen) = hub.presence_since(alice.session, seen);
    assert_eq!(items[0].status, rove_protocol::registry::PresenceStatus::Online);
    hub.goodbye(AccountId(2), SessionId(5));
    alice.presence_wake.notified().await;
    assert_eq!(hub.presence_since(alice.session, seen).0.len(), 1);
}

#[test]
fn a_crowded_conversation_is_pulled_only_while_enough_members_are_active() {
    let hub = hub();
    let _alice = join(&hub, 1, 1);
    assert_eq!(hub.mode(PARTITION, CHAT, 2), StreamMode::Live, "one is active");
    let _bob = join(&hub, 2, 2);
    assert_eq!(hub.mode(PARTITION, CHAT, 2), StreamMode::Pull);
    assert_eq!(hub.mode(PARTITION, CHAT, 1), StreamMode::Live);
}

#[tokio::test]
async fn when_a_state_jumps_open_conversations_end_and_everything_is_looked_at_again() {
    let hub = hub();
    let (alice, _) = join(&hub, 1, 1);
    let partition = ShardMap::even(6).of_conversation(CHAT);
    let before = hub.open(CHAT);
    let mut changed = before.subscribe();
    hub.reset(PartitionId(if partition.0 == 1 { 2 } else { 1 }), 5);
    assert!(!before.has_ended(), "another partition");
    alice.take_dirty();
    hub.reset(partition, 7);
    changed.changed().await.unwrap();
    assert!(before.has_ended() && alice.take_dirty().all);
    assert_eq!(hub.published(partition).0 >> MessageId::SHARD_BITS, 7);
    assert!(hub.cached_members(CHAT).is_none());
    let after = hub.open(CHAT);
    assert!(!after.has_ended(), "it is open on the new state");
    drop(before);
    hub.publish(partition, &[event(9)]);
    assert_eq!(after.head(), Seq(9), "the end of the old one is not the end of the new one");
}
