//! The ratios that stand in a file, and what is tolerated.
//!
//! A ratio to the floor is not free of noise: floor and Rove use the cores, the caches and the disk in other proportions, so a busy
//! neighbour does not slow them alike. Two runs on a machine of which others used half agreed to a factor of 1.3 in rates, 1.15 in
//! processor time, and 3 and 1.5 in the median and the 99th percentile of a delivery, which is short and waits for whoever has the core.
//! Tolerances are wider than that, because a guard that cries without cause is soon switched off. So they find what was
//! made half as fast by mistake, a lock or a sync too many; what costs a few percent is for measurements on a quiet machine.

use std::collections::BTreeMap;
use std::path::Path;

use rove_benches::digits;
use rove_benches::load::LoadError;
use rove_benches::load::error::io;
use serde_json::{Map, Value, json};

/// A ratio that is watched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ratio {
    pub(crate) name: &'static str,
    pub(crate) words: &'static str,
    /// Whether more is better.
    more: bool,
    /// By which factor it may be worse, unless the file says otherwise.
    tolerance: f64,
}

/// Processor time is what a busy machine changes least, rates come next; times are made of the moments in which somebody else had the core,
/// and those of floor and Rove are not the same ones.
pub(crate) const RATIOS: &[Ratio] = &[
    Ratio { name: "posts_per_echo", words: "posts/s : echoes/s", more: true, tolerance: 1.8 },
    Ratio { name: "deliveries_per_echo", words: "deliveries/s : echoes/s", more: true, tolerance: 1.8 },
    Ratio { name: "post_cpu_per_echo_cpu", words: "CPU of a post : echo", more: false, tolerance: 1.6 },
    Ratio { name: "delivery_cpu_per_echo_cpu", words: "CPU of a delivery : echo", more: false, tolerance: 1.6 },
    Ratio { name: "p50_per_floor_p50", words: "p50 of a delivery : echo and sync", more: false, tolerance: 4.0 },
    Ratio { name: "p99_per_floor_p99", words: "p99 of a delivery : echo and sync", more: false, tolerance: 4.0 },
];

/// The names of those that are worse than is tolerated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Verdict(pub(crate) Vec<&'static str>);

/// Ratios, and tolerances where a file has others.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Baseline {
    ratios: BTreeMap<String, f64>,
    tolerances: BTreeMap<String, f64>,
}

impl Baseline {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, LoadError> {
        let text = std::fs::read_to_string(path).map_err(io("reading the baseline"))?;
        let json: Value = serde_json::from_str(&text)
            .map_err(|error| std::io::Error::other(format!("{}: {error}", path.display())))
            .map_err(io("reading the baseline"))?;
        let mut this = Self::default();
        for ratio in RATIOS {
            let entry = &json["ratios"][ratio.name];
            if let Some(value) = entry["ratio"].as_f64() {
                this.set(ratio.name, value);
            }
            if let Some(tolerance) = entry["tolerance"].as_f64() {
                this.tolerances.insert(ratio.name.to_owned(), tolerance);
            }
        }
        Ok(this)
    }

    /// Writes a file: these ratios, the tolerances of `kept` or else ours.
    pub(crate) fn write(&self, path: &Path, kept: Option<&Self>) -> Result<(), LoadError> {
        let entry = |ratio: &Ratio| {
            let value = self.get(ratio.name).map(|value| (value * 10_000.0).round() / 10_000.0);
            let better = if ratio.more { "more" } else { "less" };
            json!({ "ratio": value, "better": better, "tolerance": kept.unwrap_or(self).tolerance(ratio) })
        };
        let ratios: Map<_, _> = RATIOS.iter().map(|ratio| (ratio.name.to_owned(), entry(ratio))).collect();
        let about = "What Rove does as a ratio to a bare QUIC echo (and, for times, one synced write more) in the same run; \
                     `rove-bench quick` fails if one is worse by more than the factor `tolerance`, `--keep` writes this file. \
                     Why so much is tolerated: benches/src/bin/rove-bench/baseline.rs.";
        let json = json!({ "about": about, "ratios": ratios });
        std::fs::write(path, format!("{json:#}\n")).map_err(io("writing the baseline"))
    }

