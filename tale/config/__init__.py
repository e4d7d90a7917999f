"""Recipes: how their keys are declared, and how they are read."""
