"""`cinnema import`: weights of other programs as weights files."""

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
    """Turn a folder of the 2021 paper's checkpoints into one weights file.

    The folder is that of one data set, with stage1 and stage2 (or stage2_control) as published.
    Nothing in the files is run; optimiser states are left out, spectral norm is folded in.
    """

    layout: Annotated[Literal["official"], tyro.conf.Positional, tyro.conf.arg(metavar="official")]
    """How the folder is laid out; the paper's own way is the only one there is."""
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The data set's folder, or its stage2 or stage2_control."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="NAME.safetensors")]
    """The weights file to write."""
    name: str | None = None
    """What the weights are called; the output's name unless given."""
    control: bool = False
    """Of two stages 2, take the one that hears where the robot's arm is to be."""
    log_det: Literal["exact", "published"] = "exact"
    """Likelihoods: exact, or published for those of the released code, whose leaky ReLU leaves
    log(0.9) out for each negative entry. Videos are the same."""
    overwrite: bool = False
    """Replace a file that is there already."""

    def run(self) -> int:
        """Read, check and write, and print the path of the weights file."""
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
            raise UserError(f"{self.folder}: its parts do not fit each other: {error}") from error
