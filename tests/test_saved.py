"""A run's config again, one's own or someone else's: the same config, and nobody's code."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from processes import python

from mirage import ConfigError
from mirage.config import build_all, compose_config
from mirage.config.fingerprint import fingerprint

EXPERIMENTS = sorted(
    file.stem for file in (Path(__file__).parents[1] / "conf" / "experiment").glob("*.yaml")
)
# With parts, theory, a search, a tune; the others take half a minute together.
SOME = ("huber_vs_mse", "depth_advantage", "minimal_samples", "error_vs_width_and_samples")
EVIL = """# @package _global_
hydra:
  {place}
    _target_: {target}
"""


@pytest.mark.parametrize(
    "name",
    [name if name in SOME else pytest.param(name, marks=pytest.mark.slow) for name in EXPERIMENTS],
)
def test_an_experiment_is_built_and_the_config_of_its_run_is_it_again(name, tmp_path):
    config = compose_config([f"+experiment={name}", "seeds=3"])
    assert {part.name for part in build_all(config).values()} == {name}
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
    again = compose_config([f"saved={tmp_path}"])
    assert OmegaConf.to_container(again, resolve=True) == OmegaConf.to_container(
        config, resolve=True
    )
    assert fingerprint(again) == fingerprint(config)


def test_a_saved_config_is_changed_like_any_other(tmp_path):
    config = compose_config(["+experiment=huber_vs_mse", "loss.delta=2"])
    (tmp_path / "own.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
    changes = ["alpha=[5]", "theory=null", "loss=pseudo_huber", "loss.delta=3"]
    changed = compose_config([f"saved={tmp_path / 'own.yaml'}", *changes])
    plain = compose_config(["+experiment=huber_vs_mse", *changes])
    assert fingerprint(changed) == fingerprint(plain)
    (experiment,) = build_all(changed).values()
    assert experiment.theory is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "cannot be read: .*broken YAML"),
        ("", "holds no keys; expected the folder of a run"),
        ("a", "holds no keys"),
        ("sedes: 3", r"unknown key 'sedes' \(did you mean 'seeds'\?\)"),
        ("hydra: {callbacks: {a: {_target_: os.system}}}", "unknown key 'hydra'"),
        ("defaults: [{/theory: spectral}]", "unknown key 'defaults'"),
        ("target: {name: hermite, _target_: os.system}", "Key '_target_' not in"),
        ("loss: {name: os.system}", "loss"),
        ("plugins: [own.py]", r"not run unless you say so; expected plugins=\[FILE\]"),
        ("d: !!python/object/apply:os.system [touch /nothing]", "cannot be read"),
    ],
)
def test_a_saved_config_is_data(text, words, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        build_all(compose_config([f"saved={file}"]))
    assert len(str(caught.value).splitlines()) <= 2
    with pytest.raises(ConfigError, match="cannot be read"):
        compose_config([f"saved={tmp_path / 'nowhere'}"])


@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("callbacks:\n   own:", "os.system"),
        ("launcher:", "subprocess.run"),
        ("sweeper:", "hydra.utils.call"),
        ("callbacks:\n   own:", "${oc.env:HOME}"),
        ("callbacks:\n   own:", "logging.config.fileConfig"),
    ],
)
def test_hydra_calls_nothing_that_a_config_of_someone_else_names(place, target, tmp_path):
    (tmp_path / "experiment").mkdir()
    text = EVIL.format(place=place, target=target)
    (tmp_path / "experiment" / "evil.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"_target_=.*would run code that mirage does not know"):
        compose_config(["+experiment=evil"], config_dir=str(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "hydra: {job_logging: {handlers: {own: {(): os.system, command: touch x}}}}",
        "hydra: {job_logging: {handlers: {own: {class: own.Handler}}}}",
        "hydra: {job_logging: {handlers: {console: {stream: ext://own.stream}}}}",
    ],
)
def test_nor_does_logging(text, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{text}")
    with pytest.raises(ConfigError, match="would run code"):
        compose_config(["+experiment=evil"], config_dir=str(tmp_path))


@pytest.mark.slow
def test_code_runs_from_the_shell_where_the_user_names_it_alone(tmp_path):
    """A sweep with a foreign target, an experiment with foreign plugins, and one's own."""
    for folder in ("sweeps", "experiment"):
        (tmp_path / folder).mkdir()
    evil = (
        EVIL.format(place="callbacks:\n   own:", target="os.system") + "    command: touch was_run"
    )
    (tmp_path / "sweeps" / "evil.yaml").write_text(evil)
    (tmp_path / "own.py").write_text("open('was_run', 'w')\n")
    own = "# @package _global_\nplugins: [own.py]\n"
    (tmp_path / "experiment" / "own.yaml").write_text(own)
    for arguments in (
        ["-m", "+sweep=evil", "d=20"],
        ["--config-dir", ".", "+experiment=own"],
        ["--config-dir", ".", "--config-name", "own"],
    ):
        done = python("mirage", *arguments, cwd=tmp_path)
        assert done.returncode == 2, done.stdout
        assert len(done.stderr.strip().splitlines()) == 1
        assert not (tmp_path / "was_run").exists()
        assert not (tmp_path / "outputs").exists()
    small = ["d=20", "alpha=[4]", "seeds=2", "algorithm.steps=2", "plugins=[own.py]"]
    done = python("mirage", "--config-dir", ".", "+experiment=own", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "was_run").exists()


LAUNCHER = "defaults: [submitit_slurm, _self_]\nsetup: [module load cuda]\n"
HEADER = "# @package _global_\n"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("hydra: {launcher: {setup: [touch x]}}", "hydra.launcher.setup"),
        ("hydra: {launcher: {additional_parameters: {wrap: x}}}", "additional_parameters"),
        ('hydra: {launcher: {partition: "gpu\\ntouch x"}}', "hydra.launcher.partition"),
        ("hydra: {job: {env_set: {PYTHONPATH: x}}}", "hydra.job.env_set"),
        ("defaults: [override /hydra/launcher: mine]", "hydra.launcher.setup"),
        ('hydra: {searchpath: ["pkg://x"]}', "searchpath"),
    ],
)
def test_commands_for_jobs_are_those_of_the_command_line(text, where, tmp_path):
    """Not those of an experiment, which a user's own launcher does not let in either."""
    for name, content in {
        "experiment/evil": HEADER + text,
        "hydra/launcher/mine": LAUNCHER,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / f"{name}.yaml").write_text(content)
    for launcher in ("runtime=slurm", "hydra/launcher=mine"):
        if "defaults" in text and launcher == "hydra/launcher=mine":
            continue  # the same
        with pytest.raises(ConfigError, match=where):
            compose_config(["+experiment=evil", launcher], config_dir=str(tmp_path))


def test_commands_for_jobs_may_be_given_on_the_command_line(tmp_path):
    (tmp_path / "hydra" / "launcher").mkdir(parents=True)
    (tmp_path / "hydra" / "launcher" / "mine.yaml").write_text(LAUNCHER)
    compose_config(["hydra/launcher=mine"], config_dir=str(tmp_path))
    compose_config(["runtime=slurm", "hydra.launcher.setup=[module load cuda]"])
