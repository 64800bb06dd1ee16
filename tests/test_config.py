"""Configs: what composes, what is refused and in what words."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mirage.config import ConfigError, compose, compose_config
from mirage.config.overrides import prepare
from mirage.config.schema import OPTION_GROUPS, OPTIONAL_GROUPS
from mirage.folders import folder
from mirage.losses import Huber, Mse
from mirage.targets import Hermite

SHIPPED = {
    group: [n for n, c in base.options().items() if c.__module__.startswith("mirage.")]
    for group, base in OPTION_GROUPS.items()
}


def test_the_main_experiment_composes_to_the_published_setting():
    experiment = compose("+experiment=huber_vs_mse")
    assert experiment.name == "huber_vs_mse"
    assert experiment.d == (200, 300, 500)
    assert len(experiment.alpha) >= 10
    assert (min(experiment.alpha), max(experiment.alpha)) == (2, 40)
    assert experiment.loss == {"mse": Mse(), "huber": Huber(delta=1.0)}
    assert experiment.target == Hermite(terms=[[1.0, [4, 0]], [1.0, [0, 4]]])
    assert experiment.seeds == 10
    assert experiment.network.width == 4
    assert experiment.activation.name() == "cos"
    algorithm = experiment.algorithm
    assert (algorithm.steps, algorithm.step_size, algorithm.weight_decay) == (20, 2.0, 0.0)
    assert experiment.network.initial_norm == 1e-3


def test_the_shell_has_the_last_word():
    experiment = compose(
        "+experiment=huber_vs_mse", "d=[50]", "loss.delta=2", "algorithm.steps=3", "exponent=1.5"
    )
    assert experiment.d == (50,)
    assert experiment.loss["huber"] == Huber(delta=2.0)
    assert experiment.algorithm.steps == 3
    assert (experiment.alpha, experiment.exponent) == (None, (1.5,))


def test_an_experiment_is_the_default_config_with_its_own_changes_alone():
    plain = compose_config([])
    main = compose_config(["+experiment=huber_vs_mse"])
    assert {key for key in plain if plain[key] != main[key]} == {"name", "d", "compare", "theory"}


@pytest.mark.parametrize("group", SHIPPED)
def test_every_option_has_a_file_that_says_the_constructors_defaults(group):
    files = {file.stem: file for file in (folder("conf") / group).glob("*.yaml")}
    assert sorted(files) == sorted(SHIPPED[group])
    for name, file in files.items():
        option = OPTION_GROUPS[group].options()[name]
        written = {k: v for k, v in yaml.safe_load(file.read_text()).items() if k != "defaults"}
        assert set(written) == set(option.settings())
        if "???" not in written.values():  # what only the user knows
            assert option(**written) == option()


@pytest.mark.parametrize(("group", "name"), [(g, n) for g, names in SHIPPED.items() for n in names])
def test_every_option_can_be_chosen(group, name, tmp_path):
    chosen = [f"{group}={name}"]
    if chosen == ["runtime=ray"] and importlib.util.find_spec("ray") is None:
        # It goes with an optional extra, in an environment without joblib's (tests/cluster).
        with pytest.raises(
            ConfigError, match=r'not installed; expected pip install "mirage\[ray\]"'
        ):
            compose(*chosen)
        return
    if group in OPTIONAL_GROUPS:
        chosen = [f"+{group}={name}"]
    if name in ("scaling_laws", "spectrum"):  # of features of given strengths
        chosen.append("target=hierarchical")
    if group == "tune":
        chosen.append("tune.settings={loss:{delta:[1,2]}}")
    if "path" in OPTION_GROUPS[group].options()[name].settings():
        rows = 2 if group == "directions" else 20_000
        np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(rows, 300)))
        chosen.append(f"{group}.path={tmp_path / 'x.npy'}")
    if group != "algorithm" or "steps" in OPTION_GROUPS[group].options()[name].settings():
        chosen.append("algorithm.steps=1")
    experiment = compose(*chosen, "d=300", "samples=single")
    assert getattr(experiment, group).name() == name


@pytest.mark.parametrize("samples", ["recovery", "exponent", "single"])
def test_every_choice_of_samples_gives_one_kind(samples):
    assert len(compose(f"samples={samples}", "d=50").sample_values) >= 1


def test_compared_options_may_carry_settings():
    experiment = compose("compare.loss=[mse,huber,{name:huber,delta:3}]")
    assert experiment.loss == {
        "mse": Mse(),
        "huber": Huber(),
        "huber(delta=3)": Huber(delta=3),
    }


BAD = [
    ("+alhpa=3", "unknown key 'alhpa' (did you mean 'alpha'?)"),
    ("alhpa=3", "unknown key 'alhpa' (did you mean 'alpha'?)"),
    ("+experimnt=x", "unknown key 'experimnt'"),
    ("++foo.bar=1", "unknown key 'foo'"),
    ("+experiment=huber_vs_mes", "did you mean 'huber_vs_mse'"),
    ("loss=hubr", "did you mean 'huber'"),
    ("samples=alpha", "expected one of exponent, recovery, single"),
    ("loss.foo=3", "unknown key 'loss.foo'"),
    ("+loss.foo=3", "it has delta"),
    ("activation.degree=3", "unknown key 'activation.degree'"),
    ("loss.delta=abc", "loss.delta=abc: expected a number"),
    ("loss.delta=-1", "loss.delta=-1.0: expected a positive number"),
    ("loss.delta=nan", "loss.delta"),
    ("target.noise=-0.5", "target.noise=-0.5"),
    ("target.noise=inf", "target.noise"),
    ("target.terms=[[1,2]]", "[coefficient, [degree in h1"),
    ("target.terms=foo", "target.terms='foo'"),
    ("seeds=0", "seeds=0"),
    ("seeds=two", "seeds=two: expected a whole number"),
    ("seeds=2.5", "seeds=2.5"),
    ("save_weights=maybe", "save_weights=maybe: expected true or false"),
    ("d=1", "d=1: expected at least the target's rank, 2"),
    ("d=null", "d=None"),
    ("d=[200,x]", "d=[200, 'x']"),
    ("d={a:1}", "d={'a': 1}"),
    ("d=1e400", "d=inf"),
    ("alpha=0.0001", "alpha=0.0001 at d=200: gives n=0"),
    ("alpha=abc", "alpha='abc'"),
    ("alpha=[]", "alpha=[]"),
    ("alpha=-3", "alpha=-3"),
    ("exponent=40", "more than 2^31"),
    ("root_seed=-1", "root_seed=-1"),
    ("network.width=3", "needs an even width"),
    ("network.initial_norm=0", "network.initial_norm=0.0"),
    ("algorithm.optimizer=foo", "expected one of adam"),
    ("algorithm.steps=-1", "algorithm.steps=-1"),
    ("runtime.memory=3", "expected a size such as"),
    ("runtime.devices=0", "runtime.devices=0"),
    ("compare.loss=[]", "expected a list"),
    ("compare.loss=[foo]", "compare.loss=foo: unknown option"),
    ("compare.loss=huber", "expected a list"),
    ("compare.loss=[huber,huber]", "listed twice"),
    ("compare.loss=[{name:huber,dleta:2}]", "no such setting; it has delta"),
    ("compare.foo=[a]", "compare.foo"),
    ("compare=3", "compare=3"),
    ("name=a/b", "name='a/b'"),
    ("~loss", "expected an option of the group 'loss'"),
    ("plugins=[nowhere.py]", "expected the path of a Python file"),
]


@pytest.mark.parametrize(("override", "message"), BAD, ids=[b[0] for b in BAD])
def test_bad_input_names_the_key_and_what_is_accepted(override, message):
    with pytest.raises(ConfigError) as error:
        compose(override)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("expr", "message"),
    [
        ("h1 +", "does not parse"),
        ("h5", "unknown name 'h5'; known: h h1 h2"),
        ('"h5"', "unknown name 'h5'"),
        ('__import__("os").system("true")', "unknown function"),
        ("h1^2", "h1**2"),
    ],
)
def test_bad_formulas_are_refused_quoted_or_not(expr, message):
    with pytest.raises(ConfigError, match=r"target\.expr") as error:
        compose("target=expression", f"target.expr={expr}", "target.rank=2")
    assert message in str(error.value)


@pytest.mark.parametrize("form", ["{}", '"{}"', "'{}'"])
def test_a_formula_needs_no_quotes_for_hydra(form):
    text = "He4(h1) + maximum(h1, h2)*sign(h1*h2)/2"
    experiment = compose("target=expression", "target.expr=" + form.format(text))
    assert experiment.target.expr == text
    assert experiment.target.rank == 2


@given(st.text(alphabet="h123 +-*/().,HeabsQ\\$=[]{}", min_size=1, max_size=30))
def test_quoting_gives_hydra_the_formula_back(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    text = text.strip()
    if not text:
        return
    (ready,) = prepare([f"target.expr={text}"])
    (read,) = OverridesParser.create().parse_overrides([ready])
    assert read.value() == text


def test_a_broken_file_is_named_with_its_line(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine.yaml").write_text("name: [x\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml, line \d+: broken YAML"):
        compose("target=mine", config_dir=str(tmp_path))
    with pytest.raises(ConfigError, match="no such folder"):
        compose(config_dir=str(tmp_path / "nowhere"))


def test_an_option_of_a_users_own_file_and_config_folder(tmp_path):
    plugin = tmp_path / "my_target.py"
    plugin.write_text(
        "from mirage.targets import Target\n\n\n"
        "class Cubed(Target):\n"
        "    '''scale h³.'''\n\n"
        "    scale: float = 1.0\n"
        "    rank = 1\n\n"
        "    def __call__(self, h):\n"
        "        return self.scale * h[..., 0] ** 3\n"
    )
    (tmp_path / "conf" / "target").mkdir(parents=True)
    mine = tmp_path / "conf" / "target" / "steep.yaml"
    mine.write_text("defaults: [base_cubed, _self_]\nscale: 7.0\n")
    plugins = f"plugins=[{plugin}]"
    assert compose(plugins, "target=cubed", "target.scale=2").target.scale == 2.0
    own = compose(plugins, "target=steep", config_dir=str(tmp_path / "conf"))
    assert own.target.scale == 7.0
    with pytest.raises(ConfigError, match="expected a number"):
        compose(plugins, "target=cubed", "target.scale=x")
    broken = tmp_path / "broken.py"
    broken.write_text("1/0\n")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        compose(f"plugins=[{broken}]")


def test_an_option_that_is_defined_again_has_its_new_settings():
    """As in a notebook, whose cell is changed and run again."""

    def define(setting):
        annotations = {setting: float}
        return type("Redefined", (Huber,), {"__annotations__": annotations, setting: 1.0})

    first = define("early")
    assert compose("loss=redefined", "loss.early=2").loss.early == 2.0
    second = define("late")
    loss = compose("loss=redefined", "loss.late=3").loss
    assert isinstance(loss, second)
    assert loss.late == 3.0
    with pytest.raises(ConfigError, match="early"):
        compose("loss=redefined", "loss.early=2")
    assert issubclass(first, Huber)  # it is still there


def test_sweeps_are_files_of_overrides():
    for file in folder("sweeps").glob("*.yaml"):
        content = yaml.safe_load(Path(file).read_text())
        assert content["hydra"]["sweeper"]["params"]
        assert file.read_text().startswith("#")
