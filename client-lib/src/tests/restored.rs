//! Stores that were put back from copies with the file beside them, so that nothing shows that they are copies. All posts
//! in doubt say the same: only their tags tell them apart.

use super::*;

const SAME: &str = "ok";

/// Queues the same text several times in a store that cannot reach its server.
async fn queue_offline(folder: &Folder, fake: &Fake, times: usize) {
    fake.world.lock().turn_away = Some(ErrorCode::Busy);
    let client = folder.open().await;
    let conversation = room(&client).await;
    for _ in 0..times {
        conversation.post(SAME).await.unwrap();
    }
    drop(conversation);
    client.close().await;
    fake.world.lock().turn_away = None;
}

async fn posted_at(conversation: &Conversation) -> Seq {
    let handle = conversation.post(SAME).await.unwrap();
    match soon(handle.outcome()).await.unwrap() {
        Outcome::Posted { seq, .. } => seq,
        outcome @ Outcome::Refused(_) => panic!("{outcome:?}"),
    }
}

/// A folder with three posts in it that are in the log.
async fn three_posted(fake: &Fake) -> Folder {
    let folder = Folder::new();
    let client = logged_in(&fake.address, folder.options()).await;
    post_all(&room(&client).await, 1, 3).await;
    client.close().await;
    folder
}

#[tokio::test]
async fn what_another_future_posted_under_another_writer_is_found_in_the_log_and_not_posted_again() {
    let fake = Fake::start();
    let folder = three_posted(&fake).await;
    queue_offline(&folder, &fake, 2).await;
    let copy = folder.copy(true);
    // This future takes a new writer, posts what is queued, and is given up.
    std::fs::remove_file(folder.0.path().join("alice.db.writer")).unwrap();
    let client = folder.open().await;
    holds(&room(&client).await, 5).await;
    assert_eq!(client.stats().writers_minted, 1);
    client.close().await;
    copy.restore_into(&folder);

    let client = folder.open().await;
    let conversation = room(&client).await;
    assert_eq!(posted_at(&conversation).await, Seq(6));
    holds(&conversation, 6).await;
    let expected = ["1", "2", "3", SAME, SAME, SAME];
    assert_eq!(texts(&conversation).await, expected);
    assert_eq!(fake.world.lock().texts(), expected);
    assert_eq!(conversation.queued(), 0);
    assert_eq!(client.stats().writers_minted, 0, "nothing showed that it is a copy");
}

#[tokio::test]
async fn no_post_is_taken_for_one_of_the_same_text_that_a_lost_future_posted() {
    let fake = Fake::start();
    let folder = three_posted(&fake).await;
    let copy = folder.copy(true);
    let client = folder.open().await;
    let conversation = room(&client).await;
    assert_eq!((posted_at(&conversation).await, posted_at(&conversation).await), (Seq(4), Seq(5)));
    drop(conversation);
    client.close().await;
    copy.restore_into(&folder);
    queue_offline(&folder, &fake, 1).await;

    let client = folder.open().await;
    let conversation = room(&client).await;
    assert_eq!(posted_at(&conversation).await, Seq(7), "after the one that was queued");
    drop(conversation);
    client.close().await;
    let client = folder.open().await;
    let conversation = room(&client).await;
    holds(&conversation, 7).await;
    assert_eq!(fake.world.lock().texts(), ["1", "2", "3", SAME, SAME, SAME, SAME]);
    assert_eq!(conversation.queued(), 0);
}
