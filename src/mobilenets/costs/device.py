"""Devices by name: processor, memory and power, each figure with its source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

BENCHNCNN = "Tencent/ncnn, benchmark/README.md"
SMALL_BOARD = "nihui/ncnn-small-board, README.md"
SBC_BENCH = "ThomasKaiser/sbc-bench, Results.md (tinymembench)"
PI_5_MEMORY = (
    "raspberrypi/firmware issue 1876 (tinymembench, the middle of two boards; "
    "filled follows from copied and read)"
)
RK3588_MEMORY = (
    "geerlingguy/sbc-reviews issue 38 (tinymembench, a Turing RK1); filled taken for as fast as read"
)
SNAPDRAGON_625 = "Qualcomm's announcement, by techreport.com, news 29708"
SNAPDRAGON_855 = "Tencent/ncnn issue 2703"
TOP500 = "geerlingguy/top500-benchmark, README.md (at the wall, while it solves linear equations)"
BEGINNERS = "The Official Raspberry Pi Beginner's Guide, specifications"
PIDRAMBLE = "pidramble.com, power consumption benchmarks"
ST_ZOO = "STMicroelectronics/stm32ai-modelzoo, mobilenetv1/README.md"
MLPERF_TINY = "mlcommons/tiny_results_v1.0, closed/STMicroelectronics"
PLUMERAI = "mlcommons/tiny_results_v1.0, closed/plumerai/systems"
LINUX = "Linux, Documentation/arch/arm/stm32 and arch/arm/boot/dts"
STUDY = "the published Caltech-101 study's table"
MACBOOK = "specifications of the MacBook Pro 13-inch of 2017 (turbo; 2.3 GHz without)"
VENDORS = "vendors' specifications (turbo)"
KABY_LAKE = "ThomasKaiser/sbc-bench, Sorted-Results.md (tinymembench), a Pentium G4600"


@dataclass(frozen=True, slots=True)
class Memory:
    """What one core copies and fills of memory beyond every cache, in GB/s."""

    copy: float
    fill: float

    @property
    def read(self) -> float:
        """What it reads, if a byte copied is one read and one written."""
        return 1 / max(1 / self.copy - 1 / self.fill, 1e-3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A board, a phone, a part. None is said for what no source was found for; a forecast then says so.

    `kind` names cores that one set of factors serves (see `costs.factors`). `ram_kb` and `flash_kb` are those
    of a part that holds a network in its own memory, `ram_gb` is a computer's.
    """

    name: str
    says: str
    kind: str
    cores: int
    ghz: float
    target: str = "aarch64"
    memory: Memory | None = None
    ram_gb: float | None = None
    ram_kb: int | None = None
    flash_kb: int | None = None
    idle_w: float | None = None
    busy_w: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict)


def _board(name: str, says: str, cores: int, ghz: float, kind: str, **more: object) -> Device:
    return Device(name=name, says=says, cores=cores, ghz=ghz, kind=kind, **more)  # type: ignore[arg-type]


