//! What came of a measurement: a row of a table and a few lines for people, JSON for programs, a picture.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::histogram::{Histogram, digits, milliseconds};
use crate::machine::{Machine, Others, rounded};
use crate::svg::{self, Bar, Chart, Series};

/// The percentiles that are printed.
const PERCENTILES: [(&str, f64); 5] = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99)];

/// Where a report goes beside stdout. A command's arguments: `#[command(flatten)]`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Output {
    /// Also write everything as JSON to this file
    #[arg(long, global = true, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Also draw it to this file
    #[arg(long, global = true, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// The outcome of one measurement. Made by the chain of its methods; `Display` is what people see.
#[derive(Debug, Clone)]
pub struct Report {
    mode: String,
    what: String,
    figures: Vec<Figure>,
    details: Map<String, Value>,
    distributions: Vec<Distribution>,
    charts: Vec<Chart>,
    notes: Vec<String>,
    config: Map<String, Value>,
    versions: Map<String, Value>,
    machine: Option<Machine>,
    others: Option<Others>,
}

#[derive(Debug, Clone)]
struct Figure {
    name: String,
    text: String,
}

#[derive(Debug, Clone)]
struct Distribution {
    name: String,
    key: String,
    times: Histogram,
}

impl Report {
    /// Of one kind of work; `what` says under which load, in a few words.
    pub fn new(mode: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            mode: mode.into(),
            what: what.into(),
            figures: Vec::new(),
            details: Map::new(),
            distributions: Vec::new(),
            charts: Vec::new(),
            notes: Vec::new(),
            config: Map::new(),
            versions: Map::new(),
            machine: None,
            others: None,
        }
    }

    /// Adds a figure: its name and unit at the head of the table, its text in the row, its key and value in the JSON.
    #[must_use]
    pub fn figure(self, name: impl Into<String>, text: impl Into<String>, key: &str, value: impl Into<Value>) -> Self {
        let mut this = self.detail(key, value);
        this.figures.push(Figure { name: name.into(), text: text.into() });
        this
    }

    /// Adds a number as a figure, with three digits.
    #[must_use]
    pub fn number(self, name: impl Into<String>, key: &str, value: f64) -> Self {
        self.figure(name, digits(value), key, rounded(value))
    }

    /// Adds a value to the JSON alone.
    #[must_use]
    pub fn detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }

    /// Adds the times that something took: `p50 / p99` in the table, more percentiles below it, a curve in JSON and picture.
    #[must_use]
    pub fn times(mut self, name: impl Into<String>, key: &str, times: &Histogram) -> Self {
        let name = name.into();
        self.figures.push(Figure { name: format!("{name} p50 / p99"), text: times.p50_p99() });
        self.distributions.push(Distribution { name, key: key.to_owned(), times: times.clone() });
        self
    }

    /// Adds bars to the picture.
    #[must_use]
    pub fn bars(mut self, title: impl Into<String>, bars: Vec<Bar>) -> Self {
        self.charts.push(Chart::Bars { title: title.into(), bars });
        self
    }

    /// Adds lines to the picture.
    #[must_use]
    pub fn lines(
        mut self,
        title: impl Into<String>,
        x: impl Into<String>,
        y: impl Into<String>,
        series: Vec<Series>,
    ) -> Self {
        self.charts.push(Chart::Lines { title: title.into(), x: x.into(), y: y.into(), series });
        self
    }

    /// Adds a line that people should read beside the figures.
    #[must_use]
    pub fn note(mut self, words: impl Into<String>) -> Self {
        self.notes.push(words.into());
        self
    }

    /// Says how the run was configured.
    #[must_use]
    pub fn config(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.config.insert(key.to_owned(), value.into());
        self
    }

    /// Says which version of something else was measured.
    #[must_use]
    pub fn version(mut self, of: &str, version: impl Into<Value>) -> Self {
        self.versions.insert(of.to_owned(), version.into());
        self
    }

    /// Says on what it was measured, with the versions.
    #[must_use]
    pub fn machine(mut self, machine: Machine) -> Self {
        if let Value::Object(versions) = machine.versions() {
            self.versions.extend(versions);
        }
        self.machine = Some(machine);
        self
    }

    /// Says what else went on meanwhile.
    #[must_use]
    pub fn others(mut self, others: Others) -> Self {
        self.others = Some(others);
        self
    }

    /// A value that was added to the JSON, if it is a number.
    pub fn value(&self, key: &str) -> Option<f64> {
        self.details.get(key)?.as_f64()
    }

    /// The times that were added under this key.
    pub fn distribution(&self, key: &str) -> Option<&Histogram> {
        self.distributions.iter().find(|distribution| distribution.key == key).map(|distribution| &distribution.times)
    }

    /// All of it, for programs.
    pub fn to_json(&self) -> Value {
        let distributions: Map<_, _> =
            self.distributions.iter().map(|each| (each.key.clone(), each.to_json())).collect();
        json!({
            "mode": self.mode,
            "what": self.what,
            "figures": self.details,
            "distributions": distributions,
            "notes": self.notes,
            "configuration": self.config,
            "versions": self.versions,
            "machine": self.machine.as_ref().map(Machine::to_json),
            "others": self.others.as_ref().map(Others::to_json),
        })
    }

    /// A picture of it: the curves of its times, then its charts.
    pub fn to_svg(&self) -> String {
        let mut charts = Vec::new();
        if !self.distributions.is_empty() {
            let curve = |each: &Distribution| Series::new(&each.name, each.times.curve());
            charts.push(Chart::Percentiles {
                title: format!("{}: times, in ms", self.mode),
                series: self.distributions.iter().map(curve).collect(),
            });
        }
        charts.extend(self.charts.iter().cloned());
        let below = [self.machine.as_ref().map(Machine::to_string), self.others.as_ref().map(Others::to_string)];
        svg::draw(&format!("{}: {}", self.mode, self.what), &charts, &below.into_iter().flatten().collect::<Vec<_>>())
    }

    /// Prints it, and writes the files that were asked for.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn emit(&self, output: &Output) -> io::Result<()> {
        let named = |path: &PathBuf| {
            let path = path.display().to_string();
            move |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"))
        };
        // The files first: what is printed may go to a pipe that is closed.
        if let Some(path) = &output.json {
            std::fs::write(path, format!("{:#}\n", self.to_json())).map_err(named(path))?;
        }
        if let Some(path) = &output.svg {
            std::fs::write(path, self.to_svg()).map_err(named(path))?;
        }
        print!("{self}");
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = |text: fn(&Figure) -> &str| self.figures.iter().map(text).collect::<Vec<_>>().join(" | ");
        writeln!(f, "| {} | {} |", self.mode, cells(|figure| &figure.name))?;
        writeln!(f, "|---{}|", "|---".repeat(self.figures.len()))?;
        writeln!(f, "| {} | {} |", self.what, cells(|figure| &figure.text))?;
        writeln!(f)?;
        self.distributions.iter().try_for_each(|each| writeln!(f, "{each}"))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))?;
        if let Some(machine) = &self.machine {
            writeln!(f, "{machine}")?;
        }
        if let Some(others) = &self.others {
            writeln!(f, "{others}")?;
        }
        let pairs = |map: &Map<String, Value>| {
            map.iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| format!("{key} {}", plain(value)))
                .collect::<Vec<_>>()
                .join(", ")
        };
        if !self.versions.is_empty() {
            writeln!(f, "{}", pairs(&self.versions))?;
        }
        if self.config.is_empty() { Ok(()) } else { writeln!(f, "{}", pairs(&self.config)) }
    }
}

