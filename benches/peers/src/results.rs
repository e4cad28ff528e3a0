//! What all rounds came to: a table for people, everything for programs.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use rove_benches::{Machine, Report, digits, rounded};
use serde_json::{Map, Value, json};

use crate::targets;
use crate::work::Plan;

/// Something that is measured: a system, with the setting that makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
}

/// A figure of the table, by the key that it has in reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Column {
    PerSecond,
    Cpu,
    AckP50,
    AckP99,
    DeliverP50,
    DeliverP99,
    Silence,
    Resident,
    Idle,
    Connections,
    FanOut,
}

impl Column {
    pub(crate) const ALL: [Self; 11] = [
        Self::PerSecond,
        Self::Cpu,
        Self::AckP50,
        Self::AckP99,
        Self::DeliverP50,
        Self::DeliverP99,
        Self::Silence,
        Self::Resident,
        Self::Idle,
        Self::Connections,
        Self::FanOut,
    ];

    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::PerSecond => "per_second",
            Self::Cpu => "cpu_s_per_100k",
            Self::AckP50 => "ack_p50_ms",
            Self::AckP99 => "ack_p99_ms",
            Self::DeliverP50 => "deliver_p50_ms",
            Self::DeliverP99 => "deliver_p99_ms",
            Self::Silence => "silence_ms",
            Self::Resident => "resident_mb",
            Self::Idle => "idle_kb",
            Self::Connections => "connections_per_second",
            Self::FanOut => "fan_out_per_second",
        }
    }
}

/// The columns that people see; two figures of one kind share one.
const SHOWN: [(&str, &[Column]); 9] = [
    ("messages/s", &[Column::PerSecond]),
    ("server CPU, s/100k", &[Column::Cpu]),
    ("acknowledged at 200/s, p50 / p99 ms", &[Column::AckP50, Column::AckP99]),
    ("delivered at 1,000/s, p50 / p99 ms", &[Column::DeliverP50, Column::DeliverP99]),
    ("silence after kill -9, ms", &[Column::Silence]),
    ("memory of a server, MB", &[Column::Resident]),
    ("memory of an idle connection, kB", &[Column::Idle]),
    ("connections/s", &[Column::Connections]),
    ("fan-out, deliveries/s", &[Column::FanOut]),
];

/// A figure in each round that has it.
pub(crate) type Rounds = BTreeMap<usize, f64>;

#[derive(Debug, Default)]
struct Found {
    name: &'static str,
    fsync: Option<String>,
    figures: BTreeMap<Column, Rounds>,
}

/// Everything that was measured so far.
#[derive(Debug, Default)]
pub(crate) struct Results {
    rows: Vec<(&'static str, Found)>,
    runs: Vec<Value>,
    versions: Map<String, Value>,
    notes: Vec<String>,
    failures: Vec<String>,
}

impl Results {
    /// Takes in a report, and those of its figures that are columns.
    pub(crate) fn add(&mut self, plan: &Plan, row: Row, report: &Report) {
        rove_benches::say(format_args!("round {}, {}:", plan.round, row.name));
        print!("{report}");
        println!();
        let found = self.row(row);
        for column in Column::ALL {
            if let Some(value) = report.value(column.key()) {
                found.figures.entry(column).or_default().insert(plan.round, value);
            }
        }
        let mut run = report.to_json();
        run["row"] = json!(row.id);
        run["round"] = json!(plan.round);
        self.runs.push(run);
    }

    /// Whether it syncs before it acknowledges; `None` if it could not be found out.
    pub(crate) fn fsync(&mut self, row: Row, words: Option<String>) {
        self.row(row).fsync = Some(words.unwrap_or_else(|| "not looked at: no strace".to_owned()));
    }

    pub(crate) fn version(&mut self, of: &str, version: &str) {
        self.versions.insert(of.to_owned(), json!(version));
    }

    /// A line below the table.
    pub(crate) fn note(&mut self, words: &str) {
        if !self.notes.iter().any(|note| note == words) {
            self.notes.push(words.to_owned());
        }
    }

    /// A peer that could not be measured in a round.
    pub(crate) fn failed(&mut self, words: String) {
        rove_benches::say(format_args!("FAILED {words}"));
        self.failures.push(words);
    }

    pub(crate) fn has_failures(&self) -> bool {
        !self.failures.is_empty()
    }

    /// A figure of a row, by round.
    pub(crate) fn figure(&self, row: &str, column: Column) -> Option<&Rounds> {
        self.rows.iter().find(|(id, _)| *id == row)?.1.figures.get(&column)
    }

    fn row(&mut self, row: Row) -> &mut Found {
        let place = self.rows.iter().position(|(id, _)| *id == row.id).unwrap_or_else(|| {
            self.rows.push((row.id, Found { name: row.name, ..Found::default() }));
            self.rows.len() - 1
        });
        &mut self.rows[place].1
    }

    /// The table, and how Rove compares, as Markdown.
    pub(crate) fn to_markdown(&self, machine: &Machine, how: &str) -> String {
        let mut text = String::new();
        // Writing to memory does not fail.
        let _ = self.write_markdown(&mut text, machine, how);
        text
    }

