"""What the child that converts is told; the gateway's process imports nothing else of this."""

from msgspec import Struct


class ConvertOrder(Struct, frozen=True):
    """`folder` holds a checkpoint's files under their own names; `name` is the new model's."""

    folder: str
    target: str
    name: str


class AdapterOrder(Struct, frozen=True):
    """`folder` holds what PEFT wrote; `base` is the GGUF file of the model that it changes."""

    folder: str
    base: str
    target: str
