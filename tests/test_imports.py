"""What `import pint` loads: heavy modules only where they are needed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("numba", "scipy", "h5py", "mpi4py", "rich", "threadpoolctl", "torch", "matplotlib")


def loaded_after(program):
    """Run a program in a new process; return which heavy modules it has loaded at its end."""
    report = f"import sys, json; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\n{report}"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout)


STEPPING = """
import numpy as np
from pint import MGRIT, MGRITOptions
from pint.models.dahlquist import Dahlquist
MGRIT(Dahlquist(), np.arange(9.0), MGRITOptions(driver={!r}, threads={})).solve(1.0)
"""


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import pint", []),
        ("import pint.models.dahlquist, pint.models.heat, pint.models.lorenz", []),
        (STEPPING.format("loop", None), []),
        (STEPPING.format("stack", None), []),
        (STEPPING.format("stack", 2), ["threadpoolctl"]),
    ],
    ids=["pint", "models", "loop", "stack", "threads"],
)
def test_heavy_modules_are_loaded_only_where_they_are_needed(program, expected):
    assert loaded_after(program) == expected


def test_the_compiled_driver_needs_numba():
    assert "numba" in loaded_after(STEPPING.format("compiled", None))
