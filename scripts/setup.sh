#!/usr/bin/env bash
# Make .venv hold what pyproject.toml and constraints.txt say. Usage: scripts/setup.sh runtime|dev
# Safe to run first, again, twice at once, after an interruption, and after the folder was moved.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

need=${1:-dev}
case $need in
  runtime) target=. what="what modelwright needs to run" ;;
  dev) target='.[dev]' what="what modelwright and its tests need" ;;
  *) echo "setup: '$need' is neither 'runtime' nor 'dev'" >&2; exit 2 ;;
esac

# A stamp says for which place and which pins .venv was filled; file times would lie after a
# git checkout or a copy.
wanted="$PWD
$(cksum pyproject.toml constraints.txt)"
python=.venv/bin/python
unfinished=.venv-unfinished # there while an install runs: pip may take half a package for a whole
log=.venv/install.log

holds() { [[ -x $python && ! -e $unfinished && -f .venv/.$1 && $(<".venv/.$1") == "$wanted" ]]; }
enough() { holds dev || { [[ $need == runtime ]] && holds runtime; }; }
enough && exit 0

if command -v flock >/dev/null; then # two `make` at once: the second waits, then finds it done
  exec 9<constraints.txt
  flock -n 9 || { echo "setup: waiting for another install into .venv"; flock 9; }
  enough && exit 0
fi

find_python() {
  local candidate bare=
  for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3 python3.12 python3.13; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "$candidate"
        return
      fi
      bare=${bare:-$candidate}
    fi
    if [[ ${PYTHON:-} == "$candidate" ]]; then break; fi # what the user names is not replaced
  done
  if [[ $bare ]]; then
    echo "setup: $bare has no venv or ensurepip; install them (Debian: python3-venv)" \
      "or give another one: make PYTHON=/path/to/python3.11" >&2
  else
    echo "setup: Python 3.11 or newer is needed, ${PYTHON:-python3} is missing or older;" \
      "install it or give its path: make PYTHON=/path/to/python3.11" >&2
  fi
  return 1
}

usable() {
  local stamp
  [[ ! -e $unfinished && -x $python ]] || return 1
  for stamp in .venv/.runtime .venv/.dev; do # an environment does not survive a move
    if [[ -f $stamp && $(head -n 1 "$stamp") != "$PWD" ]]; then return 1; fi
  done
  "$python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Show pip's progress in one line on a terminal, keep all of it in the log.
watch() {
  local line
  while IFS= read -r line; do
    printf '%s\n' "$line" >>"$log"
    [[ -t 1 ]] || continue
    case $line in
      Collecting* | *Downloading* | Installing*) printf '\r\033[Ksetup: %.70s' "${line#"${line%%[! ]*}"}" ;;
    esac
  done
  if [[ -t 1 ]]; then printf '\r\033[K'; fi
}

install() {
  if ! "$python" -m pip install --no-compile --prefer-binary --progress-bar off \
    --no-build-isolation -c constraints.txt "$@" 2>&1 </dev/null | watch; then
    grep -E '^ *(ERROR|error)' "$log" | tail -n 5 >&2 || true
    echo "setup: pip could not install $what; $log has it all; run the same command again" >&2
    exit 4
  fi
}

# Settings of the caller that would send packages elsewhere or hide that they are missing.
unset PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_ROOT
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

started=$SECONDS
if ! usable; then
  base=$(find_python) || exit 4
  echo "setup: creating .venv with $("$base" --version)"
  : >"$unfinished"
  "$base" -m venv --clear .venv || { echo "setup: $base could not create .venv" >&2; exit 4; }
fi
: >"$unfinished"
rm -f .venv/.runtime .venv/.dev "$log"
echo "setup: installing $what (pinned; the first time this fetches some hundred MB)"
install "$(sed -n 's/^\(setuptools==.*\)$/\1/p' constraints.txt)" # the build backend, pinned too
install -e "$target"
printf '%s\n' "$wanted" >".venv/.$need"
rm -f "$unfinished"
echo "setup: .venv is ready after $((SECONDS - started)) s"
