"""The exported student in another runtime, at sizes it was not written for."""

import pytest
import torch

from fusionlab.errors import UserError
from fusionlab.fuser import load
from fusionlab.methods import export
from fusionlab.methods.export import export_student


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    onnxruntime = pytest.importorskip("onnxruntime")
    file = export_student(load("mmdrfuse"), tmp_path_factory.mktemp("onnx") / "new" / "student.onnx")
    assert file.stat().st_size < 10_000
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (1, 1, 17, 31), (2, 1, 33, 16), (1, 1, 480, 640)])
def test_agrees_with_torch_at_any_size(session, shape):
    generator = torch.Generator().manual_seed(0)
    ir, vi = (torch.rand(shape, generator=generator) for _ in range(2))
    (fused,) = session.run(None, {"ir": ir.numpy(), "vi": vi.numpy()})
    assert (load("mmdrfuse")(ir, vi) - torch.from_numpy(fused)).abs().max() < 1e-4
    assert fused.shape == shape


def test_what_cannot_be_exported_says_so(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="maximum is none"):
        export_student(load("maximum"), tmp_path / "max.onnx")
    monkeypatch.setattr(export, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'fusionlab-course\[export\]'"):
        export_student(load("mmdrfuse"), tmp_path / "student.onnx")
