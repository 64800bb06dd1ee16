"""Formulas: values against numpy, the split in summands, and nothing but arithmetic let through."""

import builtins
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage.expressions import FUNCTIONS, Expression
from mirage.targets import Expression as Target
from mirage.targets import GrandStaircase, Parity, Staircase

NAMES = ("h", "h1", "h2", "h3")
# The same functions in numpy; formulas are Python, so `eval` of the text is the oracle.
NUMPY = {
    **{f.__name__: f for f in (np.sign, np.sqrt, np.exp, np.log, np.sin, np.cos, np.tanh)},
    **{f.__name__: f for f in (np.maximum, np.minimum)},
    "abs": np.abs,
    "erf": scipy.special.erf,
    "relu": lambda t: np.maximum(t, 0.0),
    **{f"He{k}": lambda t, k=k: scipy.special.eval_hermitenorm(k, t) for k in range(11)},
}


def formula(text, names=NAMES):
    return Expression(text, names=names, key="some.key")


def gaussian(n, rank, dtype=np.float64):
    return np.random.default_rng(0).normal(size=(n, rank)).astype(dtype)


def oracle(text, h):
    values = {"h": h[:, 0], **{f"h{i + 1}": h[:, i] for i in range(h.shape[1])}}
    with np.errstate(invalid="ignore"):
        value = eval(text, {"__builtins__": {}, **NUMPY}, values)
    return np.broadcast_to(value, len(h))


FORMULAS = [
    "h",
    "3",
    "  +1.5e-2  ",
    "h1 - h2 - h3",
    "h1 - (h2 - h3)",
    "h1/h2/h3",
    "-h1 - -h2",
    "2 + 3*h2 - h1/4",
    "-h1**2",
    "(-h1)**2",
    "h1**3 + h2**1 + h3**0",
    "h1**-1 - h2**(-2)",
    "h1**3.0",
    "h1**(1 + 2)",
    "h1**0.5",
    "abs(h1)**0.5",
    "abs(h1)**h2",
    "2**h1",
    "2**3**2*h1",
    "(-1)**2*h1",
    "(-8)**3 + h1",
    "sqrt(2)*h1",
    "h + sign(h1) + h2",
    "sign(h1*h2*h3)",
    "exp(-h1**2/2) + log(abs(h2)) + sqrt(abs(h3))",
    "sin(h1)*cos(h2) - tanh(h3)",
    "erf(h1) + relu(h2 - 1)",
    "maximum(h1, h2) - minimum(h2, -h3)",
    "maximum(h1, 0.5) + minimum(2, h2)",
    "sin(cos(sin(h1 + 1))) + exp(tanh(1))",
    *(f"He{k}(h1 - h2)" for k in range(11)),
]


@pytest.mark.parametrize("text", FORMULAS)
def test_values_are_those_of_numpy(text):
    h = gaussian(50, 3)
    with jax.enable_x64(True):
        values = Target(text, rank=3)(jnp.asarray(h))
    np.testing.assert_allclose(values, oracle(text, h), rtol=1e-11, atol=1e-13)


def test_every_function_is_among_the_formulas():
    assert set(FUNCTIONS) == set(NUMPY)
    assert set(FUNCTIONS) <= set(re.findall(r"\w+", " ".join(FORMULAS)))


@pytest.mark.parametrize("text", ["h1**2", "3", "sqrt(2)", "maximum(h, 1)"])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)], ids=str)
def test_shape_and_dtype_are_those_of_the_values(text, shape):
    value = formula(text, ("h", "h1"))(h=jnp.ones(shape), h1=jnp.ones(shape))
    assert (value.shape, value.dtype) == (shape, jnp.float32)


def test_whole_powers_are_differentiable_at_zero_and_below():
    at = jnp.asarray([-1.5, 0.0])
    slope = jax.vmap(jax.grad(lambda h: formula("h**2 + h**3", ("h",))(h=h)))(at)
    np.testing.assert_allclose(slope, 2 * at + 3 * at**2)


@pytest.mark.parametrize(
    ("text", "rank"),
    [("h", 1), ("3", 1), ("h2", 2), ("h1 + h7", 7), ("He3(h)", 1), ("h10*h2", 10), ("h100", 100)],
)
def test_the_rank_is_the_largest_index_named(text, rank):
    assert Target(text).rank == rank


