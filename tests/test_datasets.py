"""The data sets: what they hold, and that every defect of a file is named with its line."""

import io
import os
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pint.data.digits import load_digits
from pint.data.har import SequenceData, load_har

CHANNELS = tuple(
    f"{signal}_{axis}" for signal in ("body_acc", "body_gyro", "total_acc") for axis in "xyz"
)
NAMES = ("WALKING", "WALKING_UPSTAIRS", "WALKING_DOWNSTAIRS", "SITTING", "STANDING", "LAYING")
LABELS = {"train": (5, 1, 6, 2, 3, 4), "test": (2, 6, 1)}
SIGNAL = "test/Inertial Signals/body_gyro_z_test.txt"


# --- SequenceData ---------------------------------------------------------------------------


def sequence_data(**changes: Any) -> SequenceData:
    """Make valid data of 4 and 2 sequences, 5 steps, 3 features and 2 classes, changed as asked."""
    fields: dict[str, Any] = {
        "name": "demo",
        "x_train": np.ones((4, 5, 3), dtype=np.float32),
        "y_train": np.array([0, 1, 1, 0]),
        "x_test": np.ones((2, 5, 3), dtype=np.float32),
        "y_test": np.array([1, 0]),
        "class_names": ("a", "b"),
    }
    return SequenceData(**(fields | changes))


def test_sizes_come_from_the_arrays() -> None:
    data = sequence_data()
    assert (data.num_classes, data.num_steps, data.num_features) == (2, 5, 3)


def with_value(value: float) -> np.ndarray[Any, Any]:
    x = np.ones((2, 5, 3), dtype=np.float32)
    x[1, 4, 2] = value
    return x


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.ones((4, 5, 3))}, r"x_train must be an array of float32, got float64"),
        ({"x_test": [[[1.0]]]}, r"x_test must be an array of float32, got list"),
        ({"x_train": np.ones((4, 5), np.float32)}, r"x_train must have shape .*got \(4, 5\)"),
        ({"x_test": np.ones((0, 5, 3), np.float32)}, r"x_test must have shape .*got \(0, 5, 3\)"),
        ({"x_train": np.ones((3, 5, 4), np.float32).T}, r"x_train must be C-contiguous"),
        ({"x_test": with_value(np.nan)}, r"x_test .*got nan in sample 1, step 4, feature 2"),
        ({"x_test": with_value(-np.inf)}, r"x_test .*got -inf in sample 1, step 4, feature 2"),
        ({"x_test": np.ones((2, 6, 3), np.float32)}, r"steps .*, 5, 3\) and \(\d+, 6, 3\)"),
        ({"x_test": np.ones((2, 5, 1), np.float32)}, r"steps .*, 5, 3\) and \(\d+, 5, 1\)"),
        ({"y_train": np.zeros(4, np.int32)}, r"y_train must be an array of int64, got int32"),
        ({"y_train": np.zeros(3, np.int64)}, r"y_train must have shape \(4,\) .*got \(3,\)"),
        ({"y_test": np.zeros((2, 1), np.int64)}, r"y_test must have shape \(2,\) .*got \(2, 1\)"),
        ({"y_test": np.array([0, 2])}, r"y_test must lie in 0\.\.1 .*got 2 in sample 1"),
        ({"y_train": np.array([0, 0, -1, 0])}, r"y_train must lie in .*got -1 in sample 2"),
    ],
)
def test_invalid_arrays_are_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sequence_data(**changes)


# --- digits ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> SequenceData:
    pytest.importorskip("sklearn")
    return load_digits()


def test_digits_have_the_documented_shape(digits: SequenceData) -> None:
    assert digits.x_train.shape == (1437, 64, 1)
    assert digits.x_test.shape == (360, 64, 1)
    assert digits.class_names == tuple("0123456789")


def test_digits_split_is_a_partition_of_the_images(digits: SequenceData) -> None:
    source = pytest.importorskip("sklearn.datasets").load_digits()
    expected = sorted(
        (label, *image.ravel()) for image, label in zip(source.images, source.target, strict=True)
    )
    x = np.concatenate([digits.x_train, digits.x_test])[:, :, 0] * 16
    y = np.concatenate([digits.y_train, digits.y_test])
    assert sorted((label, *pixels) for pixels, label in zip(x, y, strict=True)) == expected


def test_digits_split_keeps_the_share_of_every_class(digits: SequenceData) -> None:
    in_test = np.bincount(digits.y_test)
    in_all = in_test + np.bincount(digits.y_train)
    assert np.abs(in_test - 360 / 1797 * in_all).max() < 1


