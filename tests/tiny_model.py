"""A model of the sentence-transformers package for tests: one BERT layer of random weights."""

from __future__ import annotations

import tempfile
from pathlib import Path

WORDS = ("refund", "my", "order", "is", "late", "##ly", ".")


def save_tiny_model(directory: Path, *, dimension: int = 32, seed: int = 0) -> Path:
    """Save one as the package itself does. It reads 64 tokens. Returns the directory."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocabulary = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as parts:
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=dimension,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=40,
            max_position_embeddings=64,
            initializer_range=0.3,
        )
        BertModel(config).save_pretrained(parts)
        Path(parts, "vocab.txt").write_text("\n".join(vocabulary) + "\n")
        BertTokenizerFast(vocab=f"{parts}/vocab.txt").save_pretrained(parts)
        model = SentenceTransformer(
            modules=[Transformer(parts, max_seq_length=64), Pooling(dimension)], device="cpu"
        )
        model.save_pretrained(str(directory), create_model_card=False)
    return directory
