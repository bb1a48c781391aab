"""`cinnema import`: converts checkpoints of other programs to weights files."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from cinnema.cli.console import DONE
from cinnema.core.errors import UserError

if TYPE_CHECKING:
    from cinnema.paper.model import PaperModel


@dataclass(frozen=True, kw_only=True)
class Import:
    """Convert a folder of the 2021 paper's checkpoints to one weights file.

    The folder is that of one data set, with stage1 and stage2 (or stage2_control) as published.
    No code in the files is run. Optimiser states are left out; spectral norms are folded into the
    weights.
    """

    layout: Annotated[Literal["official"], tyro.conf.Positional, tyro.conf.arg(metavar="official")]
    """Layout of the folder; that of the paper's checkpoints is the only one."""
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder of one data set, or its stage2 or stage2_control."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="NAME.safetensors")]
    """The weights file to write."""
    name: str | None = None
    """Name of the weights; by default that of the output file."""
    control: bool = False
    """Use the stage 2 that is conditioned on the robot's end point, if there are two."""
    log_det: Literal["exact", "published"] = "exact"
    """How likelihoods are computed: exact, or published as in the released code, whose leaky ReLU
    omits log(0.9) for each negative entry. Videos are the same."""
    overwrite: bool = False
    """Replace an existing file."""

    def run(self) -> int:
        """Convert the checkpoints, and print the path of the weights file."""
        if self.output.exists() and not self.overwrite:
            raise UserError(
                f"{self.output} exists already: choose another name or give --overwrite"
            )
        from cinnema.models.files import save_model

        save_model(self.output, self._read(), overwrite=self.overwrite)
        print(self.output, flush=True)
        return DONE

    def _read(self) -> "PaperModel":
        from cinnema.paper.model import PaperModel
        from cinnema.paper.official import read_official

        networks = read_official(self.folder, control=self.control, log_det=self.log_det)
        try:
            return PaperModel.of_networks(
                self.name or self.output.stem,
                decoder=networks.decoder,
                video_encoder=networks.video_encoder,
                image_encoder=networks.image_encoder,
                flow=networks.flow,
            )
        except UserError as error:
            raise UserError(f"{self.folder}: its parts do not fit together: {error}") from error
