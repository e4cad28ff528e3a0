//! A writer that posts to one conversation: full windows, or posts that are due.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rove_protocol::frame::RawFrame;
use rove_protocol::ids::{PostNo, Seq};
use rove_protocol::message::{Body as _, Closed, Message as _, Post, Posted, Refused};
use rove_protocol::registry::FrameType;
use rove_protocol::transport::SendStream as _;
use tokio::time::sleep_until;

use super::error::LoadError;
use super::pace::Pace;
use super::session::{Conversation, Stream};
use crate::{Histogram, Span, sample};

/// What one writer saw.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// From each measured post to its acknowledgement: those due in the span, or, without a schedule, those acknowledged in it.
    pub times: Histogram,
    /// From when each of these was due to when it was sent: what held it up here, a full window or a slow client.
    pub held: Histogram,
    /// Acknowledged in the span.
    pub acknowledged: u64,
    /// Refused for now and sent again.
    pub refused: u64,
    /// The longest time in the span without an acknowledgement.
    pub silence: Duration,
}

/// What a writer has been told: its last post that was acknowledged, and the highest seq that one of its posts was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The post.
    pub post_no: PostNo,
    /// The seq.
    pub seq: Seq,
}

impl Known {
    /// Nothing yet.
    pub const NOTHING: Self = Self { post_no: PostNo(0), seq: Seq(0) };
}

/// A writer.
#[derive(Debug)]
pub struct Poster {
    pace: Pace,
    span: Span,
    window: usize,
    template: Post,
    next: u64,
    /// Unanswered: the number, and when it was to be sent.
    waiting: VecDeque<(u64, Instant)>,
    /// To be sent again, in their order, before anything new. A refusal that consumes nothing holds back its successors, and so
    /// does a connection that is gone. At most a window.
    again: VecDeque<Instant>,
    /// A refusal: go back to this number at that time.
    back: Option<(PostNo, Instant)>,
    ended: bool,
    known: Known,
    /// Silence after which it gives its connection up, if something is unanswered.
    patience: Option<Duration>,
    heard: Option<Instant>,
    outcome: Outcome,
}

impl Poster {
    /// A writer that has posted nothing yet, and keeps at most `window` posts unanswered.
    pub fn new(pace: Pace, span: Span, window: usize) -> Self {
        Self {
            pace,
            span,
            window,
            template: sample::post(1),
            next: 1,
            waiting: VecDeque::with_capacity(window),
            again: VecDeque::new(),
            back: None,
            ended: false,
            known: Known::NOTHING,
            patience: None,
            heard: None,
            outcome: Outcome::default(),
        }
    }

    /// The same writer, going on from what it was told before.
    #[must_use]
    pub fn going_on(mut self, known: Known) -> Self {
        (self.known, self.next) = (known, known.post_no.next().0);
        self
    }

    /// The same writer, giving up a connection that has been silent for so long although something is unanswered.
    #[must_use]
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Posts until its pace has no more, and everything is acknowledged.
    ///
    /// # Errors
    /// Those of the stream: [`Poster::reopened`] goes on with a new one. A post refused for good, or answered out of order.
    pub async fn run(&mut self, conversation: &mut Conversation) -> Result<(), LoadError> {
        let Stream { send, frames } = &mut conversation.stream;
        let mut quiet_since = Instant::now();
        while !self.is_done() {
            if self.waiting.is_empty() {
                quiet_since = Instant::now();
            }
            let gives_up = self.patience.map(|patience| quiet_since + patience);
            let room = self.back.is_none() && self.waiting.len() < self.window;
            let again_at = self.back.filter(|_| self.waiting.is_empty()).map(|(_, at)| at);
            tokio::select! {
                // Answers first: as many posts go up at once as were answered at once.
                biased;
                frame = frames.next() => {
                    let mut frame = frame?;
                    if frame.is_none() {
                        return Err(LoadError::Ended("the conversation"));
                    }
                    while let Some(one) = frame {
                        self.take(one)?;
                        frame = frames.buffered()?;
                    }
                    quiet_since = Instant::now();
                }
                () = sleep_until(gives_up.unwrap_or(quiet_since).into()), if gives_up.is_some() => {
                    return Err(LoadError::Ended("a connection that is silent"));
                }
                () = sleep_until(again_at.unwrap_or_else(Instant::now).into()), if again_at.is_some() => {
                    if let Some((expected, _)) = self.back.take() {
                        self.next = expected.0;
                    }
                }
                // Sent again at once; only what is new has to wait for its time.
                () = std::future::ready(()), if room && !self.again.is_empty() => send.write(self.fill(None).into()).await?,
                due = self.pace.next(), if room && !self.ended => match due {
                    Some(due) => send.write(self.fill(Some(due)).into()).await?,
                    None => self.ended = true,
                },
            }
        }
        Ok(())
    }

