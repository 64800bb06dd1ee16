"""`python -m mirage.diagnose` and `mirage.diagnose`: what they say, and what they refuse."""

import json
import os

import numpy as np
import pytest
from processes import python

import mirage
from mirage import diagnose as door  # the module, which can be called
from mirage.activations import Activation, Cos, Quadratic, Relu
from mirage.diagnosis import dataset, diagnose, page, record
from mirage.losses import Huber, Mse, Preprocessed
from mirage.network import TwoLayer
from mirage.targets import Expression, Hermite, PhaseRetrieval
from mirage.theory.assumptions import activation_degree, derivatives

KEYS = {
    "rank",
    "information_exponent",
    "generative_exponent",
    "staircase",
    "sigma_loss",
    "spectral_threshold",
    "assumptions",
}


@pytest.fixture(scope="module")
def square():
    return diagnose(PhaseRetrieval(), Huber(), Quadratic())


def command(*arguments, cwd):
    return python("mirage.diagnose", *arguments, cwd=cwd)


def test_the_record_is_plain_and_says_what_is_promised(square):
    found = json.loads(json.dumps(record(square), allow_nan=False))
    assert found.keys() >= KEYS
    assert found["rank"] == 1
    assert (found["information_exponent"], found["generative_exponent"]) == (2, 2)
    (step,) = found["staircase"]
    assert step.keys() >= {"directions", "alpha_c", "alpha_c_error", "class"}
    assert step["class"] == "easy"
    assert step["alpha_c"] == pytest.approx(0.5, rel=0.01)
    assert step["directions"] == [[1.0]]
    assert found["sigma_loss"]["condition_number"] == 1.0
    assert found["spectral_threshold"]["lower"] == "inf"
    assert 0.5 < found["spectral_threshold"]["upper"] < 2
    assert [a["name"] for a in found["assumptions"]] == [f"A{i}" for i in range(1, 8)]


def test_the_page_says_it_in_words(square):
    words = page(square)
    assert "easy     0.5" in words
    assert "No first-order or low-degree method is known to see anything below n/d = 0.5" in words
    assert "T unbounded" in words  # the square loss, at the upper end


def test_a_loss_that_sees_nothing_and_one_that_does():
    words = page(diagnose(Hermite(), Mse()))
    assert "mse cannot see this target at second order: Σ_ℓ = 0" in words
    assert "huber(delta=1.3)" in words or "huber(delta=1.4)" in words


def test_a_constant_target_has_nothing_to_learn():
    found = diagnose(Expression("2 + 0*h"))
    assert "nothing to learn" in page(found)
    assert record(found)["constant"] is True
    with pytest.raises(ValueError, match="nothing to draw"):
        dataset(found)


def test_an_infinite_variance_is_said_and_the_rest_is_found():
    found = diagnose(Expression("exp(h**2)"))
    assert "undefined: E g² is infinite" in page(found)
    said = record(found)
    assert said["square"] == "inf"
    assert said["information_exponent"] is None
    assert said["staircase"][0]["alpha_c"] == pytest.approx(0.5, rel=0.01)


def test_a_point_mass_with_a_density():
    """relu(h): half of the labels are 0, with E[h | 0] = −√(2/π); the rest are h itself."""
    found = dataset(diagnose(Expression("relu(h)")))
    atom = found.where(found.density.isnull(), drop=True)
    assert atom.sizes["place"] == 1
    assert atom.probability.item() == pytest.approx(0.5, abs=1e-3)
    assert float(atom.information.item()) == pytest.approx(0.0, abs=2e-3)  # E[h² | h < 0] = 1
    above = found.where((found.label > 0.5) & (found.label < 2.5), drop=True)
    np.testing.assert_allclose(above.information[:, 0, 0], above.label**2 - 1, atol=0.02)


def test_the_figure_has_four_panels(square):
    figure = mirage.figures.draw_diagnosis(dataset(square))
    assert len([axes for axes in figure.axes if axes.get_xlabel()]) >= 4


