"""A loaded multimodal model together with everything needed to ask it something."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL.Image import Image

from mbpo_core.config import PolicyConfig
from mbpo_core.errors import DataError, ModelError
from mbpo_core.models.families import FROZEN_PARTS, family_class
from mbpo_core.models.family import Family
from mbpo_core.models.groups import Prompt
from mbpo_core.models.images import ImageCache
from mbpo_core.models.packing import GroupPacking, Packing, choose_packing
from mbpo_core.models.projection import Head
from mbpo_core.models.resolve import check_folder
from mbpo_core.records import Message

if TYPE_CHECKING:
    Messages = str | Sequence[Message] | Sequence[dict[str, Any]]

_PROBE = "xyzzy"  # stands for an answer while the template's continuation is read off
_ASKED = {"role": "user", "content": [{"type": "text", "text": "?"}]}


@dataclass
class Policy:
    """Model, processor and family adapter; parameters need no gradient until `unfreeze` says so."""

    model: Any
    processor: Any
    family: Family
    device: torch.device
    dtype: torch.dtype
    packing: Packing
    limit_mib: float = math.inf
    where: str = ""
    images: ImageCache = field(default_factory=ImageCache)

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    def prepare(self, question_or_messages: Messages, images: Sequence[Image]) -> Prompt:
        """Render a prompt that ends where the completion starts.

        Args:
            question_or_messages: a question (one user turn, images first), or a conversation whose image
                parts stand where the images go.
            images: the prompt's images, in order; resized and normalised by the processor.

        Returns:
            Token ids with image slots expanded, and pixel values on the CPU in float32. A picture that was prepared
            lately is not processed again.

        Raises:
            DataError: if the text holds a special image token, or slots and images do not agree.
        """
        messages = _as_messages(question_or_messages, len(images))
        self._refuse_special_tokens(messages)
        slots = sum(part["type"] == "image" for message in messages for part in message["content"])
        if slots != len(images):
            raise DataError(
                f"the conversation has {slots} image parts but {len(images)} images came with it",
                where=self.where,
                expected="as many image parts as images",
                remedy="Add or remove image parts, or the row's images.",
            )
        inputs = tuple(self.images.read(image, self.family.read) for image in images)
        text = self.family.render(messages, add_generation_prompt=True)
        token_ids = self.family.tokenize(text, inputs)
        placeholders = sum(token in self.image_token_ids for token in token_ids)
        features = sum(image.features for image in inputs)
        if placeholders != features:
            raise DataError(
                f"the prompt has {placeholders} image positions but its images fill {features}",
                where=self.where,
                remedy="The chat template must write one image token for each image part.",
            )
        return Prompt(token_ids, inputs)

    def unfilled(self, question: str, images: int) -> list[int]:
        """Token ids of a prompt whose images have one placeholder each: for engines that fill them themselves."""
        return self.family.tokenize(self.family.render(_as_messages(question, images), add_generation_prompt=True), ())

    def encode_completion(self, text: str) -> list[int]:
        """Token ids of an answer as the chat template would continue the prompt, closed by EOS.

        Outer white space of the text does not count: the template decides what stands before the answer.

        Raises:
            DataError: if the text holds a special image token.
            ModelError: if the template's answer does not continue its own generation prompt.
        """
        anchor, anchor_ids, lead = self._continuation
        ids: list[int] = self.tokenizer(anchor + lead + text.strip(), add_special_tokens=False)["input_ids"]
        if ids[: len(anchor_ids)] != anchor_ids:
            raise ModelError(
                f"the answer {text[:40]!r} merges with the end of the chat template's prompt",
                where=self.where,
                remedy="Use a template whose generation prompt ends at a token boundary.",
            )
        completion = ids[len(anchor_ids) :]
        if banned := set(self.banned_token_ids).intersection(completion):
            raise DataError(f"the answer {text[:40]!r} holds special image tokens {sorted(banned)}")
        return [*completion, self.eos_token_ids[0]]

    def completion_spans(self, text: str) -> list[tuple[int, int]]:
        """Which characters [start, stop) of the stripped text each token of `encode_completion(text)` stands for.

        EOS stands for none; tokens that share a character overlap.
        """
        anchor, anchor_ids, lead = self._continuation
        before, length = len(anchor + lead), len(text.strip())
        offsets: list[tuple[int, int]] = self.tokenizer(
            anchor + lead + text.strip(), add_special_tokens=False, return_offsets_mapping=True
        )["offset_mapping"]
        spans = [(max(start - before, 0), max(stop - before, 0)) for start, stop in offsets[len(anchor_ids) :]]
        return [*spans, (length, length)]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of a completion without special tokens and outer white space."""
        text: str = self.tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.strip()

    def packs(self, prompt: int, lengths: Sequence[int], mode: GroupPacking | None = None) -> list[list[int]]:
        """Rows of one group as `Packing.split` gives them, under another mode if one is named."""
        packing = self.packing if mode is None else replace(self.packing, mode=mode)
        return packing.split(prompt, lengths)

    @property
    def head(self) -> Head:
        """The vocabulary projection, with the ids that take part in no softmax."""
        output = self.model.get_output_embeddings()
        # A view, because ZeRO-3 takes the parameter's own data away before the backward pass reads it again.
        return Head(output.weight.view_as(output.weight), output.bias, self.banned_token_ids, self.limit_mib)

    def unfreeze(self, freeze: str) -> list[str]:
        """Let gradients into every part that `freeze` (a value of `training.freeze`) does not name.

        Returns:
            Names of the trainable parameters.
        """
        frozen = FROZEN_PARTS[freeze]
        names = []
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self.family.part_of(name) not in frozen)
            if parameter.requires_grad:
                names.append(name)
        return names

    @cached_property
    def eos_token_ids(self) -> list[int]:
        """Ids that end a completion; the first is the one that the chat template writes, or else the tokenizer's."""
        eos = [self.tokenizer.eos_token_id]
        configured = self.model.generation_config.eos_token_id
        eos += configured if isinstance(configured, list) else [configured]
        unique = list(dict.fromkeys(int(token) for token in eos if token is not None))
        if not unique:
            raise ModelError("no end-of-sequence token is defined", where=self.where, remedy="Set tokenizer.eos_token.")
        behind = self._answered.rpartition(_PROBE)[2]
        return sorted(unique, key=lambda token: not behind.startswith(str(self.tokenizer.convert_ids_to_tokens(token))))

    @cached_property
    def pad_token_id(self) -> int:
        """Filler of masked positions; which id it is never matters."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else self.eos_token_ids[0]

    @cached_property
    def banned_token_ids(self) -> list[int]:
        """Ids that are neither sampled nor part of any log-softmax: image placeholders and their kin."""
        return sorted(set(self.family.banned_token_ids()))

    @cached_property
    def image_token_ids(self) -> frozenset[int]:
        """Ids that stand for image positions in a prompt."""
        return frozenset(self.family.image_token_ids())

    @cached_property
    def max_positions(self) -> int:
        """Longest prompt plus completion, tokens."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    @cached_property
    def _continuation(self) -> tuple[str, list[int], str]:
        """(end of a prompt, its token ids, what the template puts between prompt and answer)."""
        anchor, whole = self.family.render([_ASKED], add_generation_prompt=True), self._answered
        if not whole.startswith(anchor) or _PROBE not in whole[len(anchor) :]:
            raise ModelError(
                "the chat template's answer does not continue its generation prompt",
                where=self.where,
                expected=f"a rendering that starts with {anchor!r}",
                remedy="Use a template whose add_generation_prompt is a prefix of the rendered answer.",
            )
        lead = whole[len(anchor) :].split(_PROBE)[0]
        return anchor, self.tokenizer(anchor, add_special_tokens=False)["input_ids"], lead

    @cached_property
    def _answered(self) -> str:
        answer = {"role": "assistant", "content": [{"type": "text", "text": _PROBE}]}
        return self.family.render([_ASKED, answer], add_generation_prompt=False)

    def _refuse_special_tokens(self, messages: list[dict[str, Any]]) -> None:
        tokens = self.tokenizer.convert_ids_to_tokens(self.banned_token_ids)
        for message in messages:
            for part in message["content"]:
                for token in tokens:
                    if token in (part.get("text") or ""):
                        raise DataError(
                            f"the text holds the special token {token!r}: {part['text'][:60]!r}",
                            remedy="Remove it; images are placed by the conversation's image parts.",
                        )


