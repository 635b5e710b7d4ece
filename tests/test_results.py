"""Run files: what is written comes back, whole or not at all, from one process or many."""

import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rich.console import Console

from pint._version import __version__
from pint.parallel.comm import SerialCommunicator
from pint.results import (
    RunRecord,
    check_target,
    glance,
    open_run,
    summarize,
    write_run,
    write_solution,
)
from pint.results import writer as writer_module
from pint.results.provenance import checkout_commit
from pint.results.schema import FORMAT_VERSION, axis_names, known_quantity
from tests.fake_ranks import FakeCommunicator, on_ranks

EPOCHS = 20
TRAINER_COLUMNS = [
    "epoch",
    "train_loss",
    "train_accuracy",
    "parallel_test_accuracy",
    "exact_test_accuracy",
    "seconds",
    "forward_residual",
    "backward_residual",
    "gradient_norm",
    "learning_rate",
]
REGRESSION_COLUMNS = [
    "epoch",
    "train_loss",
    "parallel_test_error",
    "exact_test_error",
    *TRAINER_COLUMNS[5:],
]


def full_record(**changes):
    """A record with something in every field."""
    rng = np.random.default_rng(5)
    record = RunRecord(
        command="python -m apps.train --café",
        ranks=3,
        hosts=2,
        options={
            "seed": 4,
            "limit": None,
            "note": "none",
            "solver": {"coarsening": (4, 2), "cycle": "V", "tolerance": 1e-9, "skip": True},
            "training": {"names": ("α", "b"), "empty": (), "rate": 0.5, "flags": (True, False)},
        },
        times=np.linspace(0.0, 2.0, 17),
        coarsening=(4, (0, 1, 3), 1),
        solution=rng.random((17, 2, 3)),
        history={
            "residual": np.array([1.0, np.nan, 0.01]),
            "forward_residual": rng.random((6, 3)),
            "backward_residual": rng.random((6, 2)),
            "own": rng.random((2, 5)),
        },
        timings={"forward": np.array([1.0, 2.0, 6.0]), "backward": np.array([0.5, 0.25, 0.125])},
        work={"steps": np.arange(12).reshape(3, 4), "bytes": np.array([800, 800, 720])},
        training={
            "train_loss": rng.random(EPOCHS),
            "epoch": np.arange(1, EPOCHS + 1),
            "own_column": rng.random(EPOCHS),
        },
        model={"z.W_ih": rng.random((3, 4)).astype(np.float32), "a": np.array(2.0)},
        finished=True,
    )
    return replace(record, **changes)


def assert_same_array(actual, expected):
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert actual.tobytes() == np.ascontiguousarray(expected).tobytes()


def assert_same_arrays(actual, expected):
    assert list(actual) == list(expected)
    for name, array in expected.items():
        assert_same_array(actual[name], array)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


class TestRecord:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"work": {"steps": np.ones((2, 3))}}, r"\(3, \.\.\.\), one row per rank"),
            ({"times": np.zeros((17, 1))}, r"\(N\+1,\)"),
            ({"times": np.zeros(16)}, "17 points, but the grid has 16 times"),
            ({"solution": np.zeros((0, 3))}, r"\(N\+1, \*state\)"),
            ({"timings": {"halo": np.zeros(2)}}, r"\(3,\), one value per rank, got \(2,\)"),
            ({"training": {"a": np.zeros(2), "b": np.zeros(3)}}, "one value per epoch"),
            ({"training": {"a": np.zeros((2, 1))}}, "one value per epoch"),
            ({"model": {"a/b": np.zeros(2)}}, "contain '/'"),
            ({"model": {".": np.zeros(2)}}, "neither empty nor"),
            ({"history": {"": np.zeros(2)}}, "neither empty nor"),
            ({"options": {"a": {"b/c": 1}}}, "contain '/'"),
        ],
    )
    def test_refuses_names_and_shapes(self, changes, message):
        with pytest.raises(ValueError, match=message):
            full_record(**changes)

    @pytest.mark.parametrize(
        "changes",
        [
            {"command": "a\0b"},
            {"command": "a\udcffb"},
            {"options": {"a": object()}},
            {"options": {"a": {"b": {"c": 1}}}},
            {"options": {"a": (1, "b")}},
            {"solution": np.full((17, 1), object())},
        ],
    )
    def test_what_hdf5_cannot_hold_is_one_line(self, tmp_path, changes):
        with pytest.raises(ValueError, match=r"^a run file cannot hold this record: [^\n]+$"):
            write_run(tmp_path / "run.h5", full_record(**changes))
        assert names_in(tmp_path) == []

    def test_takes_numpy_numbers_as_options(self, tmp_path):
        options = {"i": np.int32(3), "f": np.float32(0.5), "b": np.bool_(True), "m": (1, 0.5)}
        write_run(tmp_path / "run.h5", RunRecord(command="", options=options, finished=True))
        read = open_run(tmp_path / "run.h5").options
        assert read == {"i": 3, "f": 0.5, "b": True, "m": (1.0, 0.5)}
        assert [type(value) for value in read.values()] == [int, float, bool, tuple]


