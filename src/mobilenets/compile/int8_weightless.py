"""Kernels of bytes that have no weights as C text: sums, gates, windows and means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import indent

import numpy as np

from mobilenets.compile.int8_lanes import tag_of
from mobilenets.compile.int8_quantities import ending, seen, wide
from mobilenets.compile.integers import Layer
from mobilenets.compile.isa import Family, Isa
from mobilenets.compile.kernel import inside_window
from mobilenets.compile.step import Gate, Map, Mean, Sum, Window, padded
from mobilenets.infer.integer import fixed, inside
from mobilenets.spec.op import MeanPool

PAD = "    "


@dataclass(frozen=True, slots=True)
class Stretch:
    """Channels of each pixel from `begin` to before `end`: `vectors` vectors of `lanes` of them at a time."""

    tag: str
    lanes: int
    vectors: int
    begin: int
    end: int

    def loop(self, body: str) -> str:
        """`body` for each `v`, the first channel of a turn."""
        size = self.lanes * self.vectors
        return f"for (int v = {self.begin}; v < {self.end}; v += {size}) {{\n{indent(body, PAD)}}}\n"

    def at(self, place: str, j: int) -> str:
        """Where vector `j` of a turn lies in the pixel at `place`."""
        return f"{place} + v" + (f" + {j * self.lanes}" if j else "")


@dataclass(frozen=True, slots=True)
class Weightless:
    """What steps without weights do, on one instruction set."""

    isa: Isa
    family: Family
    layers: Mapping[str, Layer]

    def line(self, step: Sum | Gate | Window, names: Sequence[str]) -> str:
        """The row `y` of a step."""
        match step:
            case Sum():
                return self._sum(step, names)
            case Gate():
                return self._gate(step, *names)
            case Window(op=MeanPool() as op):
                return self._means(step, op, names[0])
            case Window():
                return self._greatest(step, names[0])

    def _sum(self, step: Sum, names: Sequence[str]) -> str:
        layer, text = self.layers[step.name], ""
        multiplier = layer.rescale.multiplier
        # Of one map alone there is a multiplier for each channel, all alike.
        weights, shift = fixed(multiplier) if len(names) > 1 else (None, 0)
        given = list(zip(names, step.sources, layer.inputs, strict=True))
        for stretch in self._stretches(step.target):
            tag, numbers = stretch.tag, []
            for j in range(stretch.vectors):
                taken = [
                    self._quantity(stretch, j, one, zero, _pixel(name, one)) for name, one, (_, zero) in given
                ]
                if weights is None:
                    numbers.append(f"SCALED_{tag}({taken[0]}, {float(multiplier[0])!r}f)")
                    continue
                whole = " + ".join(f"({one}) * {by}" for one, by in zip(taken, weights, strict=True))
                numbers.append(f"SCALED_{tag}(({whole} + {1 << (shift - 1)}) >> {shift}, 1.0f)")
            text += stretch.loop(self._stored(step.name, step.target, stretch, numbers))
        return _row(step.target, text)

    def _gate(self, step: Gate, name: str, gate: str) -> str:
        layer, text = self.layers[step.name], ""
        (_, zero), (_, gate_zero) = layer.inputs
        by = f"{float(layer.rescale.multiplier[0])!r}f"
        for stretch in self._stretches(step.target):
            columns = range(stretch.vectors)
            gates = "".join(
                f"const floats_{stretch.tag} g{j} = "
                f"{self._number(stretch, j, step.gate, gate_zero, gate, '1.0f')};\n"
                for j in columns
            )
            at = _pixel(name, step.source)
            numbers = [f"{self._number(stretch, j, step.source, zero, at, f'g{j}')} * {by}" for j in columns]
            made = self._stored(step.name, step.target, stretch, numbers)
            text += stretch.loop(f"{gates}{_row(step.target, made)}")
        return text

    def _means(self, step: Window, op: MeanPool, name: str) -> str:
        """Means of what of each window lies inside the map; a multiplier for each number of places."""
        layer, source, text = self.layers[step.name], step.source, ""
        zero, at = seen(layer.inputs[0][1], source), _pixel(name, source, "i", "j")
        many = np.rint(inside(op, source.shape)).astype(int).ravel().tolist()
        by = dict(zip(many, layer.rescale.multiplier.ravel().tolist(), strict=True))
        listed = ", ".join(f"{by.get(count, 0.0)!r}f" for count in range(op.kernel**2 + 1))
        for stretch in self._stretches(step.target):
            tag, columns = stretch.tag, range(stretch.vectors)
            more = "".join(f"        s{k} += {wide(source, tag, stretch.at(at, k))};\n" for k in columns)
            numbers = [f"SCALED_{tag}(s{k} - many * {zero}, multipliers[many])" for k in columns]
            text += stretch.loop(
                f"""\
