"""The command line: one subcommand a stage, `run` for all of them, and those that only read runs.

    rewrite report --config my.toml --run runs/mine --set coder.k=32 --open
    rewrite status --run runs/mine
    rewrite sweep --config my.toml --grid hookpoint=layers.0.mlp,layers.2.mlp --grid coder.seed=0,1 --out runs/sweep
    rewrite compare runs/mine runs/other --out compared.html
    rewrite plan runs/pilot --effect 0.05
    rewrite export dataset runs/mine --out dataset
    rewrite pull OWNER/NAME --out theirs
    rewrite teach runs/mine --out taught --set explainers.llm.model=MODEL
    rewrite planted FOLDER
    rewrite new my.toml
    rewrite config > my.toml
    rewrite help coder

A stage's command also runs the stages before it that are not fresh; `sweep` and `planted` make runs. The others change
nothing in a run. What tells of runs is a table at a terminal, plain text in a pipe, and, where a command has these
options, JSON with `--json` and Markdown with `--markdown`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import webbrowser
from pathlib import Path

from rewrite import DISTRIBUTION, __version__
from rewrite.commands.export import export
from rewrite.commands.keys import list_topics, tell_keys, topics, write_config
from rewrite.commands.options import add_readers, add_tellers, config_options, grid_options, table_options
from rewrite.config import Config, UserError
from rewrite.display.tables import Form, Page, say, show
from rewrite.engines.ledger import Planned
from rewrite.run.configs import choose_config
from rewrite.run.files import full_disk_told, write_whole
from rewrite.run.finished import SWEEP
from rewrite.run.runner import go, verdict
from rewrite.run.runner import plan as plan_calls
from rewrite.run.store import Run
from rewrite.stages import STAGES

KEYS = "Keys of the config, for the TOML file or --set: `rewrite help`, `rewrite help coder`; a file: `rewrite config`."
ENDINGS: dict[str, Form] = {".md": "markdown", ".json": "json"}
"""The form that the ending of `--out` asks for."""


def build_parser() -> argparse.ArgumentParser:
    """The parser; what the config may say is told by `rewrite help`."""
    config = config_options()
    shown = table_options()
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="rewrite", description=__doc__, epilog=KEYS, formatter_class=layout)
    parser.add_argument("--version", action="version", version=f"{DISTRIBUTION} {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    texts = {stage.name: f"write {', '.join(stage.writes)}" for stage in STAGES} | {"run": "every stage"}
    for name, text in texts.items():
        command = commands.add_parser(name, parents=[config, shown], help=text, epilog=KEYS)
        command.set_defaults(act=_run_stages, open=False)
        how = command.add_mutually_exclusive_group()
        text = "say what language models would be asked, and its price; ask nothing, and make only what is asked about"
        how.add_argument("--dry-run", action="store_true", help=text)
        if name in ("run", STAGES[-1].name):
            how.add_argument("--open", action="store_true", help="open the report in a browser")
    text = "say which stages of a run are fresh, how far it has come, what it cost, and what to do next"
    status = commands.add_parser("status", parents=[config, shown], help=text, description=text)
    status.set_defaults(act=_status)
    text = "make a run of every point of a grid, and one page over all of them; a rerun goes on"
    sweep = commands.add_parser("sweep", parents=[grid_options()], help=text, description=text, epilog=KEYS)
    sweep.set_defaults(act=_sweep)
    add_readers(commands, shown)
    add_tellers(commands, shown)
    acts = {"compare": _compare, "plan": _plan, "export": _export, "planted": _planted, "new": _new, "pull": _pull}
    for name, act in (acts | {"teach": _teach}).items():
        commands.choices[name].set_defaults(act=act)
    commands.choices["config"].set_defaults(act=lambda options: say(write_config(options.topic)))
    commands.choices["help"].set_defaults(act=lambda options: _help(options.topic, commands.choices))
    return parser


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
    config = choose_config(options.run, options.config, options.set, _say, options.preset)
    with full_disk_told(options.run), Run(options.run, options.command) as run:
        if options.dry_run:
            _say_price(plan_calls(STAGES, config, run, last, _say), config, options)
        else:
            go(STAGES, config, run, last, _say)
            print(verdict(run) if last == STAGES[-1].name else f"{last}: done, in {options.run}")
    if options.open:
        _open(options.run / "7_report" / "index.html")


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

    if (options.run / SWEEP).is_file():
        from rewrite.commands.status.sweep import status_of_sweep

        if options.config or options.set or options.preset:
            raise UserError(
                "status: --config and --set are for one run; a sweep's points are told by their own configs"
            )
        _show(status_of_sweep(options.run), options)
    else:
        _show(status(options.run, options.config, options.set, options.preset), options)


def _sweep(options: argparse.Namespace) -> int:
    """Status 1 where anything was not made."""
    from rewrite.commands.sweep import sweep

    page = sweep(options.config, options.set, options.grid, options.out, options.preset)
    show(page)
    return 1 if page.facts["faults"] else 0


def _compare(options: argparse.Namespace) -> None:
    from rewrite.commands.compare import compare

    page, out = compare(options.runs), options.out
    if out and out.suffix == ".html":
        from rewrite.commands.compare.page import render

        _write(out, render(options.runs, page, out))
    else:
        _show(page, options)


def _plan(options: argparse.Namespace) -> None:
    if options.scale:
        from rewrite.commands.plan.scale import scale_run

        if options.effect or options.latents:
            raise UserError("--scale: prices sizes that are named; plan an --effect by itself, and say latents=N here")
        _show(scale_run(options.pilot, options.scale), options)
        return
    from rewrite.commands.plan import Wish, plan_run

    wish = Wish(tuple(options.effect), options.unit, options.power, options.reference, options.latents)
    _show(plan_run(options.pilot, wish), options)


def _new(options: argparse.Namespace) -> None:
    from rewrite.commands.new import Wish, ask_at_terminal, draft, is_asked

    said = options.subject, options.hookpoint, options.corpus, options.preset, options.device, options.minutes
    _show(draft(Wish(options.file, *said), ask_at_terminal if is_asked() else None), options)


def _export(options: argparse.Namespace) -> None:
    if options.upload:
        from rewrite.commands.share import check_token, upload

        if options.form != "hub":
            raise UserError(f"--upload: is for the form hub, not {options.form}; `rewrite export hub`")
        check_token(options.upload)
    for line in export(options.form, options.run, options.out):
        print(line)
    if options.upload:
        print(f"on the hub: {upload(options.out, options.upload, options.private)}")


def _pull(options: argparse.Namespace) -> None:
    from rewrite.commands.share import pull

    for line in pull(options.source, options.out, options.revision):
        print(line)


def _teach(options: argparse.Namespace) -> None:
    from rewrite.commands.teach import teach

    for line in teach(options.run, options.out, options.set):
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
