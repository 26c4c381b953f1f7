"""Training rows of the default model: a general taxonomy of requests.

They are written for this project as templates with slots (data/requests.json), said politely,
curtly and carelessly; as examples in free form; and as the training rows of two public data sets
that map onto the taxonomy. Only the examples are ever held out: what is measured on filled
templates looks far better than it is. What is outside the taxonomy is made too: strings that ask
for nothing.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinydancer.errors import NotFound
from tinydancer.neural.dataset import LabelledText

TEMPLATES = Path(__file__).parent / "data" / "requests.json"
FILLINGS = 6
"""Ways at most that the slots of one template are filled."""
MANNERS = 4
"""Other ways in which an example is said, some of which come out the same."""
PARTS = 5
ALWAYS = -1
PUBLIC_ROWS = 12
"""Rows taken of each public intent."""

_SLOT = re.compile(r"\{(\w+)\}")
_OPENINGS = (
    "please ",
    "can you ",
    "could you please ",
    "hi, ",
    "hey, ",
    "I want you to ",
    "I need you to ",
    "quick question: ",
    "ok so ",
    "would you ",
)
_CLOSINGS = (" please", " thanks", " asap", ", thank you", " if possible", "!", " for me")
_IMPERATIVE_ONLY = (
    "can you ",
    "could you please ",
    "I want you to ",
    "I need you to ",
    "would you ",
)

_ACTION = ("tools", "simple-tasks")
_CHAT = ("conversation", "simple-tasks")
_FACT = ("knowledge", "simple-tasks")
CLINC_INTENTS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "action": (
        _ACTION,
        "alarm timer reminder reminder_update todo_list todo_list_update calendar_update "
        "play_music next_song update_playlist make_call text smart_home book_flight book_hotel "
        "restaurant_reservation cancel_reservation uber transfer pay_bill schedule_meeting "
        "schedule_maintenance change_volume order shopping_list_update find_phone whisper_mode "
        "change_speed sync_device share_location car_rental pto_request",
    ),
    "conversation": (
        _CHAT,
        "greeting goodbye thank_you yes no maybe are_you_a_bot how_old_are_you what_is_your_name "
        "what_are_your_hobbies tell_joke where_are_you_from who_made_you who_do_you_work_for "
        "do_you_have_pets what_can_i_ask_you",
    ),
    "question_answering": (
        _FACT,
        "definition fun_fact calories nutrition_info distance timezone plug_type spelling "
        "international_visa vaccines food_last cook_time ingredient_substitution tire_pressure",
    ),
    "translation": (("translation",), "translate"),
    "mathematics": (("mathematics", "simple-tasks"), "calculator measurement_conversion"),
    "support": (
        ("support",),
        "report_fraud card_declined damaged_card lost_luggage order_status report_lost_card "
        "account_blocked replacement_card_duration pin_change new_card freeze_account "
        "application_status credit_limit_change",
    ),
}  # fmt: skip
"""Category, with what it calls for, of the CLINC150 intents that fit one."""


@dataclass(frozen=True)
class Taught:
    """A training row and the part it is held out in, or ALWAYS."""

    row: LabelledText
    part: int


def written(seed: int = 0) -> list[Taught]:
    """The rows of the examples and the templates. The same seed gives the same rows."""
    about = json.loads(TEMPLATES.read_text("utf-8"))
    rng = random.Random(seed)  # noqa: S311 - sampling, nothing secret
    taught: dict[str, Taught] = {}
    for category, examples in about["examples"].items():
        for number, example in enumerate(examples):
            for text in (example["text"], *(_manner(example["text"], rng) for _ in range(MANNERS))):
                row = LabelledText(text, category, tuple(example["capabilities"]))
                taught.setdefault(_key(text), Taught(row, number % PARTS))
    for category, kinds in about["categories"].items():
        for kind in kinds:
            for template in kind["templates"]:
                for text in _said(template, about["slots"], rng):
                    row = LabelledText(text, category, tuple(kind["capabilities"]))
                    taught.setdefault(_key(text), Taught(row, ALWAYS))
    return list(taught.values())


def public(data: Path, seed: int = 0) -> list[Taught]:
    """Rows of the training files of CLINC150 and BANKING77 under `data`; no other file is read.

    Raises NotFound where a file is missing.
    """
    rng = random.Random(seed)  # noqa: S311
    taught: list[Taught] = []
    clinc = _by_intent(data / "clinc150" / "train.jsonl.gz")
    for category, (capabilities, intents) in CLINC_INTENTS.items():
        for intent in intents.split():
            taught += _sampled(clinc[intent], category, capabilities, rng)
    banking = _by_intent(data / "banking77" / "train.jsonl.gz")
    for intent in sorted(banking):
        taught += _sampled(banking[intent], "support", ("support",), rng, PUBLIC_ROWS // 3)
    return taught


def outside(seed: int = 0, count: int = 600) -> list[str]:
    """Strings that ask for nothing: mashed keys, codes, bare signs, made-up and shuffled words."""
    rng = random.Random(seed)  # noqa: S311
    about = json.loads(TEMPLATES.read_text("utf-8"))
    common = sorted(
        {
            word
            for kinds in about["categories"].values()
            for kind in kinds
            for template in kind["templates"]
            for word in re.findall(r"[a-z]{2,}", _SLOT.sub("", template).lower())
        }
    )
    makers = (
        lambda: " ".join(_letters(rng, string.ascii_lowercase, 2, 9) for _ in range(_few(rng))),
        lambda: "".join(_syllable(rng) for _ in range(rng.randint(2, 4)))
        + " " + "".join(_syllable(rng) for _ in range(rng.randint(1, 4))),
        lambda: _letters(rng, string.hexdigits.lower(), 8, 40),
        lambda: _letters(rng, string.digits, 1, 14),
        lambda: _letters(rng, "?!.,;:%$#&*()[]{}<>/\\|~^-_=+", 1, 9),
        lambda: _letters(rng, "asdfghjklqwertyuiopzxcvbnm", 1, 3) * rng.randint(1, 6),
        lambda: f"{_letters(rng, string.ascii_uppercase, 2, 4)}-{rng.randint(100, 99999)}",
        lambda: " ".join(rng.sample(("the", "of", "and", "to", "a", "in", "that", "it", "which",
                                     "by", "or", "but", "with", "from"), rng.randint(2, 7))),
        lambda: " ".join(rng.sample(_NOUNS, rng.randint(3, 7))),
        lambda: " ".join(rng.sample(_NOUNS, 2) + rng.sample(common, rng.randint(1, 2))),
        lambda: " ".join([_letters(rng, string.ascii_lowercase, 2, 5)] * rng.randint(2, 4)),
    )  # fmt: skip
    made: dict[str, None] = {}
    while len(made) < count:
        made.setdefault(rng.choice(makers)())
    return list(made)


_NOUNS = (
    "walnut", "ladder", "purple", "seven", "granite", "whisper", "tulip", "engine", "vinegar",
    "sideways", "copper", "Wednesday", "anchor", "pillow", "eleven", "orbit", "mustard", "velvet",
    "hinge", "gravel", "lantern", "otter", "sulphur", "thimble", "zigzag", "marble", "plank",
    "feather", "jelly", "canyon", "button", "harp", "saddle", "ivory", "kettle", "mosaic", "raven",
    "shovel", "tundra",
)  # fmt: skip


def _said(template: str, slots: Mapping[str, Any], rng: random.Random) -> Iterator[str]:
    """The template filled in different ways, each in one way of saying it."""
    names = _SLOT.findall(template)
    seen: set[str] = set()
    for number in range(FILLINGS if names else 3):
        text = _SLOT.sub(lambda match: rng.choice(slots[match[1]]), template)
        if text in seen:
            continue
        seen.add(text)
        yield _manner(text, rng) if number % 2 or (number and not names) else text


def _manner(text: str, rng: random.Random) -> str:
    """The same said politely, curtly or carelessly."""
    question = text.endswith("?")
    way = rng.random()
    if way < 0.35:
        choices = [o for o in _OPENINGS if not (question and o in _IMPERATIVE_ONLY)]
        return rng.choice(choices) + text[:1].lower() + text[1:]
    if way < 0.5 and not question:
        return text + rng.choice(_CLOSINGS)
    if way < 0.7:
        return text.lower().rstrip("?.!")
    if way < 0.8:
        return text.rstrip("?.!")
    if way < 0.9 and len(text) > 12:
        place = rng.randrange(2, len(text) - 2)
        return text[:place] + text[place + 1 :]
    return text


def _by_intent(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        raise NotFound(
            f"there is no {str(path)!r}",
            hint="Give the directory that holds clinc150/train.jsonl.gz and "
            "banking77/train.jsonl.gz.",
        )
    found: dict[str, list[str]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            found.setdefault(row["label"], []).append(row["text"])
    return found


def _sampled(
    texts: Sequence[str],
    category: str,
    capabilities: tuple[str, ...],
    rng: random.Random,
    count: int = PUBLIC_ROWS,
) -> list[Taught]:
    chosen = rng.sample(sorted(texts), min(count, len(texts)))
    return [Taught(LabelledText(text, category, capabilities), ALWAYS) for text in chosen]


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def _letters(rng: random.Random, letters: str, least: int, most: int) -> str:
    return "".join(rng.choice(letters) for _ in range(rng.randint(least, most)))


def _few(rng: random.Random) -> int:
    return rng.randint(1, 5)


def _syllable(rng: random.Random) -> str:
    return rng.choice("bdfgklmnprstvwxz") + rng.choice("aeiou") + rng.choice(["", "n", "rk", "x"])
