"""Where the command line begins and ends: one command, its exit code, and a user's mistakes as one line."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

from mobilenets.console import StoppedError, complain

EXTRAS = {"cryptography": "app", "segno": "app"}
"""What brings a package that is not there, where it is not `train`."""


def main() -> None:
    """The entry point: a user's mistake is one line and exit code 2, never a traceback."""
    if isinstance(sys.stdout, TextIOWrapper) and (
        sys.stdout.errors == "strict" or sys.stdout.encoding.lower() != "utf-8"
    ):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no text
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """One command; its exit code."""
    try:
        return _called(arguments)
    except KeyboardInterrupt:
        complain("interrupted; what was finished is kept")
        return 130
    except StoppedError as error:
        complain(str(error))
        return 130
    except BrokenPipeError:
        # The reader has gone: nobody is left to tell, and Python would try once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "mobilenets":
            raise
        extra = EXTRAS.get((error.name or "").partition(".")[0], "train")
        complain(f"this command needs {error.name}: pip install 'mobilenets[{extra}]' (README says how)")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        complain(f"{where}{error.strerror or error}")
    except (ValueError, RuntimeError) as error:
        complain(str(error))
    return 2


def _called(arguments: list[str]) -> int:
    """`predict` from a plain line at once; everything else through Typer, which takes its time to import."""
    if arguments[:1] == ["predict"]:
        from mobilenets.flags import plain
        from mobilenets.predicting import PredictOptions, predict

        asked = plain(PredictOptions, arguments[1:])
        if asked is not None:
            return predict(asked)
    from mobilenets.cli import called

    return called(arguments)
