"""What a nature model sees in a photograph, computed once for each of the last few."""

from hashlib import blake2b

import numpy as np
import torch
from jaxtyping import UInt8

from cinnema.core.devices import one_thread
from cinnema.media.pictures import resize_for_model, to_tensor
from cinnema.models.nature.kinds import SceneFeatures
from cinnema.models.nature.model import NatureModel

_KEPT = 8  # photographs, of some megabytes each


class Recognition:
    """The kind network with a memory: a photograph that is animated again is not looked at again.

    Args:
        model: The model, whose weights must not change afterwards.
    """

    def __init__(self, model: NatureModel) -> None:
        self._model = model
        self._kept: dict[bytes, SceneFeatures] = {}

    @one_thread()
    @torch.inference_mode()
    def __call__(self, pixels: UInt8[np.ndarray, "h w 3"]) -> SceneFeatures:
        """Return the features of a photograph, whose content decides whether it is known.

        Args:
            pixels: The photograph.
        """
        small = resize_for_model(pixels, self._model.config.kind_size)
        key = blake2b(small.tobytes(), digest_size=16).digest()
        features = self._kept.pop(key, None)
        if features is None:
            device = next(self._model.parameters()).device
            features = self._model.recognise(to_tensor(small)[None].to(device))
        self._kept[key] = features  # the last of a dict is the newest
        if len(self._kept) > _KEPT:
            self._kept.pop(next(iter(self._kept)), None)
        return features
