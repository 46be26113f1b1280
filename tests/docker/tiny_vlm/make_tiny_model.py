"""Write a tiny PaddleOCR-VL checkpoint of random weights: it runs as the real one does and always answers the same text.

    python make_tiny_model.py FOLDER

The vision tower, the projector, the attention inputs and the gates are random
and truly computed. What the two last matrices of each decoder layer (o_proj and
down_proj) add is zero, so the next token depends on the last one alone, and the
output matrix spells ANSWER, word by word, from the chat template's "Assistant: ".
So the wiring can be tested, and no reading: the text says nothing of the picture.

Needs numpy, safetensors and tokenizers. The same files on every run, 1.4 MB.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

ANSWER = "tiny random model says OK"  # its words must differ from each other
PROMPT_END = "Assistant: "  # of PaddleX's chat template

UNKNOWN, START, STOP = "<unk>", "<s>", "</s>"
IMAGE, VIDEO, IMAGE_START, IMAGE_END = "<|IMAGE_PLACEHOLDER|>", "<|video_pad|>", "<|IMAGE_START|>", "<|IMAGE_END|>"
SENTENCE_START, SENTENCE_END = "<|begin_of_sentence|>", "<|end_of_sentence|>"
SPECIAL = (UNKNOWN, START, STOP, SENTENCE_START, SENTENCE_END, IMAGE, VIDEO, IMAGE_START, IMAGE_END)
TRAINING_TEXT = ("User: OCR:\nAssistant: ", "Table Recognition:", "Formula Recognition:", "Chart Recognition:", "0123456789")

# Sizes: as small as vLLM's kernels take them (attention heads of 32).
VOCABULARY = 640
HIDDEN, INNER, LAYERS, HEADS, KEY_HEADS, HEAD = 64, 128, 2, 2, 1, 32
VISION_HIDDEN, VISION_INNER, VISION_LAYERS, VISION_HEADS, PATCH, IMAGE_SIZE = 64, 128, 2, 2, 14, 56
MERGE = 2  # patches a side that become one token
POSITIONS = 131072  # as the real model, so that the same max-model-len is accepted

Weights = dict[str, np.ndarray]


def write_model(folder: Path, answer: str = ANSWER) -> None:
    """Write the whole checkpoint into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [word if n == 0 else f" {word}" for n, word in enumerate(answer.split())]
    tokenizer = make_tokenizer(words)
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    for name, content in {
        "config.json": model_config(ids),
        "generation_config.json": {"bos_token_id": ids[START], "eos_token_id": ids[STOP], "pad_token_id": ids[UNKNOWN]},
        "preprocessor_config.json": image_processor_config(),
        "processor_config.json": {"processor_class": "PaddleOCRVLProcessor"},
        "tokenizer_config.json": tokenizer_config(),
    }.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")
    # PaddleX passes --trust-remote-code, and vLLM then counts on an image processor that comes with the model.
    shutil.copyfile(Path(__file__).with_name("image_processing_tiny.py"), folder / "image_processing_tiny.py")
    chain = [tokenizer.encode(PROMPT_END).ids[-1], *map(tokenizer.token_to_id, words)]
    save_file(make_weights(chain, ids[STOP]), str(folder / "model.safetensors"), metadata={"format": "pt"})


def make_tokenizer(words: list[str]) -> Tokenizer:
    """Byte-level BPE, with the special tokens of the real model and one token for each of `words`."""
    if len(set(words)) != len(words):
        raise ValueError("the words of the answer must differ from each other")
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=list(SPECIAL), show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(TRAINING_TEXT * 4, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    if tokenizer.get_vocab_size() > VOCABULARY:
        raise ValueError(f"{tokenizer.get_vocab_size()} tokens do not fit into {VOCABULARY}")
    return tokenizer


def tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": POSITIONS, "clean_up_tokenization_spaces": False,
        "bos_token": START, "eos_token": STOP, "unk_token": UNKNOWN, "pad_token": UNKNOWN,
        "cls_token": SENTENCE_START, "sep_token": SENTENCE_END,
        "image_token": IMAGE, "extra_special_tokens": {"image_token": IMAGE},
    }  # fmt: skip


def model_config(ids: dict[str, int]) -> dict[str, Any]:
    return {
        "architectures": ["PaddleOCRVLForConditionalGeneration"], "model_type": "paddleocr_vl",
        "torch_dtype": "bfloat16", "tie_word_embeddings": False,
        "image_token_id": ids[IMAGE], "video_token_id": ids[VIDEO],
        "vision_start_token_id": ids[IMAGE_START], "vision_end_token_id": ids[IMAGE_END],
        # The published file has these flat; transformers 5 would then tie the output matrix to the embeddings.
        "text_config": {
            "model_type": "paddleocr_vl_text", "torch_dtype": "bfloat16", "tie_word_embeddings": False,
            "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS, "vocab_size": VOCABULARY,
            "num_attention_heads": HEADS, "num_key_value_heads": KEY_HEADS, "head_dim": HEAD, "hidden_act": "silu",
            "rms_norm_eps": 1e-5, "max_position_embeddings": POSITIONS, "use_bias": False, "use_cache": False,
            "rope_theta": 500000, "rope_scaling": {"mrope_section": [4, 6, 6], "rope_type": "default", "type": "default"},
            "pad_token_id": ids[UNKNOWN], "bos_token_id": ids[START], "eos_token_id": ids[STOP],
        },
        "vision_config": {
            "model_type": "paddleocr_vl", "hidden_size": VISION_HIDDEN, "intermediate_size": VISION_INNER,
            "num_hidden_layers": VISION_LAYERS, "num_attention_heads": VISION_HEADS, "num_channels": 3,
            "image_size": IMAGE_SIZE, "patch_size": PATCH, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
            "attention_dropout": 0.0, "spatial_merge_size": MERGE, "temporal_patch_size": 2, "tokens_per_second": 2,
        },
    }  # fmt: skip


