"""The motion of a video as a residual: the part of z that x0 and the control do not determine."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from cinnema.core.devices import one_thread
from cinnema.core.errors import UserError
from cinnema.models.base import VideoModel
from cinnema.models.control import DRIFT, Control, as_drift, resolve_control
from cinnema.synthesis.path import has_path, transfer_path
from cinnema.synthesis.query import Query, batch_of
from cinnema.synthesis.residual import Residual

Keep: TypeAlias = Literal["path", "residual"]
"""The transferred part of a motion: the path of a robot's hand and nu, or nu alone."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Motion(Residual):
    """The motion of a query video, for other pictures and other controls.

    Attributes:
        z: Latent of the clip, the mean of q(z | X).
        nu: The residual: T^-1(z; x0, eta), or T^-1(z; x0) if eta was not needed.
        eta: The control of the clip; None if it was not needed.
        query: The clip.
        summary: The clip and its control as one line of text.
    """

    z: Float[Tensor, " z"]
    query: Query
    summary: str


@one_thread()
@torch.inference_mode()
def read_motion(
    model: VideoModel,
    query: Query,
    *,
    steered: bool = False,
    eta: Control | None = None,
    weights: str = "",
) -> Motion:
    """Compute the residual of a clip.

        nu~ = T^-1(q(X~); x~0, eta~)

    Args:
        model: The model, in evaluation mode.
        query: The clip.
        steered: Whether nu will be used with another control; eta~ is then estimated from the
            video if it is not given.
        eta: The control of the clip; required by a model that needs one and cannot estimate it.
        weights: SHA-256 of the model's file.

    Raises:
        UserError: A control is given or needed, and the model takes none; or it is needed and
            cannot be estimated.
    """
    video = batch_of(query, model)
    own, how = _own_control(model, query, video, steered=steered, eta=eta)
    z = model.encode(video)
    c = model.condition(video[:, 0], None if own is None else own[None].to(video.device))
    nu, _ = model.to_residual(z, c)
    # Tensors of inference mode cannot take part in autograd; copies made outside can.
    with torch.inference_mode(mode=False):
        return Motion(
            nu=nu[0].float().cpu().clone(),
            z=z[0].float().cpu().clone(),
            eta=None if own is None else own.clone(),
            weights=weights,
            about={"query": {**query.about, **how}},
            query=query,
            summary=query.summary + _summary(how),
        )


def choose_keep(model: VideoModel, keep: Keep | None, *, steered: bool) -> Keep:
    """Return which part of a motion is transferred.

    Args:
        model: The model that animates the picture.
        keep: The requested part. Defaults to "path" if the model has an end point as control and
            predicts the path there, unless another control is given, and else to "residual".
        steered: Whether another control is given.

    Raises:
        UserError: "path" was requested, but the model predicts none or an end point is given.
    """
    if keep != "path":
        return keep or ("path" if not steered and has_path(model) else "residual")
    if steered:
        raise UserError(
            "keep: a hand cannot both keep its path and end elsewhere: leave out the end point "
            '(eta, --end-point), or keep the "residual"'
        )
    if not has_path(model):
        raise UserError(
            f"keep: the model {model.name} has no end point whose path it could keep, as weights "
            'of a robot have: keep the "residual"'
        )
    return keep


def keep_path(model: VideoModel, motion: Motion, x0: Float[Tensor, "3 h w"]) -> Residual:
    """Return the residual and control with which a hand in a picture follows that of a query.

    Args:
        model: A model for which `has_path` holds.
        motion: Motion of the query, with or without its control.
        x0: The picture in [-1, 1], at the model's size.

    Returns:
        nu and eta, see `transfer_path`. `about` contains two displacements in the control's unit:
        that of the query, and that in the picture, within the range of the control.
    """
    device = next(model.parameters()).device
    own = None if motion.eta is None else motion.eta[None].to(device)
    z, query = motion.z[None].to(device), motion.query.clip[:1].to(device)
    found = transfer_path(model, query, z, x0[None].to(device), eta=own)
    displacements = {"path": found.displacement, "path_kept": found.kept}
    rounded = {name: [round(v, 4) for v in d[0].tolist()] for name, d in displacements.items()}
    return Residual(
        nu=found.nu[0].cpu(),
        eta=found.eta[0].cpu(),
        weights=motion.weights,
        about={**motion.about, "keep": "path", **rounded},
    )


def _own_control(
    model: VideoModel, query: Query, video: Tensor, *, steered: bool, eta: Control | None
) -> tuple[Tensor | None, dict[str, Any]]:
    """Return eta~ on the CPU, and its origin as JSON values."""
    spec, size = model.control, query.x0.shape[:2]
    if eta is not None:
        own = resolve_control(eta, spec, model=model.name, size=size)
        return own, {"eta": own.tolist(), "eta_is": "given"}
    if not steered and (spec is None or spec.optional):
        return None, {}
    if spec is not None and not spec.optional and not steered:
        raise UserError(
            f"the model {model.name} needs the {spec.name} of the query, too (query_eta, "
            f"--query-end-point): give it, {spec.describe()}"
        )
    rows, known = model.read_control(video)
    own = rows[0].float().cpu()
    is_drift = spec is not None and spec.name == DRIFT
    about: dict[str, Any] = {
        "eta": own.tolist(),
        "eta_is": "estimated from its optical flow" if is_drift else "estimated from its z",
        "eta_known": round(float(known[0]), 3),
    }
    if spec is not None and is_drift:
        drift = as_drift(own, spec, size=size)
        about |= {
            "direction": round(drift.direction or 0.0, 1),
            "speed": round(drift.speed or 0.0, 3),
        }
    return own, about


def _summary(how: dict[str, Any]) -> str:
    """Return the text after the summary of the query: the drift, if it was estimated."""
    if "direction" not in how:
        return ""
    unsure = "" if how["eta_known"] > 0.5 else ", which is unsure: not everything moves that way"
    return f"; it drifts to {how['direction']:g} degrees at speed {how['speed']:g}{unsure}"
