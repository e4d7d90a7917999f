"""Budget estimators (§5.2): from a question to its token budget, with the estimate's own cost."""

from tale.estimators.base import Estimate, Estimator

__all__ = ["Estimate", "Estimator"]
