"""What an import loads: `import fusionlab` next to nothing, the core modules only core requirements."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
MODULE_NAMES = {"pyyaml": "yaml", "scikit-image": "skimage", "pytest-timeout": "pytest_timeout"}

# Notebooks as pages: of use with notebooks alone.
PAGES = {"fusionlab.tools.offline", "fusionlab.tools.report"}

IMPORT_ALL = """
import pkgutil, fusionlab
for module in pkgutil.walk_packages(fusionlab.__path__, "fusionlab."):
    if module.name not in {left_out}:
        __import__(module.name)
"""

WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Absent())
"""


def loaded(code: str) -> set[str]:
    """The top-level modules in a fresh interpreter after running `code`."""
    report = (
        code
        + "\nimport json, sys\nprint(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_fusionlab_is_light():
    heavy = {"torch", "numpy", "scipy", "PIL", "matplotlib", "torchvision", "lpips", "typer"}
    assert not heavy & loaded("import fusionlab")


@pytest.mark.parametrize("module", ["fusionlab.cli", "fusionlab.errors", "fusionlab.paths"])
def test_command_line_answers_without_torch(module):
    assert not {"torch", "matplotlib"} & loaded(f"import {module}")


@pytest.mark.parametrize("module", ["fusionlab.data", "fusionlab.data.registry", "fusionlab.tools.doctor"])
def test_the_registry_and_the_doctor_need_no_third_party_package(module):
    assert not {"torch", "numpy", "PIL", "requests"} & loaded(f"import {module}")


def test_no_module_loads_torchvision_or_lpips():
    everything = loaded(IMPORT_ALL.format(left_out=[]))
    assert "torch" in everything
    assert not {"torchvision", "lpips", "pandas", "skimage"} & everything


def test_every_module_imports_with_the_core_requirements_alone():
    """`reproduce` and the command line need no notebook package; those are imported where they are used."""
    names = {requirement.partition(">=")[0] for extra in EXTRAS.values() for requirement in extra}
    absent = {MODULE_NAMES.get(name, name) for name in names} | {"IPython", "lpips", "torchvision"}
    assert "fusionlab" in loaded(WITHOUT.format(names=absent) + IMPORT_ALL.format(left_out=PAGES))
