"""What each command takes: its options and their help. What a command does is `rewrite.__main__`'s to know."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

from rewrite.commands.export import forms
from rewrite.run.configs import presets

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def set_options() -> argparse.ArgumentParser:
    """What changes a config."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one config key; may be repeated"
    )
    return options


def config_options() -> argparse.ArgumentParser:
    """What names a run and its config."""
    options = set_options()
    options.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML config (default: that of the run folder where it has one, else the bundled default.toml)",
    )
    options.add_argument(
        "--run", type=Path, metavar="DIR", default=Path("runs/default"), help="run folder (%(default)s)"
    )
    add_preset(options)
    return options


def add_preset(options: argparse.ArgumentParser) -> None:
    """Sizes that have a name."""
    options.add_argument("--preset", default="", metavar="NAME", help=f"sizes over the config: {', '.join(presets())}")


def table_options() -> argparse.ArgumentParser:
    """In which form a table is given."""
    options = argparse.ArgumentParser(add_help=False)
    form = options.add_mutually_exclusive_group()
    form.add_argument("--json", dest="form", action="store_const", const="json", help="print the table's facts as JSON")
    form.add_argument("--markdown", dest="form", action="store_const", const="markdown", help="print it as Markdown")
    form.add_argument("--out", type=Path, metavar="FILE", help="write it to a file: .json, .md, else plain text")
    return options


def grid_options() -> argparse.ArgumentParser:
    """What a sweep is made of."""
    options = set_options()
    options.add_argument("--config", type=Path, metavar="FILE", help="TOML config (default: the bundled default.toml)")
    add_preset(options)
    options.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=A,B",
        help="values of a key, each combination a point; may be repeated, beside or instead of [sweep.grid]",
    )
    options.add_argument(
        "--out", type=Path, metavar="DIR", default=Path("runs/sweep"), help="folder of all runs (%(default)s)"
    )
    return options


def add_readers(commands: Commands, shown: argparse.ArgumentParser) -> None:
    """The commands that read finished runs."""
    text = "set runs on the same test documents side by side, and test every pair; --out FILE.html writes a page"
    compare = commands.add_parser("compare", parents=[shown], help=text, description=text)
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a finished run")
    add_plan(commands, shown)
    text = "give a finished run to other tools"
    told = "; ".join(f"{name}: {what}" for name, what in forms().items())
    export = commands.add_parser("export", help=text, description=f"{text}. Forms: {told}")
    export.add_argument("form", metavar="FORM", help=f"one of {', '.join(forms())}")
    export.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    export.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        required=True,
        help="folder to write; one of an earlier export is replaced",
    )
    export.add_argument("--upload", metavar="OWNER/NAME", help="form hub: put it on the hub, where a token is set")
    export.add_argument("--private", action="store_true", help="with --upload: for nobody else to see")
    text = "read a run that was exported for the hub: its coder, explanations, predictions and report"
    pull = commands.add_parser("pull", help=text, description=text)
    pull.add_argument("source", metavar="SOURCE", help="OWNER/NAME on the hub, or a folder")
    pull.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="folder to write")
    pull.add_argument("--revision", default="main", metavar="NAME", help="revision on the hub (%(default)s)")
    text = "teach a language model to explain as a run does, from latents that it will not be asked about"
    teach = commands.add_parser("teach", parents=[set_options()], help=text, description=text)
    teach.add_argument("run", type=Path, metavar="RUN", help="folder of a run with explanations")
    teach.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="folder to write")
    text = "build a model whose every rule is known, and check what the whole pipeline says of it"
    planted = commands.add_parser("planted", help=text, description=text)
    planted.add_argument("folder", type=Path, metavar="FOLDER", help="where the built model, its texts and the runs go")


def add_plan(commands: Commands, shown: argparse.ArgumentParser) -> None:
    """The command that prices a larger run by a small one."""
    text = "say how many documents, calls and dollars an effect needs, or what a run at scale takes, from a small run"
    plan = commands.add_parser("plan", parents=[shown], help=text, description=text)
    plan.add_argument("pilot", type=Path, metavar="RUN", help="folder of a run with losses; 20 documents make a pilot")
    plan.add_argument(
        "--effect", nargs="+", type=float, default=(), metavar="X", help="what is to be found (default: 0.01 to 0.1)"
    )
    plan.add_argument(
        "--unit", choices=("recovered", "nats"), default="recovered", help="unit of --effect: share of the gap, or nats"
    )
    plan.add_argument("--power", type=float, default=0.8, help="chance to find it (%(default)s)")
    plan.add_argument("--reference", default="zero", metavar="ARM", help="arm to tell simulated from (%(default)s)")
    plan.add_argument("--latents", type=int, default=0, help="latents to rewrite (default: as many as the run)")
    plan.add_argument(
        "--scale",
        nargs="+",
        default=(),
        metavar="SIZE=N",
        help="hours, calls and disk by stage at other sizes: tokens (of the train split), latents (of the coder), "
        "rewritten (latents), documents (of the test split), layers",
    )


def add_tellers(commands: Commands, shown: argparse.ArgumentParser) -> None:
    """The commands that tell what the config may say."""
    what = "a table of the config, as in coder or simulators.towers, or one key"
    text = "write a config for a model, a layer and a text, in sizes that fit this machine, with minutes per stage"
    new = commands.add_parser("new", parents=[shown], help=text, description=text)
    new.add_argument("file", type=Path, metavar="FILE", help="TOML file to write")
    new.add_argument("--subject", default="", metavar="MODEL", help="folder, hub name or GGUF file")
    new.add_argument("--hookpoint", default="", metavar="LAYER", help="as in layers.6.mlp or layers.6")
    new.add_argument("--corpus", default="", metavar="TEXT", help="file, folder, hub dataset or stdlib")
    new.add_argument("--preset", default="", metavar="NAME", help=f"one of {', '.join(presets())} (default: what fits)")
    new.add_argument(
        "--device", default="", metavar="NAME", help="cpu, cuda, ... (default: cuda where there is one, else cpu)"
    )
    new.add_argument("--minutes", type=float, default=60, metavar="X", help="longest run to size for (%(default)s)")
    text = "print a config to start from: TOML, every key as the bundled config has it, told in comments"
    config = commands.add_parser("config", help=text, description=text)
    config.add_argument("topic", nargs="?", default="", metavar="TABLE", help=f"{what} (default: all)")
    text = "tell the keys of one table of the config, with unit and default"
    told = commands.add_parser("help", help=text, description=text)
    told.add_argument("topic", nargs="?", default="", metavar="TOPIC", help=f"{what}, or a command (default: list all)")
