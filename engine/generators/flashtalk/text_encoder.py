"""The prompt as text features: cleaning, tokens, and the UMT5-XXL encoder under its published parameter names.

The encoder is transformers' UMT5 with renamed weights: no bias anywhere, RMS norms without mean, a gated feed-forward
with tanh-GELU, attention logits that are not scaled, and a relative position bias of its own in every block.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ftfy
import torch
from torch import Tensor, nn

from engine.errors import ModelFilesError

TEXT_LEN = 512
PAD_ID = 0
END_ID = 1

_TOP_NAMES = {"token_embedding.weight": "embed_tokens.weight", "norm.weight": "final_layer_norm.weight"}
_BLOCK_NAMES = {
    "norm1.weight": "layer.0.layer_norm.weight",
    "attn.q.weight": "layer.0.SelfAttention.q.weight",
    "attn.k.weight": "layer.0.SelfAttention.k.weight",
    "attn.v.weight": "layer.0.SelfAttention.v.weight",
    "attn.o.weight": "layer.0.SelfAttention.o.weight",
    "pos_embedding.embedding.weight": "layer.0.SelfAttention.relative_attention_bias.weight",
    "norm2.weight": "layer.1.layer_norm.weight",
    "ffn.gate.0.weight": "layer.1.DenseReluDense.wi_0.weight",
    "ffn.fc1.weight": "layer.1.DenseReluDense.wi_1.weight",
    "ffn.fc2.weight": "layer.1.DenseReluDense.wo.weight",
}
_PUBLISHED_BLOCK_NAME = re.compile(r"blocks\.(\d+)\.(.+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextEncoderConfig:
    """Sizes of the encoder; the defaults are UMT5-XXL's."""

    vocab_size: int = 256_384
    dim: int = 4096
    dim_attn: int = 4096
    dim_ffn: int = 10_240
    num_heads: int = 64
    num_layers: int = 24
    num_buckets: int = 32
    max_distance: int = 128
    eps: float = 1e-6

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> TextEncoderConfig:
        """The sizes that published weights have; their file says them nowhere else. Raises ModelFilesError."""
        try:
            vocab_size, dim = state["token_embedding.weight"].shape
            num_buckets, num_heads = state["blocks.0.pos_embedding.embedding.weight"].shape
            dim_attn, dim_ffn = state["blocks.0.attn.q.weight"].shape[0], state["blocks.0.ffn.fc1.weight"].shape[0]
        except (KeyError, ValueError) as error:
            raise ModelFilesError(
                "These are not the weights of a UMT5 text encoder.", code="model_files.text_encoder", detail=repr(error)
            ) from error
        blocks = {match[1] for match in map(_PUBLISHED_BLOCK_NAME.fullmatch, state) if match}
        return cls(
            vocab_size=vocab_size,
            dim=dim,
            dim_attn=dim_attn,
            dim_ffn=dim_ffn,
            num_heads=num_heads,
            num_layers=len(blocks),
            num_buckets=num_buckets,
        )


def build_text_encoder(config: TextEncoderConfig, *, device: torch.device | str = "meta") -> nn.Module:
    """transformers' UMT5 encoder stack, for evaluation; on the meta device it has shapes only and holds no buffers.

    Load with `load_state_dict(rename_text_encoder(state), strict=True, assign=True)`.
    """
    # Only here, because it takes seconds and a stored result makes it unnecessary.
    from transformers import UMT5Config, UMT5EncoderModel

    settings = UMT5Config(
        vocab_size=config.vocab_size,
        d_model=config.dim,
        d_kv=config.dim_attn // config.num_heads,
        d_ff=config.dim_ffn,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        relative_attention_num_buckets=config.num_buckets,
        relative_attention_max_distance=config.max_distance,
        layer_norm_epsilon=config.eps,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        use_cache=False,
    )
    with torch.device(device):
        model = UMT5EncoderModel(settings)
    # The stack alone: around it the embedding has two names for one tensor.
    return model.get_encoder().eval().requires_grad_(False)


