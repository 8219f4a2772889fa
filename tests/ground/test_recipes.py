"""docs/recipes.md says of each recipe what its data says."""

from __future__ import annotations

from pathlib import Path

from mobilenets.spec.recipes import RECIPES
from mobilenets.spec.training import Recipe

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")


def described(recipe: Recipe) -> str:
    """The row of the table of what it is."""
    subject, steps, course, views = recipe.subject, recipe.steps, recipe.course, recipe.views
    size = f", width {subject.width:g}, {subject.resolution} pixels" if subject.resolution else ""
    up = f" after {course.warmup:g} epoch{'s' * (course.warmup > 1)} up" if course.warmup else ""
    stairs = course.form == "stairs"
    first, *later = recipe.feed.sizes
    grows = f", of {first[1]:g} of the side" if first[1] < 1 else ""
    grows += "".join(f", {share:g} from {begin:g} of the epochs on" for begin, share in later)
    seen = f"windows of {views.least_area:g} and more" if views.shift is None else f"shifted by {views.shift}"
    cells = (
        *(recipe.name, f"{subject.net}{size}", recipe.epochs, recipe.batch, recipe.norm_batch),
        *(steps.method, f"{steps.rate:g}", f"{steps.decay:g}"),
        f"× {course.factor:g} every {course.every:g} epochs" if stairs else f"{course.form}{up}",
        *(f"{recipe.average:g}", f"{recipe.smoothing:g}"),
        f"{seen}{grows}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def measured(recipe: Recipe) -> str:
    """The row of the table of what it reaches."""
    told = (recipe.told.cost, recipe.told.score)
    return f"| {recipe.name} | {' | '.join(text or 'not measured yet' for text in told)} |"


def test_the_pages_tables_are_made_of_the_recipes() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    for recipe in RECIPES.values():
        assert [row for row in rows if row.startswith(f"| {recipe.name} |")] == [
            described(recipe),
            measured(recipe),
        ]


def test_the_papers_recipe_has_the_papers_habits() -> None:
    paper = RECIPES["paper-v1"]
    assert paper.steps.method == "rmsprop"
    assert paper.steps.epsilon == 1.0
    assert paper.smoothing == 0
    assert paper.views.mix.mixup == paper.views.mix.cutmix == paper.views.policy == paper.views.erase == 0
    assert paper.views.least_area > 0.08
