"""Filters: expressions over the columns of a table, as `bulk_modulus > 50 and label != "metal"`.

Names of columns, numbers, texts, True and False; `+ - * /`; `< <= > >= == !=`, chained as in Python; `in` and `not in`
of lists; `and`, `or`, `not`, brackets. Nothing else is taken, and nothing is ever executed: the expression is parsed by
`ast`, and its tree is walked here. A comparison with a value that is missing is neither true nor false (Kleene's
logic), and a filter holds where it is true.
"""

import ast
import difflib
import operator
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from .columns import BY_NAME, Row, Value

MAX_CHARACTERS = 500
"""Characters of an expression at most."""
MAX_DEPTH = 50
"""Levels of brackets and operators at most."""
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
EXAMPLE_VALUES: dict[str, Value] = {"number": 1.0, "text": "", "truth": True}
"""A row of such values tells whether an expression compares like with like."""
ALLOWED = "an expression compares columns with + - * / < <= > >= == != in, and, or, not and brackets"
ARITHMETIC_ERRORS = (ZeroDivisionError, OverflowError)
"""Errors of a number that leave its comparison undecided."""


class Filter:
    """One expression.

    Args:
        text: the expression.
        names: of the columns that there are.

    Raises:
        ValueError: for what is no such expression, for unknown columns, and where unlike values are compared.
    """

    def __init__(self, text: str, names: Collection[str]) -> None:
        self.text = text
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"the filter {text[:40]!r}… has {len(text)} characters; {MAX_CHARACTERS} are allowed.")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"the filter {text!r} is no expression; {ALLOWED}, as 'bulk_modulus > 50'.") from error
        self._check(self._tree, 0, names)
        row: Row = {name: EXAMPLE_VALUES[BY_NAME[name].kind] for name in names}
        with suppress(*ARITHMETIC_ERRORS):
            self._truth(self._tree, row)

    def __call__(self, row: Row) -> bool:
        """Whether it holds of a row."""
        return self._truth(self._tree, row) is True

    def _check(self, node: ast.AST, depth: int, names: Collection[str]) -> None:
        """Raise ValueError for a part of the tree that is not taken."""
        if depth > MAX_DEPTH:
            raise ValueError(f"the filter {self.text!r} is nested more than {MAX_DEPTH} deep.")
        parts: list[ast.expr] = []
        match node:
            case ast.Name(id=name):
                if name not in names:
                    near = difflib.get_close_matches(name, names, 1)
                    meant = f" Did you mean {near[0]!r}?" if near else ""
                    raise ValueError(
                        f"the filter {self.text!r} names {name!r}, which is no column; there are "
                        f"{', '.join(sorted(names))}.{meant}"
                    )
            case ast.Constant(value=bool() | int() | float() | str()):
                pass
            case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.BoolOp(values=elements):
                parts = elements
            case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd(), operand=operand):
                parts = [operand]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                parts = [left, right]
            case ast.Compare(left=left, ops=ops, comparators=others) if all(
                type(op) in COMPARISONS or isinstance(op, ast.In | ast.NotIn) for op in ops
            ):
                parts = [left, *others]
            case _:
                raise ValueError(f"the filter {self.text!r} holds {ast.unparse(node)!r}; {ALLOWED}.")
        for part in parts:
            self._check(part, depth + 1, names)

    def _truth(self, node: ast.AST, row: Row) -> bool | None:
        """True, False, or None where a value that decides is missing."""
        match node:
            case ast.BoolOp(op=op, values=parts):
                found = [self._truth(part, row) for part in parts]
                decides = isinstance(op, ast.Or)
                return decides if decides in found else None if None in found else not decides
            case ast.UnaryOp(op=ast.Not(), operand=part):
                truth = self._truth(part, row)
                return None if truth is None else not truth
            case ast.Compare(left=left, ops=ops, comparators=parts):
                try:
                    values = [self._value(part, row) for part in (left, *parts)]
                except ARITHMETIC_ERRORS:
                    return None
                each = [self._compare(op, a, b) for op, a, b in zip(ops, values, values[1:], strict=False)]
                return False if False in each else None if None in each else True
        value = self._value(node, row)
        if value is not None and not isinstance(value, bool):
            raise ValueError(
                f"the filter {self.text!r} takes {ast.unparse(node)!r} for true or false; compare it, as "
                "'bulk_modulus > 50'."
            )
        return value

    def _value(self, node: ast.AST, row: Row) -> Any:
        """A number, a text, a truth value, a list; None where it is missing."""
        match node:
            case ast.Name(id=name):
                return row.get(name)
            case ast.Constant(value=value):
                return value
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return [self._value(part, row) for part in parts]
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=part):
                value = self._number(part, row)
                return None if value is None else -value if isinstance(op, ast.USub) else value
            case ast.BinOp(left=left, op=op, right=right):
                a, b = self._number(left, row), self._number(right, row)
                return None if a is None or b is None else ARITHMETIC[type(op)](a, b)
        return self._truth(node, row)

    def _number(self, node: ast.AST, row: Row) -> float | None:
        value = self._value(node, row)
        if isinstance(value, bool | str | list):
            raise ValueError(f"the filter {self.text!r} computes with {ast.unparse(node)!r}, which is no number.")
        return value  # type: ignore[no-any-return]

    def _compare(self, op: ast.cmpop, a: Any, b: Any) -> bool | None:
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(b, list):
                raise ValueError(f"the filter {self.text!r}: `in` wants a list, as label in ['metal', 'insulator'].")
            for entry in b:
                self._check_comparable(a, entry, ast.Eq())
            return None if a is None or None in b else (a in b) is isinstance(op, ast.In)
        self._check_comparable(a, b, op)
        return None if a is None or b is None else COMPARISONS[type(op)](a, b)

    def _check_comparable(self, a: Any, b: Any, op: ast.cmpop) -> None:
        if a is None or b is None:
            return
        kinds = _kind(a), _kind(b)
        ordered = type(op) not in (ast.Eq, ast.NotEq)
        if kinds[0] != kinds[1] or kinds[0] == "a list" or (ordered and kinds[0] != "a number"):
            raise ValueError(
                f"the filter {self.text!r} compares {kinds[0]} with {kinds[1]}; numbers are compared with numbers, and "
                "texts and truth values by == and != with their like."
            )


def _kind(value: Any) -> str:
    kinds = {bool: "a truth value", str: "a text", list: "a list"}
    return kinds.get(type(value), "a number")
