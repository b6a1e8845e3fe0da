"""What `fusionlab doctor` finds: versions, device, data sets and weights, and how to get what is missing."""

import importlib
import os
import platform
from dataclasses import dataclass, field
from importlib import metadata

from fusionlab import __version__, paths
from fusionlab.data.registry import REGISTRY, choose, datasets
from fusionlab.errors import UserError

# Distribution -> module, where the names differ.
CORE = ("torch", "numpy", "scipy", "pillow", "safetensors", "typer", "tqdm")
MODULES = {"pillow": "PIL"}
DOWNLOADS = ("requests",)  # asked for by `fusionlab data get` alone
COURSE = (
    *("ipykernel", "ipywidgets", "jupyterlab", "latex2mathml", "matplotlib"),
    *("nbclient", "nbconvert", "nbformat", "papermill"),
)


@dataclass
class Findings:
    """Lines to print, remedies for what is missing, and whether the package can work at all."""

    lines: list[str] = field(default_factory=list)
    remedies: list[str] = field(default_factory=list)
    usable: bool = True

    def add(self, topic: str, text: str) -> None:
        self.lines.append(f"{topic:<9} {text}")

    def text(self) -> str:
        """The whole report."""
        verdict = "to get what is missing:" if self.remedies else "nothing is missing"
        return "\n".join([*self.lines, "", verdict, *(f"  - {remedy}" for remedy in self.remedies)])


def examine() -> Findings:
    """Looks at everything; imports the core packages and torchvision, and says why one does not import."""
    findings = Findings()
    system = f"{platform.system()} {platform.machine()}"
    findings.add("fusionlab", f"{__version__}, python {platform.python_version()} on {system}")
    _packages(findings)
    _device(findings)
    _data(findings)
    _weights(findings)
    return findings


def import_fault(module: str) -> str | None:
    """Why a module cannot be imported, None where it can. A broken package may raise any exception."""
    try:
        importlib.import_module(module)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _packages(findings: Findings) -> None:
    for name in CORE:
        cause = import_fault(MODULES.get(name, name))
        findings.add("core", _package(name, cause))
        if cause:
            findings.usable = False
            findings.remedies.append(f"{name}: pip install {name}")
    for name in DOWNLOADS:
        findings.add("data", _package(name))
        if _version(name) is None:
            findings.remedies.append(f"downloads: pip install {name}")
    for name in COURSE:
        findings.add("course", _package(name))
    if any(_version(name) is None for name in COURSE):
        findings.remedies.append("notebooks: pip install 'fusionlab-course[course]'")
    # Neither is needed to fuse; the lpips wheel carries the linear weights of a loss that later methods use.
    findings.add("optional", _package("lpips"))
    findings.add(
        "optional", _package("torchvision", import_fault("torchvision") if _version("torchvision") else None)
    )
    if _version("lpips") is None:
        findings.remedies.append(
            "LPIPS: pip install --no-deps lpips (what it depends on would replace torch)"
        )


def _package(name: str, cause: str | None = None) -> str:
    return f"{name} {_version(name) or 'absent'}" + (f", does not import ({cause})" if cause else "")


def _device(findings: Findings) -> None:
    if import_fault("torch"):
        return
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        findings.add("device", f"cuda: {torch.cuda.get_device_name(0)}, {memory:.0f} GiB")
    else:
        findings.add("device", f"cpu, {torch.get_num_threads()} threads; no CUDA device is visible to torch")


def _data(findings: Findings) -> None:
    roots = [paths.cache()]
    try:
        mirror = paths.mirror()
    except UserError as error:
        mirror = None
        findings.remedies.append(str(error))
    if mirror:
        roots.append(mirror)
    findings.add("data", "registered sets: looked for in " + " and ".join(map(str, roots)))
    findings.add("data", "scenes: always there (synthetic)")
    incomplete = []
    for name, dataset in datasets().items():
        files = [file for file in choose(name) if file.role != "weights"]
        found = sum(any((root / file.path).is_file() for root in roots) for file in files)
        if files:
            findings.add("data", f"{name}: {found} of {len(files)} registered files ({dataset.size()})")
        if found < len(files):
            incomplete.append(name)
    if incomplete:
        findings.remedies.append(
            f"{', '.join(incomplete)}: run `fusionlab data get NAME`; or lay the files out as in "
            f"{REGISTRY} and set FUSIONLAB_MIRROR to that folder"
        )


def _weights(findings: Findings) -> None:
    folders = os.environ.get("FUSIONLAB_WEIGHTS", "")
    findings.add(
        "weights",
        f"official ones: looked for in {folders or 'no folder (FUSIONLAB_WEIGHTS is not set)'} and the cache",
    )
    if not findings.usable:
        return
    from fusionlab.fuser import describe, load
    from fusionlab.methods import METHODS
    from fusionlab.nets.features import BACKBONES, read_backbone

    for name in BACKBONES:
        try:
            read_backbone(name)
            findings.add("weights", f"{name}: found, for losses that see as networks do")
        except UserError as error:
            findings.add("weights", f"{name}: not usable")
            findings.remedies.append(str(error))

    for name, method in METHODS.items():
        for source in method.weights:
            try:
                findings.add("weights", describe(load(name, source)))
            except UserError as error:
                findings.add("weights", f"{name}, weights {source}: not usable")
                findings.remedies.append(str(error))
