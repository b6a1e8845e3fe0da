"""A make-believe CUDA device on any build of torch: tests without a GPU for code that runs on one.

Numbers are real and computed on the CPU, but every tensor carries a device of its own, "cpu" or "cuda". It
follows moves, views, gradients, modules, optimisers and checkpoints, and mixing devices raises as CUDA does.

    with FakeCuda():
        a = torch.rand(3, device="cuda")
        a + torch.rand(3)  # raises MixedDevices
        a + torch.rand(3).to(a)  # a tensor on "cuda"

What it cannot see: work inside one call of torch, speed, memory, and the rounding of a real GPU. Generators
on "cuda" are out of its reach, too; the package draws on the CPU. Threads have modes of their own, and one
that is begun inside does not believe.
"""

import time
from types import SimpleNamespace, TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_map_only

NAME = "make-believe"
DEVICES = {"cuda": torch.device("cuda", 0), "cpu": torch.device("cpu")}

# Calls that take tensors of several devices, each with a reason of its own.
ANY_DEVICE = {
    "copy_", "load_state_dict", "set_", "swap_tensors", "_has_compatible_shallow_copy_type",
    "backward", "grad", "_make_subclass", "is_set_to", "__deepcopy__",
}  # fmt: skip
# TensorIterator lets a 0-d tensor of the CPU join any arithmetic, these do not.
NO_SCALARS = {
    "cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "column_stack", "gather",
    "scatter", "index_select", "conv1d", "conv2d", "linear", "matmul", "mm", "bmm", "einsum", "group_norm",
    "embedding",
}  # fmt: skip


class MixedDevices(RuntimeError):
    """Tensors or a generator of two devices in one call; torch raises a RuntimeError there, too."""


def device_of(tensor: Tensor) -> str:
    """Where the tensor believes to be, "cpu" or "cuda"; what torch.func has wrapped, as what is inside."""
    while not hasattr(tensor, "_fake_device") and torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return getattr(tensor, "_fake_device", "cpu")


def put(tensor: Tensor, device: str) -> Tensor:
    """The same tensor, now believing to be on `device`."""
    tensor._fake_device = device  # type: ignore[attr-defined]
    return tensor


def moved(tensor: Tensor, device: str) -> Tensor:
    """The tensor itself where it is there already, else a copy that gradients pass."""
    return tensor if device_of(tensor) == device else put(tensor.clone(), device)


class FakeCuda(TorchFunctionMode):
    """While entered, torch has one CUDA device, and devices must not mix.

    Raises MixedDevices where CUDA raises RuntimeError, and TypeError for an array of a CUDA tensor. Not to be
    entered twice at once.
    """

    def __enter__(self) -> "FakeCuda":
        self.replaced = [(owner, name, owner.__dict__[name]) for owner, name, _ in _REPLACEMENTS]
        for owner, name, replacement in _REPLACEMENTS:
            setattr(owner, name, replacement)
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)
        for owner, name, original in self.replaced:
            setattr(owner, name, original)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", str(func))
        if name in ("__get__", "__set__"):
            return _property(func, name, args)
        if name in ("to", "cuda", "cpu", "type_as"):
            return _move(func, name, args, kwargs)
        if name in ("numpy", "__array__") and device_of(args[0]) == "cuda":
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        if name == "get_device":
            return 0 if device_of(args[0]) == "cuda" else -1
        if name == "pin_memory":
            return args[0]

        asked = kwargs.get("device")
        if asked is not None and torch.device(asked).type == "meta":  # of no memory, for counts
            return func(*args, **kwargs)
        if asked is not None:
            kwargs["device"] = DEVICES["cpu"]
        tensors = _tensors((args, kwargs))
        device = _result_device(name, args, tensors) if asked is None else torch.device(asked).type
        _check(func, name, args, tensors)
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type != device:
            raise MixedDevices(
                f"{name}: Expected a '{device}' device type for generator but found '{generator.device.type}'"
            )
        result = func(*args, **kwargs)
        given = {id(tensor) for tensor in tensors}

        def believe(made: Tensor) -> Tensor:
            if id(made) not in given:
                return put(made, device)
            return made if asked is None else moved(made, device)  # as_tensor hands its argument back

        if isinstance(result, Tensor):
            return believe(result)
        if not isinstance(result, tuple | list):
            return result
        # Named tuples and lists keep their type; gradients go where what they belong to is.
        if name == "grad" and isinstance(result, tuple):
            inputs = args[1] if len(args) > 1 else kwargs["inputs"]
            inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
            return tuple(
                g if g is None else put(g, device_of(x)) for g, x in zip(result, inputs, strict=True)
            )
        return tree_map_only(Tensor, believe, result)


def _property(func: Any, name: str, args: tuple[Any, ...]) -> Any:
    """Reading or writing an attribute, such as x.device, x.grad, x.T or p.data = y."""
    tensor, prop = args[0], getattr(getattr(func, "__self__", None), "__name__", "")
    device = device_of(tensor)
    if name == "__set__":
        value = args[1]
        if prop == "grad" and isinstance(value, Tensor) and device_of(value) != device:
            raise MixedDevices(f"grad of a tensor on {device} set to one on {device_of(value)}")
        result = func(*args)
        if prop == "data":
            put(tensor, device_of(value))
        return result
    if prop == "device":
        return DEVICES["cuda"] if device == "cuda" else func(*args)  # the latter may be meta
    if prop in ("is_cuda", "is_cpu"):
        return prop == f"is_{device}"
    result = func(*args)
    return put(result, device) if isinstance(result, Tensor) else result


