"""Run the `pint` command: python -m pint.cli."""

import sys

from pint.cli.main import main

sys.exit(main())