    /// The connection was lost and the conversation is open again; the server knows the writer's posts up to that one. The others
    /// are sent again.
    ///
    /// # Errors
    /// [`LoadError::Lost`] if it does not know one that was acknowledged.
    pub fn reopened(&mut self, last_post_no: PostNo) -> Result<(), LoadError> {
        let acknowledged = self.known.post_no;
        if last_post_no < acknowledged {
            let lost = format!(
                "post {acknowledged} of a writer was acknowledged, and its last one is said to be {last_post_no}"
            );
            return Err(LoadError::Lost(lost));
        }
        self.known.post_no = last_post_no;
        let now = Instant::now();
        while self.waiting.front().is_some_and(|(number, _)| *number <= last_post_no.0) {
            let Some((_, since)) = self.waiting.pop_front() else { break };
            self.acknowledged(since, now);
        }
        // Refused ones come after what was waiting: they were sent after it.
        let again = self.waiting.drain(..).map(|(_, since)| since).chain(self.again.drain(..)).collect();
        self.again = again;
        self.next = last_post_no.next().0;
        self.back = None;
        Ok(())
    }

    /// What it has been told.
    pub fn known(&self) -> Known {
        self.known
    }

    /// How many it has posted.
    pub fn posts(&self) -> u64 {
        self.next - 1
    }

    /// What it saw, at its end.
    pub fn outcome(mut self) -> Outcome {
        self.heard_at(self.span.until());
        self.outcome
    }

    fn is_done(&self) -> bool {
        self.ended && self.waiting.is_empty() && self.again.is_empty()
    }

    /// The frames of as many posts as there is room for and whose time has come.
    fn fill(&mut self, first: Option<Instant>) -> Vec<u8> {
        let (mut out, mut first, now) = (Vec::new(), first, Instant::now());
        while self.waiting.len() < self.window {
            let again = self.again.pop_front();
            let Some(since) = again.or_else(|| first.take()).or_else(|| self.pace.at_once()) else { break };
            if again.is_none() && self.pace.is_open() && self.span.contains(since) {
                self.outcome.held.record(now.saturating_duration_since(since));
            }
            self.template.post_no = PostNo(self.next);
            self.template.put_frame(&mut out);
            self.waiting.push_back((self.next, since));
            self.next += 1;
        }
        out
    }

    fn take(&mut self, frame: RawFrame) -> Result<(), LoadError> {
        match frame.frame_type {
            FrameType::Posted => {
                let posted = Posted::decode_body(frame.body)?;
                let since = self.answered(posted.post_no)?;
                self.known = Known { post_no: posted.post_no, seq: self.known.seq.max(posted.seq) };
                self.acknowledged(since, Instant::now());
            }
            FrameType::Refused => {
                let refused = Refused::decode_body(frame.body)?;
                let since = self.answered(refused.post_no)?;
                if refused.consumed {
                    return Err(LoadError::Refused { what: "a post", code: refused.code });
                }
                self.outcome.refused += 1;
                self.again.push_back(since);
                let pause = Duration::from_millis(u64::from(refused.retry_after_ms.max(1)));
                self.back.get_or_insert((refused.expected, Instant::now() + pause));
            }
            FrameType::Closed => {
                return Err(LoadError::Refused {
                    what: "the conversation",
                    code: Closed::decode_body(frame.body)?.code,
                });
            }
            // One's own events come back like everybody's.
            _ => {}
        }
        Ok(())
    }

