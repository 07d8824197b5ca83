"""8-bit weights, and 8-bit activations in ranges measured before: the fastest on a CPU for dense layers and images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from trainctl.compression import calibration, onnx_int8, vnni
from trainctl.compression.attention import to_lean_onnx
from trainctl.compression.base import Compressor, Context, Node
from trainctl.compression.engines import excluded, is_quantized
from trainctl.compression.onnx_int8 import Layer, Maker
from trainctl.compression.onnx_net import OnnxNet
from trainctl.data.spec import DataSpec
from trainctl.errors import UsageError


class OnnxInt8(Compressor):
    """What the 8-bit methods of ONNX Runtime share: the engine, what they refuse, and the net they give.

    calibration: minmax, percentile (without `percentile`'s remainder at both ends) or entropy. per_channel: a scale
    per output of a weight instead of one for all; auto: unless one is as exact, since it is faster. rows: how many of
    the calibration rows are used. exclude: layers that stay in float, as patterns of their names. reduce_range: weights
    of 7 bits, for CPUs without VNNI; auto: where this one has none.
    """

    verb = "quantize"
    method = "int8"

    def __init__(
        self,
        calibration: str,
        percentile: float,
        per_channel: bool | str,
        rows: int,
        exclude: Sequence[str],
        reduce_range: bool | str,
        backend: str,
        plan: Node | None,
    ) -> None:
        super().__init__(plan)
        self.calibration, self.percentile, self.per_channel = calibration, percentile, per_channel
        self.rows, self.exclude, self.reduce_range, self.backend = rows, exclude, reduce_range, backend

    def refusal(self, net: nn.Module, spec: DataSpec) -> str | None:
        if self.backend == "torch":
            return (
                f"`compressor={self.method}` is carried out by ONNX Runtime, not by torch; leave out `backend=torch`, "
                "or take `compressor=int8_dynamic`"
            )
        if is_quantized(net):
            return "the run is quantized already; quantize the run that it was made from"
        return None

    def compress(self, net: nn.Module, context: Context, turn: int = 0) -> nn.Module:
        return net

    def restore(self, net: nn.Module) -> nn.Module:
        vnni.warn_of(self.plan)
        return OnnxNet()

    def graph(self, net: nn.Module, context: Context, operators: Collection[str] = ()) -> tuple[Any, list[Layer]]:
        """The net as a prepared graph, and the layers of it to quantize; none named: of all operators."""
        model = onnx_int8.prepare(to_lean_onnx(net, context))
        return model, chosen_layers(model, self.exclude, operators, context)

    def maker(self, model: Any, context: Context) -> Maker:
        """What quantizes the graph, with ranges found on calibration rows."""
        rows = rows_of(context, self.rows)
        ranges = calibration.ranges(model, rows, self.calibration, self.percentile)
        return Maker(model, ranges, rows, vnni.bits_of(context, self.reduce_range), self.per_channel)


class Int8Static(OnnxInt8):
    """Convolutions, linear layers and embeddings in 8 bits, activations too, in ranges found on rows of train.

    operators: of Conv, Gemm, MatMul, Gather; none named: all of them.
    """

    method = "int8_static"

    def __init__(
        self,
        calibration: str = "minmax",
        percentile: float = 99.99,
        per_channel: bool | str = "auto",
        rows: int = 512,
        exclude: Sequence[str] = (),
        operators: Sequence[str] = (),
        reduce_range: bool | str = "auto",
        backend: str = "auto",
        plan: Node | None = None,
    ) -> None:
        super().__init__(calibration, percentile, per_channel, rows, exclude, reduce_range, backend, plan)
        self.operators = operators

    def finish(self, net: nn.Module, context: Context) -> nn.Module:
        model, chosen = self.graph(net, context, self.operators)
        modes = {}
        for layer in chosen:
            if layer.operator == "LSTM":
                context.leave(layer.name, "ONNX Runtime has no static int8 LSTM; `compressor=int8` makes it dynamic")
            else:
                modes[layer.node] = layer.modes[0]
        if not modes:
            raise UsageError(nothing(self.method))
        made = self.maker(model, context)
        content = made.quantized(modes)
        self.plan = {**made.plan(), "layers": told(onnx_int8.layers(model), modes)}
        return OnnxNet(content)


def chosen_layers(model: Any, patterns: Sequence[str], operators: Collection[str], context: Context) -> list[Layer]:
    """The layers of a prepared graph to quantize; what cannot be is said to `context`.

    UsageError for a pattern that matches nothing, or an operator that there is not.
    """
    for name, operator in onnx_int8.others(model):
        context.leave(name, f"ONNX Runtime has no int8 {operator} of this form")
    found = onnx_int8.layers(model)
    known = sorted({layer.operator for layer in found}.intersection(onnx_int8.STATIC)) or ["none of them"]
    for operator in operators:
        if operator not in onnx_int8.STATIC:
            raise UsageError(
                f"`compressor.operators` holds '{operator}', which is none of {', '.join(onnx_int8.STATIC)}; "
                f"this net has {', '.join(known)}"
            )
    left = excluded(patterns, dict.fromkeys(layer.name for layer in found))
    return [x for x in found if x.name not in left and (not operators or x.operator in operators)]


def rows_of(context: Context, rows: int) -> Any:
    """The first `rows` calibration rows as an array; UsageError when there is none."""
    found: Tensor = context.calibration[:rows]
    if not len(found):
        raise UsageError("there are no calibration rows; give e.g. `calibration.rows=512`")
    return found.detach().cpu().contiguous().numpy()


def told(found: Sequence[Layer], modes: Mapping[str, str]) -> dict[str, str]:
    """What each layer became, by its name: static, dynamic, weight or float; the names are for a plan."""
    shown: dict[str, str] = {}
    for layer in found:
        name = layer.name if layer.name not in shown else f"{layer.name} ({layer.node})"
        shown[name] = modes.get(layer.node, "float")
    return shown


def nothing(method: str) -> str:
    """The sentence for a net of which nothing is left to quantize."""
    return (
        f"`compressor={method}` finds nothing to quantize: no convolution, linear layer or embedding with constant "
        "weights is left in; see `compressor.exclude` and `compressor.operators`, or take `compressor=fp16`"
    )
