"""Budget estimators, trained on searches and scored on a grid search."""
