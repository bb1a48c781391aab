"""Every test runs under the shape checker, and on one thread, as the workers share the cores."""

import torch
from jaxtyping import install_import_hook

install_import_hook("cinnema", "shape_checker.check")  # before the first import of cinnema

torch.set_num_threads(1)