TABLE: tuple[Device, ...] = (
    _board(
        *("raspberry-pi-3", "Raspberry Pi 3B+: BCM2837B0, 4 Cortex-A53 at 1.4 GHz", 4, 1.4, "a53"),
        memory=Memory(1.23, 1.64),
        ram_gb=1,
        idle_w=1.9,
        busy_w=5.1,
        sources={"clock": BENCHNCNN, "memory": SBC_BENCH, "ram": BEGINNERS, "power": PIDRAMBLE},
    ),
    _board(
        *("raspberry-pi-4", "Raspberry Pi 4B: BCM2711, 4 Cortex-A72 at 1.8 GHz", 4, 1.8, "a72"),
        memory=Memory(2.58, 3.11),
        busy_w=7.2,
        sources={"clock": BENCHNCNN, "memory": SBC_BENCH, "power": TOP500},
    ),
    _board(
        *("raspberry-pi-5", "Raspberry Pi 5: BCM2712, 4 Cortex-A76 at 2.4 GHz", 4, 2.4, "a76"),
        memory=Memory(5.86, 15.8),
        busy_w=11.0,
        sources={"clock": SMALL_BOARD, "memory": PI_5_MEMORY, "power": TOP500},
    ),
    _board(
        *("raspberry-pi-zero-2", "Raspberry Pi Zero 2 W: BCM2710A1, 4 Cortex-A53 at 1.0 GHz", 4, 1.0, "a53"),
        memory=Memory(1.30, 1.57),
        busy_w=2.1,
        sources={"clock": BENCHNCNN, "memory": SBC_BENCH, "power": TOP500},
    ),
    _board(
        *("m8s-pro", "M8S Pro box: Amlogic S905X, 4 Cortex-A53 at 1.41 GHz", 4, 1.41, "a53"),
        memory=Memory(1.81, 5.73),
        busy_w=2.1,
        sources={"clock": SBC_BENCH, "memory": f"{SBC_BENCH}, a Le Potato of the same chip", "power": STUDY},
    ),
    _board(
        *("xiaomi-mi-a1", "Xiaomi Mi A1: Snapdragon 625, 8 Cortex-A53 at 2.0 GHz", 8, 2.0, "a53"),
        target="android-arm64",
        sources={"clock": SNAPDRAGON_625},
    ),
    _board("a53-2ghz", "four Cortex-A53 at 2.0 GHz, as of a phone or a box", 4, 2.0, "a53"),
    _board(
        *("nanopi-k2", "NanoPi K2: Amlogic S905, 4 Cortex-A53 at 1.5 GHz", 4, 1.5, "a53"),
        memory=Memory(1.66, 3.87),
        sources={"clock": SMALL_BOARD, "memory": SBC_BENCH},
    ),
    _board(
        *("radxa-zero", "Radxa Zero: Amlogic S905Y2, 4 Cortex-A53 at 1.8 GHz", 4, 1.8, "a53"),
        memory=Memory(1.60, 5.37),
        sources={"clock": SMALL_BOARD, "memory": SBC_BENCH},
    ),
    _board(
        *("nanopi-r2s", "NanoPi R2S: Rockchip RK3328, 4 Cortex-A53 at 1.3 GHz", 4, 1.3, "a53"),
        memory=Memory(1.34, 5.77),
        sources={"clock": BENCHNCNN, "memory": f"{SBC_BENCH}, a Rock64 of the same chip"},
    ),
    _board(
        *("nanopi-fire3", "NanoPi Fire3: S5P6818, 8 Cortex-A53 at 1.4 GHz", 8, 1.4, "a53"),
        memory=Memory(1.56, 4.60),
        sources={"clock": SMALL_BOARD, "memory": SBC_BENCH},
    ),
    _board(
        *("rk3399-little", "Rockchip RK3399, its 4 Cortex-A53 at 1.5 GHz", 4, 1.5, "a53"),
        memory=Memory(3.70, 8.43),
        sources={"clock": BENCHNCNN, "memory": f"{SBC_BENCH}, a RockPro64"},
    ),
    _board(
        *("rk3399", "Rockchip RK3399, its 2 Cortex-A72 at 1.8 GHz", 2, 1.8, "a72"),
        memory=Memory(3.70, 8.43),
        sources={"clock": BENCHNCNN, "memory": f"{SBC_BENCH}, a RockPro64"},
    ),
    _board(
        *("rk3588", "Rockchip RK3588, its 4 Cortex-A76 at 2.4 GHz", 4, 2.4, "a76"),
        memory=Memory(12.37, 24.74),
        sources={"clock": BENCHNCNN, "memory": RK3588_MEMORY},
    ),
    _board(
        *("orange-pi-5", "Orange Pi 5: Rockchip RK3588S, its 4 Cortex-A76 at 2.4 GHz", 4, 2.4, "a76"),
        memory=Memory(12.37, 24.74),
        sources={"clock": BENCHNCNN, "memory": RK3588_MEMORY},
    ),
    _board(
        *("rock-5b", "Radxa ROCK 5B: Rockchip RK3588, its 4 Cortex-A76 at 2.4 GHz", 4, 2.4, "a76"),
        memory=Memory(12.37, 24.74),
        sources={"clock": BENCHNCNN, "memory": RK3588_MEMORY},
    ),
    _board(
        *("snapdragon-855-hdk", "Snapdragon 855 HDK, its 4 Cortex-A76 held at 1.61 GHz", 4, 1.61, "a76"),
        target="android-arm64",
        sources={"clock": SNAPDRAGON_855},
    ),
    _board(
        *("khadas-vim3", "Khadas VIM3: Amlogic A311D, its 4 Cortex-A73 at 2.2 GHz", 4, 2.2, "a72"),
        memory=Memory(4.98, 9.30),
        sources={"clock": BENCHNCNN, "memory": SBC_BENCH},
    ),
    _board(
        *("jetson-nano", "Jetson Nano: 4 Cortex-A57 at 1.43 GHz", 4, 1.43, "a72"),
        memory=Memory(3.68, 8.56),
        sources={"clock": SMALL_BOARD, "memory": SBC_BENCH},
    ),
    _board(
        *("macbook-i5", "MacBook Pro 13-inch of 2017: Core i5, 2 cores at 3.6 GHz", 2, 3.6, "skylake"),
        target="c",
        memory=Memory(15.12, 33.38),
        sources={"clock": MACBOOK, "memory": KABY_LAKE},
    ),
    _board(
        *("macbook-i7", "MacBook Pro 15-inch of 2019: Core i7, 6 cores at 4.5 GHz", 6, 4.5, "skylake"),
        target="c",
        memory=Memory(15.12, 33.38),
        sources={"clock": VENDORS, "memory": KABY_LAKE},
    ),
    _board(
        *("core-i7-7700k", "Core i7-7700K: 4 cores at 4.5 GHz", 4, 4.5, "skylake"),
        target="x86-64",
        memory=Memory(15.12, 33.38),
        sources={"clock": VENDORS, "memory": KABY_LAKE},
    ),
    _board(
        *("stm32h747", "STM32H747: Cortex-M7 at 400 MHz", 1, 0.4, "m7"),
        target="cortex-m7",
        ram_kb=512,  # of 1 MB, the largest stretch
        flash_kb=2048,
        sources={"clock": ST_ZOO, "size": f"{LINUX}; ST, data sheet DS12930 (AXI SRAM)"},
    ),
    _board(
        *("stm32f746", "STM32F746: Cortex-M7 at 216 MHz", 1, 0.216, "m7"),
        target="cortex-m7",
        ram_kb=320,
        flash_kb=1024,
        sources={"clock": PLUMERAI, "size": PLUMERAI},
    ),
    _board(
        *("stm32h7a3", "STM32H7A3: Cortex-M7 at 280 MHz", 1, 0.28, "m7"),
        target="cortex-m7",
        ram_kb=1219,
        flash_kb=2048,
        busy_w=0.158,
        sources={"clock": MLPERF_TINY, "size": MLPERF_TINY, "power": MLPERF_TINY},
    ),
    _board(
        *("stm32l4r5", "STM32L4R5: Cortex-M4 at 120 MHz", 1, 0.12, "m4"),
        target="cortex-m4",
        ram_kb=640,
        flash_kb=2048,
        busy_w=0.0446,
        sources={"clock": PLUMERAI, "size": PLUMERAI, "power": MLPERF_TINY},
    ),
)
DEVICES: Mapping[str, Device] = {device.name: device for device in TABLE}
ALIASES: Mapping[str, str] = {
    "raspberry-pi-3b+": "raspberry-pi-3",
    "raspberry-pi-4b": "raspberry-pi-4",
    "raspberry-pi-zero-2-w": "raspberry-pi-zero-2",
    "s905x": "m8s-pro",
    "snapdragon-625": "xiaomi-mi-a1",
}
MOST_OFFERED = 9
SEE = "see `mobilenets devices`"


