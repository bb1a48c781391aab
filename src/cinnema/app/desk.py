"""What happens when a visitor does something: from the page's values to new ones.

Nothing here knows gradio. A handler yields new values by the names of the page's parts; the last
value of a name is the one that stays. It raises a UserError for a visitor's mistake.
"""

import io
import re
import shutil
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from PIL import Image

from cinnema.app import uploads
from cinnema.app.saving import read_future, save_future
from cinnema.app.sessions import NUM_FUTURES, Session
from cinnema.app.studio import NUM_STEPS, Future, Studio, as_data_url, new_seed
from cinnema.app.uploads import Picture, shown_name
from cinnema.app.wishes import Hints, Wish, read_hints
from cinnema.core.errors import UserError
from cinnema.media.pictures import resize
from cinnema.models.control import Drift
from cinnema.synthesis.certainty import Certainty
from cinnema.synthesis.scene import Progress
from cinnema.synthesis.transfer import Motion
from cinnema.synthesis.video import Video

Values: TypeAlias = dict[str, Any]
Value: TypeAlias = Any  # of a control of the page
T = TypeVar("T")

_EDITOR_SIDE = 800
_OPTIONS = {"--move MASK": "the brush “must move”", "--keep-still MASK": "the brush “must stand”"}
_ENDS = tuple(f"Future {i + 1}" for i in range(NUM_FUTURES))


