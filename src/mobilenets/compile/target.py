"""What code is built for: a table of targets, each with its compiler's words and what else can run it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mobilenets.compile import isa, isa_int8
from mobilenets.compile.part import Part
from mobilenets.costs.device import meant, mistaken

LIBRARY = ("-fPIC", "-shared", "-s", "-fno-asynchronous-unwind-tables")
ROLLED = "-fno-unroll-loops"
"""A fifth less code of clang, as fast: kernels unroll what has to be."""
WEB = ("-target", "wasm32-freestanding")
MODULE = (
    "-nostdlib",
    "-s",
    ROLLED,
    *("-mllvm", "-disable-lsr"),  # else addresses are computed for each load, which could take a constant
    "-fvisibility=default",
    *("-Wl,--no-entry", "-Wl,--export-dynamic", "-Wl,--export=__heap_base"),
    *("-Wl,--import-memory", "-Wl,--initial-memory=4194304", "-Wl,--max-memory=536870912"),
)
"""Memory is JavaScript's: the pages that loader.mjs gives."""
IMPORTED = 'import {{ load }} from "{folder}/{name}.mjs"; (await load()).run(PIXELS, WIDTH, HEIGHT)'
BARE = ("-target", "thumb-freestanding-eabihf")
OBJECT = (
    *("-O2", "-g0", "-ffreestanding", "-fno-sanitize=all", "-ffunction-sections", "-fdata-sections"),
    *("-fno-unwind-tables", "-fno-asynchronous-unwind-tables"),
)
ANDROID = (
    *(*LIBRARY, "-nostdlib", "-ffreestanding", "-fvisibility=default"),
    *("-Wl,-z,max-page-size=16384", "-Wl,-z,defs"),  # pages of Android 15; nothing from outside
)
NEON_7 = ("-mcpu=cortex_a9", "-mfloat-abi=softfp")
"""What all 32-bit phones with NEON have; floats pass as integers, as Android agreed on."""
IN_APP = "in the app  {folder} has the library, and Kotlin that calls it"
BOARD = (
    *("-display", "none", "-monitor", "none", "-serial", "none"),
    *("-semihosting-config", "enable=on,target=native", "-kernel"),
)
"""What a board is started with beside its name: no devices, the program's files are the emulator's."""
IN_FIRMWARE = 'in the firmware  #include "{name}.h", linked with {library}'
QEMU = "Debian's package qemu-user"
ON_DEVICE = "on the device  mobilenets predict {name}.so PICTURE"
X86_MACHINES = ("x86_64", "AMD64")
ARM_MACHINES = ("aarch64", "arm64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What code is built for; `zig` is the target of the cross compiler, empty for the machine's own.

    Machines named in `machines` load the library; elsewhere it is verified under each of `runners`, as a
    program built with `program`, or, where that is empty, by a script beside it.
    """

    name: str
    family: str = ""
    """The instruction sets; those of this machine where it is empty."""
    zig: tuple[str, ...] = ()
    flags: tuple[str, ...] = LIBRARY
    prefix: str = ""
    suffix: str = ".so"
    linked: bool = True
    """Whether the weights lie in the library, not beside it."""
    archived: bool = False
    """Whether the library is a static one."""
    shipped: bool = True
    """Whether the library is a part of what is given, not only a means to verify it."""
    machines: tuple[str, ...] = ()
    part: Part | None = None
    """What a network has to fit."""
    program: tuple[str, ...] = ()
    script: str = ""
    """How a program is linked that no system loads: weights lie within, and its runner gives it no words."""
    form: str = ""
    """What the library has to be by its own bytes, as `form` tells it; not looked at where it is empty."""
    runners: tuple[tuple[str, ...], ...] = ()
    packages: str = ""
    """What to install for the runners."""
    frames: int = 16
    """On how many it is verified."""
    largest: int = 0
    """The longest side of a frame that a runner has memory for, where that is short."""
    says: str
    use: str = "mobilenets predict {library} PICTURE"

    @property
    def proof(self) -> str:
        """How its code is verified, in words."""
        if self.runners:
            return "under " + " and ".join(dict.fromkeys(words[0] for words in self.runners))
        if self.form:
            return "not run: its form is checked"
        return "run here"


TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target(name="host", says="this machine, by its own C compiler"),
        Target(
            name="x86-64",
            family="x86-64",
            zig=("-target", "x86_64-linux-gnu.2.17"),
            flags=(*LIBRARY, ROLLED),
            machines=X86_MACHINES,
            program=("-target", "x86_64-linux-musl", "-static", ROLLED),
            says="any x86-64 Linux: the best of AVX-512, AVX2 and SSE2 is chosen when it runs",
        ),
        Target(
            name="c",
            family="c",
            flags=(*LIBRARY, "-std=c11", "-O2"),  # at -O3 loops over bytes become five times the code
            shipped=False,
            says="plain C for any compiler and processor, one thread",
            use="cd {folder} && cc -O2 main.c {name}.c -o example && ./example FRAME.rgb WIDTH HEIGHT",
        ),
        Target(
            name="aarch64",
            family="aarch64",
            zig=("-target", "aarch64-linux-gnu.2.28", "-mcpu=cortex_a53"),
            machines=ARM_MACHINES,
            program=("-target", "aarch64-linux-musl", "-mcpu=cortex_a53", "-static"),
            runners=(("qemu-aarch64", "-cpu", "cortex-a53"), ("qemu-aarch64", "-cpu", "cortex-a76")),
            packages=QEMU,
            frames=2,  # an emulator takes five seconds for a picture of V1 1.0/224
            form="ELF 64-bit AArch64 library",
            says="any 64-bit ARM Linux, as of a Raspberry Pi: NEON, in int8 dot products where there are",
            use=ON_DEVICE,
        ),
        Target(
            name="armv7",
            family="armv7",
            zig=("-target", "arm-linux-gnueabihf.2.28", "-mcpu=cortex_a7"),
            machines=("armv7l",),
            program=("-target", "arm-linux-musleabihf", "-mcpu=cortex_a7", "-static"),
            runners=(("qemu-arm", "-cpu", "cortex-a7"),),
            packages=QEMU,
            frames=2,
            form="ELF 32-bit ARM library",
            says="32-bit ARM Linux with NEON, as of a Raspberry Pi 2 or later",
            use=ON_DEVICE,
        ),
        Target(
            name="riscv64",
            family="riscv64",
            zig=("-target", "riscv64-linux-gnu.2.28"),
            flags=(*LIBRARY, "-O2"),
            machines=("riscv64",),
            program=("-target", "riscv64-linux-musl", "-static", "-O2", "-DTRY_VECTORS"),
            runners=(
                ("qemu-riscv64", "-cpu", "rv64,v=true,vlen=128"),
                ("qemu-riscv64", "-cpu", "rv64,v=true,vlen=256"),
                ("qemu-riscv64", "-cpu", "rv64,v=false"),
            ),
            packages=QEMU,
            frames=1,
            form="ELF 64-bit RISC-V library",
            says="64-bit RISC-V Linux (RV64GC), with vectors where there are (V 1.0)",
            use=ON_DEVICE,
        ),
        Target(
            name="cortex-m4",
            family="cortex-m",
            zig=(*BARE, "-mcpu=cortex_m4+vfp4d16sp"),
            flags=OBJECT,
            prefix="lib",
            suffix=".a",
            archived=True,
            part=Part("STM32L4R5", flash_bytes=2 << 20, ram_bytes=640 << 10),
            program=(*BARE, "-mcpu=cortex_m4+vfp4d16sp", *OBJECT, "-DMEMORY=0x21000000"),
            script="board.ld",
            runners=(("qemu-system-arm", "-M", "mps2-an386", *BOARD),),
            packages="Debian's package qemu-system-arm",
            frames=2,
            largest=1024,
            form="ELF 32-bit ARM object",
            says="a microcontroller with single floats: a static library, no system, no libc",
            use=IN_FIRMWARE,
        ),
        Target(
            name="cortex-m7",
            family="cortex-m",
            zig=(*BARE, "-mcpu=cortex_m7+fp_armv8d16sp"),
            flags=OBJECT,
            prefix="lib",
            suffix=".a",
            archived=True,
            part=Part("STM32H747", flash_bytes=2 << 20, ram_bytes=512 << 10),
            program=(*BARE, "-mcpu=cortex_m7+fp_armv8d16sp", *OBJECT, "-DMEMORY=0x60000000"),
            script="board.ld",
            runners=(("qemu-system-arm", "-M", "mps2-an500", *BOARD),),
            packages="Debian's package qemu-system-arm",
            frames=2,
            largest=1024,
            form="ELF 32-bit ARM object",
            says="the same for the next larger",
            use=IN_FIRMWARE,
        ),
        Target(
            name="windows-x86-64",
            family="x86-64",
            zig=("-target", "x86_64-windows-gnu"),
            flags=("-shared", "-s"),
            suffix=".dll",
            program=("-target", "x86_64-windows-gnu", "-lpthread"),
            runners=(("wine",),),
            packages="Debian's packages wine and wine64",
            form="PE x86-64 library",
            says="64-bit Windows: the best of AVX-512, AVX2 and SSE2 is chosen when it runs",
            use="functions of {name}.h, from {library}",
        ),
        Target(
            name="macos-arm64",
            family="aarch64",
            zig=("-target", "aarch64-macos", "-mcpu=apple_m1"),
            suffix=".dylib",
            form="Mach-O arm64 macOS library",
            says="Macs with Apple's processors: NEON",
            use="functions of {name}.h, from {library}",
        ),
        Target(
            name="ios-arm64",
            family="ios-arm64",
            zig=("-target", "aarch64-ios"),
            flags=OBJECT,
            prefix="lib",
            suffix=".a",
            archived=True,
            form="Mach-O arm64 iOS object",
            says="iPhones: a static library for an app, one thread",
            use="in the app  functions of {name}.h, linked with {library}",
        ),
        Target(
            name="android-arm64",
            family="android-arm64",
            zig=("-target", "aarch64-linux-android", "-mcpu=cortex_a53"),
            flags=ANDROID,
            prefix="lib",
            program=("-target", "aarch64-linux-musl", "-mcpu=cortex_a53", "-static"),
            runners=(("qemu-aarch64", "-cpu", "cortex-a53"),),
            packages=QEMU,
            frames=2,
            form="ELF 64-bit AArch64 library",
            says="Android on 64-bit ARM: a library that Kotlin calls, one thread",
            use=IN_APP,
        ),
        Target(
            name="android-arm32",
            family="android-arm32",
            zig=("-target", "arm-linux-androideabi", *NEON_7),
            flags=(
                *ANDROID,
                "-rtlib=compiler-rt",
            ),  # divisions, which these processors have no instruction for
            prefix="lib",
            program=("-target", "arm-linux-musleabi", *NEON_7, "-static"),
            runners=(("qemu-arm", "-cpu", "cortex-a9"),),
            packages=QEMU,
            frames=2,
            form="ELF 32-bit ARM library",
            says="the same for 32-bit ARM with NEON",
            use=IN_APP,
        ),
        Target(
            name="wasm",
            family="wasm",
            zig=(*WEB, "-mcpu=generic+simd128"),
            flags=MODULE,
            suffix=".wasm",
            linked=False,
            runners=(("node",),),
            packages="Node.js",
            says="browsers and Node: simd128, one thread",
            use=IMPORTED,
        ),
        Target(
            name="wasm-threads",
            family="wasm-threads",
            zig=(*WEB, "-mcpu=generic+simd128+atomics+bulk_memory"),
            flags=(*MODULE, "-Wl,--shared-memory", "-Wl,--export=__stack_pointer"),
            suffix=".wasm",
            linked=False,
            runners=(("node",),),
            packages="Node.js",
            says="the same with threads, which a page has that is isolated from other origins",
            use=IMPORTED,
        ),
    )
}
FAMILIES: Mapping[str, tuple[isa.Family, ...]] = {
    "float32": (
        isa.X86,
        isa.AARCH64,
        isa.ARMV7,
        isa.RISCV64,
        isa.CORTEX_M,
        isa.IOS_ARM64,
        isa.ANDROID_ARM64,
        isa.ANDROID_ARM32,
        isa.WASM,
        isa.WASM_THREADS,
        isa.PLAIN,
    ),
    "int8": (
        isa_int8.X86_BYTES,
        isa_int8.AARCH64_BYTES,
        isa_int8.ARMV7_BYTES,
        isa_int8.RISCV64_BYTES,
        isa_int8.CORTEX_M_BYTES,
        isa_int8.IOS_ARM64_BYTES,
        isa_int8.ANDROID_ARM64_BYTES,
        isa_int8.ANDROID_ARM32_BYTES,
        isa_int8.WASM_BYTES,
        isa_int8.WASM_THREADS_BYTES,
        isa_int8.PLAIN_BYTES,
    ),
}


def named(name: str) -> Target:
    """The target of that name, or of the device, with the device's own memories where they are known.

    Raises ValueError that offers the nearest of both.
    """
    if name in TARGETS:
        return TARGETS[name]
    found = meant(name)
    if len(found) != 1:
        raise ValueError(mistaken(name, "target", TARGETS))
    (where,) = found
    target = TARGETS[where.target]
    if target.part is None or where.ram_kb is None or where.flash_kb is None:
        return target
    return replace(target, part=Part(where.name.upper(), where.flash_kb << 10, where.ram_kb << 10))


def family(target: Target, dtype: str = "float32", machine: str = "") -> isa.Family:
    """The instruction sets of a target; `machine` is the one this runs on, by Python's name for it."""
    machine = machine or platform.machine()
    own = "x86-64" if machine in X86_MACHINES else "aarch64" if machine in ARM_MACHINES else "c"
    return next(one for one in FAMILIES[dtype] if one.name == (target.family or own))


def body_family(flags: frozenset[str], *, rough: bool, machine: str = "") -> isa.Family:
    """The one instruction set by which a body runs best on a processor that has `flags`, as Linux names them.

    All of them where that is not known. With `rough` results need not be those of float32 to the last digits.
    """
    whole = family(TARGETS["host"], machine=machine)
    known = {flag.replace("_", "") for flag in flags}
    for one in ((isa.X86_BFLOAT16,) if rough and whole is isa.X86 else ()) + (whole,):
        for own in one.isas:
            if flags and set(filter(None, own.enabled.split(","))) <= known:
                return replace(one, isas=(own,))
    return whole


def loads(target: Target, machine: str = "") -> bool:
    """Whether a library for the target can be opened on this machine."""
    return not target.zig or (machine or platform.machine()) in target.machines


def told() -> str:
    """All targets in one line, and where the devices are."""
    return f"{', '.join(TARGETS)}, or a device of `mobilenets devices`"
