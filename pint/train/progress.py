"""Live progress of a training run: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import math
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from pint.train.trainer import EpochMeans, Progress


class ConsoleProgress(Progress):
    """Shows bar, loss, accuracy, seconds per batch and residual; a context manager.

    Parameters
    ----------
    num_epochs : int
        Number of epochs, for the bar.
    console : rich.console.Console, optional
        Where to show it.
    """

    def __init__(self, num_epochs: int, console: Console | None = None) -> None:
        self.console = Console() if console is None else console
        self.num_epochs = num_epochs
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.task = self.bar.add_task("training", total=None, numbers="")

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
        """Move the bar."""
        columns = means.columns()
        numbers = (
            f"loss {columns['train_loss']:.4f}  accuracy {columns['train_accuracy']:.1%}  "
            f"{means.seconds / means.num_batches:.3f} s/batch  "
            f"residual {_residual(columns['forward_residual'])}"
        )
        self.bar.update(
            self.task,
            description=f"epoch {epoch}/{self.num_epochs}",
            completed=(epoch - 1) * num_batches + index,
            total=self.num_epochs * num_batches,
            numbers=numbers,
        )

    def epoch(self, row: dict[str, float]) -> None:
        """Print one line."""
        self.console.print(
            f"epoch {row['epoch']:3.0f}  loss {row['train_loss']:.4f}  "
            f"train {row['train_accuracy']:6.1%}  "
            f"test {row['parallel_test_accuracy']:6.1%} parallel "
            f"{row['exact_test_accuracy']:6.1%} exact  "
            f"{row['seconds']:6.2f} s  residual {_residual(row['forward_residual'])}",
            highlight=False,
            soft_wrap=True,
        )


def _residual(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.1e}"
