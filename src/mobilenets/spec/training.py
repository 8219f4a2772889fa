"""How a network is trained from its first weights to its last: recipes, as frozen data by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from mobilenets.spec.option import flag
from mobilenets.spec.preprocess import Geometry
from mobilenets.spec.views import Views

Method = Literal["rmsprop", "sgd", "adamw", "muon"]
MOST_SIDE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """How a step is taken. `rate` is the highest of the run, for batches of the recipe's size.

    `rmsprop` is TensorFlow's form: epsilon inside the root, the mean square begun at one, momentum on the
    scaled gradient. `muon` makes the step of each full and pointwise layer orthogonal (`rate` is its own) and
    moves all other weights by AdamW at `aside`, those of the head among them. `decay` falls on the weights of
    full, pointwise and dense layers only: not on depthwise filters, norms and biases. It is an L2 term of the
    loss for `rmsprop` and `sgd`, apart from the gradient (arXiv:1711.05101) for `adamw` and `muon`.
    """

    method: Method = "sgd"
    rate: float = 0.1
    momentum: float = 0.9
    smooth: float = 0.9
    """Of the mean square: RMSprop's and AdamW's."""
    epsilon: float = 1e-8
    decay: float = 4e-5
    aside: float = 0.0
    clip: float = 0.0
    """Largest norm of the whole gradient; 0 leaves it as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How rates go: up in a line over `warmup` epochs, then down.

    `cosine` and `line` end at `last` of the highest; `stairs` multiplies by `factor` every `every` epochs.
    """

    form: Literal["cosine", "line", "stairs"] = "cosine"
    warmup: float = 0.5
    last: float = 0.0
    factor: float = 0.94
    every: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """How pictures come. They are kept decoded at `stored` pixels a side, 0 for 8/7 of the resolution.

    `sizes` gives the share of the resolution that training sees from each share of the epochs on; `split` is
    as in `retrain`.
    """

    geometry: Geometry = "stretch"
    stored: int = 0
    sizes: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    split: str = "80/10/10"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The network that a recipe is for, where it is for one."""

    net: str = "v1"
    width: float = 1.0
    resolution: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a recipe costs and what it reached: measured, on what, over how many pictures and seeds."""

    cost: str
    score: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides a training but the pictures, the network and the seed.

    `norm_batch` pictures share the statistics of a batch norm (arXiv:1705.08741): they are what threads and
    processes share out: how many there are changes last digits alone. `average` is the weight of the past in
    the averaged weights that are judged and kept.
    """

    name: str
    epochs: int
    batch: int = 128
    norm_batch: int = 64
    steps: Steps = field(default_factory=Steps)
    course: Course = field(default_factory=Course)
    average: float = 0.999
    smoothing: float = 0.0
    views: Views = field(default_factory=Views)
    feed: Feed = field(default_factory=Feed)
    subject: Subject = field(default_factory=Subject)
    told: Told


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """What is trained, by which recipe; what is not given is the recipe's."""

    recipe: str | None = flag(None, "How: a name of docs/recipes.md.")
    net: str | None = flag(None, "Network, a name of `mobilenets models`; v1 unless the recipe has one.")
    width: float | None = flag(None, "Width multiplier.")
    resolution: int | None = flag(None, "Input side in pixels.", 1)
    weights: str = flag("random", "Where it starts: `random`, a model file or a known name.")
    qat: bool = flag(False, "Learn on in bytes: a trained model's --weights go in, an int8 model comes out.")
    epochs: int | None = flag(None, "Epochs.", 1)
    batch: int | None = flag(None, "Pictures in a step.", 1)
    optimizer: str | None = flag(None, "rmsprop, sgd, adamw or muon in place of the recipe's.")
    rate: float | None = flag(None, "The highest learning rate.")
    split: str | None = flag(None, "Shares of train/val/test where the data set has no parts of its own.")
    mixup: float | None = flag(None, "Blend pictures and labels by shares of Beta(x, x); 0 for none.")
    cutmix: float | None = flag(None, "The same by a box of another picture.")
    erase: float | None = flag(None, "Chance of a grey rectangle in a picture.")
    policy: int | None = flag(None, "Operations drawn for each picture, 0 to 3.")
    seed: int = flag(0, "Seed of the split, the first weights and all that is drawn.", 0)

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 1), ("resolution", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name} {value}: give {least} or more")
        if self.resolution is not None and self.resolution > MOST_SIDE:
            raise ValueError(
                f"--resolution {self.resolution}: give 1 to {MOST_SIDE} pixels; the papers use 128 to 224"
            )
        if self.optimizer not in (None, *get_args(Method)):
            raise ValueError(f"--optimizer {self.optimizer}: unknown; known: {', '.join(get_args(Method))}")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise ValueError(f"--rate {self.rate}: a learning rate is a number above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What a training runs on, and how it goes on after a stop."""

    device: str = flag("cpu", "cpu, cuda or mps.")
    threads: int | None = flag(
        None, "Threads and worker processes; as many as there are cores unless given.", 1
    )
    resume: bool = flag(False, "Go on from the checkpoint in --out.")
    anew: bool = flag(False, "Begin anew where --out has a checkpoint of a run that was cut off.")
    deterministic: bool = flag(False, "Only operations that give the same bits again, also on a GPU.")
    half: bool = flag(True, "Multiply in bfloat16 where the processor does so itself.")

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads {self.threads}: at least one is needed")
        if self.resume and self.anew:
            raise ValueError("--resume goes on, --anew begins anew: give one of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistilOptions:
    """Whom a network learns from beside the labels."""

    teacher: str | None = flag(None, "A model that teaches: a file, a compiled one, or a known name.")
    distil: str = flag("soft", "What it teaches: soft (its scores) or features (what lies below them).")
    temperature: float = flag(2.0, "By which its logits and the student's are divided.")
    teacher_weight: float = flag(0.9, "Its share of what is learned, from 0 to 1; the rest is the labels'.")
    teacher_views: int = flag(
        8, "Views of each picture that it is asked about, once; epochs go round them.", 1
    )

    def __post_init__(self) -> None:
        if self.teacher_views < 1:
            raise ValueError(f"--teacher-views {self.teacher_views}: give 1 or more")
        if self.distil not in ("soft", "features"):
            raise ValueError(f"--distil {self.distil}: known are soft, features")
        if not 0 <= self.teacher_weight <= 1:
            raise ValueError(f"--teacher-weight {self.teacher_weight}: a share lies between 0 and 1")
        if not 0.1 <= self.temperature <= 100:
            raise ValueError(f"--temperature {self.temperature}: give 0.1 to 100; 1 to 8 are usual")
