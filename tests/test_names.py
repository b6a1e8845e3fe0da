"""One meaning a name: no public name is defined at the top of two modules of the package."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "fusionlab"

# Of one meaning, though every paper, or command and function, has its own.
PER_PAPER = {
    *("ABLATION", "MODEL", "PRINTED", "RECIPES", "Recipe", "TABLES", "by_fuser", "by_recipe", "by_training"),
    *("fusion_terms", "save", "train", "train_fusion"),
}
COMMANDS = {"evaluate", "fuse", "promote", "reproduce"}


def defined(tree: ast.Module) -> set[str]:
    """The public functions, classes and constants that a module defines, not those it imports."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            stored = (part for target in targets for part in ast.walk(target))
            names |= {part.id for part in stored if isinstance(part, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def test_a_public_name_is_defined_in_one_module():
    homes = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for name in defined(ast.parse(path.read_text("utf-8"))):
            homes[name].add(module)
    double = {name: modules for name, modules in sorted(homes.items()) if len(modules) > 1}
    assert double.keys() == PER_PAPER | COMMANDS
    for name in PER_PAPER:
        assert len({module.split(".")[0] for module in double[name]}) == 1, double[name]
    for name in COMMANDS:
        assert "cli" in double[name] and len(double[name]) == 2, double[name]
