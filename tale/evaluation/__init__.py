"""Accuracy and output tokens of the methods that the paper compares (§6)."""
