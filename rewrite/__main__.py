"""The command line: one subcommand a stage, `run` for all of them, and those that only read runs.

    rewrite report --config my.toml --run runs/mine --set coder.k=32 --open
    rewrite status --run runs/mine
    rewrite compare runs/mine runs/other --out compared.html
    rewrite plan runs/pilot --effect 0.05
    rewrite export dataset runs/mine --out dataset
    rewrite planted FOLDER
    rewrite config > my.toml
    rewrite help coder

A stage's command also runs the stages before it that are not fresh. The others change nothing in a run. What they say
is a table at a terminal, plain text in a pipe, JSON with `--json` and Markdown with `--markdown`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import webbrowser
from pathlib import Path

from rewrite import DISTRIBUTION, __version__
from rewrite.commands.export import export, forms
from rewrite.commands.keys import list_topics, tell_keys, topics, write_config
from rewrite.config import Config, UserError
from rewrite.display.tables import Form, Page, say, show
from rewrite.engines.calls import Planned
from rewrite.run.configs import load_config, read_recorded
from rewrite.run.files import is_full_disk, read_json, write_whole
from rewrite.run.runner import go, verdict
from rewrite.run.runner import plan as plan_calls
from rewrite.run.store import Run
from rewrite.stages import STAGES

KEYS = "Keys of the config, for the TOML file or --set: `rewrite help`, `rewrite help coder`; a file: `rewrite config`."
ENDINGS: dict[str, Form] = {".md": "markdown", ".json": "json"}
"""The form that the ending of `--out` asks for."""


def build_parser() -> argparse.ArgumentParser:
    """The parser; what the config may say is told by `rewrite help`."""
    config = _config_options()
    shown = _table_options()
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="rewrite", description=__doc__, epilog=KEYS, formatter_class=layout)
    parser.add_argument("--version", action="version", version=f"{DISTRIBUTION} {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    texts = {stage.name: f"write {', '.join(stage.writes)}" for stage in STAGES} | {"run": "every stage"}
    for name, text in texts.items():
        command = commands.add_parser(name, parents=[config, shown], help=text, epilog=KEYS)
        command.set_defaults(act=_run_stages, open=False)
        how = command.add_mutually_exclusive_group()
        how.add_argument(
            "--dry-run", action="store_true", help="say what language models would be asked, and its price; ask nothing"
        )
        if name in ("run", STAGES[-1].name):
            how.add_argument("--open", action="store_true", help="open the report in a browser")
    text = "say which stages of a run are fresh, how far it has come, what it cost, and what to do next"
    status = commands.add_parser("status", parents=[config, shown], help=text, description=text)
    status.set_defaults(act=_status)
    _add_readers(commands, shown)
    _add_tellers(commands)
    return parser


def _config_options() -> argparse.ArgumentParser:
    """What names a run and its config."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML config (default: the bundled default.toml; without --set, that of the run folder where it has one)",
    )
    options.add_argument(
        "--run", type=Path, metavar="DIR", default=Path("runs/default"), help="run folder (%(default)s)"
    )
    options.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one config key; may be repeated"
    )
    return options


def _table_options() -> argparse.ArgumentParser:
    """In which form a table is given."""
    options = argparse.ArgumentParser(add_help=False)
    form = options.add_mutually_exclusive_group()
    form.add_argument("--json", dest="form", action="store_const", const="json", help="print the table's facts as JSON")
    form.add_argument("--markdown", dest="form", action="store_const", const="markdown", help="print it as Markdown")
    form.add_argument("--out", type=Path, metavar="FILE", help="write it to a file: .json, .md, else plain text")
    return options


def _add_readers(commands: argparse._SubParsersAction[argparse.ArgumentParser], shown: argparse.ArgumentParser) -> None:
    """The commands that read finished runs."""
    text = "set runs on the same test documents side by side, and test every pair; --out FILE.html writes a page"
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
    export.set_defaults(act=_export)
    text = "build a model whose every rule is known, and check what the whole pipeline says of it"
    planted = commands.add_parser("planted", help=text, description=text)
    planted.add_argument("folder", type=Path, metavar="FOLDER", help="where the built model, its texts and the runs go")
    planted.set_defaults(act=_planted)


