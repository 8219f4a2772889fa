"""From a model to its C: the passes, in the order in which they run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from mobilenets.compile import emit, isa, plan
from mobilenets.compile.pack import pack
from mobilenets.compile.step import Map, Step, maps_of, steps
from mobilenets.infer.artefact import Artefact, digest
from mobilenets.infer.fold import fold
from mobilenets.spec.codec import net_to_json, preprocess_to_json
from mobilenets.spec.net import shapes
from mobilenets.spec.preprocess import Preprocess

MOST_THREADS = 64
SCRATCH_BYTES = 256 << 10
"""What rows between a depthwise layer and its pointwise may take of the second cache."""
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
    weights: bytes
    outputs: Mapping[str, int]
    """How many values each has."""
    threads: int
    """The most it can be given."""
    maps_bytes: int
    scratch_bytes: int


def compiled(model: Artefact, name: str, family: isa.Family = isa.X86, *, threads: bool = True) -> Source:
    """The C of a model. Raises ValueError that names what cannot be compiled, before anything is written."""
    threads = threads and bool(family.threads)
    most_threads = MOST_THREADS if threads else 1
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a C library: small letters, digits and _, a letter first")
    net, weights = fold(model.net, model.weights)
    image, program = steps(net, family.lanes, SCRATCH_BYTES)
    kept = [output.node for output in net.outputs]
    spans = plan.spans(image, program, kept)
    packed = pack(program, weights, family.lanes, family.panel)
    sections = [
        _enabled(one, emit.section(program, one, family, packed, plan.begins(spans))) for one in family.isas
    ]
    maps = {made.name: made for made in maps_of(image, program)}
    for output in net.outputs:
        if maps[output.node].shape[:2] != (1, 1):
            raise ValueError(
                f"output {output.name!r} is a map of {maps[output.node].shape}; vectors can be compiled"
            )
    values = {
        "name": name,
        "NAME": name.upper(),
        "about": _told(model),
        "digest": digest(model),
        "width": model.preprocess.width,
        "height": model.preprocess.height,
        "weight_bytes": packed.values.nbytes,
        "outputs": len(net.outputs),
        "labels": len(model.labels),
        "isas": ", ".join(one.name for one in family.isas),
        "threads": most_threads,
        "libraries": " -lpthread" if threads else "",
        "shared": str(threads).lower(),
        "mean": ", ".join(f"{v!r}f" for v in model.preprocess.mean),
        "std": ", ".join(f"{v!r}f" for v in model.preprocess.std),
    }
    sizes = (plan.maps_bytes(spans), plan.scratch_bytes(program))
    code = "\n".join(
        (
            _settings(model.preprocess, image, program, plan.begins(spans), sizes, family, values, threads),
            *(_text(file) for file in family.library),
            _text("runtime.c"),
            *(_filled(_text(file), values) for file in family.threads if threads),
            _text("frame.c"),
            *(
                (_text(family.asking),)
                if family.asking
                else ("static int features(void)\n{\n    return 0;\n}\n",)
            ),
            *sections,
            _tables(model, maps, plan.begins(spans), family),
            _image(image, plan.begins(spans)),
            _filled(_text("api.c"), values),
        )
    )
    return Source(
        name=name,
        code=code,
        header=_filled(_text("api.h"), values),
        example=_file(family.example, values),
        harness=_file(family.harness, values),
        weights=packed.values.tobytes(),
        outputs={output.name: maps[output.node].shape.channels for output in net.outputs},
        threads=most_threads,
        maps_bytes=sizes[0],
        scratch_bytes=sizes[1],
    )


def _settings(
    pre: Preprocess,
    image: Map,
    program: Sequence[Step],
    begins: Mapping[str, int],
    sizes: tuple[int, int],
    family: isa.Family,
    values: Mapping[str, object],
    threads: bool,
) -> str:
    geometry = {"stretch": 0, "crop": 1, "letterbox": 2}
    name = values["name"]
    defined = {
        "INPUT_WIDTH": pre.width,
        "INPUT_HEIGHT": pre.height,
        "CROP": 1,
        "LETTERBOX": 2,
        "GEOMETRY": geometry[pre.geometry],
        "FRACTION": repr(pre.fraction),
        "FILL": pre.fill,
        "IMAGE": begins["image"] + image.origin,
        "IMAGE_ROW": image.row,
        "MAPS_BYTES": f"(size_t){sizes[0]}",
        "SCRATCH_BYTES": f"(size_t){sizes[1]}",
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
            _filled(_text("linked.c"), values),
        )
    )


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


def _tables(model: Artefact, maps: Mapping[str, Map], begins: Mapping[str, int], family: isa.Family) -> str:
    rows, places = [], []
    for output in model.net.outputs:
        made = maps[output.node]
        rows.append(
            f'    {{{_quoted(output.name)}, "float32", 1, {{{made.shape.channels}, 1, 1, 1}}, 1.0f, 0}},'
        )
        places.append(str(begins[output.node] + made.origin))
    isas = "".join(f'    {{"{one.name}", {one.asked}, steps_{one.name}}},\n' for one in family.isas)
    about = {
        "net": net_to_json(model.net),
        "labels": len(model.labels),
        "threshold": model.threshold,
        "preprocess": preprocess_to_json(model.preprocess),
        "source": dict(model.source),
        "scores": dict(model.scores),
        "digest": digest(model),
        "dtype": "float32",
        "outputs": len(model.net.outputs),
        "isas": [one.name for one in family.isas],
    }
    listed = "".join(f"    {_quoted(label)},\n" for label in model.labels) or "    0,\n"
    name_rows = "\n".join(rows)
    return f"""\
/* Instruction sets, best first, and what of a processor each takes. */
static const struct isa {{
    const char *name;
    int takes;
    const step_function *steps;
}} isas[] = {{
{isas}}};

static const struct OUTPUT outputs[] = {{
{name_rows}
}};
static const size_t places[] = {{{", ".join(places)}}};
static const char *const labels[] = {{
{listed}}};
static const char about[] =
{_long(json.dumps(about))};
"""


def _image(image: Map, begins: Mapping[str, int]) -> str:
    """Zeros around the image."""
    start, row = begins["image"], image.row
    height = image.top + image.shape.height
    text = ""
    if image.top:
        text += f"    clear(net->arena + {start}, {image.top * row});\n"
    if image.bottom:
        text += f"    clear(net->arena + {start + height * row}, {image.bottom * row});\n"
    for at, floats in ((0, image.left * 3), ((image.left + image.shape.width) * 3, image.right * 3)):
        if floats:
            text += (
                f"    for (int y = 0; y < {image.shape.height}; y++)\n"
                f"        clear(net->arena + {start + image.top * row + at} + y * {row}, {floats});\n"
            )
    return f"static void border_of_image(struct state *net)\n{{\n{text or '    (void)net;'}}}\n"


def _told(model: Artefact) -> str:
    net = model.net
    known = shapes(net)
    ends = ", ".join(f"{o.name} [{known[o.node].channels}]" for o in net.outputs)
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
