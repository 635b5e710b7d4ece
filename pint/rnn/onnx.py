"""A trained network as an ONNX graph, for other programs and languages."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pint._version import __version__
from pint.results.atomic import check_folder, put_in_place, temporary_beside
from pint.rnn.architecture import Architecture

Array = NDArray[Any]
Weights = Mapping[str, Array]

OPSET = 17
IR_VERSION = 8

_GATE_ORDER = {"classic": (1, 0, 2), "lstm": (0, 3, 1, 2)}
"""ONNX has z, r, n and i, o, f, g where torch has r, z, n and i, f, g, o."""


def export_onnx(path: str | os.PathLike[str], weights: Weights, architecture: Architecture) -> None:
    """Write a network as an ONNX model; a file of that name is replaced at once, or kept.

    Its input is ``x`` (batch, time, num_features), batch and time of any length. Its outputs are
    ``logits``, (batch, num_outputs) or (batch, time, num_outputs) where `pooling` is "every"; or,
    without a head, the top layer's ``states`` (batch, time, H), 2 H wide in two directions. Then
    the last states of all layers and directions, as torch orders them: ``h_n`` (layers, batch, H),
    and ``c_n`` of an lstm. All of them in the weights' dtype.

    In float32 a layer of the classic unit or an lstm is ONNX's own GRU or LSTM operator. The
    implicit unit, and all in float64, which onnxruntime lacks for those operators, are a Scan over
    time with the cell's formulas. The initial state is zero, or the learned one.

    Parameters
    ----------
    path : path-like
        ``*.onnx``.
    weights : mapping of str to ndarray
        Tensors with the names and shapes in ``architecture.shapes``.
    architecture : Architecture
        What they belong to.

    Raises
    ------
    ValueError
        If the suffix is another one, or the tensors do not fit.
    OSError
        If the file cannot be written.
    ImportError
        If onnx is not installed.

    References
    ----------
    ONNX operator set 17: GRU, LSTM and Scan, https://onnx.ai/onnx/operators/.

    Examples
    --------
    >>> export_onnx("model.onnx", model.weights, architecture)  # doctest: +SKIP
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"{str(path)!r} must end in .onnx")
    architecture.check(weights)
    check_folder(path)
    content = _model(weights, architecture).SerializeToString()
    with temporary_beside(path) as temporary:
        temporary.write_bytes(content)
        put_in_place(temporary, path)


def _import_onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            'the export needs onnx: pip install "pint-mgrit[onnx]"', name="onnx"
        ) from error
    return onnx


class _Graph:
    """Nodes and constants, in the order in which they are added; names come from `scope`."""

    def __init__(self, onnx: Any, dtype: str, scope: str) -> None:
        self.onnx = onnx
        self.dtype = np.dtype(dtype)
        self.scope = scope
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any, *, indices: bool = False) -> str:
        """Add a tensor of the network's dtype, or of int64 for axes and shapes."""
        array = np.ascontiguousarray(value, dtype=np.int64 if indices else self.dtype)
        name = f"{self.scope}constant_{len(self.constants)}"
        self.constants.append(
            self.onnx.numpy_helper.from_array(array.reshape(np.shape(value)), name)
        )
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""
        return self.add_many(operator, inputs, 1, **attributes)[0]

    def add_many(
        self, operator: str, inputs: Sequence[str], num_outputs: int, **attributes: Any
    ) -> list[str]:
        """Add a node; return the names of its outputs."""
        start = f"{self.scope}{operator}_{len(self.nodes)}"
        outputs = [start if index == 0 else f"{start}_{index}" for index in range(num_outputs)]
        self.nodes.append(
            self.onnx.helper.make_node(operator, inputs, outputs, name=start, **attributes)
        )
        return outputs

    def rename(self, old: str, new: str) -> None:
        """Add `new` as another name of a result: an output of the whole model."""
        self.nodes.append(self.onnx.helper.make_node("Identity", [old], [new], name=new))

    def value(self, name: str, shape: Sequence[int | str | None]) -> Any:
        """Return name, dtype and shape of an input or output."""
        element = self.onnx.helper.np_dtype_to_tensor_dtype(self.dtype)
        return self.onnx.helper.make_tensor_value_info(name, element, shape)

    def body(self, scope: str) -> _Graph:
        """Return an empty graph, for the body of a loop in this one."""
        return _Graph(self.onnx, str(self.dtype), scope)


