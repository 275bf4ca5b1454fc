"""Approximate the text feature of an uncached sentence by cached sentences with similar words."""

from typing import NamedTuple

from jaxtyping import Float
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, from_numpy

from recon.teachers.base import Teacher
from recon.teachers.cached import CachedTextTeacher

NUM_NEIGHBORS = 8
"""Number of cached sentences that are averaged."""
MIN_SIMILARITY = 0.2
"""Minimum TF-IDF similarity of the most similar cached sentence."""


class SentenceFeature(NamedTuple):
    """Text feature of a sentence, exact or approximated."""

    feature: Float[Tensor, " d"]
    neighbor_weights: dict[str, float]
    """Averaged cached sentences with their weights; empty if the feature is exact."""


def encode_sentence(teacher: Teacher, sentence: str) -> SentenceFeature:
    """Return the text feature of a sentence, approximated if the teacher is a cache that lacks it.

    Live teachers and cached sentences give exact features. Otherwise the feature is the mean of the
    `NUM_NEIGHBORS` most similar cached sentences by TF-IDF of character 3- to 5-grams, weighted by
    squared similarity. This compares wording, not meaning. Raises ValueError if no cached sentence
    is similar enough.
    """
    if not isinstance(teacher, CachedTextTeacher) or sentence in teacher.names:
        return SentenceFeature(teacher.eval()({"text": [sentence]})[0].cpu(), {})
    tfidf = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).fit(teacher.names)
    similarity = (tfidf.transform([sentence]) @ tfidf.transform(teacher.names).T).toarray()[0]
    rows = similarity.argsort(kind="stable")[::-1][:NUM_NEIGHBORS]
    if similarity[rows[0]] < MIN_SIMILARITY:
        examples = ", ".join(map(repr, sorted(teacher.names, key=len)[:3]))
        raise ValueError(
            f"{sentence!r}: this text teacher is a cache of {len(teacher.names)} sentences, and "
            f"none has a similar wording: use words of cached sentences, such as {examples}, or a "
            "live teacher that the network was trained with, e.g. teacher=clip"
        )
    weights = similarity[rows] ** 2 / (similarity[rows] ** 2).sum()
    names = [teacher.names[row] for row in rows]
    mean = from_numpy(weights).float() @ teacher.look_up(names).cpu()
    return SentenceFeature(mean, dict(zip(names, weights.tolist(), strict=True)))
