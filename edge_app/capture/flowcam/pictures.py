"""Picture files of a FlowCam export: found by the names that its table gives them, read to their mean grey."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_app.capture.flowcam.export import FlowCamTable
from edge_app.capture.image_files import GreyScaling, ImageFileError, Picture, list_images, read_pictures

__all__ = ["collage_keys", "decide_depth", "file_key", "file_name", "find_pictures", "read_grey"]


def file_name(entry: str) -> str:
    r"""Name of the file that an entry of the table points to.

    Examples
    --------
    >>> file_name(" C:\\runs\\run_000001.tif ")
    'run_000001.tif'
    """
    # The table may hold a path of the instrument's own computer.
    return re.split(r"[\\/]", entry.strip())[-1]


def file_key(name: str) -> str:
    """Reduce a file's name to what does not vary between table and disk: no case, one form of its umlauts.

    Examples
    --------
    >>> file_key("La\u0308uf_1.TIF") == file_key("l\u00e4uf_1.tif")
    True
    """
    # Some systems store an umlaut as a letter and its dots, the table does not.
    return unicodedata.normalize("NFC", name).casefold()


def collage_keys(table: FlowCamTable) -> list[str]:
    """Key of each row's collage, as :func:`file_key` makes it."""
    return [file_key(file_name(str(name))) for name in table.columns["collage_file"]]


def find_pictures(directory: Path) -> dict[str, Path]:
    """Pictures by the key of their name: those of the export's folder, else those of folders below it.

    A name that stands in several folders below it is left out: nothing says which one is meant.
    """
    paths = list_images(directory, recursive=True)
    times = Counter(file_key(p.name) for p in paths)
    found = {file_key(p.name): p for p in paths if times[file_key(p.name)] == 1}
    return found | {file_key(p.name): p for p in paths if p.parent == directory}


def read_grey(path: Path, scaling: GreyScaling) -> npt.NDArray[np.float32]:
    """Mean of the channels, float32 (H, W), with its fraction kept: the offset is smaller than one level.

    Raises
    ------
    ImageFileError
        If the file is not a whole picture.
    """
    picture = scaling.to_uint8(next(read_pictures(path, grey=False)))
    if picture.ndim == 2:
        return picture.astype(np.float32)
    return picture[..., :3].mean(axis=2, dtype=np.float32)


def decide_depth(paths: list[Path]) -> GreyScaling:
    """One bit depth for all these pictures, decided by the first page of each that can be read."""
    scaling = GreyScaling()
    scaling.decide(_first_pages(paths))
    return scaling


def _first_pages(paths: list[Path]) -> Iterator[Picture]:
    for path in paths:
        try:
            yield next(read_pictures(path, grey=False))
        except ImageFileError:
            continue  # told when it is needed
