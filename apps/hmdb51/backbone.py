"""The convolutional network that computes features of frames, run by onnxruntime."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint.data.feature_file import NUM_FEATURES
from pint.optional import import_extra

__all__ = ["KNOWN_MODELS", "NUM_FEATURES", "Backbone", "file_hash", "locate_model"]


# Of red, green and blue, for pixels divided by 255, as the ONNX model zoo describes the input of
# its ResNets (validated/vision/classification/resnet/README.md of github.com/onnx/models).
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)

_ZOO = "https://huggingface.co/onnxmodelzoo/{0}/resolve/main/{0}.onnx"

# The checksums are in the zoo's own ONNX_HUB_MANIFEST.json (model_sha of ResNet18, ResNet34 and
# ResNet50, opset 7); for ResNet18 also in the repository's Git LFS pointer. Downloads moved
# from github.com/onnx/models to huggingface.co/onnxmodelzoo in July 2025, as its README says.
KNOWN_MODELS = MappingProxyType(
    {
        "resnet18": (
            _ZOO.format("resnet18-v1-7"),
            "4e8f8653e7a2222b3904cc3fe8e304cd8b339ce1d05fd24688162f86fb6df52c",
        ),
        "resnet34": (
            _ZOO.format("resnet34-v1-7"),
            "883a41b2e30ddc2e422c108b091b5e70b92d37dc5c345a2c563dcae27971e2cc",
        ),
        "resnet50": (
            _ZOO.format("resnet50-v1-7"),
            "af16a04a6ec48ac494065d4439fe9dea590d337b9ca6dc328160ccf04a217b9c",
        ),
    }
)
"""Address and SHA-256 of each named model."""


def locate_model(model: str, sha256: str | None = None) -> Path:
    """Return the file of a model; a named model is downloaded once.

    Parameters
    ----------
    model : str
        A name in `KNOWN_MODELS`, whose file is kept in the user's cache, or the path of a file.
    sha256 : str, optional
        Required checksum of a file given by its path.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If a file has another checksum, or a checksum is given for a named model.
    OSError
        If the download fails.
    ImportError
        If pooch is not installed.
    """
    if model in KNOWN_MODELS:
        if sha256 is not None:
            raise ValueError(f"{model} has a checksum of its own: leave out the one given")
        return _download(*KNOWN_MODELS[model])
    path = Path(model)
    if not path.is_file():
        names = ", ".join(KNOWN_MODELS)
        raise FileNotFoundError(f"{model}: no such file, and no model of that name ({names})")
    if sha256 is not None and file_hash(path) != sha256.lower():
        raise ValueError(f"{model} has the SHA-256 {file_hash(path)}, expected {sha256}")
    return path


def _download(url: str, sha256: str) -> Path:
    pooch = import_extra("pooch", "video")
    try:
        path = pooch.retrieve(
            url=url,
            known_hash=f"sha256:{sha256}",
            fname=url.rsplit("/", 1)[-1],
            path=pooch.os_cache("pint"),
        )
    except OSError as error:
        raise OSError(
            f"{url} cannot be downloaded ({type(error).__name__}): fetch it some other way, and "
            "give the file in place of the name"
        ) from error
    return Path(path)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Input:
    """Input of a model: a name, and a shape with None where it may vary."""

    name: str
    shape: tuple[int | None, ...]


class Backbone:
    """A network of frames, on the processor; its constructor tries a black frame and a batch.

    Files of the model zoo fix the size of their frames (224 x 224), and others may fix their
    number. Such a file is changed in memory so that they may vary, which networks that pool over
    the whole frame allow. For frames of the fixed size the file is not changed.

    Parameters
    ----------
    path : Path
        ONNX file with one input, frames (N, 3, height, width) in float32, whose first output is
        (N, 1000), for every N from 1 to `batch`.
    size : int
        Height and width of the frames.
    batch : int
        Greatest number of frames in one call.
    threads : int, default 1
        Threads of onnxruntime.

    Raises
    ------
    ValueError
        If the file is no model, or the model has another input or output.
    ImportError
        If onnxruntime is not installed, or onnx for a file that must be changed.
    """

    def __init__(self, path: Path, size: int, batch: int, threads: int = 1) -> None:
        self.path, self.size, self.batch, self.threads = path, size, batch, threads
        self._session = self._start(str(path))
        self._input = self._checked_input()
        if any(fixed not in (None, want) for fixed, want in self._sizes()):
            self._session = self._start(_with_free_sizes(path, self._input.name))
        self._try()

    def _start(self, model: str | bytes) -> Any:
        runtime = import_extra("onnxruntime", "video")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised as well
        try:
            return runtime.InferenceSession(
                model, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has no common class of its errors
            raise ValueError(f"{self.path} is no ONNX model: {_first_line(error)}") from error

    def _checked_input(self) -> _Input:
        inputs = self._session.get_inputs()
        found = ", ".join(f"{each.type} {each.shape}" for each in inputs)
        one = inputs[0] if len(inputs) == 1 else None
        if one is None or one.type != "tensor(float)" or len(one.shape) != 4 or one.shape[1] != 3:
            raise ValueError(
                f"{self.path} must take frames (N, 3, height, width) in float32, takes {found}"
            )
        shape = tuple(length if isinstance(length, int) else None for length in one.shape)
        return _Input(name=one.name, shape=shape)

    def _sizes(self) -> list[tuple[int | None, int | None]]:
        """Return the fixed sizes beside the required ones; a last batch may be smaller."""
        number, _, height, width = self._input.shape
        return [(number, 1 if self.batch == 1 else None), (height, self.size), (width, self.size)]

    def _try(self) -> None:
        """Raise unless the network works on one frame, as at the end of a clip, and on a batch."""
        black = np.zeros((self.batch, self.size, self.size, 3), dtype=np.uint8)
        self.features(black[:1])
        try:
            self.features(black)
        except ValueError as error:
            raise ValueError(f"{error}; one frame works: take a batch of 1 (--batch 1)") from error

    def features(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features of frames.

        Parameters
        ----------
        frames : ndarray of uint8, shape (N, size, size, 3)
            Red, green, blue; N is at most `batch`.

        Returns
        -------
        ndarray of float32, shape (N, 1000)
            New.

        Raises
        ------
        ValueError
            If the model fails, or returns no numbers, another shape or values that are not finite.
        """
        scaled = (frames.astype(np.float32) / 255 - _MEAN) / _DEVIATION
        pixels = np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
        try:
            got = self._session.run(None, {self._input.name: pixels})[0]
        except Exception as error:  # onnxruntime has no common class of its errors
            raise ValueError(
                f"{self.path} does not work on {len(frames)} frames of {self.size} x {self.size}, "
                f"the file says {self._input.shape}: {_first_line(error)}"
            ) from error
        if not isinstance(got, np.ndarray) or got.dtype.kind not in "biuf":
            raise ValueError(
                f"{self.path} gives no array of numbers for {len(frames)} frames, must give "
                f"({len(frames)}, {NUM_FEATURES})"
            )
        if got.shape != (len(frames), NUM_FEATURES):
            raise ValueError(
                f"{self.path} gives {got.shape} for {len(frames)} frames, must give "
                f"({len(frames)}, {NUM_FEATURES})"
            )
        if not np.isfinite(got).all():
            raise ValueError(f"{self.path} gives values that are not finite")
        return np.asarray(got, dtype=np.float32)


def _with_free_sizes(path: Path, name: str) -> bytes:
    """Return a model whose input may have any number and size of frames."""
    onnx = import_extra("onnx", "video")
    model = onnx.load(str(path))
    (given,) = (each for each in model.graph.input if each.name == name)
    dims = given.type.tensor_type.shape.dim
    for axis, symbol in ((0, "frames"), (2, "height"), (3, "width")):
        dims[axis].dim_param = symbol
    # Remove shapes of the old size: onnxruntime infers them again.
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return bytes(model.SerializeToString())


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
