//! What processes have used, as Linux tells it in `/proc`.

use std::io;
use std::time::{Duration, Instant};

use crate::machine::{Others, Watch};

/// Clock ticks per second in `/proc`: fixed by the kernel's interface to programs on every architecture Rove runs on.
const TICKS: u64 = 100;

/// Processor time of the process so far, user and system.
///
/// # Errors
/// There is no such process, or no `/proc`.
pub fn cpu(pid: u32) -> io::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold spaces: count from its end. utime and stime are fields 14 and 15.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = after_name.split_whitespace().skip(11).take(2);
    Ok(from_ticks(fields.filter_map(|field| field.parse::<u64>().ok()).sum()))
}

/// A time of `/proc`.
pub(crate) fn from_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1_000 / TICKS)
}

/// Resident memory of the process, in bytes.
///
/// # Errors
/// There is no such process, or no `/proc`.
pub fn resident(pid: u32) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kib.map(|kib| kib * 1_024).ok_or_else(|| io::Error::other(format!("process {pid} has no memory: it is gone")))
}

/// Bytes that have gone over the loopback interface so far, of every process of this machine.
///
/// # Errors
/// There is no `/proc`.
pub fn loopback() -> io::Result<u64> {
    let interfaces = std::fs::read_to_string("/proc/net/dev")?;
    let line = interfaces.lines().find_map(|line| line.trim().strip_prefix("lo:")).unwrap_or_default();
    // The first column is what was received, which on this interface is what was sent.
    Ok(line.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).unwrap_or(0))
}

/// Takes the time, and what the processes that are measured use meanwhile, and what everybody else does.
///
/// ```no_run
/// # fn run(server: u32) -> std::io::Result<()> {
/// let meter = rove_benches::Meter::start(&[server])?;
/// // … the load, 50,000 posts say …
/// let usage = meter.stop()?;
/// println!("{:.2} s of CPU per 100k", usage.cpu_per_100k(50_000));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Meter {
    pids: Vec<u32>,
    cpu: Duration,
    watch: Watch,
}

/// What was used between the two ends of a measurement.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// How long it took.
    pub elapsed: Duration,
    /// Processor time of the processes that were measured.
    pub cpu: Duration,
    /// Their resident memory at the end, in bytes.
    pub resident: u64,
    /// What everybody else did.
    pub others: Others,
}

impl Meter {
    /// Begins; these are the processes that are measured, the servers. This process, the client, is neither among them nor among
    /// the others.
    ///
    /// # Errors
    /// One of them does not exist.
    pub fn start(pids: &[u32]) -> io::Result<Self> {
        Ok(Self { pids: pids.to_vec(), cpu: cpu_of(pids)?, watch: Watch::start() })
    }

    /// Since it began.
    pub fn elapsed(&self) -> Duration {
        self.watch.elapsed()
    }

    /// When it began.
    pub fn started(&self) -> Instant {
        self.watch.started()
    }

    /// Ends.
    ///
    /// # Errors
    /// One of the processes is gone.
    pub fn stop(self) -> io::Result<Usage> {
        let elapsed = self.elapsed();
        let cpu = cpu_of(&self.pids)?.saturating_sub(self.cpu);
        Ok(Usage { elapsed, cpu, resident: resident_of(&self.pids)?, others: self.watch.stop(cpu) })
    }
}

impl Usage {
    /// Seconds of processor time per 100,000 of what was counted; 0 if nothing was.
    pub fn cpu_per_100k(&self, count: u64) -> f64 {
        if count == 0 { 0.0 } else { self.cpu.as_secs_f64() / count as f64 * 100_000.0 }
    }
}

/// Processor time of all of them.
///
/// # Errors
/// One of them does not exist.
pub fn cpu_of(pids: &[u32]) -> io::Result<Duration> {
    pids.iter().map(|pid| cpu(*pid)).sum()
}

/// Resident memory of all of them, in bytes.
///
/// # Errors
/// One of them does not exist.
pub fn resident_of(pids: &[u32]) -> io::Result<u64> {
    pids.iter().map(|pid| resident(*pid)).sum()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_its_processor_time_never_goes_back() {
        let pid = std::process::id();
        assert!(resident(pid).unwrap() > 100 * 1_024);
        let before = cpu(pid).unwrap();
        assert!(cpu(pid).unwrap() >= before);
        assert!(cpu(u32::MAX).is_err() && resident(u32::MAX).is_err());
    }

    #[test]
    fn a_meter_counts_the_processor_time_between_its_ends() {
        let pid = std::process::id();
        let meter = Meter::start(&[pid]).unwrap();
        // Some processor time, however long it takes on a machine with other things to do.
        let before = cpu(pid).unwrap();
        while cpu(pid).unwrap().saturating_sub(before) < Duration::from_millis(30) {
            std::hint::spin_loop();
        }
        let usage = meter.stop().unwrap();
        assert!(usage.cpu >= Duration::from_millis(30) && usage.elapsed >= Duration::from_millis(10));
        assert!(usage.resident > 0);
        assert!((usage.cpu_per_100k(100_000) - usage.cpu.as_secs_f64()).abs() < 1e-9);
        assert!(usage.cpu_per_100k(0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_meter_of_a_process_that_is_not_there_is_an_error() {
        assert!(Meter::start(&[u32::MAX]).is_err());
    }
}