/// A value without the marks of JSON around texts.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Distribution {
    fn to_json(&self) -> Value {
        let mut json = Map::new();
        json.insert("count".to_owned(), json!(self.times.count()));
        for (name, percent) in PERCENTILES {
            json.insert(format!("{name}_ms"), json!(rounded(self.times.percentile_ms(percent))));
        }
        json.insert("mean_ms".to_owned(), json!(rounded(milliseconds(self.times.mean()))));
        json.insert("max_ms".to_owned(), json!(rounded(milliseconds(self.times.max()))));
        json.insert("curve_percent_ms".to_owned(), json!(self.times.curve()));
        Value::Object(json)
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.name)?;
        for (name, percent) in PERCENTILES {
            write!(f, " {name} {},", digits(self.times.percentile_ms(percent)))?;
        }
        write!(f, " longest {} ms, of {}", digits(milliseconds(self.times.max())), self.times.count())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report() -> Report {
        let mut times = Histogram::new();
        times.extend((1..=100).map(Duration::from_millis));
        Report::new("posts", "one node, 2 sessions")
            .figure("acknowledged/s", "1234", "posts_per_second", 1_234.5)
            .number("server CPU, s/100k", "cpu_s_per_100k", 1.5)
            .times("post → acknowledged", "acknowledged", &times)
            .detail("posts", 99)
            .note("a note")
            .config("window", 64)
            .config("mode", "closed")
            .version("peer", "2.1")
            .machine(Machine::look(&std::env::temp_dir()))
            .others(Others { load_before: 0.5, ..Others::default() })
            .bars("rates", vec![Bar::new("a & b", 3.0)])
            .lines("over time", "s", "posts/s", vec![Series::new("one", vec![(0.0, 1.0), (1.0, 3.0)])])
    }

    #[test]
    fn people_see_one_row_of_a_table_and_what_it_was_measured_on() {
        let text = report().to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "| posts | acknowledged/s | server CPU, s/100k | post → acknowledged p50 / p99 |");
        assert_eq!(lines[1], "|---|---|---|---|");
        assert!(lines[2].starts_with("| one node, 2 sessions | 1234 | 1.50 | 50."), "{}", lines[2]);
        for words in [
            "p99.9 ",
            "longest ",
            "a note",
            "load average 0.5",
            "peer 2.1",
            "rove 0.",
            "rustc ",
            "window 64",
            "mode closed",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn programs_get_every_value_and_where_it_comes_from() {
        let json = report().to_json();
        assert_eq!(json["figures"]["posts_per_second"], 1_234.5);
        assert_eq!(json["figures"]["posts"], 99);
        assert_eq!(json["distributions"]["acknowledged"]["count"], 100);
        assert!(json["distributions"]["acknowledged"]["curve_percent_ms"].as_array().unwrap().len() > 5);
        assert_eq!((&json["configuration"]["window"], &json["versions"]["peer"]), (&json!(64), &json!("2.1")));
        assert!(json["machine"]["cores"].is_u64() && json["others"]["load_average_before"].is_f64());
        assert_eq!(report().value("cpu_s_per_100k"), Some(1.5));
        assert_eq!(report().distribution("acknowledged").map(Histogram::count), Some(100));
    }

    #[test]
    fn the_picture_has_the_curve_and_every_chart() {
        let svg = report().to_svg();
        for words in ["post → acknowledged", "rates", "a &amp; b", "over time", "one node, 2 sessions"] {
            assert!(svg.contains(words), "{words}");
        }
    }

    #[test]
    fn files_that_were_asked_for_are_written_and_one_that_cannot_be_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let output = Output { json: Some(dir.path().join("a.json")), svg: Some(dir.path().join("a.svg")) };
        report().emit(&output).unwrap();
        let json: Value = serde_json::from_slice(&std::fs::read(dir.path().join("a.json")).unwrap()).unwrap();
        assert_eq!(json["mode"], "posts");
        assert!(std::fs::read_to_string(dir.path().join("a.svg")).unwrap().starts_with("<svg "));
        let nowhere = Output { json: Some(dir.path().join("none/b.json")), svg: None };
        assert!(report().emit(&nowhere).unwrap_err().to_string().contains("none/b.json"));
    }
}
