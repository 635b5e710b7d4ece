"""What pytest leaves out when it collects the examples of pint's docstrings."""

import importlib.util

# This module cannot be imported without torch, and says so.
collect_ignore = [] if importlib.util.find_spec("torch") else ["pint/torch.py"]