def test_the_density_of_labels_is_a_density(square):
    """y = h²: χ² with one degree of freedom."""
    found = dataset(square)
    inside = found.where((found.label > 0.1) & (found.label < 4), drop=True)
    y = inside.label.values
    wanted = np.exp(-y / 2) / np.sqrt(2 * np.pi * y)
    np.testing.assert_allclose(inside.density.values, wanted, rtol=0.05)
    assert float(found.probability.sum()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "first", "second", "third"),
    [
        ("cos", 0.0, -1.0, 1.0),
        ("quadratic", 0.0, 2.0, 0.0),
        ("tanh", 1.0, 0.0, 2.0),
        ("softplus", 0.5, 0.25, 1 / (6 * np.sqrt(3))),
        ("relu", 0.5, np.nan, np.inf),
    ],
)
def test_derivatives_of_activations(name, first, second, third):
    found = derivatives(Activation.options()[name]())
    np.testing.assert_allclose(found, (first, second, third), atol=1e-3)


def test_which_activations_are_polynomials():
    assert activation_degree(Quadratic()) == 2
    assert activation_degree(Activation.options()["hermite"](degree=5)) == 5
    assert np.isinf(activation_degree(Cos()))
    assert np.isinf(activation_degree(Relu()))


@pytest.mark.parametrize(
    ("settings", "verdicts"),
    [
        ({}, {"A1": "holds", "A2": "bent", "A3": "bent", "A5": "holds", "A6": "holds"}),
        ({"activation": Relu()}, {"A2": "fails", "A7": "bent"}),
        ({"activation": Quadratic()}, {"A6": "holds"}),
        ({"activation": Quadratic(), "target": Expression("h**4")}, {"A6": "fails"}),
        ({"loss": Mse(), "target": Hermite()}, {"A5": "fails", "A4": "holds"}),
        ({"loss": Preprocessed(transform="y**3")}, {"A3": "bent"}),
        ({"target": Expression("exp(h**2)")}, {"A1": "fails"}),
        ({"network": TwoLayer(initial_norm=5.0)}, {"A7": "fails"}),
    ],
    ids=str,
)
def test_verdicts_on_the_assumptions(settings, verdicts):
    chosen = {"target": PhaseRetrieval(), "loss": Huber(), "activation": Cos(), **settings}
    found = {a.name: a.verdict for a in diagnose(**chosen).assumptions}
    assert {name: found[name] for name in verdicts} == verdicts


def test_the_command_prints_one_object_and_writes_a_figure(tmp_path):
    done = command(
        "target=expression",
        "target.expr=h**2 + 0.1*sign(h)",
        "loss=mse",
        "activation=relu",
        "format=json",
        "output=here",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["target"] == "h**2 + 0.1*sign(h)"
    assert found["staircase"][0]["class"] == "trivial"
    assert sorted(os.listdir(tmp_path / "here")) == ["diagnosis.pdf", "diagnosis.png"]
    assert os.listdir(tmp_path) == ["here"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["targt=parity"], "did you mean 'target'"),
        (["target=paritty"], "did you mean 'parity'"),
        (["format=xml"], "format='xml': expected text or json"),
        (["parity"], "expected key=value"),
        (["target=parity", "target.k=9"], "rank 9; label integrals go up to rank 4"),
        (["target=expression", "target.expr=1/relu(h)"], "not finite for 0.5 of all h"),
        (["target=expression", "target.expr=foo(h)"], "target.expr"),
        (["target=expression", "target.expr=2+0*h", "output=x"], "nothing to draw"),
        (["loss=huber", "loss.delta=-1"], "loss.delta"),
        (["target=phase_retrieval", "output=/dev/null/x"], "cannot write"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert door.run(arguments) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert said.out == ""
    assert os.listdir(tmp_path) == []


def test_the_module_is_a_function_too():
    found = mirage.diagnose(Expression("h**2"), loss=Mse())
    assert str(found) == page(found)
    assert found.record() == record(found)


def test_help(capsys):
    assert door.run(["--help"]) == 0
    assert "python -m mirage.diagnose" in capsys.readouterr().out
