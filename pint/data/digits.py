"""Read the handwritten digits of scikit-learn pixel by pixel."""

from __future__ import annotations

import numpy as np

from pint.data.sequences import SequenceData
from pint.optional import import_extra

_DIGITS_SEED = 0


def load_digits() -> SequenceData:
    """Load the handwritten digits of scikit-learn as sequences of pixels.

    Each of the 1797 images of 8 x 8 pixels becomes a sequence of 64 steps, row after row, with
    one feature: the pixel's grey value, divided by 16 so that it lies in [0, 1]. One fifth of the
    images, with an equal share of every class (stratified), are the test part: 1437 images for
    training and 360 for the test. A fixed seed determines the split.

    Returns
    -------
    SequenceData
        New arrays, 10 classes named "0" to "9", 64 steps, 1 feature.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.

    References
    ----------
    E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998, https://doi.org/10.24432/C50P49.

    Examples
    --------
    >>> load_digits().x_train.shape
    (1437, 64, 1)
    """
    digits = import_extra("sklearn.datasets", "data").load_digits()
    train_test_split = import_extra("sklearn.model_selection", "data").train_test_split
    x = (digits.data[:, :, np.newaxis] / 16).astype(np.float32)
    y = digits.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=0.2, random_state=_DIGITS_SEED, stratify=y
    )
    return SequenceData(
        name="digits",
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        class_names=tuple(str(digit) for digit in digits.target_names),
    )
