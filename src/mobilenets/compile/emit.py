"""A program as C: one function for each step and instruction set, every size a constant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import assert_never

from mobilenets.compile.isa import Family
from mobilenets.compile.kernel import Kernels
from mobilenets.compile.pack import widths
from mobilenets.compile.plan import bytes_of
from mobilenets.compile.step import (
    Filter,
    Gate,
    Gated,
    Inverted,
    Map,
    Mean,
    Moved,
    Pixelwise,
    Product,
    Scores,
    Separable,
    Stem,
    Step,
    Sum,
    Window,
    reads,
    small,
)
from mobilenets.compile.writer import Writer, panels, stretches
from mobilenets.spec.op import Shuffle, Slice

SCRATCH = "    value *rows = net->arena + (MAPS_BYTES + part * SCRATCH_BYTES) / sizeof(value);\n"


def section(
    program: Sequence[Step],
    family: Family,
    kit: Kernels,
    weights: Mapping[str, int],
    begins: Mapping[str, int],
) -> str:
    """Everything that runs on one instruction set.

    `weights` and `begins` tell where those of a layer and where maps begin, in values.
    """
    writer = Writer(kit.isa, family, kit, weights, begins)
    for step in program:
        match step:
            case Stem():
                _stem(writer, step)
            case Product():
                _product(writer, step)
            case Filter():
                _filter(writer, step)
            case Separable():
                _separable(writer, step)
            case Inverted():
                _inverted(writer, step)
            case Gated():
                _gated(writer, step)
            case Mean():
                _mean(writer, step)
            case Scores():
                _scores(writer, step)
            case Sum() | Gate() | Window() | Moved():
                _pixelwise(writer, step)
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
    source, target, kit = step.source, step.target, writer.kit
    what = f"{step.name}: {_shape(source)} to {_shape(target)}"
    head = _pointers(writer, step.name, source, target, step.lead) + _residual(writer, step)
    if small(target):
        each = stretches(writer, step)
        units = each * len(widths(writer.family.room(target.shape.channels), writer.family.panel))
        body = (
            head
            + f"    const int begin = SHARE(part, parts, {units}), end = SHARE(part + 1, parts, {units});\n"
            + kit.before(step, "in", 4)
            + panels(writer, step, ("in", "out", "add"), 4, each)
        )
        body += _border(
            kit, target, "part == 0", "part == parts - 1", "0", str(target.shape.height), "part == 0"
        )
        _step(writer, step.name, what, body)
        return
    blocks = target.shape.height // step.rows
    a = f"in + y * {step.stride * source.row}"
    inner = kit.before(step, a, 8) + panels(writer, step, (a, *_written(step)), 8)
    body = f"{head}{_blocks(blocks, step.rows)}{inner}    }}\n"
    body += _border(kit, target, "first == 0", f"last == {target.shape.height}", "first", "last", "1")
    _step(writer, step.name, what, body)


def _stem(writer: Writer, step: Stem) -> None:
    product = step.product
    rows, target = product.source, product.target
    what = f"{product.name}: {_shape(step.image)} to {_shape(target)}, {_at_once(product)}"
    kept = product.kernel - product.stride
    taken = f"y * {product.stride} - {step.above}, {rows.shape.height}, y > first ? {kept} : 0"
    body = (
        f"    const value *w = net->weights + {writer.weights[product.name]};\n"
        + f"    value *out = net->arena + {writer.begins[target.name] + target.origin};\n"
        + SCRATCH
        + _blocks(target.shape.height // product.rows, product.rows)
        + f"        input_{writer.isa.name}(net, rows, {taken}, {rows.left}, {rows.right});\n"
        + _multiplied(writer, product)
    )
    _step(writer, product.name, what, body)


def _separable(writer: Writer, step: Separable) -> None:
    first, then, kit = step.filter, step.product, writer.kit
    source, rows, target = first.source, first.target, then.target
    what = f"{first.name} and {then.name}: {_shape(source)} to {_shape(target)}, {_at_once(then)}"
    places = (f"in + (y + r) * {first.stride * source.row}", "taps", f"rows + r * {rows.row}")
    body = (
        _pointers(writer, then.name, source, target, first.lead)
        + _residual(writer, then)
        + f"    const value *taps = net->weights + {writer.weights[first.name]};\n"
        + SCRATCH
        + _blocks(target.shape.height // then.rows, then.rows)
        + f"        for (int r = 0; r < {then.rows}; r++) {{\n"
        + kit.row(writer.use, first, places, None, 12)
        + "        }\n"
        + _multiplied(writer, then)
    )
    _step(writer, f"{first.name}_{then.name}", what, body)


def _gated(writer: Writer, step: Gated) -> None:
    gate, then, kit = step.gate, step.product, writer.kit
    source, target = gate.source, then.target
    what = f"{gate.name} and {then.name}: {_shape(source)} to {_shape(target)}, {_at_once(then)}"
    called = f"{_c(gate.name)}_rows_{writer.isa.name}"
    arguments = "const value *in0, const value *in1, value *out"
    lines = indent(kit.line(gate, ("in0", "in1")), 8 * " ")
    writer.steps.append(
        f"static void {called}({arguments})\n{{\n"
        f"    for (int y = 0; y < {then.rows}; y++) {{\n{lines}    }}\n}}\n"
    )
    body = (
        _pointers(writer, then.name, source, target, 0)
        + _residual(writer, then)
        + f"    const value *gate = net->arena + {writer.begins[gate.gate.name]};\n"
        + SCRATCH
        + _blocks(target.shape.height // then.rows, then.rows)
        + f"        {called}(in + y * {source.row}, gate, rows);\n"
        + _multiplied(writer, then)
    )
    _step(writer, f"{gate.name}_{then.name}", what, body)


def _multiplied(writer: Writer, step: Product) -> str:
    """The end of a block whose `rows` were made, and what is done after all of them."""
    border = _border(
        writer.kit, step.target, "first == 0", f"last == {step.target.shape.height}", "first", "last", "1"
    )
    inner = writer.kit.before(step, "rows", 8) + panels(writer, step, ("rows", *_written(step)), 8)
    return f"{inner}    }}\n{border}"


def _inverted(writer: Writer, step: Inverted) -> None:
    """As `_separable`, behind rows of what it reads; what two blocks share is moved up, not made anew."""
    wide, first, then, kit = step.wide, step.joint.filter, step.joint.product, writer.kit
    source, band, rows, target = reads(step)[0], first.source, first.target, then.target
    names = f"{wide.name}, {first.name} and {then.name}"
    what = f"{names}: {_shape(source)} to {_shape(target)}, {_at_once(step)}"
    shared, moved = first.kernel - first.stride, first.stride * step.rows * band.row
    zero, edge = kit.zero(band), band.left * band.pitch
    sides = "".join(
        f"        fill(band + i * {band.row} + {at}, {count}, {zero});\n"
        for at, count in ((0, edge), (band.row - band.right * band.pitch, band.right * band.pitch))
        if count
    )
    places = (f"band + b * {first.stride * band.row} + {edge - first.lead}", "taps", "rows")
    add = "" if then.residual is None else f"add + (y + b) * {then.residual.row}"
    written = f"out + (y + b) * {target.row}", add
    read, declared, taken = _seen(writer, step.expand, bytes_of(band) // band.bytes)
    body = (
        f"    value *out = net->arena + {writer.begins[target.name] + target.origin};\n"
        + _residual(writer, then)
        + f"    const value *taps = net->weights + {writer.weights[first.name]};\n"
        + SCRATCH
        + f"    value *band = rows + {bytes_of(rows) // rows.bytes};\n"
        + declared
        + (f"    for (int i = 0; i < {band.shape.height}; i++) {{\n{sides}    }}\n" if sides else "")
        + _blocks(target.shape.height // step.rows, step.rows)
        + f"        const int shared = y > first ? {shared} : 0;\n"
        + f"        for (int v = 0; v < shared * {band.row}; v++)\n            band[v] = band[v + {moved}];\n"
        + f"        for (int i = shared; i < {band.shape.height}; i++) {{\n"
        + f"            const int e = y * {first.stride} - {step.above} + i;\n"
        + f"            const value *w = net->weights + {writer.weights[wide.name]};\n"
        + f"            value *to = band + i * {band.row} + {edge};\n"
        + f"            if (e < 0 || e >= {step.height}) {{\n"
        + f"                fill(to, {band.shape.width * band.pitch}, {zero});\n"
        + "                continue;\n            }\n"
        + taken
        + kit.before(wide, read, 12)
        + panels(writer, wide, (read, "to", ""), 12)
        + "        }\n"
        + f"        const value *w = net->weights + {writer.weights[then.name]};\n"
        + f"        for (int b = 0; b < {step.rows}; b++) {{\n"
        + kit.row(writer.use, first, places, None, 12)
        + kit.before(then, "rows", 12)
        + panels(writer, then, ("rows", *written), 12)
        + "        }\n    }\n"
        + _border(kit, target, "first == 0", f"last == {target.shape.height}", "first", "last", "1")
    )
    _step(writer, f"{wide.name}_{first.name}_{then.name}", what, body)


def _seen(writer: Writer, step: Product | Stem, behind: int) -> tuple[str, str, str]:
    """What row e of the expansion reads, as C, the declarations for it, and how it is made there.

    Of the image, rows of levels that became numbers lie `behind` values after the band begins.
    """
    if isinstance(step, Product):
        begin = writer.begins[step.source.name] + step.source.origin
        return f"in + e * {step.source.row}", f"    const value *in = net->arena + {begin};\n", ""
    product, rows = step.product, step.product.source
    kept = f"known ? {product.kernel - product.stride} : 0"
    window = f"e * {product.stride} - {step.above}, {product.kernel}, {kept}, {rows.left}, {rows.right}"
    taken = f"            input_{writer.isa.name}(net, seen, {window});\n            known = 1;\n"
    return "seen", f"    value *seen = band + {behind};\n    int known = 0;\n", taken


def _at_once(product: Product | Inverted) -> str:
    return f"{product.rows} rows at a time" if product.rows > 1 else "row by row"


def _blocks(blocks: int, rows: int) -> str:
    return (
        f"    const int first = SHARE(part, parts, {blocks}) * {rows}, "
        f"last = SHARE(part + 1, parts, {blocks}) * {rows};\n"
        f"    for (int y = first; y < last; y += {rows}) {{\n"
    )


def _filter(writer: Writer, step: Filter) -> None:
    source, target, kit = step.source, step.target, writer.kit
    what = f"{step.name}: {_shape(source)} to {_shape(target)}"
    places = (f"in + y * {step.stride * source.row}", "w", f"out + y * {target.row}")
    head = _pointers(writer, step.name, source, target, step.lead)
    if not small(target):  # whose rows the steps before and after it share out too
        body = head + _blocks(target.shape.height, 1) + kit.row(writer.use, step, places, None, 8) + "    }\n"
        body += _border(kit, target, "first == 0", f"last == {target.shape.height}", "first", "last", "1")
        _step(writer, step.name, what, body)
        return
    units, unit, made, taps = kit.share(step)
    body = (
        head
        + f"    const int first = SHARE(part, parts, {units}), last = SHARE(part + 1, parts, {units});\n"
        + f"    in += first * {unit};\n    out += first * {made};\n    w += first * {taps};\n"
        + f"    for (int y = 0; y < {target.shape.height}; y++) {{\n"
        + kit.row(writer.use, step, places, ("first", "last"), 8)
        + "    }\n"
        + _border(kit, target, "part == 0", "part == 0", "0", str(target.shape.height), "part == 0")
    )
    _step(writer, step.name, f"{what}, channels shared out", body)


def _mean(writer: Writer, step: Mean) -> None:
    source, target = step.source, step.target
    body = f"""\
    const value *in = net->arena + {writer.begins[source.name] + source.origin};
    value *out = net->arena + {writer.begins[target.name] + target.origin};
{writer.kit.mean(step)}"""
    _step(writer, step.name, f"{step.name}: the mean of {_shape(source)}", body)


def _scores(writer: Writer, step: Scores) -> None:
    source, target = step.source, step.target
    body = _pointers(writer, step.name, source, target, 0) + writer.kit.scores(step)
    _step(writer, step.name, f"{step.name}: {_shape(source)} to {_shape(target)} in floats", body)


def _pixelwise(writer: Writer, step: Pixelwise) -> None:
    """Row by row, which threads share out."""
    target, kit, sources = step.target, writer.kit, reads(step)
    names = [f"in{index}" for index in range(len(sources))]
    pointers = "".join(
        f"    const value *{name} = net->arena + {writer.begins[one.name] + one.origin};\n"
        for name, one in zip(names, sources, strict=True)
    )
    body = (
        pointers
        + f"    value *out = net->arena + {writer.begins[target.name] + target.origin};\n"
        + f"    const int first = SHARE(part, parts, {target.shape.height}), "
        + f"last = SHARE(part + 1, parts, {target.shape.height});\n"
        + "    for (int y = first; y < last; y++) {\n"
        + indent(_moved(step, names) if isinstance(step, Moved) else kit.line(step, names), 8 * " ")
        + "    }\n"
        + _border(kit, target, "first == 0", f"last == {target.shape.height}", "first", "last", "1")
    )
    listed = ", ".join(_shape(one) for one in sources)
    _step(writer, step.name, f"{step.name}: {type(step).__name__.lower()} of {listed}", body)


def _moved(step: Moved, names: Sequence[str]) -> str:
    """A row of pixels whose channels go to other places."""
    op, target, text, at = step.op, step.target, "", 0
    for name, one in zip(names, step.sources, strict=True):
        text += f"    const value *from_{name} = {name} + y * {one.row} + x * {one.pitch};\n"
        count = target.shape.channels if isinstance(op, Slice) else one.shape.channels
        as_it_lies = "{}" if one.signed == target.signed else "(value)({} ^ 128)"
        if isinstance(op, Shuffle):
            each = count // op.groups
            dealt = "".join(
                f"        to[c * {op.groups} + {i}] = {as_it_lies.format(f'from_{name}[c + {i * each}]')};\n"
                for i in range(op.groups)
            )
            text += f"    for (int c = 0; c < {each}; c++) {{\n{dealt}    }}\n"
            continue
        taken = as_it_lies.format(f"from_{name}[{op.begin if isinstance(op, Slice) else 0} + c]")
        text += f"    for (int c = 0; c < {count}; c++)\n        to[{at} + c] = {taken};\n"
        at += count
    return f"""\
