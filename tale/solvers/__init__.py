"""Methods to answer a question: one file per method, with its solver and options; `registry` finds them by name."""
