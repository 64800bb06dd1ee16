"""Pages made from the package: one section an experiment, the API from docstrings."""

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


def experiment(file: Path) -> str:
    """What the head of its file says, the command, the figure and what it shows, the config."""
    text = file.read_text()
    comment = [re.sub(r"^# ?", "", line) for line in text.splitlines() if line.startswith("#")]
    words = " ".join(line for line in comment if not line.startswith("@package"))
    words = words.split("python -m mirage")[0].strip()
    name = file.stem
    shown = yaml.safe_load(text).get("figure", "recovery")
    caption = " ".join((inspect.getdoc(figures.FIGURES[shown]) or "").split())
    image = f"![{name}]({name}.png)\n\n" if Path("docs", f"{name}.png").exists() else ""
    body = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    return (
        f"## `{name}`\n\n{words}\n\n```bash\npython -m mirage +experiment={name}\n```\n\n{image}"
        f'*The figure.* {caption}\n\n??? note "Its config"\n\n'
        + "\n".join(f"    {line}" for line in ["```yaml", *body.strip().splitlines(), "```"])
        + "\n"
    )


files = sorted((folder("conf") / "experiment").glob("*.yaml"))
with mkdocs_gen_files.open("experiments.md", "w") as page:
    page.write(
        "# Experiments\n\nEach is one command; its defaults are for two cores, and anything can be "
        "changed from the shell: `d=[200,500]`, `seeds=20`, `loss=mse`.\n\n"
    )
    page.write("\n".join(experiment(file) for file in files))
with mkdocs_gen_files.open("api.md", "w") as page:
    page.write("# API\n\nWhat users may rely on, from the docstrings.\n")
    for title, modules in MODULES.items():
        page.write(f"\n# {title}\n\n" + "\n".join(f"::: {module}\n" for module in modules))
