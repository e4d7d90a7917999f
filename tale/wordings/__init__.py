"""Wording × budget × model × task: where a budget is obeyed, ignored or overdone."""
