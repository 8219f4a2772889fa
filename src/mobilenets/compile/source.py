"""From a model to its C: the passes, in the order in which they run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from mobilenets.compile import emit, integers, isa, plan
from mobilenets.compile.float32 import Floats
from mobilenets.compile.int8 import Bytes
from mobilenets.compile.pack import Packed, Weighted, floats, layers_of, pack
from mobilenets.compile.part import arena_bytes
from mobilenets.compile.step import Map, Product, Scores, Step, maps_of, padded
from mobilenets.infer.artefact import Artefact, digest
from mobilenets.infer.compiled import FORMAT
from mobilenets.infer.fold import fold, ungrouped
from mobilenets.infer.integer import image_zero
from mobilenets.infer.taught import is_taught
from mobilenets.spec.codec import net_to_json, preprocess_to_json
from mobilenets.spec.net import shapes
from mobilenets.spec.op import Shape

MOST_THREADS = 64
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Source:
    """A compiled model as text and bytes; its files are `name`.c, .h, .weights and an example."""

    name: str
    code: str
    header: str
    example: tuple[str, str]
    harness: tuple[str, str]
    """A file's name and text: what shows the use of it, what verifies it where no library can be loaded."""
    glue: tuple[tuple[str, str], ...]
    """C files that a library has beside the network's, by name: entry points of another language."""
    weights: bytes
    outputs: Mapping[str, tuple[int, ...]]
    """The shape of each."""
    threads: int
    """The most it can be given."""
    maps_bytes: int
    scratch_bytes: int
    text_bytes: int
    """Of the names of classes."""
    arena_bytes: int
    """Of an arena for one frame of the input's size, where pointers have 32 bits."""
    exact: bool = False
    """Whether its results are defined bit for bit: no two operations may be rounded as one."""


@dataclass(frozen=True, slots=True)
class Passes:
    """What the passes found: steps, places, packed weights, and the text of each instruction set."""

    image: Map
    program: tuple[Step, ...]
    spans: tuple[plan.Span, ...]
    packed: Packed
    sections: tuple[str, ...]
    sums_bytes: int = 0


def compiled(
    model: Artefact, name: str, family: isa.Family, *, threads: bool = True, lean: bool = False
) -> Source:
    """The C of a model; `lean` C tells nothing of it, and its layers share the code of large kernels.

    Raises ValueError that names what cannot be compiled, before anything is written.
    """
    threads = threads and bool(family.threads)
    if not NAME.fullmatch(name) or name == "main":  # the example's
        told = f"{name[:80]!r} is no name for a C library"
        raise ValueError(f"{told}: up to 63 small letters, digits and _, a letter first, and not main")
    if lean:
        family = replace(family, isas=tuple(replace(one, spare=True) for one in family.isas))
    return _written(model, passes(model, family), name, family, threads, lean)


def passes(model: Artefact, family: isa.Family) -> Passes:
    """The steps of a model, where everything lies, and its code. Raises ValueError as `compiled` does."""
    return _in_bytes(model, family) if model.scales else _in_floats(model, family)


