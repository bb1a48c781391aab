"""A smoke test of an installed wheel, which `make wheel` runs outside the checkout."""

import importlib.metadata
import sys
import tempfile
from pathlib import Path

import cinnema
from cinnema.cli.demo import example_folder
from cinnema.cli.main import main
from cinnema.media.videos import read_video

CHECKOUT = Path(__file__).parents[1]


def files_below(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(folder).as_posix() for path in paths}


def main_of_wheel(*arguments: object) -> None:
    code = main([str(argument) for argument in arguments])
    assert code == 0, f"cinnema {arguments[0]} ended with {code}"


package = Path(cinnema.__file__).parent
assert package.is_relative_to(sys.prefix), f"{package} is not that of the wheel"
assert importlib.metadata.version("cinnema") == cinnema.__version__
missing = files_below(CHECKOUT / "src/cinnema") - files_below(package)
assert not missing, f"the wheel lacks {sorted(missing)}"
with tempfile.TemporaryDirectory() as text:
    out = Path(text)
    photo = sorted(example_folder().glob("*.jpg"))[0]
    common = ["-n", 1, "--frames", 3, "--size", "320x240", "-o", out]
    for weights in ("landscape", "person"):
        main_of_wheel("animate", photo, "--weights", weights, *common, "--overwrite")
    main_of_wheel("animate", photo, "--format", "html", *common, "--overwrite")
    assert read_video(next(out.glob("*.mp4"))).frames.shape == (3, 240, 320, 3)
    assert next(out.glob("*.html")).stat().st_size > 10_000
main_of_wheel("info", "robot")
main_of_wheel("licences")
print(f"make wheel: {package} works outside the checkout")