for (int x = 0; x < {target.shape.width}; x++) {{
    value *to = out + y * {target.row} + x * {target.pitch};
{text}}}
"""


def _written(step: Product) -> tuple[str, str]:
    """Where a block of rows is written to, and where what is added to it lies."""
    residual = "" if step.residual is None else f"add + y * {step.residual.row}"
    return f"out + y * {step.target.row}", residual


def _residual(writer: Writer, step: Product) -> str:
    if step.residual is None:
        return ""
    at = writer.begins[step.residual.name] + step.residual.origin
    return f"    const value *add = net->arena + {at};\n"


def _border(kit: Kernels, made: Map, top: str, bottom: str, first: str, last: str, sides: str) -> str:
    """What stands for 0 around what was made, written anew each time: other maps have lain there since."""
    text, zero = "", kit.zero(made)
    start = f"out - {made.origin}"
    if made.top:
        text += f"    if ({top})\n        fill({start}, {made.top * made.row}, {zero});\n"
    if made.bottom:
        at = made.shape.height * made.row - made.left * made.pitch
        text += f"    if ({bottom})\n        fill(out + {at}, {made.bottom * made.row}, {zero});\n"
    if made.left or made.right:
        inner = ""
        if made.left:
            at = made.left * made.pitch
            inner += f"            fill(out + y * {made.row} - {at}, {at}, {zero});\n"
        if made.right:
            at = made.shape.width * made.pitch
            inner += f"            fill(out + y * {made.row} + {at}, {made.right * made.pitch}, {zero});\n"
        inner = inner.replace("            ", "        ") if sides == "1" else inner
        loop = f"for (int y = {first}; y < {last}; y++) {{\n{inner}"
        text += f"    {loop}    }}\n" if sides == "1" else f"    if ({sides})\n        {loop}        }}\n"
    return text


def _pointers(writer: Writer, name: str, source: Map, target: Map, lead: int) -> str:
    return (
        f"    const value *in = net->arena + {writer.begins[source.name] + source.origin - lead};\n"
        f"    const value *w = net->weights + {writer.weights[name]};\n"
        f"    value *out = net->arena + {writer.begins[target.name] + target.origin};\n"
    )


def _shape(made: Map) -> str:
    return "×".join(map(str, made.shape))


def _c(name: str) -> str:
    return name.replace(".", "_")
