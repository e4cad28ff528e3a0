//! Everybody says what is his, in the order of the file.

use std::collections::BTreeMap;
use std::time::Duration;

use rove_client::registry::ErrorCode;
use rove_client::{Conversation, Error, Outcome, PostHandle};
use rove_protocol::limits;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Speed;
use super::irc::Line;
use super::people::Room;
use super::plan::{FilePlan, Plan};
use super::progress::Progress;
use super::verify::Acknowledged;

/// What came of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fate {
    /// Nothing was heard of it.
    #[default]
    Unanswered,
    /// It is in the log.
    Posted {
        /// Where.
        at: Acknowledged,
        /// How long that took, in microseconds.
        took_us: u64,
    },
    /// The server did not take it.
    Refused(ErrorCode),
}

/// What came of every line of one file, in file order.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// One for each line.
    pub fates: Vec<Fate>,
    /// Why somebody stopped talking, if somebody did.
    pub errors: Vec<String>,
}

/// Posts everything. Ends when every line has its fate, or nothing has moved for too long.
pub async fn all(speed: Speed, plan: &Plan, rooms: &[Room], progress: &Progress) -> Vec<Said> {
    progress.stage("posting", plan.lines());
    let mut said: Vec<Said> = plan
        .files
        .iter()
        .map(|file| Said { fates: vec![Fate::Unanswered; file.lines.len()], errors: Vec::new() })
        .collect();
    // Room for what comes at once; who talks waits for who listens.
    let (fates, mut heard) = mpsc::channel(limits::UNANSWERED_POSTS);
    let mut speakers: JoinSet<()> = JoinSet::new();
    let start = Instant::now();
    let longest = longest_silence(plan, speed);
    for (file, (plan, room)) in plan.files.iter().zip(rooms).enumerate() {
        let due = due(plan, speed);
        for (nick, lines) in by_nick(plan) {
            let Some(member) = room.member(nick) else { continue };
            let lines: Vec<Turn> = lines
                .into_iter()
                .map(|(index, line)| Turn { index, text: line.text.clone(), due: due[index].map(|due| start + due) })
                .collect();
            let (conversation, fates) = (member.conversation.clone(), fates.clone());
            speakers.spawn(speak(file, conversation, lines, fates));
        }
    }
    drop(fates);
    loop {
        tokio::select! {
            news = heard.recv() => match news {
                None => break,
                Some(News { file, said: Ok((index, fate)) }) => {
                    said[file].fates[index] = fate;
                    progress.step(1);
                }
                Some(News { file, said: Err(error) }) => said[file].errors.push(error),
            },
            () = progress.silent(longest) => {
                if let Some(file) = said.first_mut() {
                    file.errors.push("nothing was acknowledged any more".to_owned());
                }
                break;
            }
        }
    }
    speakers.shutdown().await;
    said
}

/// Something heard of a file's line, or of who was to say it.
struct News {
    file: usize,
    said: Result<(usize, Fate), String>,
}

/// A line, and when it is said; at once if not.
struct Turn {
    index: usize,
    text: String,
    due: Option<Instant>,
}

/// Every nick's lines with their indices, in file order.
fn by_nick(file: &FilePlan) -> BTreeMap<usize, Vec<(usize, &Line)>> {
    let mut lines: BTreeMap<usize, Vec<(usize, &Line)>> = BTreeMap::new();
    for (index, (nick, line)) in file.lines.iter().enumerate() {
        lines.entry(*nick).or_default().push((index, line));
    }
    lines
}

/// When each line is said, from the beginning: the stamps only tell the minute, so the lines of one are spread over it.
fn due(file: &FilePlan, speed: Speed) -> Vec<Option<Duration>> {
    let Speed::Times(times) = speed else { return vec![None; file.lines.len()] };
    let first = file.lines.first().map_or(0, |(_, line)| line.minute);
    let mut in_minute: BTreeMap<u32, u32> = BTreeMap::new();
    for (_, line) in &file.lines {
        *in_minute.entry(line.minute).or_default() += 1;
    }
    let mut nth: BTreeMap<u32, u32> = BTreeMap::new();
    file.lines
        .iter()
        .map(|(_, line)| {
            let number = nth.entry(line.minute).or_default();
            let share = f64::from(*number) / f64::from(in_minute[&line.minute]);
            *number += 1;
            Some(Duration::from_secs_f64((f64::from(line.minute - first) + share) * 60.0 / times))
        })
        .collect()
}

