"""The memory that a training takes, planned without its weights."""
