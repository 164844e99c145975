"""One door to labelled pictures: a folder per class, FlowCam exports with labels, or the simulator."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from edge_app.capture.uri import SourceUri, parse_path_uri, split_scheme, validate_options
from edge_app.errors import UserError
from training.datasets.flowcam import read_flowcam
from training.datasets.folders import read_folders
from training.datasets.groups import GroupRule
from training.datasets.pictures import LabelledPictures
from training.datasets.simulator import SimulatedOptions, read_simulated

__all__ = ["open_dataset"]


class _FolderOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    bits: int | None = Field(default=None, ge=8, le=16, description="bits in use in 16-bit files; default: found out")


class _FlowCamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: Path | None = Field(default=None, description="CSV: run, id, label; default labels.csv in or beside it")
    classes: str | None = Field(default=None, description="labels to keep, separated by commas; default: all")


def open_dataset(
    data: str | Path,
    *,
    groups: Path | None = None,
    group_by: str | None = None,
    group_regex: str | None = None,
    um_per_px: float | None = None,
    default_um_per_px: float = 1.33,
) -> LabelledPictures:
    """Read labelled pictures from where ``data`` says.

    Parameters
    ----------
    data : str or Path
        ``PATH`` or ``crops:PATH?bits=10``, a folder with one folder per class;
        ``flowcam:PATH,PATH?labels=FILE&classes=A,B``, exports of which each run is a group;
        ``sim:training?particles=200&seed=1``, also ``sim:held-out`` and ``sim:nominal``.
    groups : Path, optional
        CSV with ``file`` and ``group``, for folders.
    group_by, group_regex : str, optional
        Instead of ``groups``, where the path tells the group: `training.datasets.groups.GroupRule`.
    um_per_px : float, optional
        Scale of the pictures; default: what an export says of itself, else ``default_um_per_px``.
    default_um_per_px : float
        Scale of the bundle.

    Returns
    -------
    LabelledPictures

    Raises
    ------
    UserError
        One line that names what cannot be used.
    """
    if um_per_px is not None and not 0.01 <= um_per_px <= 100:
        raise UserError(f"--um-per-px is {um_per_px:g}, must be 0.01 to 100")
    text = str(data)
    scheme, _ = split_scheme(text)
    # C:\pictures is a drive, not a scheme; and what exists is a path whatever it looks like.
    if scheme is None or len(scheme) == 1 or Path(text).expanduser().exists():
        rule = GroupRule.of(groups=groups, group_by=group_by, group_regex=group_regex, where=text)
        return read_folders(Path(text).expanduser(), rule, um_per_px=um_per_px or default_um_per_px)
    where = parse_path_uri(text)
    if scheme == "crops":
        rule = GroupRule.of(groups=groups, group_by=group_by, group_regex=group_regex, where=text)
        bits = validate_options(where, _FolderOptions).bits
        return read_folders(where.path, rule, um_per_px=um_per_px or default_um_per_px, bits=bits)
    if scheme not in ("flowcam", "sim"):
        raise UserError(f"{text}: {scheme} is no source of labelled pictures, allowed: PATH, crops:, flowcam:, sim:")
    named = "--groups" if groups else "--group-by" if group_by else "--group-regex" if group_regex else None
    if named is not None:
        raise UserError(f"{named} is given with {scheme}:, which knows its groups itself; leave it out")
    if scheme == "flowcam":
        return _open_flowcam(where, um_per_px=um_per_px)
    options = validate_options(where, SimulatedOptions)
    return read_simulated(str(where.path), options, um_per_px=um_per_px or default_um_per_px)


def _open_flowcam(where: SourceUri, *, um_per_px: float | None) -> LabelledPictures:
    options = validate_options(where, _FlowCamOptions)
    joined = [where.path] if where.path.exists() else [Path(p.strip()).expanduser() for p in str(where.path).split(",")]
    classes = [name.strip() for name in options.classes.split(",")] if options.classes else None
    labels = options.labels.expanduser() if options.labels is not None else None
    return read_flowcam(joined, labels=labels, classes=classes, um_per_px=um_per_px)
