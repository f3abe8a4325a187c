//! Peak resident memory of this process, from the Linux kernel.

/// Peak resident memory of this process in bytes, since its start or since [`forget_peak_rss`]. 0 if
/// the system does not say.
pub(crate) fn peak_rss_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kilobytes.map_or(0, |n| n.saturating_mul(1024))
}

/// Resets [`peak_rss_bytes`], so that the memory of a benchmark's own probes does not count as the engine's.
pub(crate) fn forget_peak_rss() {
    // Without this file, the peak includes the probes.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
