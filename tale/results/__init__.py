"""Finished runs as one page: what was run, tables, figures, examples, and what it all cost."""
