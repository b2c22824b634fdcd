"""`3_explanations.jsonl`: one latent a line, and the same format from elsewhere, maybe edited by hand.

A line is an object with `latent`, `text` (null where the explainer failed), `why`, and, where a language model said
more than the text, its whole `answer`, for the reader alone. Where one of several was chosen, `tried` lists them all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rewrite.config import Config, UserError
from rewrite.explainers.base import Explanation, Tried, suppose_text
from rewrite.run import plugins
from rewrite.run.files import write_whole


def save_explanations(path: Path, explanations: Sequence[Explanation]) -> None:
    """Write one line for each."""
    lines = [json.dumps(as_line(e), ensure_ascii=False) + "\n" for e in explanations]
    write_whole(path, "".join(lines).encode("utf-8", errors="surrogatepass"))


def load_explanations(path: Path) -> list[Explanation]:
    """What the explain stage wrote. Raises UserError naming a line that is none."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="surrogatepass").split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
                tried = tuple(Tried(one["text"], one["why"], one["fit"]) for one in row.get("tried", ()))
                said = row.get("why", ""), row.get("answer", "")
                found.append(Explanation(int(row["latent"]), row["text"], *said, tried))
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path}:{number}: not an explanation ({error}); explain again") from None
    return found


def suppose(config: Config, latents: Sequence[int]) -> list[Explanation]:
    """What a dry run takes for explanations that are not written yet: as long as they may be, no two the same, so that
    what they make others ask is not underrated."""
    words = getattr(plugins.chosen("explainer", config), "max_words", 0)
    return [Explanation(i, suppose_text(words, str(i))) for i in latents]


def as_line(explanation: Explanation) -> dict[str, object]:
    """An explanation as its line says it."""
    line: dict[str, object] = {"latent": explanation.latent, "text": explanation.text, "why": explanation.why}
    line |= {"answer": explanation.answer} if explanation.answer else {}
    return line | {"tried": [asdict(one) for one in explanation.tried]} if explanation.tried else line


def read_explanations(file: Path, latents: int) -> list[Explanation]:
    """Explanations from a JSONL file, one a latent at most. Raises UserError naming the line that does not fit."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not readable as UTF-8 text ({error}); set explain.file") from None
    found: dict[int, Explanation] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            explanation = _read_line(line, f"{file}:{number}", latents)
            if explanation.latent in found:
                raise UserError(f"{file}:{number}: latent {explanation.latent} is explained twice; keep one line")
            found[explanation.latent] = explanation
    if not found:
        raise UserError(f"{file}: no explanations in this file; write a line with latent and text for each")
    return [found.get(i) or Explanation(i, None, "not in the explanations file") for i in range(latents)]


def _read_line(line: str, where: str, latents: int) -> Explanation:
    try:
        row = json.loads(line)
        latent, text, why = row["latent"], row["text"], row.get("why", "")
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: needs an object with latent and text ({error!r})") from None
    if not isinstance(latent, int) or isinstance(latent, bool) or not 0 <= latent < latents:
        raise UserError(f"{where}: latent {latent!r} is not one of the coder's 0 to {latents - 1}")
    if not (text is None or isinstance(text, str)) or not isinstance(why, str):
        raise UserError(f"{where}: text must be a string, or null where the explanation is missing")
    return Explanation(latent, text, why)
