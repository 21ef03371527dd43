from __future__ import annotations

from pathlib import Path

import pytest

from emailproxy.demo.certificates import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def ca_file(authority: Authority) -> Path:
    return authority.certificate_file
