"""The recipes by name: frozen, so that a name means the same numbers tomorrow."""

from __future__ import annotations

from dataclasses import replace

from mobilenets.spec.training import Course, Feed, Recipe, Steps, Subject, Told, TrainOptions
from mobilenets.spec.views import Views

MOST_WARMUP = 0.2
"""Of all epochs: a run of one or two is not to end before it has reached its rate."""
MUON = Steps(method="muon", rate=0.02, aside=0.003, momentum=0.9, smooth=0.99, decay=0.01)
RMSPROP = Steps(method="rmsprop", rate=0.045, momentum=0.9, smooth=0.9, epsilon=1.0, decay=4e-5)
USUAL = {
    "rmsprop": RMSPROP,
    "sgd": Steps(method="sgd", rate=0.1, momentum=0.9, decay=1e-4),
    "adamw": Steps(method="adamw", rate=0.002, momentum=0.9, smooth=0.999, decay=0.05),
    "muon": MUON,
}
"""Each optimiser as it is taken where it stands in for a recipe's own, for batches of about 128."""
CIFAR_FEED = Feed(geometry="crop", stored=32, split="98/2/0")
CIFAR_CROPS = ((0.0, 0.71), (0.25, 0.86), (0.5, 1.0))
"""20 and 24 pixels before 28: nothing is resampled, so that things keep their size."""

PAPER_V1 = Recipe(
    name="paper-v1",
    epochs=100,
    batch=96,
    norm_batch=48,
    steps=RMSPROP,
    course=Course(form="stairs", warmup=0.0, factor=0.94, every=2.0),
    average=0.9999,
    views=Views(),
    told=Told(
        cost="3 min 48 s of two cores (Zen 4): 1,600 pictures, V1 0.25 at 128",
        score="90.0 % of 200 pictures of roads and other things, one seed (results/train.csv)",
    ),
)
MODERN = Recipe(
    name="modern",
    epochs=30,
    steps=MUON,
    course=Course(form="cosine", warmup=1.0),
    average=0.998,
    smoothing=0.1,
    views=Views(),
    told=Told(
        cost="73 s of two cores (Zen 4): 1,600 pictures, V1 0.25 at 128",
        score="90.0 % of 200 pictures of roads and other things, one seed (results/train.csv)",
    ),
)
CIFAR_STUDY = Recipe(
    name="cifar-study",
    epochs=12,
    steps=replace(MUON, rate=0.1, aside=0.025),
    course=Course(form="line", warmup=0.5),
    average=0.995,
    smoothing=0.1,
    views=Views(shift=2, light=0, contrast=0),
    feed=replace(CIFAR_FEED, sizes=CIFAR_CROPS),
    subject=Subject(net="v1-cifar"),
    told=Told(
        cost="118 min of two cores (Zen 4) that did other work too",
        score="87.0 % of CIFAR-10's 10,000, one seed (results/train.csv), the study, as quoted, 84.52; of "
        "width 0.75 85.8 %, the study 80.69",
    ),
)
# Full convolutions on pictures enlarged twice: of this family what two cores of a CPU learn fastest. Large
# batches, because what `muon` does in a step costs as much as some sixty pictures of 64 pixels.
CIFAR_5MIN = Recipe(
    name="cifar-5min",
    epochs=6,
    batch=512,
    norm_batch=128,
    steps=replace(MUON, rate=0.18, aside=0.01),
    course=Course(form="line", warmup=0.5),
    average=0.96,
    smoothing=0.1,
    views=Views(least_area=0.75, stretch=1.15, light=0, contrast=0),
    feed=replace(CIFAR_FEED, sizes=((0.0, 0.625), (0.2, 0.75), (0.5, 1.0))),
    subject=Subject(net="v1-full", width=0.25, resolution=64),
    told=Told(
        cost="3 min 56 s of two cores (Zen 4), reading and judging counted",
        score="80.9 % of CIFAR-10's 10,000, one seed (results/train.csv)",
    ),
)
CIFAR_30MIN = replace(
    CIFAR_5MIN,
    name="cifar-30min",
    told=Told(
        cost="24 min 5 s of two cores (Zen 4), reading and judging counted",
        score="86.2 % of CIFAR-10's 10,000, one seed (results/train.csv)",
    ),
    epochs=20,
    steps=replace(MUON, rate=0.12, aside=0.01),
    course=Course(form="line", warmup=1.0),
    average=0.98,
    views=Views(least_area=0.5, stretch=1.33, light=0, contrast=0),
    feed=replace(CIFAR_FEED, sizes=((0.0, 0.75), (0.5, 1.0))),
    subject=Subject(net="v1-full", width=0.33, resolution=64),
)
BODY = Recipe(
    name="body",
    epochs=40,
    steps=MUON,
    course=Course(form="cosine", warmup=1.0),
    average=0.998,
    views=Views(least_area=0.25),
    feed=Feed(stored=64, split="98/2/0"),
    subject=Subject(net="v1", width=0.25, resolution=128),
    told=Told(
        cost="45 to 55 s an epoch of 20,000 pictures on two cores (Zen 4), once the teacher has answered",
        score="66.1 % of 5,647 pictures of Caltech-101 by a head on 30 a class, one seed (results/body.csv)",
    ),
)
QAT = Recipe(
    name="qat",
    epochs=3,
    batch=64,
    norm_batch=32,
    steps=Steps(method="adamw", rate=1e-4, momentum=0.9, smooth=0.999),
    course=Course(form="cosine", warmup=0.1),
    average=0.99,
    views=Views(least_area=0.5, stretch=1.3),
    told=Told(
        cost="33 s of two cores (Zen 4): 1,600 pictures, V1 0.25 at 128",
        score="91.5 % of 200 pictures of roads and other things in bytes, 90.0 % before (results/train.csv)",
    ),
)
RECIPES = {
    recipe.name: recipe for recipe in (PAPER_V1, MODERN, CIFAR_5MIN, CIFAR_30MIN, CIFAR_STUDY, BODY, QAT)
}


