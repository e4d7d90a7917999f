"""Questions, prompts and their ids, search records, and training batches."""
