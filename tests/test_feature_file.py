"""The file of features: what it holds, what it refuses, and that its structure stays as it is."""

import dataclasses
import shutil

import h5py
import numpy as np
import pytest

from apps.hmdb51.clips import Clips
from apps.hmdb51.feature_layout import FeatureOptions
from apps.hmdb51.feature_writer import FeatureFile
from pint.data.feature_file import TEST, TRAIN, UNUSED, open_features

OPTIONS = FeatureOptions(model_sha256="00ff", frames=4, size=8)


def some_clips(count=5):
    return Clips(
        names=tuple(f"walk/clip {number} é.avi" for number in range(count)),
        labels=np.zeros(count, np.int64),
        class_names=("walk", "zzz"),
        parts=np.full(count, TRAIN, np.uint8),
    )


def some_features(frames, seed=0, dtype=np.float16):
    return np.random.default_rng(seed).standard_normal((frames, 1000)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_round_trip(tmp_path, dtype):
    path, options = tmp_path / "f.h5", dataclasses.replace(OPTIONS, dtype=dtype)
    with FeatureFile(path, some_clips(), options, {"model": "m.onnx", "batch": 3}) as file:
        assert file.pending().tolist() == [0, 1, 2, 3, 4]
        file.store(3, some_features(4, 3, dtype))
        file.store(0, some_features(2, 0, dtype))
        file.skip(2, "why: it ends\n" + "x" * 300)
        assert file.pending().tolist() == [1, 2, 4]
        assert file.stored().tolist() == [0, 3]
        assert list(file.skipped()) == ["walk/clip 2 é.avi"]
        file.finish(np.array([TRAIN, TRAIN, TRAIN, TEST, TEST], np.uint8), "drawn, seed 0")
    with open_features(path) as got:
        assert got["features"].dtype == dtype
        assert got["features"].chunks == (1, 4, 1000)
        np.testing.assert_array_equal(got["features"][3], some_features(4, 3, dtype))
        np.testing.assert_array_equal(got["features"][0, :2], some_features(2, 0, dtype))
        assert not got["features"][0, 2:].any()
        assert got["num_frames"][:].tolist() == [2, 0, 0, 4, 0]
        assert got["state"][:].tolist() == [1, 0, 2, 1, 0]
        assert got["part"][:].tolist() == [TRAIN, 0, 0, TEST, 0]
        assert got["finished"][()]
        assert got["class_names"].asstr()[:].tolist() == ["walk", "zzz"]
        assert got["clip"].asstr()[0] == "walk/clip 0 é.avi"
        assert got["reason"].asstr()[2].startswith("why: it ends")
        assert got.attrs["model_sha256"] == "00ff"
        assert got.attrs["split"] == b"drawn, seed 0"
        assert (got.attrs["model"], got.attrs["batch"], got.attrs["frames"]) == ("m.onnx", 3, 4)
        assert got.attrs["numpy_version"] == np.__version__
        assert all("description" in dataset.attrs for dataset in got.values())


def test_filling_changes_values_alone(tmp_path):
    """All else in the file keeps its bytes, so that there is no time at which it is no file."""
    path = tmp_path / "f.h5"
    FeatureFile(path, some_clips(), OPTIONS).__exit__(None, None, None)
    with h5py.File(path) as file:
        places = [(d.id.get_offset(), d.nbytes) for d in file.values() if d.chunks is None]
        chunks = file["features"].id
        stored = [chunks.get_chunk_info(number) for number in range(chunks.get_num_chunks())]
        places += [(chunk.byte_offset, chunk.size) for chunk in stored]
        assert len(stored) == 5
    before, split = path.read_bytes(), "drawn, seed 0"
    with FeatureFile(path, some_clips(), OPTIONS) as file:
        for clip in range(4):
            file.store(clip, some_features(1 + clip, clip))
        file.skip(4, "broken")
        file.finish(np.array([TRAIN, TEST] * 2 + [TRAIN], np.uint8), split)
    after = path.read_bytes()
    changed = {int(at) for at in np.flatnonzero(np.frombuffer(before, "u1") != list(after))}
    assert changed
    places.append((after.index(split.encode()), len(split)))
    for offset, size in places:
        changed -= set(range(offset, offset + size))
    assert not changed


def test_every_state_on_the_disk_can_be_read(tmp_path, monkeypatch):
    """A copy made at each flush opens, and the clips that it calls stored are."""
    path, copies = tmp_path / "f.h5", []
    flush = h5py.File.flush

    def flush_and_copy(file):
        flush(file)
        copies.append(shutil.copy(path, tmp_path / f"copy{len(copies)}.h5"))

    monkeypatch.setattr(h5py.File, "flush", flush_and_copy)
    with FeatureFile(path, some_clips(), OPTIONS) as file:
        for clip in range(5):
            file.store(clip, some_features(4, clip))
    counts = []
    for copy in copies:
        with h5py.File(copy) as file:
            stored = np.flatnonzero(file["state"][:] == 1)
            counts.append(len(stored))
            for clip in stored:
                np.testing.assert_array_equal(file["features"][clip], some_features(4, clip))
    assert counts == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]


