"""Options of apps.train from a TOML file: names, values, and that the command line wins."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from jsonargparse import ActionYesNo

from apps.train import main
from apps.train_options import build_parser, read, settle
from pint import open_run
from tests.launcher import environment


@pytest.fixture
def write(tmp_path):
    def to_file(text):
        path = tmp_path / "options.toml"
        path.write_text(text)
        return str(path)

    return to_file


def test_the_command_line_wins_over_the_file_over_the_defaults(write):
    path = write("hidden = 20\nlevels = 3\nserial = true\nwarm-start = true\n")
    args = read(["--levels", "4", "--config", path, "--no-serial"])
    assert (args.hidden, args.levels, args.layers) == (20, 4, 1)
    assert (args.serial, args.warm_start) == (False, True)
    assert args.config == Path(path)


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("coarsening = 4", "coarsening", 4),
        ("coarsening = [4, 2]", "coarsening", (4, 2)),
        ('relax = "0,1"', "relax", (0, 1)),
        ('clip = "none"', "clip", None),
        ("clip = 2", "clip", 2.0),
        ("lr = 1e-3", "lr", 1e-3),
        ("forward-iterations = 3", "forward_iterations", 3),
        ("forward_iterations = 3", "forward_iterations", 3),
        ('data-dir = "a/b"', "data_dir", Path("a/b")),
        ('coarse-step = "midpoint"', "coarse_step", "midpoint"),
        ("class-weights = [1, 2.5]", "class_weights", (1.0, 2.5)),
        ('class-weights = "balanced"', "class_weights", "balanced"),
        ("json = true", "json", True),
    ],
)
def test_values_are_those_of_the_command_line(write, line, name, value):
    found = getattr(read(["--config", write(line)]), name)
    assert found == value
    assert type(found) is type(value)


def test_a_file_may_give_every_option(write):
    """As the command line has them; each set to another value than its default."""
    lines, expected = [], {}
    for action in build_parser()._actions:
        name = action.option_strings[0].lstrip("-")
        if name in ("help", "h", "config"):
            continue
        if isinstance(action, ActionYesNo):
            text, value = "true", True
        elif action.choices is not None:
            value = next(choice for choice in action.choices if choice != action.default)
            text = f'"{value}"'
        elif getattr(action, "_typehint", None) is Path:
            text, value = '"x/y"', Path("x/y")
        elif name == "class-weights":
            text, value = "[1, 2.5]", (1.0, 2.5)
        else:
            text, value = "7", 7
        lines.append(f"{name} = {text}")
        expected[action.dest] = value
    args = vars(read(["--config", write("\n".join(lines))]))
    assert {name: args[name] for name in expected} == expected
    assert len(expected) == len(args) - 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hiden = 3", "unknown 'hiden' (did you mean 'hidden'?)"),
        (
            "hidden = 3\nlevel = 2\nforward_iteration = 1",
            "unknown 'level' (did you mean 'levels'?), 'forward-iteration' (did you mean 'forward-"
            "iterations'?)",
        ),
        ('config = "other.toml"', "unknown 'config' (did you mean"),
        ("[training]\nepochs = 3", "unknown 'training' (did you mean"),
        ("warm-up = 1\nwarm_up = 2", "a name is given with dashes and with underscores"),
        ('hidden = "wide"', "hidden = 'wide': expected int"),
        ("hidden = 2.5", "hidden = 2.5: expected int"),
        ("hidden = true", "hidden = True: expected int"),
        ("serial = 1", "serial = 1: Value not boolean"),
        ("length = 0", "length = 0: must be at least 1, got 0"),
        ('cell = "gru"', "cell = 'gru': 'gru' not among choices ('implicit', 'classic', 'lstm')"),
        ("hidden 3", "Expected '=' after a key"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(write, text, message, capsys):
    path = write(text)
    assert main(["--config", path]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"apps.train: {path}: ")
    assert re.search(re.escape(message), error)
    assert len(error.strip().splitlines()) == 1


def test_a_file_that_is_not_there(capsys):
    assert main(["--config", "no/such.toml"]) == 2
    assert "no/such.toml" in capsys.readouterr().err


def test_a_run_notes_what_was_used(write, tmp_path):
    path = write('data = "adding"\nlength = 20\nsamples = 8\nhidden = 4\nepochs = 1\nserial = true')
    output = tmp_path / "run.h5"
    assert main(["--config", path, "--hidden", "5", "--output", str(output)]) == 0
    options = open_run(output).options
    assert (options["hidden"], options["length"], options["serial"]) == (5, 20, True)
    assert options["config"] == path


def test_a_wrong_command_line_names_the_program(capsys):
    with pytest.raises(SystemExit):
        main(["--config"])
    assert capsys.readouterr().err == "apps.train: argument --config: expected one argument\n"


def test_options_that_belong_to_others_are_filled_in_where_they_count():
    args = read(["--optimizer", "sgd", "--coarse-step", "implicit"])
    settle(args)
    assert (args.momentum, args.weight_decay, args.substep, args.bound) == (0.9, 0.0, None, None)


def test_options_are_written_in_full(capsys):
    with pytest.raises(SystemExit):
        main(["--conf", "options.toml"])
    said = capsys.readouterr().err
    assert said == "apps.train: unknown option '--conf' (did you mean '--config'?)\n"


def test_help_imports_no_compiler():
    script = "import sys\nfrom apps.train import main\ntry:\n    main(['--help'])\nfinally:\n    "
    script += "print(sorted({'numba', 'scipy.signal', 'torch'} & set(sys.modules)))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
