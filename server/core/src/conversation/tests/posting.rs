//! D1, D7, D10 and who may post what.

use rove_protocol::extension::{Extension, Extensions};
use rove_protocol::ids::{ConversationId, MessageId, PostNo, PostTag, Seq, WriterId};
use rove_protocol::limits;
use rove_protocol::message::{AccountRef, Body, Event, Post};
use rove_protocol::registry::{ErrorCode, EventKind, Role};

use super::support::*;
use crate::command::{Actor, ConversationCommand, Effect};
use crate::conversation::read;

#[test]
fn a_post_becomes_the_next_event_with_everything_it_said() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    let mut post = message(1, "hello");
    post.refers_to = Seq(1);
    post.crypto_epoch = 9;
    post.mentions = vec![AccountRef { account: bob().account }].into();
    post.extensions = Extensions::new(vec![Extension { id: 62 + 64, value: "grease".into() }]).unwrap();
    let outcome = posted(world.post(id, alice(), &post));
    assert_eq!((outcome.post_no, outcome.seq, outcome.time_ms), (PostNo(1), Seq(2), world.now_ms));

    let event = world.events(id).remove(1);
    assert_eq!((event.seq, event.message_id, event.time_ms), (Seq(2), outcome.message_id, outcome.time_ms));
    assert_eq!((event.author, event.device, event.writer), (alice().account, alice().device, writer_of(alice())));
    assert_eq!((event.post_no, event.kind, event.refers_to), (PostNo(1), EventKind::Message, Seq(1)));
    assert_eq!((event.content_type, event.crypto_epoch), (post.content_type, 9));
    assert_eq!((event.body, event.mentions, event.extensions), (post.body, post.mentions, post.extensions));

    let row = world.conversation(id);
    assert_eq!((row.head, row.last_message_id, row.last_event_time_ms), (Seq(2), outcome.message_id, world.now_ms));
}

#[test]
fn an_event_goes_out_with_the_bytes_that_are_stored() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    let outcome = world.say(id, alice(), 1, "hello");
    let stored = read::event(&world.store, PARTITION, id, Seq(2)).unwrap().unwrap();
    let expected =
        Effect::Event { conversation: id, seq: Seq(2), message_id: outcome.message_id, body: stored.body.clone() };
    assert_eq!(world.effects, [expected]);
    assert_eq!(&Event::decode_body(stored.body).unwrap().body[..], b"hello");
}

#[test]
fn a_repeat_gets_the_same_answer_and_appends_nothing() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    let first = world.say(id, alice(), 1, "once");
    world.now_ms += 1_000;
    let again = world.say(id, alice(), 1, "once");
    assert_eq!(first, again);
    assert!(world.effects.is_empty());
    assert_eq!(world.conversation(id).head, Seq(2));
}

#[test]
fn a_repeat_within_one_entry_gets_the_same_answer() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    let post = post_command(id, alice(), writer_of(alice()), &message(1, "once"));
    let outcomes = world.entry(&[post.clone(), post]);
    assert_eq!(outcomes[0], outcomes[1]);
    assert_eq!(world.conversation(id).head, Seq(2));
}

#[test]
fn a_number_used_for_other_bytes_is_refused_and_changes_nothing() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    world.say(id, alice(), 1, "one thing");
    let before = world.store.rows().len();
    let outcome = world.post(id, alice(), &message(1, "another"));
    assert_eq!(outcome, refusal(1, ErrorCode::PostNoReused, false, 2));
    assert_eq!(world.store.rows().len(), before);
    assert_eq!(world.say(id, alice(), 1, "one thing").seq, Seq(2), "the first meaning stands");
}

#[test]
fn a_number_beyond_the_next_is_a_gap_and_is_not_consumed() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    assert_eq!(world.post(id, alice(), &message(2, "too early")), refusal(2, ErrorCode::Gap, false, 1));
    world.say(id, alice(), 1, "first");
    assert_eq!(world.post(id, alice(), &message(3, "too early")), refusal(3, ErrorCode::Gap, false, 2));
    assert_eq!(world.say(id, alice(), 2, "second").seq, Seq(3));
}

#[test]
fn every_outcome_is_remembered_for_ever() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    let mut outcomes = Vec::new();
    for no in 1..=200 {
        let post = if no % 7 == 0 { about(no, EventKind::Void, 0) } else { message(no, &format!("number {no}")) };
        outcomes.push((post.clone(), world.post(id, alice(), &post)));
        world.say(id, bob(), no, "in between");
    }
    for (no, (post, outcome)) in (1u64..).zip(&outcomes) {
        let again = world.post(id, alice(), post);
        match post.kind {
            EventKind::Void => assert_eq!(again, refusal(no, ErrorCode::Cancelled, true, 201)),
            _ => assert_eq!(again, *outcome),
        }
        let other = world.post(id, alice(), &message(no, "something else"));
        assert_eq!(other, refusal(no, ErrorCode::PostNoReused, false, 201));
    }
    assert_eq!(world.conversation(id).head, Seq(1 + 200 + 200 - 200 / 7));
}