class TestRoundTrip:
    def test_every_field_comes_back(self, tmp_path):
        record = full_record()
        write_run(tmp_path / "run.h5", record)
        run = open_run(tmp_path / "run.h5")
        assert run.options == record.options
        assert list(run.options) == list(record.options)
        assert run.coarsening == record.coarsening
        assert run.finished is True
        assert (run.solution_shape, run.solution_dtype) == ((17, 2, 3), np.float64)
        assert_same_array(run.times, record.times)
        assert_same_array(run.solution, record.solution)
        for group in ("history", "timings", "work", "training", "model"):
            assert_same_arrays(getattr(run, group), getattr(record, group))

    def test_attributes_say_what_wrote_the_file(self, tmp_path):
        before = datetime.now(UTC)
        write_run(tmp_path / "run.h5", full_record())
        about = dict(open_run(tmp_path / "run.h5").attributes)
        assert before <= datetime.fromisoformat(about.pop("created")) <= datetime.now(UTC)
        assert about.pop("git_commit") == checkout_commit(Path(__file__).parents[1])
        assert about == {
            "format_version": 1,
            "pint_version": __version__,
            "python_version": ".".join(map(str, sys.version_info[:3])),
            "numpy_version": np.__version__,
            "command": "python -m apps.train --café",
            "ranks": 3,
            "hosts": 2,
            "finished": True,
            "status": "",
        }

    def test_unfinished(self, tmp_path):
        write_run(tmp_path / "run.h5", full_record(finished=False))
        assert open_run(tmp_path / "run.h5").finished is False

    def test_absent_groups_are_empty(self, tmp_path):
        write_run(tmp_path / "run.h5", RunRecord(command="", finished=True))
        with h5py.File(tmp_path / "run.h5") as file:
            assert list(file) == []
        run = open_run(tmp_path / "run.h5")
        assert (run.times, run.coarsening) == (None, ())
        assert (run.solution, run.solution_shape, run.solution_dtype) == (None, None, None)
        for group in ("options", "history", "timings", "work", "training", "model"):
            assert getattr(run, group) == {}

    def test_coarsening_without_times(self, tmp_path):
        write_run(tmp_path / "run.h5", RunRecord(command="", coarsening=(4,), finished=True))
        run = open_run(tmp_path / "run.h5")
        assert (run.times, run.coarsening) == (None, (4,))

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
    @given(
        array=st.sampled_from(["f2", "f4", "f8", ">f8", "i1", "u8", "?", "c8", "c16"]).flatmap(
            lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=4, max_side=4))
        )
    )
    def test_any_array_keeps_its_bits(self, tmp_path, array):
        record = RunRecord(
            command="", solution=array, history={"h": array.T}, model={"m": array}, finished=True
        )
        write_run(tmp_path / "run.h5", record)
        run = open_run(tmp_path / "run.h5")
        assert_same_array(run.solution, array)
        assert_same_array(run.history["h"], array.T)
        assert_same_array(run.model["m"], array)

    @pytest.mark.parametrize("shape", [(), (0,), (0, 3)])
    def test_scalar_and_empty_arrays(self, tmp_path, shape):
        array = np.full(shape, 3.0)
        write_run(tmp_path / "run.h5", RunRecord(command="", model={"m": array}, finished=True))
        assert_same_array(open_run(tmp_path / "run.h5").model["m"], array)

    TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
    INTEGER = st.integers(-(2**63), 2**63 - 1)
    VALUE = st.one_of(
        st.none(), st.booleans(), INTEGER, st.floats(allow_nan=False), TEXT,
        *(st.lists(kind, max_size=4).map(tuple) for kind in (
            st.booleans(), INTEGER, st.floats(allow_nan=False), TEXT)),
    )  # fmt: skip
    NAME = TEXT.filter(lambda name: name not in ("", ".") and "/" not in name)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
    @given(st.dictionaries(NAME, st.one_of(VALUE, st.dictionaries(NAME, VALUE, max_size=3))))
    def test_any_options_come_back(self, tmp_path, options):
        write_run(tmp_path / "run.h5", RunRecord(command="", options=options, finished=True))
        read = open_run(tmp_path / "run.h5").options
        assert read == options
        assert {name: type(value) for name, value in read.items()} == {
            name: type(value) for name, value in options.items()
        }

    def test_many_names_keep_their_order(self, tmp_path):
        names = [f"layer{number}" for number in range(40, 0, -1)]
        record = RunRecord(
            command="",
            options=dict.fromkeys(names, 1),
            model={name: np.zeros(1) for name in names},
            finished=True,
        )
        write_run(tmp_path / "run.h5", record)
        run = open_run(tmp_path / "run.h5")
        assert list(run.options) == list(run.model) == names


