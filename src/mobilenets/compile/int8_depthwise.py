"""Depthwise kernels of bytes as C text: rows of a window put side by side, by fours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mobilenets.compile.int8_lanes import tag_of
from mobilenets.compile.integers import groups
from mobilenets.compile.isa import Isa

Users = list[tuple[int, int]]
"""Outputs that a column of the window adds to, and which of its columns it is to each."""


@dataclass(frozen=True, slots=True)
class Depthwise:
    """A depthwise kernel: `positions` vectors of a row, each of `together` pixels."""

    isa: Isa
    bytes: int
    positions: int
    together: int
    kernel: int
    stride: int
    terms: int
    halves: bool
    signed: bool

    @property
    def name(self) -> str:
        many = f"_by{self.together}" if self.together > 1 else ""
        more = f"_t{self.terms}" if self.terms > 1 else ""
        return f"filter{self.kernel}s{self.stride}_{self.positions}x{self.bytes}{many}{more}_{self.isa.name}"

    def text(self) -> str:
        return self._single() if self.isa.lanes == 1 else self._vectors()

    @property
    def _head(self) -> str:
        pixels = f"{self.positions * self.together} pixels" if self.isa.lanes > 1 else "A pixel"
        pixels += f", {self.together} at a time," if self.together > 1 else ""
        kind = "APART" if self.isa.spare else "INLINE"
        return f"""\
/* {pixels} of a row through {self.kernel}×{self.kernel} taps, each channel by itself */
static {kind} void {self.name}(const value *in, const value *w, value *out, int parts,
    const int below, const int beside, const int next, const int pitch, const int span,
    const int chunk, const int line, const int singles, const int turned, const struct ending end)
