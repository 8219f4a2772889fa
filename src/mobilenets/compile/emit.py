"""A program as C: one function for each step and instruction set, every size a constant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from mobilenets.compile import kernel
from mobilenets.compile.isa import Family, Isa
from mobilenets.compile.pack import Packed, widths
from mobilenets.compile.step import Filter, Map, Mean, Product, Separable, Step, padded, small
from mobilenets.spec.op import Activation

LEVEL: Mapping[Activation, int] = {"none": 0, "relu": 1, "relu6": 2}


@dataclass
class Writer:
    """The text of one instruction set as it grows: kernels first, then their uses, then the steps."""

    isa: Isa
    family: Family
    packed: Packed
    begins: Mapping[str, int]
    kernels: dict[str, str] = field(default_factory=dict)
    uses: dict[str, str] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def text(self) -> str:
        listed = ",\n    ".join(self.names)
        return "\n".join(
            (
                kernel.vectors(self.isa),
                *self.kernels.values(),
                *self.uses.values(),
                *self.steps,
                f"static const step_function steps_{self.isa.name}[] = {{\n    {listed},\n}};\n",
                "#undef vector\n#undef load\n#undef store\n",
            )
        )


def section(
    program: Sequence[Step], isa: Isa, family: Family, packed: Packed, begins: Mapping[str, int]
) -> str:
    """Everything that runs on one instruction set."""
    writer = Writer(isa, family, packed, begins)
    for step in program:
        match step:
            case Product():
                _product(writer, step)
            case Filter():
                _filter(writer, step)
            case Separable():
                _separable(writer, step)
            case Mean():
                _mean(writer, step)
            case _:
                assert_never(step)
    return writer.text()


def _step(writer: Writer, name: str, what: str, body: str) -> None:
    called = f"{_c(name)}_{writer.isa.name}"
    writer.names.append(called)
    writer.steps.append(
        f"/* {what} */\nstatic void {called}(struct state *net, int part, int parts)\n{{\n{body}}}\n"
    )


def _product(writer: Writer, step: Product) -> None:
    source, target = step.source, step.target
    what = f"{step.name}: {_shape(source)} to {_shape(target)}"
    head = _pointers(writer, step.name, source, target, step.lead)
    panels = len(widths(target.shape.channels, writer.family.lanes, writer.family.panel))
    if small(target):
        body = head + _panels(
            writer, step, "in", "out", f"SHARE(part, parts, {panels})", f"SHARE(part + 1, parts, {panels})", 4
        )
        body += _border(target, "part == 0", "part == parts - 1", "0", str(target.shape.height), "part == 0")
        _step(writer, step.name, what, body)
        return
    blocks = target.shape.height // step.rows
    inner = _panels(
        writer,
        step,
        f"in + y * {step.stride * source.row}",
        f"out + y * {target.row}",
        "0",
        str(panels),
        8,
    )
    body = (
        f"{head}    const int first = SHARE(part, parts, {blocks}) * {step.rows}, "
        f"last = SHARE(part + 1, parts, {blocks}) * {step.rows};\n"
        f"    for (int y = first; y < last; y += {step.rows}) {{\n{inner}    }}\n"
    )
    body += _border(target, "first == 0", f"last == {target.shape.height}", "first", "last", "1")
    _step(writer, step.name, what, body)


def _separable(writer: Writer, step: Separable) -> None:
    first, then = step.filter, step.product
    source, rows, target = first.source, first.target, then.target
    what = f"{first.name} and {then.name}: {_shape(source)} to {_shape(target)}, {then.rows} rows at a time"
    blocks = target.shape.height // then.rows
    panels = len(widths(target.shape.channels, writer.family.lanes, writer.family.panel))
    body = (
        _pointers(writer, then.name, source, target, first.lead)
        + f"    const float *taps = net->weights + {writer.packed.begins[first.name]};\n"
        + "    float *rows = net->arena + (MAPS_BYTES + part * SCRATCH_BYTES) / 4;\n"
        + f"    const int first = SHARE(part, parts, {blocks}) * {then.rows}, "
        + f"last = SHARE(part + 1, parts, {blocks}) * {then.rows};\n"
        + f"    for (int y = first; y < last; y += {then.rows}) {{\n"
        + f"        for (int r = 0; r < {then.rows}; r++) {{\n"
        + _row(
            writer,
            first,
            f"in + (y + r) * {first.stride * source.row}",
            "taps",
            f"rows + r * {rows.row}",
            padded(rows.shape.channels, writer.isa.lanes) // writer.isa.lanes,
            12,
        )
        + "        }\n"
        + _panels(writer, then, "rows", f"out + y * {target.row}", "0", str(panels), 8)
        + "    }\n"
        + _border(target, "first == 0", f"last == {target.shape.height}", "first", "last", "1")
    )
    _step(writer, f"{first.name}_{then.name}", what, body)


def _filter(writer: Writer, step: Filter) -> None:
    source, target, isa = step.source, step.target, writer.isa
    vectors = padded(target.shape.channels, writer.family.lanes) // isa.lanes
    what = f"{step.name}: {_shape(source)} to {_shape(target)}, channels shared out"
    body = (
        _pointers(writer, step.name, source, target, step.lead)
        + f"    const int first = SHARE(part, parts, {vectors}), last = SHARE(part + 1, parts, {vectors});\n"
        + f"    in += first * {isa.lanes};\n    out += first * {isa.lanes};\n    w += first * {isa.lanes};\n"
        + f"    for (int y = 0; y < {target.shape.height}; y++) {{\n"
        + _row(
            writer,
            step,
            f"in + y * {step.stride * source.row}",
            "w",
            f"out + y * {target.row}",
            "last - first",
            8,
        )
        + "    }\n"
        + _border(target, "part == 0", "part == 0", "0", str(target.shape.height), "part == 0")
    )
    _step(writer, step.name, what, body)


def _mean(writer: Writer, step: Mean) -> None:
    source, target, isa = step.source, step.target, writer.isa
    vectors = padded(source.shape.channels, isa.lanes) // isa.lanes
    height, width = source.shape.height, source.shape.width
    body = f"""\
    const float *in = net->arena + {writer.begins[source.name] + source.origin};
    float *out = net->arena + {writer.begins[target.name] + target.origin};
    for (int v = SHARE(part, parts, {vectors}); v < SHARE(part + 1, parts, {vectors}); v++) {{
        vector sum = {{0}};
        for (int y = 0; y < {height}; y++)
            for (int x = 0; x < {width}; x++)
                sum += load(in + y * {source.row} + x * {source.pitch} + v * {isa.lanes});
        store(out + v * {isa.lanes}, sum * {1 / (height * width)!r}f);
    }}