sums_{tag} {", ".join(f"s{k} = {{0}}" for k in columns)};
for (int i = top; i < bottom; i++)
    for (int j = left; j < right; j++) {{
{more}    }}
{self._stored(step.name, step.target, stretch, numbers)}"""
            )
        before = f"""\
{inside_window(step)}static const float multipliers[] = {{{listed}}};
const int many = (bottom - top) * (right - left);
"""
        return _row(step.target, before + text)

    def _greatest(self, step: Window, name: str) -> str:
        """Greatest bytes, a vector of them at a time; the last eight of a pixel are half of one."""
        source, target, text = step.source, step.target, ""
        first, other = _pixel(name, source, "top", "left"), _pixel(name, source, "i", "j")
        turned, back = " ^ 128" * source.signed, " ^ 128" * target.signed
        for tag, size, begin, end in self._by_bytes(target.shape.channels):
            kind, read, greater = f"bytes_{tag}", f"BYTES_{tag}", f"GREATER_{tag}(s, b)"
            to, made = f"*(loose_bytes_{tag} *)", "s"
            if self.isa.lanes == 1:
                kind, read, greater, to = "value", "*", "s > b ? s : b", "*"
            elif size == 8:
                to, made = f"*(loose_half_{tag} *)", f"((const near_half_{tag} *)&s)[0]"
            text += Stretch(tag, size, 1, begin, end).loop(
                f"""\
{kind} s = {read}({first} + v){turned};
for (int i = top; i < bottom; i++)
    for (int j = left; j < right; j++) {{
        const {kind} b = {read}({other} + v){turned};
        s = {greater};
    }}
{to}({_pixel("out", target)} + v) = {made}{back};
"""
            )
        return _row(target, inside_window(step) + text)

    def _by_bytes(self, channels: int) -> list[tuple[str, int, int, int]]:
        """Tags of vectors of bytes, their size, and the channels that they take."""
        lanes = self.isa.lanes
        if lanes == 1 or self.isa.wide:
            return [(tag_of(self.isa, 4 * lanes), lanes, 0, padded(channels, lanes))]
        found, at, end = [], 0, padded(channels, 8)
        for size in (64, 32, 16, 8):
            if size <= 4 * lanes and end - at >= size:
                last = at + (end - at) // size * size
                found.append((tag_of(self.isa, max(size, 16)), size, at, last))
                at = last
        return found

    def _stretches(self, target: Map) -> list[Stretch]:
        """The channels of a pixel: four vectors at a time, then one, down to multiples of eight."""
        isa, channels = self.isa, target.shape.channels
        if isa.wide or isa.lanes == 1:
            return [Stretch(tag_of(isa, 4 * isa.lanes), isa.lanes, 1, 0, padded(channels, isa.lanes))]
        found, at, end = [], 0, padded(channels, 8)
        for lanes, vectors in ((16, 4), (8, 4), (16, 1), (4, 4), (8, 1), (4, 1)):
            size = lanes * vectors
            if lanes <= isa.lanes and end - at >= size:
                last = at + (end - at) // size * size
                found.append(Stretch(tag_of(isa, 4 * lanes), lanes, vectors, at, last))
                at = last
        return found

    def _number(self, stretch: Stretch, j: int, one: Map, zero: int, at: str, by: str) -> str:
        """Vector `j` of a turn of a map's pixel less its zero, times what it is worth."""
        return f"SCALED_{stretch.tag}({self._quantity(stretch, j, one, zero, at)}, {by})"

    @staticmethod
    def _quantity(stretch: Stretch, j: int, one: Map, zero: int, at: str) -> str:
        """Vector `j` of a turn of a map's pixel less its zero."""
        taken = wide(one, stretch.tag, stretch.at(at, j))
        return taken + (f" - {seen(zero, one)}" if seen(zero, one) else "")

    def _stored(self, name: str, target: Map, stretch: Stretch, numbers: Sequence[str]) -> str:
        """Numbers of a turn as bytes, or in float32 as they are."""
        layer, tag = self.layers[name], stretch.tag
        if layer.rescale.zero is None:
            at = f"out + 4 * (y * {target.row} + x * {target.pitch} + v)"
            return "".join(
                f"PUT_FLOATS_{tag}({at} + {4 * j * stretch.lanes}, {one});\n" for j, one in enumerate(numbers)
            )
        text = f"const struct ending end = {ending(layer, target, self.isa)};\n"
        for j, one in enumerate(numbers):
            text += f"const sums_{tag} q{j} = whole_{tag}({one}, end);\n"
        return text + self._put(stretch, stretch.at(_pixel("out", target), 0))

    def _put(self, stretch: Stretch, at: str) -> str:
        """Quantities q0 … of a turn as bytes."""
        tag = stretch.tag
        if stretch.lanes == 1 or self.isa.wide:
            return f"PUT_{tag}({at}, q0);\n"
        if stretch.vectors == 4:
            return f"put_{tag}({at}, pack_{tag}(q0, q1, q2, q3, end));\n"
        return f"put1_{tag}({at}, pack_{tag}(q0, q0, q0, q0, end));\n"

    def mean(self, step: Mean) -> str:
        """The body of a mean over a map, from `in` to `out`."""
        source, target, lanes, layer = step.source, step.target, self.isa.lanes, self.layers[step.name]
        (height, width, channels), tag = source.shape, tag_of(self.isa, 4 * lanes)
        vectors, off = -(-channels // lanes), height * width * seen(layer.inputs[0][1], source)
        number = f"SCALED_{tag}(sum - {off}, {float(layer.rescale.multiplier[0])!r}f)"
        if layer.rescale.zero is None:
            made = f"PUT_FLOATS_{tag}(out + v * {4 * lanes}, {number});\n"
        else:
            made = f"const struct ending end = {ending(layer, target, self.isa)};\n"
            made += f"const sums_{tag} q0 = whole_{tag}({number}, end);\n"
            made += self._put(Stretch(tag, lanes, 1, 0, channels), f"out + v * {lanes}")
        return f"""\
    for (int v = SHARE(part, parts, {vectors}); v < SHARE(part + 1, parts, {vectors}); v++) {{
        sums_{tag} sum = {{0}};
        UNROLL_1
        for (int y = 0; y < {height}; y++)
            UNROLL_1
            for (int x = 0; x < {width}; x++)
                sum += {wide(source, tag, f"in + y * {source.row} + x * {source.pitch} + v * {lanes}")};
{indent(made, 2 * PAD)}    }}
"""


def _row(target: Map, body: str) -> str:
    """`body` for each pixel `x` of a row."""
    return f"for (int x = 0; x < {target.shape.width}; x++) {{\n{indent(body, PAD)}}}\n"


def _pixel(name: str, one: Map, y: str = "y", x: str = "x") -> str:
    return f"{name} + {y} * {one.row} + {x} * {one.pitch}"
