//! On what it was measured, and what else went on there: without this a figure means nothing a month later.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process;

/// The machine, and the versions of what was measured on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// The kernel's version.
    pub kernel: String,
    /// The file system of the directory that is measured, and what it is on: `ext4 on /dev/sda1`.
    pub disk: String,
    /// The compiler of this program, and so of a server that was built with it.
    pub rustc: String,
    /// This project, as git describes it; its version where there is no git.
    pub rove: String,
}

impl Machine {
    /// Looks at this one. `dir` is where what is measured keeps its data.
    pub fn look(dir: &Path) -> Self {
        let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
        Self {
            cpu: or_unknown(field("/proc/cpuinfo", "model name")),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            memory: field("/proc/meminfo", "MemTotal").as_deref().and_then(kib).unwrap_or(0),
            kernel: or_unknown(
                std::fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned()),
            ),
            disk: or_unknown(disk(dir)),
            rustc: env!("ROVE_BENCHES_RUSTC").to_owned(),
            rove: describe(),
        }
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        json!({
            "cpu": self.cpu, "cores": self.cores, "memory_bytes": self.memory, "kernel": self.kernel, "disk": self.disk,
        })
    }

    /// The versions, for programs. What else was measured is added by whoever measured it.
    pub fn versions(&self) -> Value {
        json!({ "rove": self.rove, "rustc": self.rustc })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = self.memory / (1 << 30);
        write!(f, "{}, {} cores, {gib} GiB, Linux {}, {}", self.cpu, self.cores, self.kernel, self.disk)
    }
}

/// The value of a line `name : value`.
fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim().to_owned()))
}

/// `123 kB`, in bytes.
fn kib(text: &str) -> Option<u64> {
    text.trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1_024)
}

fn disk(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    mounted(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, &dir)
}

/// The mount that `dir` is on: the one with the longest path, and the last one of these, which lies over the others.
fn mounted(mountinfo: &str, dir: &Path) -> Option<String> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let path = PathBuf::from(mount.split_whitespace().nth(4)?);
        let mut source = source.split_whitespace();
        let words = format!("{} on {}", source.next()?, source.next()?);
        dir.starts_with(&path).then(|| (path.components().count(), words))
    });
    mounts.max_by_key(|(depth, _)| *depth).map(|(_, words)| words)
}

fn describe() -> String {
    let source = env!("CARGO_MANIFEST_DIR");
    let described = Command::new("git").args(["-C", source, "describe", "--always", "--dirty", "--tags"]).output();
    let described = described.ok().filter(|output| output.status.success());
    let described = described.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    described.map_or_else(
        || env!("CARGO_PKG_VERSION").to_owned(),
        |commit| format!("{} ({commit})", env!("CARGO_PKG_VERSION")),
    )
}

/// Watches what else goes on from its start to its stop.
#[derive(Debug)]
pub struct Watch {
    started: Instant,
    load: f64,
    ticks: Ticks,
    this: Duration,
}

/// What everybody else did during a measurement.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Others {
    /// The load average of the last minute, at the start.
    pub load_before: f64,
    /// The same at the end: of a measurement that takes a minute, its own.
    pub load_after: f64,
    /// The share of all cores that others than client and servers used, 0 to 1; the kernel's own threads are others.
    pub cpu: f64,
    /// The share that the machine below this one took away, 0 to 1.
    pub stolen: f64,
    /// The share that this process used, the client, 0 to 1.
    pub client: f64,
}

/// What all cores did so far.
#[derive(Debug, Clone, Copy, Default)]
struct Ticks {
    busy: u64,
    stolen: u64,
    all: u64,
}

impl Watch {
    /// Begins. Where there is no `/proc`, what it finds is 0.
    pub fn start() -> Self {
        Self { started: Instant::now(), load: load_average(), ticks: Ticks::now(), this: this_process() }
    }

