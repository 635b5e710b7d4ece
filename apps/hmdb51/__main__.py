"""Compute features of the clips of HMDB51, frame by frame: python -m apps.hmdb51 --help."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from pint.data.feature_file import TEST, TRAIN
from pint.optional import import_extra
from pint.options import at_least

from .backbone import KNOWN_MODELS, file_hash, locate_model
from .clips import Clips, draw_parts, find_clips, official_parts
from .extraction import Extraction, Outcome, extract
from .feature_layout import FeatureOptions
from .feature_writer import FeatureFile
from .frames import UnreadableClipError, count_packets
from .progress import ClipProgress

FEW = 5
"""Number of names that a message shows of a long list."""


def main(argv: Sequence[str] | None = None) -> int:
    """Compute features by the command line; return the exit status.

    0 is success, 2 is wrong use, 130 is interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(arguments)
    try:
        return _run(args, shlex.join(["python", "-m", str(__package__), *arguments]))
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"apps.hmdb51: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"apps.hmdb51: interrupted; the same command goes on with {args.output}",
            file=sys.stderr,
        )
        return 130


def _run(args: argparse.Namespace, command: str) -> int:
    """Find the clips, compute their features, report."""
    at_least("workers", args.workers, 1)
    clips, split = _find(args)
    how = _extraction(args)
    how.backbone()  # raise an error of the model before any work
    _refuse_short(args.folder, clips, how.min_frames)
    options = FeatureOptions(
        model_sha256=file_hash(how.model),
        frames=how.frames,
        size=how.size,
        dtype=args.dtype,
    )
    console = Console()
    with FeatureFile(args.output, clips, options, _notes(args, command)) as file:
        _fill(file, clips, how, args, console)
        _finish(file, clips, split, args)
    return 0


def _find(args: argparse.Namespace) -> tuple[Clips, str]:
    """Return the clips, and a description of their split."""
    clips = find_clips(args.folder, args.classes)
    if args.splits is None:
        if args.split is not None:
            raise ValueError("--split is for --splits FOLDER: add it, or leave --split out")
        if clips.empty_folders and args.classes is None:
            print(f"no clips in: {', '.join(clips.empty_folders)}", file=sys.stderr)
        return clips, f"drawn, seed {args.seed or 0}"
    if args.seed is not None:
        raise ValueError("--seed is for a drawn split: leave it out beside --splits")
    number = args.split or 1
    return official_parts(clips, args.splits, number, args.classes), f"official {number}"


def _extraction(args: argparse.Namespace) -> Extraction:
    return Extraction(
        model=locate_model(args.model, args.model_sha256),
        frames=args.frames,
        size=args.size,
        dtype=args.dtype,
        batch=args.batch,
        min_frames=args.min_frames,
        threads=args.threads,
    )


def _refuse_short(folder: Path, clips: Clips, min_frames: int) -> None:
    """Raise if clips hold too few frames; unreadable clips are skipped later."""
    if min_frames == 1:
        return
    short = []
    for name in np.array(clips.names)[clips.used].tolist():
        try:
            num_frames = count_packets(folder / name, min_frames)
        except UnreadableClipError:
            continue
        if num_frames < min_frames:
            short.append(f"{name} ({num_frames})")
    if short:
        more = ", ..." if len(short) > FEW else ""
        raise ValueError(
            f"{len(short)} clip(s) have fewer than {min_frames} frames: "
            f"{', '.join(short[:FEW])}{more}; lower --min-frames, or take them out of the folder"
        )


def _notes(args: argparse.Namespace, command: str) -> dict[str, str | int]:
    """Return the attributes of a file on its origin, beside its options."""
    names = ("av", "onnxruntime")
    packages = {f"{name}_version": str(import_extra(name, "video").__version__) for name in names}
    return {"command": command, "model": args.model, "batch": args.batch, **packages}


def _fill(
    file: FeatureFile, clips: Clips, how: Extraction, args: argparse.Namespace, console: Console
) -> None:
    """Compute the missing features."""
    pending, num_used = file.pending(), int(clips.used.sum())
    console.print(
        f"{num_used} clips of {len(clips.class_names)} classes, {pending.size} to do; "
        f"{how.frames} frames of {how.size} x {how.size} by {how.model.name}; "
        f"{args.workers} process(es)",
        highlight=False,
        soft_wrap=True,
    )
    paths = [args.folder / name for name in clips.names]
    begin = time.perf_counter()
    with ClipProgress(num_used, pending.size, console) as progress:
        for outcome in extract(paths, pending, how, args.workers):
            _keep(file, outcome)
            progress.clip(outcome)
    seconds = time.perf_counter() - begin
    if progress.num_frames:
        speed = progress.num_frames / seconds
        console.print(
            f"{progress.num_frames} frames in {seconds:.1f} s, {speed:.0f} per second",
            highlight=False,
        )


def _keep(file: FeatureFile, outcome: Outcome) -> None:
    if outcome.features is None:
        file.skip(outcome.clip, outcome.reason)
    else:
        file.store(outcome.clip, outcome.features)


def _finish(file: FeatureFile, clips: Clips, split: str, args: argparse.Namespace) -> None:
    """Split the stored clips, and report."""
    stored, num_used = file.stored(), int(clips.used.sum())
    for name, reason in file.skipped().items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    if stored.size == 0:
        raise ValueError(f"none of the {num_used} clips in {args.folder} can be read")
    parts = clips.parts.copy()
    if args.splits is None:
        parts[stored] = draw_parts(clips.labels[stored], args.seed or 0)
    num_changed = file.finish(parts, split)
    counts = np.bincount(parts[stored], minlength=TEST + 1)
    megabytes = args.output.stat().st_size / 1e6
    print(
        f"{counts[TRAIN]} clips for training and {counts[TEST]} for the test, "
        f"{num_used - stored.size} skipped"
    )
    if num_changed:
        print(f"{num_changed} clips are in another part than before")
    print(f"{args.output}, {megabytes:.1f} MB")


def _names(text: str) -> tuple[str, ...]:
    """Read "chew,eat"."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="apps.hmdb51",
        description="Turn the clips of FOLDER/<class>/<name>.avi into features of their frames, "
        "for apps.train --data hmdb51. The same command continues an interrupted run.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    add = parser.add_argument
    add("folder", type=Path, help="folder of HMDB51: a folder for each class")
    add("--output", type=Path, default=Path("features.h5"), help="HDF5 file of the features")
    add(
        "--model",
        default="resnet18",
        help=f"ONNX file, or {', '.join(KNOWN_MODELS)}, which are downloaded",
    )
    add("--model-sha256", help="checksum that a given ONNX file must have")
    add("--classes", type=_names, help="some of the classes: chew,eat; all by default")
    add("--splits", type=Path, help="folder of the official split files; drawn by default")
    add("--split", type=int, choices=(1, 2, 3), help="number of the official split, 1 by default")
    add("--seed", type=int, help="seed of a drawn split, nine to one; 0 by default")
    add("--frames", type=int, default=128, help="number of stored frames of a clip")
    add("--min-frames", type=int, default=1, help="least number of frames of a clip")
    add("--size", type=int, default=240, help="height and width of the resized frames")
    add("--dtype", choices=("float16", "float32"), default="float16", help="stored precision")
    add("--batch", type=int, default=16, help="frames in one call of the network")
    add("--workers", type=int, default=cores, help="processes that decode and run the network")
    add("--threads", type=int, default=1, help="threads of the network in each process")
    return parser


if __name__ == "__main__":
    sys.exit(main())
