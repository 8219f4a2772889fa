"""What a user may set is said once and known to type checkers too."""

from __future__ import annotations

from dataclasses import fields

from mobilenets.energy import PowerOptions
from mobilenets.spec.recipe import BodyOptions, LearnOptions, MachineOptions, RetrainOptions


def test_the_typed_options_of_retrain_are_those_of_its_dataclasses_and_sweep() -> None:
    kinds = (BodyOptions, LearnOptions, MachineOptions, PowerOptions)
    known = {field.name: field.type for kind in kinds for field in fields(kind)}
    typed = {name: hint.__forward_arg__ for name, hint in RetrainOptions.__annotations__.items()}
    assert typed == known | {"sweep": "bool"}