def test_digits_split_never_changes(digits: SequenceData) -> None:
    again = load_digits()
    np.testing.assert_array_equal(again.x_train, digits.x_train)
    np.testing.assert_array_equal(again.y_test, digits.y_test)
    # As it was when the split was fixed: also another scikit-learn must draw this one.
    assert digits.y_test[:12].tolist() == [7, 6, 3, 7, 7, 3, 2, 8, 9, 3, 2, 6]


@pytest.mark.parametrize(
    ("module", "load"), [("sklearn.datasets", load_digits), ("pooch", load_har)]
)
def test_missing_dependency_gives_the_remedy(
    monkeypatch: pytest.MonkeyPatch, module: str, load: Any
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'{module} .*pip install "pint-mgrit\[data\]"'):
        load()


# --- UCI-HAR: synthetic folders -------------------------------------------------------------


def har_value(split: str, channel: int, row: int, step: int) -> str:
    """Make a text that names its place, different everywhere in the data set."""
    return f"{'-' if split == 'test' else ''}{channel + 1}.{row}{step:03d}e-03"


def signal_text(split: str, channel: int) -> str:
    return "".join(
        "  " + " ".join(har_value(split, channel, row, step) for step in range(128)) + "\n"
        for row in range(len(LABELS[split]))
    )


def har_files() -> dict[str, str]:
    """Path below "UCI HAR Dataset" and text of every file."""
    files = {"activity_labels.txt": "".join(f"{i} {n}\n" for i, n in enumerate(NAMES, start=1))}
    for split, labels in LABELS.items():
        files[f"{split}/y_{split}.txt"] = "".join(f"{label}\n" for label in labels)
        for i, channel in enumerate(CHANNELS):
            files[f"{split}/Inertial Signals/{channel}_{split}.txt"] = signal_text(split, i)
    return files


@pytest.fixture
def har_folder(tmp_path: Path) -> Path:
    """Write a small valid folder "UCI HAR Dataset"."""
    root = tmp_path / "UCI HAR Dataset"
    for name, text in har_files().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def replace_line(path: Path, number: int, line: str) -> None:
    lines = path.read_text().splitlines()
    lines[number - 1] = line
    path.write_bytes("".join(f"{text}\n" for text in lines).encode("latin-1"))


def row(*changes: tuple[int, str], num_values: int = 128) -> str:
    """Make a line of values 0.5, in which ``(3, "x")`` replaces the third."""
    words = ["0.5"] * num_values
    for position, word in changes:
        words[position - 1] = word
    return " ".join(words)


def assert_holds_synthetic_data(data: SequenceData) -> None:
    for split, x, y in (
        ("train", data.x_train, data.y_train),
        ("test", data.x_test, data.y_test),
    ):
        expected = [
            [[float(har_value(split, c, i, t)) for c in range(9)] for t in range(128)]
            for i in range(len(LABELS[split]))
        ]
        np.testing.assert_array_equal(x, np.array(expected, dtype=np.float32))
        np.testing.assert_array_equal(y, np.array(LABELS[split]) - 1)
    assert data.class_names == NAMES


@pytest.mark.parametrize("convert", [Path, str])
def test_har_folder_is_read_in_full(har_folder: Path, convert: Any) -> None:
    assert_holds_synthetic_data(load_har(convert(har_folder)))


def test_har_folder_may_be_given_by_its_parent(har_folder: Path) -> None:
    assert_holds_synthetic_data(load_har(har_folder.parent))


def test_har_folder_may_be_one_of_many_data_sets(har_folder: Path) -> None:
    (har_folder.parent / "another").mkdir()
    assert_holds_synthetic_data(load_har(har_folder.parent.parent))


def test_empty_path_is_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, har_folder: Path
) -> None:
    monkeypatch.chdir(har_folder)
    assert_holds_synthetic_data(load_har(""))


def test_har_folder_may_have_another_name(har_folder: Path) -> None:
    assert_holds_synthetic_data(load_har(har_folder.rename(har_folder.parent / "har")))


def test_har_accepts_crlf_and_blank_lines_at_the_end(har_folder: Path) -> None:
    for name, text in har_files().items():
        (har_folder / name).write_bytes((text + "\n \n").replace("\n", "\r\n").encode())
    assert_holds_synthetic_data(load_har(har_folder))


def test_har_accepts_more_blanks_between_and_around_values(har_folder: Path) -> None:
    for name, text in har_files().items():
        (har_folder / name).write_text(text.replace(" ", "  ").replace("\n", " \n"))
    assert_holds_synthetic_data(load_har(har_folder))


