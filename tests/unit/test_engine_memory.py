"""Memory while 40,000 passages pass through the engine with a real model, window by window."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import models

SCRIPT = """
import json, resource, sys
import numpy as np, torch
from esvector.encode.engine import document_engine
from esvector.encode.loading import load_encoder
from esvector.encode.profile import EncoderProfile
from esvector.types import Document

torch.set_num_threads(1)
engine = document_engine(load_encoder(EncoderProfile(sys.argv[1]), device="cpu"))
words = json.loads(sys.argv[2])

def window(size):
    counts = np.random.default_rng(5).integers(1, 25, size)
    texts = [" ".join(words[(n + i) % len(words)] for i in range(count)) for n, count in enumerate(counts)]
    return [Document(str(n), text, {}, "") for n, text in enumerate(texts)]

documents, peaks = window(1000), []
for turn in range(40):
    assert np.isfinite(engine.encode(engine.tokenize(documents)).vectors).all()
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(json.dumps(peaks))
"""


@pytest.mark.nightly
def test_memory_does_not_grow_with_the_passages(tmp_path: Path) -> None:
    folder = models.symmetric(tmp_path / "model")
    command = [sys.executable, "-c", SCRIPT, str(folder), json.dumps(sorted(models.WORDS)[:200])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peaks = json.loads(done.stdout)
    assert peaks[-1] - peaks[9] < 16, f"{peaks[9]:.0f} MiB after 10,000 passages, {peaks[-1]:.0f} after 40,000"
