"""The exported student in the runtimes that people load it in; each is tried where it is installed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from fusionlab.fuser import load
from fusionlab.methods.export import export_student

SIZES = [(16, 16), (48, 64), (61, 47), (240, 320)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_student(load("mmdrfuse"), tmp_path_factory.mktemp("onnx") / "student.onnx")


def test_nodes_say_all_that_an_importer_may_ask_for(file: Path) -> None:
    """OpenCV 4 does not read the size of a convolution off its weights."""
    convolutions = [node for node in onnx.load(file).graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 2
    for node in convolutions:
        named = {entry.name: list(entry.ints) for entry in node.attribute}
        assert named["kernel_shape"] == [3, 3]


def agrees(run: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    fuser = load("mmdrfuse")
    for size in SIZES:
        ir, vi = np.random.default_rng(0).random((2, 1, 1, *size), dtype=np.float32)
        fused = fuser(torch.from_numpy(ir), torch.from_numpy(vi)).numpy()
        found = run(ir, vi)
        assert found.shape == fused.shape
        assert np.abs(found - fused).max() < 1e-5


def test_onnx_runtime(file: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    agrees(lambda ir, vi: session.run(None, {"ir": ir, "vi": vi})[0])


def test_opencv(file: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    network = cv2.dnn.readNetFromONNX(str(file))

    def run(ir: np.ndarray, vi: np.ndarray) -> np.ndarray:
        network.setInput(ir, "ir")
        network.setInput(vi, "vi")
        return network.forward()

    agrees(run)


def test_openvino(file: Path) -> None:
    openvino = pytest.importorskip("openvino")
    # Some CPUs would take half precision otherwise, which is 3e-3 off.
    model = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    agrees(lambda ir, vi: model({"ir": ir, "vi": vi})[0])