def test_a_rank_can_be_given():
    target, h = Target("exp(-h2**2)", rank=4), gaussian(20, 4, np.float32)
    assert target.rank == 4
    np.testing.assert_allclose(target(jnp.asarray(h)), np.exp(-(h[:, 1] ** 2)), rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("h1**2 + sign(h1*h2*h3)", Staircase()),
        ("He4(h1) + sign(h1*h2*h3)", GrandStaircase()),
        ("sign(h1*h2)", Parity()),
        ("sign(h1)*sign(h2)*sign(h3)*sign(h4)", Parity(k=4)),
    ],
)
def test_formulas_equal_the_targets_of_that_name(text, target):
    h = jnp.asarray(gaussian(500, target.rank, np.float32))
    assert Target(text).rank == target.rank
    np.testing.assert_allclose(Target(text)(h), target(h), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "directions"),
    [
        ("h1**2 + sign(h1*h2*h3)", [(0,), (0, 1, 2)]),
        ("h1 - (h2*h3 - 2*h) + 5", [(0,), (1, 2), (0,), (0,)]),
        ("h3 - h2 - h1", [(2,), (1,), (0,)]),
        ("-(h1 + h3)*h3", [(0, 2)]),
        ("sin(h1 + h2) - relu(h3 - h2)", [(0, 1), (1, 2)]),
        ("h*h1*h10", [(0, 9)]),
    ],
)
def test_the_summands_are_split_and_sum_to_the_formula(text, directions):
    target = Target(text)
    parts = target.parts()
    assert [active for _, active in parts] == directions
    h = gaussian(50, target.rank)
    with jax.enable_x64(True):
        total = sum(part(jnp.asarray(h[:, active])) for part, active in parts)
    np.testing.assert_allclose(total, oracle(text, h), rtol=1e-12, atol=1e-12)


def _formulas():
    """Formulas without a pole; at most 8 leaves of size at most 8 in [−2, 2]³."""
    name = st.sampled_from(NAMES)
    number = st.floats(0, 3).map(lambda x: f"{x:.4g}") | st.integers(0, 5).map(str)
    power = st.builds("{}**{}".format, name, st.integers(0, 3))
    sign = st.builds("sign({})".format, name)

    def larger(inner):
        call = st.sampled_from(["sin", "cos", "tanh", "erf", "abs", "relu"])
        pick = st.sampled_from(["maximum", "minimum"])
        return st.one_of(
            st.builds("{}{}{}".format, inner, st.sampled_from(["+", " - ", "*", " -"]), inner),
            st.builds("-{}".format, inner),
            st.builds("({})".format, inner),
            st.builds("{}/(1 + ({})**2)".format, inner, inner),
            st.builds("{}({})".format, call, inner),
            st.builds("{}({}, {})".format, pick, inner, inner),
        )

    return st.recursive(name | number | power | sign, larger, max_leaves=8)


@settings(max_examples=60)
@given(_formulas())
def test_random_formulas_agree_with_numpy(text):
    # Values stay under 8⁸ = 2e7, so float64 rounds by 1e-8 and the float32 tolerance is safe.
    h = np.clip(gaussian(5, 3), -2, 2)
    with jax.enable_x64(True):
        target = Target(text, rank=3)
        values = target(jnp.asarray(h))
        parts = sum(part(jnp.asarray(h[:, active])) for part, active in target.parts())
    np.testing.assert_allclose(values, oracle(text, h), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(parts, values, rtol=1e-6, atol=1e-6)


FRAGMENTS = (*NAMES, *FUNCTIONS, *"+-*/()[]{}.,:;=<>@%^&|~!'\"\\#_ 0123456789eEjx\n", "**", "1e29")
TEXTS = st.text(max_size=40) | st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join)


@settings(max_examples=300)
@given(TEXTS)
def test_any_text_is_a_formula_or_a_value_error(text):
    refusal = ""
    try:
        read = formula(text)
    except ValueError as error:
        refusal = str(error)
    if refusal:
        assert refusal.startswith("some.key")
    else:
        assert read(**{name: jnp.ones(2) for name in NAMES}).shape == (2,)


