"""Ways to answer a question: a file for each, with its solver and its options; `registry` finds them by name."""