def _model(weights: Weights, a: Architecture) -> Any:
    """Return the whole model."""
    onnx = _import_onnx()
    graph = _Graph(onnx, a.dtype, "")
    y = graph.add("Transpose", "x", perm=[1, 0, 2])
    finals: list[list[str]] = []
    for layer in range(a.layers):
        y, final = _layer(graph, y, weights, a, layer)
        finals.append(final)
    outputs = [_head(graph, y, finals[-1][0], weights, a)]
    for name, states in zip(("h_n", "c_n"), zip(*finals, strict=True), strict=False):
        graph.rename(graph.add("Concat", *states, axis=0), name)
        outputs.append(graph.value(name, [a.layers * a.num_directions, "batch", a.hidden]))
    inputs = [graph.value("x", ["batch", "time", a.num_features])]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, a.cell, inputs, outputs, graph.constants),
        producer_name="pint",
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
    )
    onnx.helper.set_model_props(model, {name: str(value) for name, value in asdict(a).items()})
    return model


def _head(graph: _Graph, y: str, final: str, weights: Weights, a: Architecture) -> Any:
    """Add what follows the layers; return the description of the first output.

    y is (time, batch, width) and final (directions, batch, H), both of the top layer.
    """
    every = a.pooling == "every" or not a.num_outputs
    if every:
        features = graph.add("Transpose", y, perm=[1, 0, 2])
    elif a.pooling == "mean":
        features = graph.add("ReduceMean", y, axes=[0], keepdims=0)
    else:
        by_batch = graph.add("Transpose", final, perm=[1, 0, 2])
        features = graph.add("Reshape", by_batch, graph.constant([0, -1], indices=True))
    name, width = "states", a.num_directions * a.hidden
    if a.num_outputs:
        name, width = "logits", a.num_outputs
        scores = graph.add("MatMul", features, graph.constant(weights["head.weight"].T))
        features = graph.add("Add", scores, graph.constant(weights["head.bias"]))
    graph.rename(features, name)
    return graph.value(name, ["batch", "time", width] if every else ["batch", width])


def _layer(
    graph: _Graph, x: str, weights: Weights, a: Architecture, layer: int
) -> tuple[str, list[str]]:
    """Add a layer: its states (time, batch, width), and the last ones (directions, batch, H).

    The last ones are h, or h and c of an lstm.
    """
    if a.cell != "implicit" and a.dtype == "float32":
        return _operator(graph, x, weights, a, layer)
    scans = [_scan(graph, x, weights, a, layer, direction) for direction in a.suffixes]
    states = [states for states, _ in scans]
    finals = [
        graph.add("Concat", *each, axis=0) for each in zip(*(f for _, f in scans), strict=True)
    ]
    return graph.add("Concat", *states, axis=2), finals


# --- ONNX's own operators -----------------------------------------------------------------------


def _operator(
    graph: _Graph, x: str, weights: Weights, a: Architecture, layer: int
) -> tuple[str, list[str]]:
    """Add a GRU or LSTM node."""

    def stacked(*kinds: str) -> str:
        """Return the tensors of all directions, with gates in ONNX's order."""
        return graph.constant(
            [
                np.concatenate(
                    [_reordered(weights[f"{kind}_l{layer}{d}"], a.cell) for kind in kinds]
                )
                for d in a.suffixes
            ]
        )

    inputs = [x, stacked("weight_ih"), stacked("weight_hh"), stacked("bias_ih", "bias_hh")]
    if a.learned_start:
        start = np.split(weights["initial_state"], a.layers)[layer]
        inputs += ["", *_initial(graph, x, start, a)]  # "": sequences of full length
    direction = "bidirectional" if a.bidirectional else "forward"
    attributes: dict[str, Any] = {"hidden_size": a.hidden, "direction": direction}
    if a.cell == "lstm":
        y, *finals = graph.add_many("LSTM", inputs, 3, **attributes)
    else:  # n sees r * (W_hn h + b_hn), as in torch
        y, *finals = graph.add_many("GRU", inputs, 2, linear_before_reset=1, **attributes)
    side_by_side = graph.add("Transpose", y, perm=[0, 2, 1, 3])
    return graph.add("Reshape", side_by_side, graph.constant([0, 0, -1], indices=True)), finals


