"""Recipes: declaring and reading their keys."""
