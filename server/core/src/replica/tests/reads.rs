//! Linearizable reads: what was acknowledged before the question is seen, whoever leads.

use raft::eraftpb::{Entry, Message, MessageType};

use super::ALL;
use super::cluster::{Cluster, config, logger};
use crate::replica::{MessageError, PeerMessage, Recovered, Replica, ReplicaRole, StepError};

#[test]
fn a_read_on_any_replica_is_told_the_index_of_what_was_acknowledged_before_it() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect(&ALL);
    cluster.post("a", leader);
    let acknowledged = cluster.members[&leader].machine.applied();
    for id in ALL {
        // The same name on each: the names of different replicas do not mix.
        cluster.replica(id).read_index(7);
    }
    cluster.settle();
    for id in ALL {
        assert!(cluster.read(id, 7).unwrap() >= acknowledged);
        assert_eq!(cluster.members[&id].reads.len(), 1);
    }
}

#[test]
fn a_read_is_dropped_without_a_leader_and_before_the_leaders_first_commit_and_may_be_asked_again() {
    let mut cluster = Cluster::new(3);
    cluster.replica(1).read_index(1);
    cluster.settle();
    cluster.slow_disks();
    let leads =
        |cluster: &mut Cluster| ALL.into_iter().find(|id| cluster.replica(*id).status().role == ReplicaRole::Leader);
    let leader = loop {
        if let Some(leader) = leads(&mut cluster) {
            break leader;
        }
        cluster.tick(1);
        // Votes are synced, until there is a leader; its first entry is not.
        for id in ALL {
            while leads(&mut cluster).is_none() && cluster.sync_one(id) {
                cluster.settle();
            }
        }
    };
    assert!(!cluster.replica(leader).leads_with_authority());
    cluster.replica(leader).read_index(2);
    cluster.settle();
    for id in ALL {
        cluster.slow_disk(id, false);
    }
    cluster.settle();
    assert_eq!(cluster.elect(&ALL), leader);
    assert!(ALL.into_iter().all(|id| cluster.members[&id].reads.is_empty()), "both questions are lost");
    cluster.replica(leader).read_index(3);
    cluster.settle();
    assert!(cluster.read(leader, 3).is_some());
}

#[test]
fn a_leader_that_was_asleep_answers_no_read_from_before_its_successor() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect(&ALL);
    cluster.isolate(old);
    let others: Vec<u64> = ALL.into_iter().filter(|id| *id != old).collect();
    // It is stopped: the others elect a leader and go on while no tick reaches it.
    let mut stopped = cluster.members.get_mut(&old).unwrap().replica.take();
    let new = cluster.elect(&others);
    cluster.post("new", new);
    let acknowledged = cluster.members[&new].machine.applied();
    cluster.members.get_mut(&old).unwrap().replica = stopped.take();
    assert_eq!(cluster.replica(old).status().role, ReplicaRole::Leader, "it does not know yet");
    cluster.replica(old).read_index(1);
    cluster.settle();
    assert_eq!(cluster.read(old, 1), None, "nobody confirms that it leads");
    cluster.heal();
    cluster.replica(old).read_index(2);
    cluster.settle();
    cluster.tick(30);
    assert_eq!((cluster.read(old, 1), cluster.read(old, 2)), (None, None), "questions to a deposed leader are lost");
    cluster.replica(old).read_index(3);
    cluster.settle();
    assert!(cluster.read(old, 3).unwrap() >= acknowledged);
}

#[test]
fn no_read_is_ever_stale_through_changes_of_leader_in_any_order_of_messages() {
    let mut answered = 0;
    for seed in 0..20 {
        let mut cluster = Cluster::new(3);
        cluster.seed(seed);
        cluster.shuffles = true;
        cluster.elect(&ALL);
        let mut asked: Vec<(u64, u64, u64)> = Vec::new();
        for round in 0..150_u64 {
            cluster.loss_percent = 10;
            match cluster.random(12) {
                0 => {
                    let id = 1 + cluster.random(3);
                    cluster.isolate(id);
                }
                1 | 2 => cluster.heal(),
                3 => {
                    let id = 1 + cluster.random(3);
                    cluster.replica(id).campaign();
                }
                _ => {}
            }
            for id in ALL {
                let _ = cluster.propose(id, &format!("{round}/{id}"));
            }
            // Acknowledged is what anybody has applied.
            let acknowledged = cluster.members.values().map(|member| member.machine.applied()).max().unwrap();
            let reader = 1 + cluster.random(3);
            cluster.replica(reader).read_index(round);
            asked.push((reader, round, acknowledged));
            cluster.tick(2);
        }
        for (reader, context, acknowledged) in asked {
            if let Some(index) = cluster.read(reader, context) {
                answered += 1;
                assert!(index >= acknowledged, "seed {seed}: read {context} of {reader} is stale");
            }
        }
    }
    assert!(answered > 500, "{answered} of 3000 reads were answered");
}

#[test]
fn a_leader_without_a_majority_keeps_a_bounded_number_of_questions() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect(&ALL);
    cluster.isolate(leader);
    for context in 0..10_000 {
        cluster.replica(leader).read_index(context);
    }
    cluster.settle();
    assert!(cluster.replica(leader).raw.raft.pending_read_count() <= 256);
}

fn about_a_read(kind: MessageType, term: u64, context: &[u8]) -> PeerMessage {
    let mut message = Message { from: 2, to: 1, term, ..Message::default() };
    message.set_msg_type(kind);
    message.set_entries(vec![Entry { data: context.to_vec().into(), ..Entry::default() }].into());
    PeerMessage(message)
}

fn context(member: u64) -> Vec<u8> {
    [member.to_be_bytes(), 5_u64.to_be_bytes()].concat()
}

#[test]
fn a_peers_message_about_a_read_has_one_shape_only() {
    let mut replica = Replica::recover(config(1, 3), Recovered::default(), &logger()).unwrap();
    let (ask, answer) = (MessageType::MsgReadIndex, MessageType::MsgReadIndexResp);
    let bad = Err(StepError::Message(MessageError::Context));
    assert_eq!(replica.step(about_a_read(ask, 0, b"short")), bad);
    assert_eq!(replica.step(about_a_read(ask, 0, &context(3))), bad, "asked in another's name");
    assert_eq!(replica.step(about_a_read(ask, 9, &context(2))), bad, "it would raise our term");
    assert_eq!(replica.step(about_a_read(answer, 1, &context(2))), bad, "an answer for another");
    assert_eq!(replica.step(about_a_read(answer, 0, &context(1))), bad, "an answer without a term");
    let mut empty = about_a_read(ask, 0, &context(2));
    empty.0.set_entries(vec![].into());
    assert_eq!(replica.step(empty), bad);
    let mut stranger = about_a_read(ask, 0, &context(9));
    stranger.0.from = 9;
    assert_eq!(replica.step(stranger), Err(StepError::Message(MessageError::UnknownPeer)));
    let mut large = about_a_read(MessageType::MsgHeartbeat, 1, &[]);
    large.0.set_entries(vec![].into());
    large.0.context = vec![0; 17].into();
    assert_eq!(replica.step(large), bad);
    assert_eq!(replica.step(about_a_read(ask, 0, &context(2))), Ok(()), "dropped: it does not lead");
    assert_eq!(replica.outputs().unwrap(), None, "and passed on to nobody");
}
