#!/usr/bin/env python3
"""Compare tests/whisper_reference.py with other implementations on the same weights and recording, in float32 with greedy decoding.

    second_opinion.py openai FOLDER AUDIO [--language CODE]    openai/whisper 20250625; needs torch, and its source in PYTHONPATH
    second_opinion.py ct2 FOLDER AUDIO [--language CODE]       CTranslate2 4.8.5 and faster-whisper 1.2.1

Prints the largest absolute differences, one per line.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import whisper_reference as reference

STEPS, SPOKEN_TEXT = 12, " And so my fellow Americans ask not what your country can"


def openai_names(tensors):
    """Yields (name in openai/whisper, tensor of CTranslate2's file)."""
    yield "decoder.token_embedding.weight", tensors["decoder/embeddings/weight"]
    for side, norm in (("encoder", "ln_post"), ("decoder", "ln")):
        yield f"{side}.positional_embedding", tensors[f"{side}/position_encodings/encodings"]
        yield from norm_names(tensors, f"{side}/layer_norm", f"{side}.{norm}")
        for i in range(sum(name.startswith(f"{side}/layer_") and name.endswith("ffn/layer_norm/beta") for name in tensors)):
            yield from layer_names(tensors, side, f"{side}/layer_{i}", f"{side}.blocks.{i}")
    for name in ("conv1", "conv2"):
        yield from ((f"encoder.{name}.{kind}", tensors[f"encoder/{name}/{kind}"]) for kind in ("weight", "bias"))


def norm_names(tensors, ct2_name, name):
    yield from ((f"{name}.weight", tensors[f"{ct2_name}/gamma"]), (f"{name}.bias", tensors[f"{ct2_name}/beta"]))


def linear_names(tensors, ct2_name, names):
    """Splits a matrix into several by rows. Keys have no bias, which CTranslate2 stores as zeros."""
    for part, name in enumerate(names):
        for kind in ("weight", "bias"):
            value = np.split(tensors[f"{ct2_name}/{kind}"], len(names))[part]
            if name.endswith("key") and kind == "bias":
                assert not value.any()
            else:
                yield f"{name}.{kind}", value


def layer_names(tensors, side, ct2_name, name):
    attention = f"{ct2_name}/self_attention"
    yield from norm_names(tensors, f"{attention}/layer_norm", f"{name}.attn_ln")
    yield from linear_names(tensors, f"{attention}/linear_0", [f"{name}.attn.{part}" for part in ("query", "key", "value")])
    yield from linear_names(tensors, f"{attention}/linear_1", [f"{name}.attn.out"])
    if side == "decoder":
        yield from norm_names(tensors, f"{ct2_name}/attention/layer_norm", f"{name}.cross_attn_ln")
        yield from linear_names(tensors, f"{ct2_name}/attention/linear_0", [f"{name}.cross_attn.query"])
        yield from linear_names(tensors, f"{ct2_name}/attention/linear_1", [f"{name}.cross_attn.{part}" for part in ("key", "value")])
        yield from linear_names(tensors, f"{ct2_name}/attention/linear_2", [f"{name}.cross_attn.out"])
    yield from norm_names(tensors, f"{ct2_name}/ffn/layer_norm", f"{name}.mlp_ln")
    for part in (0, 1):
        yield from linear_names(tensors, f"{ct2_name}/ffn/linear_{part}", [f"{name}.mlp.{2 * part}"])


def openai_model(folder, model):
    import torch
    import whisper

    tensors = reference.read_model(folder / "model.bin")
    n_state, n_mels = tensors["encoder/conv1/weight"].shape[:2]
    sides = [(model.heads[side], model.layers[side]) for side in ("encoder", "decoder")]
    dims = whisper.model.ModelDimensions(n_mels, 1500, n_state, *sides[0], len(tensors["decoder/embeddings/weight"]), 448, n_state, *sides[1])
    other = whisper.model.Whisper(dims).eval()
    other.load_state_dict({name: torch.from_numpy(value.astype(np.float32)) for name, value in openai_names(tensors)}, strict=True)
    heads = torch.zeros(sides[1][1], sides[1][0], dtype=torch.bool)
    heads[tuple(zip(*model.alignment_heads()))] = True
    other.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)
    return other


def openai(folder, samples, language, model):
    """Spectrogram, features, logits, suppressed tokens, language probabilities and two transcripts by openai/whisper."""
    import torch
    import whisper

    other, n = openai_model(folder, model), reference.CHUNK_LENGTH * reference.SAMPLE_RATE
    mel = whisper.log_mel_spectrogram(samples, model.n_mels, padding=n)
    window = whisper.pad_or_trim(mel[:, :min(mel.shape[-1] - reference.FRAMES, reference.FRAMES)], reference.FRAMES)
    with torch.no_grad():
        features = other.encoder(window[None])
    tokenizer = whisper.tokenizer.get_tokenizer(other.is_multilingual, num_languages=other.num_languages, language="en")
    ids = [*tokenizer.sot_sequence, tokenizer.timestamp_begin, *tokenizer.encode(SPOKEN_TEXT)]
    with torch.no_grad():
        logits = other.decoder(torch.tensor([ids]), features)[0].numpy()
        languages = other.detect_language(whisper.pad_or_trim(mel, reference.FRAMES))[1] if other.is_multilingual else {}
    specials = [tokenizer.transcribe, tokenizer.translate, tokenizer.sot, tokenizer.sot_prev, tokenizer.sot_lm, tokenizer.no_speech]
    run = lambda words: other.transcribe(samples, language=language, temperature=0.0, word_timestamps=words, fp16=False, verbose=None)
    return {"mel": mel.numpy().T, "features": features[0].numpy(), "logits": (ids, logits), "languages": languages,
            "suppressed": sorted({*tokenizer.non_speech_tokens, *specials}), "plain": run(False), "words": run(True)}


