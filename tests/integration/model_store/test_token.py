"""A token goes to the server that it was meant for, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SECRET = "hf_a1SecretThatMustNotBeTold"


@pytest.mark.parametrize("status", [0, 401, 403])
def test_the_token_is_used_and_never_told(hub, fault, home, status):
    if status:
        hub.faults.append(fault(path="", status=status, times=1000))
    environment = {**os.environ, "HF_TOKEN": SECRET}
    command = ["--verbose", "models", "download", "flashtalk-14b", "--mirror", hub.address, "--yes"]
    done = subprocess.run(
        [sys.executable, "-m", "engine", *command], env=environment, capture_output=True, timeout=60, check=False
    )
    told = done.stdout + done.stderr
    sent = [headers for _, _, headers in hub.requests]
    assert any(SECRET in str(headers) for headers in sent), "the token was not used, so nothing is shown"
    assert told and SECRET.encode() not in told