class Desk:
    """The page's handlers.

    Args:
        studio: What computes.
    """

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def drop_picture(
        self, session: Session, file: tuple[str, str] | None, *wish: Value, progress: Progress
    ) -> Iterator[Values]:
        """Read a picture and draw its futures.

        Args:
            session: The visitor.
            file: Path of the file, and its owner's name for it; None if it was taken away.
            wish: See `read_wish`; what was drawn on the picture before is left out.
            progress: Called after each frame.
        """
        session.futures, session.shown = [None] * NUM_FUTURES, {}
        session.picture = session.certainty = None
        places = (*(f"tile{i}" for i in range(NUM_FUTURES)), "steered", "transferred", "between")
        yield {**dict.fromkeys(places), "editor": None}
        if file is None:
            yield {"status": "Drop a picture, paste one, or choose an example."}
            return
        session.uploads.add(Path(file[0]))
        session.picture = uploads.read_picture(Path(file[0]), file[1], self._studio.limits)
        yield {"editor": self._editor(session.picture, Hints())}
        session.seed = 0
        asked = replace(read_wish(None, *wish[1:]), hints=Hints())
        yield from self._draw(session, asked, range(NUM_FUTURES), progress)

    def roll(self, session: Session, *values: Value, progress: Progress) -> Iterator[Values]:
        """Draw new futures in place of those that are not pinned.

        Args:
            session: The visitor.
            values: Whether each future is pinned; then the wish, see `read_wish`.
            progress: Called after each frame.
        """
        session.require_picture()
        session.seed = new_seed()
        yield from self.redraw(session, *values, progress=progress)

    def redraw(self, session: Session, *values: Value, progress: Progress) -> Iterator[Values]:
        """Draw the futures that are not pinned as other settings ask.

        Args:
            session: The visitor.
            values: As in `roll`.
            progress: Called after each frame.
        """
        pins, wish = values[:NUM_FUTURES], read_wish(*values[NUM_FUTURES:])
        if session.picture is None:
            return  # settings may be chosen before there is a picture
        places = [i for i, pin in enumerate(pins) if not pin or session.futures[i] is None]
        if not places:
            raise UserError("all four futures are kept: let one go, and roll again")
        yield from self._draw(session, wish, places, progress)

    def steer(self, session: Session, *values: Value, progress: Progress) -> Iterator[Values]:
        """Show the first future with what is drawn on the picture.

        Args:
            session: The visitor.
            values: The wish, see `read_wish`.
            progress: Called after each frame.
        """
        picture, wish = session.require_picture(), read_wish(*values)
        (future,) = self._studio.draw(picture, wish, seed=session.seed, samples=[0])
        for video, notes in _noticed(lambda: self._studio.previews([future], progress)):
            session.shown["steered"] = future
            told = "The picture follows your drawing." if wish.hints.arrows else "As drawn."
            yield {
                "steered": _player([_clip(video, "Steered", self._likelihood(session, video))]),
                "status": " ".join([told, *notes]),
            }

    def drop_video(
        self, session: Session, file: tuple[str, str] | None, *, progress: Progress
    ) -> Iterator[Values]:
        """Keep a video whose motion will be used.

        Args:
            session: The visitor.
            file: Path of the file, and its owner's name for it; None if it was taken away.
            progress: Not called: this takes no time.
        """
        del progress
        session.video = None
        if file is None:
            return
        path, name = Path(file[0]), shown_name(file[1])
        session.uploads.add(path)
        suffix = uploads.video_suffix(path, name, self._studio.limits)
        own = session.folder / "video" / f"{Path(name).stem}{suffix}"
        shutil.rmtree(own.parent, ignore_errors=True)
        own.parent.mkdir()
        own.write_bytes(path.read_bytes())
        height, width = uploads.check_video(own, name, self._studio.limits)
        session.video = own, name
        yield {"status": f"{name}: {width}x{height} pixels."}

    def example_video(self, session: Session, *, progress: Progress) -> Iterator[Values]:
        """Keep a video that the model makes of an example photograph.

        Args:
            session: The visitor.
            progress: Called after each frame.
        """
        yield {"status": "Animating the example …"}
        video = self._studio.example(progress)
        path = video.save(session.folder / "example.mp4", overwrite=True)
        session.video = path, path.name
        yield {"status": "The example video is ready: press a button below."}

    def transfer(
        self, session: Session, start: float, *values: Value, progress: Progress
    ) -> Iterator[Values]:
        """Move the picture as the video moves.

        Args:
            session: The visitor.
            start: Time in the video, in seconds.
            values: The wish, see `read_wish`.
            progress: Called after each frame.
        """
        path, name = _require_video(session)
        picture = session.require_picture()
        wish = replace(read_wish(*values), hints=Hints())
        yield {"status": f"Reading the motion of {name} …"}
        with uploads.named(path, name):
            future, motion, video = self._studio.transfer(
                path, picture, wish, start=self._start(start), progress=progress
            )
        session.shown["transferred"] = future
        note = self._likelihood(session, video)
        yield {
            "transferred": _player(
                [_query(motion, video, name), _clip(video, "Your picture", note)]
            ),
            "status": f"Your picture moves as {name} does.",
        }

    def edit(
        self,
        session: Session,
        start: float,
        direction: float,
        speed: float,
        *values: Value,
        progress: Progress,
    ) -> Iterator[Values]:
        """Turn the wind of the video.

        Args:
            session: The visitor.
            start: Time in the video, in seconds.
            direction: In degrees, counter-clockwise from the right.
            speed: Factor on the typical speed.
            values: The wish, see `read_wish`.
            progress: Called after each frame.
        """
        path, name = _require_video(session)
        wish = replace(read_wish(*values), hints=Hints(), speed=1.0)
        yield {"status": f"Reading the motion of {name} …"}
        with uploads.named(path, name):
            future, motion, video = self._studio.edit(
                path,
                name,
                Drift(direction=float(direction), speed=float(speed)),
                wish,
                start=self._start(start),
                progress=progress,
            )
        session.shown["edited"] = future
        own = motion.about["query"]
        yield {
            "edited": _player([_query(motion, video, name), _clip(video, "With the new wind")]),
            "status": (
                f"{name} drifts to {own['direction']:.0f} degrees at speed {own['speed']:.2g}; "
                f"now to {direction:.0f} degrees at {speed:.2g}."
            ),
        }

    def between(
        self, session: Session, first: str, last: str, *values: Value, progress: Progress
    ) -> Iterator[Values]:
        """Make the videos between two futures.

        Args:
            session: The visitor.
            first: "Future 1" or another.
            last: "Future 2" or another.
            values: The wish, see `read_wish`.
            progress: Called after each frame.
        """
        session.require_picture()
        start, end = (session.futures[_ENDS.index(name)] for name in (first, last))
        if start is None or end is None or first == last:
            raise UserError("between: choose two different futures that are shown above")
        clips = []
        for number, (future, video) in enumerate(
            self._studio.between(start, end, read_wish(*values), progress)
        ):
            session.shown[f"between{number}"] = future
            clips.append(
                _clip(video, f"{number / (NUM_STEPS - 1):.0%} of the way from {first} to {last}")
            )
            yield {
                "between": {**_player(clips), "choose": True},
                "status": f"{len(clips)} of {NUM_STEPS} steps from {first} to {last}.",
            }

    def save(
        self,
        place: str,
        session: Session,
        format_: str,
        side: float,
        step: float | None = None,
        *,
        progress: Progress,
    ) -> Iterator[Values]:
        """Render a future at full size and offer its files.

        Args:
            place: Where it is shown: "tile0" or another.
            session: The visitor.
            format_: One of `Studio.formats`.
            side: Greatest width and height in pixels.
            step: Which of several futures in this place.
            progress: Called after each frame.
        """
        if step is not None:
            place = f"{place}{int(step)}"
        future = _future_at(session, place)
        formats = self._studio.formats
        if format_ not in formats:
            raise UserError(f"format: must be one of {', '.join(formats)}, got {format_!r}")
        is_page = format_ == "html"
        video = self._studio.render(future, side=side, has_frames=not is_page, progress=progress)
        stem = re.sub(r"[^\w-]+", "-", Path(future.picture.name).stem)[:40] or "picture"
        origin = f"s{video.seed}_{video.sample:02d}" if video.seed is not None else place
        files = save_future(
            session.folder, f"{stem}_{origin}.{format_}", future, video, self._studio.pipeline
        )
        height, width, _ = video.x0.shape
        what = (
            f"a page that plays {width}x{height} pixels without an end, in any browser"
            if is_page
            else f"{video.num_frames} frames of {width}x{height} pixels at {video.fps:g} a second"
        )
        yield {
            "files": [str(path) for path in files],
            "status": (
                f"{files[0].name}: {what}. The files are below; they go when you close this page."
            ),
        }

    def restore(
        self, session: Session, file: tuple[str, str] | None, *, progress: Progress
    ) -> Iterator[Values]:
        """Show a saved future again, in the first place.

        Args:
            session: The visitor.
            file: Path of a JSON or motion file, and its owner's name for it.
            progress: Called after each frame.
        """
        if file is None:
            return
        path, name = Path(file[0]), shown_name(file[1])
        session.uploads.add(path)
        picture, studio = session.require_picture(), self._studio
        kind = uploads.saved_kind(path, name, studio.limits)
        future = read_future(path, name, kind, picture, studio.pipeline)
        for video, notes in _noticed(lambda: studio.previews([future], progress)):
            session.futures[0] = future
            wish = future.wish
            yield {
                "tile0": _player([_clip(video, "Future 1", self._likelihood(session, video))]),
                "pin0": True,
                "seconds": wish.seconds,
                "speed": wish.speed,
                "temperature": wish.temperature,
                "loop": wish.loop,
                "editor": self._editor(picture, wish.hints),
                "status": " ".join([f"{name} is Future 1 again.", *notes]),
            }

    def _draw(
        self, session: Session, wish: Wish, places: "range | list[int]", progress: Progress
    ) -> Iterator[Values]:
        picture = session.require_picture()
        futures = self._studio.draw(picture, wish, seed=session.seed, samples=list(places))
        for place in places:
            session.futures[place] = None
        told: list[str] = []
        videos = _noticed(lambda: self._studio.previews(futures, progress))
        for place, future, (video, notes) in zip(places, futures, videos, strict=True):
            session.futures[place] = future
            told += [note for note in notes if note not in told]
            clip = _clip(video, f"Future {place + 1}", self._likelihood(session, video))
            yield {
                f"tile{place}": _player([clip]),
                f"pin{place}": False,
                "status": " ".join([_about(picture, self._certainty(session)), *told]),
            }

    def _editor(self, picture: Picture, hints: Hints) -> Values:
        width, height = picture.size
        small = resize(
            picture.pixels, uploads.fit(picture.pixels.shape[:2], np.inf, side=_EDITOR_SIDE)
        )
        content = io.BytesIO()
        Image.fromarray(small).save(content, "JPEG", quality=88)
        guess = self._studio.guess(picture)
        mode = "arrows" if self._studio.is_nature else "none"
        return {
            "image": f"data:image/jpeg;base64,{_text(content.getvalue())}",
            "width": width,
            "height": height,
            "guess": None
            if guess is None
            else {
                "width": guess.shape[1],
                "height": guess.shape[0],
                "data": _text(guess.tobytes()),
            },
            "hints": hints.as_json(),
            "mode": "point" if self._studio.has_end_point else mode,
        }

    def _certainty(self, session: Session) -> Certainty:
        if session.certainty is None:
            session.certainty = self._studio.certainty(session.require_picture())
        return session.certainty

    def _likelihood(self, session: Session, video: Video) -> str:
        rank = self._certainty(session).rank(video.z, video.eta)
        if rank < 0.005:
            return "(a motion that the model would hardly ever draw here)"
        words = "a typical motion" if rank >= 0.25 else "a less usual motion"
        words = "a rare motion" if rank < 0.05 else words
        return f"({words}: likelier than {rank:.0%} of what the model would draw here)"

    def _start(self, seconds: float) -> float:
        if not 0 <= seconds <= self._studio.limits.max_seconds:
            raise UserError(
                f"start: must be from 0 to {self._studio.limits.max_seconds:g} seconds, got "
                f"{seconds:g}: choose an earlier one"
            )
        return seconds


