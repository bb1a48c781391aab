"""The networks that metrics need: where their files are, and whether they are the published ones.

Nothing is downloaded: a file is in an installed package or in a folder of the user.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from cinnema.backbones.packaged_weights import (
    I3D_KINETICS,
    LPIPS_ALEX,
    LPIPS_VGG,
    PackagedFile,
)
from cinnema.core.errors import UserError
from cinnema.core.files import sha256_of

ENVIRONMENT = "CINNEMA_BACKBONES"
"""Environment variable of the user's folder, if no option names it."""

BackboneName = Literal["i3d", "vgg", "alex", "inception", "dti3d_16", "dti3d_32"]
State = Literal["found", "missing", "another"]


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network that metrics need.

    Attributes:
        name: Short name.
        title: Name for people.
        needed_by: The metrics that need it.
        sha256: Known hashes of its file: all digits, or the first ones if no more are published;
            empty if none is published.
        package: Its file in a pip package, if there is one.
        files: Names of its file in the user's folder.
        origin: Where a user gets that file.
    """

    name: BackboneName
    title: str
    needed_by: tuple[str, ...]
    sha256: tuple[str, ...] = ()
    package: PackagedFile | None = None
    files: tuple[str, ...] = ()
    origin: str = ""

    @property
    def how_to_get(self) -> str:
        """How to get the file, as one clause."""
        if self.package is not None:
            return self.package.command
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
        needed_by=("g", "KVD", "FVD", "coverage", "nearest training clip", "DIV-I3D"),
        sha256=("af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",),
        package=I3D_KINETICS,
    ),
    Backbone(
        name="vgg",
        title="LPIPS with VGG16",
        needed_by=("LPIPS (VGG16)", "best of K", "DIV-VGG"),
        sha256=("2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",),
        package=LPIPS_VGG,
    ),
    Backbone(
        name="alex",
        title="LPIPS with AlexNet",
        needed_by=("LPIPS (AlexNet)",),
        sha256=("443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",),
        package=LPIPS_ALEX,
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
    """The file of a backbone on this machine.

    Attributes:
        backbone: The backbone.
        path: Its file; None if it is missing.
        sha256: SHA-256 of the file, 64 hexadecimal digits.
        state: "found"; "missing"; or "another", if the file's hash is not a known one.
    """

    backbone: Backbone
    path: Path | None
    sha256: str = ""
    state: State = "missing"


def find_backbones(folder: Path | None = None) -> dict[BackboneName, Found]:
    """Return what is found of each backbone.

    Args:
        folder: Folder of the user's files; if None, the one in the environment variable
            CINNEMA_BACKBONES, if that is set.

    Raises:
        UserError: It is not a folder.
    """
    folder = _folder(folder, os.environ)
    return {backbone.name: _find(backbone, folder) for backbone in BACKBONES}


def _folder(folder: Path | None, environment: Mapping[str, str]) -> Path | None:
    named = "--backbones"
    if folder is None and environment.get(ENVIRONMENT):
        folder, named = Path(environment[ENVIRONMENT]), ENVIRONMENT
    if folder is not None and not folder.is_dir():
        raise UserError(f"{named}: {folder} is not a folder: name one with the networks' files")
    return folder


def _find(backbone: Backbone, folder: Path | None) -> Found:
    path = _in_folder(backbone.files, folder) or _in_package(backbone)
    if path is None:
        return Found(backbone=backbone, path=None)
    sha256 = _cached_sha256(path, path.stat().st_mtime_ns)
    known = backbone.sha256
    # A safetensors file is a copy in another format, whose hash is not published.
    is_other = bool(known) and path.suffix != ".safetensors" and not sha256.startswith(tuple(known))
    return Found(
        backbone=backbone, path=path, sha256=sha256, state="another" if is_other else "found"
    )


def _in_folder(names: Sequence[str], folder: Path | None) -> Path | None:
    if folder is None:
        return None
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _in_package(backbone: Backbone) -> Path | None:
    with suppress(UserError):  # the package is not installed
        return None if backbone.package is None else backbone.package.find()
    return None


@cache
def _cached_sha256(path: Path, _modified: int) -> str:
    return sha256_of(path)
