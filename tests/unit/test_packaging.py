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
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
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
