"""Overrides from the shell, made ready for Hydra."""

import re
from collections.abc import Sequence

from mirage.config.saved import restore
from mirage.config.schema import OPTIONAL_GROUPS
from mirage.experiments.experiment import SAMPLES

# Keys whose value is a mapping that an override replaces, where Hydra would merge the two.
MAPPING_KEYS = ("tune.settings", "tune.within")
# Keys whose value is a formula, quoted for Hydra's grammar where the user did not.
FORMULA_KEYS = ("target.expr", "target.polynomial", "target.link", "loss.transform")


def prepare(overrides: Sequence[str]) -> list[str]:
    """Overrides as Hydra wants them.

    A saved config becomes an experiment. Formulas are quoted; of `alpha`, `exponent` and `n` the
    one that is given takes the place of the one in the config, a search that of them all;
    `search.at_least` that of `at_most`; the settings and limits of a `tune` are replaced as a
    whole.
    """
    overrides = restore(overrides)
    # Any setting may be varied, and be another in a part: added where the config has it not yet.
    ready = [re.sub(r"^(vary|parts)\.", r"++\1.", _quoted(override)) for override in overrides]
    dropped = [f"{group}=null" for group in OPTIONAL_GROUPS if f"{group}=null" in ready]
    ready = [f"~{o.removesuffix('=null')}" if o in dropped else o for o in ready]
    for key in MAPPING_KEYS:
        place = next((i for i, o in enumerate(ready) if o.startswith(f"{key}={{")), None)
        if place is not None:
            ready.insert(place, f"{key}=null")
    # An experiment's own settings of the group stay behind: the name says that it is not chosen.
    added = [f"++{o.removesuffix('=null')}.name=null" for o in dropped]
    keys = [o.split("=")[0].lstrip("+") for o in ready]
    if "search.at_least" in keys and "search.at_most" not in keys:
        added.append("search.at_most=null")
    if "search" in keys:
        added += [f"{kind}=null" for kind in SAMPLES if kind not in keys]
    given = {m[1] for o in ready if (m := re.match(r"\+{0,2}(alpha|exponent|n)=", o))}
    nulled = {
        o.split("=")[0].lstrip("+") for o in [*ready, *added] if re.fullmatch(r"\+{0,2}\w+=null", o)
    }
    if given - nulled:
        added += [f"{kind}=null" for kind in SAMPLES if kind not in given]
    # Next to an override of the user's: argparse takes overrides in one piece only.
    first = next((i for i, o in enumerate(ready) if re.match(r"[+~\w]", o) and "=" in o), -1)
    return [*ready[: first + 1], *added, *ready[first + 1 :]]


def _quoted(override: str) -> str:
    match = re.fullmatch(r"(\+{0,2}([\w.]+))=(.+)", override, re.DOTALL)
    if not match or match[2] not in FORMULA_KEYS:
        return override
    key, value = match[1], match[3].strip()
    if value[0] in "\"'" or re.match(r"(choice|range|interval|glob|sort|shuffle)\(", value):
        return override
    # Hydra takes a backslash as an escape only where a quote follows.
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', value)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f'{key}="{escaped}"'
