"""What a built file is, read from its bytes: format, processor, the names it gives, what memory it takes."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from mobilenets.compile.source import Source

ELF_KINDS = {1: "object", 3: "library"}
ELF_PROCESSORS = {40: "ARM", 62: "x86-64", 183: "AArch64", 243: "RISC-V"}
MACH_KINDS = {1: "object", 6: "library"}
MACH_SYSTEMS = {1: "macOS", 2: "iOS"}
MACH_ARM64, PE_X86_64 = 0x100000C, 0x8664
LC_SYMTAB, LC_ID_DYLIB, LC_BUILD_VERSION = 0x2, 0xD, 0x32
SHT_NOBITS, SHT_SYMTAB, SHT_DYNSYM, SHF_WRITE, SHF_ALLOC = 8, 2, 11, 1, 2


@dataclass(frozen=True, slots=True)
class Form:
    """`told` is format, processor and kind in words; `names` are those that others can call.

    Of an ELF file `kept_bytes` is what lies in memory that keeps (code, constants, what variables begin as),
    `static_bytes` what its variables take.
    """

    told: str
    names: frozenset[str]
    kept_bytes: int = 0
    static_bytes: int = 0


def form(data: bytes) -> Form:
    """What a library is, or the first object of a static one. Raises ValueError where it is neither."""
    try:
        if data.startswith(b"!<arch>\n"):
            return form(next(_members(data)))
        if data.startswith(b"\x7fELF"):
            return _elf(data)
        if data.startswith(b"\xcf\xfa\xed\xfe"):
            return _mach(data)
        if data.startswith(b"MZ"):
            return _pe(data)
    except (struct.error, StopIteration, IndexError) as error:
        raise ValueError("cut short") from error
    raise ValueError(f"begins with {data[:4]!r}: neither ELF, Mach-O, PE nor a static library")


def checked(source: Source, data: bytes, expected: str) -> Form:
    """The form of a built library. Raises RuntimeError where it is another, or lacks a name of the header."""
    try:
        found = form(data)
    except ValueError as error:
        raise RuntimeError(f"the compiler made no {expected}: the file {error}") from error
    if found.told != expected:
        raise RuntimeError(f"the compiler made {found.told}, not {expected}")
    wanted = set(re.findall(rf"\b({source.name}_\w+)\(", re.sub(r"/\*.*?\*/", "", source.header, flags=re.S)))
    for _, glue in source.glue:
        begins = re.findall(r"type (Java_\w+)##name", glue)
        wanted |= {begin + end for begin in begins for end in re.findall(r"(?m)^JNI\(\w+, (\w+)\)", glue)}
    if lacking := sorted(wanted - found.names):
        raise RuntimeError(f"the {expected} does not give {', '.join(lacking)}")
    return found


def _members(data: bytes) -> Iterator[bytes]:
    at = 8
    while at < len(data):
        name, size = data[at : at + 16].decode("latin-1").strip(), int(data[at + 48 : at + 58])
        body = data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
        if name.startswith("#1/"):  # BSD's way: a long name stands before what it names
            long = int(name[3:])
            name, body = body[:long].rstrip(b"\0").decode("latin-1"), body[long:]
        if name not in ("/", "//", "/SYM64/") and not name.startswith("__.SYMDEF"):
            yield body


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode("utf-8", "replace")


def _elf(data: bytes) -> Form:
    wide = data[4] == 2
    kind, processor = struct.unpack_from("<2H", data, 16)
    (sections,) = struct.unpack_from("<Q" if wide else "<I", data, 40 if wide else 32)
    size, count = struct.unpack_from("<2H", data, 58 if wide else 46)
    layout = "<2I4Q2I2Q" if wide else "<10I"
    headers = [struct.unpack_from(layout, data, sections + i * size) for i in range(count)]
    names, kept, static = set(), 0, 0
    for _, what, flags, _, offset, length, link, _, _, each in headers:
        if flags & SHF_ALLOC:
            kept += length if what != SHT_NOBITS else 0
            static += length if flags & SHF_WRITE else 0
        if what == (SHT_SYMTAB if kind == 1 else SHT_DYNSYM):
            for at in range(offset, offset + length, each):
                if wide:
                    name, info, hidden, section = struct.unpack_from("<I2BH", data, at)
                else:
                    name, _, _, info, hidden, section = struct.unpack_from("<3I2BH", data, at)
                if section and info >> 4 and hidden & 3 in (0, 3):
                    names.add(_text(data, headers[link][4] + name))
    told = (
        f"ELF {64 if wide else 32}-bit {ELF_PROCESSORS.get(processor, processor)} {ELF_KINDS.get(kind, kind)}"
    )
    return Form(told, frozenset(names), kept, static)


def _mach(data: bytes) -> Form:
    processor, _, kind, count = struct.unpack_from("<4I", data, 4)
    names, system, at = set(), "?", 32
    for _ in range(count):
        command, size = struct.unpack_from("<2I", data, at)
        if command == LC_BUILD_VERSION:
            (found,) = struct.unpack_from("<I", data, at + 8)
            system = MACH_SYSTEMS.get(found, str(found))
        if command == LC_SYMTAB:
            symbols, many, texts, _ = struct.unpack_from("<4I", data, at + 8)
            for i in range(many):
                name, what = struct.unpack_from("<IB", data, symbols + 16 * i)
                if what & 0x11 == 1 and what & 0x0E == 0x0E:  # others can see it, it lies in a section
                    names.add(_text(data, texts + name).removeprefix("_"))
        at += size
    words = "arm64" if processor == MACH_ARM64 else hex(processor)
    return Form(f"Mach-O {words} {system} {MACH_KINDS.get(kind, kind)}", frozenset(names))


def _pe(data: bytes) -> Form:
    (at,) = struct.unpack_from("<I", data, 60)
    if data[at : at + 4] != b"PE\0\0":
        raise ValueError("begins as a program of MS-DOS and is none of Windows")
    processor, sections = struct.unpack_from("<2H", data, at + 4)
    optional, flags = struct.unpack_from("<2H", data, at + 20)
    tables = [struct.unpack_from("<4I", data, at + 24 + optional + 40 * i + 8) for i in range(sections)]

    def place(address: int) -> int:
        """Where in the file lies what is loaded there."""
        found: int = next(
            address - begin + raw
            for size, begin, stored, raw in tables
            if begin <= address < begin + max(size, stored)
        )
        return found

    (exports,) = struct.unpack_from("<I", data, at + 24 + 112)
    names = set()
    if exports:
        (count,) = struct.unpack_from("<I", data, place(exports) + 24)
        (listed,) = struct.unpack_from("<I", data, place(exports) + 32)
        places = struct.unpack_from(f"<{count}I", data, place(listed))
        names = {_text(data, place(one)) for one in places}
    words = "x86-64" if processor == PE_X86_64 else hex(processor)
    return Form(f"PE {words} {'library' if flags & 0x2000 else 'program'}", frozenset(names))