def ct2(folder, samples, language, model):
    import ctranslate2
    from faster_whisper import WhisperModel

    other = WhisperModel(str(folder), device="cpu", compute_type="float32", cpu_threads=2)
    mel = reference.log_mel(samples, model.n_mels)
    window = reference.pad_or_trim(mel[:min(len(mel) - reference.FRAMES, reference.FRAMES)])
    view = lambda frames: ctranslate2.StorageView.from_array(np.ascontiguousarray(frames.T[None], np.float32))
    features = other.model.encode(view(window))

    # without timestamps no filter applies; half of max_length is for the prompt
    sot_sequence = [*model.tokens.sot_sequence("en", "transcribe"), model.tokens.no_timestamps]
    generated = other.model.generate(features, [sot_sequence], beam_size=1, max_length=2 * (len(sot_sequence) + STEPS), return_logits_vocab=True,
                                  suppress_blank=False, suppress_tokens=None)[0]
    logits = [np.array(row) for row in generated.logits[0]]
    ids = sot_sequence + generated.sequences_ids[0][:len(logits) - 1]
    languages = {}
    if other.model.is_multilingual:
        languages = {token[2:-2]: probability for token, probability in other.model.detect_language(view(reference.pad_or_trim(mel)))[0]}
    return {"features": np.array(features)[0], "logits": (ids, np.array(logits)), "languages": languages,
            "plain": faster_whisper_transcript(other, samples, language, False), "words": faster_whisper_transcript(other, samples, language, True)}


def faster_whisper_transcript(model, samples, language, words):
    segments, _ = model.transcribe(samples, language=language, beam_size=1, temperature=0.0, word_timestamps=words)
    keys = ("start", "end", "text", "tokens", "avg_logprob", "no_speech_prob", "compression_ratio")
    return {"segments": [{key: getattr(s, key) for key in keys} | {"words": [
        {key: getattr(w, key) for key in ("word", "start", "end", "probability")} for w in s.words or []]} for s in segments]}


def print_max_difference(name, a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    print(f"{name}: {np.abs(a - b).max():.2e}" if a.shape == b.shape else f"{name}: {a.shape} and {b.shape}")


def compare_transcripts(name, ours, other):
    ours, other = ours["segments"], other["segments"]
    text = ["".join(segment["text"] for segment in each) for each in (ours, other)]
    tokens = [[segment["tokens"] for segment in each] for each in (ours, other)]
    print(f"{name}: {len(ours)} and {len(other)} segments, equal text: {text[0] == text[1]}, equal tokens: {tokens[0] == tokens[1]}")
    if len(ours) == len(other):
        for key in ("start", "end", "avg_logprob", "no_speech_prob", "compression_ratio"):
            print_max_difference(f"  {key}", [s[key] for s in ours], [s[key] for s in other])
    words = [[word for segment in each for word in segment.get("words", [])] for each in (ours, other)]
    if words[0]:
        print(f"  {len(words[0])} and {len(words[1])} words, equal: {[w['word'] for w in words[0]] == [w['word'] for w in words[1]]}")
        if len(words[0]) == len(words[1]):
            for key in ("start", "end", "probability"):
                print_max_difference(f"  words' {key}", [w[key] for w in words[0]], [w[key] for w in words[1]])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", choices=["openai", "ct2"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("audio", type=Path)
    parser.add_argument("--language")
    parser.add_argument("--repeat", type=int, default=1, help="number of times the recording is repeated")
    options = parser.parse_args()
    model = reference.Whisper.load(options.folder)
    samples = np.tile(reference.load_audio(options.audio), options.repeat)
    other = {"openai": openai, "ct2": ct2}[options.other](options.folder, samples, options.language, model)
    mel = reference.log_mel(samples, model.n_mels)
    features = model.encode(reference.pad_or_trim(mel[:min(len(mel) - reference.FRAMES, reference.FRAMES)]))
    transcripts = {words: reference.transcribe(model, samples, options.language, words=words) for words in (False, True)}
    if "mel" in other:
        print_max_difference("mel", mel, other["mel"])
        print("equal suppressed tokens:", model.tokens.suppress_tokens() == other["suppressed"])
    print(f"largest feature: {np.abs(features).max():.1f}")
    print_max_difference("features", features, other["features"])
    ids, logits = other["logits"]
    print_max_difference(f"logits of {len(logits)} steps", model.step(model.start(features), ids)[0][-len(logits):], logits)
    if other["languages"]:
        languages = transcripts[False].get("languages") or reference.detect_language(model, model.encode(reference.pad_or_trim(mel)))
        print_max_difference("languages", [languages[code] for code in languages], [other["languages"][code] for code in languages])
    compare_transcripts("transcript", transcripts[False], other["plain"])
    compare_transcripts("with words", transcripts[True], other["words"])


if __name__ == "__main__":
    main()
