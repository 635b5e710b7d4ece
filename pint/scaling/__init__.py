"""What a run will cost: the schedule that a solver executes, walked with costs for arrays."""

from pint.scaling.costs import Costs, Machine
from pint.scaling.schedule import PredictedRun, Schedule
from pint.scaling.simulate import Timing, simulate

__all__ = ["Costs", "Machine", "PredictedRun", "Schedule", "Timing", "simulate"]