"""
    _step(writer, step.name, f"{step.name}: the mean of {_shape(source)}", body)


def _panels(writer: Writer, step: Product, a: str, c: str, first: str, last: str, indent: int) -> str:
    """The product of a block of rows with panels `first` … `last`."""
    panel = writer.family.panel
    all_widths = widths(step.target.shape.channels, writer.family.lanes, panel)
    floats = (1 + step.kernel * step.across * step.run) * panel
    pad = " " * indent
    text = ""
    if all_widths[0] == panel:
        whole = sum(width == panel for width in all_widths)
        end = last if whole == len(all_widths) else f"LEAST({last}, {whole})"
        text += (
            f"{pad}for (int n = {first}; n < {end}; n++) {{\n"
            + _strips(writer, step, a, f"w + n * {floats}", f"{c} + n * {panel}", panel, indent + 4)
            + f"{pad}}}\n"
        )
    if all_widths[-1] != panel:
        n = len(all_widths) - 1
        inner = _strips(
            writer, step, a, f"w + {n * floats}", f"{c} + {n * panel}", all_widths[-1], indent + 4
        )
        asked = "" if (first, last) == ("0", str(n + 1)) else f"if ({first} <= {n} && {n} < {last}) "
        text += f"{pad}{asked}{{\n{inner}{pad}}}\n"
    return text


def _strips(writer: Writer, step: Product, a: str, w: str, c: str, width: int, indent: int) -> str:
    """One panel, as many of its channels at a time as a tile of this instruction set has."""
    isa = writer.isa
    text, at, left = "", 0, width // isa.lanes
    while left:
        wide = min(left, isa.vectors)
        text += _tiles(
            writer, step, a, f"{w} + {at}" if at else w, f"{c} + {at}" if at else c, wide, width, indent
        )
        at, left = at + wide * isa.lanes, left - wide
    return text


def _tiles(writer: Writer, step: Product, a: str, w: str, c: str, wide: int, panel: int, indent: int) -> str:
    """All pixels of a block of rows: stretches of one row, or several whole rows, to a tile."""
    width, most = step.target.shape.width, writer.isa.rows
    across, down = step.stride * step.source.pitch, step.stride * step.source.row
    pad = " " * indent
    text = ""
    if width > most:
        x, lines = 0, ""
        for pixels, times in _counted(split(width, most)):
            use = _use(writer, step, pixels, pixels, wide, panel)
            move = f"(x + {x})" if x else "x"
            lines += (
                f"{pad}    for (int x = 0; x < {times * pixels}; x += {pixels})\n"
                f"{pad}        {use}({a} + r * {down} + {move} * {across}, {w}, "
                f"{c} + r * {step.target.row} + {move} * {step.target.pitch});\n"
            )
            x += times * pixels
        return f"{pad}for (int r = 0; r < {step.rows}; r++) {{\n{lines}{pad}}}\n"
    row = 0
    for rows, times in _counted(split(step.rows, max(1, most // width))):
        use = _use(writer, step, rows * width, width, wide, panel)
        move = f"(r + {row})" if row else "r"
        text += (
            f"{pad}for (int r = 0; r < {times * rows}; r += {rows})\n"
            f"{pad}    {use}({a} + {move} * {down}, {w}, {c} + {move} * {step.target.row});\n"
        )
        row += times * rows
    return text


def _use(writer: Writer, step: Product, pixels: int, width: int, wide: int, panel: int) -> str:
    """The name of a tile with the constants of a layer; layers that have them in common share it."""
    isa, source, target = writer.isa, step.source, step.target
    called = f"tile_{pixels}x{wide}_{isa.name}"
    if called not in writer.kernels:
        writer.kernels[called] = kernel.tile(isa, pixels, wide)
    one_row = pixels == width
    sizes = (
        *(step.kernel, source.row, step.across, source.pitch, step.run, panel),
        *(width, step.stride * source.pitch, 0 if one_row else step.stride * source.row),
        *(target.pitch, 0 if one_row else target.row),
        LEVEL[step.activation],
    )
    if step.kernel == 1:
        sizes = (1, 0, 1, 0, *sizes[4:])
    given = f"{called}(a, w, c, {', '.join(map(str, sizes))});"
    return _apart(writer, given, "const float *a, const float *w, float *c")


def _apart(writer: Writer, given: str, arguments: str) -> str:
    """The name of a function of its own for a call with constants; made where it is not there yet."""
    names = list(writer.uses)
    name = f"use{names.index(given) if given in writer.uses else len(names)}_{writer.isa.name}"
    writer.uses[given] = f"static APART void {name}({arguments})\n{{\n    {given}\n}}\n"
    return name


def _row(
    writer: Writer, step: Filter, source: str, taps: str, target: str, vectors: int | str, indent: int
) -> str:
    """One row of a depthwise layer."""
    isa = writer.isa
    pad, text, x = " " * indent, "", 0
    for pixels, times in _counted(split(step.target.shape.width, isa.columns)):
        called = f"filter_{pixels}_{isa.name}"
        if called not in writer.kernels:
            writer.kernels[called] = kernel.depthwise(isa, pixels)
        sizes = (
            *(step.kernel, step.stride, step.source.row, step.source.pitch, step.target.pitch),
            *(padded(step.source.shape.channels, writer.family.lanes), LEVEL[step.activation]),
        )
        given = f"{called}(in, w, out, vectors, {', '.join(map(str, sizes))});"
        use = _apart(writer, given, "const float *in, const float *w, float *out, int vectors")
        move = f"(x + {x})" if x else "x"
        text += (
            f"{pad}for (int x = 0; x < {times * pixels}; x += {pixels})\n"
            f"{pad}    {use}({source} + {move} * {step.stride * step.source.pitch}, {taps}, "
            f"{target} + {move} * {step.target.pitch}, {vectors});\n"
        )
        x += times * pixels
    return text


def _border(made: Map, top: str, bottom: str, first: str, last: str, sides: str) -> str:
    """Zeros around what was made, written anew each time: other maps have lain there since."""
    text = ""
    start = f"out - {made.origin}"
    if made.top:
        text += f"    if ({top})\n        clear({start}, {made.top * made.row});\n"
    if made.bottom:
        at = made.shape.height * made.row - made.left * made.pitch
        text += f"    if ({bottom})\n        clear(out + {at}, {made.bottom * made.row});\n"
    if made.left or made.right:
        inner = ""
        if made.left:
            at = made.left * made.pitch
            inner += f"            clear(out + y * {made.row} - {at}, {at});\n"
        if made.right:
            at = made.shape.width * made.pitch
            inner += f"            clear(out + y * {made.row} + {at}, {made.right * made.pitch});\n"
        inner = inner.replace("            ", "        ") if sides == "1" else inner
        loop = f"for (int y = {first}; y < {last}; y++) {{\n{inner}"
        text += f"    {loop}    }}\n" if sides == "1" else f"    if ({sides})\n        {loop}        }}\n"
    return text


def _pointers(writer: Writer, name: str, source: Map, target: Map, lead: int) -> str:
    return (
        f"    const float *in = net->arena + {writer.begins[source.name] + source.origin - lead};\n"
        f"    const float *w = net->weights + {writer.packed.begins[name]};\n"
        f"    float *out = net->arena + {writer.begins[target.name] + target.origin};\n"
    )


def split(count: int, most: int) -> list[int]:
    """`count` in as few parts of at most `most` as it takes, as even as can be, larger ones first."""
    parts = -(-count // most)
    size, rest = divmod(count, parts)
    return [size + 1] * rest + [size] * (parts - rest)


def _counted(parts: Sequence[int]) -> list[tuple[int, int]]:
    return [(size, parts.count(size)) for size in dict.fromkeys(parts)]


def _shape(made: Map) -> str:
    return "×".join(map(str, made.shape))


def _c(name: str) -> str:
    return name.replace(".", "_")
