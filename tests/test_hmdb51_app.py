"""From clips to a trained network as users do it: interrupted, killed, gone on with, misused."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from apps.hmdb51.__main__ import main
from apps.hmdb51.extraction import Extraction, clip_features
from apps.train import main as train_app
from tests.launcher import environment, heed_ctrl_c, mpiexec
from tests.moving_shapes import FRAMES, MOTIONS, SIZE, write_folder, write_model

PER_CLASS, TRAINING = 30, 20
SMALL = ["--size", str(SIZE), "--frames", str(FRAMES), "--batch", str(FRAMES)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with clips, a model, and a split with two thirds of each class for training.

    One clip is empty and one that the split names is missing.
    """
    root = tmp_path_factory.mktemp("hmdb51")
    write_folder(root / "clips", PER_CLASS)
    write_model(root / "m.onnx")
    (root / "splits").mkdir()
    for motion in MOTIONS:
        names = sorted(path.name for path in (root / "clips" / motion).iterdir())
        parts = [1] * TRAINING + [2] * (PER_CLASS - TRAINING)
        lines = [f"{name} {part} \n" for name, part in zip(names, parts, strict=True)]
        (root / "splits" / f"{motion}_test_split3.txt").write_text("".join(lines))
    (root / "clips" / "up" / "up_01.avi").write_bytes(b"")
    (root / "clips" / "left" / "left_29.avi").unlink()
    return root


def command(root, *arguments):
    """Return the arguments of the app for the split and two processes."""
    how = ["--model", str(root / "m.onnx"), "--splits", str(root / "splits"), "--split", "3"]
    output = ["--output", str(root / "f.h5"), "--workers", "2"]
    return [str(root / "clips"), *SMALL, *how, *output, *arguments]


@pytest.fixture(scope="module")
def runs(root):
    """Run the app three times: stopped by Ctrl-C after 20 clips, killed after 40, and to the end.

    Both processes come to a clip that is a pipe, and wait there for a writer:
    however busy the machine is, a run does not end before it is stopped.
    """
    clips = sorted((root / "clips").rglob("*.avi"))
    done = [
        interrupted(root, signal.SIGINT, 20, clips[20:22]),
        interrupted(root, signal.SIGKILL, 40, clips[40:42]),
    ]
    with started(root) as process:
        said, errors = process.communicate(timeout=120)
    return [*done, (process.returncode, said, errors, stored_clips(root / "f.h5"))]


def interrupted(root, stop, count, barrier):
    """Run the app until `clips` clips are stored; return status, output, errors and the count."""
    with pipes_instead(barrier) as let_go, started(root) as process:
        wait_for_clips(root / "f.h5", count, process)
        # Ctrl-C on a terminal goes to all processes, a kill to the one that is named.
        (os.killpg if stop == signal.SIGINT else os.kill)(process.pid, stop)
        if stop == signal.SIGKILL:
            let_go()
        # The workers have these pipes too: their end is the end of all processes.
        said, errors = process.communicate(timeout=120)
    return process.returncode, said, errors, stored_clips(root / "f.h5")