"""

    def _single(self) -> str:
        tag = tag_of(self.isa, 4)
        place = f"((x * {groups(self.kernel)} + y / 4) * {self.terms} + t) * line"
        return f"""\
{self._head}{{
    (void)next, (void)pitch, (void)singles, (void)turned;
    for (int v = 0; v < parts; v++, in += span, out += span, w += chunk)
        for (int l = 0; l < span; l++) {{
            sums_{tag} sum = SUMS_{tag}(w + 4 * l);
            for (int y = 0; y < {self.kernel}; y++)
                for (int x = 0; x < {self.kernel}; x++)
                    for (int t = 0; t < {self.terms}; t++)
                        sum += in[y * below + x * beside + l] *
                               (int8_t)w[4 * (2 * line + {place} + l) + y % 4];
            PUT_{tag}(out + l, whole_{tag}(SCALED_{tag}(sum, FLOATS_{tag}(w + 4 * (line + l))), end));
        }}
}}
"""

    def _vectors(self) -> str:
        tag, quads = tag_of(self.isa, self.bytes), range(4)
        positions = range(self.positions)
        begin = "\n".join(
            "            sums_"
            + tag
            + " "
            + ", ".join(f"c{x}_{j} = SUMS_{tag}(w + {j} * line)" for j in quads)
            + ";"
            for x in positions
        )
        columns: dict[str, Users] = {}
        for x in positions:
            for across in range(self.kernel):
                at = f"{x * self.stride + across} * beside"
                if self.together > 1:
                    at = f"{x} * next + {across} * beside"
                columns.setdefault(at, []).append((x, across))
        sums = self._by_tap(tag, columns) if self.isa.by_tap else self._by_fours(tag, columns)
        end = "\n".join(
            f"            *(loose_bytes_{tag} *)(out + {x} * pitch) = pack_{tag}("
            + ", ".join(f"whole_{tag}(SCALED_{tag}(c{x}_{j}, m{j}), end)" for j in quads)
            + ", end);"
            for x in positions
        )
        scales = ", ".join(f"m{j} = FLOATS_{tag}(w + {4 + j} * line)" for j in quads)
        return f"""\
{self._head}{{
    (void)next, (void)singles, (void)turned;
    for (int v = 0; v < parts; v++) {{
        for (int l = 0; l < span; l += {self.bytes}) {{
{begin}
{sums}            const floats_{tag} {scales};
{end}
            in += {self.bytes};
            out += {self.bytes};
            w += {self.bytes};
        }}
        w += chunk - span;
    }}
}}
"""

    def _by_fours(self, tag: str, columns: Mapping[str, Users]) -> str:
        return "".join(self._column(tag, at, users) for at, users in columns.items())

    def _by_tap(self, tag: str, columns: Mapping[str, Users]) -> str:
        """Each tap by itself; two add up before they are widened."""
        text = f"            taps_{tag} {', '.join(f't{x}' for x in range(self.positions))};\n"
        waiting = set[int]()

        def widened(x: int) -> str:
            waiting.remove(x)
            return f"                TAPS_{tag}(t{x}, c{x}_0, c{x}_1, c{x}_2, c{x}_3);\n"

        for at, users in columns.items():
            text += "            {\n"
            for y in range(self.kernel):
                row = self._load(tag, f"in + {at} + {y} * below")
                text += f"                const bytes_{tag} r{y} = {row};\n"
            for x, across in users:
                for place in range(self.kernel * self.terms):
                    weight = f"BYTES_{tag}(w + singles + {across * self.kernel * self.terms + place} * line)"
                    more = "_MORE" * (x in waiting)
                    text += f"                TAP{more}_{tag}(t{x}, r{place // self.terms}, {weight});\n"
                    if x in waiting:
                        text += widened(x)
                    else:
                        waiting.add(x)
            text += "            }\n"
        return text + "".join(widened(x) for x in sorted(waiting))

    def _column(self, tag: str, at: str, users: Users) -> str:
        """One column of the window: its rows by fours, and every output that it adds to."""
        text = ""
        for group in range(groups(self.kernel)):
            rows = range(4 * group, min(4 * group + 4, self.kernel))
            text += "            {\n"
            for i in range(4):
                value = (
                    self._load(tag, f"in + {at} + {4 * group + i} * below")
                    if 4 * group + i in rows
                    else "{0}"
                )
                text += f"                const bytes_{tag} r{i} = {value};\n"
            text += (
                f"                const bytes_{tag} p = LOW_{tag}(r0, r1), q = HIGH_{tag}(r0, r1);\n"
                f"                const bytes_{tag} s = LOW_{tag}(r2, r3), t = HIGH_{tag}(r2, r3);\n"
                f"                const bytes_{tag} v0 = LOW2_{tag}(p, s), v1 = HIGH2_{tag}(p, s);\n"
                f"                const bytes_{tag} v2 = LOW2_{tag}(q, t), v3 = HIGH2_{tag}(q, t);\n"
            )
            for j in range(4 * self.halves):
                text += (
                    f"                const halves_{tag} e{j} = EVEN_{tag}(v{j}), o{j} = ODD_{tag}(v{j});\n"
                )
            for x, across in users:
                for term in range(self.terms):
                    place = (across * groups(self.kernel) + group) * self.terms + term
                    text += "".join(self._added(tag, x, j, 4 * place + j) for j in range(4))
            text += "            }\n"
        return text

    def _added(self, tag: str, x: int, j: int, place: int) -> str:
        """Vector `j` of a column, times its weights, on the sums of output `x`."""
        if not self.halves:
            weight = f"BYTES_{tag}(w + {8 + place} * line)"
            return f"                c{x}_{j} = dot_{tag}(c{x}_{j}, v{j}, {weight});\n"
        even, odd = (f"(halves_{tag})BYTES_{tag}(w + {8 + 2 * place + k} * line)" for k in (0, 1))
        return (
            f"                c{x}_{j} = pairs_{tag}(c{x}_{j}, e{j}, {even});\n"
            f"                c{x}_{j} = pairs_{tag}(c{x}_{j}, o{j}, {odd});\n"
        )

    def _load(self, tag: str, at: str) -> str:
        if self.together == 1 or self.stride == 1:
            return f"BYTES_{tag}({at})" + " ^ (uint8_t)turned" * self.signed
        pixel = self.bytes // self.together
        order = ", ".join(
            str(self.stride * pixel * i + j) for i in range(self.together) for j in range(pixel)
        )
        made = f"SHUFFLE_{self.bytes}(BYTES_{tag}({at}), BYTES_{tag}({at} + {self.bytes}), {order})"
        return made + " ^ (uint8_t)turned" * self.signed
