"""Writes that an object store does only on a condition: what keeps processes of different machines apart."""

from __future__ import annotations

import random
import time
from typing import Any

from mbpo_core.errors import StoreError

_CONFLICTS = 20


class ConditionalWrites:
    """Whole objects, put only if absent or only over what was seen.

    Args:
        filesystem: of fsspec.
        root: names the store in errors.
    """

    def __init__(self, filesystem: Any, root: str) -> None:
        self._fs, self._root = filesystem, root
        self._honoured = False  # by this server, as far as this process knows

    def create(self, place: str, data: bytes) -> bool:
        """Put an object if there is none of that name; False if there is another.

        Raises:
            StoreError: the server takes no notice of the condition.
        """
        if not self._put(place, data, mode="create"):
            # The first answer may have been lost on the way, and the request sent again: then the object is this one.
            return self.holds(place, data)
        if not self._honoured and self._put(place, data, mode="create"):
            self._fs.rm_file(place)
            raise StoreError(
                "this S3 server replaces objects that it is asked to create only if absent",
                where=self._root,
                expected="one that honours If-None-Match on PUT, as AWS S3 does",
                remedy="Update the server, or keep the store elsewhere: here two workers could write one artifact.",
            )
        self._honoured = True
        return True

    def replace(self, place: str, data: bytes, tag: str) -> bool:
        """Put an object in place of the one with that ETag; False if that one is gone."""
        try:
            return self._put(place, data, IfMatch=tag) or self.holds(place, data)
        except FileNotFoundError:
            return False

    def tag(self, place: str) -> str:
        """The object's ETag, which changes when it does; "" if there is none."""
        try:
            return str(self._fs.info(place)["ETag"])
        except FileNotFoundError:
            return ""

    def holds(self, place: str, data: bytes) -> bool:
        """The object is there and is exactly this."""
        try:
            return bool(self._fs.cat_file(place) == data)
        except FileNotFoundError:
            return False

    def _put(self, place: str, data: bytes, **condition: str) -> bool:
        for _ in range(_CONFLICTS):
            try:
                self._fs.pipe_file(place, data, **condition)
            except OSError as error:
                if isinstance(error, FileExistsError) or _code(error) == "PreconditionFailed":
                    return False
                if _code(error) != "ConditionalRequestConflict":
                    raise
                time.sleep(random.uniform(0.05, 0.2))  # another write is under way; S3 asks to try again
            else:
                return True
        return False


def _code(error: OSError) -> str:
    """What S3 called the error; s3fs keeps it as the cause."""
    answer = getattr(error.__cause__, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))