/// The longest time in which nothing is to be said: a slow replay is not stalled while people think.
fn longest_silence(plan: &Plan, speed: Speed) -> Duration {
    let mut all: Vec<Duration> = plan.files.iter().flat_map(|file| due(file, speed)).flatten().collect();
    all.sort_unstable();
    all.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or_default()
}

/// One nick in one conversation: posts in order, with as many unanswered as may be.
async fn speak(file: usize, conversation: Conversation, lines: Vec<Turn>, news: mpsc::Sender<News>) {
    // As many as the server takes unanswered from one writer: more would only wait in the outbox.
    let (sent, mut unanswered) = mpsc::channel::<(usize, Instant, PostHandle)>(limits::UNANSWERED_POSTS);
    let tell = |said| news.send(News { file, said });
    let posting = async {
        for turn in lines {
            if let Some(due) = turn.due {
                tokio::time::sleep_until(due).await;
            }
            match post(&conversation, &turn.text).await {
                Ok(handle) => {
                    if sent.send((turn.index, Instant::now(), handle)).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    // What comes after it must not overtake it.
                    let _ = tell(Err(format!("posting: {error}"))).await;
                    break;
                }
            }
        }
        drop(sent);
    };
    let listening = async {
        while let Some((index, start, handle)) = unanswered.recv().await {
            let fate = match handle.outcome().await {
                Ok(Outcome::Posted { seq, message_id, .. }) => Fate::Posted {
                    at: Acknowledged { seq, message_id },
                    took_us: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
                },
                Ok(Outcome::Refused(code)) => Fate::Refused(code),
                Err(error) => {
                    let _ = tell(Err(format!("waiting for an acknowledgement: {error}"))).await;
                    continue;
                }
            };
            if tell(Ok((index, fate))).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(posting, listening);
}

/// Queues a post, waiting for room in the outbox.
async fn post(conversation: &Conversation, text: &str) -> Result<PostHandle, Error> {
    let mut updates = conversation.updates();
    loop {
        updates.borrow_and_update();
        match conversation.post(text).await {
            Err(Error::OutboxFull { .. }) => {
                if updates.changed().await.is_err() {
                    return Err(Error::Closed(ErrorCode::None));
                }
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::irc;

    fn file(text: &str) -> FilePlan {
        let transcript = irc::parse(text.as_bytes());
        FilePlan {
            path: "x".into(),
            title: "x".into(),
            members: vec![0],
            lines: transcript.lines.into_iter().map(|line| (0, line)).collect(),
            counts: transcript.counts,
            faults: transcript.faults,
        }
    }

    #[test]
    fn the_lines_of_a_minute_are_spread_over_it() {
        let file = file("[23:59] <a> 1\n[23:59] <a> 2\n[00:01] <a> 3\n");
        let seconds = |speed| -> Vec<u64> { due(&file, speed).into_iter().map(|due| due.unwrap().as_secs()).collect() };
        assert_eq!(seconds(Speed::Times(1.0)), [0, 30, 120]);
        assert_eq!(seconds(Speed::Times(60.0)), [0, 0, 2]);
        assert!(due(&file, Speed::Max).iter().all(Option::is_none));
        let plan = Plan { files: vec![file], ..Plan::default() };
        assert_eq!(longest_silence(&plan, Speed::Times(1.0)), Duration::from_secs(90));
        assert_eq!(longest_silence(&plan, Speed::Max), Duration::ZERO);
    }

    #[test]
    fn every_nick_keeps_its_order() {
        let mut file = file("<a> 1\n<a> 2\n<a> 3\n<a> 4\n");
        file.lines[1].0 = 1;
        file.lines[3].0 = 1;
        let lines = by_nick(&file);
        let indices = |nick: usize| lines[&nick].iter().map(|(index, _)| *index).collect::<Vec<_>>();
        assert_eq!((indices(0), indices(1)), (vec![0, 2], vec![1, 3]));
    }
}
