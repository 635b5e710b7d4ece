"""Show live progress over clips: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .extraction import Outcome

__all__ = ["ClipProgress"]

SECONDS_BETWEEN_LINES = 5.0


class ClipProgress:
    """Shows finished clips, frames per second and the remaining time; a context manager.

    Parameters
    ----------
    num_clips : int
        Number of all clips.
    num_pending : int
        Number of clips that are processed now.
    console : rich.console.Console
        The console to write to.
    """

    def __init__(self, num_clips: int, num_pending: int, console: Console) -> None:
        self.console = console
        self.done, self.num_clips = num_clips - num_pending, num_clips
        self.num_frames = 0
        self.began = self.last_line = time.monotonic()
        self.bar = Progress(
            TextColumn("clips"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.task = self.bar.add_task("clips", total=num_clips, completed=self.done, speed="")

    def __enter__(self) -> ClipProgress:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def clip(self, outcome: Outcome) -> None:
        """Count a finished clip."""
        self.done += 1
        self.num_frames += 0 if outcome.features is None else len(outcome.features)
        now = time.monotonic()
        speed = f"{self.num_frames / (now - self.began):.0f} frames/s"
        self.bar.update(self.task, completed=self.done, speed=speed)
        if self.bar.disable and now > self.last_line + SECONDS_BETWEEN_LINES:
            self.last_line = now
            self.console.print(f"  {self.done}/{self.num_clips} clips, {speed}", highlight=False)
