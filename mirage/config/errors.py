"""What a user reads when a config is wrong."""

import difflib
import re
from collections.abc import Iterable

import yaml


class ConfigError(ValueError):
    """A mistake in a config, in one or two lines: the key, the value, what is accepted."""


def explain(error: BaseException, keys: Iterable[str]) -> str:
    """An error of Hydra, OmegaConf or YAML in one or two lines that a user can act on.

    `keys` are those of the top level.
    """
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    for cause in chain:
        if isinstance(cause, yaml.YAMLError):
            mark = getattr(cause, "problem_mark", None)
            where = f"{mark.name}, line {mark.line + 1}" if mark else "a config file"
            return f"{where}: broken YAML: {getattr(cause, 'problem', None) or first_line(cause)}"
    text = "\n".join(str(cause) for cause in chain)
    if unknown := re.search(r"Could not override '([\w./@+]+)'", text):
        key = unknown[1]
        head = key.split(".")[0]
        if head in keys:
            return f"unknown key {key!r}: no such setting in the chosen {head}"
        return f"unknown key {key!r}{suggest(head, keys)}"
    if missing := re.search(r"Could not delete '(\w+)'", text):
        key = missing[1]
        return f"{key}=null: there is no {key} to leave out; expected the same without it"
    if wrong := re.search(r"Error merging override (.+)", text):
        kind = re.search(r"could not be converted to (\w+)|is not a valid (\w+)", text)
        words = {"Float": "a number", "Integer": "a whole number", "bool": "true or false"}
        name = (kind[1] or kind[2]) if kind else ""
        expected = words.get(name, f"a {name.lower()}") if name else ""
        if "is not a ListConfig" in text:
            return f"{wrong[1]}: expected a list, [...]"
        return f"{wrong[1]}: " + (f"expected {expected}" if name else first_line(chain[-1]))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    drop = ("full_key:", "object_type=", "reference_type=", "See https", "To append")
    return " ".join([line for line in lines if not line.startswith(drop)][:3])[:400]


def suggest(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` where a known word is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
