"""What a language model's answer is worth as an explanation: the sentence in it, or why it holds none.

Tolerant of form (bullets, bold, a full-width colon, the sentence on the next line), strict of content: an answer about
itself, a copy of the prompt's own worked examples or rules, a loop, and the windows' own text are no explanations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rewrite.engines.base import Answer, strip_thought
from rewrite.engines.prompting import Message
from rewrite.explainers.base import Explanation
from rewrite.patterns.grammar import count_words

BEGIN = "[EXPLANATION]:"

# The beginning of the line that holds the sentence, also in bold or as a heading, also said twice.
MARKER = re.compile(
    r"^(?:[\ufeff \t#>]*(?:(?:[-*•+]|\d+[.)])[ \t]+)?(?P<bold>\*{1,3}|_{1,3}|`)?\[explanation\](?:(?P=bold))?"
    r"[ \t]*[:：](?(bold)(?P=bold)?)[ \t]*)+",
    re.IGNORECASE | re.MULTILINE,
)
NEXT_LINE = re.compile(r"^[ \t]*\n")
"""The sentence may stand on the very next line; after an empty one the prompt's layout may go on."""

REFUSAL = re.compile(
    r"\s*(?:(?:i am|i['’]m) (?:sorry|unable|not able)"
    r"|i (?:cannot|can not|can['’]t|won['’]t|will not|must decline)\b(?! *,)"
    r"|(?:sorry|apologies|unfortunately),? (?:but )?i\b|as an ai\b)",
    re.IGNORECASE,
)

IDEOGRAPH = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Scripts without spaces, of which each character counts as a word."""
WORD_END = re.compile(rf"(?<=[^\W_])(?![^\W_])|(?<=\S)(?!\S)|(?<={IDEOGRAPH.pattern})")


def count_prose(text: str) -> int:
    """Words of a sentence: what stands between spaces, or the count of the language of rules (`count_words`), whichever
    is more, so that neither glue nor single signs are free."""
    return max(count_words(text), len(text.split()), len(IDEOGRAPH.findall(text)))


LISTED = re.compile(r"^Words, the strongest first:.*$", re.MULTILINE)
"""The prompt's own list of what a latent responds to: saying it again is an explanation."""


@dataclass(frozen=True)
class Form:
    """What is asked of an answer."""

    max_words: int
    thought: bool
    """The model thinks before it answers: the last line counts."""
    begun: bool
    """The answer was begun for the model."""


def parse(latent: int, answer: Answer, form: Form, messages: Sequence[Message] = ()) -> Explanation:
    """The sentence of an answer, or why there is none. The answer's own text is kept where the sentence is not all of
    it; `messages` are the prompt, which is not to be copied."""
    answer = strip_thought(answer)
    full = BEGIN + answer.text if form.begun else answer.text
    lines = list(MARKER.finditer(full))
    if not lines:
        kind = "refusal" if REFUSAL.match(full) else "malformed" if answer.whole else "truncated"
        return Explanation(latent, None, f"{kind}: no line that begins with {BEGIN}", answer.text)
    # After a chain of thought the last line counts; else a model that goes on has answered with the first.
    begins = lines[-1 if form.thought else 0].end()
    line, newline, _ = NEXT_LINE.sub("", full[begins:], count=1).partition("\n")
    sentence = _cut(line.strip(), form.max_words)
    why = ""
    if not answer.whole and not newline and sentence == line.strip():
        why = "truncated: the answer was cut off within the sentence; raise explainers.llm.max_tokens"
    elif not any(character.isalnum() for character in sentence):
        why = "malformed: no words after " + BEGIN
    elif REFUSAL.match(sentence):
        why = "refusal: the answer is about itself"
    else:
        why = find_copy(sentence, messages)
    if why:
        return Explanation(latent, None, why, answer.text)
    whole = MARKER.sub("", full, count=1).strip() == sentence
    return Explanation(latent, sentence, answer="" if whole else answer.text)


def find_copy(sentence: str, messages: Sequence[Message]) -> str:
    """Why a sentence is no explanation but a loop or a copy of what the prompt says; empty for one that is neither."""
    words = _words(sentence)
    if len(words) >= 6 and len(set(words)) <= len(words) // 3:
        return "loop: the same words again and again"
    system = [m.content for m in messages if m.role == "system"]
    examples = [MARKER.sub("", m.content) for m in messages if m.role == "assistant"]
    windows = [LISTED.sub("", re.sub(r"<<|>>|</?text>", "", m.content)) for m in messages if m.role == "user"][-1:]
    if any(
        words == _words(example.splitlines()[-1]) or _shares(words, [example], 6) for example in examples if example
    ):
        return "parroted: a worked example of the prompt, not this latent's explanation"
    if _shares(words, system, 6):
        return "echo: the prompt's own rules"
    return "echo: the text of the windows" if _shares(words, windows, 10) else ""


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _shares(words: Sequence[str], texts: Sequence[str], least: int, size: int = 4) -> bool:
    """Whether most runs of words of a sentence that is long enough stand in the texts too."""
    runs = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    there = {tuple(other[i : i + size]) for other in map(_words, texts) for i in range(len(other))}
    return len(words) >= least and sum(run in there for run in runs) > 0.7 * len(runs)


def _cut(sentence: str, words: int) -> str:
    """The longest beginning of a sentence that ends with a word and has at most so many words; 0 keeps all."""
    if not words or count_prose(sentence) <= words:
        return sentence
    kept = ""
    for match in WORD_END.finditer(sentence):
        beginning = sentence[: match.end()]
        if len(beginning.split()) > words:
            break
        if count_prose(beginning) <= words:
            kept = beginning
    return kept
