"""Will the network map to the Edge TPU: every operator against the published list, then the compiler if there is one.

The list is ``edgetpu_operators.json``, with its source. The compiler cuts a network once: from the first operator that
the Edge TPU cannot run on, everything stays on the CPU, supported or not.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from converters.bundle_files import with_files
from converters.flat_buffer import FlatTensor, Operator, read_operators
from edge_app.classification.bundle import Bundle
from edge_app.errors import UserError

__all__ = [
    "COMPILED_NAME",
    "MAPS_PARTLY",
    "EdgeTpuReport",
    "OperatorFinding",
    "check_network",
    "compile_network",
    "edgetpu",
    "newest_runtime_version",
    "supported_operators",
]

#: Exit code of the command where a part, or all, of the network falls to the CPU.
MAPS_PARTLY: Final = 3
COMPILED_NAME: Final = "model_edgetpu.tflite"
COMPILER: Final = "edgetpu_compiler"
_EIGHT_BIT: Final = ("INT8", "UINT8")
#: Inputs that are parameters of the operator and thus must be constants in the file.
_PARAMETERS: Final[Mapping[str, tuple[int, ...]]] = {
    "CONV_2D": (1, 2),
    "DEPTHWISE_CONV_2D": (1, 2),
    "FULLY_CONNECTED": (1, 2),
    "TRANSPOSE_CONV": (0, 1, 3),
    "PRELU": (1,),
    "MEAN": (1,),
    "SUM": (1,),
    "REDUCE_MAX": (1,),
    "REDUCE_MIN": (1,),
    "PAD": (1,),
    "RESHAPE": (1,),
    "TRANSPOSE": (1,),
    "STRIDED_SLICE": (1, 2, 3),
    "SLICE": (1, 2),
    "SPLIT": (0,),
    "EXPAND_DIMS": (1,),
    "RESIZE_BILINEAR": (1,),
    "RESIZE_NEAREST_NEIGHBOR": (1,),
}


@dataclass(frozen=True)
class OperatorFinding:
    """One operator: whether it maps, and if not, why it falls to the CPU."""

    index: int
    operator: str
    version: int
    output_shape: tuple[int, ...]
    macs: int
    maps: bool
    reason: str


@dataclass(frozen=True)
class EdgeTpuReport:
    """What the check found; ``mapped_share_of_macs`` is 1 where all multiplications run on the Edge TPU."""

    model: str
    runtime_version: int
    operators: tuple[OperatorFinding, ...]
    macs: int
    mapped_share_of_macs: float
    notes: tuple[str, ...]

    @property
    def wholly(self) -> bool:
        """Whether every operator maps."""
        return all(o.maps for o in self.operators)

    def as_json(self) -> dict[str, Any]:
        """Plain form."""
        table = supported_operators()
        return {
            "schema": "mfi.edgetpu/1",
            **asdict(self),
            "maps_wholly": self.wholly,
            "source": table["source"],
            "accessed": table["accessed"],
        }


@cache
def supported_operators() -> Mapping[str, Any]:
    """The published list, see ``edgetpu_operators.json``."""
    content = Path(__file__).with_name("edgetpu_operators.json").read_text(encoding="utf-8")
    table: Mapping[str, Any] = json.loads(content)
    return table


def newest_runtime_version() -> int:
    """Version of the Edge TPU runtime that the list is for."""
    return int(supported_operators()["runtime_version"])


def _axes(tensor: FlatTensor | None, rank: int) -> tuple[int, ...]:
    if tensor is None or tensor.constant is None:
        return ()
    return tuple(int(a) % rank for a in np.ravel(tensor.constant))


def _touched_axes(op: Operator) -> tuple[int, ...]:
    """Axes along which an operator reduces, pads, packs or splits, counted from the batch."""
    if op.name in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"):
        return _axes(op.inputs[1], len(op.inputs[0].shape))
    if op.name == "SPLIT":
        return _axes(op.inputs[0], len(op.inputs[1].shape))
    if op.name == "PACK":
        return (int(op.options["axis"]) % len(op.outputs[0].shape),)
    if op.name == "PAD" and op.inputs[1].constant is not None:
        return tuple(int(a) for a in np.flatnonzero(op.inputs[1].constant.any(axis=1)))
    return ()


def _larger_than_one(shape: tuple[int, ...]) -> int:
    return sum(v > 1 for v in shape)


def _zero_padding(op: Operator) -> bool:
    constants = [t for t in op.inputs if t.is_constant]
    return not constants or (
        len(op.inputs) == 2 and all(t.constant is not None and not t.constant.any() for t in constants)
    )


def _squeezes_leading_ones(op: Operator) -> bool:
    before, after = op.inputs[0].shape, op.outputs[0].shape
    return before[len(before) - len(after) :] == after


def _unit_strides(op: Operator) -> bool:
    strides = op.inputs[3].constant
    masks = op.options.get("ellipsisMask", 0), op.options.get("newAxisMask", 0)
    return strides is not None and bool((strides == 1).all()) and masks == (0, 0)


#: Limitation -> whether an operator keeps to it.
_KEPT: Final[Mapping[str, Callable[[Operator], bool]]] = {
    "no_fused_activation": lambda op: op.options.get("fusedActivationFunction", 0) == 0,
    "constant_is_zero_padding": _zero_padding,
    "same_dilation": lambda op: op.options["dilationWFactor"] == op.options["dilationHFactor"],
    "no_dilation": lambda op: op.options["dilationWFactor"] == op.options["dilationHFactor"] == 1,
    "default_weights_format": lambda op: op.options["weightsFormat"] == 0,
    "one_dimensional_output": lambda op: _larger_than_one(op.outputs[0].shape) <= 1,
    "no_batch_axis": lambda op: 0 not in _touched_axes(op),
    "only_x_and_y": lambda op: set(_touched_axes(op)) <= {1, 2} and len(op.inputs[0].shape) == 4,
    "depth_multiple_of_4": lambda op: (
        len(op.inputs[0].shape) - 1 not in _touched_axes(op) or op.inputs[0].shape[-1] % 4 == 0
    ),
    "alpha_one_dimensional": lambda op: all(v == 1 for v in op.inputs[1].shape[:-1]),
    "softmax_input": lambda op: _larger_than_one(op.inputs[0].shape) <= 1 and op.inputs[0].elements <= 16_000,
    "leading_ones": _squeezes_leading_ones,
    "unit_strides": _unit_strides,
    "three_dimensional": lambda op: len(op.inputs[0].shape) == 4 and op.inputs[0].shape[0] == 1,
}


def _tensor_problem(op: Operator) -> str:
    """What speaks against the tensors of an operator; empty if nothing does."""
    parameters = _PARAMETERS.get(op.name, ())
    for i in parameters:
        if i < len(op.inputs) and op.inputs[i].dtype != "NONE" and not op.inputs[i].is_constant:
            return f"its parameter {op.inputs[i].name or i} is not constant at compile time"
    data = [t for i, t in enumerate(op.inputs) if i not in parameters and t.dtype != "NONE"]
    for tensor in (*data, *op.outputs):
        if tensor.dtype not in _EIGHT_BIT:
            return f"{tensor.name or 'a tensor'} is {tensor.dtype.lower()}, 8-bit whole numbers are needed"
        if any(v > 1 for v in tensor.shape[:-3]):
            return f"{tensor.name or 'a tensor'} of {_text(tensor.shape)} has more than three dimensions above 1"
        inner = [a for a in tensor.open_axes if a > 0]
        if inner:
            return f"the size of {tensor.name or 'a tensor'} is not constant at compile time (axis {inner[0]})"
    return ""


def _problem(op: Operator, runtime_version: int) -> str:
    table = supported_operators()
    entries = table["operators"].get(op.name)
    if entries is None:
        return f"{op.name} is not supported by the Edge TPU"
    fitting = [e for e in entries if e["from"] <= runtime_version]
    if not fitting:
        return f"{op.name} needs runtime {entries[0]['from']} or newer, the check is for {runtime_version}"
    problem = _tensor_problem(op)
    if problem:
        return problem
    for limit in fitting[-1]["limits"]:
        if not _KEPT[limit](op):
            return f"limitation of {op.name}: {table['limits'][limit]}"
    return ""


def check_network(content: bytes, *, where: str, runtime_version: int | None = None) -> EdgeTpuReport:
    """Say of every operator whether it maps to the Edge TPU.

    Parameters
    ----------
    content : bytes
        TFLite flat buffer.
    where : str
        Its name in messages.
    runtime_version : int, optional
        Of the Edge TPU runtime on the device; default the newest.

    Returns
    -------
    EdgeTpuReport

    Raises
    ------
    UserError
        It is no network, or not in the list's range of runtimes.

    References
    ----------
    Google Coral, "TensorFlow models on the Edge TPU", supported operations and known limitations,
    https://coral.ai/docs/edgetpu/models-intro/#supported-operations
    """
    newest = newest_runtime_version()
    version = newest if runtime_version is None else runtime_version
    if not 10 <= version <= newest:
        raise UserError(f"--runtime-version is {version}, allowed: 10 to {newest}")
    operators = read_operators(content, where=where)
    findings: list[OperatorFinding] = []
    first: int | None = None
    for index, op in enumerate(operators):
        reason = _problem(op, version)
        if first is not None and not reason:
            reason = f"supported, but after operator {first} the network stays on the CPU"
        if reason and first is None:
            first = index
        shape = op.outputs[0].shape if op.outputs else ()
        findings.append(OperatorFinding(index, op.name, op.version, shape, op.macs, not reason, reason))
    macs = sum(f.macs for f in findings)
    mapped = sum(f.macs for f in findings if f.maps)
    uncertain = supported_operators()["cannot_be_told_from_the_file"]
    notes = [f"{name}: {uncertain[name]}" for name in dict.fromkeys(op.name for op in operators) if name in uncertain]
    if any(0 in t.open_axes for op in operators for t in op.inputs):
        notes.append("the batch is open in the file; the Edge TPU runs it as 1")
    share = mapped / macs if macs else float(all(f.maps for f in findings))
    return EdgeTpuReport(where, version, tuple(findings), macs, share, tuple(notes))


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(str(v) for v in shape) or "scalar"


def report_lines(report: EdgeTpuReport) -> list[str]:
    """The check for a person."""
    lines = [
        f"{f.index:3d}  {f.operator:<20} {_text(f.output_shape):>14} {f.macs:>12,d} MACs  "
        + ("maps" if f.maps else f"falls to the CPU: {f.reason}")
        for f in report.operators
    ]
    mapped = sum(f.maps for f in report.operators)
    verdict = "wholly" if report.wholly else "partly" if mapped else "not at all"
    lines.append(
        f"{report.model}: maps {verdict} to the Edge TPU: {mapped} of {len(report.operators)} operators, "
        f"{report.mapped_share_of_macs:.1%} of {report.macs:,d} multiplications (runtime {report.runtime_version})"
    )
    return [*lines, *(f"note: {note}" for note in report.notes)]


@dataclass(frozen=True)
class Compilation:
    """What ``edgetpu_compiler`` made and said."""

    content: bytes
    version: str
    on_edge_tpu: int
    on_cpu: int


def compile_network(content: bytes, *, runtime_version: int) -> Compilation | None:
    """Run ``edgetpu_compiler``; None where it is not installed.

    Raises
    ------
    UserError
        It refuses the network.
    """
    program = shutil.which(COMPILER)
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.tflite"
        source.write_bytes(content)
        command = [program, "-s", "-m", str(runtime_version), "-o", folder, str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        made = Path(folder) / COMPILED_NAME
        if done.returncode != 0 or not made.exists():
            said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise UserError(f"{COMPILER}: ended with {done.returncode}: {said[-1] if said else 'no output'}")
        counts = {
            place: re.search(rf"Number of operations that will run on {place}: (\d+)", done.stdout)
            for place in ("Edge TPU", "CPU")
        }
        version = re.search(r"Edge TPU Compiler version (\S+)", done.stdout)
        return Compilation(
            content=made.read_bytes(),
            version=version.group(1) if version else "unknown",
            on_edge_tpu=int(counts["Edge TPU"].group(1)) if counts["Edge TPU"] else 0,
            on_cpu=int(counts["CPU"].group(1)) if counts["CPU"] else 0,
        )


def edgetpu(
    bundle: Bundle, *, out: Path | None = None, runtime_version: int | None = None
) -> tuple[dict[str, Any], list[str], int]:
    """Check a bundle's network, compile it where the compiler is installed, and write the bundle with the result.

    Parameters
    ----------
    bundle : Bundle
    out : Path, optional
        Folder of a copy of the bundle with `COMPILED_NAME`; None: nothing is written.
    runtime_version : int, optional

    Returns
    -------
    record : dict
        For a program.
    lines : list of str
        For a person.
    exit_code : int
        0 wholly, `MAPS_PARTLY` otherwise; the compiler's word counts where it was asked.
    """
    where = str(bundle.directory / "model.tflite")
    report = check_network(bundle.model, where=where, runtime_version=runtime_version)
    lines, wholly = report_lines(report), report.wholly
    compiled = compile_network(bundle.model, runtime_version=report.runtime_version)
    record: dict[str, Any] = {**report.as_json(), "compiled": None}
    if compiled is None:
        lines.append(
            f"{COMPILER} is not installed: not compiled"
            + ("" if out is None else f", nothing written to {out}")
            + " (https://coral.ai/docs/edgetpu/compiler)"
        )
    else:
        wholly = compiled.on_cpu == 0
        record["compiled"] = {
            "compiler": compiled.version,
            "operators_on_edge_tpu": compiled.on_edge_tpu,
            "operators_on_cpu": compiled.on_cpu,
            "bundle": None if out is None else str(out),
        }
        lines.append(
            f"{COMPILER} {compiled.version}: "
            + ("all operators on the Edge TPU" if wholly else f"{compiled.on_cpu} operators on the CPU")
        )
        if out is not None:
            with_files(bundle, out, {COMPILED_NAME: compiled.content})
            lines.append(f"{out}: bundle with {COMPILED_NAME}")
    return record, lines, 0 if wholly else MAPS_PARTLY
