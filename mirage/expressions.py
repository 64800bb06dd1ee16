"""Formulas typed by a user, evaluated safely: a whitelist of syntax, functions and names.

Parsing and evaluation are `simpleeval`'s, with all but arithmetic and calls removed: no
attribute, subscript, comprehension, string or keyword gets through.
"""

import ast
import functools
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import NoReturn

import jax
import jax.numpy as jnp
import simpleeval

from mirage.hermite import probabilists_hermite

MAX_HERMITE = 10


def _power(base, exponent):
    """base ** exponent; a whole exponent stays whole, so that (−1)**2 is exact."""
    if isinstance(exponent, float) and exponent.is_integer() and abs(exponent) <= 100:
        exponent = int(exponent)
    return base**exponent


OPERATORS: Mapping[type, Callable] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: _power,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
# (function of arrays, number of arguments)
FUNCTIONS: Mapping[str, tuple[Callable, int]] = {
    "sign": (jnp.sign, 1),
    "abs": (jnp.abs, 1),
    "sqrt": (jnp.sqrt, 1),
    "exp": (jnp.exp, 1),
    "log": (jnp.log, 1),
    "sin": (jnp.sin, 1),
    "cos": (jnp.cos, 1),
    "tanh": (jnp.tanh, 1),
    "erf": (jax.scipy.special.erf, 1),
    "relu": (jax.nn.relu, 1),
    "maximum": (jnp.maximum, 2),
    "minimum": (jnp.minimum, 2),
    **{f"He{k}": (functools.partial(probabilists_hermite, k), 1) for k in range(MAX_HERMITE + 1)},
}
SYNTAX = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Call, ast.Name, ast.Load, ast.Constant)
MAX_LENGTH, MAX_NODES = 2000, 400


class Expression:
    """A formula in named variables: numbers, `+ - * / **`, parentheses and `FUNCTIONS`.

    Raises ValueError, naming `key`, when the text does not parse or uses a name, function
    or piece of syntax outside the whitelist.
    """

    def __init__(self, text: str, *, names: tuple[str, ...], key: str):
        self.text, self.key = text, key
        self.tree = self._parse(text)
        self.used = tuple(sorted(_variables(self.tree)))
        unknown = [name for name in self.used if name not in names]
        if unknown:
            self._fail(f"unknown name {unknown[0]!r}; known: {_summary(names)}")
        try:  # constants are folded here: 1/0, 9**9**9, (-1)**0.5, 1e29*1e29
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                jax.eval_shape(
                    lambda values: self(**values),
                    dict.fromkeys(names, jax.ShapeDtypeStruct((), jnp.float32)),
                )
        except (ArithmeticError, TypeError, ValueError, Warning) as error:
            self._fail(f"a constant is not a finite real number ({str(error).splitlines()[0]})")

    def __call__(self, **values: jax.Array) -> jax.Array:
        """The formula at these values, elementwise, as an array of their shape and dtype."""
        return _evaluate(self.tree, values)

    def terms(self) -> list[tuple[Callable[..., jax.Array], tuple[str, ...]]]:
        """The summands of the formula, each a function of the values of its own names."""

        def term(node: ast.expr, sign: float):
            return lambda **values: sign * _evaluate(node, values)

        split = _summands(self.tree, 1.0)
        return [(term(node, sign), tuple(sorted(_variables(node)))) for node, sign in split]

    def summands(self) -> list[tuple[str, tuple[str, ...]]]:
        """The text of every summand, with the names it uses."""
        split = _summands(self.tree, 1.0)
        return [
            (("-" if sign < 0 else "") + f"({ast.unparse(node)})", tuple(sorted(_variables(node))))
            for node, sign in split
        ]

    def _fail(self, why: str) -> NoReturn:
        raise ValueError(f'{self.key}="{self.text}": {why}')

    def _parse(self, text: str) -> ast.expr:
        if len(text) > MAX_LENGTH:
            raise ValueError(
                f"{self.key}: the formula is longer than {MAX_LENGTH} characters ({len(text)})"
            )
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            reason = getattr(error, "msg", None) or str(error)
            self._fail(f"does not parse ({reason})")
        nodes = list(ast.walk(tree))
        if len(nodes) > MAX_NODES:
            self._fail(f"more than {MAX_NODES} terms")
        for node in nodes:
            if isinstance(node, ast.BinOp | ast.UnaryOp):
                if type(node.op) is ast.BitXor:
                    self._fail("powers are written h1**2, not h1^2")
                if type(node.op) not in OPERATORS:
                    self._fail("only + - * / and ** are known")
            elif isinstance(node, ast.Call):
                self._check_call(node)
            elif isinstance(node, ast.Constant):
                if isinstance(node.value, bool) or not isinstance(node.value, int | float):
                    self._fail(f"{node.value!r} is not a number")
                if not abs(node.value) < 1e30:
                    self._fail("a number is too large")
            elif not isinstance(node, SYNTAX) and type(node) not in OPERATORS:
                self._fail(f"{type(node).__name__.lower()} is not allowed in a formula")
        return tree.body

    def _check_call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else "?"
        if name not in FUNCTIONS:
            self._fail(f"unknown function {name!r}; known: {_summary(tuple(FUNCTIONS))}")
        arity = FUNCTIONS[name][1]
        if len(node.args) != arity or node.keywords:
            self._fail(f"{name} takes {arity} argument{'s' if arity > 1 else ''}")


def _variables(tree: ast.AST) -> set[str]:
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in functions}


def _summands(node: ast.expr, sign: float) -> list[tuple[ast.expr, float]]:
    """Split a formula at its outermost additions and subtractions."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        right = -sign if isinstance(node.op, ast.Sub) else sign
        return _summands(node.left, sign) + _summands(node.right, right)
    return [(node, sign)]


def _evaluate(tree: ast.expr, values: Mapping[str, jax.Array]) -> jax.Array:
    example = next(iter(values.values()))

    def array_function(function: Callable):  # a function of a plain number: sqrt(2)
        return lambda *args: function(*(jnp.asarray(a, example.dtype) for a in args))

    evaluator = simpleeval.SimpleEval(
        operators=dict(OPERATORS),
        functions={name: array_function(f) for name, (f, _) in FUNCTIONS.items()},
        names=dict(values),
    )
    allowed = (ast.BinOp, ast.UnaryOp, ast.Call, ast.Name, ast.Constant)
    nodes = evaluator.nodes or {}
    evaluator.nodes = {kind: nodes[kind] for kind in allowed if kind in nodes}
    evaluator.nodes[ast.Constant] = lambda node: float(node.value)
    result = jnp.asarray(evaluator.eval("", previously_parsed=tree), example.dtype)
    return jnp.broadcast_to(result, example.shape)


def _summary(names: tuple[str, ...]) -> str:
    return " ".join(names)
