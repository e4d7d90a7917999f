"""From a question's text to β*, learnt from a search: ridge regression on log β*, and a conformal bound on top of it.

Features are TF-IDF of words and pairs of words, and lengths. scikit-learn fits and transforms; what is kept is plain
numbers, never a pickle.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold

from tale.data.question import Question
from tale.data.splits import contexts
from tale.errors import UserError
from tale.estimators.base import Estimate

# Ours: rare words say nothing of other questions, and 2,000 columns are a dense matrix of some MB.
TFIDF = {"ngram_range": (1, 2), "sublinear_tf": True, "min_df": 2, "max_features": 2000}
RIDGES = tuple(10.0**power for power in range(-2, 4))
FOLDS = 5
FEWEST = 20  # questions: with fewer, a regression on words is noise


@dataclass(frozen=True)
class Regression:
    """A fitted regression: a weight for each term, then for each length. All values are plain numbers.

    `shift` is added to log β̂: 0, or what makes the budget reach β* for a share `coverage` of questions.
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
            raise ValueError("its numbers do not fit together")

    def estimate(self, questions: Sequence[Question]) -> list[Estimate]:
        """β̂ = exp(prediction + shift) of each question; it costs no tokens."""
        return [Estimate(math.exp(value + self.shift)) for value in self.predict(questions)]

    def predict(self, questions: Sequence[Question]) -> list[float]:
        """Predicted log β*, without the shift."""
        vectorizer = TfidfVectorizer(**TFIDF, vocabulary=self.terms)
        vectorizer.idf_ = numpy.array(self.idf)
        words = vectorizer.transform(map(text_of, questions)).toarray()
        lengths = (numpy.array(list(map(lengths_of, questions))) - self.means) / self.scales
        return (numpy.hstack([words, lengths]) @ self.weights + self.intercept).tolist()


def fit(questions: Sequence[Question], stars: Sequence[int], ridge: float | None = None) -> Regression:
    """Fit log β* on the questions; without `ridge` its strength is cross-validated, a context in one fold alone.

    Raises:
        UserError: too few questions, or too few contexts to cross-validate.
    """
    if len(questions) < FEWEST:
        raise UserError(
            f"train_records: {len(questions)} questions with a β* are too few for a regression; {FEWEST} or more"
        )
    vectorizer = TfidfVectorizer(**TFIDF)
    try:
        words = vectorizer.fit_transform(map(text_of, questions)).toarray()
    except ValueError as error:
        raise UserError(f"train_records: no words to learn from, none is in two of the questions ({error})") from error
    lengths = numpy.array(list(map(lengths_of, questions)))
    means, scales = lengths.mean(axis=0), lengths.std(axis=0)
    scales[scales == 0] = 1.0
    features = numpy.hstack([words, (lengths - means) / scales])
    target = numpy.log(stars)
    model = Ridge(alpha=ridge or _best_ridge(features, target, questions)).fit(features, target)
    return Regression(
        vectorizer.get_feature_names_out().tolist(),
        vectorizer.idf_.tolist(),
        means.tolist(),
        scales.tolist(),
        model.coef_.tolist(),
        float(model.intercept_),
    )


def calibrated(model: Regression, questions: Sequence[Question], stars: Sequence[int], coverage: float) -> Regression:
    """The model with the shift that reaches β* for a share `coverage` of new questions, by split conformal prediction.

    `questions` are other ones than it was fitted on. The shift is the ⌈(n + 1) · coverage⌉-th smallest of their n
    residuals; the promise holds on average over such draws, for questions that are exchangeable with them.

    Raises:
        UserError: too few questions for so high a coverage.
    """
    residuals = sorted(math.log(star) - value for star, value in zip(stars, model.predict(questions), strict=True))
    rank = math.ceil(round((len(residuals) + 1) * coverage, 9))
    if not 1 <= rank <= len(residuals):
        needed = "a share above 0 and below 1" if not 0 < coverage < 1 else f"{math.ceil(coverage / (1 - coverage))}"
        raise UserError(
            f"coverage={coverage}: {len(residuals)} questions to calibrate on do not promise it, needed: {needed}; "
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
        raise UserError(f"ridge=0: cross-validation needs {FOLDS} contexts, {found} are there; set ridge=1")
    search = GridSearchCV(Ridge(), {"alpha": RIDGES}, scoring="neg_mean_absolute_error", cv=GroupKFold(FOLDS))
    return float(search.fit(features, target, groups=groups).best_params_["alpha"])