    fn acknowledged(&mut self, since: Instant, now: Instant) {
        let counts = self.span.contains(now);
        if counts {
            self.outcome.acknowledged += 1;
        }
        if if self.pace.is_open() { self.span.contains(since) } else { counts } {
            self.outcome.times.record(now.saturating_duration_since(since));
        }
        self.heard_at(now);
    }

    fn heard_at(&mut self, now: Instant) {
        let last = self.heard.replace(now).unwrap_or(self.span.from()).max(self.span.from());
        self.outcome.silence = self.outcome.silence.max(now.min(self.span.until()).saturating_duration_since(last));
    }

    /// Answers come in the order of the posts.
    fn answered(&mut self, post_no: PostNo) -> Result<Instant, LoadError> {
        match self.waiting.pop_front() {
            Some((number, since)) if number == post_no.0 => Ok(since),
            _ => Err(LoadError::Server(format!("an answer to post {post_no} out of order"))),
        }
    }
}

impl Outcome {
    /// Counts what another writer saw.
    pub fn add(&mut self, other: &Self) {
        self.times.add(&other.times);
        self.held.add(&other.held);
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.silence = self.silence.max(other.silence);
    }

    /// What all of them saw together.
    pub fn sum<'a>(outcomes: impl IntoIterator<Item = &'a Self>) -> Self {
        outcomes.into_iter().fold(Self::default(), |mut sum, each| {
            sum.add(each);
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use rove_protocol::frame::FrameDecoder;
    use rove_protocol::ids::{MessageId, Seq};
    use rove_protocol::limits;
    use rove_protocol::registry::ErrorCode;

    use super::*;
    use crate::Schedule;

    fn poster(window: usize) -> Poster {
        let start = Instant::now();
        let span = Span::new(start, Duration::ZERO, Duration::from_secs(3_600));
        Poster::new(Pace::Full { until: span.until() }, span, window)
    }

    /// The numbers of the posts in these frames.
    fn numbers(bytes: &[u8]) -> Vec<u64> {
        let mut decoder = FrameDecoder::new(limits::FRAME);
        decoder.feed(bytes);
        let next = || decoder.next_frame().unwrap().map(|frame| Post::decode_body(frame.body).unwrap().post_no.0);
        std::iter::from_fn(next).collect()
    }

    fn posted(number: u64) -> RawFrame {
        let (message_id, seq, time_ms) = (MessageId(number), Seq(number), 0);
        let body = Posted { post_no: PostNo(number), seq, message_id, time_ms }.encode_body().into();
        RawFrame { frame_type: FrameType::Posted, body }
    }

    fn busy(number: u64, expected: u64) -> RawFrame {
        let (post_no, expected, code) = (PostNo(number), PostNo(expected), ErrorCode::Busy);
        let refused = Refused { post_no, code, consumed: false, expected, retry_after_ms: 5 };
        RawFrame { frame_type: FrameType::Refused, body: refused.encode_body().into() }
    }

    #[test]
    fn a_window_is_filled_and_what_is_answered_makes_room() {
        let mut poster = poster(4);
        assert_eq!(numbers(&poster.fill(None)), [1, 2, 3, 4]);
        assert!(poster.fill(None).is_empty());
        poster.take(posted(1)).unwrap();
        poster.take(posted(2)).unwrap();
        assert_eq!(numbers(&poster.fill(None)), [5, 6]);
        assert!(poster.take(posted(5)).is_err(), "out of order");
        let outcome = poster.outcome();
        assert_eq!((outcome.acknowledged, outcome.times.count(), outcome.held.count()), (2, 2, 0));
    }

    #[test]
    fn what_is_refused_for_now_is_sent_again_under_its_number_and_counts_from_its_first_time() {
        let mut poster = poster(3);
        assert_eq!(numbers(&poster.fill(None)), [1, 2, 3]);
        let since = poster.waiting[1].1;
        poster.take(posted(1)).unwrap();
        poster.take(busy(2, 2)).unwrap();
        poster.take(busy(3, 2)).unwrap();
        let (expected, _) = poster.back.take().unwrap();
        poster.next = expected.0;
        assert_eq!(numbers(&poster.fill(None)), [2, 3, 4]);
        assert_eq!(poster.waiting[0], (2, since));
        assert_eq!(poster.outcome.refused, 2);
    }

    #[test]
    fn after_a_lost_connection_only_what_the_server_lacks_is_sent_again() {
        let mut poster = poster(4);
        assert_eq!(numbers(&poster.fill(None)), [1, 2, 3, 4]);
        poster.take(posted(1)).unwrap();
        poster.reopened(PostNo(2)).unwrap();
        assert_eq!(poster.outcome.acknowledged, 2);
        assert_eq!(numbers(&poster.fill(None)), [3, 4, 5, 6]);
        assert_eq!(poster.known(), Known { post_no: PostNo(2), seq: Seq(1) });
    }

    #[test]
    fn a_server_that_does_not_know_what_it_acknowledged_has_lost_it() {
        let mut poster = poster(4).going_on(Known { post_no: PostNo(6), seq: Seq(9) });
        assert!(matches!(poster.reopened(PostNo(5)), Err(LoadError::Lost(_))));
        poster.reopened(PostNo(6)).unwrap();
        assert_eq!(numbers(&poster.fill(None)), [7, 8, 9, 10]);
        poster.take(posted(7)).unwrap();
        assert!(matches!(poster.reopened(PostNo(6)), Err(LoadError::Lost(_))));
    }

    #[test]
    fn the_longest_silence_is_within_the_span_whichever_end_it_is_at() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let silent_for = |heard: &[u64]| {
            let span = Span::new(start, Duration::from_millis(100), Duration::from_secs(1));
            let mut poster = Poster::new(Pace::Full { until: span.until() }, span, 1);
            for ms in heard {
                poster.heard_at(after(*ms));
            }
            poster.outcome().silence.as_millis()
        };
        assert_eq!(silent_for(&[50, 400, 1_000]), 600, "between two answers");
        assert_eq!(silent_for(&[50, 800, 1_000]), 700, "from its beginning, not from before");
        assert_eq!(silent_for(&[50, 200, 300, 5_000]), 800, "to its end, not beyond");
        assert_eq!(silent_for(&[]), 1_000, "all of it");
    }

    #[tokio::test]
    async fn posts_that_are_due_count_from_then_and_those_that_are_not_wait() {
        let start = Instant::now().checked_sub(Duration::from_secs(3)).unwrap();
        let span = Span::new(start, Duration::from_secs(1), Duration::from_secs(100));
        let schedule = Schedule::new(start, 1.0, 100).unwrap();
        let mut poster = Poster::new(Pace::Due(schedule), span, 64);
        assert_eq!(numbers(&poster.fill(None)), [1, 2, 3, 4], "0, 1, 2 and 3 seconds after the start");
        poster.take(posted(1)).unwrap();
        poster.take(posted(2)).unwrap();
        let outcome = poster.outcome();
        assert_eq!(outcome.acknowledged, 2);
        assert_eq!(outcome.times.count(), 1, "the first was due in the warm-up");
        assert!(
            outcome.times.max() >= Duration::from_millis(1_990) && outcome.held.max() >= Duration::from_millis(1_990)
        );
    }
}
