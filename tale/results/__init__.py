"""A report of runs as one page: tables, figures, examples and costs."""