def test_a_file_is_gone_on_with(tmp_path):
    """What was skipped is tried again."""
    path = tmp_path / "f.h5"
    with FeatureFile(path, some_clips(), OPTIONS) as file:
        file.store(1, some_features(4, 1))
        file.skip(2, "was away")
    with FeatureFile(path, some_clips(), OPTIONS) as file:
        assert file.pending().tolist() == [0, 2, 3, 4]
        file.store(2, some_features(3, 2))
        assert file.skipped() == {}
    with open_features(path) as got:
        np.testing.assert_array_equal(got["features"][1], some_features(4, 1))
        assert got["num_frames"][:].tolist() == [0, 4, 3, 0, 0]
        assert not got["finished"][()]


def finished_file(path):
    """Write a file whose clips are for training but one, for the test."""
    with FeatureFile(path, some_clips(), OPTIONS) as file:
        for clip in range(5):
            file.store(clip, some_features(4, clip))
        assert file.finish(np.array([TRAIN] * 4 + [TEST], np.uint8), "drawn, seed 0") == 0


def with_parts(parts):
    return dataclasses.replace(some_clips(), parts=np.array(parts, np.uint8))


def test_another_split_of_a_finished_file(tmp_path):
    """Nothing is left to do; parts and their description are rewritten."""
    path, clips = tmp_path / "f.h5", with_parts([TEST, UNUSED, TRAIN, TRAIN, TEST])
    finished_file(path)
    with FeatureFile(path, clips, OPTIONS) as file:
        assert file.pending().size == 0
        assert file.stored().tolist() == [0, 2, 3, 4]
        assert file.finish(clips.parts, "official 1") == 2
    with open_features(path) as got:
        assert got["part"][:].tolist() == clips.parts.tolist()
        assert got.attrs["split"] == b"official 1"
        assert got["finished"][()]
        np.testing.assert_array_equal(got["features"][1], some_features(4, 1))


def test_clips_that_no_split_has_used_are_left_to_do(tmp_path):
    path = tmp_path / "f.h5"
    first, second = with_parts([TRAIN, UNUSED, TEST, TEST, UNUSED]), some_clips()
    with FeatureFile(path, first, OPTIONS) as file:
        assert file.pending().tolist() == [0, 2, 3]
        file.store(0, some_features(4, 0))
        file.store(2, some_features(4, 2))
        file.skip(3, "broken")
        file.finish(first.parts, "official 1")
    with FeatureFile(path, second, OPTIONS) as file:
        assert file.pending().tolist() == [1, 3, 4]
    with FeatureFile(path, with_parts([TRAIN, TRAIN, TEST, UNUSED, UNUSED]), OPTIONS) as file:
        assert file.pending().tolist() == [1]
        assert file.skipped() == {}


def test_a_split_without_a_part_changes_nothing(tmp_path):
    path = tmp_path / "f.h5"
    finished_file(path)
    before = path.read_bytes()
    with (
        FeatureFile(path, some_clips(), OPTIONS) as file,
        pytest.raises(ValueError, match=r"f\.h5 has 5 clips for training and 0 for the test"),
    ):
        file.finish(np.full(5, TRAIN, np.uint8), "official 1")
    assert path.read_bytes() == before


def test_every_state_of_another_split_on_the_disk(tmp_path, monkeypatch):
    """A copy made at each flush is not finished, or has the parts that it says."""
    path, copies = tmp_path / "f.h5", []
    finished_file(path)
    flush = h5py.File.flush

    def flush_and_copy(file):
        flush(file)
        copies.append(shutil.copy(path, tmp_path / f"copy{len(copies)}.h5"))

    clips = with_parts([TEST, TRAIN, TRAIN, TRAIN, TRAIN])
    with FeatureFile(path, clips, OPTIONS) as file:
        monkeypatch.setattr(h5py.File, "flush", flush_and_copy)
        file.finish(clips.parts, "official 1")
    states = []
    for copy in copies:
        with open_features(copy) as got:
            is_new = got["part"][0] == TEST and got.attrs["split"] == b"official 1"
            states.append((bool(got["finished"][()]), bool(is_new)))
    assert states == [(False, False), (False, True), (True, True)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frames", 5),
        ("size", 9),
        ("dtype", "float32"),
        ("model_sha256", "11"),
    ],
)
def test_changed_options_are_refused(tmp_path, name, value):
    path = tmp_path / "f.h5"
    FeatureFile(path, some_clips(), OPTIONS).__exit__(None, None, None)
    before = getattr(OPTIONS, name)
    with pytest.raises(ValueError, match=f"was begun with {name} {before}, now it is {value}: "):
        FeatureFile(path, some_clips(), dataclasses.replace(OPTIONS, **{name: value}))