def text_encoder_key(name: str) -> str:
    """transformers' name of the published parameter `name`; KeyError if it is not one of this encoder's."""
    if name in _TOP_NAMES:
        return _TOP_NAMES[name]
    match = _PUBLISHED_BLOCK_NAME.fullmatch(name)
    if match is None:
        raise KeyError(name)
    return f"block.{match[1]}.{_BLOCK_NAMES[match[2]]}"


def rename_text_encoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published weights under transformers' names, the same tensors; KeyError for a name that is not the encoder's."""
    return {text_encoder_key(name): tensor for name, tensor in state.items()}


def expected_text_encoder_keys(config: TextEncoderConfig) -> dict[str, tuple[int, ...]]:
    """Published name -> shape of every parameter."""
    published = {name: name for name in _TOP_NAMES} | {
        f"blocks.{block}.{name}": name for block in range(config.num_layers) for name in _BLOCK_NAMES
    }
    shapes = {name: tuple(value.shape) for name, value in build_text_encoder(config).state_dict().items()}
    return {name: shapes[text_encoder_key(name)] for name in published}


@torch.no_grad()
def encode_text(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """Text features [n, dim] in the model's dtype and on its device; `ids` and `mask` are [1, L], n real tokens first.

    Only the real tokens are run. Padding is masked as a key, and its own rows are cut off, so it changes nothing.
    """
    length = int(mask.sum())
    if not bool(mask[0, :length].all()):
        raise ValueError("the mask must be ones, then zeros")
    device = next(model.parameters()).device
    return model(input_ids=ids[:1, :length].to(device)).last_hidden_state[0]


def clean_prompt(text: str) -> str:
    """`text` with broken unicode mended, HTML entities resolved twice, and white space collapsed."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text.strip()).strip()


def tokenize(tokenizer_dir: Path, prompt: str, text_len: int = TEXT_LEN) -> tuple[Tensor, Tensor]:
    """Token numbers and mask, both int64 [1, text_len], of the cleaned `prompt`, from the files in `tokenizer_dir`.

    A prompt that is too long is cut; the end-of-sequence token always comes last, then padding. Never asks the
    network. Raises ModelFilesError if there is no usable tokenizer.
    """
    words = _token_ids(Path(tokenizer_dir), clean_prompt(prompt))
    numbers = [*words[: text_len - 1], END_ID]
    ids = torch.full((1, text_len), PAD_ID, dtype=torch.int64)
    ids[0, : len(numbers)] = torch.tensor(numbers)
    mask = torch.zeros_like(ids)
    mask[0, : len(numbers)] = 1
    return ids, mask


def _token_ids(folder: Path, text: str) -> list[int]:
    """Tokens of `text` without special ones, by `tokenizer.json`, or by `spiece.model` where that is all there is."""
    try:
        if (folder / "tokenizer.json").is_file():
            # The library beneath transformers' fast tokenizers: no class to be guessed, nothing looked up online.
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
            tokenizer.no_truncation()
            tokenizer.no_padding()
            return list(tokenizer.encode(text, add_special_tokens=False).ids)
        if (folder / "spiece.model").is_file():
            from sentencepiece import SentencePieceProcessor

            return list(SentencePieceProcessor(model_file=str(folder / "spiece.model")).encode(text))
    except Exception as error:  # for a damaged file, tokenizers raises just that
        raise ModelFilesError(
            f"The tokenizer in {folder} cannot be read.",
            code="model_files.tokenizer",
            hint="Download the model again.",
            detail=repr(error),
        ) from error
    raise ModelFilesError(
        f"There is no tokenizer in {folder}.",
        code="model_files.tokenizer",
        hint="It should hold tokenizer.json (16.8 MB) or spiece.model (4.5 MB).",
    )
