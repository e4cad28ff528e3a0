//! What Rove is to reach against its peers, in the same run. The ratio is taken within each round, where both met the same machine;
//! its median counts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rove_benches::{digits, rounded};
use serde_json::{Value, json};

use crate::results::{Column, Results, Rounds, median};

/// Against whom.
#[derive(Debug, Clone, Copy)]
enum Against {
    /// The ratio to a figure of a row.
    Row(&'static str, Column),
    /// The figure itself.
    Nobody,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Better {
    More,
    Less,
}

#[derive(Debug)]
struct Target {
    what: &'static str,
    /// Rove's row and figure.
    ours: (&'static str, Column),
    against: Against,
    better: Better,
    at_least: f64,
    stretch: f64,
}

const ONE: &str = "rove-1";
const THREE: &str = "rove-3";

#[rustfmt::skip]
const TARGETS: [Target; 14] = {
    use Against::{Nobody, Row};
    use Better::{Less, More};
    use Column::{Connections, Cpu, DeliverP50, DeliverP99, FanOut, Idle, PerSecond, Silence};
    const fn target(what: &'static str, ours: (&'static str, Column), against: Against, better: Better, at_least: f64, stretch: f64) -> Target {
        Target { what, ours, against, better, at_least, stretch }
    }
    [
        target("three nodes, posts/s, to JetStream R3 (which does not sync)", (THREE, PerSecond), Row("jetstream", PerSecond), More, 1.3, 2.0),
        target("three nodes, posts/s, to JetStream R3 that syncs", (THREE, PerSecond), Row("jetstream-sync", PerSecond), More, 1.3, 2.0),
        target("three nodes, posts/s, to etcd at 256 clients", (THREE, PerSecond), Row("etcd-256", PerSecond), More, 7.0, 12.0),
        target("three nodes, CPU s/100k", (THREE, Cpu), Nobody, Less, 3.5, 2.0),
        target("three nodes, post → deliver p50, to JetStream R3", (THREE, DeliverP50), Row("jetstream", DeliverP50), Less, 1.0, 0.7),
        target("three nodes, post → deliver p99, to JetStream R3", (THREE, DeliverP99), Row("jetstream", DeliverP99), Less, 1.0, 0.7),
        target("three nodes, silence after kill -9 of a leader, ms", (THREE, Silence), Nobody, Less, 500.0, 300.0),
        target("one node with history, posts/s, to ejabberd with its archive in Mnesia", (ONE, PerSecond), Row("ejabberd-mnesia", PerSecond), More, 50.0, 150.0),
        target("one node with history, posts/s, to ejabberd with its archive in SQLite", (ONE, PerSecond), Row("ejabberd-sqlite", PerSecond), More, 50.0, 150.0),
        target("memory of an idle session, kB", (ONE, Idle), Nobody, Less, 36.0, 20.0),
        target("handshakes and log-ins/s, to ejabberd's", (ONE, Connections), Row("ejabberd", Connections), More, 3.0, 6.0),
        target("fan-out, deliveries/s, to echoes/s of bare QUIC", (ONE, FanOut), Row("quic-16", PerSecond), More, 0.8, 1.2),
        target("memory of an idle session, to bare QUIC (no target: the floor)", (ONE, Idle), Row("quic-16", Idle), Less, f64::INFINITY, 1.0),
        target("handshakes/s, to bare QUIC (no target: the floor)", (ONE, Connections), Row("quic-16", Connections), More, 0.0, 1.0),
    ]
};

impl Target {
    /// The ratio, or figure, of each round that has both sides.
    fn rounds(&self, results: &Results) -> Option<Rounds> {
        let ours = results.figure(self.ours.0, self.ours.1)?;
        let rounds: BTreeMap<_, _> = match self.against {
            Against::Nobody => ours.clone(),
            Against::Row(row, column) => {
                let theirs = results.figure(row, column)?;
                ours.iter().filter_map(|(round, ours)| Some((*round, ours / theirs.get(round)?))).collect()
            }
        };
        (!rounds.is_empty()).then_some(rounds)
    }

    fn verdict(&self, is: f64) -> String {
        let reaches = |bound: f64| if self.better == Better::More { is >= bound } else { is <= bound };
        if reaches(self.stretch) {
            "met, the stretch too".to_owned()
        } else if reaches(self.at_least) {
            "met".to_owned()
        } else {
            let missed_by = (is / self.at_least - 1.0).abs() * 100.0;
            format!("**missed by {} %**", digits(missed_by))
        }
    }

    fn bound(&self, bound: f64) -> String {
        let sign = if self.better == Better::More { "≥" } else { "≤" };
        let times = if matches!(self.against, Against::Row(..)) { " ×" } else { "" };
        if bound.is_finite() && bound > 0.0 { format!("{sign} {bound}{times}") } else { "–".to_owned() }
    }
}

/// The targets whose two sides were measured, as a table.
pub(crate) fn to_markdown(results: &Results) -> String {
    let mut text = "| target | is | at least | stretch | |\n|---|---|---|---|---|\n".to_owned();
    for target in &TARGETS {
        let Some(rounds) = target.rounds(results) else { continue };
        let is = median(rounds.values().copied());
        let times = if matches!(target.against, Against::Row(..)) { " ×" } else { "" };
        let (least, stretch) = (target.bound(target.at_least), target.bound(target.stretch));
        // Writing to memory does not fail.
        let _ = writeln!(
            text,
            "| {} | {}{times} | {least} | {stretch} | {} |",
            target.what,
            digits(is),
            target.verdict(is)
        );
    }
    text
}

/// The same for programs.
pub(crate) fn to_json(results: &Results) -> Vec<Value> {
    let targets = TARGETS.iter().filter_map(|target| {
        let rounds = target.rounds(results)?;
        let is = median(rounds.values().copied());
        let all: Vec<_> = rounds.values().map(|value| rounded(*value)).collect();
        Some(json!({
            "target": target.what, "is": rounded(is), "rounds": all, "at_least": target.bound(target.at_least),
            "stretch": target.bound(target.stretch), "verdict": target.verdict(is),
        }))
    });
    targets.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rove_benches::Report;

    use super::*;
    use crate::results::Row;
    use crate::work::Plan;

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        let mut results = Results::default();
        for (round, ours, theirs) in [(1, 100.0, 100.0), (2, 400.0, 200.0), (3, 30.0, 10.0)] {
            let plan = Plan { seconds: Duration::ZERO, warm_up: Duration::ZERO, dir: "/".into(), round };
            let report = |rate| Report::new("throughput", "").number("a", "per_second", rate);
            results.add(&plan, Row { id: THREE, name: "Rove" }, &report(ours));
            results.add(&plan, Row { id: "jetstream", name: "JetStream" }, &report(theirs));
        }
        let text = to_markdown(&results);
        assert!(text.contains("| 2.00 × | ≥ 1.3 × | ≥ 2 × | met, the stretch too |"), "{text}");
        assert_eq!(text.lines().count(), 3, "what was not measured is not there: {text}");
        assert_eq!(to_json(&results)[0]["rounds"], json!([1.0, 2.0, 3.0]));
    }

    #[test]
    fn what_is_missed_says_by_how_much() {
        let more = &TARGETS[0];
        assert_eq!(more.verdict(1.3), "met");
        assert_eq!(more.verdict(0.65), "**missed by 50.0 %**");
        let less = TARGETS.iter().find(|target| target.better == Better::Less).unwrap();
        assert_eq!(less.verdict(7.0), "**missed by 100 %**");
        assert_eq!(less.verdict(1.5), "met, the stretch too");
    }
}
