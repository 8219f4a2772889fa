"""A process that runs one engine: it answers once, then times calls for the seconds of each line of stdin.

The first line on stdout follows the first answer at once, so that a parent can time the start; the second
tells the answer, the largest resident set until then, and what the engine is.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from mobilenets.bench.peers.picture import Picture

WARM = 8
"""One part in so many of a turn goes before it, not counted: others had the caches meanwhile."""
LEAST_WARM, LEAST_CALLS = 2, 3


def main() -> None:
    job: dict[str, Any] = json.loads(sys.argv[1])
    channel = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # libraries print what they like: stdout is for the parent alone

    def tell(value: object) -> None:
        channel.write(json.dumps(value) + "\n")
        channel.flush()

    peer = import_module(f"mobilenets.bench.peers.{job['module']}")
    run = peer.runner(Path(job["place"]), job["dtype"], job["threads"], Picture(Path(job["source"])))
    answer = run()
    tell("first")
    tell({"answer": [float(v) for v in answer.ravel()], "peak_rss_mb": peak_rss_mb()})
    if job["once"]:
        return
    die_with_parent()
    gc.collect()
    gc.disable()
    clock = time.perf_counter
    for line in sys.stdin:
        limit = float(line)
        begun = clock()
        warm = 0
        while warm < LEAST_WARM or clock() - begun < limit / WARM:
            run()
            warm += 1
        taken: list[float] = []
        start = clock()
        while len(taken) < LEAST_CALLS or clock() - start < limit:
            begun = clock()
            run()
            taken.append(clock() - begun)
        tell(taken)


def peak_rss_mb() -> float | None:
    """The largest resident set of this program; not what `getrusage` says, which counts the parent's before
    it became this one."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
        return round(kilobytes * 1024 / 1e6, 1)
    except (OSError, StopIteration):
        return None


def die_with_parent() -> None:
    """A stopped process whose parent was killed would lie there for ever."""
    if sys.platform == "linux":
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG
        if os.getppid() == 1:
            sys.exit(1)


if __name__ == "__main__":
    main()