def test_har_values_are_rounded_once_and_never_scaled(har_folder: Path) -> None:
    words = ((1, "3.4028235e+38"), (2, "-1e-45"), (3, "-0.0"), (4, "0.1"), (128, "7"))
    replace_line(har_folder / SIGNAL, 2, row(*words))
    values = load_har(har_folder).x_test[1, :, 5]
    expected = np.array([3.4028235e38, -1e-45, -0.0, 0.1], dtype=np.float32)
    np.testing.assert_array_equal(values[:4].view(np.uint32), expected.view(np.uint32))
    assert values[127] == 7


@pytest.mark.parametrize(
    ("number", "line", "message"),
    [
        (2, row(num_values=127), ": the number of columns changed from 128 to 127 at row 2;"),
        (3, row() + " # note", ": the number of columns changed from 128 to 130 at row 3;"),
        (1, row((1, "abc")), ": could not convert string 'abc' to float32 at row 0, column 1."),
        (2, row((128, "1_0")), ": could not convert string '1_0' to float32 at row 1, column 128."),
        (3, row((7, "1\xa05")), ": could not convert string '1\N{REPLACEMENT CHARACTER}5' to"),
        (3, row() + "#note", ": could not convert string '0.5#note' to float32 at row 2"),
        (1, row((9, "nan")), ", line 1: value 9 is not finite in float32: nan"),
        (2, row((9, "-inf")), ", line 2: value 9 is not finite in float32: -inf"),
        (3, row((9, "1e39")), ", line 3: value 9 is not finite in float32: inf"),
    ],
)
def test_defect_of_a_signal_row_is_named(
    har_folder: Path, number: int, line: str, message: str
) -> None:
    path = har_folder / SIGNAL
    replace_line(path, number, line)
    assert_har_error(har_folder, f"{path}{message}")


def test_rows_that_are_all_too_long_are_named(har_folder: Path) -> None:
    (har_folder / SIGNAL).write_text(f"{row(num_values=256)}\n" * 3)
    assert_har_error(har_folder, f"{har_folder / SIGNAL}, line 1: expected 128 values, got 256")


@pytest.mark.parametrize("label", ["0", "7", "-1"])
def test_label_out_of_range_is_named(har_folder: Path, label: str) -> None:
    path = har_folder / "train/y_train.txt"
    replace_line(path, 4, label)
    message = f"{path}, line 4: expected an integer label in 1..6, got {label}"
    assert_har_error(har_folder, message)


@pytest.mark.parametrize(("label", "message"), [("x", "'x'"), ("1 2", "from 1 to 2 at row 4")])
def test_invalid_label_is_named(har_folder: Path, label: str, message: str) -> None:
    replace_line(har_folder / "train/y_train.txt", 4, label)
    with pytest.raises(ValueError, match=rf"y_train\.txt: .*{message}"):
        load_har(har_folder)


@pytest.mark.parametrize(("number", "line"), [(2, "3 SITTING"), (6, "")])
def test_invalid_activity_name_is_named(har_folder: Path, number: int, line: str) -> None:
    path = har_folder / "activity_labels.txt"
    replace_line(path, number, line)
    assert_har_error(har_folder, f"{path}: expected 6 lines, '1 NAME' to '6 NAME'")


@pytest.mark.parametrize("name", ["test/y_test.txt", SIGNAL, "activity_labels.txt"])
@pytest.mark.parametrize("text", ["", " \n\n"])
def test_empty_file_is_named(har_folder: Path, name: str, text: str) -> None:
    (har_folder / name).write_text(text)
    assert_har_error(har_folder, f"{har_folder / name}: the file is empty")


@pytest.mark.parametrize(("change", "found"), [(-1, 2), (1, 4)])
def test_different_numbers_of_rows_are_named(har_folder: Path, change: int, found: int) -> None:
    path = har_folder / SIGNAL
    path.write_text(f"{row()}\n" * (3 + change))
    assert_har_error(har_folder, f"{path}: expected 3 rows like y_test.txt, got {found}")