@contextlib.contextmanager
def started(root):
    """Start the app in a group of its own, which is at its end when this is."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-m", "apps.hmdb51", *command(root)],
        env=environment(),
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def pipes_instead(paths):
    """Put named pipes in the place of clips for a while; what is yielded lets their readers go."""
    for path in paths:
        path.rename(path.with_suffix(".kept"))
        os.mkfifo(path)

    def let_go():
        for path in paths:
            with contextlib.suppress(OSError):  # no reader
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))

    try:
        yield let_go
    finally:
        for path in paths:
            path.with_suffix(".kept").replace(path)


def wait_for_clips(path, count, process):
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if path.exists() and stored_clips(path) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"ended or was too slow: {process.communicate()}")


def stored_clips(path):
    """Count the clips of a file, even while a process writes it."""
    with h5py.File(path, "r", locking=False) as file:
        return int((file["state"][:] == 1).sum())


def test_ctrl_c_keeps_what_is_done(runs):
    status, _, errors, stored = runs[0]
    assert status == 130
    assert "interrupted; the same command goes on" in errors
    assert "Traceback" not in errors
    assert stored == 20


def test_a_killed_run_leaves_a_file_that_is_gone_on_with(runs):
    _, (status, _, _, killed), (last, said, errors, stored) = runs
    assert status == -signal.SIGKILL
    assert killed == 40
    assert last == 0
    assert "180 clips of 6 classes, 140 to do" in said
    assert stored == 178
    assert "119 clips for training and 59 for the test, 2 skipped" in said
    assert errors.count("skipped up/up_01.avi: Invalid data") == 1
    assert errors.count("skipped left/left_29.avi: No such file") == 1


def test_features_are_those_of_a_run_without_a_break(root, runs):
    how = Extraction(model=root / "m.onnx", frames=FRAMES, size=SIZE, dtype="float16", batch=FRAMES)
    network = how.backbone()
    with h5py.File(root / "f.h5") as file:
        assert file["finished"][()]
        stored = np.flatnonzero(file["state"][:] == 1)
        for clip in stored[::6]:
            name = file["clip"].asstr()[clip]
            expected = clip_features(root / "clips" / name, network, how)
            assert file["num_frames"][clip] == len(expected) >= 11
            np.testing.assert_array_equal(file["features"][clip, : len(expected)], expected)
        classes = file["class_names"].asstr()[:]
        labels = [name.split("/")[0] for name in file["clip"].asstr()[:]]
        assert classes[file["label"][:]].tolist() == labels


def train(root, ranks, *arguments):
    """Train on the features under mpiexec; return what is said at the end."""
    launcher = mpiexec(ranks) if ranks > 1 else []
    how = ["--hidden", "32", "--epochs", "6", "--batch", "30", "--lr", "3e-3", "--json"]
    files = ["--features", str(root / "f.h5"), "--output", str(root / f"run{ranks}.h5")]
    done = subprocess.run(
        [
            *launcher,
            sys.executable,
            "-m",
            "apps.train",
            "--data",
            "hmdb51",
            *files,
            *how,
            *arguments,
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert "hmdb51: 119 training and 59 test sequences of 16 steps x 1000, 6 classes" in done.stdout
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("ranks", "how"), [(1, "serial"), (2, "parallel")])
def test_training_on_the_features(root, runs, ranks, how):
    """The motion is recognised from the frames' features; a guess is right once in six times.

    If it were guessed, 45 or more of 59 would be right with a probability below 1e-20.
    """
    arguments = ["--serial"] if how == "serial" else ["--levels", "2", "--coarsening", "4"]
    said = train(root, ranks, *arguments)
    assert said["exact_test_accuracy"] >= 45 / 59
    assert said["parallel_test_accuracy"] >= 45 / 59
    assert (said["forward_residual"] is None) == (how == "serial")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "hmdb51"], "--data hmdb51 and --features FILE belong together"),
        (["--features", "f.h5"], "--data hmdb51 and --features FILE belong together"),
        (["--data", "hmdb51", "--features", "no.h5"], "no.h5: no such file"),
        (["--data", "hmdb51", "--data-dir", "x"], "--data-dir is for --data har"),
    ],
    ids=["alone", "digits", "missing", "folder"],
)
def test_wrong_use_of_the_features(arguments, message, capsys, tmp_path):
    assert train_app([*arguments, "--output", str(tmp_path / "run.h5")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "8"], "was begun with frames 16, now it is 8"),
        (["--split", "1"], "down_test_split1.txt: missing"),
        (["--seed", "1"], "--seed is for a drawn split"),
        (["--classes", "up,fly"], "no clips of class 'fly'"),
        (["--classes=,"], "two classes are the least, got none"),
        (["--min-frames", "17"], "min_frames 17 is more than the 16 frames"),
        (["--workers", "0"], "workers must be at least 1, got 0"),
        (["--model", "resnet19"], "resnet19: no such file, and no model of that name"),
        (["--model-sha256", "00"], "has the SHA-256"),
        (["--output", "no/such/f.h5"], "folder 'no/such' does not exist"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_use_is_one_line_and_status_2(root, runs, capsys, arguments, message):
    assert main(command(root, *arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("apps.hmdb51: ")
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("package", ["av", "onnxruntime"])
def test_a_missing_package_is_named_with_its_remedy(root, runs, capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(command(root)) == 2
    error = capsys.readouterr().err
    assert error == f'apps.hmdb51: {package} is missing: pip install "pint-mgrit[video]"\n'


def test_short_clips_are_named_before_any_work(root, runs, capsys, tmp_path):
    longer = ["--frames", "20", "--min-frames", "17", "--output", str(tmp_path / "f.h5")]
    assert main(command(root, *longer)) == 2
    error = capsys.readouterr().err
    assert "178 clip(s) have fewer than 17 frames: down/down_00.avi (1" in error
    assert error.endswith(", ...; lower --min-frames, or take them out of the folder\n")
    assert not (tmp_path / "f.h5").exists()


def test_nothing_readable_is_an_error(root, tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        (tmp_path / "clips" / name / "x.avi").write_text("no video")
    model = ["--model", str(root / "m.onnx"), "--workers", "1"]
    output = ["--output", str(tmp_path / "f.h5")]
    assert main([str(tmp_path / "clips"), *SMALL, *model, *output]) == 2
    assert "none of the 2 clips" in capsys.readouterr().err


def small_folder(root, folder, clips=6):
    """Copy some clips of two motions, the first of them broken; return the app's arguments."""
    for name in ("up", "down"):
        (folder / "clips" / name).mkdir(parents=True)
        for clip in range(clips):
            shutil.copy(root / "clips" / name / f"{name}_1{clip}.avi", folder / "clips" / name)
    (folder / "clips" / "up" / "up_10.avi").write_bytes(b"")
    model = ["--model", str(root / "m.onnx"), "--workers", "1"]
    return [str(folder / "clips"), *SMALL, *model, "--output", str(folder / "f.h5")]


