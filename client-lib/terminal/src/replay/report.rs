//! What came of a replay, for people and for machines.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rove_client::ClientStats;
use rove_client::registry::ErrorCode;
use serde::Serialize;

use super::irc::Counts;
use super::people::Room;
use super::plan::Plan;
use super::post::{Fate, Said};
use super::verify::{Tally, Verdict};
use crate::cli::output::hex;

/// How long each part took.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Sign-ups, groups, opening.
    pub setup: Duration,
    /// From the first post to the last acknowledgement.
    pub posted_in: Duration,
    /// From the first post until everybody had everything.
    pub delivered_in: Duration,
}

/// What came of one file.
#[derive(Debug, Clone, Serialize)]
pub struct FileReport {
    /// Its path.
    pub file: String,
    /// The conversation it became.
    pub conversation: String,
    /// Lines to post.
    pub lines: usize,
    /// Lines acknowledged.
    pub acknowledged: usize,
    /// Members.
    pub members: usize,
    /// The last seq.
    pub head: u64,
    /// SHA-256 over what everybody holds; none if they do not hold the same.
    pub digest: Option<String>,
    /// What is wrong.
    pub tally: Tally,
    /// What exactly, the first of it.
    pub findings: Vec<String>,
}

/// What came of all.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether everything held.
    pub ok: bool,
    /// Lines to post.
    pub lines: usize,
    /// Lines acknowledged.
    pub acknowledged: usize,
    /// Refusals, by code.
    pub refused: BTreeMap<String, u64>,
    /// Nicks, each a client.
    pub nicks: usize,
    /// Seconds until everybody was there.
    pub setup_s: f64,
    /// Seconds from the first post to the last acknowledgement.
    pub posted_in_s: f64,
    /// Seconds from the first post until everybody had everything.
    pub delivered_in_s: f64,
    /// Posts acknowledged a second.
    pub posts_per_s: f64,
    /// Events held by all clients together.
    pub deliveries: u64,
    /// Of these, a second.
    pub deliveries_per_s: f64,
    /// Post to acknowledgement, with the time in the outbox, in milliseconds: median, 99th of a hundred, longest.
    pub acknowledged_ms: [f64; 3],
    /// Connections made again, by all clients together.
    pub reconnects: u64,
    /// Events that came to a client again and were ignored by it.
    pub duplicates_ignored: u64,
    /// Lines lost, and events a client lacks.
    pub lost: u64,
    /// Events twice.
    pub doubled: u64,
    /// Events at another place.
    pub out_of_order: u64,
    /// Events that are not what was posted.
    pub altered: u64,
    /// Whether waiting was given up.
    pub stalled: bool,
    /// What was in the files.
    pub input: Counts,
    /// The files.
    pub files: Vec<FileReport>,
    /// Why somebody stopped talking.
    pub errors: Vec<String>,
}

impl Report {
    /// Sums everything up.
    pub fn new(
        plan: &Plan,
        rooms: &[Room],
        said: &[Said],
        verdicts: &[Verdict],
        stats: &[ClientStats],
        times: Times,
        stalled: bool,
    ) -> Self {
        let mut tally = Tally::default();
        let mut deliveries = 0;
        let mut files = Vec::new();
        for (((file, room), said), verdict) in plan.files.iter().zip(rooms).zip(said).zip(verdicts) {
            tally += verdict.tally;
            deliveries += verdict.deliveries;
            files.push(FileReport {
                file: file.path.display().to_string(),
                conversation: room.id.to_string(),
                lines: file.lines.len(),
                acknowledged: acknowledged(said).count(),
                members: room.members.len(),
                head: super::gather::head(room, said).0,
                digest: verdict.digest.map(|digest| hex(&digest)),
                tally: verdict.tally,
                findings: verdict.findings.clone(),
            });
        }
        let mut took: Vec<u64> = said.iter().flat_map(acknowledged).collect();
        took.sort_unstable();
        let errors: Vec<String> = said.iter().flat_map(|said| said.errors.iter().cloned()).collect();
        // Every file has a digest unless nobody is in it.
        let equal = files.iter().all(|file| file.digest.is_some() || file.members == 0);
        Self {
            ok: tally.is_clean() && equal && !stalled && errors.is_empty() && took.len() == plan.lines(),
            lines: plan.lines(),
            acknowledged: took.len(),
            refused: refused(said),
            nicks: plan.nicks.len(),
            setup_s: times.setup.as_secs_f64(),
            posted_in_s: times.posted_in.as_secs_f64(),
            delivered_in_s: times.delivered_in.as_secs_f64(),
            posts_per_s: rate(took.len() as u64, times.posted_in),
            deliveries,
            deliveries_per_s: rate(deliveries, times.delivered_in),
            acknowledged_ms: [share(&took, 50), share(&took, 99), share(&took, 100)],
            reconnects: stats.iter().map(|stats| stats.reconnects).sum(),
            duplicates_ignored: stats.iter().map(|stats| stats.duplicates).sum(),
            lost: tally.lost,
            doubled: tally.doubled,
            out_of_order: tally.out_of_order,
            altered: tally.altered,
            stalled,
            input: plan.counts,
            files,
            errors,
        }
    }