def test_other_clips_are_refused(tmp_path):
    path = tmp_path / "f.h5"
    FeatureFile(path, some_clips(4), OPTIONS).__exit__(None, None, None)
    with pytest.raises(ValueError, match="begun with 4 clips, now there are 5: walk/clip 4 é"):
        FeatureFile(path, some_clips(5), OPTIONS)
    with pytest.raises(ValueError, match="now there are 3: walk/clip 3 é"):
        FeatureFile(path, some_clips(3), OPTIONS)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "f.h5"
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_features(path)
    path.write_text("text")
    with pytest.raises(ValueError, match=r"cannot be opened as HDF5: .*signature not found"):
        FeatureFile(path, some_clips(), OPTIONS)
    assert path.read_text() == "text"
    with h5py.File(path, "w") as file:
        file.attrs["format_version"] = 1
    with pytest.raises(ValueError, match="holds no features of clips"):
        open_features(path)
    with h5py.File(path, "r+") as file:
        file.attrs.update({"kind": "clip features", "format_version": 2})
    with pytest.raises(ValueError, match="format version 2, this pint reads up to 1"):
        open_features(path)


def removed(name):
    def damage(file):
        del file[name]

    return damage


def without_attribute(name):
    return lambda file: file.attrs.__delitem__(name)


def replaced(name, values):
    def damage(file):
        del file[name]
        file[name] = values

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (removed("finished"), "no dataset finished"),
        (removed("clip"), "no dataset clip"),
        (removed("features"), "no dataset features"),
        (without_attribute("size"), "no attribute size"),
        (without_attribute("format_version"), "no attribute format_version"),
        (replaced("label", [0, 1, 1]), r"label has the shape \(3,\), expected \(5,\)"),
        (replaced("label", [0, 1, 1, 2, 1]), r"label must lie in 0\.\.1, got 2"),
        (replaced("num_frames", [5] * 5), r"num_frames must lie in 0\.\.4, got 5"),
        (replaced("class_names", [1.0, 2.0]), "class_names has the type float64"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_files(tmp_path, damage, message):
    path = tmp_path / "f.h5"
    FeatureFile(path, some_clips(), OPTIONS).__exit__(None, None, None)
    with h5py.File(path, "r+") as file:
        damage(file)
    for use in (open_features, lambda path: FeatureFile(path, some_clips(), OPTIONS)):
        with pytest.raises(ValueError, match=rf"f\.h5: damaged: {message}"):
            use(path)
    h5py.File(path, "r+").close()  # it is not open


def test_damaged_bytes(tmp_path):
    path = tmp_path / "f.h5"
    FeatureFile(path, some_clips(), OPTIONS).__exit__(None, None, None)
    path.write_bytes(path.read_bytes().replace("3 é".encode(), b"3 \xff\xff"))
    with pytest.raises(ValueError, match=r"f\.h5: damaged: 'utf-8' codec can't decode"):
        open_features(path)


def test_half_a_file(tmp_path):
    path = tmp_path / "f.h5"
    FeatureFile(path, some_clips(), OPTIONS).__exit__(None, None, None)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"f\.h5: cannot be opened as HDF5: .*truncated"):
        open_features(path)


def test_a_file_that_may_not_be_read_or_written(tmp_path, monkeypatch):
    path = tmp_path / "f.h5"
    FeatureFile(path, some_clips(), OPTIONS).__exit__(None, None, None)
    whole = h5py.File

    def refuse(mode):
        def opened(path, asked):
            if asked == mode:
                raise PermissionError(13, "Unable to synchronously open file (unable to ...)")
            return whole(path, asked)

        return opened

    monkeypatch.setattr(h5py, "File", refuse("r"))
    with pytest.raises(PermissionError, match=r"f\.h5: no permission to read it$"):
        open_features(path)
    monkeypatch.setattr(h5py, "File", refuse("r+"))
    with pytest.raises(PermissionError, match=r"f\.h5: no permission to write it$"):
        FeatureFile(path, some_clips(), OPTIONS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"frames": 0}, "frames must be at least 1, got 0"),
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"dtype": "int8"}, "dtype must be float16 or float32, got 'int8'"),
    ],
    ids=["frames", "size", "dtype"],
)
def test_wrong_options(wrong, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(OPTIONS, **wrong)
