"""A coder on the hub: `OWNER/NAME`, or `OWNER/NAME/FOLDER` for one of several. Only its settings and weights are
fetched, and no pickle is."""

from __future__ import annotations

from pathlib import Path

from rewrite.coder.files import FILES
from rewrite.config import UserError
from rewrite.run.files import on_hub

STEMS = ("layers", "h", "blocks", "model.layers", "transformer.h", "gpt_neox.layers")


def fetch_coder(source: str, hookpoint: str, revision: str) -> Path:
    """The folder of a coder, which is fetched where the source is on the hub and not yet here: that which is named, and
    its subfolder for the hookpoint.

    Raises UserError where it is not to be had.
    """
    if not on_hub(source):
        return Path(source)
    from huggingface_hub import snapshot_download

    owner, name, *inside = Path(source).parts
    # sparsify names a coder's folder by what the model calls its blocks.
    spelled = [hookpoint.replace("layers.", f"{stem}.", 1) for stem in STEMS]
    places = ["/".join([*inside, *own]) for own in ([], *([name] for name in spelled))]
    files = [f"{place}/{file}".lstrip("/") for place in places for file in FILES]
    try:
        here = snapshot_download(f"{owner}/{name}", revision=revision, allow_patterns=files)
    except Exception as error:  # whatever the hub, the network or a bad name makes the library raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"coder.path = {source}: neither a folder here nor to be had from the hub ({reason})") from None
    folder = Path(here, *inside)
    if not folder.is_dir():
        raise UserError(f"coder.path = {source}: {owner}/{name} has no coder there; name one of its folders")
    return folder
