"""beartype as jaxtyping's import hook wants it: by name, and with int accepted for float."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
