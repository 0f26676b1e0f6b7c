"""What went in: a SHA-256 for every file of a source, for the manifest and for skipping work."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from pathlib import Path

from modelwright import extensions
from modelwright.data import formats
from modelwright.data.corpus.open import is_corpus, summary
from modelwright.data.sources import DATA_SETS, MADE, data_set_folder, source_path
from modelwright.data.stdlib import module_files, stdlib_root
from modelwright.data.table_files import TABLES, named_files
from modelwright.errors import ModelwrightError

_PLURAL = {"image": "pictures", "audio": "recordings"}
MANY = 50  # more files than this are hashed into one line of the manifest


def input_hashes(source: str, path: str | None = None) -> dict[str, str]:
    """Name -> SHA-256 of the files that ``source`` reads; folders of many files as one entry."""
    if extensions.is_reference(source):
        files = [p for p in sorted(Path(path).rglob("*")) if p.is_file()] if path else []
        return {"code": source} | ({path: hash_files(files)} if path else {})
    if source == "python-stdlib":
        root = Path(path) if path else stdlib_root()
        files = [root / file for file in module_files(root)]
        return {f"standard library of Python {platform.python_version()}": hash_files(files)}
    if source == "digits":
        try:
            return {"digits": f"scikit-learn {metadata.version('scikit-learn')}"}
        except metadata.PackageNotFoundError:
            return {"digits": "no scikit-learn"}  # reading them says how to get it
    if source in MADE:
        return {source: "made here"}
    folder = Path(path) if path else None
    root = data_set_folder(source, folder) if source in DATA_SETS else source_path(source)
    if root.is_file():
        found = {root.name: hash_files([root])}
        if (suffix := formats.format_of(root)) in TABLES and root.stat().st_size:
            named = named_files(formats.READERS[suffix](root, root.name), root.parent)
            for kind, files in named.items():
                found[f"{len(files)} {_PLURAL[kind]}"] = hash_files(files)
        return found
    if is_corpus(root):  # its parts are hashed already, whatever settings and engine made them
        return {f"corpus {root.name}": summary(root)["content"]}
    files = sorted(p for p in root.rglob("*") if p.is_file())
    if not files:
        raise ModelwrightError(f"{source}: no files there; give a file or a folder with files")
    if len(files) > MANY:
        return {f"{root.name}/ ({len(files)} files)": hash_files(files)}
    return {str(p.relative_to(root)): hash_files([p]) for p in files}


def hash_files(files: list[Path]) -> str:
    """One SHA-256 over the contents of some files, in their order."""
    digest = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
        except OSError as error:
            raise ModelwrightError(
                f"{path}: cannot be read ({error.strerror}); give a readable copy"
            ) from error
    return digest.hexdigest()