    /// One object.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// How long each acknowledged line took, in microseconds.
fn acknowledged(said: &Said) -> impl Iterator<Item = u64> {
    said.fates.iter().filter_map(|fate| match fate {
        Fate::Posted { took_us, .. } => Some(*took_us),
        Fate::Unanswered | Fate::Refused(_) => None,
    })
}

fn refused(said: &[Said]) -> BTreeMap<String, u64> {
    let mut codes: BTreeMap<ErrorCode, u64> = BTreeMap::new();
    for fate in said.iter().flat_map(|said| &said.fates) {
        if let Fate::Refused(code) = fate {
            *codes.entry(*code).or_default() += 1;
        }
    }
    codes.into_iter().map(|(code, count)| (code.to_string(), count)).collect()
}

#[allow(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(count: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 { (count as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 }
}

/// The value below which so many of a hundred are, in milliseconds.
#[allow(clippy::cast_precision_loss, reason = "a time for people")]
fn share(sorted_us: &[u64], percent: usize) -> f64 {
    let rank = (sorted_us.len() * percent).div_ceil(100).saturating_sub(1);
    sorted_us.get(rank).map_or(0.0, |us| *us as f64 / 1_000.0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "input         {}", self.input)?;
        for file in &self.files {
            let digest = file.digest.as_deref().map_or("clients differ", |digest| &digest[..16]);
            writeln!(
                f,
                "  {}: {} of {} lines, {} members, head {}, {digest}",
                file.file, file.acknowledged, file.lines, file.members, file.head
            )?;
            for finding in &file.findings {
                writeln!(f, "    {finding}")?;
            }
        }
        let [p50, p99, longest] = self.acknowledged_ms;
        writeln!(f, "lines         {} of {} acknowledged", self.acknowledged, self.lines)?;
        for (code, count) in &self.refused {
            writeln!(f, "refused       {count} ({code})")?;
        }
        writeln!(f, "nicks         {} (one client each), set up in {:.1} s", self.nicks, self.setup_s)?;
        writeln!(f, "posted        in {:.1} s: {:.0} posts/s", self.posted_in_s, self.posts_per_s)?;
        writeln!(
            f,
            "delivered     {} events in {:.1} s: {:.0} deliveries/s",
            self.deliveries, self.delivered_in_s, self.deliveries_per_s
        )?;
        writeln!(
            f,
            "acknowledged  p50 {p50:.1} ms, p99 {p99:.1} ms, longest {longest:.1} ms (time in the outbox included)"
        )?;
        writeln!(
            f,
            "reconnects    {} (events received again and ignored: {})",
            self.reconnects, self.duplicates_ignored
        )?;
        writeln!(f, "lost          {}", self.lost)?;
        writeln!(f, "doubled       {}", self.doubled)?;
        writeln!(f, "out of order  {}", self.out_of_order)?;
        writeln!(f, "altered       {}", self.altered)?;
        for error in &self.errors {
            writeln!(f, "error         {error}")?;
        }
        if self.stalled {
            writeln!(f, "stalled       nothing moved for too long: gave up waiting")?;
        }
        write!(
            f,
            "{}",
            if self.ok { "ok            every client holds the same, and it is what was posted" } else { "FAILED" }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_value_that_was_measured() {
        let sorted: Vec<u64> = (1..=100).map(|value| value * 1_000).collect();
        let printed = |sorted: &[u64], percent| format!("{:.1}", share(sorted, percent));
        assert_eq!([50, 99, 100].map(|percent| printed(&sorted, percent)), ["50.0", "99.0", "100.0"]);
        assert_eq!(printed(&[7_000], 50), "7.0");
        assert_eq!(printed(&[], 99), "0.0");
    }
}
