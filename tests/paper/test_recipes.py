"""The paper's recipes against its tables; and a tiny one of each, from clips to scores."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cinnema.backbones.lpips import LPIPS
from cinnema.cli.main import main
from cinnema.core.config import config_from_dict, config_to_dict
from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedDataset
from cinnema.media.pictures import to_tensor
from cinnema.models.base import VideoModel
from cinnema.models.files import load_model
from cinnema.paper.recipes import PaperRecipe, bair, dtdb, iper, landscape, tiny
from cinnema.paper.training import assembly
from cinnema.paper.training.assembly import train_paper
from cinnema.paper.training.autoencoding import AutoencodingNetworks
from paper.training.moving_squares import ARM, pack

CPU = torch.device("cpu")

# name: size, z, nf, encoder widths, first stride_s, last up_s
NETWORKS = {
    "bair": (64, 64, 64, (64, 128, 256, 512, 512), 1, 1),
    "iper": (64, 64, 64, (64, 128, 256, 512, 512), 1, 1),
    "landscape": (128, 64, 32, (64, 128, 128, 256, 512), 2, 2),
    "dtdb-fire": (128, 64, 32, (64, 64, 128, 256, 512), 2, 2),
}
# name: w_kl, w_recon, w_percep, epochs, batch
TRAINING = {
    "bair": (1e-5, 10, 30, 55, 10),
    "iper": (1e-4, 10, 40, 100, 10),
    "landscape": (1e-6, 20, 30, 100, 7),
    "dtdb-fire": (1e-6, 10, 30, 60, 7),
}
# Millions of parameters: decoder, encoder, discriminator of motion, of pictures.
PARAMETERS = {
    "bair": (152.8, 73.6, 37.8, 2.8),
    "iper": (152.8, 73.6, 37.8, 2.8),
    "landscape": (40.9, 40.5, 37.8, 2.8),
    "dtdb-fire": (40.9, 38.8, 37.8, 2.8),
}
# Largest jitter, largest turn of hue, size before the crop.
AUGMENTATION = {
    "bair": (0.1, 0.0, 64),
    "iper": (0.2, 0.0, 64),
    "landscape": (0.3, 0.15, 144),
    "dtdb-fire": (0.3, 0.15, 144),
}
RECIPES = {recipe.name: recipe for recipe in (bair(), iper(), landscape(), dtdb("fire"))}
TEXTURES = ("clouds", "fire", "vegetation", "waterfall")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    folder = tmp_path_factory.mktemp("packed") / "squares"
    return pack(folder, splits=("train", "train", "validation", "test"), control=ARM)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_the_values_of_the_papers_table(name: str) -> None:
    recipe = RECIPES[name]
    stage1, training = recipe.stage1, recipe.autoencoding
    encoder, decoder = stage1.encoder, stage1.decoder
    size, z_dim, nf, widths, stride, up = NETWORKS[name]
    assert recipe.size == size
    assert encoder.z_dim == decoder.z_dim == z_dim
    assert (decoder.channel_factor, encoder.channels) == (nf, widths)
    assert encoder.stride_s == (stride, 2, 2, 2)
    assert decoder.upsample_s == (2, up)
    weights = (training.w_kl, training.w_recon, training.w_percep)
    assert (*weights, training.epochs, training.batch_size) == TRAINING[name]
    assert stage1.encoder.stride_t == (1, 2, 2, 2)
    assert stage1.decoder.upsample_t == (2, 1)
    assert recipe.num_frames == 16


@pytest.mark.parametrize("name", RECIPES)
def test_all_recipes_share_the_rest_of_stage_1(name: str) -> None:
    training = RECIPES[name].autoencoding
    assert (training.w_temporal, training.w_spatial) == (1, 1)
    assert (training.w_matching, training.w_penalty) == (10, 10)
    assert (training.adversarial_from, training.sub_clip, training.num_pictures) == (1, 12, 20)
    assert training.network == "vgg"
    adam = training.adam
    assert (adam.learning_rate, adam.betas, adam.weight_decay) == (2e-4, (0.5, 0.9), 1e-5)
    assert (adam.decay, adam.decay_every) == (0.98, 1)
    amount, hue, enlarged = AUGMENTATION[name]
    augmentation = training.augmentation
    assert augmentation.mirror == 0.5
    assert {augmentation.brightness, augmentation.contrast, augmentation.saturation} == {amount}
    assert augmentation.hue == hue
    assert augmentation.enlarge * RECIPES[name].size == enlarged


@pytest.mark.parametrize("name", RECIPES)
def test_the_second_stage_is_as_published(name: str) -> None:
    recipe = RECIPES[name]
    flow, training = recipe.flow, recipe.flow_training
    assert (flow.in_channels, flow.n_flows, flow.hidden_dim, flow.hidden_depth) == (64, 20, 512, 2)
    assert flow.log_det == "exact"
    assert (training.epochs, training.batch_size) == (31, 50)
    adam = training.adam
    assert (adam.learning_rate, adam.betas, adam.amsgrad) == (1e-5, (0.9, 0.99), True)
    assert (adam.decay, adam.decay_every) == (0.5, 7 if recipe.size == 64 else 6)
    encoder = recipe.conditioner.encoder
    assert (encoder.encoder_type, encoder.in_size) == ("resnet50", recipe.size)
    assert recipe.conditioning.w_kl == 1e-4


@pytest.mark.parametrize("name", RECIPES)
def test_the_networks_have_the_published_numbers_of_parameters(name: str) -> None:
    with torch.device("meta"):
        networks = AutoencodingNetworks(RECIPES[name].stage1)
    parts = (networks.decoder, networks.encoder, networks.temporal, networks.patch)
    millions = [sum(p.numel() for p in part.parameters()) / 1e6 for part in parts]
    assert millions == pytest.approx(PARAMETERS[name], abs=0.06)


def test_recipes_hold_the_scores_that_their_models_reached() -> None:
    scores = {(r.name, s.metric): s.value for r in RECIPES.values() for s in r.scores[:1]}
    assert scores == {("bair", "FVD"): 99.3, ("landscape", "LPIPS"): 0.23}
    assert {s.metric: s.value for s in landscape().scores} == {
        "LPIPS": 0.23, "FID": 10.5, "DTFVD": 0.59, "FVD": 134.4,
    }  # fmt: skip
    assert bair(control=True).scores == ()  # no number of it was published


def test_bairs_control_is_thirty_more_conditions() -> None:
    assert bair(control=True).flow.embedding_dim == bair().flow.embedding_dim + 30
    assert bair(control=True).flow.control
    assert not bair().flow.control


def test_textures_differ_in_what_an_epoch_is() -> None:
    assert [dtdb(t).autoencoding.windows for t in TEXTURES] == [100, 80, 55, 120]
    assert [dtdb(t).conditioner.encoder.norm for t in TEXTURES] == ["in", "in", "in", "bn"]


def test_an_unknown_texture_is_refused() -> None:
    with pytest.raises(UserError, match=r"texture must be one of clouds, .* got 'smoke'"):
        dtdb.__wrapped__("smoke")  # past the shape checker


@pytest.mark.parametrize("recipe", [*RECIPES.values(), tiny(bair(control=True))])
def test_a_recipe_survives_json(recipe: PaperRecipe) -> None:
    values = json.loads(json.dumps(config_to_dict(recipe)))
    assert config_from_dict(PaperRecipe, values) == recipe


def test_parts_that_do_not_fit_are_refused() -> None:
    recipe = tiny(bair())
    with pytest.raises(ValueError, match=r"flow\.embedding_dim and image_encoder\.z_dim"):
        replace(recipe, flow=replace(recipe.flow, embedding_dim=5))


def test_a_tiny_recipe_trains_samples_and_is_evaluated_and_is_not_trained_again(
    clips: PackedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(bair(control=True))  # without the control, see the command below
    options = {"data": clips.folder, "run": tmp_path, "device": CPU}
    path = train_paper(recipe, **options, num_workers=0)
    assert path.name == "bair-control-tiny.safetensors"
    require_trained(path, clips)
    before = path.read_bytes()
    monkeypatch.setattr(assembly, "fit", None)  # calling it would fail
    assert train_paper(recipe, **options).read_bytes() == before


def require_trained(path: Path, clips: PackedDataset) -> None:
    """Check that a tiny model samples and can be evaluated, and the numbers of its training."""
    model = load_model(path).model
    assert model.name == path.stem
    scores = evaluate(model, clips)
    # Two epochs do not beat a still picture; how bad their pictures are has no bound.
    assert 0 < scores["frozen"] < scores["model"] < math.inf
    assert math.isfinite(scores["nll"])
    for part in ("stage1", "conditioning", "flow"):
        numbers = (path.parent / part / "metrics.jsonl").read_text()
        assert "NaN" not in numbers
    assert "held_out_lpips_frozen" in (path.parent / "stage1" / "metrics.jsonl").read_text()
    assert "held_out_nll" in (path.parent / "flow" / "metrics.jsonl").read_text()


def test_the_command_trains_and_run_again_goes_on(
    clips: PackedDataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", str(clips.folder), "--run", str(tmp_path), "--tiny", "--workers", "0"]
    command = ["train", "paper", "dtdb", "--texture", "fire", "--device", "cpu", *options]
    assert main(command) == 0
    path = Path(capfd.readouterr().out.strip())
    assert path == tmp_path / "dtdb-fire-tiny.safetensors"
    require_trained(path, clips)
    sha256 = load_model(path).sha256
    (tmp_path / "flow.safetensors").unlink()
    steps = (tmp_path / "stage1" / "metrics.jsonl").read_text()
    assert main(command) == 0
    assert load_model(path).sha256 == sha256
    assert (tmp_path / "stage1" / "metrics.jsonl").read_text() == steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["dtdb"], "dtdb has a recipe for each texture"),
        (["iper", "--texture", "fire"], "--texture is an option of dtdb, not of iper"),
        (["landscape", "--control"], "--control is an option of bair, not of landscape"),
        (["bair"], "contains no video"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folders = ["--data", str(tmp_path), "--run", str(tmp_path / "run")]
    assert main(["train", "paper", *options, "--device", "cpu", *folders]) == 2
    assert message in capfd.readouterr().err


def test_data_without_the_control_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    dataset = pack(tmp_path / "squares")
    with pytest.raises(UserError, match="has no control: pack BAIR with it"):
        train_paper(tiny(bair(control=True)), data=dataset.folder, run=tmp_path / "run", device=CPU)
    assert not (tmp_path / "run").exists()


@torch.no_grad()
def evaluate(model: VideoModel, dataset: PackedDataset) -> dict[str, float]:
    """LPIPS of a sample and of the frozen frame on a test clip, and the likelihood of the real."""
    clip = dataset.read(int(dataset.indices("test")[0]), range(model.num_frames + 1))
    video = to_tensor(clip.frames)[None]
    x0, real = video[:, 0], video[0, 1:]
    eta = torch.from_numpy(clip.tracks["end_effector"][model.num_frames])[None]
    c = model.condition(x0, eta if model.control_dim else None)
    nu = torch.randn(1, model.z_dim, generator=torch.Generator().manual_seed(0))
    sample = model.decode(x0, model.to_latent(nu, c)[0])[0]
    nu, log_det = model.to_residual(model.encode(video), c)
    lpips = LPIPS.load("alex")
    return {
        "model": float(lpips(sample, real).mean()),
        "frozen": float(lpips(x0.expand_as(real), real).mean()),
        "nll": float(0.5 * nu.square().sum() - log_det.sum()),
    }
