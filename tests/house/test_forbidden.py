"""What may stand in no line: pickles, evaluated text, addresses of one machine, hosts of a package registry."""

import ast
import re

import pytest

PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
CALLS = {
    "eval",
    "exec",
    "torch.load",
    "torch.save",
    "torch.jit.load",
    "torch.hub.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "os.popen",
}
# Put together from halves, so that this file is not its own first finding.
ADDRESSES = [
    *("/" + one + "/" for one in ("work", "root", "home", "Users", "tmp")),
    *("py" + one for one in ("pi.org", "thonhosted.org")),
    *("registry." + one for one in ("npmjs.org", "npmjs.com", "yarnpkg.com")),
    "download.py" + "torch.org",
    "deb." + "debian.org",
]
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".json", ".cfg", ".ini", ".sh", ".html", ".js", ".css", ""}
NOT_OURS = {".git", ".venv", "node_modules", "__pycache__", "out", "runs", "dist", "build"}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def test_no_pickle_and_no_evaluated_text(house):
    broken = []
    for path in house.files:
        for node in ast.walk(house.tree(path)):
            names = []
            if isinstance(node, ast.Import):
                names = [one.name for one in node.names if one.name.split(".")[0] in PICKLES]
            elif isinstance(node, ast.ImportFrom):
                module = node.module or ""
                names = [module] if module.split(".")[0] in PICKLES else []
                names += [f"{module}.{one.name}" for one in node.names if f"{module}.{one.name}" in CALLS]
            elif isinstance(node, ast.Call):
                names = [dotted(node.func)] if dotted(node.func) in CALLS else []
                names += [
                    f"{one.arg}=True" for one in node.keywords if one.arg == "allow_pickle" and is_true(one.value)
                ]
            broken += [f"{house.name(path)}:{node.lineno} {name}" for name in names]  # pyright: ignore[reportAttributeAccessIssue]
    assert broken == []


def is_true(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def test_annotations_stay_real(house):
    """Postponed annotations would hide every shape from the hook that checks it."""
    futures = [path for path in house.files if "from __future__ import annotations" in path.read_text(encoding="utf-8")]
    assert futures == []


def own_files(folder):
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            hidden_cache = path.name.startswith(".") and path.name not in (".ci", ".github")
            if path.name not in NOT_OURS and not hidden_cache:
                yield from own_files(path)
        elif path.suffix in TEXT and path.stat().st_size < 2_000_000:
            yield path


def test_no_file_names_one_machine_or_a_registry(house):
    pattern = re.compile("|".join(rf"(?<![\w.~-]){re.escape(one)}" for one in ADDRESSES))
    broken = []
    for path in own_files(house.root):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if match := pattern.search(line):
                broken.append(f"{house.name(path)}:{number} {match[0]}")
    assert broken == []


@pytest.mark.parametrize("line", ["a = eval('1')", "import pickle", "torch.load(f)", "np.load(f, allow_pickle=True)"])
def test_the_search_finds_what_it_looks_for(line):
    found = []
    for node in ast.walk(ast.parse(line)):
        if isinstance(node, ast.Import):
            found += [one.name for one in node.names if one.name in PICKLES]
        if isinstance(node, ast.Call):
            found += [dotted(node.func)] if dotted(node.func) in CALLS else []
            found += [one.arg for one in node.keywords if one.arg == "allow_pickle" and is_true(one.value)]
    assert len(found) == 1