#[test]
fn a_full_page_of_outcomes_answers_within_the_round_that_filled_it() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    let posts: Vec<_> = (1..=65).map(|no| post_command(id, alice(), writer_of(alice()), &message(no, "x"))).collect();
    let mut commands = posts.clone();
    commands.extend(posts);
    let outcomes = world.entry(&commands);
    assert_eq!(outcomes[..65], outcomes[65..]);
}

#[test]
fn a_writer_belongs_to_the_device_that_used_it_first() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    world.say(id, alice(), 1, "mine");
    let stolen = world.post_as(id, bob(), writer_of(alice()), &message(2, "yours?"));
    assert_eq!(stolen, refusal(2, ErrorCode::WriterTaken, false, 1));
    let other_device = Actor { device: rove_protocol::ids::DeviceId(99), ..alice() };
    let cloned = world.post_as(id, other_device, writer_of(alice()), &message(1, "mine"));
    assert_eq!(cloned, refusal(1, ErrorCode::WriterTaken, false, 1), "not even a repeat");
    assert_eq!(world.say(id, alice(), 2, "still mine").seq, Seq(3));
}

#[test]
fn writers_count_apart_in_each_conversation_and_from_each_other() {
    let mut world = World::new();
    let (one, two) = (world.direct(alice(), bob()), world.direct(alice(), carol()));
    world.say(one, alice(), 1, "a");
    world.say(two, alice(), 1, "b");
    let fresh = WriterId([0xee; 16]);
    assert_eq!(posted(world.post_as(one, alice(), fresh, &message(1, "a restored store"))).seq, Seq(3));
    assert_eq!(read::last_post_no(&world.store, PARTITION, one, writer_of(alice())), Ok(PostNo(1)));
    assert_eq!(read::last_post_no(&world.store, PARTITION, one, fresh), Ok(PostNo(1)));
    assert_eq!(read::last_post_no(&world.store, PARTITION, one, WriterId([1; 16])), Ok(PostNo(0)));
}

#[test]
fn a_missing_conversation_and_one_that_one_was_never_in_look_alike_and_consume_nothing() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    let rows = world.store.rows().len();
    let nowhere = world.post(ConversationId([9; 16]), carol(), &message(1, "hello?"));
    let stranger = world.post(id, carol(), &message(1, "hello?"));
    assert_eq!(nowhere, refusal(1, ErrorCode::NotFound, false, 1));
    assert_eq!(nowhere, stranger);
    assert_eq!(world.store.rows().len(), rows, "a stranger writes nothing");
}

#[test]
fn who_reads_only_or_was_removed_is_refused_for_good_and_never_appears() {
    let mut world = World::new();
    let id = world.group(alice(), &[(bob(), Role::ReadOnly), (carol(), Role::Member)]);
    assert_eq!(world.post(id, bob(), &message(1, "may I?")), for_good(1, ErrorCode::Forbidden));
    let before = world.say(id, carol(), 1, "before");
    world.change(alice(), id, &[(carol(), Role::None)]);
    assert_eq!(world.post(id, carol(), &message(2, "after")), for_good(2, ErrorCode::Forbidden));
    assert_eq!(world.say(id, carol(), 1, "before"), before, "rows survive removal");
    world.change(alice(), id, &[(carol(), Role::Member), (bob(), Role::Member)]);
    assert_eq!(world.post(id, carol(), &message(2, "after")), refusal(2, ErrorCode::Forbidden, true, 3));
    world.say(id, carol(), 3, "back");
    world.say(id, bob(), 2, "at last");
    let said: Vec<_> = world.events(id).iter().filter(|event| event.post_no.0 > 0).map(|event| event.seq.0).collect();
    assert_eq!(said, [2, 5, 6]);
}

#[test]
fn removal_counts_from_its_place_in_the_log_even_within_one_entry() {
    let mut world = World::new();
    let id = world.group(alice(), &[(bob(), Role::Member)]);
    let remove = ConversationCommand::ChangeMembers {
        actor: alice(),
        conversation: id,
        changes: vec![(bob().account, Role::None)],
    };
    let outcomes = world.entry(&[
        post_command(id, bob(), writer_of(bob()), &message(1, "just in time")),
        remove,
        post_command(id, bob(), writer_of(bob()), &message(2, "too late")),
    ]);
    assert_eq!(posted(outcomes[0].clone()).seq, Seq(2));
    assert_eq!(view(outcomes[1].clone()).head, Seq(3));
    assert_eq!(outcomes[2], for_good(2, ErrorCode::Forbidden));
}

