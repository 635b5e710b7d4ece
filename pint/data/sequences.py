"""Sequences with their targets, in a training and a test part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pint.data.stored import StoredSequences

__all__ = ["Samples", "SequenceData"]

Array = NDArray[Any]
Mask = NDArray[np.bool_]


class Samples(NamedTuple):
    """A batch of sequences with targets and mask.

    Attributes
    ----------
    x : ndarray, shape (samples, time, features)
        The sequences.
    y : ndarray, shape (samples, ...)
        Targets: labels, or numbers.
    mask : ndarray of bool, shape (samples, time), or None
        False where a sequence has no element; None: all True.
    """

    x: NDArray[np.float32]
    y: Array
    mask: Mask | None


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceData:
    """Sequences of one length and their targets, in a training and a test part.

    Parameters
    ----------
    name : str
        Name of the data in tables and files.
    x_train, x_test : ndarray of float32, shape (samples, time, features)
        The sequences: at least one, finite where they have elements, C-contiguous; not copied. Or
        `StoredSequences`, which are read and checked batch by batch.
    y_train, y_test : ndarray
        Labels, int64 in 0..num_classes-1: one for each sequence, shape (samples,), or for each of
        its elements, (samples, time). Without class names, finite float32 numbers of shape
        (samples, outputs) or (samples, time, outputs). Targets of missing elements are ignored. Not
        copied.
    class_names : tuple of str, default ()
        ``class_names[label]`` is the name of a class, which may have no samples. Empty where the
        targets are numbers.
    mask_train, mask_test : ndarray of bool, shape (samples, time), optional
        False where a sequence has no element, for example behind the end of a shorter one. Each
        sequence has at least one element. All True by default.

    Raises
    ------
    ValueError
        If an array has another dtype, shape or memory order, holds a value that is not finite or
        a label outside the classes; if a mask leaves no element of a sequence; or if the two parts
        differ in steps, features or kind of targets.

    Examples
    --------
    >>> import numpy as np
    >>> x, y = np.zeros((3, 5, 2), dtype=np.float32), np.array([0, 1, 0])
    >>> data = SequenceData(
    ...     name="demo", x_train=x, y_train=y, x_test=x, y_test=y, class_names=("low", "high")
    ... )
    >>> data.num_steps, data.num_features, data.num_classes
    (5, 2, 2)
    """

    name: str
    x_train: NDArray[np.float32] | StoredSequences
    y_train: Array
    x_test: NDArray[np.float32] | StoredSequences
    y_test: Array
    class_names: tuple[str, ...] = ()
    mask_train: Mask | None = None
    mask_test: Mask | None = None

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            x, y, mask = (getattr(self, f"{name}_{part}") for name in ("x", "y", "mask"))
            if not isinstance(x, StoredSequences):
                _check_sequences(f"x_{part}", x)
            if mask is not None:
                _check_mask(f"mask_{part}", mask, x.shape[:2])
            if not isinstance(x, StoredSequences):
                _check_finite(f"x_{part}", x, mask)
            if self.is_classification:
                _check_labels(f"y_{part}", y, x.shape[:2], mask, self.num_classes)
            else:
                _check_numbers(f"y_{part}", y, x.shape[:2], mask)
        for name, what in (("x", "steps and features"), ("y", "all but their samples")):
            train, test = getattr(self, f"{name}_train"), getattr(self, f"{name}_test")
            if train.shape[1:] != test.shape[1:]:
                raise ValueError(
                    f"{name}_train and {name}_test must agree in {what}, "
                    f"got {train.shape} and {test.shape}"
                )

    @property
    def is_classification(self) -> bool:
        """True if targets are labels, False if they are numbers."""
        return bool(self.class_names)

    @property
    def is_per_step(self) -> bool:
        """True if each element of a sequence has a target, False if each sequence has one."""
        return self.y_train.ndim == (2 if self.is_classification else 3)

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 where targets are numbers."""
        return len(self.class_names)

    @property
    def num_outputs(self) -> int:
        """Number of scores that a network must return: one for each class or number."""
        return self.num_classes if self.is_classification else int(self.y_train.shape[-1])

    @property
    def num_steps(self) -> int:
        """Number of time steps of every sequence, including missing elements."""
        return int(self.x_train.shape[1])

    @property
    def num_features(self) -> int:
        """Number of features at every step."""
        return int(self.x_train.shape[2])

    def train(self, chosen: slice | NDArray[np.int64]) -> Samples:
        """Return some sequences of the training part; a slice of it is a view."""
        mask = None if self.mask_train is None else self.mask_train[chosen]
        return Samples(self.x_train[chosen], self.y_train[chosen], mask)

    def test(self, chosen: slice | NDArray[np.int64]) -> Samples:
        """Return some sequences of the test part; a slice of it is a view."""
        mask = None if self.mask_test is None else self.mask_test[chosen]
        return Samples(self.x_test[chosen], self.y_test[chosen], mask)


