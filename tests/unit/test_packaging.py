"""What is installed is all that there is: packages, SQL, C sources, and the containers' files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


PLACES = {
    "engine/tinydancer/": "tinydancer/",
    "fdw/tinydancer_fdw/": "tinydancer_fdw/",
    "fdw/native/": "tinydancer_fdw/native/",
    "sql/": "tinydancer/sql/",
}


def test_every_file_of_engine_fdw_and_sql_is_in_the_wheel(tmp_path: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "engine", "fdw", "sql"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    command = ["setup.py", "-q", "egg_info", "--egg-base", tmp_path, "build", "-b", tmp_path]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
    assert b"absent from the `packages`" not in done.stderr  # a folder of data is no package
    built = tmp_path / "lib"
    missed = []
    for file in listed.stdout.splitlines():
        folder = next(folder for folder in PLACES if file.startswith(folder))
        if not (built / PLACES[folder] / file.removeprefix(folder)).is_file():
            missed.append(file)
    assert missed == []


def test_the_containers_are_made_of_files_that_there_are() -> None:
    for dockerfile in (ROOT / "docker").glob("Dockerfile.*"):
        copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile.read_text(), re.MULTILINE)
        for source in " ".join(copied).split():
            assert (ROOT / source).exists(), f"{dockerfile.name} copies {source}"


def test_the_build_context_is_what_the_containers_are_made_of() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    # Everything is left out, but for what a COPY names: no password, no .venv, no history.
    assert lines[1] == "*"
    copied: set[str] = set()
    for dockerfile in (ROOT / "docker").glob("Dockerfile.*"):
        for sources in re.findall(
            r"^COPY (?!--from)(.+) \S+$", dockerfile.read_text(), re.MULTILINE
        ):
            copied.update(sources.split())
    let_in = {line[1:] for line in lines if line.startswith("!")}
    for source in copied:
        assert any(source == each or source.startswith(f"{each}/") for each in let_in), source
    for each in let_in:
        assert any(source == each or source.startswith(f"{each}/") for source in copied), each


def test_no_container_has_a_capability_and_none_runs_as_root() -> None:
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        dockerfile = (ROOT / service["build"]["dockerfile"]).read_text()
        assert re.findall(r"^USER (\S+)$", dockerfile, re.MULTILINE)[-1] != "root", name
    for name in ("install", "engine"):
        assert compose["services"][name]["read_only"], name


def test_every_volume_of_an_image_has_a_name_in_each_service() -> None:
    # One that has none is made anew, without a name, by each `up`, and stays behind.
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    for name, service in compose["services"].items():
        dockerfile = (ROOT / service["build"]["dockerfile"]).read_text()
        named = {volume.split(":")[1] for volume in service.get("volumes", [])}
        assert set(re.findall(r"^VOLUME (\S+)$", dockerfile, re.MULTILINE)) <= named, name


def test_the_services_hang_together() -> None:
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    services = compose["services"]
    assert set(services) == {"postgres", "install", "engine"}
    for name, service in services.items():
        assert (ROOT / "docker" / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        assert set(service.get("depends_on", {})) <= set(services)
        assert set(service["secrets"]) <= set(compose["secrets"])
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"], name


def test_passwords_are_never_in_the_compose_file() -> None:
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    for service in compose["services"].values():
        assert "environment" not in service
    assert all(set(secret) == {"file"} for secret in compose["secrets"].values())


def test_secrets_are_made_once_and_are_not_in_git(tmp_path: Path) -> None:
    script = tmp_path / "make-secrets"
    script.write_bytes((ROOT / "docker/make-secrets").read_bytes())
    subprocess.run(["sh", script], check=True)
    first = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    assert set(first) == {"postgres_password", "engine_password"}
    assert len(set(first.values())) == 2
    assert all(len(password.strip()) == 32 for password in first.values())
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    subprocess.run(["sh", script], check=True)
    assert {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()} == first
    assert "docker/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
