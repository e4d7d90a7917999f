"""Predicting β* from a question's text, trained on a search: ridge regression of log β*, with a conformal bound.

Features are TF-IDF of words and word pairs, and lengths. scikit-learn fits and transforms; saved are plain numbers,
never a pickle.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold

from tale.data.question import Question
from tale.data.splits import contexts
from tale.errors import UserError
from tale.estimators.base import Estimate

# Ours: rare words do not generalise, and 2,000 columns are a dense matrix of a few MB.
TFIDF = {"ngram_range": (1, 2), "sublinear_tf": True, "min_df": 2, "max_features": 2000}
RIDGES = tuple(10.0**power for power in range(-2, 4))
FOLDS = 5
MIN_QUESTIONS = 20  # questions: with fewer, a regression on words is noise


@dataclass(frozen=True)
class Regression:
    """A fitted regression: weights of the terms, then of the lengths. All values are plain numbers.

    `shift` is added to log β̂: 0, or the shift with which the budget reaches β* for a share `coverage` of questions.
    """

    terms: list[str]
    idf: list[float]
    means: list[float]
    scales: list[float]
    weights: list[float]
    intercept: float
    shift: float = 0.0
    coverage: float | None = None

    def __post_init__(self) -> None:
        lengths = len(LENGTHS)
        if not (len(self.terms) == len(self.idf) == len(self.weights) - lengths and len(self.means) == lengths):
            raise ValueError("its lists have inconsistent lengths")

    def estimate(self, questions: Sequence[Question]) -> list[Estimate]:
        """β̂ = exp(prediction + shift) of each question; it costs no tokens."""
        return [Estimate(math.exp(value + self.shift)) for value in self.predict(questions)]

    def predict(self, questions: Sequence[Question]) -> list[float]:
        """Predicted log β*, without the shift."""
        return [self._terms_of(text_of(q)) + self._lengths_of(q) + self.intercept for q in questions]

    def _terms_of(self, text: str) -> float:
        """The part of the terms, as scikit-learn's own transformation has it, in a tenth of its time for one text."""
        analyse, columns = self._vectorizer
        counts = Counter(columns[term] for term in analyse(text) if term in columns)
        values = {i: (1 + math.log(count)) * self.idf[i] for i, count in counts.items()}
        norm = math.sqrt(sum(value * value for value in values.values()))
        return sum(value * self.weights[i] for i, value in values.items()) / norm if norm else 0.0

    def _lengths_of(self, question: Question) -> float:
        weights = self.weights[len(self.terms) :]
        lengths = zip(lengths_of(question), self.means, self.scales, weights, strict=True)
        return sum((length - mean) / scale * weight for length, mean, scale, weight in lengths)

    @cached_property
    def _vectorizer(self) -> tuple[Callable[[str], list[str]], dict[str, int]]:
        """What splits a text into terms, and each term's column."""
        return TfidfVectorizer(**TFIDF).build_analyzer(), {term: i for i, term in enumerate(self.terms)}


def fit(questions: Sequence[Question], budgets: Sequence[int], ridge: float | None = None) -> Regression:
    """Fit log β* on the questions; without `ridge` its strength is cross-validated, with a context in only one fold.

    Raises:
        UserError: too few questions, or too few contexts to cross-validate.
    """
    if len(questions) < MIN_QUESTIONS:
        raise UserError(
            f"train_records: {len(questions)} questions with a β* are too few for a regression; {MIN_QUESTIONS} or more"
        )
    vectorizer = TfidfVectorizer(**TFIDF)
    try:
        words = vectorizer.fit_transform(map(text_of, questions)).toarray()
    except ValueError as error:
        raise UserError(f"train_records: no features, as no word is in two of the questions ({error})") from error
    lengths = numpy.array(list(map(lengths_of, questions)))
    means, scales = lengths.mean(axis=0), lengths.std(axis=0)
    scales[scales == 0] = 1.0
    features = numpy.hstack([words, (lengths - means) / scales])
    target = numpy.log(budgets)
    model = Ridge(alpha=ridge or _best_ridge(features, target, questions)).fit(features, target)
    return Regression(
        vectorizer.get_feature_names_out().tolist(),
        vectorizer.idf_.tolist(),
        means.tolist(),
        scales.tolist(),
        model.coef_.tolist(),
        float(model.intercept_),
    )


def calibrate(model: Regression, questions: Sequence[Question], budgets: Sequence[int], coverage: float) -> Regression:
    """The model with the shift that reaches β* for a share `coverage` of new questions, by split conformal prediction.

    `questions` are not those it was fitted on. The shift is the ⌈(n + 1) · coverage⌉-th smallest of their n residuals;
    the guarantee holds on average over calibration sets, for exchangeable questions.

    Raises:
        UserError: too few questions for this coverage.
    """
    residuals = sorted(math.log(star) - value for star, value in zip(budgets, model.predict(questions), strict=True))
    rank = math.ceil(round((len(residuals) + 1) * coverage, 9))
    if not 1 <= rank <= len(residuals):
        needed = "a share above 0 and below 1" if not 0 < coverage < 1 else f"{math.ceil(coverage / (1 - coverage))}"
        raise UserError(
            f"coverage={coverage}: {len(residuals)} questions to calibrate on do not guarantee it, needed: {needed}; "
            "train on more, or raise calibration_fraction"
        )
    return replace(model, shift=residuals[rank - 1], coverage=coverage)


def text_of(question: Question) -> str:
    """The question with its options."""
    return " ".join((question.text, *question.options))


LENGTHS = ("log characters", "log words", "numbers", "sentences", "options")


def lengths_of(question: Question) -> list[float]:
    """Its `LENGTHS`."""
    text = text_of(question)
    return [
        math.log1p(len(text)),
        math.log1p(len(text.split())),
        float(len(re.findall(r"\d[\d.,]*", text))),
        float(len(re.findall(r"[.?!。？！]+", text))),
        float(len(question.options)),
    ]


def _best_ridge(features: numpy.ndarray, target: numpy.ndarray, questions: Sequence[Question]) -> float:
    groups = contexts(questions)
    if (found := len(set(groups))) < FOLDS:
        raise UserError(f"ridge=null: cross-validation needs {FOLDS} contexts, there are {found}; set ridge=1")
    search = GridSearchCV(Ridge(), {"alpha": RIDGES}, scoring="neg_mean_absolute_error", cv=GroupKFold(FOLDS))
    return float(search.fit(features, target, groups=groups).best_params_["alpha"])
