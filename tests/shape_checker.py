"""The run-time checker behind jaxtyping's shapes."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int passes for a float, as in mypy
