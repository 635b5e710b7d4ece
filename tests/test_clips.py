"""Clips of a folder and their parts: names alone, no video is read."""

import os

import numpy as np
import pytest

from apps.hmdb51.clips import draw_parts, find_clips, official_parts
from pint.data.feature_file import TEST, TRAIN, UNUSED


def make_folder(folder, files):
    for name, clips in files.items():
        (folder / name).mkdir()
        for clip in clips:
            (folder / name / clip).touch()
    return folder


@pytest.fixture
def folder(tmp_path):
    files = {"wave": ["b.avi", "a.AVI"], "eat": ["c.avi", "notes.txt"], "sit": ["d.avi"], "no": []}
    return make_folder(tmp_path, files)


def test_clips_are_in_order_and_folders_without_clips_are_no_classes(folder):
    clips = find_clips(folder)
    assert clips.class_names == ("eat", "sit", "wave")
    assert clips.names == ("eat/c.avi", "sit/d.avi", "wave/a.AVI", "wave/b.avi")
    assert clips.labels.tolist() == [0, 1, 2, 2]
    assert clips.parts.tolist() == [TRAIN] * 4
    assert clips.empty_folders == ("no",)


def test_a_subset_of_the_classes(folder):
    clips = find_clips(folder, ("wave", "eat"))
    assert clips.class_names == ("eat", "wave")
    assert clips.names == ("eat/c.avi", "wave/a.AVI", "wave/b.avi")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("eat", "fly"), "no clips of class 'fly'; there are eat, sit, wave"),
        (("eat",), "'eat' alone"),
        ((), "got none"),
    ],
    ids=["unknown", "one", "none"],
)
def test_wrong_classes(folder, classes, message):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        find_clips(folder, classes)


def test_wrong_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="no/such: is no folder; expected FOLDER/<class>"):
        find_clips(tmp_path / "no/such")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is no folder"):
        find_clips(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="is it the right folder"):
        find_clips(tmp_path)
    (tmp_path / "wave.rar").touch()
    with pytest.raises(FileNotFoundError, match=r"unpack the \.rar archives first"):
        find_clips(tmp_path)


def test_a_name_that_is_no_utf_8(folder):
    (folder / "sit" / os.fsdecode(b"caf\xe9.avi")).touch()
    with pytest.raises(ValueError, match=r"sit: rename the clip 'caf\\udce9\.avi'"):
        find_clips(folder)


def write_splits(folder, lines, number=2):
    folder.mkdir()
    for name, text in lines.items():
        (folder / f"{name}_test_split{number}.txt").write_text(text)
    return folder


def test_official_split(folder, tmp_path):
    """Clips that it does not name are not used; one that is missing is to be reported."""
    lines = {
        "eat": "c.avi 2 \nwith a space.avi 1\n",
        "sit": "d.avi 0 \n\n",
        "wave": "a.AVI 1\n",
    }
    splits = write_splits(tmp_path / "splits", lines)
    clips = official_parts(find_clips(folder), splits, 2)
    assert clips.names == (
        "eat/c.avi",
        "eat/with a space.avi",
        "sit/d.avi",
        "wave/a.AVI",
        "wave/b.avi",
    )
    assert clips.parts.tolist() == [TEST, TRAIN, UNUSED, TRAIN, UNUSED]
    assert clips.used.tolist() == [True, True, False, True, False]
    assert clips.labels.tolist() == [0, 0, 1, 2, 2]
    assert clips.class_names == ("eat", "sit", "wave")


def test_classes_of_an_official_split_without_clips(folder, tmp_path):
    """Their clips are listed, to be reported, in an empty folder as in one that is not there."""
    files = dict.fromkeys(("eat", "fly", "no", "sit", "wave"), "x.avi 1\ny.avi 2\n")
    splits = write_splits(tmp_path / "splits", files)
    clips = official_parts(find_clips(folder), splits, 2)
    assert clips.class_names == ("eat", "fly", "no", "sit", "wave")
    assert clips.names[3:7] == ("fly/x.avi", "fly/y.avi", "no/x.avi", "no/y.avi")
    chosen = ("eat", "wave")
    assert official_parts(find_clips(folder, chosen), splits, 2, chosen).class_names == chosen


@pytest.mark.parametrize(
    ("eat", "message"),
    [
        (None, "eat_test_split2.txt: missing"),
        ("c.avi 3\n", r"line 1: expected 'name.avi 0\|1\|2', got 'c.avi 3'"),
        ("c.avi 1\nc.avi\n", "line 2: expected"),
        ("c.avi 1\n", "split 2 has no clip for test"),
        ("c.avi 2\n", "split 2 has no clip for training"),
    ],
    ids=["missing", "number", "words", "no test", "no training"],
)
def test_wrong_split_files(folder, tmp_path, eat, message):
    lines = {"sit": "d.avi 0\n", "wave": "b.avi 0\n"} | ({} if eat is None else {"eat": eat})
    splits = write_splits(tmp_path / "splits", lines)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        official_parts(find_clips(folder), splits, 2)


@pytest.mark.parametrize(
    ("clips", "classes", "train", "test"),
    [(6726, 51, 6053, 673), (1286, 6, 1157, 129), (60, 6, 54, 6), (7, 3, 6, 1), (2, 1, 1, 1)],
)
def test_a_tenth_is_drawn_from_each_class_alike(clips, classes, train, test):
    """The published sizes of HMDB51 and of its six classes, whatever the sizes of the classes."""
    rng = np.random.default_rng(clips)
    labels = np.sort(
        np.concatenate([np.arange(classes), rng.integers(0, classes, clips - classes)])
    )
    parts = draw_parts(labels, seed=3)
    assert np.bincount(parts, minlength=3).tolist() == [0, train, test]
    tenths = np.bincount(labels) * test / clips
    drawn = np.bincount(labels[parts == TEST], minlength=classes)
    assert (abs(drawn - tenths) < 1).all()


def test_a_clip_is_left_for_training():
    assert draw_parts(np.zeros(1, np.int64), seed=0).tolist() == [TRAIN]


def test_the_draw_follows_its_seed():
    labels = np.repeat(np.arange(6), 50)
    assert (draw_parts(labels, 0) == draw_parts(labels, 0)).all()
    assert (draw_parts(labels, 0) != draw_parts(labels, 1)).any()