def read_wish(
    drawn: object, seconds: float, speed: float, temperature: float, loop: object
) -> Wish:
    """Return a wish from the values of the page's controls.

    Args:
        drawn: What the editor sent.
        seconds: Length of the videos.
        speed: Factor on displacements.
        temperature: Factor on nu.
        loop: Whether the videos loop.
    """
    return Wish(
        seconds=float(seconds),
        speed=float(speed),
        temperature=float(temperature),
        loop=bool(loop),
        hints=read_hints(drawn),
    )


def _future_at(session: Session, place: str) -> Future:
    index = place.removeprefix("tile")
    is_tile = index != place and index.isdecimal() and int(index) < NUM_FUTURES
    future = session.futures[int(index)] if is_tile else session.shown.get(place)
    if future is None:
        raise UserError("there is no video here to save yet: make one first")
    return future


def _require_video(session: Session) -> tuple[Path, str]:
    if session.video is None:
        raise UserError("there is no video yet: drop one, or choose an example")
    return session.video


def _about(picture: Picture, certainty: Certainty) -> str:
    width, height = picture.size
    told = f"{picture.name}, {width}x{height} pixels."
    if certainty.is_familiar is False:
        told += " I have not seen such a picture in training: what moves, and how, may be wrong."
    return told


def _noticed(begin: Callable[[], Iterator[T]]) -> Iterator[tuple[T, list[str]]]:
    """Yield items with the warnings that they caused, in the page's words."""
    with _caught() as notes:
        items = begin()
    while True:
        with _caught() as more:
            item = next(items, None)
        if item is None:
            return
        yield item, notes + more
        notes = []


@contextmanager
def _caught() -> Iterator[list[str]]:
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    found += [_in_words(str(one.message)) for one in caught if one.category is UserWarning]


def _in_words(message: str) -> str:
    for option, words in _OPTIONS.items():
        message = message.replace(option, words)
    return f"{message[0].upper()}{message[1:]}."


def _player(clips: list[Values]) -> Values:
    return {"videos": list(clips)}


def _clip(video: Video, label: str, note: str = "") -> Values:
    return {"src": as_data_url(video.frames, fps=video.fps), "label": label, "note": note}


def _query(motion: Motion, video: Video, name: str) -> Values:
    """Return the frames of a query at the times of the frames of a video."""
    shown = motion.query.shown
    rate = (len(shown) - 1) / len(video.frames)
    frames = shown[[max(1, round((t + 1) * rate)) for t in range(len(video.frames))]]
    return {"src": as_data_url(frames, fps=video.fps), "label": name, "note": "(your video)"}


def _text(content: bytes) -> str:
    return b64encode(content).decode("ascii")


Handler: TypeAlias = Callable[..., Iterator[Values]]