    fn write_markdown(&self, text: &mut String, machine: &Machine, how: &str) -> fmt::Result {
        writeln!(text, "# Side by side\n\n{how}\n\n{machine}\n")?;
        let heads: Vec<_> = SHOWN.iter().map(|(head, _)| *head).collect();
        writeln!(text, "| | syncs before it acknowledges | {} |", heads.join(" | "))?;
        writeln!(text, "|---|---{}|", "|---".repeat(heads.len()))?;
        for (_, found) in &self.rows {
            let cells: Vec<_> = SHOWN.iter().map(|(_, columns)| found.cell(columns)).collect();
            let fsync = found.fsync.as_deref().unwrap_or("–");
            writeln!(text, "| {} | {fsync} | {} |", found.name, cells.join(" | "))?;
        }
        writeln!(
            text,
            "\nMedians of the rounds{}.\n",
            if self.rounds() > 1 { ", least and most in brackets" } else { "" }
        )?;
        text.push_str(&targets::to_markdown(self));
        for note in &self.notes {
            writeln!(text, "\n{note}")?;
        }
        for failure in &self.failures {
            writeln!(text, "\n**Failed**: {failure}")?;
        }
        let versions: Vec<_> = self.versions.values().filter_map(Value::as_str).collect();
        writeln!(text, "\n{}", versions.join("; "))
    }

    fn rounds(&self) -> usize {
        let rounds = self.rows.iter().flat_map(|(_, found)| found.figures.values()).flat_map(BTreeMap::keys);
        rounds.copied().max().unwrap_or(0)
    }

    /// Everything, with every report of every round.
    pub(crate) fn to_json(&self, machine: &Machine, how: &str) -> Value {
        let rows: Vec<_> = self.rows.iter().map(|(id, found)| found.to_json(id)).collect();
        json!({
            "how": how, "machine": machine.to_json(), "versions": self.versions, "rows": rows,
            "targets": targets::to_json(self), "notes": self.notes, "failures": self.failures, "runs": self.runs,
        })
    }
}

impl Found {
    /// `1.2 / 3.4 (1.1-1.3 / 3.0-3.9)`
    fn cell(&self, columns: &[Column]) -> String {
        let figures: Option<Vec<_>> = columns.iter().map(|column| self.figures.get(column)).collect();
        let Some(figures) = figures else { return "–".to_owned() };
        let medians: Vec<_> = figures.iter().map(|rounds| digits(median(rounds.values().copied()))).collect();
        let ranges: Vec<_> = figures.iter().map(|rounds| range(rounds)).collect();
        let several = figures.iter().all(|rounds| rounds.len() > 1);
        let ranges = if several { format!(" ({})", ranges.join(" / ")) } else { String::new() };
        format!("{}{ranges}", medians.join(" / "))
    }

    fn to_json(&self, id: &str) -> Value {
        let figures = self.figures.iter().map(|(column, rounds)| {
            let all: Vec<_> = rounds.values().map(|value| rounded(*value)).collect();
            let median = rounded(median(rounds.values().copied()));
            (column.key().to_owned(), json!({ "median": median, "rounds": all }))
        });
        let figures = figures.collect::<Map<_, _>>();
        json!({ "row": id, "name": self.name, "syncs": self.fsync, "figures": figures })
    }
}

fn range(rounds: &Rounds) -> String {
    let least = rounds.values().copied().fold(f64::INFINITY, f64::min);
    let most = rounds.values().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{}-{}", digits(least), digits(most))
}

/// The one in the middle; of an even number the mean of two.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<_> = values.collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    const ROW: Row = Row { id: "jetstream", name: "a peer" };

    fn results() -> Results {
        let mut results = Results::default();
        for (round, rate) in [(1, 100.0), (2, 300.0), (3, 200.0)] {
            let plan = Plan { seconds: Duration::ZERO, warm_up: Duration::ZERO, dir: "/".into(), round };
            results.add(&plan, ROW, &Report::new("throughput", "").number("a", "per_second", rate));
        }
        results
    }

    #[test]
    fn a_cell_has_the_median_and_the_range() {
        let mut results = results();
        let found = results.row(ROW);
        assert_eq!(found.cell(&[Column::PerSecond]), "200 (100-300)");
        assert_eq!(found.cell(&[Column::Idle]), "–");
        assert!((median([4.0, 1.0, 2.0, 3.0].into_iter()) - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn the_table_names_who_failed_and_programs_get_every_run() {
        let mut results = results();
        results.failed("etcd: gone".to_owned());
        let machine = Machine::look(Path::new("/"));
        let text = results.to_markdown(&machine, "how");
        assert!(text.contains("| a peer | – | 200 (100-300) |") && text.contains("**Failed**: etcd: gone"), "{text}");
        let json = results.to_json(&machine, "how");
        assert_eq!(json["runs"].as_array().map(Vec::len), Some(3));
        assert_eq!(json["rows"][0]["figures"]["per_second"]["rounds"], json!([100.0, 300.0, 200.0]));
    }
}
