//! Waits until everybody has everything, and shows it to the judge.

use rove_client::ids::Seq;
use rove_client::registry::EventKind;
use rove_client::{Conversation, StoredEvent};
use tokio::task::JoinSet;

use super::people::Room;
use super::plan::{FilePlan, Plan};
use super::post::{Fate, Said};
use super::progress::Progress;
use super::verify::{Held, Judge, PostedLine, Verdict};
use crate::cli::error::Failure;

/// Events read from a store at once.
const PAGE: usize = 512;

/// The last seq of a conversation that anybody knows of.
pub fn head(room: &Room, said: &Said) -> Seq {
    let acknowledged = said.fates.iter().filter_map(|fate| match fate {
        Fate::Posted { at, .. } => Some(at.seq),
        _ => None,
    });
    let known = room.members.iter().map(|member| member.conversation.head());
    acknowledged.chain(known).max().unwrap_or_default()
}

/// Waits until every member of every room holds everything up to its head. True if that stalled.
pub async fn everything(rooms: &[Room], said: &[Said], progress: &Progress) -> bool {
    let mut jobs = JoinSet::new();
    let mut missing = 0_u64;
    for (room, said) in rooms.iter().zip(said) {
        let head = head(room, said);
        for member in &room.members {
            missing += head.0.saturating_sub(member.conversation.cursor().0);
            jobs.spawn(arrive(member.conversation.clone(), head, progress.clone()));
        }
    }
    progress.stage("delivering", usize::try_from(missing).unwrap_or(usize::MAX));
    loop {
        tokio::select! {
            done = jobs.join_next() => match done {
                None => return false,
                Some(Ok(true)) => {}
                // Its client is closed: it will not arrive.
                Some(Ok(false) | Err(_)) => return true,
            },
            () = progress.stalled() => {
                jobs.shutdown().await;
                return true;
            }
        }
    }
}

/// Waits for one member. False if its client ended.
async fn arrive(conversation: Conversation, head: Seq, progress: Progress) -> bool {
    let mut updates = conversation.updates();
    let mut before = conversation.cursor();
    while before < head {
        if updates.changed().await.is_err() {
            return false;
        }
        let now = conversation.cursor();
        progress.step(now.0.saturating_sub(before.0));
        before = now;
    }
    true
}

/// One verdict for each file.
///
/// # Errors
/// A store could not be read.
pub async fn judge(plan: &Plan, rooms: &[Room], said: &[Said]) -> Result<Vec<Verdict>, Failure> {
    let mut verdicts = Vec::new();
    for ((file, room), said) in plan.files.iter().zip(rooms).zip(said) {
        let mut judge = Judge::new(room.from, head(room, said), posted(file, room, said));
        for member in &room.members {
            let log = log(&member.conversation).await?;
            judge.client(&plan.nicks[member.nick], &log);
        }
        verdicts.push(judge.finish());
    }
    Ok(verdicts)
}

/// The lines with what the server said to them.
fn posted(file: &FilePlan, room: &Room, said: &Said) -> Vec<PostedLine> {
    let lines = file.lines.iter().zip(&said.fates);
    lines
        .map(|((nick, line), fate)| PostedLine {
            number: line.number,
            author: room.member(*nick).map(|member| member.account).unwrap_or_default(),
            body: line.text.clone().into_bytes(),
            acknowledged: match fate {
                Fate::Posted { at, .. } => Some(*at),
                Fate::Unanswered | Fate::Refused(_) => None,
            },
        })
        .collect()
}

/// Everything a client holds of a conversation, as it holds it.
async fn log(conversation: &Conversation) -> Result<Vec<Held>, Failure> {
    let mut log = Vec::new();
    let mut after = Seq(0);
    loop {
        let page = conversation.events_after(after, PAGE).await?;
        let Some(last) = page.last().map(|event| event.seq) else { return Ok(log) };
        log.extend(page.iter().map(held));
        if last <= after {
            // A store that does not advance would be read for ever; the judge sees it as it is.
            return Ok(log);
        }
        after = last;
    }
}

fn held(stored: &StoredEvent) -> Held {
    Held {
        seq: stored.event.seq,
        message_id: stored.event.message_id,
        author: stored.event.author,
        message: stored.event.kind == EventKind::Message,
        body: stored.event.body.to_vec(),
    }
}
