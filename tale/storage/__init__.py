"""Files, never half written and strictly read, and the folders that hold them."""
