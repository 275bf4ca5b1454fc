"""Any sentence, where a text teacher is a mere cache: from cached ones of like wording."""

from typing import NamedTuple

from jaxtyping import Float
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, from_numpy

from recon.teachers.base import Teacher
from recon.teachers.cached import CachedTextTeacher

NUM_NEIGHBORS = 8
"""Cached sentences that stand for another one."""
MIN_SIMILARITY = 0.2
"""Likeness of the most alike one, below which nothing stands for a sentence."""


class SentenceFeature(NamedTuple):
    """What a teacher says of a sentence."""

    feature: Float[Tensor, " d"]
    neighbor_weights: dict[str, float]
    """Cached sentences that stood for it, with their shares; empty where it was asked itself."""


def encode_sentence(teacher: Teacher, sentence: str) -> SentenceFeature:
    """Ask a text teacher about a sentence; where it is a cache that lacks it, about the like.

    Live teachers and cached sentences are exact. Else the feature is the mean of the `ALIKE` cached
    sentences with the most pieces of words in common (TF-IDF of 3 to 5 letters), weighted by the
    square of their likeness: wording, not meaning. Raises ValueError where none is alike.
    """
    if not isinstance(teacher, CachedTextTeacher) or sentence in teacher.names:
        return SentenceFeature(teacher({"text": [sentence]})[0].cpu(), {})
    pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).fit(teacher.names)
    alike = (pieces.transform([sentence]) @ pieces.transform(teacher.names).T).toarray()[0]
    rows = alike.argsort(kind="stable")[::-1][:NUM_NEIGHBORS]
    if alike[rows[0]] < MIN_SIMILARITY:
        some = ", ".join(map(repr, sorted(teacher.names, key=len)[:3]))
        raise ValueError(
            f"{sentence!r}: this text teacher is a cache of {len(teacher.names)} sentences, none "
            f"of them worded like that: use words of theirs, such as {some}, or ask a live teacher "
            "that the network learned from, e.g. teacher=clip"
        )
    share = alike[rows] ** 2 / (alike[rows] ** 2).sum()
    names = [teacher.names[row] for row in rows]
    mean = from_numpy(share).float() @ teacher.look_up(names).cpu()
    return SentenceFeature(mean, dict(zip(names, share.tolist(), strict=True)))
