"""The thousand classes of ILSVRC-2012 in their order: WordNet ids and names.

`imagenet.txt` holds `wnid<TAB>name` lines: the ids in sorted order, which is the challenge's, with the words
of their synsets in WordNet 3.0 (Princeton University,
https://wordnet.princeton.edu/license-and-commercial-use), both as timm 1.0 lists them in
`imagenet_synsets.txt` and `imagenet_synset_to_lemma.txt` (Apache-2.0).
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib import resources

CLASSES = 1000


@cache
def _lines() -> tuple[tuple[str, str], ...]:
    text = (resources.files("mobilenets.infer") / "imagenet.txt").read_text("utf-8")
    return tuple((line.split("\t")[0], line.split("\t")[1]) for line in text.splitlines())


def wnids() -> tuple[str, ...]:
    """The WordNet id of each class, such as `n01440764`."""
    return tuple(wnid for wnid, _ in _lines())


@cache
def labels() -> tuple[str, ...]:
    """The name of each class, all different: a word that two classes share ("crane") carries its id as
    well."""
    count = Counter(name for _, name in _lines())
    return tuple(name if count[name] == 1 else f"{name} ({wnid})" for wnid, name in _lines())