class TestLayoutInFile:
    """What other readers of HDF5 see."""

    @pytest.fixture
    def file(self, tmp_path):
        write_run(tmp_path / "run.h5", full_record())
        with h5py.File(tmp_path / "run.h5") as file:
            yield file

    def test_groups(self, file):
        assert list(file) == [
            "options", "grid", "solution", "history", "timings", "work", "training", "model",
        ]  # fmt: skip
        assert sorted(file["grid"]) == ["c_points_1", "times"]
        assert file["grid/c_points_1"][:].tolist() == [0, 1, 3]
        assert file["grid"].attrs["coarsening"].tolist() == [4, 0, 1]
        assert sorted(file["solution"]) == ["state_0", "state_1", "time", "u"]

    def test_solution_has_a_scale_on_every_axis(self, file):
        states = file["solution/u"]
        assert [axis.label for axis in states.dims] == ["time", "state_0", "state_1"]
        assert [axis[0].name for axis in states.dims] == [
            "/solution/time", "/solution/state_0", "/solution/state_1",
        ]  # fmt: skip
        np.testing.assert_array_equal(states.dims[0][0], file["grid/times"])
        np.testing.assert_array_equal(states.dims[2][0], [0, 1, 2])

    def test_solution_without_times_counts_points(self, tmp_path):
        write_run(tmp_path / "bare.h5", full_record(times=None))
        with h5py.File(tmp_path / "bare.h5") as file:
            assert file["solution/u"].dims[0].label == "point"
            np.testing.assert_array_equal(file["solution/u"].dims[0][0], np.arange(17))

    def test_training_columns_share_the_epoch(self, file):
        for name in ("train_loss", "own_column"):
            assert file["training"][name].dims[0].label == "epoch"
            assert file["training"][name].dims[0][0].name == "/training/epoch"

    def test_known_datasets_carry_unit_and_description(self, file):
        assert file["timings/forward"].attrs["unit"] == "s"
        assert file["training/train_loss"].attrs["unit"] == "1"
        assert "training set" in file["training/train_loss"].attrs["description"]
        assert "unit" not in file["training/own_column"].attrs
        assert [axis.label for axis in file["history/forward_residual"].dims] == [
            "batch", "forward_iteration",
        ]  # fmt: skip

    def test_none_is_an_attribute_without_data(self, file):
        assert isinstance(file["options"].attrs["limit"], h5py.Empty)
        assert file["options"].attrs["note"] == "none"

    @pytest.mark.parametrize("column", sorted({*TRAINER_COLUMNS, *REGRESSION_COLUMNS}))
    def test_the_trainers_columns_are_known(self, column):
        assert known_quantity("training", column).unit == ("s" if column == "seconds" else "1")
        assert axis_names("training", column, 1) == ("epoch",)


class TestAtomicity:
    @pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
    def test_failure_in_the_middle_leaves_the_old_file(self, tmp_path, monkeypatch, interruption):
        path = tmp_path / "run.h5"
        write_run(path, full_record())
        old = path.read_bytes()

        def fail(file, group, arrays):
            assert (tmp_path / file.filename).exists()
            raise interruption("disk full")

        monkeypatch.setattr(writer_module, "_write_arrays", fail)
        with pytest.raises(interruption, match="disk full"):
            write_run(path, full_record(finished=False))
        assert path.read_bytes() == old
        assert names_in(tmp_path) == ["run.h5"]

    def test_failing_rename_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "run.h5"
        write_run(path, full_record())
        old = path.read_bytes()

        def fail(source, target):
            assert h5py.is_hdf5(source)
            raise PermissionError("no rename")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(PermissionError, match="no rename"):
            write_run(path, full_record(finished=False))
        assert path.read_bytes() == old
        assert names_in(tmp_path) == ["run.h5"]

    def test_the_new_file_replaces_the_old(self, tmp_path):
        write_run(tmp_path / "run.h5", full_record(finished=False))
        write_run(tmp_path / "run.h5", RunRecord(command="second", finished=True))
        run = open_run(tmp_path / "run.h5")
        assert (run.attributes["command"], run.finished, run.model) == ("second", True, {})
        assert names_in(tmp_path) == ["run.h5"]

    def test_a_symbolic_link_stays(self, tmp_path):
        (tmp_path / "disk").mkdir()
        (tmp_path / "run.h5").symlink_to(tmp_path / "disk" / "real.h5")
        write_run(tmp_path / "run.h5", full_record())
        assert (tmp_path / "run.h5").is_symlink()
        assert names_in(tmp_path / "disk") == ["real.h5"]