    /// When it began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Since it began.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Ends; `servers` is the processor time that the servers used meanwhile.
    pub fn stop(self, servers: Duration) -> Others {
        let (now, this) = (Ticks::now(), this_process().saturating_sub(self.this));
        let since = |now: u64, then: u64| process::from_ticks(now.saturating_sub(then));
        let all = since(now.all, self.ticks.all);
        let share = |time: Duration| if all.is_zero() { 0.0 } else { time.as_secs_f64() / all.as_secs_f64() };
        Others {
            load_before: self.load,
            load_after: load_average(),
            // Clocks that tick a hundred times a second do not agree to the last tick.
            cpu: share(since(now.busy, self.ticks.busy).saturating_sub(this + servers)),
            stolen: share(since(now.stolen, self.ticks.stolen)),
            client: share(this),
        }
    }
}

impl Others {
    /// For programs.
    pub fn to_json(&self) -> Value {
        json!({
            "load_average_before": self.load_before, "load_average_after": self.load_after,
            "cpu_share_others": rounded(self.cpu), "cpu_share_stolen": rounded(self.stolen),
            "cpu_share_client": rounded(self.client),
        })
    }
}

impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [others, stolen, client] = [self.cpu, self.stolen, self.client].map(|share| share * 100.0);
        write!(
            f,
            "load average {} → {}; of all cores others used {others:.0} %, the client {client:.0} %, {stolen:.0} % was stolen",
            self.load_before, self.load_after
        )
    }
}

/// Three digits are more than a measurement is worth.
pub fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

fn this_process() -> Duration {
    process::cpu(std::process::id()).unwrap_or_default()
}

fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

impl Ticks {
    fn now() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// Of the line `cpu user nice system idle iowait irq softirq steal …`; what follows is in `user` and `nice` already.
    fn parse(stat: &str) -> Self {
        let line = stat.lines().next().unwrap_or_default();
        let fields: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
        let Ok([user, nice, system, idle, waiting, irq, softirq, stolen]) = <[u64; 8]>::try_from(fields) else {
            return Self::default();
        };
        let busy = user + nice + system + irq + softirq;
        Self { busy, stolen, all: busy + idle + waiting + stolen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_on_the_mount_that_is_nearest_to_it() {
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                      30 22 0:25 / /tmp rw shared:5 - tmpfs tmpfs rw\n\
                      31 22 0:26 / /tmpfoo rw shared:6 - xfs /dev/sdb rw\n";
        let of = |dir: &str| mounted(mounts, Path::new(dir)).unwrap();
        assert_eq!(of("/var/lib"), "ext4 on /dev/sda1");
        assert_eq!(of("/tmp/x"), "tmpfs on tmpfs");
        assert_eq!(of("/tmpfoo"), "xfs on /dev/sdb");
        assert!(mounted("nonsense", Path::new("/")).is_none());
    }

    #[test]
    fn stolen_time_is_nobodys_and_waiting_is_not_busy() {
        let ticks = Ticks::parse("cpu  10 1 20 300 40 2 3 5 7 8\ncpu0 1 2 3\n");
        assert_eq!((ticks.busy, ticks.stolen, ticks.all), (36, 5, 381));
        assert_eq!(Ticks::parse("").all, 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_has_cores_memory_a_kernel_and_a_disk() {
        let machine = Machine::look(&std::env::temp_dir());
        assert!(machine.cores > 0 && machine.memory > 1 << 20, "{machine:?}");
        assert!(machine.disk.contains(" on ") && machine.kernel != "unknown", "{machine:?}");
        assert!(machine.rustc.starts_with("1.") && machine.rove.starts_with(env!("CARGO_PKG_VERSION")));
        assert_eq!(machine.to_json()["cores"], machine.cores);
        assert_eq!(machine.versions()["rove"], machine.rove);
    }

    #[test]
    fn shares_are_between_nothing_and_everything() {
        let others = Watch::start().stop(Duration::from_secs(1_000_000));
        assert!(
            [others.cpu, others.stolen, others.client].iter().all(|share| (0.0..=1.1).contains(share)),
            "{others:?}"
        );
        assert!(others.to_string().contains("load average"));
    }
}
