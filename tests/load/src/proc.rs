//! What Linux tells about processes: processor time, memory, and who else is busy.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context as _, Result};

/// Length of one tick of `/proc` times. The kernel gives them in 1/100 s to programs on every
/// architecture that Evo is built for, whatever its own timer is.
const TICK: Duration = Duration::from_millis(10);

/// The fields of `/proc/PID/stat` that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// User and system time of the process and of its children that have ended, in ticks.
    ticks: u64,
}

/// Reads the text of `/proc/PID/stat`. The name in it may hold spaces and brackets.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    // Field 3 (state) is the first here; times are fields 14 to 17.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = (14..=17).map(number).sum::<Option<u64>>()?;
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks })
}

/// Kilobytes of one line (`VmRSS`) of `/proc/PID/status`.
fn parse_status(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Ticks that all processors spent on anything but idling, from `/proc/stat`.
fn parse_busy(text: &str) -> Option<u64> {
    let fields = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> =
        fields.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    // user nice system idle iowait irq softirq steal; guest time is part of user time.
    let [user, nice, system, _idle, _iowait, irq, softirq, steal] = ticks.get(..8)? else {
        return None;
    };
    Some(user + nice + system + irq + softirq + steal)
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// A process and everything below it.
fn tree(root: u32) -> Result<BTreeSet<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").context("/proc can't be read; this needs Linux")? {
        let name = entry.context("/proc")?.file_name();
        let pid = name.to_str().and_then(|name| name.parse::<u32>().ok());
        // A process that has just ended has no parent to look at.
        if let Some((pid, stat)) = pid.and_then(|pid| Some((pid, stat(pid)?))) {
            parents.push((pid, stat.parent));
        }
    }
    let mut found = BTreeSet::from([root]);
    loop {
        let before = found.len();
        found.extend(
            parents
                .iter()
                .filter(|(_, parent)| found.contains(parent))
                .map(|p| p.0)
                .collect::<Vec<_>>(),
        );
        if found.len() == before {
            return Ok(found);
        }
    }
}

/// Processor time that a process and its descendants have used.
pub fn processor_time(root: u32) -> Result<Duration> {
    let ticks: u64 = tree(root)?.into_iter().filter_map(stat).map(|stat| stat.ticks).sum();
    Ok(duration(ticks))
}

/// Processor time that this process alone has used.
pub fn own_processor_time() -> Result<Duration> {
    let stat = stat(std::process::id()).context("/proc/self/stat can't be read")?;
    Ok(duration(stat.ticks))
}

/// Processor time that the whole machine has used.
pub fn machine_processor_time() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat; this needs Linux")?;
    parse_busy(&text).map(duration).context("/proc/stat has an unknown form")
}

fn duration(ticks: u64) -> Duration {
    TICK * u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// Which memory figure.
#[derive(Debug, Clone, Copy)]
pub enum Memory {
    /// Resident now (`VmRSS`).
    Now,
    /// Highest since the start (`VmHWM`).
    Peak,
}

/// Resident memory of a process and its descendants, in MiB. Pages that they share count once for
/// each of them.
pub fn memory(root: u32, which: Memory) -> Result<f64> {
    let key = match which {
        Memory::Now => "VmRSS",
        Memory::Peak => "VmHWM",
    };
    let kilobytes: u64 = tree(root)?
        .into_iter()
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok())
        .filter_map(|text| parse_status(&text, key))
        .sum();
    Ok(kilobytes as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_name_is() {
        let rest = "S 7 1 1 0 -1 4194560 100 0 0 0 11 22 3 4 20 0 1 0 500 1000 20 1 1 1";
        for name in ["nginx", "a b", "a) R 1 (b"] {
            let found = parse_stat(&format!("42 ({name}) {rest}"));
            assert_eq!(found, Some(Stat { parent: 7, ticks: 40 }), "{name}");
        }
        assert_eq!(parse_stat("42 (x) S 7 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn a_status_line_is_found_by_its_whole_name() {
        let text = "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t    1536 kB\nVmRSSx:\t1 kB\nThreads:\t4\n";
        assert_eq!(parse_status(text, "VmRSS"), Some(1536));
        assert_eq!(parse_status(text, "VmHWM"), Some(2048));
        assert_eq!(parse_status(text, "VmPeak"), None);
        assert_eq!(parse_status(text, "Threads"), None);
    }

    #[test]
    fn idling_and_waiting_for_a_disk_are_not_busy() {
        let text = "cpu  10 20 30 1000 2000 1 2 3 0 0\ncpu0 5 10 15 500 1000 0 1 1 0 0\n";
        assert_eq!(parse_busy(text), Some(66));
        assert_eq!(parse_busy("cpu  10 20 30 1000\n"), None);
        assert_eq!(parse_busy("intr 1\n"), None);
    }

    #[test]
    fn this_process_is_found_with_its_memory() {
        let this = std::process::id();
        assert!(tree(this).unwrap().contains(&this));
        assert!(memory(this, Memory::Now).unwrap() > 0.1);
        assert!(memory(this, Memory::Peak).unwrap() >= memory(this, Memory::Now).unwrap() * 0.5);
        assert!(machine_processor_time().unwrap() >= own_processor_time().unwrap());
        assert!(processor_time(this).unwrap() >= Duration::ZERO);
    }
}
