"""A TFLite flat buffer as plain data: operators in order, tensors with shape, type and constants, multiplications."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edge_app.errors import UserError

__all__ = ["FlatTensor", "Operator", "read_operators"]


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}


_OPERATOR_NAMES: Final = _names(schema.BuiltinOperator)
_TYPE_NAMES: Final = _names(schema.TensorType)
_CONSTANT_TYPES: Final = {"INT8": np.int8, "UINT8": np.uint8, "INT32": np.int32, "INT64": np.int64}


@dataclass(frozen=True)
class FlatTensor:
    """Name, shape for one picture, type by its TFLite name; ``open_axes`` are those the file leaves to the caller.

    ``constant`` has the values of a constant of a whole-number type, ``is_constant`` says so for all types.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    is_constant: bool
    constant: npt.NDArray[np.integer] | None
    open_axes: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Operator:
    """One step of the network; ``options`` are the fields of its TFLite option table."""

    name: str
    version: int
    inputs: tuple[FlatTensor, ...]
    outputs: tuple[FlatTensor, ...]
    options: Mapping[str, Any]

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations for one picture; 0 for operators that only move or compare.

        Examples
        --------
        >>> def tensor(*shape):
        ...     return FlatTensor("", shape, "INT8", False, None, ())
        >>> Operator("CONV_2D", 1, (tensor(1, 8, 8, 3), tensor(16, 3, 3, 3)), (tensor(1, 8, 8, 16),), {}).macs
        27648
        """
        if not self.outputs or len(self.inputs) < 2:
            return 0
        out, weights = self.outputs[0].elements, self.inputs[1].shape
        if self.name == "CONV_2D":
            return out * int(np.prod(weights[1:], dtype=np.int64))
        if self.name == "DEPTHWISE_CONV_2D":
            return out * weights[1] * weights[2]
        if self.name == "FULLY_CONNECTED":
            return out * weights[-1]
        if self.name == "TRANSPOSE_CONV":
            return self.inputs[2].elements * weights[0] * weights[1] * weights[2]
        if self.name == "BATCH_MATMUL":
            return out * self.inputs[0].shape[-1]
        return 0


def read_operators(content: bytes, *, where: str) -> tuple[Operator, ...]:
    """Operators of a network with one graph, in the order in which they run.

    Parameters
    ----------
    content
        The flat buffer.
    where
        Its name in messages.

    Raises
    ------
    UserError
        It is no TFLite flat buffer, or has more than one graph.
    """
    if content[4:8] != b"TFL3":
        raise UserError(f"{where}: is not a TFLite flat buffer (identifier {content[4:8]!r}, TFL3 is needed)")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    except Exception as error:  # a cut buffer fails deep inside, in more ways than can be listed
        raise UserError(f"{where}: TFLite flat buffer is damaged ({type(error).__name__})") from None
    if len(model.subgraphs) != 1:
        raise UserError(f"{where}: has {len(model.subgraphs)} graphs, one is needed")
    graph = model.subgraphs[0]
    tensors = [_tensor(t, model.buffers) for t in graph.tensors]
    absent = FlatTensor("", (), "NONE", True, None, ())
    operators = []
    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex]
        kind = max(code.builtinCode, code.deprecatedBuiltinCode)
        name = _OPERATOR_NAMES.get(kind, f"operator {kind}")
        if name == "CUSTOM" and code.customCode:
            name = f"CUSTOM {code.customCode.decode(errors='replace')}"
        operators.append(
            Operator(
                name=name,
                version=int(code.version),
                inputs=tuple(tensors[i] if i >= 0 else absent for i in op.inputs),
                outputs=tuple(tensors[i] for i in op.outputs),
                options=dict(vars(op.builtinOptions)) if op.builtinOptions is not None else {},
            )
        )
    return tuple(operators)


def _tensor(tensor: Any, buffers: Any) -> FlatTensor:
    dtype = _TYPE_NAMES.get(tensor.type, str(tensor.type))
    shape = tuple(int(v) for v in tensor.shape) if tensor.shape is not None else ()
    data = buffers[tensor.buffer].data
    is_constant = data is not None and len(data) > 0
    constant = None
    if is_constant and dtype in _CONSTANT_TYPES:
        constant = np.frombuffer(bytes(data), _CONSTANT_TYPES[dtype]).reshape(shape)
    signature = tensor.shapeSignature
    open_axes = () if signature is None else tuple(i for i, v in enumerate(signature) if v < 0)
    return FlatTensor(tensor.name.decode(errors="replace"), shape, dtype, is_constant, constant, open_axes)
