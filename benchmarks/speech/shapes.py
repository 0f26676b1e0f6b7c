"""What ours and the peer share: recordings, frames, views of them, the model and its batch."""

from __future__ import annotations

from pathlib import Path

from modelwright.data.archive import tar_members
from modelwright.data.sources import data_root
from modelwright.errors import MachineError

RATE, BANDS = 16_000, 80
HOP, WINDOW, TRANSFORM = 160, 400, 1024  # samples: 10 ms, 25 ms, and that with silence after it
SLOWEST, FASTEST = 0.9, 1.1
FREQUENCY_MASKS, FREQUENCY, TIME_MASKS, TIME = 2, 0.25, 4, 0.05  # of SpecAugment
DEPTH, WIDTH, HEADS, KERNEL, DROPOUT = 4, 128, 4, 15, 0.1
BATCH = 16
LEARNING_RATE, CLIP = 1e-3, 5.0
FEATURED = 64  # recordings of which frames are made
WARMUP, STEPS = 2, 10


def recordings() -> Path:
    """The folder of the Kathleen recordings, sentences of three seconds.

    Raises:
        MachineError: it is not there.
    """
    root = data_root()
    if root is None or not (root / "kathleen" / "audio.tar").is_file():
        raise MachineError("kathleen/ is not in MODELWRIGHT_DATA; put its recordings there")
    return root / "kathleen"


def unpacked(folder: Path) -> list[tuple[Path, str]]:
    """The recordings as files in ``folder``, with their texts, as a plain pipeline has them."""
    source = recordings()
    lines = (source / "metadata.csv").read_text("utf-8").splitlines()[1:]
    texts = dict(line.split("|")[:2] for line in lines)
    found = []
    for name, content in tar_members(source / "audio.tar", suffix=".flac"):
        path = folder / Path(name).name
        path.write_bytes(content)
        found.append((path, texts[path.stem]))
    return sorted(found)