#[test]
fn a_void_uses_its_number_up_and_appends_nothing() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    let void = about(1, EventKind::Void, 0);
    assert_eq!(world.post(id, alice(), &void), for_good(1, ErrorCode::Cancelled));
    assert_eq!(world.post(id, alice(), &void), for_good(1, ErrorCode::Cancelled));
    assert_eq!(world.conversation(id).head, Seq(1));
    assert_eq!(world.say(id, alice(), 2, "next").seq, Seq(2));
}

#[test]
fn a_body_of_the_limit_is_taken_and_one_byte_more_is_refused_for_good() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    world.say(id, alice(), 1, &"x".repeat(limits::BODY));
    let large = message(2, &"x".repeat(limits::BODY + 1));
    assert_eq!(world.post(id, alice(), &large), for_good(2, ErrorCode::BodyTooLarge));
}

#[test]
fn an_event_that_would_not_fit_in_a_frame_is_refused_for_good() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    let mut post = message(1, &"x".repeat(limits::BODY));
    let padding = |length| Extensions::new(vec![Extension { id: 2, value: vec![0; length].into() }]).unwrap();
    post.extensions = padding(limits::FRAME - limits::BODY - 20);
    assert!(post.encode_body().len() < limits::FRAME, "the post itself fits");
    assert_eq!(world.post(id, alice(), &post), for_good(1, ErrorCode::BodyTooLarge));
    post.post_no = PostNo(2);
    post.extensions = padding(limits::FRAME - limits::BODY - 200);
    posted(world.post(id, alice(), &post));
}

#[test]
fn an_unknown_critical_extension_is_refused_for_good_and_an_unknown_other_one_is_kept() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    let mut post = message(1, "?");
    post.extensions = Extensions::new(vec![Extension { id: 7, value: "must".into() }]).unwrap();
    assert_eq!(world.post(id, alice(), &post), for_good(1, ErrorCode::CriticalExtension));
    post.post_no = PostNo(2);
    post.extensions = Extensions::new(vec![Extension { id: 8, value: "may".into() }]).unwrap();
    posted(world.post(id, alice(), &post));
    assert_eq!(world.events(id)[1].extensions, post.extensions);
}

#[test]
fn the_tag_of_a_post_is_part_of_what_its_number_is_bound_to_and_comes_out_with_its_event() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    let tagged = |tag| Post { extensions: Extensions::with_tag(Some(PostTag([tag; 16]))), ..message(1, "same text") };
    let first = posted(world.post(id, alice(), &tagged(1)));
    assert_eq!(posted(world.post(id, alice(), &tagged(1))), first, "a repeat");
    let other = refusal(1, ErrorCode::PostNoReused, false, 2);
    assert_eq!(world.post(id, alice(), &tagged(2)), other, "another post of the same text");
    assert_eq!(world.post(id, alice(), &message(1, "same text")), other, "and one without a tag");
    // In what is stored, in what is fanned out, and in what is read back.
    assert_eq!(world.events(id)[1].extensions.tag(), Some(PostTag([1; 16])));
    let restored = WriterId([0xee; 16]);
    posted(world.post_as(id, alice(), restored, &tagged(3)));
    let Some(Effect::Event { body, .. }) = world.effects.first() else { panic!("{:?}", world.effects) };
    let event = Event::decode_body(body.clone()).unwrap();
    assert_eq!((event.writer, event.extensions.tag()), (restored, Some(PostTag([3; 16]))));
    assert!(body.ends_with(b"\x02\x10\x03\x03\x03\x03\x03\x03\x03\x03\x03\x03\x03\x03\x03\x03\x03\x03"), "verbatim");
}

#[test]
fn only_the_server_says_what_became_of_a_conversation() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    for (no, kind) in (1..).zip([EventKind::Created, EventKind::MembersChanged, EventKind::SettingsChanged]) {
        assert_eq!(world.post(id, alice(), &about(no, kind, 0)), for_good(no, ErrorCode::InvalidArgument));
    }
    assert_eq!(world.post(id, alice(), &about(4, EventKind(77), 0)), for_good(4, ErrorCode::Unsupported));
    assert_eq!(world.conversation(id).head, Seq(1));
}

