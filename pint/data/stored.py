"""Sequences in a file, read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import h5py

__all__ = ["StoredSequences"]


class StoredSequences:
    """Rows of an HDF5 dataset that are read when they are indexed, in place of an array.

    The file stays open as long as this object. Every rank may open the file.

    Parameters
    ----------
    dataset : h5py.Dataset of a float type, shape (n, time, features)
        All sequences, finite, chunked by sequence.
    rows : ndarray of int64, shape (samples,)
        The rows of the dataset, in the order of the samples.
    names : sequence of str, optional
        Names of the dataset's sequences in errors; their numbers by default.

    Examples
    --------
    >>> import h5py, numpy as np
    >>> with h5py.File("demo.h5", "w", driver="core", backing_store=False) as file:
    ...     dataset = file.create_dataset("x", data=np.arange(24, dtype="f2").reshape(4, 3, 2))
    ...     x = StoredSequences(dataset, np.array([3, 1]))
    ...     print(x.shape, x[:1].ravel())
    (2, 3, 2) [18. 19. 20. 21. 22. 23.]
    """

    def __init__(
        self, dataset: h5py.Dataset, rows: NDArray[np.int64], names: Sequence[str] | None = None
    ) -> None:
        self._dataset, self._rows, self._names = dataset, rows, names

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of samples, steps and features."""
        _, time, features = self._dataset.shape
        return self._rows.size, time, features

    def __len__(self) -> int:
        return self._rows.size

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Read one sequence after another."""
        return (self[index : index + 1][0] for index in range(len(self)))

    def __getitem__(self, chosen: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Read some sequences.

        Parameters
        ----------
        chosen : slice or ndarray of int64
            The samples to read, in any order.

        Returns
        -------
        ndarray of float32, shape (chosen, time, features)
            New.

        Raises
        ------
        ValueError
            If a sequence cannot be read, or holds a value that is not finite.
        """
        rows = self._rows[chosen]
        read = np.empty((rows.size, *self.shape[1:]), dtype=np.float32)
        for sequence, row in zip(read, rows, strict=True):
            try:
                sequence[...] = self._dataset[row]
            except OSError as error:
                raise ValueError(f"{self._name(row)} cannot be read: {error}") from error
            if not np.isfinite(sequence).all():
                raise ValueError(f"{self._name(row)} holds values that are not finite")
        return read

    def _name(self, row: int) -> str:
        """Return the file and the name of a sequence, for an error."""
        name = f"sequence {row}" if self._names is None else self._names[row]
        return f"{self._dataset.file.filename}: {name}"
