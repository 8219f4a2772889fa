"""What there is no kernel for, told before anything is written."""

from __future__ import annotations

from mobilenets.spec.codec import op_name
from mobilenets.spec.net import Net, shapes
from mobilenets.spec.op import Activate, Add, Conv, Depthwise, Linear, Op, Pointwise, Pool

NOT_YET = "cannot be compiled yet"


def refuse(net: Net) -> None:
    """Raises ValueError that names the first layer that no kernel is written for."""
    known = shapes(net)
    for node in net.nodes:
        op = node.op
        if what := _lacking(op):
            raise ValueError(f"{node.name}: {what} {NOT_YET}")
        if not isinstance(op, Linear | Pool) and "image" in node.inputs:
            raise ValueError(f"{node.name}: a {op_name(op)} of the image itself cannot be compiled")
        if isinstance(op, Conv | Depthwise) and (op.kernel > 7 or op.stride > op.kernel):
            raise ValueError(
                f"{node.name}: a kernel of {op.kernel} with stride {op.stride} cannot be compiled; "
                "kernels up to 7 can, with strides up to the kernel"
            )
        if isinstance(op, Depthwise | Pool) and node.inputs[0] == "image":
            what = "a depthwise layer" if isinstance(op, Depthwise) else "a mean"
            raise ValueError(f"{node.name}: {what} on the image itself cannot be compiled")
        if known[node.name].elements > 1 << 28:
            raise ValueError(f"{node.name}: makes {tuple(known[node.name])}, too large to be compiled")


def _lacking(op: Op) -> str:
    """What there is no kernel for."""
    match op:
        case Conv(across=across) if across not in (None, op.kernel):
            return f"a window of {op.kernel} × {across}"
        case Conv() | Depthwise() | Pointwise() | Add() | Activate() if op.activation in ("swish", "sigmoid"):
            return f"the activation {op.activation}"
        case _:
            return ""