#[test]
fn what_refers_must_refer_to_an_earlier_message() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    let mut no = 0;
    let mut refused = |world: &mut World, kind, seq| {
        no += 1;
        let outcome = world.post(id, alice(), &about(no, kind, seq));
        assert_eq!(outcome, for_good(no, ErrorCode::InvalidArgument), "{kind} of {seq}");
    };
    for kind in [EventKind::Edit, EventKind::Deletion, EventKind::Reaction] {
        refused(&mut world, kind, 0);
        refused(&mut world, kind, 1); // the creation
        refused(&mut world, kind, 2); // not there yet
        refused(&mut world, kind, u64::MAX);
    }
    refused(&mut world, EventKind::Message, 2);
    let message = posted(world.post(id, alice(), &about(14, EventKind::Message, 1)));
    let edit = posted(world.post(id, alice(), &about(15, EventKind::Edit, message.seq.0)));
    let edit_of_edit = world.post(id, alice(), &about(16, EventKind::Edit, edit.seq.0));
    assert_eq!(edit_of_edit, for_good(16, ErrorCode::InvalidArgument));
}

#[test]
fn messages_are_edited_by_their_author_and_taken_back_by_author_or_admin() {
    let mut world = World::new();
    let id = world.group(alice(), &[(bob(), Role::Member), (carol(), Role::Member), (dave(), Role::Admin)]);
    let seq = world.say(id, bob(), 1, "mine").seq.0;
    assert_eq!(world.post(id, carol(), &about(1, EventKind::Edit, seq)), for_good(1, ErrorCode::Forbidden));
    assert_eq!(world.post(id, dave(), &about(1, EventKind::Edit, seq)), for_good(1, ErrorCode::Forbidden));
    assert_eq!(world.post(id, carol(), &about(2, EventKind::Deletion, seq)), for_good(2, ErrorCode::Forbidden));
    posted(world.post(id, bob(), &about(2, EventKind::Edit, seq)));
    let reaction = posted(world.post(id, carol(), &about(3, EventKind::Reaction, seq)));
    posted(world.post(id, carol(), &about(4, EventKind::Deletion, reaction.seq.0)));
    posted(world.post(id, dave(), &about(2, EventKind::Deletion, seq)));
    posted(world.post(id, bob(), &about(3, EventKind::Deletion, seq)));
}

#[test]
fn an_event_of_the_same_round_can_be_referred_to() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    let outcomes = world.entry(&[
        post_command(id, alice(), writer_of(alice()), &message(1, "hello")),
        post_command(id, bob(), writer_of(bob()), &about(1, EventKind::Reaction, 2)),
        post_command(id, alice(), writer_of(alice()), &about(2, EventKind::Edit, 2)),
    ]);
    assert_eq!(outcomes.into_iter().map(|outcome| posted(outcome).seq.0).collect::<Vec<_>>(), [2, 3, 4]);
}

#[test]
fn one_does_not_react_to_what_one_may_not_see() {
    let mut world = World::new();
    let id = world.group(alice(), &[]);
    let before = world.say(id, alice(), 1, "before bob").seq.0;
    world.change(alice(), id, &[(bob(), Role::Member)]);
    let outcome = world.post(id, bob(), &about(1, EventKind::Reaction, before));
    assert_eq!(outcome, for_good(1, ErrorCode::InvalidArgument));
}

#[test]
fn bytes_that_are_no_post_are_answered_and_consume_nothing() {
    let mut world = World::new();
    let id = world.direct(alice(), bob());
    let mut bytes = message(1, "cut").encode_body();
    bytes.truncate(8);
    let outcome = world.run(ConversationCommand::Post {
        conversation: id,
        actor: alice(),
        writer: writer_of(alice()),
        post: bytes.into(),
    });
    assert_eq!(outcome, refusal(1, ErrorCode::Malformed, false, 1));
    assert_eq!(world.say(id, alice(), 1, "whole").seq, Seq(2));
}

#[test]
fn time_never_goes_back_and_message_ids_rise_across_conversations() {
    let mut world = World::new();
    let (one, two) = (world.direct(alice(), bob()), world.direct(alice(), carol()));
    let mut last = MessageId(0);
    let mut last_time = 0;
    for (no, now) in (1..).zip([5_000, 5_000, 4_000, 0, 6_000, u64::MAX, 7_000]) {
        world.now_ms = now;
        for id in [one, two] {
            let outcome = world.say(id, alice(), no, "tick");
            assert!(outcome.message_id > last && outcome.time_ms >= last_time);
            assert!(i64::try_from(outcome.message_id.0).is_ok(), "positive in an i64 whatever a clock says");
            assert_eq!(outcome.message_id.shard(), id.shard());
            (last, last_time) = (outcome.message_id, outcome.time_ms);
        }
    }
}
