//! What is printed: a row of a table for people, a line of JSON for programs.

use std::fmt;

use rove_benches::Machine;
use serde_json::{Map, Value, json};

/// The outcome of one measurement.
#[derive(Debug)]
pub(crate) struct Report {
    mode: &'static str,
    what: String,
    figures: Vec<(&'static str, String)>,
    json: Map<String, Value>,
}

impl Report {
    /// A report of `mode`; `what` says under which load.
    pub(crate) fn new(mode: &'static str, what: String) -> Self {
        Self { mode, what, figures: Vec::new(), json: Map::new() }
    }

    /// Adds a figure: its name and unit in the table, its text there, its key and value in the JSON.
    #[must_use]
    pub(crate) fn figure(mut self, name: &'static str, text: String, key: &str, value: impl Into<Value>) -> Self {
        self.figures.push((name, text));
        self.json.insert(key.to_owned(), value.into());
        self
    }

    /// Adds a value to the JSON alone.
    #[must_use]
    pub(crate) fn detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.json.insert(key.to_owned(), value.into());
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (names, texts): (Vec<_>, Vec<_>) = self.figures.iter().cloned().unzip();
        writeln!(f, "| {} | {} |", self.mode, names.join(" | "))?;
        writeln!(f, "|---{}|", "|---".repeat(names.len()))?;
        writeln!(f, "| {} | {} |", self.what, texts.join(" | "))?;
        let mut json = self.json.clone();
        json.insert("mode".to_owned(), json!(self.mode));
        json.insert("what".to_owned(), json!(self.what));
        json.insert("machine".to_owned(), json!(Machine::look(&std::env::temp_dir()).to_string()));
        writeln!(f, "{}", Value::Object(json))
    }
}

/// Three digits are more than a measurement is worth.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
