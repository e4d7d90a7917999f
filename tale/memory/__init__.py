"""Planning the memory of a training without its weights."""
