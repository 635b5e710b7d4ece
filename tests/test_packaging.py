"""What an installation puts where, and that it runs in any folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path

import pytest

import apps
from pint.cli.main import main

ROOT = Path(__file__).resolve().parents[1]


def test_setup_cfg_lists_every_package():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    folders = [
        file.parent for top in ("pint", "apps") for file in (ROOT / top).rglob("__init__.py")
    ]
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    installed = {f"pint.{name}" if name.startswith("apps") else name for name in names}
    assert set(config["options"]["packages"].split()) == installed


@pytest.mark.parametrize("name", apps.NAMES)
def test_every_app_has_a_main(name):
    if name == "own_cell_torch":
        pytest.importorskip("torch", reason="an extra: pint[torch]")
    module = import_module(f"apps.{name}" if name != "hmdb51" else "apps.hmdb51.__main__")
    assert callable(module.main)


def test_run_names_the_nearest_app(capsys):
    assert main(["run", "heta", "--levels", "3"]) == 2
    assert capsys.readouterr().err == "pint run: unknown app 'heta' (did you mean 'heat'?)\n"


def test_run_passes_options_on(capsys):
    assert main(["run", "heat", "--steps", "16", "--nodes", "9"]) == 0
    assert "levels of 16, 4 steps, 1 rank(s)" in capsys.readouterr().out


@pytest.mark.mpi
@pytest.mark.xdist_group("mpi")
def test_run_starts_ranks():
    pytest.importorskip("mpi4py", reason="an extra: pint[mpi]")
    from tests.launcher import environment

    command = [sys.executable, "-m", "pint.cli", "run", "heat", "--steps", "16", "--ranks", "2"]
    done = subprocess.run(
        [*command, "--nodes", "9"], env=environment(), capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "2 rank(s)" in done.stdout


def test_run_refuses_ranks_that_are_alone(monkeypatch, capsys):
    monkeypatch.setenv("PINT_RUN_RANKS", "2")
    assert main(["run", "heat"]) == 2
    assert "mpiexec started 2 programs, and each is alone" in capsys.readouterr().err


@pytest.mark.slow
def test_a_wheel_holds_pint_alone_and_runs_beside_a_folder_of_apps(tmp_path):
    for folder in ("pint", "apps"):  # a copy: setuptools leaves files where it builds
        shutil.copytree(ROOT / folder, tmp_path / "source" / folder)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "source")
    pip = [sys.executable, "-m", "pip", "wheel", "./source", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", "."], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"pint"}
    assert {"pint/apps/heat.py", "pint/apps/hmdb51/__main__.py", "pint/py.typed"} <= set(names)
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "__init__.py").write_text("raise ImportError('the folder of a user')\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    for start in (["pint.apps.heat"], ["pint.cli", "run", "heat"]):
        done = subprocess.run(
            [sys.executable, "-m", *start, "--help"],
            cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "--coarsening" in done.stdout
