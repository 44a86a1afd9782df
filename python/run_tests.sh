#!/usr/bin/env bash
# The checks of the Python package, in a virtual environment of its own. Needs CPython from 3.9, a Rust toolchain,
# and npm for pyright.
#
# python/run_tests.sh              every check
# python/run_tests.sh quick        format, lints, types and the tests under one runner; keeps the environment
# python/run_tests.sh --install    installs what the checks need and does nothing else
set -euo pipefail
cd "$(dirname "$0")"
mode=${1:-whole}

step() { printf '\n== Python: %s\n' "$*"; }

mkdir -p ../target/python
built=$(cd ../target/python && pwd)
bin=$built/venv/bin
# The wheel and the one out of the source distribution share what PyO3 is built to.
export CARGO_TARGET_DIR=$built/cargo

# What the environment is made of. One that was not finished has no such note.
note=$(python3 --version; cat tests/requirements.txt; echo pyright 1.1.414)
if [ "$(cat "$built/installed" 2>/dev/null)" != "$note" ]; then
    step "an environment for the checks"
    rm -rf "$built/venv" "$built/node_modules" "$built/installed"
    python3 -m venv "$built/venv"
    "$bin/pip" install --quiet --disable-pip-version-check -r tests/requirements.txt
    npm install --silent --no-save --prefix "$built" pyright@1.1.414
    # pyright fetches the rest of itself when it is first run.
    "$built/node_modules/.bin/pyright" --version
    echo "$note" >"$built/installed"
fi
# Debian's, beside whichever Python built the package; what it lacks (hypothesis, uvloop) it skips.
if [ "$mode" != quick ] && ! { command -v python3.11-dbg && command -v valgrind; } >/dev/null &&
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -y -qq python3.11-dbg valgrind >/dev/null
fi
if [ "$mode" = --install ]; then exit; fi

step "the package, built from this checkout"
"$bin/pip" install --quiet --disable-pip-version-check --force-reinstall .

step "format and lints"
"$bin/ruff" format --check .
"$bin/ruff" check .

step "types, by two checkers, and the stubs held to the module"
"$bin/mypy" --cache-dir "$built/mypy" tests examples bench
"$bin/mypy" --cache-dir "$built/mypy" lib
(cd "$built" && "$bin/python" -m mypy.stubtest async_rate_limiter)
"$built/node_modules/.bin/pyright" --pythonpath "$bin/python" lib tests examples bench

step "tests, by unittest"
"$bin/python" -W error::ResourceWarning -m unittest discover
if [ "$mode" = quick ]; then exit; fi

step "tests, by pytest"
FUZZ_SECONDS=5 "$bin/pytest" -q -p no:cacheprovider

site=$("$bin/python" -c 'import async_rate_limiter as it; print(it.__path__[0])')
rm -rf "$built/site" && mkdir "$built/site" && cp -r "$site" "$built/site"

step "tests on a debug build of Python, which checks and counts every reference"
if command -v python3.11-dbg >/dev/null; then
    FUZZ_SECONDS=5 PYTHONPATH=$built/site PYTHONMALLOC=debug python3.11-dbg -m unittest discover
else
    echo "SKIPPED: there is no python3.11-dbg here, and it cannot be installed"
fi

step "tests of the code that is made by hand, under valgrind"
if command -v valgrind >/dev/null && [ -x /usr/bin/python3.11 ]; then
    # CPython reads what it has not written on purpose; only wrong addresses count.
    PYTHONPATH=$built/site PYTHONMALLOC=malloc valgrind --quiet --error-exitcode=9 \
        --undef-value-errors=no /usr/bin/python3.11 -m unittest \
        tests.test_awaitable tests.test_push tests.test_run_and_permits tests.test_ends tests.test_wakes
else
    echo "SKIPPED: there is no valgrind or no /usr/bin/python3.11 here, and it cannot be installed"
fi

step "the source distribution builds on its own"
rm -rf "$built/sdist" "$built/wheel"
"$bin/maturin" sdist --out "$built/sdist" >"$built/sdist.log" 2>&1 || { cat "$built/sdist.log"; exit 1; }
listing=$(tar -tzf "$built"/sdist/*.tar.gz)
for file in LICENSE README.md crates/core/src/machine.rs crates/hints/src/lib.rs; do
    grep -q "/$file\$" <<<"$listing" || { echo "$file is not in the source distribution"; exit 1; }
done
"$bin/pip" wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$built/wheel" "$built"/sdist/*.tar.gz
listing=$("$bin/python" -m zipfile -l "$built"/wheel/*.whl)
for file in async_rate_limiter/py.typed async_rate_limiter/_native.pyi async_rate_limiter/httpx.py dist-info/licenses/LICENSE; do
    grep -q "$file" <<<"$listing" || { echo "$file is not in the wheel"; exit 1; }
done
