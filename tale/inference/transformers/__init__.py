"""Generation with transformers, in process."""
