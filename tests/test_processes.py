"""Work in several processes: the same results, each mistake beside its item, and no process left behind."""

import os
import signal

import pytest
import torch

from fusionlab.errors import UserError
from fusionlab.processes import in_processes


def root(item: int) -> tuple[float, int]:
    if item < 0:
        raise UserError(f"{item} has no root")
    if item == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return item**0.5, torch.get_num_threads()


@pytest.mark.parametrize("workers", [1, 3])
def test_each_item_comes_back_with_its_result_or_mistake(workers):
    threads = torch.get_num_threads()
    found = dict(in_processes(root, [4, -1, 9, 16], workers))
    assert {item: found[item] for item in (4, 9, 16)} == {4: (2, 1), 9: (3, 1), 16: (4, 1)}
    assert isinstance(found[-1], UserError) and str(found[-1]) == "-1 has no root"
    assert torch.get_num_threads() == threads
    assert list(in_processes(root, [], workers)) == []


def setting(name: str) -> str | None:
    return os.environ.get(name)


def test_new_processes_keep_their_memory_and_this_one_is_left_alone(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "5")  # a user's own
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    names = ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"]
    assert dict(in_processes(setting, names, 2)) == dict(zip(names, ["5", str(2**25)], strict=True))
    assert [setting(name) for name in names] == ["5", None]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bug_is_not_taken_for_a_mistake(workers):
    with pytest.raises(TypeError):
        list(in_processes(root, ["a", "b"], workers))


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX")
def test_a_killed_process_costs_what_was_not_done():
    found = dict(in_processes(root, [4, 13, 9], 2))
    assert "a worker process was killed" in str(found[13])
    assert isinstance(found[13], UserError)
    assert found.keys() == {4, 13, 9}