def _add_tellers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The commands that tell what the config may say."""
    what = "a table of the config, as in coder or simulators.towers, or one key"
    text = "print a config to start from: TOML, every key at its default, told in comments"
    config = commands.add_parser("config", help=text, description=text)
    config.add_argument("topic", nargs="?", default="", metavar="TABLE", help=f"{what} (default: all)")
    config.set_defaults(act=lambda options: say(write_config(options.topic)))
    text = "tell the keys of one table of the config, with unit and default"
    told = commands.add_parser("help", help=text, description=text)
    told.add_argument("topic", nargs="?", default="", metavar="TOPIC", help=f"{what}, or a command (default: list all)")
    told.set_defaults(act=lambda options: _help(options.topic, commands.choices))


def _help(topic: str, commands: dict[str, argparse.ArgumentParser]) -> None:
    """Tell a topic; a stage's name is first the table of the config."""
    if topic in commands and topic not in topics():
        say(commands[topic].format_help())
    else:
        say(tell_keys(topic) if topic else list_topics())


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    options = build_parser().parse_args(arguments)
    try:
        return int(options.act(options) or 0)
    except UserError as error:
        print(f"rewrite: {error}", file=sys.stderr)
        return 2


def _run_stages(options: argparse.Namespace) -> None:
    """Run the stages up to the one that is named, or say what they would ask."""
    last = STAGES[-1].name if options.command == "run" else options.command
    if not options.dry_run and (options.form or options.out):
        raise UserError(
            f"{options.command}: --json, --markdown and --out are for --dry-run; `rewrite status` tells of a run"
        )
    config = _choose_config(options)
    try:
        with Run(options.run, options.command) as run:
            if options.dry_run:
                _say_price(plan_calls(STAGES, config, run, last, _say), config, options)
            else:
                go(STAGES, config, run, last, _say)
                print(verdict(run) if last == STAGES[-1].name else f"{last}: done, in {options.run}")
    except Exception as error:
        if not is_full_disk(error):
            raise
        raise UserError(
            f"{options.run}: no space left on the disk; free some and run again, nothing finished is lost"
        ) from None
    if options.open:
        _open(options.run / "7_report" / "index.html")


def _choose_config(options: argparse.Namespace) -> Config:
    """The config that is named; else the one that the run folder records, so that opening a report or going on with a
    run never makes it another; else the bundled one."""
    manifest = options.run / "manifest.json"
    own = read_json(manifest) if manifest.is_file() else {}
    if options.config or options.set or not (isinstance(own, dict) and own.get("config")):
        return load_config(options.config, options.set)
    recorded = read_recorded(manifest, own)
    if recorded.unknown:
        _say(f"{options.run}: {recorded.describe_unknown()}")
    return recorded.config


def _say_price(planned: dict[str, Planned], config: Config, options: argparse.Namespace) -> None:
    from rewrite.commands.price import price_calls

    _show(price_calls(planned, config.calls), options)


def _open(page: Path) -> None:
    """Show a page in the browser; where there is none, the page is named."""
    try:
        opened = webbrowser.open(page.resolve().as_uri())
    except webbrowser.Error:
        opened = False
    if not opened:
        _say(f"rewrite: no browser could be opened; open {page} in one")


def _status(options: argparse.Namespace) -> None:
    from rewrite.commands.status import status

    _show(status(options.run, options.config, options.set), options)


def _compare(options: argparse.Namespace) -> None:
    from rewrite.commands.compare import compare

    page, out = compare(options.runs), options.out
    if out and out.suffix == ".html":
        from rewrite.commands.compare.page import render

        _write(out, render(options.runs, page, out))
    else:
        _show(page, options)


def _plan(options: argparse.Namespace) -> None:
    from rewrite.commands.plan import Wish, plan_run

    wish = Wish(tuple(options.effect), options.unit, options.power, options.reference, options.latents)
    _show(plan_run(options.pilot, wish), options)


def _export(options: argparse.Namespace) -> None:
    for line in export(options.form, options.run, options.out):
        print(line)


def _planted(options: argparse.Namespace) -> int:
    """Status 1 where anything is not as it was planted."""
    from rewrite.commands.planted import plant

    table, wrong = plant(options.folder)
    print(table)
    print("\n".join(wrong) or "All as it was planted.")
    return 1 if wrong else 0


def _show(page: Page, options: argparse.Namespace) -> None:
    """Print a page in the form that was asked for, or write it where `--out` says, in the form of its ending."""
    if options.out:
        _write(options.out, page.write(ENDINGS.get(options.out.suffix, "table")) + "\n")
    elif options.form:
        sys.stdout.write(page.write(options.form) + "\n")
    else:
        show(page)


def _write(out: Path, text: str) -> None:
    try:
        write_whole(out, text.encode())
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}); name another file") from None
    print(f"written to {out}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


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
