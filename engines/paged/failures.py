"""What goes wrong on a device: whether that stays with the process, and what others are told.

An error knows the frames it came through, and their variables hold tensors: whoever keeps
it, keeps a model's memory. So the log has them, and nobody else.
"""

from typing import TypeVar

Error = TypeVar("Error", bound=BaseException)

# As CUDA names the errors after which a process gets nothing but errors, whatever it asks for
# (cudaError in the CUDA Runtime API). Torch and Triton pass the names on.
_STICKY = (
    "an illegal memory access was encountered",
    "device-side assert triggered",
    "unspecified launch failure",
    "the launch timed out and was terminated",
    "hardware stack error",
    "an illegal instruction was encountered",
    "misaligned address",
    "operation not supported on global/shared address space",
    "invalid program counter",
    "uncorrectable ECC error encountered",
    "uncorrectable NVLink error detected during the execution",
    "context is destroyed",
    "CUDA error: unknown error",
)
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class DeviceFault:
    """Why this process can use its GPU no more; an engine has one, and any thread may call it."""

    def __init__(self) -> None:
        self.reason = ""

    def note(self, error: BaseException) -> bool:
        """Remember an error that stays with the process; says whether this is one."""
        cause: BaseException | None = error
        while cause is not None:
            said = first_line(cause)
            if any(name in said for name in _STICKY):
                self.reason = self.reason or (
                    f"the GPU cannot be used by this process any more: {said}"
                )
                return True
            cause = cause.__cause__ or cause.__context__
        return False


def first_line(error: BaseException) -> str:
    """What it says, without the advice that torch adds for those who debug it."""
    return str(error).partition("\n")[0]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it only says that there is no memory, of a GPU or of the machine."""
    said = str(error)
    return any(words in said for words in _OUT_OF_MEMORY)


def without_frames(error: Error) -> Error:
    """The same, and no way from it to where it was raised, nor from what led to it."""
    link: BaseException | None = error
    while link is not None:
        # A logger that shows variables leaves copies in the frames, with the error in them.
        following = link.__cause__ or link.__context__
        link.__traceback__ = link.__cause__ = link.__context__ = None
        link = following
    return error
