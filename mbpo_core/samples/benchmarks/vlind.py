"""VLind-Bench: does a model follow a picture that contradicts common sense, where it could?

Layout: a folder with `data.json`, an array of instances

    {"concept": "...", "context_id": 3, "context": "...", "factual_context": "...", "true_statement": "...",
     "false_statement": "...", "existent_noun": "...", "non-existent_noun": "...", "best_img_id": "7",
     "aggregated_human_label_good_images": {"0": 3, "7": 2, ...}}

and pictures `images/counterfactual/<concept>/<context_id>_<context>/<image>.jpg` and
`images/factual/<concept>/<context_id>_<factual_context>/0.jpg`.

A statement is "true" in the counterfactual world. Each check asks for a right and a wrong statement:

    CK  factual picture, common sense: the false statement is right, the true one wrong
    VP  best counterfactual picture: the existent noun is there, the other is not
    CB  the counterfactual context as text, beside the picture
    LP  each counterfactual picture that at least VOTES people found good

An instance without such a picture is left out, as in the published scores.

Source: VLind-Bench arXiv:2406.08702, repository klee972/VLind-Bench (eval/gpt4o_eval.py, eval/score_pipeline.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mbpo_core.samples.benchmarks.reading import (
    Benchmark,
    Item,
    Pictures,
    find_file,
    listed,
    make_rows,
    read_json,
    require_keys,
    text,
)
from mbpo_core.samples.problems import Unusable

DATA = ("data.json", "VLind-Bench Dataset/data.json")
LABELS = "aggregated_human_label_good_images"
KEYS = (
    "concept", "context_id", "context", "factual_context", "true_statement", "false_statement", "existent_noun",
    "non-existent_noun", "best_img_id", LABELS,
)  # fmt: skip
VOTES = 2

_ONLY = "Only respond in True or False."
_IMAGE = "Based on the image, is the given statement true or false?"
PROMPTS = {
    "CK": f"Statement: {{statement}}\nBased on the common sense, is the given statement true or false? {_ONLY}",
    "VP": f"Statement: There is {{statement}} in the given image.\n{_IMAGE} {_ONLY}",
    "CB": "Context: {context}\nStatement: {statement}\nBased on the context, is the given statement true or false? "
    f"Forget real-world common sense and just follow the information provided in the context. {_ONLY}",
    "LP": f"Statement: {{statement}}\n{_IMAGE} Forget real-world common sense and just follow the information provided "
    f"in the image. {_ONLY}",
}
"""The published questions."""


def read(path: Path, root: Path) -> Benchmark:
    """All checks of all instances. An instance that lacks a picture is left out whole: its scores depend on each other.

    Raises:
        DataError: data.json is missing or has another layout, or no picture is there.
    """
    data = find_file(path, DATA, "VLind-Bench")
    items = read_json(data, list, "VLind-Bench's instances")
    require_keys(items, KEYS, data)
    pictures = Pictures(root, ("images", "VLind-Bench Dataset/images"))
    rows = make_rows(items, lambda position, item: _checks(str(position), item, pictures))
    pictures.require_any()
    return listed(data.parent, [data], rows)


def _checks(instance: str, item: Item, pictures: Pictures) -> Iterator[Item]:
    good = _good_images(item)
    if not good:
        return
    right, wrong = text(item, "true_statement"), text(item, "false_statement")
    nouns = text(item, "existent_noun"), text(item, "non-existent_noun")
    best = _picture(item, "counterfactual", str(item.get("best_img_id")), pictures)
    asked = [
        ("CK", _picture(item, "factual", "0", pictures), (wrong, right)),
        ("VP", best, nouns),
        ("CB", best, (right, wrong)),
        *(("LP", _picture(item, "counterfactual", image, pictures), (right, wrong)) for image in good),
    ]
    for check, image, statements in asked:
        for statement, holds in zip(statements, (True, False), strict=True):
            number = f"-{Path(image).stem}" if check == "LP" else ""
            yield {
                "id": f"vlind-{instance}-{check}{number}-{str(holds).lower()}",
                "image": image,
                "question": PROMPTS[check].format(statement=statement, context=text(item, "context")),
                "answer": str(holds),
                "kind": "multiple_choice",
                "choices": ["True", "False"],
                "meta": {
                    "benchmark": "vlind",
                    "probe": "vlind",
                    "check": check,
                    "instance": instance,
                    "statement": holds,
                    "scene_id": image,
                    "concept": text(item, "concept"),
                },
            }


def _good_images(item: Item) -> list[str]:
    """The counterfactual pictures that enough people found good.

    Raises:
        Unusable: missing_value where the votes are not numbers by picture.
    """
    votes = item.get(LABELS)
    if not isinstance(votes, dict) or not all(isinstance(count, int | float) for count in votes.values()):
        raise Unusable("missing_value", f"{LABELS} is {votes!r:.80}, expected votes by picture")
    return [str(image) for image, count in votes.items() if count >= VOTES]


def _picture(item: Item, world: str, image: str, pictures: Pictures) -> str:
    context = text(item, "context" if world == "counterfactual" else "factual_context")
    number: Any = item.get("context_id")
    path = pictures.find(f"{world}/{text(item, 'concept')}/{number}_{context}/{image}.jpg")
    if not pictures.has(path):
        raise Unusable("unreadable_image", f"no file {path!r:.200} under the image root")
    return path