class TestTarget:
    def test_missing_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="does not exist: create it first"):
            check_target(tmp_path / "absent" / "run.h5")

    def test_folder_is_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(NotADirectoryError, match="is a file, not a folder"):
            check_target(tmp_path / "file" / "run.h5")

    def test_path_is_a_folder(self, tmp_path):
        with pytest.raises(IsADirectoryError, match="give the name of a file in it"):
            check_target(tmp_path)

    def test_folder_not_writable(self, tmp_path, monkeypatch):
        # root may write anywhere, so permissions alone would not show it.
        monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
        with pytest.raises(PermissionError, match="is not writable"):
            check_target(tmp_path / "run.h5")

    def test_asked_before_any_work(self, tmp_path, monkeypatch):
        monkeypatch.setattr(writer_module, "write_file", lambda *_: pytest.fail("wrote"))
        with pytest.raises(IsADirectoryError):
            write_run(tmp_path, full_record())

    def test_asking_leaves_nothing(self, tmp_path):
        check_target(tmp_path / "run.h5")
        assert names_in(tmp_path) == []


class TestCommit:
    @pytest.fixture
    def checkout(self, tmp_path, monkeypatch):
        for variable in [name for name in os.environ if name.startswith("GIT_")]:
            monkeypatch.delenv(variable)
        checkout_commit.cache_clear()
        try:
            self.git(tmp_path, "init")
        except FileNotFoundError:
            pytest.skip("git is not installed")
        (tmp_path / "file").write_text("one")
        self.git(tmp_path, "add", "file")
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        self.git(tmp_path, *who, "commit", "-m", "first")
        return tmp_path

    @staticmethod
    def git(folder, *arguments):
        command = ["git", "-C", folder, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def test_clean_checkout(self, checkout):
        assert checkout_commit(checkout) == self.git(checkout, "rev-parse", "HEAD")

    def test_changed_checkout(self, checkout):
        (checkout / "file").write_text("two")
        assert checkout_commit(checkout) == self.git(checkout, "rev-parse", "HEAD") + "-dirty"

    def test_folder_inside_a_checkout_is_none(self, checkout):
        (checkout / "site-packages").mkdir()
        assert checkout_commit(checkout / "site-packages") == ""

    def test_no_git(self, checkout, monkeypatch):
        monkeypatch.setenv("PATH", "")
        assert checkout_commit(checkout) == ""


def write_in_blocks(path, solution, counts, record=None, **keywords):
    """Write a solution from one rank per count."""
    record = full_record(solution=None) if record is None else record
    stops = np.cumsum(counts)

    def write(comm):
        start, stop = stops[comm.rank] - counts[comm.rank], stops[comm.rank]
        write_solution(path, record, solution[start:stop], start, comm, **keywords)

    return on_ranks(len(counts), write)


COUNTS = [(6, 6, 5), (0, 17, 0), (9, 0, 8), (0, 0, 17), (1, 2, 3, 11)]


class TestManyRanks:
    @pytest.mark.parametrize("counts", COUNTS)
    @pytest.mark.parametrize("dtype", [np.float32, np.complex128, np.int16])
    def test_gathered_and_joined_files_hold_the_same(self, tmp_path, counts, dtype):
        solution = np.arange(17 * 6).reshape(17, 2, 3).astype(dtype)
        for name, limit in (("gathered", 2**30), ("joined", 0)):
            results = write_in_blocks(tmp_path / name, solution, counts, gather_limit=limit)
            assert results == [None] * len(counts)
        parts = [f"joined.rank{rank}.h5" for rank, count in enumerate(counts) if count]
        assert names_in(tmp_path) == ["gathered", "joined", *parts]
        gathered, joined = open_run(tmp_path / "gathered"), open_run(tmp_path / "joined")
        assert_same_array(gathered.solution, solution)
        assert_same_array(joined.solution, solution)
        assert [path.name for path in joined.solution_files] == parts
        assert gathered.solution_files == ()
        assert_same_arrays(gathered.model, joined.model)
        assert gathered.options == joined.options

    def test_one_process_writes_one_file_at_any_size(self, tmp_path):
        record = full_record()
        bare = replace(record, solution=None)
        comm = SerialCommunicator()
        write_solution(tmp_path / "run.h5", bare, record.solution, 0, comm, gather_limit=0)
        assert_same_array(open_run(tmp_path / "run.h5").solution, record.solution)
        assert names_in(tmp_path) == ["run.h5"]

    def test_blocks_need_not_be_contiguous_in_memory(self, tmp_path):
        solution = np.asfortranarray(full_record().solution)
        for limit in (0, 2**30):
            assert (
                write_in_blocks(tmp_path / "run.h5", solution, (6, 11), gather_limit=limit)
                == [None] * 2
            )
            assert_same_array(open_run(tmp_path / "run.h5").solution, solution)

    @pytest.mark.parametrize(("spare", "joined"), [(0, False), (-1, True)])
    def test_the_limit_counts_bytes(self, tmp_path, spare, joined):
        solution = full_record().solution
        limit = solution.nbytes + spare
        write_in_blocks(tmp_path / "run.h5", solution, (6, 11), gather_limit=limit)
        assert bool(open_run(tmp_path / "run.h5").solution_files) == joined

    def test_joined_files_may_move_together(self, tmp_path, monkeypatch):
        solution = full_record().solution
        (tmp_path / "old").mkdir()
        write_in_blocks(tmp_path / "old" / "run.h5", solution, (6, 6, 5), gather_limit=0)
        (tmp_path / "old").rename(tmp_path / "new")
        monkeypatch.chdir(tmp_path)
        assert_same_array(open_run("new/run.h5").solution, solution)
        with h5py.File("new/run.h5") as file:
            assert file["solution/u"].is_virtual
            assert_same_array(file["solution/u"][...], solution)
            assert file["solution/u"].dims[0][0].name == "/solution/time"

    def test_a_missing_part_is_an_error(self, tmp_path):
        write_in_blocks(tmp_path / "run.h5", full_record().solution, (6, 6, 5), gather_limit=0)
        (tmp_path / "run.rank1.h5").unlink()
        run = open_run(tmp_path / "run.h5")
        with pytest.raises(FileNotFoundError, match=r"run\.rank1\.h5"):
            run.read_solution()
        with h5py.File(tmp_path / "run.h5") as file:
            assert np.isnan(file["solution/u"][6:12]).all()
            assert not np.isnan(file["solution/u"][:6]).any()

    def test_a_part_of_another_run_is_an_error(self, tmp_path):
        for name in ("a.h5", "b.h5"):
            write_in_blocks(tmp_path / name, full_record().solution, (6, 11), gather_limit=0)
        (tmp_path / "a.rank1.h5").replace(tmp_path / "b.rank1.h5")
        with pytest.raises(ValueError, match=r"b\.rank1\.h5' belongs to another run"):
            open_run(tmp_path / "b.h5").read_solution()

    def test_parts_say_where_they_belong(self, tmp_path):
        write_in_blocks(tmp_path / "run.h5", full_record().solution, (6, 11), gather_limit=0)
        with h5py.File(tmp_path / "run.rank1.h5") as file:
            assert file.attrs["first"] == 6
            assert_same_array(file["u"][...], full_record().solution[6:])


class TestErrorsOnEveryRank:
    def failures(self, path, change, size=3, **keywords):
        """Write 2 points per rank, rank 1 with its arguments changed."""

        def write(comm):
            arguments = {
                "path": path,
                "record": RunRecord(command="", finished=True),
                "block": np.zeros((2, 3)),
                "first": 2 * comm.rank,
                "comm": comm,
                **keywords,
            }
            write_solution(**{**arguments, **(change if comm.rank == 1 else {})})

        return on_ranks(size, write)

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"block": np.array(1.0)}, ValueError, r"block must have the shape"),
            ({"block": np.zeros((2, 0))}, ValueError, "no state empty"),
            ({"first": -1}, ValueError, "first must not be negative"),
            ({"gather_limit": -1}, ValueError, "gather_limit must not be negative"),
            ({"record": full_record()}, ValueError, r"record\.solution must be None"),
            ({"record": full_record(solution=None)}, ValueError, "6 points, .* 17 times"),
            ({"block": np.zeros((2, 4))}, ValueError, r"state shape .* \[3\] on rank 0, \[4\]"),
            ({"block": np.zeros((2, 3), np.float32)}, ValueError, "dtype must be the same"),
            ({"gather_limit": 0}, ValueError, "gather_limit must be the same on every rank"),
            ({"path": "elsewhere.h5"}, ValueError, "path must be the same on every rank"),
            ({"first": 3}, ValueError, "rank 1 starts at point 3, expected 2"),
            ({"block": np.zeros((1, 3))}, ValueError, "rank 2 starts at point 4, expected 3"),
        ],
    )
    def test_bad_arguments_of_one_rank(self, tmp_path, change, error, message):
        results = self.failures(tmp_path / "run.h5", change)
        for result in results:
            with pytest.raises(error, match=message):
                raise result
        assert names_in(tmp_path) == []

    def test_no_points_at_all(self, tmp_path):
        results = self.failures(tmp_path / "run.h5", {}, block=np.zeros((0, 3)))
        assert [str(result) for result in results] == [
            "the solution has no points: every rank passed an empty block"
        ] * 3

    @pytest.mark.parametrize("limit", [0, 2**30])
    def test_missing_folder_is_found_before_the_gather(self, tmp_path, limit, monkeypatch):
        monkeypatch.setattr(FakeCommunicator, "gather_blocks", lambda *_: pytest.fail("gathered"))
        results = self.failures(tmp_path / "absent" / "run.h5", {}, gather_limit=limit)
        assert [type(result) for result in results] == [FileNotFoundError] * 3
        assert all("create it first" in str(result) for result in results)

    def test_a_failing_block_leaves_the_old_run(self, tmp_path, monkeypatch):
        old = full_record().solution
        write_in_blocks(tmp_path / "run.h5", old, (6, 6, 5), gather_limit=0)
        before = names_in(tmp_path)
        write_block = writer_module._write_block

        def fail(path, block, first, join):
            write_block(path, block, first, join)
            if first == 6:
                raise OSError("disk full")

        monkeypatch.setattr(writer_module, "_write_block", fail)
        results = write_in_blocks(tmp_path / "run.h5", -old, (6, 6, 5), gather_limit=0)
        others = "OSError('disk full (on rank 1)')"
        assert [repr(result) for result in results] == [others, "OSError('disk full')", others]
        assert names_in(tmp_path) == before
        assert_same_array(open_run(tmp_path / "run.h5").solution, old)

    def test_a_failing_gathered_write(self, tmp_path, monkeypatch):
        def fail(*_):
            raise LookupError("odd")

        monkeypatch.setattr(writer_module, "write_file", fail)
        results = write_in_blocks(tmp_path / "run.h5", full_record().solution, (6, 11))
        own, other = results
        assert repr(own) == "LookupError('odd')"
        assert repr(other) == "RuntimeError('odd (on rank 0)')"


