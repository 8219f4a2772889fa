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
    share: tuple[str, str] | None = None,
) -> str:
    """The product of a block of rows: from, to, and what is added. With `share` of the panels from one to
    before another."""
    a, c, d = places
    panel, unit = writer.family.panel, writer.kit.unit(step.target)
    all_widths = widths(writer.family.room(step.target.shape.channels), panel)
    first, last = share or ("0", str(len(all_widths)))
    values = writer.kit.panel(step, panel)
    pad = " " * indent
    text = ""
    if all_widths[0] == panel:
        whole = sum(width == panel for width in all_widths)
        end = last if whole == len(all_widths) else f"LEAST({last}, {whole})"
        text += (
            f"{pad}for (int n = {first}; n < {end}; n++) {{\n"
            + _strips(
                writer,
                step,
                (a, f"w + n * {values}", f"{c} + n * {panel * unit}", f"{d} + n * {panel * unit}"),
                panel,
                indent + 4,
            )
            + f"{pad}}}\n"
        )
    if all_widths[-1] != panel:
        n = len(all_widths) - 1
        at = n * panel * unit
        all_places = a, f"w + {n * values}", f"{c} + {at}", f"{d} + {at}"
        inner = _strips(writer, step, all_places, all_widths[-1], indent + 4)
        asked = "" if (first, last) == ("0", str(n + 1)) else f"if ({first} <= {n} && {n} < {last}) "
        text += f"{pad}{asked}{{\n{inner}{pad}}}\n"
    return text


def _strips(writer: Writer, step: Product, places: Places, width: int, indent: int) -> str:
    """One panel, as many of its channels at a time as a tile of this instruction set has."""
    isa, kit = writer.isa, writer.kit
    a, w, c, d = places
    text, at, left = "", 0, width
    while left:
        lanes = min(left, isa.lanes)
        wide = min(left // lanes, isa.vectors)
        unit = kit.unit(step.target)
        own = (a, f"{w} + {at * kit.weight}", f"{c} + {at * unit}", f"{d} + {at * unit}") if at else places
        text += _tiles(writer, step, own, (wide, lanes, at), width, indent)
        at, left = at + wide * lanes, left - wide * lanes
    return text


def _tiles(
    writer: Writer,
    step: Product,
    places: Places,
    wide: tuple[int, int, int],
    panel: int,
    indent: int,
) -> str:
    """All pixels of a block of rows: stretches of one row, or several whole rows, to a tile."""
    (a, w, c, d), kit = places, writer.kit
    residual = step.residual
    width, most = step.target.shape.width, writer.isa.pixels(wide[0])
    across, down = step.stride * step.source.pitch, step.stride * step.source.row
    pad = " " * indent
    text = ""
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
        return f"{pad}for (int r = 0; r < {step.rows}; r++) {{\n{lines}{pad}}}\n"
    row = 0
    for rows, times in counted(split(step.rows, max(1, most // width))):
        use = kit.tile(writer.use, Tiling(step, rows * width, width, *wide, panel))
        move = f"(r + {row})" if row else "r"
        text += (
            f"{pad}for (int r = 0; r < {times * rows}; r += {rows})\n"
            f"{pad}    {use}({a} + {move} * {down}, {w}, {c} + {move} * {step.target.row}"
            + (f", {d} + {move} * {residual.row}" if residual else "")
            + f"{kit.more(step, f'{move} * {width}')});\n"
        )
        row += times * rows
    return text