def parts(path):
    """Return the description of the split of a finished file, and the part of each clip."""
    with h5py.File(path) as file:
        assert file["finished"][()]
        names = file["clip"].asstr()[:].tolist()
        return file.attrs["split"], dict(zip(names, file["part"][:].tolist(), strict=True))


def test_a_split_is_drawn_where_none_is_given(root, tmp_path, capsys):
    """A class in four clips, one of them broken: the split is drawn from those that are left."""
    assert main([*small_folder(root, tmp_path), "--seed", "5"]) == 0
    assert "9 clips for training and 2 for the test, 1 skipped" in capsys.readouterr().out
    split, part = parts(tmp_path / "f.h5")
    assert split == b"drawn, seed 5"
    assert np.bincount(list(part.values())).tolist() == [1, 9, 2]
    assert [name[:2] for name, each in part.items() if each == 2] == ["do", "up"]


def test_a_file_is_split_anew_without_reading_a_clip(root, tmp_path, capsys):
    """By another seed, by an official split, and by its files once they are edited."""
    arguments, file = small_folder(root, tmp_path), tmp_path / "f.h5"
    for name in ("up", "down"):
        lines = [f"{name}_1{clip}.avi {part}" for clip, part in enumerate([1, 1, 1, 2, 2, 0])]
        (tmp_path / f"{name}_test_split1.txt").write_text("\n".join(lines))
    official = [*arguments, "--splits", str(tmp_path)]
    assert main([*official]) == 0
    assert "10 clips of 2 classes, 10 to do" in capsys.readouterr().out
    assert main([*arguments]) == 0
    said = capsys.readouterr().out
    assert "12 clips of 2 classes, 3 to do" in said  # two that the split left out, and one broken
    assert main([*arguments, "--seed", "1"]) == 0
    said = capsys.readouterr().out
    assert "12 clips of 2 classes, 1 to do" in said
    assert parts(file)[0] == b"drawn, seed 1"
    assert main([*official]) == 0
    capsys.readouterr()
    with (tmp_path / "down_test_split1.txt").open("a") as edited:
        edited.write("\ndown_15.avi 2\ndown_10.avi 2\n")
    assert main([*official]) == 0
    said = capsys.readouterr().out
    assert "11 clips of 2 classes, 1 to do" in said
    assert "4 clips for training and 6 for the test, 1 skipped" in said
    assert "\n2 clips are in another part than before" in said
    split, part = parts(file)
    assert split == b"official 1"
    assert [part[f"down/down_1{clip}.avi"] for clip in range(6)] == [2, 1, 1, 2, 2, 2]


def test_folders_without_clips_are_told(root, tmp_path, capsys):
    arguments = small_folder(root, tmp_path)
    (tmp_path / "clips" / "left").mkdir()
    assert main(arguments) == 0
    assert "no clips in: left\n" in capsys.readouterr().err
    assert main([*arguments, "--classes", "up,down"]) == 0
    assert "no clips in" not in capsys.readouterr().err


def test_a_file_that_nobody_could_train_on_is_not_finished(root, tmp_path, capsys):
    """One clip of each class, one of them broken: none is left for the test."""
    assert main(small_folder(root, tmp_path, clips=1)) == 2
    assert "f.h5 has 1 clips for training and 0 for the test\n" in capsys.readouterr().err
    with h5py.File(tmp_path / "f.h5") as file:
        assert not file["finished"][()]
