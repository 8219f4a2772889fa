"""What becomes of sums, as C text: scaled, bent, added to a map, cut, rounded and laid down as bytes."""

from __future__ import annotations

from collections.abc import Mapping

from mobilenets.compile.integers import Layer
from mobilenets.compile.isa import Isa
from mobilenets.compile.kernel import Tiling
from mobilenets.compile.step import Map, Product
from mobilenets.infer.integer import fixed

CURVES = {None: 0, "hswish": 1, "hsigmoid": 2}
BENT = """\
static INLINE floats_{tag} cut_{tag}(floats_{tag} v, float least, float most)
{{
    const floats_{tag} none = {{0}}, low = none + least, high = none + most;
    v = {largest};
    v = {smallest};
    return v;
}}

/* A curve of real values, in quantities */
static INLINE floats_{tag} bent_{tag}(floats_{tag} v, int curve, float slope)
{{
    if (!curve)
        return v;
    floats_{tag} t = cut_{tag}(v + 3.0f, 0.0f, 6.0f);
    if (curve == 1)
        t *= v;
    return t * slope;
}}

/* A product, rounded in its own quantities by adding 1.5 · 2^23, whose last bit weighs 1, and a map: in whole
 * numbers, in the quantities of their sum */
static INLINE floats_{tag} added_{tag}(floats_{tag} v, sums_{tag} d, struct addend add)
{{
    v = cut_{tag}(v, (float)add.least, (float)add.most) + 12582912.0f;
    sums_{tag} q;
    __builtin_memcpy(&q, &v, sizeof q);
    q = (q - 0x4b400000) * add.by + (d - add.zero) * add.more + (1 << (add.shift - 1));
    return SCALED_{tag}(q >> add.shift, 1.0f);
}}
"""


def ending(layer: Layer, target: Map, isa: Isa) -> str:
    """What a layer's numbers become in a map, as kernels take it."""
    made = layer.rescale
    tame = int(layer.tame and isa.saturates)
    numbers = made.least, made.most, made.zero or 0, tame, 128 * target.signed, CURVES[made.curve]
    return f"(struct ending){{{', '.join(map(str, numbers))}, {float(made.slope)!r}f}}"


def addend(step: Product, layers: Mapping[str, Layer], pixels: tuple[int, int]) -> str:
    """What is added to a product, as a tile of so many pixels, in rows of so many, takes it."""
    own, both, residual = layers[step.name].rescale, layers[step.target.name], step.residual
    if residual is None:
        raise TypeError("nothing is added")
    places = [name for name, _ in both.inputs]
    mine, other = places.index(step.name), places.index(residual.name)
    weights, shift = fixed(both.rescale.multiplier)
    by, more = weights[mine], weights[other]
    row = 0 if pixels[0] == pixels[1] else residual.row
    zero = seen(both.inputs[other][1], residual)
    return (
        f"(struct addend){{{residual.pitch}, {row}, {zero}, {own.least}, {own.most}, {by}, {more}, {shift}}}"
    )


def seen(zero: int, one: Map) -> int:
    """What a map's zero is to code that reads its bytes as they lie."""
    return zero - 128 * one.signed


def wide(one: Map, tag: str, at: str) -> str:
    """A map's bytes as numbers of 32 bits."""
    return f"WIDE{'_SIGNED' * one.signed}_{tag}({at})"


def stores(tiling: Tiling, layer: Layer, tag: str, isa: Isa) -> str:
    """The sums of a tile as bytes, four vectors at a time; or in float32 as they are."""
    columns, lanes, residual = tiling.wide, tiling.lanes, tiling.step.residual
    places = [(i, j) for i in range(tiling.pixels) for j in range(columns)]
    less = " - sums[{i}] * z{j}" if layer.asymmetric else ""
    ended = f"ENDED_{tag}(c{{i}}_{{j}})" if isa.kept else "c{i}_{j}"
    scaled = {(i, j): f"SCALED_{tag}({(ended + less).format(i=i, j=j)}, m{j})" for i, j in places}
    if residual is not None:
        for i, j in places:
            other = wide(residual, tag, f"d + AT({i}, d) + {j * lanes}")
            scaled[i, j] = f"added_{tag}({scaled[i, j]}, {other}, add)"
    if layer.rescale.zero is None:
        return "\n".join(
            f"    PUT_FLOATS_{tag}(c + 4 * AT({i}, c) + {4 * j * lanes}, {scaled[i, j]});" for i, j in places
        )
    at = {(i, j): f"c + AT({i}, c) + {j * lanes}" for i, j in places}
    whole = {one: f"whole_{tag}({number}, end)" for one, number in scaled.items()}
    if isa.wide or lanes == 1:
        return "\n".join(f"    PUT_{tag}({at[one]}, {whole[one]});" for one in places)
    text = ""
    for first in range(0, len(places), 4):
        own = places[first : first + 4]
        if len(own) == 4:
            packed = f"pack_{tag}({', '.join(whole[one] for one in own)}, end)"
            ends = [at[one] for one in (own[::columns] if columns in (2, 4) else own)]
            text += f"    put{len(ends) if columns < 4 else ''}_{tag}({', '.join(ends)}, {packed});\n"
        else:
            for one in own:
                packed = f"pack_{tag}({', '.join([whole[one]] * 4)}, end)"
                text += f"    put1_{tag}({at[one]}, {packed});\n"
    return text.rstrip()


def signature(name: str, tiling: Tiling, layer: Layer, more: str = "") -> str:
    """A tile's function: what it reads and makes, its sizes, and what becomes of its sums."""
    added = tiling.step.residual is not None
    given = "const value *a, const value *w, value *c"
    given += ", const value *d" * added + ", const int32_t *sums" * layer.asymmetric
    ends = "const struct ending end" + ", const struct addend add" * added
    lines = ["    const int pixel_d = add.pixel, row_d = add.row;"] if added else []
    lines += ["    (void)end;"] if layer.rescale.zero is None else []
    return "\n".join(
        [
            f"static INLINE void {name}({given},",
            f"    TILE_SIZES, const int terms, {more}{ends})",
            "{",
            *lines,
        ]
    )
