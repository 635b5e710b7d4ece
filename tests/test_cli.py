"""The `pint` command: what it prints, and its exit status."""

import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from apps.train import main as train
from pint import open_run
from pint._version import __version__
from pint.cli import doctor
from pint.cli.main import COMMANDS, main
from pint.parallel import launcher
from pint.results import RunRecord, write_run
from pint.rnn.architecture import Architecture
from pint.rnn.network import Network
from pint.rnn.recurrence_options import RecurrenceOptions
from pint.rnn.weights import load, load_architecture
from pint.train.accuracy import exact_solver


@pytest.fixture
def run_file(tmp_path):
    path = tmp_path / "run.h5"
    write_run(path, RunRecord(command="demo", model={"W_ih": np.ones((2, 2))}, finished=True))
    return path


class TestMain:
    def test_version(self, capsys):
        with pytest.raises(SystemExit, match="0"):
            main(["--version"])
        assert capsys.readouterr().out == f"pint {__version__}\n"

    def test_help_names_the_commands(self, capsys):
        with pytest.raises(SystemExit, match="0"):
            main(["--help"])
        out = capsys.readouterr().out
        for command in COMMANDS:
            assert command in out

    @pytest.mark.parametrize("argv", [[], ["inspect"], ["export", "run.h5"]])
    def test_wrong_usage(self, argv):
        with pytest.raises(SystemExit, match="2"):
            main(argv)

    def test_unknown_command(self, capsys):
        assert main(["inspekt", "run.h5"]) == 2
        assert capsys.readouterr().err == (
            "pint: unknown command 'inspekt' (did you mean 'inspect'?)\n"
        )

    def test_as_a_program(self, run_file):
        command = [sys.executable, "-m", "pint.cli", "inspect", "--all", str(run_file)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "W_ih  2 x 2" in answer.stdout
        assert "\x1b" not in answer.stdout


class TestInspect:
    def test_a_page_leads_to_the_rest(self, run_file, capsys):
        for flags, has_tensors in (([], False), (["--all"], True)):
            assert main(["inspect", *flags, str(run_file)]) == 0
            out = " ".join(capsys.readouterr().out.split())
            assert ("W_ih 2 x 2" in out) == has_tensors
            assert ("pint inspect --all" in out) != has_tensors

    def test_shows_every_file(self, run_file, tmp_path, capsys):
        other = tmp_path / "other.h5"
        write_run(other, RunRecord(command="second", finished=False))
        assert main(["inspect", str(run_file), str(other)]) == 0
        out, err = capsys.readouterr()
        assert "command   demo" in out
        assert "command   second" in out
        assert err == ""

    @pytest.fixture
    def bad_files(self, tmp_path):
        (tmp_path / "text.h5").write_text("epoch\n")
        (tmp_path / "folder.h5").mkdir()
        with h5py.File(tmp_path / "foreign.h5", "w") as file:
            file.attrs["title"] = "none of ours"
        write_run(tmp_path / "newer.h5", RunRecord(command="", finished=True))
        with h5py.File(tmp_path / "newer.h5", "r+") as file:
            file.attrs["format_version"] = 2
        return tmp_path

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("absent.h5", "No such file or directory"),
            ("folder.h5", "Is a directory"),
            ("text.h5", "is not an HDF5 file"),
            ("foreign.h5", "is HDF5, but not a run file of pint"),
            ("newer.h5", f"has format version 2, but pint {__version__} reads versions up to 1"),
        ],
    )
    def test_says_in_one_line_what_is_wrong(self, bad_files, name, message, capsys):
        assert main(["inspect", str(bad_files / name)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("pint inspect: ")
        assert name in err
        assert message in err
        assert err.count("\n") == 1

    def test_shows_the_others_too(self, run_file, tmp_path, capsys):
        assert main(["inspect", str(tmp_path / "absent.h5"), str(run_file)]) == 2
        assert "command   demo" in capsys.readouterr().out

    def test_a_damaged_file_takes_one_line(self, run_file, capsys):
        run_file.write_bytes(run_file.read_bytes()[:-100])
        assert main(["inspect", str(run_file)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


class TestExport:
    """A run file of the training driver becomes what the suffix says."""

    @pytest.fixture
    def trained(self, tmp_path):
        path = tmp_path / "run.h5"
        arguments = ["--hidden", "3", "--epochs", "1", "--batch", "9999", "--serial"]
        assert train([*arguments, "--output", str(path)]) == 0
        return path

    @pytest.mark.parametrize("suffix", [".safetensors", ".hdf5"])
    def test_weights(self, trained, suffix, capsys):
        if suffix == ".safetensors":
            pytest.importorskip("safetensors", reason="an extra: pint[weights]")
        target = trained.with_name(f"model{suffix}")
        assert main(["export", str(trained), str(target)]) == 0
        written, model = load(target), open_run(trained).model
        assert written.keys() == model.keys()
        for name, tensor in model.items():
            np.testing.assert_array_equal(written[name], tensor)
        architecture = load_architecture(target)
        assert architecture.cell == "implicit"
        assert (architecture.hidden, architecture.num_outputs) == (3, 10)
        assert capsys.readouterr().err == ""

    def test_onnx(self, trained):
        pytest.importorskip("onnx", reason="the export is an extra: pint[onnx]")
        runtime = pytest.importorskip("onnxruntime", reason="runs exported graphs: pint[test]")
        target = trained.with_name("model.onnx")
        assert main(["export", str(trained), str(target)]) == 0
        x = np.random.default_rng(0).standard_normal((2, 64, 1)).astype(np.float32)
        model = Network(RecurrenceOptions(num_features=1, hidden=3), 10)
        model.set_weights(open_run(trained).model)
        expected, _ = exact_solver(model, 64).predict(x)
        (got,) = runtime.InferenceSession(target).run(["logits"], {"x": x})
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)

    def test_options_reach_the_reader(self, tmp_path):
        weights = pytest.importorskip("safetensors.numpy", reason="an extra: pint[weights]")
        shapes = Architecture(num_features=2, hidden=3, num_outputs=4).shapes
        tensors = {name: np.ones(shape) for name, shape in shapes.items()}
        heads = {f"fc.{part}": tensors.pop(f"head.{part}") for part in ("weight", "bias")}
        stacks = {f"{each}.{name}": x for each in "ab" for name, x in tensors.items()}
        weights.save_file({**stacks, **heads}, tmp_path / "module.safetensors")
        source, target = str(tmp_path / "module.safetensors"), tmp_path / "model.h5"
        options = "--prefix a. --head fc. --cell implicit --pooling mean"
        assert main(["export", source, str(target), *options.split()]) == 0
        assert load_architecture(target) == Architecture(
            num_features=2, hidden=3, num_outputs=4, pooling="mean", dtype="float64"
        )

    @pytest.mark.parametrize(
        ("source", "target", "message"),
        [
            ("absent.h5", "model.onnx", "No such file or directory"),
            ("run.h5", "model.onnx", "expected one name that ends in weight_ih_l0, found ['W_ih']"),
            ("run.h5", "model.pt", "expected one name"),
            ("run.txt", "model.onnx", "must end in one of .safetensors, .h5, .hdf5"),
        ],
    )
    def test_says_in_one_line_what_is_wrong(self, run_file, source, target, message, capsys):
        paths = [str(run_file.with_name(name)) for name in (source, target)]
        assert main(["export", *paths]) == 2
        error = capsys.readouterr().err
        assert error.startswith("pint export: ")
        assert message in error
        assert source in error
        assert error.count("\n") == 1

    @pytest.mark.parametrize(
        ("target", "message"),
        [("model.pt", "must end in one of"), ("no/model.h5", "does not exist: create it first")],
    )
    def test_a_wrong_target_is_told(self, trained, target, message, capsys):
        capsys.readouterr()
        assert main(["export", str(trained), str(trained.parent / target)]) == 2
        assert message in capsys.readouterr().err


class TestDoctor:
    """Every answer of the installation is put in place, so that the tests run on any."""

    @pytest.fixture(autouse=True)
    def installation(self, monkeypatch):
        self.versions = dict.fromkeys(("numpy", "scipy", "numba", "h5py", "mpi4py"), "9.8.7")
        self.names = ["pint-mgrit", "numpy", None]
        self.answers = {sys.executable: "MPICH Version: 5.0", "/mpi/mpiexec": "HYDRA build 5.0"}
        self.launcher = "/mpi/mpiexec"
        monkeypatch.setattr(doctor.metadata, "version", self.version)
        monkeypatch.setattr(doctor.metadata, "distributions", self.distributions)
        monkeypatch.setattr(doctor, "_first_line", lambda *asked: self.answers.get(asked[0], ""))
        monkeypatch.setattr(launcher.shutil, "which", lambda name, path=None: self.launcher)

    def version(self, name):
        if name not in self.versions:
            raise metadata.PackageNotFoundError(name)
        return self.versions[name]

    def distributions(self):
        return [SimpleNamespace(metadata={"Name": name}, version="0.25") for name in self.names]

    def report(self, capsys):
        """Return exit status and lines by their name, problems under "problem"."""
        status = main(["doctor"])
        lines = capsys.readouterr().out.splitlines()
        problems = [line.removeprefix("problem: ") for line in lines if line.startswith("problem")]
        return status, dict(line.split("  ", 1) for line in lines if "  " in line), problems

    def test_healthy(self, capsys, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
        status, report, problems = self.report(capsys)
        values = {name: value.strip() for name, value in report.items()}
        assert (status, problems) == (0, [])
        for package in self.versions:
            assert values[package] == "9.8.7"
        assert values["pint"].startswith(__version__)
        assert values["python"].split()[0] == ".".join(map(str, sys.version_info[:3]))
        assert values["MPI library"] == "MPICH Version: 5.0"
        assert values["mpiexec"] == "/mpi/mpiexec"
        assert values["OMP_NUM_THREADS"] == "3"
        assert values["NUMBA_NUM_THREADS"].startswith("not set")
        assert int(values["cores"].split()[0]) >= 1
        assert values["BLAS"]

    def test_says_that_nothing_is_wrong(self, capsys):
        main(["doctor"])
        assert capsys.readouterr().out.endswith("\nno problems found\n")

    def test_without_mpi4py(self, capsys):
        del self.versions["mpi4py"]
        status, report, _ = self.report(capsys)
        assert status == 0
        assert report["mpi4py"].strip() == "not installed: runs on one process"
        assert "mpiexec" not in report

    def test_mpi4py_without_mpi(self, capsys):
        self.answers[sys.executable] = ""
        status, report, problems = self.report(capsys)
        assert status == 1
        assert report["MPI library"].strip() == "not found"
        assert problems == ["mpi4py finds no MPI library: pip install mpich"]

    def test_launcher_of_another_mpi(self, capsys):
        self.answers["/mpi/mpiexec"] = "mpiexec (OpenRTE) 4.1.4"
        status, _, problems = self.report(capsys)
        assert status == 1
        assert problems == [
            "/mpi/mpiexec belongs to Open MPI, mpi4py uses MPICH: every process would be rank 0; "
            "use the mpiexec of MPICH"
        ]

    def test_unknown_launcher_is_no_problem(self, capsys):
        self.answers["/mpi/mpiexec"] = "launcher 3"
        assert self.report(capsys)[0] == 0

    def test_no_launcher(self, capsys):
        self.launcher = None
        status, report, _ = self.report(capsys)
        assert status == 0
        assert report["mpiexec"].strip().startswith("not found")

    @pytest.mark.parametrize("package", ["numpy", "scipy", "numba", "h5py"])
    def test_missing_package(self, capsys, package):
        del self.versions[package]
        status, report, problems = self.report(capsys)
        assert status == 1
        assert report[package].strip() == "not installed"
        assert problems == [f"{package} is not installed: pip install {package}"]

    @pytest.mark.parametrize("name", ["Pint", "pint"])
    def test_units_library(self, capsys, name):
        self.names.append(name)
        status, report, problems = self.report(capsys)
        assert status == 1
        assert report["import name"].strip() == f"shared with {name} 0.25"
        assert len(problems) == 1
        assert f"pip uninstall {name} pint-mgrit, then pip install pint-mgrit" in problems[0]

    def test_without_threadpoolctl(self, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "threadpoolctl", None)
        assert self.report(capsys)[1]["BLAS"].strip() == "unknown: pip install threadpoolctl"


class TestQuestions:
    """What the doctor asks other programs."""

    def test_first_line_that_says_something(self):
        code = "print(); print('  MPI\\t 5 \\0'); print('more')"
        assert doctor._first_line(sys.executable, "-c", code) == "MPI 5"

    @pytest.mark.parametrize(
        "command", [(sys.executable, "-c", "print(1); raise SystemExit(3)"), ("/absent/mpiexec",)]
    )
    def test_failing_program_says_nothing(self, command):
        assert doctor._first_line(*command) == ""

    def test_mpi_library(self):
        pytest.importorskip("mpi4py")
        assert doctor._mpi_family(doctor._mpi_library()) in ("MPICH", "Open MPI", "")
        assert doctor._mpi_library()

    @pytest.mark.parametrize(
        ("text", "family"),
        [
            ("Open MPI v5.0.3, package: Debian", "Open MPI"),
            ("mpiexec (OpenRTE) 4.1.4", "Open MPI"),
            ("prterun (PRRTE) 3.0", "Open MPI"),
            ("HYDRA build details:", "MPICH"),
            ("MPICH Version: 5.0.2", "MPICH"),
            ("Intel(R) MPI Library 2021", "MPICH"),
            ("Microsoft MPI", ""),
        ],
    )
    def test_families(self, text, family):
        assert doctor._mpi_family(text) == family
