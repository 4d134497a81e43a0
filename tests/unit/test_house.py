"""The house rules that no linter holds: small modules, small functions, each with a docstring of its own."""

import ast
from collections.abc import Iterator
from pathlib import Path

AGENT = Path(__file__).parents[2] / "agent" / "pra_agent"
MODULE_LINES = 400
FUNCTION_LINES = 50


def modules() -> list[Path]:
    found = sorted(AGENT.rglob("*.py"))
    assert len(found) > 100
    return found


def functions(module: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(module.read_bytes())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Its lines without its docstring: contracts may be as long as they need to be."""
    whole = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        whole -= (first.end_lineno or first.lineno) - first.lineno + 1
    return whole


def test_modules_are_short():
    lengths = {str(path.relative_to(AGENT)): len(path.read_text().splitlines()) for path in modules()}
    assert {name: lines for name, lines in lengths.items() if lines >= MODULE_LINES} == {}


def test_functions_are_short():
    long = {
        f"{path.relative_to(AGENT)}:{node.lineno} {node.name}": lines_of(node)
        for path in modules()
        for node in functions(path)
        if lines_of(node) >= FUNCTION_LINES
    }
    assert long == {}


def test_a_line_counts_and_a_docstring_does_not():
    text = 'def f():\n    """One.\n\n    Two.\n    """\n    return 1\n'
    (node,) = (each for each in ast.walk(ast.parse(text)) if isinstance(each, ast.FunctionDef))
    assert lines_of(node) == 2
