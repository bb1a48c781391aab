"""The motion of a video as a residual: what is left of z when x0 and the control are taken out."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from cinnema.core.devices import one_thread
from cinnema.core.errors import UserError
from cinnema.models.base import VideoModel
from cinnema.models.control import DRIFT, Control, as_drift, resolve_control
from cinnema.synthesis.draws import Draw
from cinnema.synthesis.path import carry_way, has_way
from cinnema.synthesis.queries import Query, batch_of

Keep: TypeAlias = Literal["way", "residual"]
"""What of a motion another picture is given: the way of a robot's hand and nu, or nu alone"""


@dataclass(frozen=True, eq=False)
class Motion:
    """The motion of a query, ready for other pictures and other controls.

    Attributes:
        query: The clip it is of.
        z: Its latent, the mean of q(z | X).
        nu: The residual: z without x0, and without eta where it was known.
        eta: The control that was taken out; None if none was.
        about: What there is to tell of it, as JSON values.
        said: The same as a sentence.
    """

    query: Query
    z: Float[Tensor, " z"]
    nu: Float[Tensor, " z"]
    eta: Float[Tensor, " e"] | None
    about: dict[str, Any]
    said: str


@one_thread()
@torch.inference_mode()
def read_motion(
    model: VideoModel, query: Query, *, steered: bool = False, eta: Control | None = None
) -> Motion:
    """Take the first frame and the control out of a clip's motion.

        nu~ = T^-1(q(X~); x~0, eta~)

    Args:
        model: In evaluation mode.
        query: The clip.
        steered: Whether another control is to be given to nu: then eta~ is read off the video if
            it is not given.
        eta: The control of the clip; a model that needs one and cannot read it off must be told.

    Raises:
        UserError: The model takes no control; the clip's own is needed and cannot be read off it.
    """
    video = batch_of(query, model)
    own, how = _own_control(model, query, video, steered=steered, eta=eta)
    z = model.encode(video)
    c = model.condition(video[:, 0], None if own is None else own[None].to(video.device))
    nu, _ = model.to_residual(z, c)
    about = {"query": {**query.about, **how}}
    # Tensors made in inference mode cannot be trained on; copies made outside can.
    with torch.inference_mode(mode=False):
        z_row, nu_row = (x[0].float().cpu().clone() for x in (z, nu))
        eta_row = None if own is None else own.clone()
        return Motion(query, z_row, nu_row, eta_row, about, query.said + _said(how))


def what_is_kept(model: VideoModel, keep: Keep | None, *, steered: bool) -> Keep:
    """Return what of a motion another picture is given.

    Args:
        model: That moves it.
        keep: What was asked for. None: the way where the model can be told where a hand ends and
            tells its path, and no other end is asked for; else the residual.
        steered: Whether another control is asked for.

    Raises:
        UserError: The way is asked for, and the model has none, or is to end elsewhere.
    """
    if keep != "way":
        return keep or ("way" if not steered and has_way(model) else "residual")
    if steered:
        raise UserError(
            "keep: a hand cannot both keep its way and end elsewhere: leave out the end point "
            '(eta, --end-point), or keep the "residual"'
        )
    if not has_way(model):
        raise UserError(
            f"keep: the model {model.name} has no end point whose way it could tell, as weights "
            'of a robot have: keep the "residual"'
        )
    return keep


def carry(model: VideoModel, motion: Motion, x0: Float[Tensor, "3 h w"]) -> Draw:
    """Return the residual and the control that give a picture the way of a query's hand.

    Args:
        model: Of which `has_way` holds.
        motion: Of the query. Whether its control was taken out does not matter.
        x0: The picture in [-1, 1], at the model's size.

    Returns:
        nu and eta, see `carry_way`; both ways in the control's unit, that of the query and what
        its range has left of it.
    """
    device = next(model.parameters()).device
    own = None if motion.eta is None else motion.eta[None].to(device)
    z, query = motion.z[None].to(device), motion.query.clip[:1].to(device)
    found = carry_way(model, query, z, x0[None].to(device), eta=own)
    ways = {"way": found.way, "way_kept": found.kept}
    told = {name: [round(v, 4) for v in way[0].tolist()] for name, way in ways.items()}
    about = {**motion.about, "keep": "way", **told}
    return Draw(found.nu[0].cpu(), found.eta[0].cpu(), None, 0, about)


def _own_control(
    model: VideoModel, query: Query, video: Tensor, *, steered: bool, eta: Control | None
) -> tuple[Tensor | None, dict[str, Any]]:
    """Return eta~ on the CPU, and what there is to tell of it."""
    spec, size = model.control, query.x0.shape[:2]
    if eta is not None:
        own = resolve_control(eta, spec, model=model.name, size=size)
        return own, {"eta": own.tolist(), "eta_is": "given"}
    if not steered and (spec is None or spec.optional):
        return None, {}
    if spec is not None and not spec.optional and not steered:
        raise UserError(
            f"the model {model.name} must be told the {spec.name} of the query, too "
            f"(query_eta, --query-end-point): give it, {spec.describe()}"
        )
    rows, known = model.read_control(video)
    own = rows[0].float().cpu()
    is_drift = spec is not None and spec.name == DRIFT
    about: dict[str, Any] = {
        "eta": own.tolist(),
        "eta_is": "estimated from its optical flow" if is_drift else "read off its z",
        "eta_known": round(float(known[0]), 3),
    }
    if spec is not None and is_drift:
        drift = as_drift(own, spec, size=size)
        about |= {
            "direction": round(drift.direction or 0.0, 1),
            "speed": round(drift.speed or 0.0, 3),
        }
    return own, about


def _said(how: dict[str, Any]) -> str:
    """What there is to tell of the query's control, after the rest of a sentence."""
    if "direction" not in how:
        return ""
    sure = "" if how["eta_known"] > 0.5 else ", which is unsure: it does not all move one way"
    return f"; it drifts to {how['direction']:g} degrees at speed {how['speed']:g}{sure}"
