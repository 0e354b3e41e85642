"""Entry point: runs a command and turns every failure into a message and an exit code.

0 fine, 2 the user can fix it, 1 a defect of ours. No library heavier than Typer is imported before
a command needs it, so that `--help` answers at once.
"""

import errno
import sys
import traceback
from collections.abc import Sequence

from understudy.errors import MissingExtraError, UnderstudyError

# What an operating system says when the user's disk, not our code, is in the way.
_THEIR_DISK = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EFBIG, errno.EPERM)

# What the extra `train` brings; `predict` needs none of it.
_TRAINING = (
    *("torch", "lightning", "safetensors", "sklearn", "scipy", "onnx", "onnxscript"),
    *("jaxtyping", "pyarrow", "PIL"),
)
STOPPED = 130  # 128 + SIGINT, as shells have it
INTERRUPTED = "stopped. Finished stages are kept: the same command goes on from here"
DEFECT = (
    "this is a defect of Understudy, not of yours: please report the lines above with the "
    "command and `understudy --version`"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    import typer  # here, since it takes a moment

    from understudy.cli.commands import app

    try:
        code = app(arguments, standalone_mode=False)
    except UnderstudyError as error:
        return _say(f"error: {error}", 2)
    except (KeyboardInterrupt, typer.Abort):
        return _say(INTERRUPTED, STOPPED)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        return _unforeseen(error)
    if code == STOPPED:  # Typer turns Ctrl-C into a number
        return _say(INTERRUPTED, STOPPED)
    return code if isinstance(code, int) else 0


def _unforeseen(error: Exception) -> int:
    """What is nobody's message yet: usage, a full disk, a missing library, or a defect of ours."""
    # Typer's own usage errors know how to show themselves; Typer keeps their class private.
    if hasattr(error, "exit_code"):
        if hasattr(error, "show"):
            error.show(sys.stderr)
        return int(error.exit_code)
    if isinstance(error, OSError) and error.errno in _THEIR_DISK:
        return _say(f"error: {error}: make room, or choose another place with --out", 2)
    if isinstance(error, ModuleNotFoundError):
        library = (error.name or "").partition(".")[0]
        if library in _TRAINING:
            return _say(f"error: {MissingExtraError(library, 'train')}", 2)
    traceback.print_exception(error)
    return _say(DEFECT, 1)


def _say(line: str, code: int) -> int:
    sys.stderr.write(f"{line}\n")
    return code
