"""Wordings of the budget line: which budgets are obeyed, ignored or overdone, by model and task."""