def device(name: str) -> Device:
    """The device of a name, an alias or a beginning that only one has.

    Raises ValueError that offers the nearest names.
    """
    found = meant(name)
    if len(found) != 1:
        raise ValueError(mistaken(name, "device"))
    return found[0]


def meant(name: str) -> list[Device]:
    """The devices that a name, an alias or a beginning stands for."""
    asked, known = _spelt(name), _known()
    if asked in known:
        return [known[asked]]
    found = {own.name: own for given, own in known.items() if asked and given.startswith(asked)}
    return list(found.values())


def mistaken(name: str, what: str, others: Iterable[str] = ()) -> str:
    """What is wrong with a name that stands for no one device, nor is one of `others`; it offers the nearest.

    Near are names that hold all its words, else devices that are described by them, else names spelt alike.
    """
    if found := meant(name):
        return f"{name!r} may be {_either([one.name for one in found])}"
    asked, known = _spelt(name), _known()
    words = [word for word in asked.split("-") if word]
    told = {**{one: one for one in others}, **{given: own.name for given, own in known.items()}}
    near = [told[given] for given in told if words and all(word in given for word in words)]
    near = near or [one.name for one in TABLE if words and all(word in one.says.lower() for word in words)]
    near = near or [told[given] for given in get_close_matches(asked, told, n=3, cutoff=0.5)]
    near = list(dict.fromkeys(near))
    offered = f"did you mean {_either(near)}?" if 0 < len(near) <= MOST_OFFERED else SEE
    return f"unknown {what} {name!r}; {offered}"


def _known() -> dict[str, Device]:
    return {**DEVICES, **{alias: DEVICES[own] for alias, own in ALIASES.items()}}


def _spelt(name: str) -> str:
    return name.strip().lower().replace(" ", "-").replace("_", "-")


def _either(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
