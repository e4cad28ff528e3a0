//! Reads IRC transcripts: who said what, in which minute, and what else was in the file.
//!
//! A transcript is what people's clients left behind, so it is dirty: bytes that are no UTF-8, clocks that step back, nicks
//! with anything in them, lines cut short. Nothing of that stops the reading. What can be mended is mended and counted, what
//! cannot is a [`Fault`] with its line number, and every other line is kept.

use std::fmt;

use rove_protocol::limits;

/// Minutes of half a day, where the clock of a transcript may start again.
const HALF_DAY_MINUTES: u32 = 12 * 60;

/// One thing somebody said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where in the file, from 1.
    pub number: usize,
    /// Minutes since the midnight before the file's first stamp; never lower than that of the line before.
    pub minute: u32,
    /// Who, exactly as written, without the spaces some clients pad it with.
    pub nick: String,
    /// What is posted. `* nick does` becomes `* does`.
    pub text: String,
}

/// A line that could not be read, or not be posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where in the file, from 1.
    pub number: usize,
    /// What is wrong with it.
    pub kind: FaultKind,
}

/// What may be wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// It begins like none of the known forms.
    #[error(
        "neither `[HH:MM] <nick> text`, nor `[HH:MM] * nick does`, nor `=== notice`: skipped (it begins with {beginning:?})"
    )]
    Unknown {
        /// The first characters of the line.
        beginning: String,
    },
    /// `[` and then no time of day.
    #[error("{stamp:?} is no time of day (HH:MM): skipped")]
    Time {
        /// What stood there.
        stamp: String,
    },
    /// `<` without `>`, or nothing between them.
    #[error("no nick between `<` and `>`: skipped")]
    Nick,
    /// More than one post may hold.
    #[error("{bytes} bytes of text, and a post holds {}: skipped", limits::BODY)]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
}

/// How many lines of which sort there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// `<nick> text`.
    pub messages: u64,
    /// `* nick does`; posted like messages.
    pub actions: u64,
    /// `=== …`: said by nobody, so not posted.
    pub notices: u64,
    /// A nick and then nothing: not posted.
    pub empty: u64,
    /// Lines with nothing in them.
    pub blank: u64,
    /// Lines that are faults.
    pub malformed: u64,
    /// Lines posted with U+FFFD for bytes that are no UTF-8.
    pub repaired: u64,
    /// Lines whose clock was behind that of the line before by less than a quarter of a day.
    pub clock_back: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.actions += other.actions;
        self.notices += other.notices;
        self.empty += other.empty;
        self.blank += other.blank;
        self.malformed += other.malformed;
        self.repaired += other.repaired;
        self.clock_back += other.clock_back;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} messages, {} actions; skipped: {} notices, {} empty, {} blank, {} malformed; mended: {} not UTF-8, {} clocks \
             stepping back",
            self.messages,
            self.actions,
            self.notices,
            self.empty,
            self.blank,
            self.malformed,
            self.repaired,
            self.clock_back
        )
    }
}

/// One file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transcript {
    /// What was said, in file order.
    pub lines: Vec<Line>,
    /// What could not be read.
    pub faults: Vec<Fault>,
    /// The sums.
    pub counts: Counts,
}

impl Transcript {
    /// Everyone who said something, in the order of their first words.
    pub fn nicks(&self) -> Vec<&str> {
        let mut seen = std::collections::BTreeSet::new();
        self.lines.iter().map(|line| line.nick.as_str()).filter(|nick| seen.insert(*nick)).collect()
    }
}

/// Reads a whole transcript. Never fails: see [`Transcript::faults`].
pub fn parse(bytes: &[u8]) -> Transcript {
    let mut transcript = Transcript::default();
    let mut clock = Clock::default();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut rest = bytes;
    let mut number = 0;
    while !rest.is_empty() {
        let (line, after) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, &rest[rest.len()..]),
        };
        rest = after;
        number += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = String::from_utf8_lossy(line);
        let mended = matches!(text, std::borrow::Cow::Owned(_));
        read_line(number, &text, mended, &mut clock, &mut transcript);
    }
    transcript
}

