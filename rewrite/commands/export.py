"""What a finished run gives to others: a folder in a form that their tools read.

1. A form is a file in this folder: the first line of its docstring is its help, `write(run, folder)` writes it and
   returns a line for each thing it wrote.
2. A folder is written beside its place and then moved there, whole or not at all. `export.json` in it says what was
   exported and lists its files; only such a folder, with nothing else in it, is replaced by a later export.
3. The run is read and never changed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from safetensors import SafetensorError

from rewrite import __version__
from rewrite.config import UserError
from rewrite.display.escaping import one_line
from rewrite.run import plugins
from rewrite.run.files import read_json, write_json
from rewrite.run.finished import Finished, open_finished

MARK = "export.json"
LAST = ("5_costs.parquet", "6_stats.json")
"""What a run must have come to: all that a form may read is one of these or stands before one."""


def forms() -> dict[str, str]:
    """The forms by name, each with its help; none is imported."""
    return plugins.tell("exports")


def export(form: str, run: Path, out: Path) -> list[str]:
    """Write a finished run into `out` in one of `forms`; a line for each thing that was written.

    Raises UserError for a form that there is none of, a run that is not finished, a coder that the form cannot hold,
    and a folder that is not to be replaced.
    """
    writer = plugins.load("exports", form)
    finished = [open_finished(run, last=last) for last in LAST][-1]
    place = out.resolve()
    _check_place(place, out, form, run.resolve())
    beside = place.with_name(f".{place.name}.writing")
    try:
        _remove(beside)
        beside.mkdir(parents=True)
        written: list[str] = writer.write(finished, beside)
        write_json(beside / MARK, _describe(form, finished, beside))
        _move(beside, place)
    except (OSError, SafetensorError) as error:
        raise UserError(f"--out {out}: cannot be written ({one_line(error)}); name another folder") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return written


def _check_place(place: Path, out: Path, form: str, run: Path) -> None:
    """Refuse a folder that holds anything but an earlier export in this form."""
    if run == place or run in place.parents or place in run.parents:
        raise UserError(f"--out {out}: is in the run folder or holds it; name another folder")
    if not place.exists():
        return
    if not place.is_dir():
        raise UserError(f"--out {out}: is a file; name a folder")
    there = set(_files(place))
    if not there:
        return
    known = _read_mark(place, form)
    if known is None:
        raise UserError(f"--out {out}: holds files and is no export in the form {form}; name another folder")
    foreign = sorted(there - known)
    if foreign:
        raise UserError(f"--out {out}: holds {foreign[0]}, which the export did not write; name another folder")


def _read_mark(place: Path, form: str) -> set[str] | None:
    """The files of an earlier export in this form; None where there is none."""
    try:
        mark = read_json(place / MARK)
        return {MARK, *mark["files"]} if mark["form"] == form else None
    except (UserError, KeyError, TypeError):
        return None


def _describe(form: str, run: Finished, folder: Path) -> dict[str, object]:
    made = {name: entry["sha256"] for name, entry in sorted(run.manifest["artefacts"].items())}
    return {"form": form, "rewrite": __version__, "run": run.name, "artefacts": made, "files": _files(folder)}


def _files(folder: Path) -> list[str]:
    """Everything in a folder but folders, by the path from there."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def _move(beside: Path, place: Path) -> None:
    """Put what was written into its place, in the place of an earlier export."""
    for file in _files(beside):
        # Some libraries write files that nobody else may read.
        shutil.copymode(beside / MARK, beside / file)
        with (beside / file).open("rb") as stream:
            os.fsync(stream.fileno())
    earlier = place.with_name(f".{place.name}.earlier")
    _remove(earlier)
    if place.exists():
        place.replace(earlier)
    beside.replace(place)
    _remove(earlier)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