class TestReader:
    def test_solution_is_read_once_and_late(self, tmp_path):
        write_run(tmp_path / "run.h5", full_record())
        run = open_run(tmp_path / "run.h5")
        first = run.solution
        (tmp_path / "run.h5").unlink()
        assert run.solution is first
        with pytest.raises(FileNotFoundError):
            run.read_solution()

    def test_parts_of_the_solution(self, tmp_path):
        write_run(tmp_path / "run.h5", full_record())
        run = open_run(tmp_path / "run.h5")
        assert_same_array(run.read_solution(3, 7), full_record().solution[3:7])
        assert_same_array(run.read_solution(stop=2), full_record().solution[:2])

    def test_file_replaced_meanwhile(self, tmp_path):
        write_run(tmp_path / "run.h5", full_record())
        run = open_run(tmp_path / "run.h5")
        write_run(tmp_path / "run.h5", full_record())
        with pytest.raises(ValueError, match="was replaced meanwhile: open it again"):
            run.read_solution()

    def test_no_solution(self, tmp_path):
        write_run(tmp_path / "run.h5", full_record(solution=None))
        run = open_run(tmp_path / "run.h5")
        assert run.solution is None
        with pytest.raises(ValueError, match="holds no solution"):
            run.read_solution()

    def test_path_stays_when_the_folder_changes(self, tmp_path, monkeypatch):
        write_run(tmp_path / "run.h5", full_record())
        monkeypatch.chdir(tmp_path)
        run = open_run("run.h5")
        monkeypatch.chdir("/")
        assert run.solution.shape == (17, 2, 3)

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            open_run(tmp_path / "absent.h5")

    def test_folder(self, tmp_path):
        with pytest.raises(IsADirectoryError):
            open_run(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"epoch,loss\n1,0.5\n"])
    def test_not_hdf5(self, tmp_path, content):
        (tmp_path / "run.h5").write_bytes(content)
        with pytest.raises(ValueError, match="is not an HDF5 file"):
            open_run(tmp_path / "run.h5")

    def test_truncated(self, tmp_path):
        write_run(tmp_path / "run.h5", full_record())
        content = (tmp_path / "run.h5").read_bytes()
        (tmp_path / "run.h5").write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match="damaged HDF5 file"):
            open_run(tmp_path / "run.h5")

    def test_foreign_hdf5(self, tmp_path):
        with h5py.File(tmp_path / "run.h5", "w") as file:
            file.attrs["format_version"] = 1
        with pytest.raises(ValueError, match="not a run file of pint"):
            open_run(tmp_path / "run.h5")
        with h5py.File(tmp_path / "run.h5", "a") as file:
            file.attrs["kind"] = "clip features"
        with pytest.raises(ValueError, match="holds clip features: no run file of pint"):
            open_run(tmp_path / "run.h5")

    def test_newer_format(self, tmp_path):
        write_run(tmp_path / "run.h5", full_record())
        with h5py.File(tmp_path / "run.h5", "r+") as file:
            file.attrs["format_version"] = FORMAT_VERSION + 6
        with pytest.raises(ValueError, match=r"format version 7, but .* versions up to 1: update"):
            open_run(tmp_path / "run.h5")

    def test_what_a_later_pint_adds_is_passed_over(self, tmp_path):
        write_run(tmp_path / "run.h5", full_record())
        with h5py.File(tmp_path / "run.h5", "r+") as file:
            file.attrs["later"] = 1
            file.create_group("later")
            file["model"].create_group("later")
            file["options"]["later"] = np.zeros(3)
        run = open_run(tmp_path / "run.h5")
        assert list(run.model) == list(full_record().model)
        assert run.options == full_record().options


