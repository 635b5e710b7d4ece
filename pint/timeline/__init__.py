"""Timelines: record the phases of all ranks, merge them, and write or draw them."""

from pint.timeline.clocks import clock_offset
from pint.timeline.events import Events
from pint.timeline.figure import draw_events, save_figure
from pint.timeline.recorder import Timeline
from pint.timeline.trace import write_trace

__all__ = ["Events", "Timeline", "clock_offset", "draw_events", "save_figure", "write_trace"]