def assert_har_error(folder: Path, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        load_har(folder)


@pytest.mark.parametrize("name", har_files())
def test_missing_file_is_named_with_the_layout(har_folder: Path, name: str) -> None:
    (har_folder / name).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        load_har(har_folder)
    assert str(caught.value).startswith(f"{har_folder / name}: missing; expected layout: 'UCI HAR")


def test_missing_folder_is_named_with_the_layout(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError) as caught:
            load_har(folder)
        assert str(caught.value).startswith(f"{folder}: neither contains nor is the folder")
        assert "expected layout: 'UCI HAR Dataset/' with" in str(caught.value)


# --- UCI-HAR: download ----------------------------------------------------------------------


class FakeArchive:
    """Stands for UCI's server: writes the archive, an archive within an archive."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        pooch = pytest.importorskip("pooch")
        self.calls: list[dict[str, Any]] = []
        monkeypatch.setattr(pooch, "os_cache", {"pint": cache}.__getitem__)
        monkeypatch.setattr(pooch, "retrieve", self.retrieve)

    def retrieve(self, **call: Any) -> str:
        self.calls.append(call)
        call["path"].mkdir(parents=True)
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w") as archive:
            archive.writestr("__MACOSX/._README.txt", "")
            archive.writestr("UCI HAR Dataset/train/X_train.txt", "not needed")
            for name, text in har_files().items():
                archive.writestr(f"UCI HAR Dataset/{name}", text)
        path = call["path"] / call["fname"]
        with zipfile.ZipFile(path, "w") as outer:
            outer.writestr("UCI HAR Dataset.names", "")
            outer.writestr("UCI HAR Dataset.zip", inner.getvalue())
        return str(path)


def test_har_is_downloaded_with_a_checksum(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = FakeArchive(monkeypatch, tmp_path / "cache")
    assert_holds_synthetic_data(load_har())
    (call,) = server.calls
    assert call["url"].startswith("https://archive.ics.uci.edu/static/public/240/")
    assert call["known_hash"] == (
        "sha256:c00b803081a5c797cd5e4b83700a9810b38d53d9d84e01917e090e1fdbc81031"
    )


def test_har_is_downloaded_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = FakeArchive(monkeypatch, tmp_path / "cache")
    load_har()
    assert_holds_synthetic_data(load_har())
    assert len(server.calls) == 1


def test_only_needed_files_stay_in_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    FakeArchive(monkeypatch, tmp_path / "cache")
    load_har()
    files = {p.relative_to(tmp_path / "cache") for p in tmp_path.rglob("*") if p.is_file()}
    expected = {Path("UCI HAR Dataset") / name for name in har_files()}
    assert files == expected | {Path("uci_har.zip")}


def test_har_unpacked_by_another_process_meanwhile_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, har_folder: Path
) -> None:
    cache = tmp_path / "cache"
    server = FakeArchive(monkeypatch, cache)

    def retrieve_late(**call: Any) -> str:
        path = FakeArchive.retrieve(server, **call)
        har_folder.rename(cache / "UCI HAR Dataset")
        return path

    monkeypatch.setattr("pooch.retrieve", retrieve_late)
    assert_holds_synthetic_data(load_har())
    assert sorted(p.name for p in cache.iterdir()) == ["UCI HAR Dataset", "uci_har.zip"]


# --- UCI-HAR: the real subset ---------------------------------------------------------------


@pytest.fixture(scope="module")
def subset_dir() -> Path:
    """Folder of the subset of 2400 and 950 windows that the variable PINT_DATA_DIR names."""
    folder = os.environ.get("PINT_DATA_DIR")
    if not folder:
        pytest.skip("PINT_DATA_DIR is not set: it names the folder with the UCI-HAR subset")
    return Path(folder)


@pytest.fixture(scope="module")
def subset(subset_dir: Path) -> SequenceData:
    return load_har(subset_dir)


def test_subset_has_the_documented_shape(subset: SequenceData) -> None:
    assert subset.x_train.shape == (2400, 128, 9)
    assert subset.x_test.shape == (950, 128, 9)
    assert (subset.num_steps, subset.num_features, subset.num_classes) == (128, 9, 6)
    assert subset.class_names == NAMES


def test_subset_has_the_documented_class_counts(subset: SequenceData) -> None:
    assert np.bincount(subset.y_train).tolist() == [400, 350, 322, 420, 449, 459]
    assert np.bincount(subset.y_test).tolist() == [160, 152, 135, 158, 172, 173]


@pytest.mark.parametrize("channel", range(9))
def test_subset_holds_the_raw_values_of_the_files(
    subset_dir: Path, subset: SequenceData, channel: int
) -> None:
    name = f"test/Inertial Signals/{CHANNELS[channel]}_test.txt"
    (path,) = subset_dir.rglob(name)
    words = path.read_text().splitlines()[699].split()
    expected = np.array([float(word) for word in words], dtype=np.float32)
    np.testing.assert_array_equal(subset.x_test[699, :, channel], expected)


def test_first_value_of_the_subset(subset: SequenceData) -> None:
    assert subset.x_train[0, 0, 0] == np.float32(-0.003655)