def named(options: TrainOptions) -> Recipe:
    """The recipe that options name, with what they change in it. ValueError lists the names there are."""
    name = options.recipe or (QAT.name if options.qat else MODERN.name)
    if name not in RECIPES:
        raise ValueError(f"--recipe {name}: unknown; known: {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    subject = recipe.subject
    subject = replace(
        subject,
        net=options.net or subject.net,
        width=subject.width if options.width is None else options.width,
        resolution=options.resolution or (subject.resolution if options.net in (None, subject.net) else None),
    )
    epochs = options.epochs or recipe.epochs
    feed = replace(recipe.feed, split=options.split or recipe.feed.split)
    if options.qat:  # a network in bytes has one size
        feed = replace(feed, sizes=Feed().sizes)
    steps = recipe.steps if options.optimizer in (None, recipe.steps.method) else USUAL[options.optimizer]
    # What `muon` moves aside keeps its proportion.
    scale = 1.0 if options.rate is None else options.rate / steps.rate
    return replace(
        recipe,
        epochs=epochs,
        batch=options.batch or recipe.batch,
        steps=replace(steps, rate=steps.rate * scale, aside=steps.aside * scale),
        course=replace(recipe.course, warmup=min(recipe.course.warmup, MOST_WARMUP * epochs)),
        views=_strayed(recipe.views, options),
        feed=feed,
        subject=subject,
    )


def _strayed(views: Views, options: TrainOptions) -> Views:
    """The views with what the options change in them."""
    own = {name: getattr(options, name) for name in ("erase", "policy")}
    mixed = {name: getattr(options, name) for name in ("mixup", "cutmix")}
    own, mixed = ({name: value for name, value in each.items() if value is not None} for each in (own, mixed))
    return replace(views, **own, mix=replace(views.mix, **mixed))
