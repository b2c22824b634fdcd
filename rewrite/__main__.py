"""The command line: one subcommand a stage, and `run` for all of them.

    rewrite report --config my.toml --run runs/mine --set coder.k=32

A stage's command also runs the stages before it that are not fresh.
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
from rewrite.pipeline import STAGES, go, plan, verdict
from rewrite.store import Run


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
    commands = parser.add_subparsers(dest="command", required=True, metavar="STAGE")
    for stage in STAGES:
        text = f"write {', '.join(stage.writes)}"
        commands.add_parser(stage.name, parents=[shared], help=text, epilog=_key_help(), formatter_class=layout)
    commands.add_parser("run", parents=[shared], help="every stage", epilog=_key_help(), formatter_class=layout)
    return parser


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
    last = STAGES[-1].name if options.command == "run" else options.command
    try:
        config = load_config(options.config, options.set)
        with Run(options.run, options.command) as run:
            if options.dry_run:
                print(_describe_plan(plan(config, run, last, _say), config))
            else:
                go(config, run, last, _say)
                print(verdict(run) if last == STAGES[-1].name else f"{last}: done, in {options.run}")
        return 0
    except UserError as error:
        print(f"rewrite: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if not _is_full_disk(error):
            raise
        print(
            f"rewrite: {options.run}: no space left on the disk; free some and run again, nothing finished is lost",
            file=sys.stderr,
        )
        return 2


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
