"""Pages made from the package: one an experiment, the API from docstrings."""

import inspect
import re
from pathlib import Path

import mkdocs_gen_files
import yaml

from mirage import figures
from mirage.folders import folder

MODULES = {
    "Running": ["mirage.experiments", "mirage.config"],
    "Targets": ["mirage.targets"],
    "Losses and activations": ["mirage.losses", "mirage.activations"],
    "Algorithms": ["mirage.algorithms", "mirage.network"],
    "Designs and inputs": ["mirage.designs", "mirage.inputs"],
    "Measures": ["mirage.measures"],
    "Channels": ["mirage.channels.registry", "mirage.channels.channel"],
    "Theory": [
        "mirage.theory.spectral",
        "mirage.theory.state_evolution",
        "mirage.theory.bayes_optimal",
        "mirage.theory.exponents",
        "mirage.theory.scaling_laws",
        "mirage.theory.order_parameters",
        "mirage.theory.full_batch",
        "mirage.theory.giant_step",
        "mirage.theory.lazy",
    ],
}


EXPECTED = yaml.safe_load((Path(__file__).parent / "expected.yaml").read_text())


def words(file: Path) -> str:
    """What the head of an experiment's file says."""
    lines = [re.sub(r"^# ?", "", one) for one in file.read_text().splitlines() if one[:1] == "#"]
    text = " ".join(one for one in lines if not one.startswith("@package"))
    return text.split("python -m mirage")[0].strip()


def experiment(file: Path) -> str:
    """What it asks and its source, the command, the figure, what to expect, its config."""
    text, name = file.read_text(), file.stem
    shown = yaml.safe_load(text).get("figure", "recovery")
    caption = " ".join((inspect.getdoc(figures.FIGURES[shown]) or "").split())
    image = f"![{name}](../{name}.png)\n\n" if Path("docs", f"{name}.png").exists() else ""
    body = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    return (
        f"# {name}\n\n{words(file)}\n\n```bash\npython -m mirage +experiment={name}\n```\n\n"
        f"{image}**The figure.** {caption}\n\n**What to expect.** {EXPECTED[name].strip()}\n\n"
        "Anything can be changed from the shell: `d=[200,500]`, `seeds=20`, `loss=mse`. The config:"
        f"\n\n```yaml\n{body.strip()}\n```\n"
    )


files = sorted((folder("conf") / "experiment").glob("*.yaml"))
for file in files:
    with mkdocs_gen_files.open(f"experiments/{file.stem}.md", "w") as page:
        page.write(experiment(file))
with mkdocs_gen_files.open("experiments/index.md", "w") as page:
    page.write(
        "# Experiments\n\nEach is one command, `python -m mirage +experiment=NAME`; its defaults "
        "are for two cores.\n\n| NAME | |\n|---|---|\n"
    )
    for file in files:
        about = words(file).replace("|", "\\|")
        page.write(f"| [{file.stem}]({file.stem}.md) | {about} |\n")
with mkdocs_gen_files.open("api.md", "w") as page:
    page.write("# API\n\nWhat users may rely on, from the docstrings.\n")
    for title, modules in MODULES.items():
        page.write(f"\n# {title}\n\n" + "\n".join(f"::: {module}\n" for module in modules))
