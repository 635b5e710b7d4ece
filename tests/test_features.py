"""Features as training data: parts, masks, batches read when they are asked for, and bad files."""

import fcntl
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from apps.hmdb51.clips import Clips
from apps.hmdb51.feature_layout import FeatureOptions
from apps.hmdb51.feature_writer import FeatureFile
from pint.data import hmdb51 as features
from pint.data.feature_file import TEST, TRAIN
from pint.data.hmdb51 import load_features
from pint.data.stored import StoredSequences

PARTS = np.array([TRAIN, TEST, TRAIN, TRAIN, TEST], np.uint8)
LENGTHS = (4, 1, 2, 3, 4)


def features_of(clip):
    return np.random.default_rng(clip).standard_normal((LENGTHS[clip], 1000)).astype(np.float16)


def write_features(path, parts=PARTS, skip=()):
    clips = Clips(
        names=tuple(f"walk/{number}.avi" for number in range(5)),
        labels=np.array([0, 0, 1, 1, 1]),
        class_names=("sit", "walk"),
        parts=parts,
    )
    options = FeatureOptions(model_sha256="00", frames=4, size=8)
    with FeatureFile(path, clips, options) as file:
        for clip in range(5):
            if clip in skip:
                file.skip(clip, "broken")
            else:
                file.store(clip, features_of(clip))
        file.finish(parts, "official 1")
    return path


def test_parts_labels_and_masks(tmp_path):
    data = load_features(write_features(tmp_path / "f.h5", skip=[2]))
    assert (data.name, data.class_names) == ("hmdb51", ("sit", "walk"))
    assert (data.num_steps, data.num_features, data.num_classes) == (4, 1000, 2)
    assert data.y_train.tolist() == [0, 1]
    assert data.y_test.tolist() == [0, 1]
    assert data.mask_train.sum(axis=1).tolist() == [4, 3]
    assert data.mask_test.tolist() == [[True, False, False, False], [True] * 4]
    assert data.x_train.shape == (2, 4, 1000)


def test_batches_are_single_precision_in_the_order_asked_for(tmp_path):
    data = load_features(write_features(tmp_path / "f.h5"))
    x, y, mask = data.train(np.array([2, 0]))
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x[0, :3], features_of(3))
    assert not x[0, 3:].any()
    np.testing.assert_array_equal(x[1], features_of(0))
    assert y.tolist() == [1, 0]
    assert mask.sum(axis=1).tolist() == [3, 4]
    np.testing.assert_array_equal(data.test(slice(1, None)).x[0], features_of(4))
    np.testing.assert_array_equal(
        data.x_test[:], np.concatenate([data.x_test[i : i + 1] for i in (0, 1)])
    )


def test_only_what_is_asked_for_is_read():
    class Watched:
        shape = (9, 2, 3)

        def __init__(self):
            self.read = []

        def __getitem__(self, row):
            self.read.append(int(row))
            return np.zeros(self.shape[1:])

    dataset = Watched()
    x = StoredSequences(dataset, np.array([1, 4, 6, 8]))
    assert x.shape == (4, 2, 3)
    assert len(x) == 4
    assert dataset.read == []
    assert x[np.array([3, 0])].shape == (2, 2, 3)
    assert dataset.read == [8, 1]
    assert next(iter(x)).shape == (2, 3)
    assert dataset.read == [8, 1, 1]


def test_files_that_are_not_ready(tmp_path):
    path = write_features(tmp_path / "f.h5")
    with h5py.File(path, "r+") as file:
        file["part"][:] = TRAIN
    with pytest.raises(ValueError, match="has 5 clips for training and 0 for the test"):
        load_features(path)
    with h5py.File(path, "r+") as file:
        file["finished"][...] = False
        file["num_frames"][3] = 0
    with pytest.raises(ValueError, match="is not finished, 4 clips so far: give the command"):
        load_features(path)
    with open(path, "rb+") as elsewhere:
        fcntl.flock(elsewhere, fcntl.LOCK_EX)  # as HDF5 does
        with pytest.raises(OSError, match="another process is at work on it"):
            load_features(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_features(tmp_path / "no.h5")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named_when_they_are_read(tmp_path, value):
    path = write_features(tmp_path / "f.h5")
    with h5py.File(path, "r+") as file:
        file["features"][3, 1, 7] = value
    data = load_features(path)
    assert np.isfinite(data.train(slice(0, 2)).x).all()
    with pytest.raises(ValueError, match=r"f\.h5: walk/3\.avi holds values that are not finite"):
        data.train(np.array([0, 2]))


def test_sequences_that_cannot_be_read_are_named():
    class Broken:
        shape = (9, 2, 3)
        file = SimpleNamespace(filename="f.h5")

        def __getitem__(self, row):
            raise OSError("Can't read data")

    with pytest.raises(ValueError, match=r"f\.h5: sequence 4 cannot be read: Can't read data"):
        StoredSequences(Broken(), np.array([1, 4]))[1:]


def test_a_file_is_closed_whatever_happens(tmp_path, monkeypatch):
    path = write_features(tmp_path / "f.h5")
    with monkeypatch.context() as patched:
        patched.setattr(features, "StoredSequences", {}.__getitem__)
        with pytest.raises(TypeError) as caught:
            load_features(path)
    h5py.File(path, "r+").close()
    assert caught.tb  # which keeps alive what the call has left open
