//! Facts about the machine that the figures depend on.

use std::{fs, num::NonZero, thread};

/// The machine that was measured on.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Processors that this process may use.
    pub cores: usize,
    pub processor: String,
    pub memory_mib: u64,
    pub kernel: String,
}

impl Machine {
    /// What can be found out; what can't is empty or zero.
    pub fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            cores: cores(),
            processor: value(&read("/proc/cpuinfo"), "model name").to_owned(),
            memory_mib: kilobytes(&read("/proc/meminfo"), "MemTotal") / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// Processors that this process may use.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// The load average now.
pub fn load_average() -> [f64; 3] {
    parse_load_average(&fs::read_to_string("/proc/loadavg").unwrap_or_default())
}

fn parse_load_average(text: &str) -> [f64; 3] {
    let mut numbers = text.split_whitespace().map_while(|field| field.parse().ok());
    std::array::from_fn(|_| numbers.next().unwrap_or(0.0))
}

/// The value of the first `key : value` line.
fn value<'a>(text: &'a str, key: &str) -> &'a str {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == key)
        .map_or("", |(_, value)| value.trim())
}

fn kilobytes(text: &str, key: &str) -> u64 {
    value(text, key).trim_end_matches("kB").trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc_are_read() {
        let load = parse_load_average("0.13 1.24 2.11 1/300 99\n");
        assert_eq!(format!("{load:?}"), "[0.13, 1.24, 2.11]");
        assert_eq!(format!("{:?}", parse_load_average("")), "[0.0, 0.0, 0.0]");
        let info = "processor\t: 0\nmodel name\t: A: B @ 2 GHz\nmodel name\t: C\n";
        assert_eq!(value(info, "model name"), "A: B @ 2 GHz");
        assert_eq!(kilobytes("MemTotal:       2048 kB\n", "MemTotal"), 2048);
        assert_eq!(kilobytes("", "MemTotal"), 0);
    }
}
