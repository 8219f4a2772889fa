"""The text of one instruction set as it grows, and products over blocks of rows cut into tiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mobilenets.compile.isa import Family, Isa
from mobilenets.compile.kernel import Kernels, Tiling, counted, split
from mobilenets.compile.pack import widths
from mobilenets.compile.step import Product

Places = tuple[str, str, str, str]
"""Where a tile reads, its weights, where it writes, and what is added to that: as C."""


@dataclass
class Writer:
    """The text of one instruction set as it grows: kernels first, then their uses, then the steps."""

    isa: Isa
    family: Family
    kit: Kernels
    weights: Mapping[str, int]
    begins: Mapping[str, int]
    kernels: dict[str, str] = field(default_factory=dict)
    uses: dict[str, str] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def text(self) -> str:
        listed = ",\n    ".join(self.names)
        return "\n".join(
            (
                self.kit.vectors(),
                *self.kernels.values(),
                *self.uses.values(),
                *self.steps,
                f"static const step_function steps_{self.isa.name}[] = {{\n    {listed},\n}};\n",
                self.kit.end,
            )
        )

    def use(self, kernel: tuple[str, str], arguments: str, given: str) -> str:
        """The name of a function of its own for a kernel with constants; both are made where missing."""
        called, text = kernel
        self.kernels.setdefault(called, text)
        call = f"{called}({given});"
        names = list(self.uses)
        name = f"use{names.index(call) if call in self.uses else len(names)}_{self.isa.name}"
        self.uses[call] = f"static APART void {name}({arguments})\n{{\n    {call}\n}}\n"
        return name


def panels(
    writer: Writer,
    step: Product,
    places: tuple[str, str, str],
    indent: int,
    parts: int = 0,
) -> str:
    """The product of a block of rows: from, to, and what is added.

    With `parts` it is those of the stretches `begin` to `end`, of which each panel has so many.
    """
    a, c, d = places
    panel, unit = writer.family.panel, writer.kit.unit(step.target)
    all_widths = widths(writer.family.room(step.target.shape.channels), panel)
    count = len(all_widths)
    first, last = ("begin", "end") if parts else ("0", str(count))
    if parts > 1:
        first, last = f"begin / {parts}", f"(end + {parts - 1}) / {parts}"
    values = writer.kit.panel(step, panel)
    pad = " " * indent
    text = ""
    if all_widths[0] == panel:
        whole = sum(width == panel for width in all_widths)
        end = last if whole == count else f"LEAST({last}, {whole})"
        text += (
            f"{pad}for (int n = {first}; n < {end}; n++) {{\n"
            + _stretches("n", parts, indent + 4)
            + _strips(
                writer,
                step,
                (a, f"w + n * {values}", f"{c} + n * {panel * unit}", f"{d} + n * {panel * unit}"),
                panel,
                indent + 4,
                parts,
            )
            + f"{pad}}}\n"
        )
    if all_widths[-1] != panel:
        n = count - 1
        at = n * panel * unit
        all_places = a, f"w + {n * values}", f"{c} + {at}", f"{d} + {at}"
        inner = _stretches(str(n), parts, indent + 4)
        inner += _strips(writer, step, all_places, all_widths[-1], indent + 4, parts)
        asked = f"if (begin < {count * parts} && end > {n * parts}) " if parts else ""
        text += f"{pad}{asked}{{\n{inner}{pad}}}\n"
    return text


def stretches(writer: Writer, step: Product) -> int:
    """In how many stretches of pixels a panel is made: what threads share out."""
    return len(_cut(writer, step, min(writer.family.panel // writer.isa.lanes, writer.isa.vectors)))


def _cut(writer: Writer, step: Product, wide: int) -> list[int]:
    """The rows of a block, as many at a time as a tile of so many vectors has."""
    return split(step.rows, max(1, writer.isa.pixels(wide) // step.target.shape.width))


def _stretches(n: str, parts: int, indent: int) -> str:
    """Which of its stretches panel n makes here, as C."""
    if parts < 2:
        return ""
    at, pad = f"{n} * {parts}", " " * indent
    return f"{pad}const int from = begin > {at} ? begin - {at} : 0, to = LEAST(end - {at}, {parts});\n"


def _strips(writer: Writer, step: Product, places: Places, width: int, indent: int, parts: int) -> str:
    """One panel, as many of its channels at a time as a tile of this instruction set has."""
    isa, kit = writer.isa, writer.kit
    a, w, c, d = places
    text, at, left = "", 0, width
    while left:
        lanes = min(left, isa.lanes)
        wide = min(left // lanes, isa.vectors)
        unit = kit.unit(step.target)
        own = (a, f"{w} + {at * kit.weight}", f"{c} + {at * unit}", f"{d} + {at * unit}") if at else places
        text += _tiles(writer, step, own, (wide, lanes, at), width, indent, parts)
        at, left = at + wide * lanes, left - wide * lanes
    return text


def _tiles(
    writer: Writer,
    step: Product,
    places: Places,
    wide: tuple[int, int, int],
    panel: int,
    indent: int,
    parts: int,
) -> str:
    """All pixels of a block of rows: stretches of one row, or several whole rows, to a tile."""
    (a, w, c, d), kit = places, writer.kit
    residual = step.residual
    width, most = step.target.shape.width, writer.isa.pixels(wide[0])
    across, down = step.stride * step.source.pitch, step.stride * step.source.row
    pad, cut = " " * indent, _cut(writer, step, wide[0])
    text = ""

    def bounds(before: int, times: int, rows: int) -> tuple[str, str]:
        """From where to where a loop goes over `times` stretches of `rows` rows, behind others."""
        if parts < 2:
            return "0", str(times * rows)
        begin, end = (
            name if parts == len(cut) else f"SHARE({name}, {parts}, {len(cut)})" for name in ("from", "to")
        )
        first = f"({begin} > {before} ? LEAST({begin} - {before}, {times}) : 0)"
        return f"{rows} * {first}", f"{rows} * LEAST({end} - {before}, {times})"

    if width > most:
        x, lines = 0, ""
        for pixels, times in counted(split(width, most)):
            use = kit.tile(writer.use, Tiling(step, pixels, pixels, *wide, panel))
            move = f"(x + {x})" if x else "x"
            lines += (
                f"{pad}    for (int x = 0; x < {times * pixels}; x += {pixels})\n"
                f"{pad}        {use}({a} + r * {down} + {move} * {across}, {w}, "
                f"{c} + r * {step.target.row} + {move} * {step.target.pitch}"
                + (f", {d} + r * {residual.row} + {move} * {residual.pitch}" if residual else "")
                + f"{kit.more(step, f'r * {width} + {move}')});\n"
            )
            x += times * pixels
        first, last = bounds(0, step.rows, 1)
        return f"{pad}for (int r = {first}; r < {last}; r++) {{\n{lines}{pad}}}\n"
    row = before = 0
    for rows, times in counted(cut):
        first, last = bounds(before, times, rows)
        use = kit.tile(writer.use, Tiling(step, rows * width, width, *wide, panel))
        move = f"(r + {row})" if row else "r"
        text += (
            f"{pad}for (int r = {first}; r < {last}; r += {rows})\n"
            f"{pad}    {use}({a} + {move} * {down}, {w}, {c} + {move} * {step.target.row}"
            + (f", {d} + {move} * {residual.row}" if residual else "")
            + f"{kit.more(step, f'{move} * {width}')});\n"
        )
        row, before = row + times * rows, before + times
    return text
