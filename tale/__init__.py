"""tale: training recipes that make a language model reason with fewer tokens (arXiv:2412.18547)."""

import logging

# Imported by peft, it warns of a kernel package that nothing here needs.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

__version__ = "0.1.0"
