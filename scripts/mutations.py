"""Mutation operators for WGSL and Python: each mutant changes one place of one file.

Operators: comparisons (strict ↔ not strict, equal ↔ unequal), arithmetic, bitwise and logical
operators, numbers (plus one, or doubled if not an integer), booleans, ``min`` ↔ ``max``, a dropped
``not`` and a dropped statement. Comments, strings, type annotations and the arguments of error
messages are not mutated.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SWAPS = {
    **{"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="},
    **{"+": "-", "-": "+", "*": "+", "/": "*", "%": "*", "//": "*", "**": "*"},
    **{"+=": "-=", "-=": "+=", "*=": "+=", "|=": "&=", "&=": "|="},
    **{"<<": ">>", ">>": "<<", "&": "|", "|": "&", "^": "&"},
    **{"&&": "||", "||": "&&", "and": "or", "or": "and", "is": "is not", "is not": "is"},
    **{"in": "not in", "not in": "in", "min": "max", "max": "min"},
    **{"true": "false", "false": "true", "True": "False", "False": "True"},
}


@dataclass(frozen=True, order=True)
class Mutant:
    """``path`` with the characters ``begin`` .. ``end`` replaced by ``text``."""

    path: str
    begin: int
    end: int
    text: str
    line: int
    code: str  # the line before the mutation, stripped
    change: str  # "old → new"

    def applied(self, source: str) -> str:
        """Return the source text of the mutant."""
        return source[: self.begin] + self.text + source[self.end :]

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.code}  [{self.change}]"


def mutants(path: str, source: str) -> list[Mutant]:
    """Return all mutants of a file, in source order."""
    edits = _wgsl_edits(source) if Path(path).suffix == ".wgsl" else _python_edits(source)
    return sorted({_mutant(path, source, *edit) for edit in edits})


def _mutant(path: str, source: str, begin: int, end: int, text: str) -> Mutant:
    line = source.count("\n", 0, begin) + 1
    code = source.splitlines()[line - 1].strip()
    old = " ".join(source[begin:end].split())
    column = begin - source.rfind("\n", 0, begin)
    # If a line contains the text twice, add the column.
    place = f" at column {column}" if code.count(old) > 1 else ""
    return Mutant(path, begin, end, text, line, code, f"{old} → {text.strip() or 'nothing'}{place}")


def _number(text: str) -> str:
    """Return an integer plus one, or a float doubled; suffix and base unchanged."""
    match = re.fullmatch(r"(0[xX][0-9a-fA-F]+|\d[\d_]*)([uif]?)", text)
    if match is None:
        body = text.rstrip("fh")
        return f"{2 * float(body) or 1.0!r}" if float(body) < 1e38 else f"{float(body) / 2!r}"
    return f"{int(match[1], 0) + 1}{match[2]}"


# --- WGSL -----------------------------------------------------------------------------------------

_WGSL_TOKEN = re.compile(
    r"""(?P<skip> //[^\n]* | @\w+(\([^()]*(\([^()]*\))?[^()]*\))? | ->)
      | (?P<number> 0[xX][0-9a-fA-F]+[ui]? | (?<![\w.])\d+\.\d*(e[-+]?\d+)? | (?<![\w.])\d+[uif]?)
      | (?P<word> [A-Za-z_]\w*)
      | (?P<spaced> (?<=[ ])(<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%|&]=|[-+*/%&|<>])(?=\s))""",
    re.VERBOSE,
)
# Declarations of types and interface constants, which are not computations.
_WGSL_DECLARATION = re.compile(
    r"^(struct\b.*?\}|(@group|override|var<|const\b)[^;]*;)", re.DOTALL | re.MULTILINE
)
_WGSL_STATEMENT = re.compile(
    r"^[ ]+(?!return|let|var|const|for|if|else|while|break;|continue;)[\w\[\].&(][^{};]*;",
    re.MULTILINE,
)


def _wgsl_edits(source: str) -> Iterator[tuple[int, int, str]]:
    skipped = [match.span() for match in _WGSL_DECLARATION.finditer(source)]
    comments = [match.span() for match in re.finditer(r"//[^\n]*", source)]
    for match in _WGSL_TOKEN.finditer(source):
        if match["skip"] or _inside(match.start(), skipped):
            continue
        if match["number"]:
            yield (*match.span(), _number(match[0]))
        elif match[0] in SWAPS:
            yield (*match.span(), SWAPS[match[0]])
    for match in _WGSL_STATEMENT.finditer(source):
        begin = match.end() - len(match[0].lstrip())
        before = source[: match.start()].rstrip()
        whole = before.endswith((";", "{", "}")) or _inside(len(before) - 1, comments)
        if whole and not _inside(begin, skipped):
            yield begin, match.end(), ""


def _inside(place: int, ranges: list[tuple[int, int]]) -> bool:
    return any(begin <= place < end for begin, end in ranges)


# --- Python ---------------------------------------------------------------------------------------

_SYMBOLS: dict[type[ast.AST], str] = {
    **{ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="},
    **{ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in"},
    **{ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Mod: "%"},
    **{ast.FloorDiv: "//", ast.Pow: "**", ast.LShift: "<<", ast.RShift: ">>"},
    **{ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.And: "and", ast.Or: "or"},
}


class _PythonEdits(ast.NodeVisitor):
    """Collects (begin, end, text) of every mutation of a module."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.edits: list[tuple[int, int, str]] = []
        lines = source.splitlines(keepends=True)
        self._starts = [sum(map(len, lines[:index])) for index in range(len(lines) + 1)]
        self._lines = lines

    def _at(self, line: int, byte: int) -> int:
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:byte].decode())

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._at(node.lineno, node.col_offset), self._at(
            node.end_lineno, node.end_col_offset
        )

    def _swap(self, left: ast.expr, operator: ast.AST, right: ast.expr, suffix: str = "") -> None:
        symbol = _SYMBOLS.get(type(operator), "") + suffix
        begin = self._span(left)[1]
        at = self.source.find(symbol, begin, self._span(right)[0])
        if at >= 0 and symbol in SWAPS:
            self.edits.append((at, at + len(symbol), SWAPS[symbol]))

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, operator, right in zip(
            [node.left, *node.comparators], node.ops, node.comparators, strict=False
        ):
            self._swap(left, operator, right)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self._swap(node.left, node.op, node.right)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self._swap(node.values[0], node.op, node.values[1])
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._swap(node.target, node.op, node.value, "=")
        self._drop(node)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            begin = self._span(node)[0]
            self.edits.append((begin, begin + len("not "), ""))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.edits.append((*self._span(node), str(not node.value)))
        elif isinstance(node.value, int | float):
            begin, end = self._span(node)
            self.edits.append((begin, end, _number(self.source[begin:end])))

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in ("min", "max"):
            self.edits.append((*self._span(node.func), SWAPS[node.func.id]))
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call | ast.Await):
            self._drop(node)
            self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            self._drop(node)
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        self._drop(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_arguments(self, node: ast.arguments) -> None:
        for default in [*node.defaults, *filter(None, node.kw_defaults)]:
            self.visit(default)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.visit(node.args)
        for statement in node.body:
            self.visit(statement)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            self.visit(statement)

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" not in ast.dump(node.test):
            self.generic_visit(node)

    def _drop(self, node: ast.stmt) -> None:
        self.edits.append((*self._span(node), "pass"))


def _python_edits(source: str) -> list[tuple[int, int, str]]:
    found = _PythonEdits(source)
    found.visit(ast.parse(source))
    return found.edits
