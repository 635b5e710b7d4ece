"""Options that the Delta correction and the adjoint must go together with.

Each is a change of options with 3 levels; what does not go together says so.
"""

import numpy as np

CHOICES = {
    "F-cycles": {"cycle": "F", "v_cycles_per_level": 2},
    "an F-cycle, then V-cycles": {"cycle": "F", "f_cycle_iterations": 1},
    "W-cycles": {"cycle": "W", "levels": 4},
    "weights": {"relax_weight": (0.8, 1.2), "relax": (1, 2)},
    "a coarsest level that is relaxed": {"coarsest": "relaxation", "relax_weight": 0.9},
    "factor 1": {"coarsening": (1, 2)},
    "factor 1 below": {"coarsening": (3, 1)},
    "1-norm": {"time_norm": 1},
    "maximum norm, all points": {"time_norm": np.inf, "residual_points": "all_points"},
    "min_coarse": {"levels": 9, "min_coarse": 1, "coarsening": (2, 3)},
    "local tolerance": {"local_tolerance": 1e-3},
    "coarsest in turn": {"coarsest": "pipelined", "relax": 0},
    "skip": {"skip_first_down": True, "cycle": "F"},
}
POINTS = {"chosen C-points": {"coarsening": ((0, 1, 2, 7, 10, 13, 14, 20, 26, 40), 2)}}
