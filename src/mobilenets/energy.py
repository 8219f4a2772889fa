"""The power that a machine draws, and how that is known: a counter, the user, or the table of devices."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mobilenets.costs.device import Device
from mobilenets.spec.option import flag

RAPL = (Path("/sys/class/powercap/intel-rapl"), Path("/zeus_sys/class/powercap/intel-rapl"))
"""Where Linux counts a processor's energy, Intel's and AMD's; where zeus looks for that in a container."""
GPUS = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
DAEMON = "ZEUSD_SOCK_PATH"
"""Names zeus' daemon, which may read counters that only root may."""
WINDOW = "mobilenets"
SHORT_S = 10.0
"""Counters run over after minutes at the least."""


@dataclass(frozen=True, slots=True)
class Power:
    """Mean watts and where they are from; None where nothing tells, then `source` may say why."""

    watts: float | None = None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerOptions:
    """What a machine draws, as the command line gives it."""

    watts: float | None = flag(None, "What the machine draws, for joules where no counter of energy tells.")

    def __post_init__(self) -> None:
        checked(self.watts)


def checked(watts: float | None) -> None:
    """Raises ValueError for watts that cannot be."""
    if watts is not None and not (math.isfinite(watts) and watts > 0):
        raise ValueError(f"--watts {watts:g}: a number above 0")


def told(watts: float | None, device: Device | None = None) -> Power:
    """The power that the user states, else the table's for a device that works."""
    if watts is not None:
        return Power(watts, "stated")
    if device is None:
        return Power()
    if device.busy_w is None:
        return Power(None, f"the table has no power of {device.name}; --watts states one")
    return Power(device.busy_w, f"table: {device.sources['power']}")


def of_picture(power: Power, latency_ms: float) -> dict[str, Any]:
    """The columns of a row: millijoules of a picture are watts times its milliseconds."""
    if power.watts is None:
        return {"energy_mj": None, "watts": None, "watts_from": None}
    return {
        "energy_mj": float(f"{power.watts * latency_ms:.4g}"),
        "watts": float(f"{power.watts:.4g}"),
        "watts_from": power.source,
    }


def of_run(power: Power, seconds: float) -> dict[str, Any] | None:
    """Joules of so many seconds; None where nothing tells the power."""
    if power.watts is None:
        return None
    return {
        "joules": round(power.watts * seconds, 1),
        "watts": float(f"{power.watts:.4g}"),
        "watts_from": power.source,
    }


class Counter:
    """A machine's counters, read by `zeus`. Everything that runs is in them, other programs too."""

    def __init__(self, monitor: Any, zones: Sequence[Path] = ()) -> None:
        self._monitor = monitor
        self._most_j = min(map(_range_j, zones), default=math.inf) / 2
        self.begin()  # zeus starts what watches for overflows at the first reading
        found = self._ended()
        parts = ["RAPL package" if found.cpu_energy else "", "RAPL memory" if found.dram_energy else ""]
        parts.append("GPU" if found.gpu_energy else "")
        self.source = f"counter: {', '.join(part for part in parts if part)}"

    def begin(self) -> None:
        """Begin to count."""
        self._monitor.begin_window(WINDOW, sync_execution=False, restart=True)

    def end(self) -> float | None:
        """Mean watts since `begin`; None where a counter has not moved, or may have run over unseen.

        zeus looks once a second whether one has: a whole range is missing from a reading then or, seen late,
        comes on top of it. That shows in a short time, in which no counter fills half of its range.
        """
        found = self._ended()
        parts: tuple[Mapping[int, float] | None, ...]
        parts = (found.cpu_energy, found.dram_energy, found.gpu_energy)
        joules = sum(sum(part.values()) for part in parts if part)
        most = self._most_j if found.time < SHORT_S else math.inf
        over = any(not 0 <= value <= most for part in parts[:2] if part for value in part.values())
        return None if over or joules <= 0 or found.time <= 0 else joules / found.time

    def _ended(self) -> Any:
        with warnings.catch_warnings(action="ignore"):  # of a card that has not counted yet
            return self._monitor.end_window(WINDOW, sync_execution=False)


def _range_j(zone: Path) -> float:
    """Where a zone's counter runs over; unknown where this user may not read that."""
    try:
        return float((zone / "max_energy_range_uj").read_text()) / 1e6
    except (OSError, ValueError):
        return math.inf


def counter(*, gpu: bool = False) -> tuple[Counter | None, str]:
    """The counters of this machine, with `gpu` of its graphics cards too; or none, and what to say of that.

    It looks for them before it imports zeus, which takes seconds.
    """
    zones = [zone for place in RAPL if place.exists() for zone in sorted(place.glob("intel-rapl:*"))]
    cards = gpu and any(place.exists() for place in GPUS)
    if not zones and not cards:
        return None, ""
    if find_spec("zeus") is None:
        return None, "energy is counted here, which `pip install 'mobilenets[energy]'` lets us read"
    closed = [zone for zone in zones if not os.access(zone / "energy_uj", os.R_OK)]
    if closed and DAEMON not in os.environ and not cards:
        return None, (
            f"energy is counted in {closed[0]}/energy_uj, which this user may not read: "
            "let it (`chmod a+r`, as root), or state --watts"
        )
    from zeus.exception import ZeusBaseError
    from zeus.monitor import ZeusMonitor

    try:
        monitor = ZeusMonitor(gpu_indices=None if gpu else [], cpu_indices=None)
        if not monitor.cpu_indices and not monitor.gpu_indices:
            return None, "energy is counted here, and zeus finds no counter"
        return Counter(monitor, zones), ""
    except (ZeusBaseError, OSError, RuntimeError, ValueError) as error:
        return None, f"energy is counted here, and zeus cannot read it: {' '.join(str(error).split())}"
