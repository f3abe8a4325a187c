"""This machine beside a measurement: the bandwidth of its memory, and the memory of this process."""

import threading
import time
from pathlib import Path

import numpy as np

PROBE_BYTES = 512 << 20
PROBE_RUNS = 5


def read_bandwidth(threads):
    """Bytes a second that `threads` threads read, the best of some runs. It takes about 0.2 s."""
    parts = [np.ones(PROBE_BYTES // 4 // threads, np.int32) for _ in range(threads)]
    best = 0.0
    for _ in range(PROBE_RUNS):
        workers = [threading.Thread(target=np.ndarray.max, args=(part,)) for part in parts]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = max(best, PROBE_BYTES / (time.perf_counter() - start))
    return best


def peak_rss_bytes():
    """Peak resident memory of this process, since its start or since `forget_peak_rss`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def forget_peak_rss():
    """Resets the peak, so that the memory of a probe does not count."""
    Path("/proc/self/clear_refs").write_text("5")
