import pytest
import torch

from cinnema.core.config import config_from_dict, config_to_dict
from cinnema.core.errors import UserError
from cinnema.models.flow.conditioning import Conditioner, ConditionerConfig, pool_features


def _conditioner(*, dropout: float = 0.5) -> Conditioner:
    torch.manual_seed(0)
    return Conditioner(
        ConditionerConfig(feature_dim=16, width=8, condition_dim=5, dropout=dropout)
    ).eval()


@pytest.mark.parametrize("size", [4, 8, 16, 17])
def test_every_picture_gets_a_condition(size: int) -> None:
    assert _conditioner()(torch.randn(3, 16, size, size)).shape == (3, 5)


def test_pooled_features_give_the_same_condition() -> None:
    joint = torch.randn(2, 16, 16, 16)
    conditioner = _conditioner()
    assert torch.equal(conditioner(pool_features(joint)), conditioner(joint))


def test_a_condition_does_not_depend_on_the_batch() -> None:
    joint = torch.randn(4, 16, 16, 16)
    conditioner = _conditioner()
    torch.testing.assert_close(conditioner(joint[1:2]), conditioner(joint)[1:2])


def test_features_in_half_precision_are_welcome() -> None:
    joint = torch.randn(2, 16, 8, 8)
    conditioner = _conditioner()
    for dtype in (torch.float16, torch.bfloat16):
        c = conditioner(joint.to(dtype))
        assert c.dtype == torch.float32
        torch.testing.assert_close(c, conditioner(joint), atol=0.05, rtol=0.05)


def test_dropout_acts_in_training_only() -> None:
    joint = torch.randn(2, 16, 8, 8)
    conditioner = _conditioner()
    assert torch.equal(conditioner(joint), conditioner(joint))
    conditioner.train()
    assert not torch.equal(conditioner(joint), conditioner(joint))


def test_features_of_another_model_are_refused() -> None:
    with pytest.raises(UserError, match="takes 16 channels, got 15"):
        _conditioner()(torch.zeros(1, 15, 8, 8))
    with pytest.raises(UserError, match="at least 4x4 features, got 3x3"):
        _conditioner()(torch.zeros(1, 16, 3, 3))


def test_the_config_survives_json() -> None:
    config = ConditionerConfig(width=16, dropout=0.2)
    assert config_from_dict(ConditionerConfig, config_to_dict(config)) == config