/// What a line turned out to be.
enum Sort<'a> {
    Blank,
    Notice,
    Said { stamp: Option<u32>, nick: &'a str, text: &'a str },
    Did { stamp: Option<u32>, nick: &'a str, text: &'a str },
}

fn read_line(number: usize, text: &str, mended: bool, clock: &mut Clock, transcript: &mut Transcript) {
    let counts = &mut transcript.counts;
    let (stamp, nick, said, action) = match sort(text) {
        Ok(Sort::Blank) => return counts.blank += 1,
        Ok(Sort::Notice) => return counts.notices += 1,
        Ok(Sort::Said { stamp, nick, text }) => (stamp, nick, text.to_owned(), false),
        Ok(Sort::Did { stamp, nick, text }) => (stamp, nick, format!("* {text}"), true),
        Err(kind) => {
            counts.malformed += 1;
            return transcript.faults.push(Fault { number, kind });
        }
    };
    if stamp.is_some_and(|stamp| clock.advance(stamp)) {
        counts.clock_back += 1;
    }
    if said.trim().is_empty() || (action && said.trim() == "*") {
        return counts.empty += 1;
    }
    if said.len() > limits::BODY {
        counts.malformed += 1;
        return transcript.faults.push(Fault { number, kind: FaultKind::TooLong { bytes: said.len() } });
    }
    if action {
        counts.actions += 1;
    } else {
        counts.messages += 1;
    }
    counts.repaired += u64::from(mended);
    transcript.lines.push(Line { number, minute: clock.minute(), nick: nick.to_owned(), text: said });
}

fn sort(line: &str) -> Result<Sort<'_>, FaultKind> {
    if line.trim().is_empty() {
        return Ok(Sort::Blank);
    }
    if line.starts_with("===") {
        return Ok(Sort::Notice);
    }
    let (stamp, rest) = match line.strip_prefix('[') {
        Some(stamped) => {
            let (stamp, rest) = stamped.split_once(']').ok_or_else(|| FaultKind::Time { stamp: beginning(stamped) })?;
            let minute = minute_of_day(stamp).ok_or_else(|| FaultKind::Time { stamp: beginning(stamp) })?;
            (Some(minute), rest)
        }
        None => (None, line),
    };
    let rest = rest.trim_start_matches(' ');
    if let Some(said) = rest.strip_prefix('<') {
        let (nick, text) = said.split_once('>').ok_or(FaultKind::Nick)?;
        let nick = nick.trim();
        if nick.is_empty() {
            return Err(FaultKind::Nick);
        }
        return Ok(Sort::Said { stamp, nick, text: text.strip_prefix(' ').unwrap_or(text) });
    }
    if let Some(did) = rest.strip_prefix("* ") {
        let did = did.trim_start();
        let (nick, text) = did.split_once(' ').unwrap_or((did, ""));
        if nick.is_empty() {
            return Err(FaultKind::Nick);
        }
        return Ok(Sort::Did { stamp, nick, text });
    }
    if rest.starts_with("===") {
        return Ok(Sort::Notice);
    }
    Err(FaultKind::Unknown { beginning: beginning(line) })
}

/// The first characters of a text, enough to find it by.
fn beginning(text: &str) -> String {
    text.chars().take(32).collect()
}

/// `HH:MM` or `HH:MM:SS`.
fn minute_of_day(stamp: &str) -> Option<u32> {
    let mut parts = stamp.trim().split(':');
    let (hour, minute) = (two_digits(parts.next()?)?, two_digits(parts.next()?)?);
    let second = parts.next().map_or(Some(0), two_digits)?;
    // A leap second is a 60.
    (hour < 24 && minute < 60 && second <= 60 && parts.next().is_none()).then_some(hour * 60 + minute)
}

