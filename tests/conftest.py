"""What every test may ask for: the folder of real material, and hypothesis without clock or dice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "here", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("here")


@pytest.fixture(scope="session")
def material() -> Path:
    """The folder with `data/` and `weights/`; a test that asks for it skips where there is none."""
    named = os.environ.get("MOBILENETS_TEST_DATA")
    if not named:
        pytest.skip("real material: set MOBILENETS_TEST_DATA to a folder with data/ and weights/")
    folder = Path(named)
    if not (folder / "data").is_dir() or not (folder / "weights").is_dir():
        pytest.skip(f"real material: {folder} has no data/ and weights/")
    return folder
