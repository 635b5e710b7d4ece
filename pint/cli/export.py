"""`pint export`: write a network in another format."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pint.cli.arguments import one_line
from pint.rnn.onnx import export_onnx
from pint.rnn.weights import load, load_architecture, save


def main(argv: Sequence[str]) -> int:
    """Write the network, or one line on stderr that says what is wrong."""
    arguments = _parser().parse_args(argv[1:])
    source, target = arguments.source, arguments.target
    write = export_onnx if Path(target).suffix == ".onnx" else save
    names = {"prefix": arguments.prefix, "head": arguments.head}
    try:
        architecture = load_architecture(
            source, **names, cell=arguments.cell, pooling=arguments.pooling
        )
        write(target, load(source, **names), architecture)
    except (OSError, ValueError, ImportError) as error:
        print(f"pint export: {one_line(error, source)}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pint export")
    add = parser.add_argument
    add("source", metavar="SOURCE", help="run file, or weights: .h5, .hdf5, .safetensors")
    add("target", metavar="TARGET", help="file to write: .onnx, or weights")
    add("--cell", choices=("implicit", "classic", "lstm"), help="if the source does not say")
    add("--pooling", choices=("last", "every", "mean"), help="if the source does not say")
    add("--prefix", help="prefix of the names of the recurrent layers, e.g. gru.")
    add("--head", help="prefix of weight and bias of the head, e.g. fc.")
    return parser