fn two_digits(text: &str) -> Option<u32> {
    (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// A clock that shows the time of day, of twelve or of 24 hours, made to run on.
#[derive(Default)]
struct Clock {
    /// What is added to a stamp: whole half days.
    base: u32,
    minute: Option<u32>,
}

impl Clock {
    /// Goes on to a stamp; true if the stamp was behind and is ignored. A quarter of a day behind or more is no slip: the
    /// clock has begun anew, at midnight or, if it has twelve hours, at noon.
    fn advance(&mut self, stamp: u32) -> bool {
        let last = self.minute.unwrap_or(0);
        let mut base = self.base;
        while base + stamp < last {
            if last - (base + stamp) < HALF_DAY_MINUTES / 2 {
                return true;
            }
            base += HALF_DAY_MINUTES;
        }
        (self.base, self.minute) = (base, Some(base + stamp));
        false
    }

    fn minute(&self) -> u32 {
        self.minute.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<(usize, u32, String, String)> {
        parse(text.as_bytes()).lines.into_iter().map(|line| (line.number, line.minute, line.nick, line.text)).collect()
    }

    fn line(number: usize, minute: u32, nick: &str, text: &str) -> (usize, u32, String, String) {
        (number, minute, nick.to_owned(), text.to_owned())
    }

    #[test]
    fn messages_actions_and_notices_are_told_apart() {
        let transcript = parse(
            b"[09:05] <ada> hello  there\n=== bo is now known as bob\n[09:06]  * bob waves\n=== cy [c@x] has joined #rove\n",
        );
        assert_eq!(
            transcript.lines,
            [
                Line { number: 1, minute: 545, nick: "ada".into(), text: "hello  there".into() },
                Line { number: 3, minute: 546, nick: "bob".into(), text: "* waves".into() },
            ]
        );
        assert_eq!(transcript.counts, Counts { messages: 1, actions: 1, notices: 2, ..Counts::default() });
        assert_eq!(transcript.nicks(), ["ada", "bob"]);
    }

    #[test]
    fn stamps_may_be_missing_or_have_seconds() {
        assert_eq!(
            said("<ada> before any time\n[10:00:59] <ada> x\n* ada nods\n"),
            [line(1, 0, "ada", "before any time"), line(2, 600, "ada", "x"), line(3, 600, "ada", "* nods")]
        );
    }

    #[test]
    fn nicks_keep_every_strange_character_but_the_padding() {
        assert_eq!(
            said("[00:00] <\\9> a\n[00:00] <[[x]]> b\n[00:00] <brad[] > c\n[00:00] <|t-r`e|> d > e\n"),
            [
                line(1, 0, "\\9", "a"),
                line(2, 0, "[[x]]", "b"),
                line(3, 0, "brad[]", "c"),
                line(4, 0, "|t-r`e|", "d > e")
            ]
        );
    }

    #[test]
    fn the_text_is_kept_to_the_last_space_and_control_character() {
        assert_eq!(said("[00:00] <a>   x \u{8}y  \r\n"), [line(1, 0, "a", "  x \u{8}y  ")]);
        assert_eq!(said("[00:00] <a>glued"), [line(1, 0, "a", "glued")]);
    }

    #[test]
    fn who_says_nothing_posts_nothing() {
        let transcript = parse(b"[00:00] <a>\n[00:00] <a> \n[00:00]  * a\n\n   \n");
        assert_eq!(transcript.lines, []);
        assert_eq!(transcript.counts, Counts { empty: 3, blank: 2, ..Counts::default() });
    }

    #[test]
    fn midnight_is_the_next_day_and_a_clock_stepping_back_stands_still() {
        let transcript = parse(b"[23:59] <a> 1\n[00:01] <a> 2\n[00:00] <a> 3\n[00:02] <a> 4\n");
        let minutes: Vec<u32> = transcript.lines.iter().map(|line| line.minute).collect();
        assert_eq!(minutes, [1439, 1441, 1441, 1442]);
        assert_eq!(transcript.counts.clock_back, 1);
    }

    #[test]
    fn a_clock_of_twelve_hours_runs_on_at_noon() {
        let transcript =
            parse(b"[12:59] <a> 1\n[01:00] <a> 2\n[11:59] <a> 3\n[12:00] <a> 4\n[12:30] <a> 5\n[01:00] <a> 6\n");
        let minutes: Vec<u32> = transcript.lines.iter().map(|line| line.minute).collect();
        assert_eq!(minutes, [779, 780, 1439, 1440, 1470, 1500]);
        assert_eq!(transcript.counts.clock_back, 0);
    }

    #[test]
    fn bytes_that_are_no_utf_8_are_mended_and_counted() {
        let transcript = parse(b"\xef\xbb\xbf[00:00] <a> caf\xe9\n[00:00] <a> caf\xc3\xa9\n");
        let texts: Vec<&str> = transcript.lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["caf\u{fffd}", "café"]);
        assert_eq!(transcript.counts.repaired, 1);
    }

    #[test]
    fn a_malformed_line_is_named_and_the_others_are_kept() {
        let long = format!("[00:01] <a> {}\n", "x".repeat(limits::BODY + 1));
        let text = format!(
            "[00:00] <a> 1\ngarbage\n[25:00] <a> 2\n[0:00] <a> 3\n[00:00 <a> 4\n[00:00] <a 5\n[00:00] <> 6\n{long}<a> 7"
        );
        let transcript = parse(text.as_bytes());
        let kept: Vec<&str> = transcript.lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(kept, ["1", "7"]);
        let faults: Vec<usize> = transcript.faults.iter().map(|fault| fault.number).collect();
        assert_eq!(faults, [2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(transcript.counts.malformed, 7);
        assert!(transcript.faults[0].kind.to_string().contains("\"garbage\""));
        assert!(matches!(transcript.faults[6].kind, FaultKind::TooLong { bytes } if bytes == limits::BODY + 1));
    }

    #[test]
    fn the_longest_text_that_a_post_holds_is_posted() {
        let text = format!("[00:00] <a> {}", "x".repeat(limits::BODY));
        assert_eq!(parse(text.as_bytes()).counts, Counts { messages: 1, ..Counts::default() });
    }

    #[test]
    fn our_own_sample_holds_every_form_and_some_dirt() {
        let transcript = parse(include_bytes!("../../samples/harbour.txt"));
        assert_eq!(transcript.nicks().len(), 8);
        assert_eq!(
            transcript.counts,
            Counts {
                messages: 49,
                actions: 4,
                notices: 6,
                empty: 2,
                blank: 1,
                malformed: 2,
                repaired: 1,
                clock_back: 1
            }
        );
    }

    #[test]
    fn an_hour_of_real_talk_is_read_to_the_last_line() {
        let here = std::path::PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap());
        let folder = here.join("../../../shared/data/irc");
        let Ok(files) = std::fs::read_dir(folder) else { return };
        let mut sums = Counts::default();
        let mut posted = 0;
        for file in files {
            let transcript = parse(&std::fs::read(file.unwrap().path()).unwrap());
            assert_eq!(transcript.faults, []);
            sums += transcript.counts;
            posted += transcript.lines.len() as u64;
        }
        assert_eq!(sums.messages + sums.actions, posted);
        assert!(sums.clock_back < 50, "{sums}");
        assert_eq!(posted + sums.notices + sums.empty + sums.blank + sums.malformed, 12_500);
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_bytes_every_line_is_counted_once(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2_000)) {
            let counts = parse(&bytes).counts;
            let lines = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes).split_inclusive(|byte| *byte == b'\n').count();
            let counted = counts.messages + counts.actions + counts.notices + counts.empty + counts.blank + counts.malformed;
            proptest::prop_assert_eq!(counted, lines as u64);
        }
    }
}
