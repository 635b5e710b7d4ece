"""Live progress of a training run: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import math
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from pint.train.log import EpochMeans, TrainingProgress

SECONDS_BETWEEN_LINES = 5.0


class ConsoleProgress(TrainingProgress):
    """Show bar, loss, accuracy, seconds per batch and residual; a context manager.

    Parameters
    ----------
    num_epochs : int
        Number of epochs, for the bar.
    console : rich.console.Console, optional
        Terminal or file that shows it.
    rank : int, default 0
        Number of this process; only process 0 shows anything.
    """

    def __init__(self, num_epochs: int, console: Console | None = None, rank: int = 0) -> None:
        self.console = Console(quiet=rank > 0) if console is None else console
        self.num_epochs = num_epochs
        self.last_line = time.monotonic()
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=rank > 0 or not self.console.is_terminal,
            transient=True,
        )
        self.task = self.bar.add_task("training", total=None, figures="")

    def __enter__(self) -> ConsoleProgress:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def batch(self, epoch: int, index: int, num_batches: int, means: EpochMeans) -> None:
        """Move the bar; where there is none, as under mpiexec, print a line every few seconds."""
        columns = means.columns()
        accuracy = f"accuracy {columns['train_accuracy']:.0%} " if means.classifies else ""
        figures = (
            f"loss {_loss(columns['train_loss'])} {accuracy}"
            f"{means.seconds / means.num_batches:.3f} s/batch "
            f"residual {_residual(columns['forward_residual'])}"
        )
        if self.bar.disable and time.monotonic() > self.last_line + SECONDS_BETWEEN_LINES:
            self._line(f"  epoch {epoch}, batch {index}/{num_batches}: {figures}")
        self.bar.update(
            self.task,
            description=f"epoch {epoch}/{self.num_epochs}",
            completed=(epoch - 1) * num_batches + index,
            total=self.num_epochs * num_batches,
            figures=figures,
        )

    def epoch(self, row: dict[str, float]) -> None:
        """Print one line."""
        self._line(
            f"epoch {row['epoch']:3.0f}  loss {_loss(row['train_loss'])}  {_tested(row)}  "
            f"{row['seconds']:6.2f} s  residual {_residual(row['forward_residual'])}"
        )

    def _line(self, text: str) -> None:
        self.last_line = time.monotonic()
        self.console.print(text, highlight=False, soft_wrap=True)


def _tested(row: dict[str, float]) -> str:
    """Return the accuracies of the test part, or its errors, as text."""
    if "exact_test_error" in row:
        return f"test {row['parallel_test_error']:.4g} parallel {row['exact_test_error']:.4g} exact"
    return (
        f"train {row['train_accuracy']:6.1%}  test {row['parallel_test_accuracy']:6.1%} parallel "
        f"{row['exact_test_accuracy']:6.1%} exact"
    )


def _loss(value: float) -> str:
    """Return a loss in at most six figures; squared errors may be small."""
    return f"{value:.4f}" if value >= 0.01 else f"{value:.2e}"


def _residual(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.1e}"