class TestXarray:
    @pytest.fixture
    def datasets(self, tmp_path):
        pytest.importorskip("xarray")
        write_run(tmp_path / "run.h5", full_record())
        return open_run(tmp_path / "run.h5").to_xarray()

    def test_groups(self, datasets):
        assert list(datasets) == ["solution", "history", "timings", "work", "training", "model"]

    def test_solution_stands_over_time(self, datasets):
        states = datasets["solution"]["u"]
        assert states.dims == ("time", "state_0", "state_1")
        record = full_record()
        np.testing.assert_array_equal(states.sel(time=0.5), record.solution[4])

    def test_training_stands_over_epochs(self, datasets):
        loss = datasets["training"]["train_loss"]
        assert float(loss.sel(epoch=3)) == full_record().training["train_loss"][2]

    def test_axes_have_names(self, datasets):
        assert datasets["timings"]["forward"].dims == ("rank",)
        assert datasets["history"]["forward_residual"].dims == ("batch", "forward_iteration")
        assert datasets["history"]["backward_residual"].dims == ("batch", "backward_iteration")
        assert datasets["history"]["own"].dims == ("own_0", "own_1")
        assert datasets["model"]["a"].dims == ()

    def test_solution_without_times(self, tmp_path):
        pytest.importorskip("xarray")
        write_run(tmp_path / "run.h5", full_record(times=None))
        solution = open_run(tmp_path / "run.h5").to_xarray()["solution"]
        assert solution["u"].dims == ("point", "state_0", "state_1")

    def test_lengths_that_do_not_fit_get_axes_of_their_own(self, tmp_path):
        pytest.importorskip("xarray")
        history = {"residual": np.zeros(3), "seconds": np.zeros(4)}
        write_run(tmp_path / "run.h5", RunRecord(command="", history=history, finished=True))
        read = open_run(tmp_path / "run.h5").to_xarray()["history"]
        assert (read["residual"].dims, read["seconds"].dims) == (("iteration",), ("seconds_0",))

    def test_nothing_to_give(self, tmp_path):
        pytest.importorskip("xarray")
        write_run(tmp_path / "run.h5", RunRecord(command="", finished=True))
        assert open_run(tmp_path / "run.h5").to_xarray() == {}

    def test_without_xarray(self, tmp_path, monkeypatch):
        write_run(tmp_path / "run.h5", full_record())
        monkeypatch.setitem(sys.modules, "xarray", None)
        with pytest.raises(ImportError, match=r'pip install "pint-mgrit\[report\]"'):
            open_run(tmp_path / "run.h5").to_xarray()