def _check_dtype(name: str, array: object, dtype: Any, remedy: str = "") -> None:
    found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
    if found != np.dtype(dtype):
        raise ValueError(f"{name} must be an array of {np.dtype(dtype)}, got {found}{remedy}")


def _check_sequences(name: str, x: NDArray[np.float32]) -> None:
    _check_dtype(name, x, np.float32)
    if x.ndim != 3 or x.size == 0:
        raise ValueError(f"{name} must have shape (samples, time, features), got {x.shape}")
    if not x.flags.c_contiguous:
        raise ValueError(f"{name} must be C-contiguous: pass np.ascontiguousarray({name})")


def _check_mask(name: str, mask: Mask, elements: tuple[int, int]) -> None:
    _check_dtype(name, mask, np.bool_)
    if mask.shape != elements:
        raise ValueError(f"{name} must have shape {elements} like its x, got {mask.shape}")
    empty = ~mask.any(axis=1)
    if empty.any():
        raise ValueError(f"{name} leaves sample {int(empty.argmax())} without any element")


def _check_finite(name: str, values: Array, mask: Mask | None, last: str = "feature") -> None:
    """Raise unless values (samples[, time], n) are finite wherever sequences have elements."""
    finite = np.isfinite(values)
    if mask is not None and values.ndim == 3:
        finite |= ~mask[..., None]
    _raise_at(name, values, ~finite, "must be finite", last)


def _raise_at(name: str, values: Array, wrong: Mask, what: str, last: str = "") -> None:
    """Raise for the first wrong value, with its place."""
    if wrong.any():
        place = np.argwhere(wrong)[0].tolist()
        axes = [*("sample", "step")[: len(place) - bool(last)], last]
        at = ", ".join(f"{axis} {index}" for axis, index in zip(axes, place, strict=False))
        raise ValueError(f"{name} {what}, got {values[tuple(place)]} in {at}")


def _check_labels(
    name: str, y: Array, elements: tuple[int, int], mask: Mask | None, num_classes: int
) -> None:
    remedy = ": numbers to be predicted go without class_names"
    _check_dtype(name, y, np.int64, remedy if getattr(y, "dtype", None) == np.float32 else "")
    if y.shape not in (elements[:1], elements):
        raise ValueError(
            f"{name} must have shape {elements[:1]} or {elements} like its x, got {y.shape}"
        )
    outside = (y < 0) | (y >= num_classes)
    if mask is not None and y.ndim == 2:
        outside &= mask
    _raise_at(name, y, outside, f"must lie in 0..{num_classes - 1} ({num_classes} class names)")


def _check_numbers(name: str, y: Array, elements: tuple[int, int], mask: Mask | None) -> None:
    remedy = ": labels go with class_names"
    _check_dtype(name, y, np.float32, remedy if getattr(y, "dtype", None) == np.int64 else "")
    if y.shape[:-1] not in (elements[:1], elements) or y.size == 0:
        samples, time = elements
        raise ValueError(
            f"{name} must have shape ({samples}, outputs) or ({samples}, {time}, outputs) like "
            f"its x, got {y.shape}"
        )
    _check_finite(name, y, mask, "feature" if y.ndim == 3 else "output")