def _move(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """x.to(...), x.cuda(), x.cpu() and x.type_as(y): the one way from device to device."""
    tensor, *rest = args
    if name in ("cuda", "cpu"):
        return moved(tensor, name)
    device = device_of(tensor)
    for value in (*rest, *kwargs.values()):
        if isinstance(value, Tensor):
            device = device_of(value)
        elif isinstance(value, torch.device) or (isinstance(value, str) and name == "to"):
            device = torch.device(value).type
    on_cpu = {"device": DEVICES["cpu"]} if kwargs.get("device") is not None else {}
    rest = [DEVICES["cpu"] if isinstance(value, str | torch.device) else value for value in rest]
    changed = func(tensor, *rest, **{**kwargs, **on_cpu})
    return moved(tensor, device) if changed is tensor else put(changed, device)


def _result_device(name: str, args: tuple[Any, ...], tensors: list[Tensor]) -> str:
    """Where a call without `device` puts its result."""
    if name in ("tensor", "as_tensor", "asarray") and not isinstance(args[0], Tensor):
        return "cpu"  # a list, even of tensors on CUDA
    if name.startswith("new_") or name in ("__getitem__", "index_put_", "index_put"):
        return device_of(args[0])
    return "cuda" if any(device_of(tensor) == "cuda" for tensor in tensors) else "cpu"


def _tensors(value: Any) -> list[Tensor]:
    """All tensors within lists, tuples and dicts; torch's own tree functions take far longer."""
    found: list[Tensor] = []
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Tensor):
            found.append(item)
        elif isinstance(item, _SEQUENCES):
            waiting.extend(item)
        elif isinstance(item, dict):
            waiting.extend(item.values())
    return found


_SEQUENCES = (tuple, list)


def _check(func: Any, name: str, args: tuple[Any, ...], tensors: list[Tensor]) -> None:
    """Raises MixedDevices where torch would refuse the devices of these tensors."""
    if name in ("__getitem__", "__setitem__", "index_put_", "index_put"):
        _check_index(name, args)
        return
    if len({device_of(tensor) for tensor in tensors}) < 2 or name in ANY_DEVICE or name.startswith("new_"):
        return
    if name in ("tensor", "as_tensor", "asarray"):  # numbers are taken out of each
        return
    cpu = [tensor for tensor in tensors if device_of(tensor) == "cpu"]
    in_place = (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")
    into_cpu = in_place and isinstance(args[0], Tensor) and device_of(args[0]) == "cpu"
    if all(tensor.ndim == 0 for tensor in cpu) and name not in NO_SCALARS and not into_cpu:
        return
    shapes = {kind: [tuple(t.shape) for t in tensors if device_of(t) == kind][:3] for kind in DEVICES}
    raise MixedDevices(
        f"{resolve_name(func) or name}: Expected all tensors to be on the same device, but found at least "
        f"two devices, cuda:0 and cpu! (shapes {shapes['cuda']} and {shapes['cpu']})"
    )


def _check_index(name: str, args: tuple[Any, ...]) -> None:
    """A tensor on the CPU takes no index from CUDA but a number; CUDA takes both."""
    tensor = args[0]
    device = device_of(tensor)
    indices = [index for index in _tensors(args[1]) if index.ndim > 0 or index.dtype == torch.bool]
    if device == "cpu" and any(device_of(index) == "cuda" for index in indices):
        raise MixedDevices(
            f"{name}: indices should be either on cpu or on the same device as the indexed tensor (cpu)"
        )
    value = args[2] if indices and len(args) > 2 else None  # through slices a value comes from anywhere
    if isinstance(value, Tensor) and value.ndim > 0 and device_of(value) != device:
        raise MixedDevices(f"{name}: a value on {device_of(value)} put into a tensor on {device}")


class _Event:
    """torch.cuda.Event, by the clock of the CPU."""

    def __init__(self, *_: object, **__: object) -> None:
        self.at = 0.0

    def record(self, *_: object) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, later: "_Event") -> float:
        return 1000 * (later.at - self.at)


def _new_parameter(cls: type, data: Tensor | None = None, requires_grad: bool = True) -> Tensor:
    made = _PARAMETER(cls, data, requires_grad)
    return made if data is None else put(made, device_of(data))


_PARAMETER = nn.Parameter.__new__
_MEMORY = 16 * 2**30
_PROPERTIES = SimpleNamespace(name=NAME, total_memory=_MEMORY, major=7, minor=5, multi_processor_count=40)
_ANSWERS: dict[str, Any] = {
    "is_available": True,
    "is_initialized": True,
    "is_bf16_supported": False,
    "is_current_stream_capturing": False,
    "device_count": 1,
    "current_device": 0,
    "_exchange_device": 0,  # torch.cuda.device, the context
    "_maybe_exchange_device": 0,
    "get_device_name": NAME,
    "get_device_capability": (7, 5),
    "get_device_properties": _PROPERTIES,
    "mem_get_info": (_MEMORY, _MEMORY),
    "memory_allocated": 0,
    "max_memory_allocated": 0,
    "max_memory_reserved": 0,
    "memory_reserved": 0,
    **dict.fromkeys(["synchronize", "empty_cache", "init", "reset_peak_memory_stats", "set_device"]),
    **dict.fromkeys(["manual_seed", "manual_seed_all", "set_rng_state", "set_rng_state_all"]),
}


def _answer(value: Any) -> Any:
    return lambda *_, **__: value


# There is no generator on the device, so its state is that of the CPU's and putting it back does nothing.
_REPLACEMENTS: list[tuple[Any, str, Any]] = [
    *((torch.cuda, name, _answer(value)) for name, value in _ANSWERS.items()),
    (torch.cuda, "get_rng_state", lambda *_: torch.get_rng_state()),
    (torch.cuda, "get_rng_state_all", lambda: [torch.get_rng_state()]),
    (torch.cuda, "Event", _Event),
    (nn.Parameter, "__new__", staticmethod(_new_parameter)),
]