def shown(path, width=80, what=summarize):
    """Return what `pint inspect --all` prints to something that is no terminal."""
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(what(open_run(path)))
    return capture.get()


class TestGlance:
    """What `pint inspect` prints."""

    @pytest.mark.parametrize(
        "line",
        [
            r"state +finished",
            r"solution +17 x 2 x 3 float64",
            r"Training \(last 5 of 20 rows\)",
            r"forward_residual +6 x 3 +[-0-9. e]+",
            r"Also 11 options, 13 model parameters, work of the ranks: pint inspect --all",
        ],
    )
    def test_says(self, tmp_path, line):
        write_run(tmp_path / "run.h5", full_record())
        assert re.search(rf"^{line}", shown(tmp_path / "run.h5", what=glance), re.MULTILINE)

    def test_is_a_page_of_80_columns(self, tmp_path):
        write_run(tmp_path / "run.h5", full_record())
        lines = shown(tmp_path / "run.h5", what=glance).splitlines()
        assert len(lines) <= 50
        assert max(map(len, lines)) <= 80

    def test_histories_spread_and_end(self, tmp_path):
        history = {
            "residual": np.array([4.0, np.nan, 1.0, 2.0]),
            "nothing": np.zeros((0, 3)),
            "counts": np.array([3, 4, 5]),
            "turns": np.array([3j, 4 + 0j]),
        }
        write_run(tmp_path / "run.h5", RunRecord(command="", history=history, finished=True))
        rows = [line.split() for line in shown(tmp_path / "run.h5", what=glance).splitlines()]
        for row in (
            ["residual", "4", "1", "2", "4", "2"],
            ["nothing", "0", "x", "3", "-", "-", "-", "-"],
            ["counts", "3", "3", "4", "5", "5"],
            ["turns", "2", "3", "3.5", "4", "4"],
        ):
            assert row in rows


