"""Where recipes and runs lie; answered at once, since a mistyped name need not wait for torch."""

from __future__ import annotations

from pathlib import Path

from modelwright.errors import ModelwrightError, did_you_mean

RECIPES = Path(__file__).parent / "recipes"


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def known_recipe(name: str) -> str:
    """``name``, which is a shipped recipe or names something on the disk.

    Raises:
        ModelwrightError: there is nothing of that name.
    """
    if name not in shipped():
        try:
            Path(name).stat()
        except FileNotFoundError:
            if Path(name).suffix not in ("", ".yaml", ".yml"):
                message = f"{name}: no such file; give a table, a folder of data, or a recipe"
                raise ModelwrightError(message) from None
            hint = did_you_mean(name, shipped())
            raise ModelwrightError(
                f"{name}: no such recipe{hint}; `modelwright show --help` names those that are"
                " shipped"
            ) from None
        except (OSError, ValueError):
            pass  # there, or no name at all: whoever reads it says what is wrong
    return name


def recipe_text(name: str) -> tuple[str, str]:
    """The text of a shipped recipe or of a file, and what to call it in messages."""
    if known_recipe(name) in shipped():
        return (RECIPES / f"{name}.yaml").read_text(encoding="utf-8"), name
    path = Path(name)
    try:
        if path.is_dir():
            raise ModelwrightError(
                f"{name or '.'}: is a directory and no run; give a recipe file, such as my.yaml,"
                " or say what is to be learned of the data in it: task=NAME"
            )
        return path.read_text(encoding="utf-8"), name
    except OSError as error:
        raise ModelwrightError(f"{name[:80]}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ModelwrightError(f"{name}: not UTF-8 text ({error}); give a YAML file") from error


def is_run(path: str | Path) -> bool:
    """Whether a run lies there."""
    try:
        return (Path(path) / "recipe.yaml").is_file()
    except OSError:  # a name that no file can have
        return False


def existing_run(path: str | Path) -> Path:
    """The path, where a run lies.

    Raises:
        ModelwrightError: there is nothing, or something else.
    """
    path = Path(path)
    if not path.exists():
        raise ModelwrightError(f"{path}: no such run{_nearest(path)}; see `modelwright runs`")
    if not (path / "recipe.yaml").is_file():
        raise ModelwrightError(f"{path}: not a run directory, it has no recipe.yaml")
    return path


def _nearest(path: Path) -> str:
    """What may be meant by a run that is not there: one of ``runs/``, one to be made, or near."""
    below = Path("runs") / path
    if is_run(below):
        return f" (did you mean {str(below)!r}?)"
    if str(path) in shipped():
        return f", but a recipe; `modelwright run {path}` makes runs/{path} of it"
    return did_you_mean(path.name, (p.parent.name for p in path.parent.glob("*/recipe.yaml")))
