"""Networks that grow layer by layer in a property test, and branch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from mobilenets.spec.net import Node, shape_after
from mobilenets.spec.op import (
    Activation,
    Add,
    Concat,
    Conv,
    Mul,
    Op,
    Pointwise,
    Pool,
    Shape,
    Shuffle,
    Slice,
    Windowed,
)


@dataclass(slots=True)
class Growing:
    """Nodes on an image of `size`, which itself is summed up and joined where `image_mixes`; a sum is of
    `most_summed` maps and the last."""

    size: Shape
    image_mixes: bool
    most_summed: int
    nodes: list[Node] = field(default_factory=list)
    known: dict[str, Shape] = field(default_factory=dict)
    last: str = "image"

    def __post_init__(self) -> None:
        self.known["image"] = self.size

    def add(self, name: str, op: Op, *sources: str) -> None:
        """One node on others, which the next goes on from."""
        self.known[name] = shape_after(op, [self.known[source] for source in sources])
        self.nodes.append(Node(name, op, sources))
        self.last = name

    def layer(self, draw: st.DrawFn, index: int, op: Op) -> bool:
        """A layer, perhaps in groups; whether there was room for its window."""
        channels = self.known[self.last].channels
        if isinstance(op, Conv | Pointwise) and draw(st.booleans()):
            groups = draw(st.sampled_from(_parts(channels)))
            op = replace(op, groups=groups, out=groups * op.out)
        if isinstance(op, Windowed) and min(shape_after(op, [self.known[self.last]])) < 1:
            return False
        self.add(f"n{index}", op, self.last)
        return True

    def branch(self, draw: st.DrawFn, index: int, summed: st.SearchStrategy[Activation]) -> None:
        """Nothing, or a sum, a gate, a join, a cut or a dealing out of what there is."""
        last, x = self.last, self.known[self.last]
        mixable = {name: shape for name, shape in self.known.items() if self.image_mixes or name != "image"}
        alike = [name for name, shape in mixable.items() if shape == x]
        beside = [name for name, shape in mixable.items() if shape[:2] == x[:2]]
        match draw(st.sampled_from(("", "sum", "gate", "join", "cut", "deal"))):
            case "sum":
                others = draw(st.lists(st.sampled_from(alike), min_size=1, max_size=self.most_summed))
                self.add(f"sum{index}", Add(activation=draw(summed)), last, *others)
            case "gate":
                self.add(f"mean{index}", Pool(), last)
                self.add(f"gate{index}", Mul(), last, f"mean{index}")
            case "join":
                others = draw(st.lists(st.sampled_from(beside), min_size=1, max_size=3))
                self.add(f"join{index}", Concat(), last, *others)
            case "cut":
                begin = draw(st.integers(0, x.channels - 1))
                end = draw(st.integers(begin + 1, x.channels))
                self.add(f"cut{index}", Slice(begin=begin, end=end), last)
            case "deal":
                self.add(f"deal{index}", Shuffle(groups=draw(st.sampled_from(_parts(x.channels)))), last)


def _parts(channels: int) -> list[int]:
    return [n for n in range(1, 7) if channels % n == 0]