class TestSummary:
    @pytest.fixture
    def text(self, tmp_path):
        write_run(tmp_path / "run.h5", full_record())
        return shown(tmp_path / "run.h5")

    @pytest.mark.parametrize(
        "line",
        [
            r"command +python -m apps\.train --café",
            r"state +finished",
            r"ranks +3 on 2 host\(s\)",
            r"solver\.coarsening +4, 2",
            r"limit +None",
            r"training\.empty +\(\)",
            r"time +0 to 2",
            r"steps +16, 4, 2, 2 \(finest level first\)",
            r"levels +4",
            r"coarsening +4, 3 chosen points, 1",
            r"steps, level 1 +1 +5 +9 +15",
            r"bytes +720 +800 +800 +2320",
            r"solution +17 x 2 x 3 float64",
            r"Training \(last 12 of 20 rows\)",
            r"iteration +residual +factor",
            r"2 +- +-",
            r"History of forward_residual, 6 x 3",
            r"forward +1 +2 +6",
            r"Model, 13 parameters",
            r"z\.W_ih +3 x 4 +float32 +[0-9.]+",
            r"a +scalar +float64 +2",
        ],
    )
    def test_says(self, text, line):
        assert re.search(rf"^{line} *$", text, re.MULTILINE)

    def test_last_epochs_are_shown(self, text):
        loss = full_record().training["train_loss"]
        assert f"{loss[-1]:.4g}" in text
        assert f"{loss[EPOCHS - 12]:.4g}" in text
        assert f"{loss[EPOCHS - 13]:.4g}" not in text

    def test_fits_80_columns_and_has_no_escape_codes(self, text):
        assert max(map(len, text.splitlines())) <= 80
        assert "\x1b" not in text

    @pytest.mark.parametrize("columns", [TRAINER_COLUMNS, REGRESSION_COLUMNS])
    def test_all_columns_of_the_trainer_fit(self, tmp_path, columns):
        widest = {name: -1.234e-100 * k for k, name in enumerate(columns[1:], 2)}
        training = {name: np.full(3, value) for name, value in widest.items()}
        write_run(tmp_path / "run.h5", RunRecord(command="", training=training, finished=False))
        text = shown(tmp_path / "run.h5")
        assert "interrupted, or still running" in text
        for value in widest.values():
            assert text.count(f"{value:.4g}") == 3

    def test_factor_is_the_quotient_of_residuals(self, tmp_path):
        history = {"residual": np.array([2.0, 0.5, 0.0, 0.0])}
        write_run(tmp_path / "run.h5", RunRecord(command="", history=history, finished=True))
        rows = [line.split() for line in shown(tmp_path / "run.h5").splitlines()]
        for row in (["1", "2", "-"], ["2", "0.5", "0.25"], ["3", "0", "0"], ["4", "0", "-"]):
            assert row in rows

    def test_spread_over_batches_passes_over_nan(self, tmp_path):
        values = np.array([[1.0, np.nan], [3.0, np.nan], [8.0, np.nan], [np.nan, np.nan]])
        record = RunRecord(command="", history={"forward_residual": values}, finished=True)
        write_run(tmp_path / "run.h5", record)
        rows = [line.split() for line in shown(tmp_path / "run.h5").splitlines()]
        assert ["1", "1", "3", "8"] in rows
        assert ["2", "-", "-", "-"] in rows

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
    @given(st.sets(st.sampled_from([field.name for field in fields(RunRecord)][3:-2])))
    def test_any_subset_of_groups(self, tmp_path, names):
        full = full_record()
        changes = {name: getattr(full, name) for name in names}
        write_run(tmp_path / "run.h5", RunRecord(command="", ranks=3, finished=True, **changes))
        text = shown(tmp_path / "run.h5")
        titles = {"options": "Options\n", "training": "Training (", "model": "Model,"}
        titles |= {"history": "History of residual\n", "timings": "Timings in"}
        titles["work"] = "Work of the ranks"
        for name, title in titles.items():
            assert (title in text) == (name in names)
        assert ("Grid\n" in text) == bool(names & {"times", "coarsening", "solution"})

    @pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (2, 2, 2)])
    def test_odd_shapes(self, tmp_path, shape):
        array = np.full(shape, 0.125)
        record = RunRecord(
            command="",
            history={"residual": array, "x": array},
            training={"seconds": array} if shape == (0,) else {},
            model={"m": array.astype(np.complex64)},
            finished=True,
        )
        write_run(tmp_path / "run.h5", record)
        text = shown(tmp_path / "run.h5")
        assert "History of x" in text
        assert ("0.125" in text) == (array.size > 0)

    def test_text_of_the_file_is_not_markup_nor_control_codes(self, tmp_path):
        record = RunRecord(command="[bold]x[/bold] :smile: \x1b[31m\nred", finished=True)
        write_run(tmp_path / "run.h5", record)
        text = shown(tmp_path / "run.h5")
        assert "[bold]x[/bold] :smile:" in text
        assert "\x1b" not in text
        assert "\nred" not in text

    def test_missing_parts_of_the_solution(self, tmp_path):
        write_in_blocks(tmp_path / "run.h5", full_record().solution, (6, 6, 5), gather_limit=0)
        assert re.search(r"^solution files +3 *$", shown(tmp_path / "run.h5"), re.MULTILINE)
        (tmp_path / "run.rank2.h5").unlink()
        assert "3, 1 of them missing" in shown(tmp_path / "run.h5")
