"""The command line: one subcommand a stage, `run` for all of them, and two that read finished runs.

    rewrite report --config my.toml --run runs/mine --set coder.k=32
    rewrite compare runs/mine runs/other
    rewrite plan runs/pilot --effect 0.05

A stage's command also runs the stages before it that are not fresh. `compare` and `plan` change nothing in a run.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import textwrap
from pathlib import Path

from rewrite import __version__
from rewrite.calls import Planned, cost
from rewrite.config import Config, UserError, list_keys, load_config
from rewrite.fresh import backend_keys
from rewrite.pipeline import STAGES, go, verdict
from rewrite.pipeline import plan as plan_calls
from rewrite.store import Run, write_whole
from rewrite.tables import Form, Page

ENDINGS: dict[str, Form] = {".md": "markdown", ".json": "json"}
"""The form that the ending of `--out` asks for."""


def build_parser() -> argparse.ArgumentParser:
    """The parser; every config key is documented at the end of `--help`."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--config", type=Path, metavar="FILE", help="TOML config (default: the bundled default.toml)")
    shared.add_argument(
        "--run", type=Path, metavar="DIR", default=Path("runs/default"), help="run folder (%(default)s)"
    )
    shared.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one config key; may be repeated"
    )
    shared.add_argument(
        "--dry-run", action="store_true", help="say what language models would be asked, and its price; ask nothing"
    )
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="rewrite", description=__doc__, epilog=_key_help(), formatter_class=layout)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    texts = {stage.name: f"write {', '.join(stage.writes)}" for stage in STAGES} | {"run": "every stage"}
    for name, text in texts.items():
        command = commands.add_parser(name, parents=[shared], help=text, epilog=_key_help(), formatter_class=layout)
        command.set_defaults(act=_run_stages)
    _add_readers(commands)
    return parser


def _add_readers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The commands that read finished runs."""
    shown = argparse.ArgumentParser(add_help=False)
    forms = ("table", "markdown", "json")
    shown.add_argument(
        "--format", choices=forms, help="form of what is said (default: by the ending of --out, or table)"
    )
    shown.add_argument("--out", type=Path, metavar="FILE", help="write it there: .md is Markdown, .json is JSON")
    text = "set runs on the same test documents side by side, and test every pair"
    compare = commands.add_parser("compare", parents=[shown], help=text, description=text)
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a finished run")
    compare.set_defaults(act=_compare)
    text = "say how many documents, calls and dollars an effect needs, from a small run"
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
    plan.set_defaults(act=_plan)


def _key_help() -> str:
    """Every key with its unit and default, wrapped."""
    lines = ["config keys, for the TOML file or --set:"]
    for key, (text, default) in (list_keys(Config) | backend_keys()).items():
        lines.append(f"  {key} = {default}")
        lines.extend(textwrap.wrap(text, 96, initial_indent="      ", subsequent_indent="      "))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    options = build_parser().parse_args(arguments)
    try:
        options.act(options)
        return 0
    except UserError as error:
        print(f"rewrite: {error}", file=sys.stderr)
        return 2


def _run_stages(options: argparse.Namespace) -> None:
    """Run the stages up to the one that is named, or say what they would ask."""
    last = STAGES[-1].name if options.command == "run" else options.command
    config = load_config(options.config, options.set)
    try:
        with Run(options.run, options.command) as run:
            if options.dry_run:
                print(_describe_plan(plan_calls(config, run, last, _say), config))
            else:
                go(config, run, last, _say)
                print(verdict(run) if last == STAGES[-1].name else f"{last}: done, in {options.run}")
    except Exception as error:
        if not _is_full_disk(error):
            raise
        raise UserError(
            f"{options.run}: no space left on the disk; free some and run again, nothing finished is lost"
        ) from None


def _compare(options: argparse.Namespace) -> None:
    from rewrite.comparison import compare

    _show(compare(options.runs), options)


def _plan(options: argparse.Namespace) -> None:
    from rewrite.planning import Wish, plan_run

    wish = Wish(tuple(options.effect), options.unit, options.power, options.reference, options.latents)
    _show(plan_run(options.pilot, wish), options)


def _show(page: Page, options: argparse.Namespace) -> None:
    """Print a page, or write it where `--out` says, in the form that was asked for."""
    out: Path | None = options.out
    form: Form = options.format or (ENDINGS.get(out.suffix, "table") if out else "table")
    text = page.write(form) + "\n"
    if out is None:
        sys.stdout.write(text)
        return
    try:
        write_whole(out, text.encode())
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}); name another file") from None
    print(f"written to {out}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _describe_plan(planned: dict[str, Planned], config: Config) -> str:
    """What asking would come to, a line a stage."""
    lines = []
    for stage, met in planned.items():
        spent, prices = met.planned, config.calls
        priced = prices.price_in or prices.price_out
        price = f"at most ${cost(spent, prices):,.2f}" if priced else "no price: set calls.price_in and calls.price_out"
        lines.append(
            f"{stage}: {spent.calls:,} calls, {spent.tokens_in:,} prompt tokens, at most {spent.tokens_out:,} answer "
            f"tokens, {price}; {met.cached:,} requests are in the cache"
        )
    return "\n".join(lines or ["no language model would be asked"])


def _is_full_disk(error: Exception) -> bool:
    """Whether a disk or quota is full; safetensors and torch raise errors of their own, known by what they say."""
    number = error.errno if isinstance(error, OSError) else None
    signs = ("No space left on device", "os error 28", "inline_container.cc")
    return number in (errno.ENOSPC, errno.EDQUOT) or any(sign in str(error) for sign in signs)


def command() -> None:
    """The console script: `main` as a process of its own, which Ctrl-C ends at once."""
    signal.signal(signal.SIGINT, _stop)
    sys.exit(main())


def _stop(*_: object) -> None:
    """End here: a run folder survives a kill, and an exception may be swallowed by a library that is being imported."""
    os.write(2, b"\nrewrite: stopped; the same command goes on from what is finished\n")
    os._exit(130)


if __name__ == "__main__":
    command()
