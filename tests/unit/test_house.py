"""The house rules that no linter holds: small modules, small functions."""

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
    """What it does, in lines: its signature (a verb's is the table of its options) and its contract count not."""
    first = node.body[0]
    told = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    begin = first.end_lineno or first.lineno if told else first.lineno - 1
    return (node.end_lineno or node.lineno) - begin


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


def test_only_what_is_done_counts():
    text = (
        'def f(\n    a,\n    b,\n):\n    """One.\n\n    Two.\n    """\n    a += 1\n    return a\n\ndef g():\n    pass\n'
    )
    assert [lines_of(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)] == [2, 1]