    pub(crate) fn set(&mut self, name: &str, value: f64) {
        self.ratios.insert(name.to_owned(), value);
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.ratios.get(name).copied()
    }

    fn tolerance(&self, ratio: &Ratio) -> f64 {
        self.tolerances.get(ratio.name).copied().unwrap_or(ratio.tolerance)
    }

    /// By which factor `value` is worse than what stands here; below 1 it is better.
    fn worse_by(&self, ratio: &Ratio, value: f64) -> Option<f64> {
        let kept = self.get(ratio.name)?;
        Some(if ratio.more { kept / value } else { value / kept })
    }

    /// What is worse in `measured` than is tolerated here. What stands on one side only is not compared, what is no number is worse.
    pub(crate) fn judge(&self, measured: &Self) -> Verdict {
        let worse = |ratio: &&Ratio| {
            let by = measured.get(ratio.name).and_then(|value| self.worse_by(ratio, value));
            by.is_some_and(|by| by.is_nan() || by > self.tolerance(ratio))
        };
        Verdict(RATIOS.iter().filter(worse).map(|ratio| ratio.name).collect())
    }

    /// How a measured value compares, for people.
    pub(crate) fn line(&self, ratio: &Ratio, value: f64) -> String {
        let (Some(kept), Some(by)) = (self.get(ratio.name), self.worse_by(ratio, value)) else {
            return format!("{}: {}, nothing to compare with", ratio.words, digits(value));
        };
        let allowed = self.tolerance(ratio);
        let verdict = if by > allowed { "WORSE" } else { "ok" };
        format!(
            "{verdict}: {} {}, before {}: {} times as bad, {} is tolerated",
            ratio.words,
            digits(value),
            digits(kept),
            digits(by),
            digits(allowed)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(value: f64) -> Baseline {
        let mut baseline = Baseline::default();
        for ratio in RATIOS {
            baseline.set(ratio.name, value);
        }
        baseline
    }

    #[test]
    fn what_is_worse_than_tolerated_is_named_and_what_is_better_is_not() {
        let kept = baseline(1.0);
        assert_eq!(kept.judge(&baseline(1.0)), Verdict::default());
        let mut measured = baseline(1.0);
        measured.set("posts_per_echo", 0.4);
        measured.set("deliveries_per_echo", 40.0);
        measured.set("post_cpu_per_echo_cpu", 1.7);
        measured.set("p99_per_floor_p99", 0.1);
        assert_eq!(kept.judge(&measured), Verdict(vec!["posts_per_echo", "post_cpu_per_echo_cpu"]));
        assert!(kept.line(&RATIOS[0], 0.4).starts_with("WORSE"));
        assert!(kept.line(&RATIOS[1], 40.0).starts_with("ok"));
    }

    #[test]
    fn a_figure_that_is_none_is_worse() {
        let mut measured = baseline(1.0);
        measured.set("posts_per_echo", f64::NAN);
        assert_eq!(baseline(1.0).judge(&measured), Verdict(vec!["posts_per_echo"]));
    }

    #[test]
    fn a_file_keeps_the_tolerances_that_somebody_gave() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("baseline.json");
        assert!(Baseline::read(&path).is_err());
        baseline(0.5).write(&path, None).unwrap();
        let text = std::fs::read_to_string(&path).unwrap().replace("\"tolerance\": 4.0", "\"tolerance\": 9.0");
        assert!(text.contains("9.0"));
        std::fs::write(&path, text).unwrap();
        let kept = Baseline::read(&path).unwrap();
        assert_eq!(kept.get("p99_per_floor_p99"), Some(0.5));
        baseline(0.25).write(&path, Some(&kept)).unwrap();
        let again = Baseline::read(&path).unwrap();
        assert_eq!((again.get("posts_per_echo"), again.tolerances["p99_per_floor_p99"]), (Some(0.25), 9.0));
    }
}