def image_processor_config() -> dict[str, Any]:
    token = (PATCH * MERGE) ** 2  # pixels
    return {
        "auto_map": {"AutoImageProcessor": "image_processing_tiny.TinyImageProcessor"},
        "image_processor_type": "TinyImageProcessor",
        "patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 1,
        "min_pixels": token * 16, "max_pixels": token * 256,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255, "resample": 3,
        "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
    }  # fmt: skip


# --- weights, named as in the published checkpoint


def make_weights(chain: list[int], stop: int) -> Weights:
    """All tensors. chain: the last token of a prompt, then the answer's; stop: the token that ends an answer."""
    random = np.random.default_rng(0)
    return {**_vision(random), **_projector(random), **_decoder(random), **_vocabulary(random, chain, stop)}


def _vision(random: np.random.Generator) -> Weights:
    top, width = "visual.vision_model.", VISION_HIDDEN
    weights = {
        f"{top}embeddings.patch_embedding.weight": _noise(random, width, 3, PATCH, PATCH),
        f"{top}embeddings.patch_embedding.bias": _zeros(width),
        f"{top}embeddings.position_embedding.weight": _noise(random, (IMAGE_SIZE // PATCH) ** 2, width),
        **_norm(f"{top}post_layernorm", width),
    }
    for layer in range(VISION_LAYERS):
        here = f"{top}encoder.layers.{layer}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            weights |= _linear(random, f"{here}self_attn.{name}", width, width)
        weights |= _linear(random, f"{here}mlp.fc1", VISION_INNER, width) | _linear(random, f"{here}mlp.fc2", width, VISION_INNER)
        weights |= _norm(f"{here}layer_norm1", width) | _norm(f"{here}layer_norm2", width)
    return weights


def _projector(random: np.random.Generator) -> Weights:
    merged = VISION_HIDDEN * MERGE**2
    return {
        **_norm("mlp_AR.pre_norm", VISION_HIDDEN),
        **_linear(random, "mlp_AR.linear_1", merged, merged),
        **_linear(random, "mlp_AR.linear_2", HIDDEN, merged),
    }


def _decoder(random: np.random.Generator) -> Weights:
    weights = {"model.norm.weight": _ones(HIDDEN)}
    for layer in range(LAYERS):
        here = f"model.layers.{layer}."
        weights |= {
            f"{here}self_attn.q_proj.weight": _noise(random, HEADS * HEAD, HIDDEN),
            f"{here}self_attn.k_proj.weight": _noise(random, KEY_HEADS * HEAD, HIDDEN),
            f"{here}self_attn.v_proj.weight": _noise(random, KEY_HEADS * HEAD, HIDDEN),
            f"{here}self_attn.o_proj.weight": _zeros(HIDDEN, HEADS * HEAD),
            f"{here}mlp.gate_proj.weight": _noise(random, INNER, HIDDEN),
            f"{here}mlp.up_proj.weight": _noise(random, INNER, HIDDEN),
            f"{here}mlp.down_proj.weight": _zeros(HIDDEN, INNER),
            f"{here}input_layernorm.weight": _ones(HIDDEN),
            f"{here}post_attention_layernorm.weight": _ones(HIDDEN),
        }
    return weights


def _vocabulary(random: np.random.Generator, chain: list[int], stop: int) -> Weights:
    """Embeddings and output matrix. Each token of `chain` has an axis of its own, which the output reads as the
    next one; the last axis is shared by all and says "stop", weakly, so any other token ends the answer."""
    own = len(chain)
    if own > HIDDEN - 8:
        raise ValueError("the answer has too many words")
    embeddings = _zeros(VOCABULARY, HIDDEN)
    embeddings[:, own:-1] = random.standard_normal((VOCABULARY, HIDDEN - 1 - own)) / np.sqrt(HIDDEN)
    embeddings[chain] = np.eye(own, HIDDEN)
    embeddings[:, -1] = 0.5
    output = _zeros(VOCABULARY, HIDDEN)
    output[stop, -1] = 2
    for axis, following in enumerate(chain[1:]):
        output[following, axis] = 4
    return {"model.embed_tokens.weight": embeddings, "lm_head.weight": output}


def _linear(random: np.random.Generator, name: str, outputs: int, inputs: int) -> Weights:
    return {f"{name}.weight": _noise(random, outputs, inputs), f"{name}.bias": _zeros(outputs)}


def _norm(name: str, width: int) -> Weights:
    return {f"{name}.weight": _ones(width), f"{name}.bias": _zeros(width)}


def _noise(random: np.random.Generator, *shape: int) -> np.ndarray:
    return (random.standard_normal(shape) * 0.05).astype(np.float32)


def _zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def _ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_tiny_model.py FOLDER")
    write_model(Path(sys.argv[1]))
