"""The recipe of the shipped `landscape` weights."""

from cinnema.models.nature.model import NatureModelConfig
from cinnema.models.nature.motion import KindDynamics
from cinnema.training.dynamics import DynamicsSearch
from cinnema.training.nature_recipe import NatureRecipe


def landscape() -> NatureRecipe:
    """Return the recipe: sky, water, fire, plants, rain and snow; 128 px, 16 steps."""
    return NatureRecipe(
        model=NatureModelConfig(
            name="landscape",
            # As the search has found them; what it begins with when it is run again.
            dynamics=(
                KindDynamics(
                    period=96.0, jitter=0.15, churn=0.15, correlation=12.0, rate=8.0
                ),
                KindDynamics(
                    gain=3.0, period=12.0, jitter=0.25, churn=0.5, correlation=5.0, memory=0.6,
                    upright=0.4, rate=14.0,
                ),
                KindDynamics(
                    gain=2.0, period=16.0, jitter=0.25, churn=0.25, correlation=5.0, flicker=0.05,
                    rate=25.0,
                ),
                KindDynamics(gain=0.0, churn=1.3, correlation=12.0, rate=14.0),
                KindDynamics(
                    gain=4.0, period=16.0, jitter=0.25, churn=1.0, correlation=3.0, rate=12.0
                ),
            ),
        ),
        search=DynamicsSearch(options={
            "sky": {
                "gain": (1.15,), "period": (64.0, 48.0), "jitter": (0.2,), "churn": (0.15, 0.3),
                "correlation": (12.0,),
            },
            "water": {
                "churn": (0.25, 0.8, 1.0), "correlation": (3.0, 8.0), "gain": (1.0, 3.0),
                "period": (12.0, 24.0), "upright": (0.4,), "memory": (0.6, 0.9),
                "jitter": (0.0, 0.4), "flicker": (0.05,),
            },
            "fire": {
                "churn": (0.25, 1.0), "flicker": (0.0, 0.15), "correlation": (3.0, 8.0),
                "gain": (1.0, 3.0), "period": (8.0, 24.0), "upright": (1.5,), "memory": (0.6,),
            },
            "plants": {
                "churn": (0.5, 1.0, 1.3), "correlation": (8.0, 12.0, 16.0, 24.0),
                "memory": (0.5, 0.9), "period": (16.0, 32.0), "gain": (2.0, 0.0),
                "flicker": (0.03,),
            },
            "falling": {
                "churn": (0.25, 1.0), "correlation": (3.0,), "gain": (1.0, 4.0),
                "period": (8.0, 24.0),
            },
        }),
    )  # fmt: skip
