from pydantic import BaseModel

from typed_amp import Command


class Quote(BaseModel):
    cents: int
    responder: str


class Price(Command[Quote], idempotent=True):
    """Asking twice costs nothing: it is sent again when there is no answer."""

    sku: str


class Receipt(BaseModel):
    number: int
    responder: str


class Order(Command[Receipt]):
    """Ordering twice is not ordering once: it is sent once, and may fail."""

    sku: str
