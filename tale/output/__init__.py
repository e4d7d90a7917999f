"""Tables and figures, in the terminal and in files."""
