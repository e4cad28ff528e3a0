//! Counts of instructions, as they stand in a file, and how others compare with them.

use std::collections::BTreeMap;
use std::fmt;

use rove_benches::digits;
use serde_json::{Value, json};

/// A change of the code that does not mean to can move a count by some percent: another function is inlined, a field moves. More than five
/// means more work for each message; less would make every second change renew the file.
const TOLERANCE: f64 = 1.05;

const ABOUT: &str = "Instructions per message, counted by callgrind in a release build; `make bench-instructions` fails if one is more than \
                     5 % above what stands here, BENCH_KEEP=1 writes the file. Another compiler gives other counts: then nothing fails. \
                     What is counted, and why 5 %: benches/src/bin/rove-instructions/.";

/// Instructions per message of each piece of work.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Counts {
    /// What made the code that was counted: its version and for which processor.
    pub(crate) compiler: String,
    pieces: BTreeMap<String, f64>,
}

/// How a count compares with the one that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Neither more nor less than is tolerated.
    Same,
    /// More than is tolerated.
    More,
    /// So much less that the file should be written again: what was won would be lost unnoticed.
    Less,
    /// It stands on one side only.
    Unknown,
}

/// One piece of work, compared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    name: String,
    pub(crate) verdict: Verdict,
    before: Option<f64>,
    now: Option<f64>,
}

impl Counts {
    /// Nothing yet, of this program.
    pub(crate) fn here() -> Self {
        let compiler = format!("rustc {}, {}", env!("ROVE_BENCHES_RUSTC"), std::env::consts::ARCH);
        Self { compiler, pieces: BTreeMap::new() }
    }

    pub(crate) fn set(&mut self, name: &str, instructions: f64) {
        // Tenths are noise.
        self.pieces.insert(name.to_owned(), instructions.round());
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let json: Value = serde_json::from_str(text).ok()?;
        let pieces = json["instructions"].as_object()?.iter();
        Some(Self {
            compiler: json["compiler"].as_str()?.to_owned(),
            pieces: pieces.map(|(name, count)| Some((name.clone(), count.as_f64()?))).collect::<Option<_>>()?,
        })
    }

    pub(crate) fn to_text(&self) -> String {
        let json = json!({ "about": ABOUT, "compiler": self.compiler, "instructions": self.pieces });
        format!("{json:#}\n")
    }

    /// Others beside these, by name.
    pub(crate) fn compare(&self, others: &Self) -> Vec<Line> {
        let mut names: Vec<&String> = self.pieces.keys().chain(others.pieces.keys()).collect();
        names.sort();
        names.dedup();
        let line = |name: &String| {
            let (before, now) = (self.pieces.get(name).copied(), others.pieces.get(name).copied());
            Line { name: name.clone(), verdict: verdict(before, now), before, now }
        };
        names.into_iter().map(line).collect()
    }
}

fn verdict(before: Option<f64>, now: Option<f64>) -> Verdict {
    match (before, now) {
        (Some(before), Some(now)) if now > before * TOLERANCE => Verdict::More,
        (Some(before), Some(now)) if now < before / TOLERANCE => Verdict::Less,
        (Some(_), Some(_)) => Verdict::Same,
        _ => Verdict::Unknown,
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.verdict {
            Verdict::Same => "ok",
            Verdict::More => "MORE",
            Verdict::Less => "less: write the file again",
            Verdict::Unknown => "nothing to compare with",
        };
        let count = |count: Option<f64>| count.map_or_else(|| "-".to_owned(), digits);
        let name = &self.name;
        write!(
            f,
            "{name:16} {:>7} instructions per message, before {:>7}: {words}",
            count(self.now),
            count(self.before)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(apply: f64) -> Counts {
        let mut counts = Counts::here();
        counts.set("apply", apply);
        counts
    }

    fn judged(before: f64, now: f64) -> Verdict {
        counts(before).compare(&counts(now))[0].verdict
    }

    #[test]
    fn five_percent_are_tolerated_and_more_is_named_in_both_directions() {
        assert_eq!(judged(1_000.0, 1_000.0), Verdict::Same);
        assert_eq!(judged(1_000.0, 1_049.0), Verdict::Same);
        assert_eq!(judged(1_000.0, 1_051.0), Verdict::More);
        assert_eq!(judged(1_000.0, 940.0), Verdict::Less);
        assert!(counts(1_000.0).compare(&counts(2_000.0))[0].to_string().ends_with("before    1000: MORE"));
    }

    #[test]
    fn what_stands_on_one_side_only_is_shown_and_is_no_failure() {
        let mut now = counts(1_000.0);
        now.set("new", 5.0);
        let lines = counts(1_000.0).compare(&now);
        assert_eq!(lines.iter().map(|line| line.verdict).collect::<Vec<_>>(), [Verdict::Same, Verdict::Unknown]);
        assert!(lines[1].to_string().contains("nothing to compare with"));
    }

    #[test]
    fn what_is_written_is_read_again_and_something_else_is_not() {
        let written = counts(123.4);
        assert_eq!(Counts::parse(&written.to_text()), Some(written));
        for text in ["", "{}", r#"{"compiler": "rustc", "instructions": {"apply": "many"}}"#] {
            assert_eq!(Counts::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_file_of_the_repository_has_every_piece() {
        let kept = Counts::parse(include_str!("../../../instructions.json")).unwrap();
        for (name, _) in crate::pieces::names() {
            assert!(kept.pieces.contains_key(name), "{name}");
        }
    }
}
