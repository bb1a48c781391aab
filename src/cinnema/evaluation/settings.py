"""What of an evaluation a user chooses."""

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from cinnema.data.records import Split
from cinnema.evaluation.protocols import ProtocolName


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class EvaluationSettings:
    """What is measured, and how much of it.

    Attributes:
        protocol: "aligned", or "paper" for the published pairing, lengths and counts.
        split: Which side of the split.
        samples: K, futures of each start by contestants that draw; None is 5 by the paper's
            protocol, else 2.
        clips: At most so many starts; all, or what the paper has, if None.
        stride: Every which frame follows.
        seed: Of every draw.
        batch_size: Starts that the model sees at once. One by one, any number of processes finds
            the same to the last digits; more are faster on a graphics card, and change pixels, and
            so numbers, by rounding.
    """

    protocol: ProtocolName = "aligned"
    split: Split = "test"
    samples: int | None = Field(default=None, ge=1)
    clips: int | None = Field(default=None, ge=2)
    stride: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)
    batch_size: int = Field(default=1, ge=1)

    @property
    def num_samples(self) -> int:
        """K."""
        return self.samples or (5 if self.protocol == "paper" else 2)
