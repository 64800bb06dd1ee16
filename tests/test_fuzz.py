"""The command line against anything: a clear line and exit code 2, or a config that is built."""

import contextlib
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage.command_line import check
from mirage.config import ConfigError
from mirage.config.overrides import prepare
from mirage.config.plugins import import_plugins, plugins_in
from mirage.config.schema import KEYS, OPTION_GROUPS, register

NAMES = [name for base in OPTION_GROUPS.values() for name in base.options()]
SETTINGS = [
    f"{group}.{setting}"
    for group, base in OPTION_GROUPS.items()
    for option in base.options().values()
    for setting in option.settings()
]
keys = st.sampled_from(
    [*KEYS, *SETTINGS, "experiment", "sweep", "compare.loss", "vary.loss.delta", "parts.a.d",
     "hydra.run.dir", "target.expr", "a.b.c", "", "_target_", "loss._target_", "d.e"]
)  # fmt: skip
values = st.one_of(
    st.sampled_from(
        [*NAMES, "null", "true", "[]", "{}", "[1,2", "{a:1}", "???", "${d}", "${", "nan", "-1", "0",
         "1e400", "inf", "[1,[2]]", "'x", '"', "os.system", "[null]", "1,2", "h1**", "../x", "é"]
    ),
    st.integers(-3, 10**12).map(str),
    st.floats(allow_nan=True).map(repr),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
)  # fmt: skip
overrides = st.one_of(
    st.builds("{}{}={}".format, st.sampled_from(["", "", "", "+", "++", "~"]), keys, values),
    st.builds("{}{}".format, st.sampled_from(["", "~", "--", "+"]), keys),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12),
)


def starts(arguments):
    """All that happens before the first folder is made."""
    ready = prepare(arguments)
    import_plugins(plugins_in(ready))
    register()
    check(ready)


@pytest.mark.slow
@settings(max_examples=100)
@given(st.lists(overrides, min_size=1, max_size=3))
def test_any_command_line_is_built_or_refused_in_one_or_two_lines(arguments):
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            starts(arguments)
        except ConfigError as error:
            words = str(error)
        except SystemExit as error:
            raise AssertionError(f"{arguments} left with {error.code}") from error
        else:
            return
    assert 0 < len(words.splitlines()) <= 2
    assert "Traceback" not in words
    assert len(words) < 2000
