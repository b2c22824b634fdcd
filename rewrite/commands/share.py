"""A run on the Hugging Face hub: what `rewrite export hub` wrote is uploaded, and read back by `rewrite pull`.

Only files that `SHA256SUMS` lists are taken over, each with the hash that it says; nothing of them is run or unpickled.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path, PurePosixPath

from rewrite.config import UserError
from rewrite.display.escaping import one_line
from rewrite.run.files import on_hub

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def upload(folder: Path, name: str, private: bool) -> str:
    """Put an exported folder on the hub; returns its address.

    Raises UserError where no token is set, and for whatever the hub refuses.
    """
    from huggingface_hub import HfApi, get_token

    check_token(name)
    api = HfApi(token=get_token())
    try:
        api.create_repo(name, private=private, exist_ok=True)
        told = api.upload_folder(repo_id=name, folder_path=folder, commit_message="rewrite export hub")
    except Exception as error:  # whatever the hub, the network or a bad name makes the library raise
        raise UserError(f"--upload {name}: the hub did not take it ({_reason(error)}); {folder} is whole") from None
    return str(getattr(told, "repo_url", told))


def check_token(name: str) -> None:
    """Raise UserError where there is no token to upload with."""
    from huggingface_hub import get_token

    if not get_token():
        raise UserError(f"--upload {name}: no token is set; set HF_TOKEN, or `hf auth login`, or use `hf upload` later")


def pull(source: str, out: Path, revision: str = "main") -> list[str]:
    """Read an exported run, from the hub or a folder, into a new folder; a line for each thing to know.

    Raises UserError where it is not to be had, is not whole, or `out` is there already.
    """
    if out.exists():
        raise UserError(f"--out {out}: is there already; name another folder")
    place = _fetch(source, revision)
    try:
        sums = (place / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{source}: no run that was exported for the hub (it has no {SUMS})") from None
    beside = out.with_name(f".{out.name}.writing")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        for line in sums:
            _take(line, source, place, beside)
        shutil.copyfile(place / SUMS, beside / SUMS)
        beside.replace(out)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({one_line(error)}); name another folder") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return [
        f"{len(sums)} files, each with the hash that it should have",
        f"report: {out / 'report' / 'index.html'}",
        f"to go on with its coder and explanations: rewrite run --config {out / 'rewrite.toml'} --run runs/{out.name}",
    ]


def _take(line: str, source: str, place: Path, beside: Path) -> None:
    """Copy one file that is listed."""
    found = LINE.fullmatch(line)
    name = PurePosixPath(found[2]) if found else PurePosixPath("..")
    if found is None or name.is_absolute() or ".." in name.parts:
        raise UserError(f"{source}: {SUMS} holds {one_line(line)!r}, which names no file of it; get it again")
    try:
        content = (place / name).read_bytes()
    except OSError:
        raise UserError(f"{source}: {name} is listed and not there; get it again") from None
    if hashlib.sha256(content).hexdigest() != found[1]:
        raise UserError(f"{source}: {name} is not what was exported (damaged or edited); get it again")
    (beside / name).parent.mkdir(parents=True, exist_ok=True)
    (beside / name).write_bytes(content)


def _fetch(source: str, revision: str) -> Path:
    """The folder of an exported run, downloaded where it is on the hub."""
    if not on_hub(source):
        if not Path(source).is_dir():
            raise UserError(f"{source}: no such folder; name one, or OWNER/NAME on the hub")
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, revision=revision))
    except Exception as error:  # whatever the hub, the network or a bad name makes the library raise
        raise UserError(f"{source}: neither a folder here nor to be had from the hub ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return one_line(str(error).splitlines()[0] if str(error) else type(error).__name__)
