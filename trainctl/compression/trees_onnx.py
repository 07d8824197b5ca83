"""Trees and forests as ONNX: one TreeEnsembleRegressor of ai.onnx.ml, which ONNX Runtime has a fast kernel for."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from trainctl.compression.trees import Arrays, levels

ML_OPSET = 3  # the newest with several targets to a leaf
SMALLEST = float(np.finfo(np.float32).eps)  # of a probability, as in trainctl.models.tree_arrays


def tree_to_onnx(net: nn.Module, inputs: str, output: str, opset: int) -> bytes:
    """x float32 [batch, features] -> what the tree's or forest's `forward` gives, [batch, outputs]; batch is free."""
    from onnx import TensorProto, helper

    arrays: Arrays = {name: tensor.cpu().numpy() for name, tensor in net.state_dict().items()}
    tree: Any = net
    outputs = arrays["value"].shape[1]
    mean = "mean" if tree.is_class else output
    nodes = [
        helper.make_node(
            "TreeEnsembleRegressor", [inputs], [mean], domain="ai.onnx.ml", n_targets=outputs, post_transform="NONE",
            aggregate_function="SUM", **attributes(arrays),
        )
    ]  # fmt: skip
    constants = []
    if tree.is_class:
        constants = [helper.make_tensor("smallest", TensorProto.FLOAT, [], [SMALLEST])]
        nodes += [helper.make_node("Max", [mean, "smallest"], ["share"]), helper.make_node("Log", ["share"], [output])]
    x = helper.make_tensor_value_info(inputs, TensorProto.FLOAT, ["batch", tree.num_features])
    y = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", outputs])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(helper.make_graph(nodes, "trees", [x], [y], constants), opset_imports=opsets)
    model.ir_version = 10
    return bytes(model.SerializeToString())


def attributes(arrays: Arrays) -> dict[str, Any]:
    """The arrays as the operator wants them: nodes are counted anew in each tree, a leaf's values are summed."""
    trees = [np.sort(np.concatenate(levels(arrays["child"], np.array([root])))) for root in arrays["roots"]]
    order = np.concatenate(trees)
    tree = np.repeat(np.arange(len(trees)), [len(nodes) for nodes in trees])
    number = np.empty(len(order), np.int64)  # of a node in its tree
    number[order] = np.concatenate([np.arange(len(nodes)) for nodes in trees])
    child = arrays["child"][order]
    leaf = child[:, 0] == order
    left, right = (np.where(leaf, 0, number[child[:, side]]).tolist() for side in (0, 1))
    value, own = arrays["value"][order][leaf] / np.float32(len(trees)), number[order]
    outputs = value.shape[1]
    return {
        "nodes_treeids": tree.tolist(),
        "nodes_nodeids": own.tolist(),
        "nodes_featureids": arrays["feature"][order].tolist(),
        "nodes_values": arrays["threshold"][order].tolist(),
        "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_truenodeids": left,
        "nodes_falsenodeids": right,
        "target_treeids": np.repeat(tree[leaf], outputs).tolist(),
        "target_nodeids": np.repeat(own[leaf], outputs).tolist(),
        "target_ids": np.tile(np.arange(outputs), int(leaf.sum())).tolist(),
        "target_weights": value.ravel().tolist(),
    }
