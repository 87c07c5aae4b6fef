"""What the two sides agree on. Both import it."""

from typing import Annotated

from pydantic import BaseModel, Field

from typed_amp import Command


class RepeatResult(BaseModel):
    text: str


class Repeat(Command[RepeatResult]):
    """Repeat a text."""

    text: str
    times: Annotated[int, Field(ge=0, le=1000)] = 1
