"""The C reader of frames, outside PostgreSQL, and the builder of the front door."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tinydancer_fdw import contract
from tinydancer_fdw.native import build

HERE = Path(__file__).parent
COMPILER = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")


@pytest.mark.skipif(COMPILER is None, reason="no C compiler")
def test_no_frame_makes_the_reader_leave_its_bytes(tmp_path: Path) -> None:
    program = tmp_path / "fuzz_frames"
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [str(COMPILER), "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]
    sources = [str(HERE / "fuzz_frames.c"), str(build.HERE / "frames.c")]
    arguments = [f"-I{build.HERE}", *sources, "-o", str(program)]
    built = subprocess.run([*command, *sanitizers, *arguments], capture_output=True, text=True)
    if "cannot find" in built.stderr:  # a compiler without its sanitizers
        built = subprocess.run([*command, *arguments], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([program, "200000"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_the_header_holds_the_whole_contract() -> None:
    header = build.contract_header()
    for table in contract.TABLES.values():
        assert f'{{"{table.name}", {table.name}_columns' in header
        for column in table.columns:
            flags = f"{column.input}, {column.required}, {column.identity}".lower()
            assert f'{{"{column.name}", "{column.type}", {flags}}},' in header


def test_the_digest_changes_with_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.source_digest()
    assert build.source_digest() == before
    monkeypatch.delitem(contract.TABLES, "engine_status")
    assert build.source_digest() != before


def test_a_server_without_headers_is_an_error_that_says_what_to_install(tmp_path: Path) -> None:
    pg_config = tmp_path / "pg_config"
    pg_config.write_text(f"#!/bin/sh\necho {tmp_path}\n")
    pg_config.chmod(0o755)
    with pytest.raises(build.BuildFailed, match="postgresql-server-dev"):
        build.build(pg_config, tmp_path / "build")


def test_a_compiler_that_fails_is_an_error_with_its_words(tmp_path: Path) -> None:
    (tmp_path / "fmgr.h").touch()
    pg_config = tmp_path / "pg_config"
    pg_config.write_text(f"#!/bin/sh\necho {tmp_path}\n")
    pg_config.chmod(0o755)
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho 'no such flag' >&2\nexit 1\n")
    compiler.chmod(0o755)
    with pytest.raises(build.BuildFailed, match="no such flag"):
        build.build(pg_config, tmp_path / "build", cc=str(compiler))
    assert list((tmp_path / "build").glob("*.so")) == []


def test_without_openssl_there_is_no_library_for_tls(tmp_path: Path) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    assert not build.has_openssl(str(compiler))
    (tmp_path / "fmgr.h").touch()
    compiler.write_text(
        "#!/bin/sh\n"
        'case "$*" in *probe.c*) exit 1;; esac\n'
        'while [ "$1" != -o ]; do shift; done; touch "$2"\n'
    )
    pg_config = tmp_path / "pg_config"
    pg_config.write_text(f"#!/bin/sh\necho {tmp_path}\n")
    pg_config.chmod(0o755)
    built = build.build(pg_config, tmp_path / "build", cc=str(compiler))
    assert [library.name for library in built] == ["tinydancer_fdw.so"]
