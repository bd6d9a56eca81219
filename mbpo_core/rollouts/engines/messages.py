"""A question as a turn of OpenAI's chat protocol."""

from __future__ import annotations

import base64
import io
from typing import Any

from mbpo_core import records
from mbpo_core.models.images import open_image


def chat_messages(sample: records.Sample) -> list[dict[str, Any]]:
    """One user turn, images first, as the policy renders it; each picture is a PNG in a data URL."""
    images = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in sample.images]
    return [{"role": "user", "content": [*images, {"type": "text", "text": sample.question}]}]


def data_url(image: records.Image) -> str:
    """The decoded picture, losslessly."""
    buffer = io.BytesIO()
    open_image(image).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