def _initial(graph: _Graph, x: str, state: Array, a: Architecture) -> list[str]:
    """Add initial states for every sequence, (directions, batch, H): h, or h and c of an lstm."""
    batch = graph.add("Shape", x, start=1, end=2)
    around = [graph.constant([n], indices=True) for n in (len(state), a.hidden)]
    shape = graph.add("Concat", around[0], batch, around[1], axis=0)
    parts = np.split(state, a.state_width // a.hidden, axis=1)
    return [graph.add("Expand", graph.constant(part[:, None]), shape) for part in parts]


def _reordered(tensor: Array, cell: str) -> Array:
    """Return the rows of each gate in ONNX's order."""
    order = _GATE_ORDER[cell]
    gates = np.split(tensor, len(order))
    return np.concatenate([gates[gate] for gate in order])


# --- loops over time ----------------------------------------------------------------------------


def _scan(
    graph: _Graph, x: str, weights: Weights, a: Architecture, layer: int, suffix: str
) -> tuple[str, list[str]]:
    """Add one direction of a layer as a loop; its states, and the last ones (1, batch, H)."""
    W_ih, W_hh, b_ih, b_hh = (
        weights[f"{kind}_l{layer}{suffix}"]
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    projected = graph.add(
        "Add", graph.add("MatMul", x, graph.constant(W_ih.T)), graph.constant(b_ih)
    )
    backward = int(suffix == "_reverse")
    row = layer * a.num_directions + backward
    start = weights["initial_state"][row] if a.learned_start else np.zeros(a.state_width)
    axis = graph.constant([0], indices=True)
    starts = [graph.add("Squeeze", state, axis) for state in _initial(graph, x, start[None], a)]
    *finals, states = graph.add_many(
        "Scan",
        [*starts, projected],
        len(starts) + 1,
        body=_body(graph, W_hh, b_hh, a, f"l{layer}{suffix}/"),
        num_scan_inputs=1,
        scan_input_directions=[backward],
        scan_output_directions=[backward],
    )
    return states, [graph.add("Unsqueeze", final, axis) for final in finals]


def _body(graph: _Graph, W_hh: Array, b_hh: Array, a: Architecture, scope: str) -> Any:
    """Return one time step: from h, and c of an lstm, and the projected input."""
    step = graph.body(scope)
    h, c, x = f"{scope}h", f"{scope}c", f"{scope}x"
    of_h = step.add("Add", step.add("MatMul", h, step.constant(W_hh.T)), step.constant(b_hh))
    if a.cell == "lstm":
        old, new = [h, c], _lstm_step(step, c, step.add("Add", x, of_h))
    else:
        old, new = [h], [_gru_step(step, h, x, of_h, implicit=a.cell == "implicit")]
    states = step.add("Identity", new[0])
    width = len(W_hh)
    return step.onnx.helper.make_graph(
        step.nodes,
        f"{a.cell}_step",
        [*(step.value(name, [None, a.hidden]) for name in old), step.value(x, [None, width])],
        [step.value(name, [None, a.hidden]) for name in [*new, states]],
        step.constants,
    )


def _gru_step(step: _Graph, h: str, x: str, of_h: str, *, implicit: bool) -> str:
    """Add the formulas of a gated recurrent unit (docs/gru.md); return the new h."""
    x_r, x_z, x_n = step.add_many("Split", [x], 3, axis=-1)
    h_r, h_z, h_n = step.add_many("Split", [of_h], 3, axis=-1)
    r = step.add("Sigmoid", step.add("Add", x_r, h_r))
    z = step.add("Sigmoid", step.add("Add", x_z, h_z))
    n = step.add("Tanh", step.add("Add", x_n, step.add("Mul", r, h_n)))
    one = step.constant(1.0)
    a = step.add("Sub", one, z)
    if implicit:
        above = step.add("Add", h, step.add("Mul", a, n))
        return step.add("Div", above, step.add("Add", one, a))
    return step.add("Add", step.add("Mul", z, h), step.add("Mul", a, n))


def _lstm_step(step: _Graph, c: str, gates: str) -> list[str]:
    """Add the formulas of torch.nn.LSTM; return the new h and c."""
    i, f, g, o = step.add_many("Split", [gates], 4, axis=-1)
    i, f, o = (step.add("Sigmoid", gate) for gate in (i, f, o))
    kept, added = step.add("Mul", f, c), step.add("Mul", i, step.add("Tanh", g))
    new = step.add("Add", kept, added)
    return [step.add("Mul", o, step.add("Tanh", new)), new]
