"""Why a net cannot be exported, in one line: the operator, and the layer it is in."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from trainctl.compression.onnx_net import quietly

_TARGET = re.compile(r"call_function\[target=(?:torch\.ops\.)?([\w.:]+)\]")


def reason(error: BaseException, net: nn.Module, examples: tuple[Tensor, ...]) -> str:
    """What `error`, raised by torch's exporter for `net`, says to a user; the net is traced once more to find where.

    examples [2 or more, ...]: what the net was exported with.
    """
    causes = list(_causes(error))
    target = next((found[1] for cause in causes if (found := _TARGET.search(str(cause)))), None)
    with quietly():
        if target is not None:
            operator = ".".join(target.split(".")[:2])
            return f"no operator of ONNX does what `{operator}`{_place(net, examples, target)} does; use another layer"
        packed = _given_packed(net, examples)
        if packed is not None:
            return f"{packed} is given a packed sequence, which a graph cannot hold; give it the padded one"
        where, inner = _first_to_fail(net, examples, causes[-1])
    said = (str(inner).strip().splitlines() or [type(inner).__name__])[0]
    if type(inner).__name__ == "GuardOnDataDependentSymNode":
        return f"{where} decides by the values that it computes, and a graph cannot branch on them; use torch.where"
    if "Constraints violated" in str(inner) or "specialized" in said:
        return f"{where} takes one batch size only; use x.shape[0] for it"
    return f"{where}: {said}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, the innermost last."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def _place(net: nn.Module, examples: tuple[Tensor, ...], target: str) -> str:
    """` in the layer ...` whose forward pass calls the operator, or nothing when it is not seen."""
    try:
        program = _export(net, examples)
    except Exception:
        return ""
    for graph in (program.graph, program.run_decompositions().graph):
        for node in graph.nodes:
            if str(node.target) == target and node.meta.get("nn_module_stack"):
                path, kind = list(node.meta["nn_module_stack"].values())[-1]
                return f" in {_told(str(path), str(kind).rpartition('.')[2])}"
    return ""


def _first_to_fail(net: nn.Module, examples: tuple[Tensor, ...], error: BaseException) -> tuple[str, BaseException]:
    """The innermost layer that cannot be exported by itself, told, and why."""
    path, module, taken = "", net, examples
    while True:
        inputs = _inputs_of_children(module, taken)
        for name, child in module.named_children():
            failure = _failure(child, inputs[name]) if name in inputs else None
            if failure is not None:
                path, module, taken, error = f"{path}.{name}" if path else name, child, inputs[name], failure
                break
        else:
            return _told(path, type(module).__name__), error


def _given_packed(net: nn.Module, examples: tuple[Tensor, ...]) -> str | None:
    """The first layer that a forward pass gives a packed sequence, told: its lengths are values, not shapes."""
    found: list[str] = []

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if any(isinstance(one, PackedSequence) for one in inputs):
                found.append(_told(name, type(module).__name__))

        return hook

    _forward(net, examples, [module.register_forward_pre_hook(keep(name)) for name, module in net.named_modules()])
    return found[0] if found else None


def _forward(module: nn.Module, examples: tuple[Tensor, ...], hooks: list[Any]) -> None:
    """A forward pass as far as it goes; then the hooks are taken out."""
    try:
        with torch.no_grad(), contextlib.suppress(Exception):
            module(*examples)
    finally:
        for hook in hooks:
            hook.remove()


def _told(path: str, kind: str) -> str:
    return f"the layer `{path}` ({kind})" if path else f"the net itself ({kind})"


def _inputs_of_children(module: nn.Module, examples: tuple[Tensor, ...]) -> dict[str, tuple[Tensor, ...]]:
    """What each direct child that takes tensors alone was given in a forward pass."""
    given: dict[str, tuple[Tensor, ...]] = {}

    def keep(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs and all(isinstance(one, Tensor) for one in inputs):
                given.setdefault(name, tuple(one.detach() for one in inputs))

        return hook

    _forward(
        module, examples, [child.register_forward_pre_hook(keep(name)) for name, child in module.named_children()]
    )
    return given


def _failure(module: nn.Module, examples: tuple[Tensor, ...]) -> BaseException | None:
    try:
        _export(module, examples)
    except Exception as error:
        return list(_causes(error))[-1]
    return None


def _export(module: nn.Module, examples: tuple[Tensor, ...]) -> Any:
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} if one.ndim and len(one) == len(examples[0]) else None for one in examples)
    return torch.export.export(module, examples, dynamic_shapes=(*shapes,), strict=False)
