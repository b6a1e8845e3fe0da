"""The student as an ONNX file for any frame size, written node by node."""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from fusionlab import __version__
from fusionlab.errors import UserError
from fusionlab.files import write_bytes
from fusionlab.fuser import Fuser
from fusionlab.methods.mmdrfuse import Student


def export_student(fuser: Fuser, file: Path) -> Path:
    """Writes (ir, vi) -> fused, each float32 (batch, 1, height, width) in [0, 1], as ONNX of opset 17.

    The fused image is clipped to [0, 1]; sizes are free from 2x2 up. Raises UserError where the fuser is no
    student, or where the package `onnx` is absent.
    """
    student = fuser.network
    if not isinstance(student, Student):
        raise UserError(f"only the student of MMDRFuse is exported, and {fuser.name} is none; use mmdrfuse")
    if find_spec("onnx") is None:
        raise UserError("writing ONNX needs one more package: pip install 'fusionlab-course[export]'")
    from onnx import NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper

    def constant(name: str, value: Tensor) -> TensorProto:
        return numpy_helper.from_array(value.detach().cpu().numpy(), name)

    def image(name: str) -> ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1, "height", "width"])

    weights = [
        constant(f"{name}.{part}", value)
        for name, layer in (("conv1", student.conv1), ("conv2", student.conv2))
        for part, value in zip(("weight", "bias"), layer.parameters(), strict=True)
    ]
    weights += [
        constant("one_pixel", torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])),  # before and after each axis
        constant("black", torch.tensor(0.0)),
        constant("white", torch.tensor(1.0)),
    ]

    def convolution(image: str, layer: str, result: str) -> NodeProto:
        # Other runtimes read the size of the window off the weights; OpenCV 4 asks for it.
        parts = [image, f"{layer}.weight", f"{layer}.bias"]
        return helper.make_node("Conv", parts, [result], kernel_shape=[3, 3])

    nodes = [
        helper.make_node("Concat", ["ir", "vi"], ["image"], axis=1),
        helper.make_node("Pad", ["image", "one_pixel"], ["padded"], mode="reflect"),
        convolution("padded", "conv1", "filtered"),
        helper.make_node("Relu", ["filtered"], ["hidden"]),
        helper.make_node("Pad", ["hidden", "one_pixel"], ["hidden_padded"], mode="reflect"),
        convolution("hidden_padded", "conv2", "summed"),
        helper.make_node("Tanh", ["summed"], ["raw"]),
        helper.make_node("Clip", ["raw", "black", "white"], ["fused"]),
    ]
    graph = helper.make_graph(nodes, fuser.name, [image("ir"), image("vi")], [image("fused")], weights)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="fusionlab",
        producer_version=__version__,
        doc_string=f"weights {fuser.weights}, sha256 {fuser.sha256}",
    )
    checker.check_model(model)
    write_bytes(file, model.SerializeToString())
    return file