def load_policy(folder: Path, config: PolicyConfig) -> Policy:
    """Load a model folder as a frozen policy in eval mode.

    Args:
        folder: what `resolve_model` returned, or a checkpoint of the store; nothing is downloaded.
        config: dtype, attention implementation and device.

    Raises:
        ModelError: if the folder cannot serve as a policy or its weights do not fit its config.
    """
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    check_folder(folder)
    device = _device(config.device)
    dtype = getattr(torch, config.dtype)
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    model_type = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    adapter = family_class(model_type, where=str(folder))
    processor = adapter.load_processor(folder, **local)
    logging.disable_progress_bar()
    model, info = AutoModelForImageTextToText.from_pretrained(
        folder,
        dtype=dtype,
        attn_implementation=config.attention,
        use_safetensors=True,
        output_loading_info=True,
        **local,
    )
    # A missing weight would be initialised at random, silently.
    if wrong := sorted(info["missing_keys"]) + sorted(map(str, info["mismatched_keys"])):
        raise ModelError(
            f"{len(wrong)} weights are missing or have another shape, first {wrong[0]}",
            where=str(folder),
            remedy="The weights do not belong to this config.json; save the model again.",
        )
    model.to(device).eval().requires_grad_(False)
    family = adapter(processor, model.config)
    return Policy(
        model=model,
        processor=processor,
        family=family,
        device=device,
        dtype=dtype,
        packing=choose_packing(
            config.group_packing, family.language_model(model), where=str(folder), own_masks=family.own_masks
        ),
        limit_mib=config.logits_mib,
        where=str(folder),
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError("policy.device is cuda but torch sees no accelerator", remedy="Use auto or cpu.")
    return torch.device(name)


def _as_messages(question_or_messages: Messages, images: int) -> list[dict[str, Any]]:
    if isinstance(question_or_messages, str):
        content: list[dict[str, Any]] = [{"type": "image"}] * images
        return [{"role": "user", "content": [*content, {"type": "text", "text": question_or_messages}]}]
    messages = []
    for message in question_or_messages:
        plain = message.model_dump(exclude_none=True) if isinstance(message, Message) else dict(message)
        if isinstance(plain["content"], str):
            plain["content"] = [{"type": "text", "text": plain["content"]}]
        # Parquet readers fill absent keys with None, which templates would print.
        plain["content"] = [{k: v for k, v in part.items() if v is not None} for part in plain["content"]]
        messages.append(plain)
    return messages