def _in_floats(model: Artefact, family: isa.Family) -> Passes:
    net, weights = ungrouped(*fold(model.net, model.weights))
    image, program, spans = plan.planned(net, family)

    def laid_out(layer: Weighted) -> NDArray[np.float32]:
        return floats(layer, weights, family.room(layer.target.shape.channels), family.panel)

    packed = pack(program, laid_out)
    weights_at = {name: begin // 4 for name, begin in packed.begins.items()}
    maps_at = {name: begin // 4 for name, begin in plan.begins(spans).items()}
    sections = [
        _enabled(one, _rows(one) + emit.section(program, family, Floats(one, family), weights_at, maps_at))
        for one in family.isas
    ]
    return Passes(image, program, spans, packed, tuple(sections))


def _in_bytes(model: Artefact, family: isa.Family) -> Passes:
    layout = family.layout
    net, weights = ungrouped(model.net, model.weights)
    known = integers.layers(net, weights, model.scales, model.preprocess, 128 * family.signed)
    in_floats = [node.name for node in net.nodes if node.name not in model.scales]
    for name in in_floats:
        if (made := shapes(net)[name])[:2] != (1, 1):
            raise ValueError(
                f"{name}: a map {tuple(made)} of float32 in a network of bytes cannot be compiled"
            )
    taught = [node.name for node in net.nodes if is_taught(node, weights)]
    image, program, spans = plan.planned(net, family, in_floats, taught)

    def laid_out(layer: Weighted) -> NDArray[np.uint8]:
        if isinstance(layer, Scores):
            room = padded(layer.target.shape.channels, family.lanes)
            return floats(layer, weights, room, family.panel).view(np.uint8)
        own = known[layer.name]
        if isinstance(layer, Product):
            return integers.panels(layer, own, family.lanes, family.panel, family.singles)
        room = layout.pitch(layer.source.shape.channels)
        return integers.taps(layer, own, room, family)

    packed = pack(program, laid_out)
    sections = [
        _enabled(
            one,
            _rows(one)
            + emit.section(program, family, Bytes(one, family, known), packed.begins, plan.begins(spans)),
        )
        for one in family.isas
    ]
    products = [layer for step in program for layer in layers_of(step) if isinstance(layer, Product)]
    return Passes(image, program, spans, packed, tuple(sections), integers.sums_bytes(products, known))


def _written(
    model: Artefact, made: Passes, name: str, family: isa.Family, threads: bool, lean: bool
) -> Source:
    net, image, program, spans, packed = model.net, made.image, made.program, made.spans, made.packed
    maps = {one.name: one for one in maps_of(image, program)}
    stamp = hashlib.sha256(packed.values).hexdigest()
    rows_bytes = plan.scratch_bytes(program)
    sizes = (plan.maps_bytes(spans), rows_bytes + padded(made.sums_bytes, plan.LINE))
    arena = arena_bytes(model.preprocess, sum(sizes), integers=bool(model.scales))
    values = {
        "name": name,
        "NAME": name.upper(),
        "Name": "".join(part.capitalize() for part in name.split("_")),
        "abi": family.abi,
        "arena_bytes": arena,
        "most_values": max(maps[output.node].shape.elements for output in net.outputs),
        "about": _told(model),
        "digest": digest(model),
        "width": model.preprocess.width,
        "height": model.preprocess.height,
        "weight_bytes": len(packed.values) + len(stamp),
        "stamp": stamp,
        "outputs": len(net.outputs),
        "labels": len(model.labels),
        "isas": ", ".join(one.name for one in family.isas),
        "threads": MOST_THREADS if threads else 1,
        "libraries": " -lpthread" if threads else "",
        "shared": str(threads).lower(),
        "mean": ", ".join(f"{v!r}f" for v in model.preprocess.mean),
        "std": ", ".join(f"{v!r}f" for v in model.preprocess.std),
        "zero": ", ".join(map(str, image_zero(model.preprocess) if model.scales else (0, 0, 0))),
    }
    places = plan.begins(spans)
    code = "\n".join(
        (
            _settings(model, image, program, places, (*sizes, rows_bytes), family, values, threads),
            *(_text(file) for file in family.stand_ins),
            _text("runtime.c"),
            *((_text("bytes.c"),) if model.scales else ()),
            *(_filled(_text(file), values) for file in family.threads if threads),
            _filled(_text("frame.c"), values),
            *(
                (_text(family.asking),)
                if family.asking
                else ("static int features(void)\n{\n    return 0;\n}\n",)
            ),
            *made.sections,
            _tables(model, maps, places, family, lean),
            _filled(_text("api.c"), values),
        )
    )
    return Source(
        name=name,
        code=code,
        header=_filled(_text("api.h"), values),
        example=_file(family.example, values),
        harness=_file(family.harness, values),
        glue=tuple(_file(one, values) for one in family.glue),
        weights=packed.values + stamp.encode(),
        outputs={output.name: _ends(maps[output.node])[0] for output in net.outputs},
        threads=MOST_THREADS if threads else 1,
        maps_bytes=sizes[0],
        scratch_bytes=sizes[1],
        text_bytes=sum(len(label.encode("utf-8", "surrogateescape")) + 1 for label in model.labels),
        arena_bytes=arena,
        exact=bool(model.scales),
    )


def _settings(
    model: Artefact,
    image: Map,
    program: Sequence[Step],
    places: Mapping[str, int],
    sizes: tuple[int, int, int],
    family: isa.Family,
    values: Mapping[str, object],
    threads: bool,
) -> str:
    pre, geometry = model.preprocess, {"stretch": 0, "crop": 1, "letterbox": 2}
    name = values["name"]
    defined = {
        "INPUT_WIDTH": pre.width,
        "INPUT_HEIGHT": pre.height,
        "CROP": 1,
        "LETTERBOX": 2,
        "GEOMETRY": geometry[pre.geometry],
        "FRACTION": repr(pre.fraction),
        "FILL": pre.fill,
        "INTEGER": int(bool(model.scales)),
        "VECTORS": int(family.lanes > 1),
        "IMAGE": places["image"],
        "MAPS_BYTES": f"(size_t){sizes[0]}",
        "SCRATCH_BYTES": f"(size_t){sizes[1]}",
        "SUMS": sizes[2],
        "STEPS": len(program),
        "THREADS": int(threads),
        "MOST_THREADS": values["threads"],
    }
    return "\n".join(
        (
            f"/* {values['about']}\n * Digest {values['digest']}. Written by mobilenets; see {name}.h. */",
            f'#include "{name}.h"',
            *(f"#include <{included}>" for included in family.includes),
            *(f"#define {key} {value}" for key, value in defined.items()),
            f"typedef {'uint8_t' if model.scales else 'float'} value;",
            _filled(_text("linked.c"), values),
        )
    )


def _rows(one: isa.Isa) -> str:
    """What takes frames, for one instruction set."""
    values = {"isa": one.name, "quads": int(one.quads), "divides": int(one.lanes >= 8)}
    return _filled(_text("rows.c"), values) + "\n"


def _enabled(one: isa.Isa, text: str) -> str:
    """A section in which the compiler may use an instruction set that not every processor has."""
    if not one.enabled:
        return text
    return (
        "#if defined(__clang__)\n"
        f'#pragma clang attribute push(__attribute__((target("{one.enabled}"))), apply_to = function)\n'
        "#else\n#pragma GCC push_options\n"
        f'#pragma GCC target("{one.enabled}")\n#endif\n{text}'
        "#if defined(__clang__)\n#pragma clang attribute pop\n#else\n#pragma GCC pop_options\n#endif\n"
    )


def _tables(
    model: Artefact, maps: Mapping[str, Map], begins: Mapping[str, int], family: isa.Family, lean: bool
) -> str:
    rows, places = [], []
    for output in model.net.outputs:
        made, scale = maps[output.node], model.scales.get(output.node)
        dtype = "uint8" if scale else "float32"
        meant = f"{np.float32(scale.step)}f, {scale.zero}" if scale else "1.0f, 0"
        shape, stride = _ends(made)
        kind = f'"{dtype}", {len(shape)}, {_four(shape)}, {meant}, {_four(stride)}'
        rows.append(f"    {{{_quoted(output.name)}, {kind}}},")
        places.append(str(begins[output.node] + made.origin * made.bytes))
    functions = ("take_frame", "steps")
    isas = "".join(
        f'    {{"{one.name}", {one.asked}, {", ".join(f"{name}_{one.name}" for name in functions)}}},\n'
        for one in family.isas
    )
    about = {
        "format": FORMAT,
        "net": net_to_json(model.net),
        "labels": len(model.labels),
        "threshold": model.threshold,
        "preprocess": preprocess_to_json(model.preprocess),
        "source": dict(model.source),
        "scores": dict(model.scores),
        "digest": digest(model),
        "dtype": model.dtype,
        "outputs": len(model.net.outputs),
        "isas": [one.name for one in family.isas],
    }
    begins_at, at = [], 0
    for label in model.labels:
        begins_at.append(at)
        at += len(label.encode("utf-8", "surrogateescape")) + 1
    listed = "\n".join(f'    {_quoted(label)[:-1]}\\0"' for label in model.labels) or '    ""'
    name_rows = "\n".join(rows)
    return f"""\
/* Instruction sets, best first. */
static const struct isa isas[] = {{
{isas}}};

static const struct OUTPUT outputs[] = {{
{name_rows}
}};
static const size_t places[] = {{{", ".join(places)}}};
/* One after the other, each with a 0 behind it. */
static const char labels[] =
{listed};
static const uint32_t label_at[] = {{{", ".join(map(str, begins_at)) or 0}}};
static const char about[] =
{_long(json.dumps({"isas": about["isas"]} if lean else about))};
"""


def _flat(shape: Shape) -> tuple[int, ...]:
    """The shape of a map as an output: a vector where it is one pixel."""
    return (shape.channels,) if shape[:2] == (1, 1) else tuple(shape)


def _ends(made: Map) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape of an output, and how many values lie from one to the next along each side of it."""
    shape = _flat(made.shape)
    return shape, (made.row, made.pitch, 1)[-len(shape) :]


def _four(sides: tuple[int, ...]) -> str:
    return f"{{{', '.join(map(str, (*sides, *(1,) * (4 - len(sides)))))}}}"


def _told(model: Artefact) -> str:
    net = model.net
    known = shapes(net)
    told = ((output.name, "×".join(map(str, _flat(known[output.node])))) for output in net.outputs)
    ends = ", ".join(f"{name} [{sides}]" for name, sides in told)
    return f"MobileNet {net.name} {net.width:g} at {net.input.width}×{net.input.height}: {ends}"


def _quoted(text: str) -> str:
    """A C string of UTF-8 bytes; what is not plain is written in octal, which no next digit can lengthen."""
    made = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}"
        for byte in text.encode("utf-8", "surrogateescape")
    )
    return f'"{made}"'


def _long(text: str, width: int = 90) -> str:
    return "\n".join(f"    {_quoted(text[i : i + width])}" for i in range(0, len(text), width))


def _text(file: str) -> str:
    return files("mobilenets.compile").joinpath(file).read_text(encoding="utf-8")


def _file(named: tuple[str, str], values: Mapping[str, object]) -> tuple[str, str]:
    template, name = named
    return _filled(name, values), _filled(_text(template), values)


def _filled(text: str, values: Mapping[str, object]) -> str:
    return re.sub(r"@(\w+)@", lambda found: str(values[found[1]]), text)
