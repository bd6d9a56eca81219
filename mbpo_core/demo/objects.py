"""Objects and colours of the demo scenes: which object has a canonical colour, and which split may ask about it."""

from __future__ import annotations

from mbpo_core.records import Split

COLORS: dict[str, tuple[int, int, int]] = {
    "yellow": (240, 210, 30),
    "red": (220, 40, 40),
    "green": (50, 165, 60),
    "blue": (50, 95, 225),
    "purple": (145, 60, 185),
    "orange": (245, 130, 20),
}
"""Tint of each colour word, 8-bit RGB at full luminance."""

CANONICAL: dict[str, str] = {
    "banana": "yellow",
    "chick": "yellow",
    "strawberry": "red",
    "tomato": "red",
    "frog": "green",
    "broccoli": "green",
    "whale": "blue",
    "droplet": "blue",
    "grapes": "purple",
    "eggplant": "purple",
    "carrot": "orange",
    "tiger": "orange",
}
"""The twelve prior objects: in base training they (nearly) always wear this colour."""

NEUTRAL: tuple[str, ...] = (
    "car", "balloon", "bell", "key", "umbrella", "boot", "cat", "dog", "guitar", "microphone",
)  # fmt: skip
"""Objects whose colour only the pixels tell; every split may ask about them."""

PARTNERS: dict[str, str] = {"guitar": "microphone", "umbrella": "boot", "cat": "dog"}
"""Co-occurrence: where the key is shown, the base has nearly always seen the value too."""

POOL_OBJECTS: tuple[str, ...] = ("banana", "tomato", "frog", "whale", "grapes", "carrot")
"""Prior objects that offline and online questions may be about: one of each canonical colour."""

DEV_OBJECTS: tuple[str, ...] = ("chick", "droplet")
"""Prior objects of the dev split, where defaults are tuned."""

EVAL_OBJECTS: tuple[str, ...] = ("strawberry", "broccoli", "eggplant", "tiger")
"""Prior objects asked about in the eval split only; elsewhere bystanders in their canonical colour."""

OBJECTS: tuple[str, ...] = (*CANONICAL, *NEUTRAL)

UNSEEN_PAIRS: tuple[tuple[str, str], ...] = (
    ("strawberry", "broccoli"), ("eggplant", "tiger"), ("car", "bell"), ("balloon", "key"),
)  # fmt: skip
"""Objects that no scene of the pools shows together; the shifted probes show them so. Base training has seen all."""

POPULAR: tuple[str, ...] = tuple(PARTNERS.values())
"""The objects base training shows most: each appears by chance and as a partner."""

MATES: dict[str, str] = {name: other for pair in UNSEEN_PAIRS for name, other in (pair, pair[::-1])}
"""UNSEEN_PAIRS from either side."""

_PLURALS = {
    "strawberry": ("strawberries",),
    "tomato": ("tomatoes", "tomatos"),
    "grapes": ("grape",),
    "broccoli": ("broccolis",),
    "chick": ("chicks", "chicken", "chickens"),
    "droplet": ("droplets", "drop", "drops"),
    "eggplant": ("eggplants", "aubergine", "aubergines"),
    "car": ("cars", "automobile", "automobiles"),
    "cat": ("cats", "kitten", "kittens"),
    "dog": ("dogs", "puppy", "puppies"),
    "microphone": ("microphones", "mic", "mics"),
}


def subjects(split: Split) -> tuple[str, ...]:
    """Prior objects that questions of this split may be about."""
    return {"offline": POOL_OBJECTS, "online": POOL_OBJECTS, "dev": DEV_OBJECTS, "eval": EVAL_OBJECTS}[split]


def with_article(words: str) -> str:
    """The words behind "a" or "an", by spelling: "an orange car"; "grapes" takes none."""
    if words.endswith("grapes"):
        return words
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def object_synonyms() -> dict[str, str]:
    """Every word that names one of the 22 objects (singular, plural, common synonym) -> the object's name.

    It is the vocabulary that CHAIR reads captions with.
    """
    words: dict[str, str] = {}
    for name in OBJECTS:
        words[name] = name
        for other in _PLURALS.get(name, (f"{name}s",)):
            words[other] = name
    return words