HOSTILE = [
    "canary()",
    "(canary)()",
    "sin(canary())",
    "h1 + canary()",
    "canary.__call__()",
    "[canary() for _ in (1,)]",
    "{canary(): canary()}",
    "(canary() for _ in (1,))",
    "(lambda: canary())()",
    "f'{canary()}'",
    "canary() if h1 else h1",
    "(h1 := canary())",
    "h1[canary()]",
    "sin(*canary())",
    "sin(h1, **canary())",
    "sin(x=canary())",
    "exec('canary()')",
    "eval('canary()')",
    "__import__('builtins').canary()",
    "import os",
    "print(1)",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_is_executed(text, monkeypatch):
    called = []
    monkeypatch.setattr(builtins, "canary", lambda *_: called.append(1) or 1.0, raising=False)
    with pytest.raises(ValueError, match=re.escape(f'some.key="{text}": ')):
        formula(text)
    assert called == []


OUTSIDE = [
    "",
    " ",
    "()",
    "h1 +",
    "(h1",
    "h1)",
    "h1 h2",
    "h1, h2",
    "x = h1",
    "h1; h2",
    "h1\nh2",
    "h1\\",
    "\0",
    "\ud800",
    "'h1'",
    "b'h1'",
    "f'{h1}'",
    "'\\d'",
    "True",
    "None",
    "...",
    "1j*h1",
    "1e400",
    "1if h1 else 2",
    "h1 if h1 else 1",
    "h1 < h2",
    "h1 == h2",
    "h1 and h2",
    "not h1",
    "~h1",
    "h1 @ h2",
    "h1 // 2",
    "h1 % 2",
    "h1 << 1",
    "h1 | h2",
    "[h1]",
    "{h1}",
    "{1: h1}",
    "h1[0]",
    "h1.real",
    "h1.__class__.__bases__",
    "().__class__",
    "[h for h in (1, 2)]",
    "lambda: h1",
    "(x := h1)",
    "await h1",
    "yield h1",
    "*h1",
    "maximum(*h1)",
    "maximum(h1)",
    "maximum(h1, h2, h3)",
    "sin()",
    "sin(h1, h2)",
    "sin(x=h1)",
    "h1(2)",
    "sin(h1)(h1)",
    "sin",
    "sin(sin)",
    "He11(h1)",
    "He4",
    "arcsin(h1)",
    "h0",
    "h01",
    "h4",
    "x",
]


@pytest.mark.parametrize("text", OUTSIDE)
def test_what_is_outside_the_grammar_is_refused(text):
    with pytest.raises(ValueError, match=re.escape(f'some.key="{text}": ')):
        formula(text)


@pytest.mark.parametrize(
    "text",
    [
        "1/0",
        "h1 + 1/0",
        "0**-1",
        "9**9**9",
        "9**9**9*h1",
        "(-1)**0.5",
        "(-1)**0.5*h1",
        "h1*(-8)**(1/3)",
        "1e29*1e29",
        "1e29*1e29*h1",
        "h1/(1e29*1e29)",
    ],
)
def test_a_constant_that_is_no_float32_is_refused(text):
    with pytest.raises(ValueError, match=re.escape(f'some.key="{text}": ')):
        formula(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("h1^2", "powers are written h1**2, not h1^2"),
        ("h5", "unknown name 'h5'; known: h h1 h2"),
        ("Sign(h1)", "unknown function 'Sign'; known: sign abs"),
        ("sign(h1, h2)", "sign takes 1 argument"),
        ("maximum(h1)", "maximum takes 2 arguments"),
        ("h1 // 2", "only + - * / and ** are known"),
    ],
)
def test_a_mistake_is_answered_with_what_is_accepted(text, hint):
    with pytest.raises(ValueError, match=re.escape(f'target.expr="{text}": {hint}')):
        Target(text, rank=2)


def test_an_index_above_the_limit_is_refused():
    with pytest.raises(
        ValueError, match=r"target\.rank=101: expected a whole number from 1 to 100"
    ):
        Target("h101")


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("h1" + " " * 1999, "2000 characters"),
        ("1" * 5000, "2000 characters"),
        ("-" * 5000 + "h1", "2000 characters"),
        ("h" + "1" * 5000, "2000 characters"),
        ("+".join(["h1"] * 200), "400 terms"),
        ("-" * 300 + "h1", "400 terms"),
        ("(" * 900 + "h1" + ")" * 900, "too many nested parentheses"),
    ],
    ids=lambda text: text[:5],
)
def test_a_formula_too_long_or_too_deep_is_refused(text, limit):
    with pytest.raises(ValueError, match=limit):
        Target(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("h" + " " * 1999, 0.5),
        ("+".join(["h"] * 90), 45.0),
        ("-" * 190 + "h", 0.5),
        ("abs(" * 100 + "h" + ")" * 100, 0.5),
        ("h*(" * 90 + "2" + ")" * 90, 2 * 0.5**90),
    ],
    ids=lambda text: str(text)[:5],
)
def test_the_longest_formulas_are_evaluated(text, value):
    assert float(formula(text)(**dict.fromkeys(NAMES, jnp.asarray(0.5)))) == pytest.approx(value)
