//! What a process has used, as Linux tells it in `/proc`.

use std::time::Duration;

use super::error::{LoadError, io};

/// Clock ticks per second in `/proc`: fixed by the kernel's interface to programs on every architecture Rove runs on.
const TICKS: u64 = 100;

/// Processor time of the process so far, user and system.
///
/// # Errors
/// [`LoadError::Io`] if there is no such process, or no `/proc`.
pub fn cpu(pid: u32) -> Result<Duration, LoadError> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(io("reading the server's CPU time"))?;
    // The name, in parentheses, may hold spaces: count from its end. utime and stime are fields 14 and 15.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 1_000 / TICKS))
}

/// Resident memory of the process, in bytes.
///
/// # Errors
/// [`LoadError::Io`] if there is no such process, or no `/proc`.
pub fn resident(pid: u32) -> Result<u64, LoadError> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(io("reading the server's memory"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0);
    if kib == 0 { Err(LoadError::Server("it has no memory: it is gone".to_owned())) } else { Ok(kib * 1_024) }
}

/// Bytes that have gone over the loopback interface so far, of every process of this machine.
///
/// # Errors
/// [`LoadError::Io`] if there is no `/proc`.
pub fn loopback() -> Result<u64, LoadError> {
    let interfaces =
        std::fs::read_to_string("/proc/net/dev").map_err(io("reading what went over the loopback interface"))?;
    let line = interfaces.lines().find_map(|line| line.trim().strip_prefix("lo:")).unwrap_or_default();
    // The first column is what was received, which on this interface is what was sent.
    Ok(line.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).unwrap_or(0))
}

/// The processor's name and the number of cores, for the row of a table.
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, n)| n);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{name}, {cores} cores")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_has_memory_and_its_processor_time_never_goes_back() {
        let pid = std::process::id();
        assert!(resident(pid).unwrap() > 100 * 1_024);
        let before = cpu(pid).unwrap();
        assert!(cpu(pid).unwrap() >= before);
        assert!(cpu(u32::MAX).is_err() && resident(u32::MAX).is_err());
    }
}
