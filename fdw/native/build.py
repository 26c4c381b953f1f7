"""Builds the native front door against a server's headers. Standard library only.

The server's recorded compiler flags are not used: they are those of the machine it was built on.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tinydancer_fdw import contract

HERE = Path(__file__).resolve().parent
LIBRARY = "tinydancer_fdw.so"
# Loaded by the other where it is needed, so that the front door works without OpenSSL as well.
TLS_LIBRARY = "tinydancer_tls.so"
TLS_SOURCE = HERE / "tls.c"
TLS_FLAGS = ("-lssl", "-lcrypto")
FLAGS = (
    "-std=gnu11", "-O2", "-g", "-fPIC", "-shared", "-fno-strict-aliasing", "-fwrapv",
    "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2",
    "-Wall", "-Wextra", "-Wshadow", "-Wmissing-prototypes", "-Wvla",
    # The server's own headers have parameters that they do not use.
    "-Wno-unused-parameter",
)  # fmt: skip


class BuildFailed(RuntimeError):
    """The front door could not be built; says which command failed and what it said."""


def contract_header() -> str:
    """The C header of the contract's tables, which options.c includes."""
    lines = ["/* Written by build.py from tinydancer_fdw.contract: do not edit. */", ""]
    for table in contract.TABLES.values():
        lines.append(f"static const ContractColumn {table.name}_columns[] = {{")
        for column in table.columns:
            flags = ", ".join(
                str(flag).lower() for flag in (column.input, column.required, column.identity)
            )
            lines.append(f'\t{{"{column.name}", "{column.type}", {flags}}},')
        lines += ["};", ""]
    lines.append("static const ContractTable contract[] = {")
    for table in contract.TABLES.values():
        lines.append(
            f'\t{{"{table.name}", {table.name}_columns, lengthof({table.name}_columns), '
            f"{table.rows}, {table.microseconds}}},"
        )
    return "\n".join([*lines, "};", ""])


def sources() -> list[Path]:
    """The C files of the front door, in order of their names; that of TLS is a library apart."""
    return sorted(set(HERE.glob("*.c")) - {TLS_SOURCE})


def source_digest() -> str:
    """A digest of all that the libraries are made of: it changes when a rebuild is due."""
    digest = hashlib.sha256("\0".join(FLAGS).encode())
    for path in sorted([*HERE.glob("*.c"), *HERE.glob("*.h")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(contract_header().encode())
    return digest.hexdigest()


def build(pg_config: Path, build_dir: Path, cc: str | None = None) -> list[Path]:
    """Compiles the libraries for the server that `pg_config` belongs to; returns their paths.

    The second, for TLS, is built where OpenSSL 1.1 or later has its headers. `cc` is the compiler,
    with flags of its own if need be, by default that of the environment variable CC, else cc or
    gcc. Raises BuildFailed with what the compiler said.
    """
    compiler = cc or os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise BuildFailed("no C compiler found: install gcc or clang, or name one by CC")
    include = Path(_run([str(pg_config), "--includedir-server"]).strip())
    if not (include / "fmgr.h").is_file():
        raise BuildFailed(
            f"{include} has no server headers: install the server's development package, such "
            "as postgresql-server-dev-17 on Debian"
        )
    build_dir.mkdir(parents=True, exist_ok=True)
    (build_dir / "contract.h").write_text(contract_header())
    command = [
        *compiler.split(), *FLAGS, f"-I{build_dir}", f"-I{HERE}", f"-isystem{include}",
        *_platform_flags(),
    ]  # fmt: skip
    libraries = [_compile(command, sources(), build_dir / LIBRARY)]
    if has_openssl(compiler):
        libraries.append(_compile(command, [TLS_SOURCE], build_dir / TLS_LIBRARY, *TLS_FLAGS))
    return libraries


def has_openssl(compiler: str) -> bool:
    """Whether a compiler finds OpenSSL, 1.1 or later, and can link it."""
    with tempfile.TemporaryDirectory() as scratch:
        probe = Path(scratch) / "probe.c"
        probe.write_text(
            "#include <openssl/ssl.h>\n"
            "int main(void) { return OPENSSL_init_ssl(0, NULL) && TLS_client_method() != NULL; }\n"
        )
        try:
            _run([*compiler.split(), str(probe), "-o", str(Path(scratch) / "probe"), *TLS_FLAGS])
        except BuildFailed:
            return False
        return True


def _compile(command: list[str], sources: list[Path], library: Path, *flags: str) -> Path:
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        # A server may have the old library mapped: it is replaced by a new file, never rewritten.
        fresh = Path(scratch) / library.name
        _run([*command, *map(str, sources), "-o", str(fresh), *flags])
        return fresh.replace(library)


def _platform_flags() -> list[str]:
    """What a loadable library needs beyond -shared."""
    return ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-D_GNU_SOURCE"]


def _run(command: list[str]) -> str:
    """Runs a command; returns what it printed. Raises BuildFailed with what it complained of."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildFailed(f"{command[0]} can't be run: {error}") from error
    if done.returncode != 0:
        raise BuildFailed(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def main() -> None:
    """`python -m tinydancer_fdw.native.build PG_CONFIG DIRECTORY`: builds, prints the paths."""
    if len(sys.argv) != 3:
        raise SystemExit(main.__doc__)
    try:
        libraries = build(Path(sys.argv[1]), Path(sys.argv[2]))
    except BuildFailed as error:
        raise SystemExit(f"Error: {error}") from None
    print(*libraries, sep="\n")
    if len(libraries) == 1:
        print(
            "Without TLS: OpenSSL's headers are not here (on Debian: apt-get install libssl-dev)",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
