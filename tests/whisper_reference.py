#!/usr/bin/env python3
"""A reference implementation of Whisper in numpy, which tests compare with.

    whisper_reference.py FOLDER AUDIO... [--words] [--language CODE] [--task translate] [--prompt TEXT] [--float64]

prints one line of JSON per recording. FOLDER is a model in CTranslate2's format: model.bin, config.json, tokenizer.json.

It follows openai/whisper 20250625 (audio.py, model.py, decoding.py, transcribe.py, timing.py) with the defaults of its command line, but
decodes greedily without temperature fallback: the temperature is always 0, and "needs_fallback" marks segments for which openai/whisper
would try a higher one. It does not implement beam search, clip_timestamps, hallucination_silence_threshold and carry_initial_prompt.

The spectrogram, logit filters, probabilities and alignment are float64; encoder and decoder have the requested type.
"""

import argparse
import itertools
import json
import math
import string
import struct
import sys
import wave
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tokenizers import Tokenizer

SAMPLE_RATE, N_FFT, HOP_LENGTH, CHUNK_LENGTH = 16000, 400, 160, 30
FRAMES = CHUNK_LENGTH * SAMPLE_RATE // HOP_LENGTH  # per window
INPUT_STRIDE, TIME_PRECISION = 2, 0.02  # mel frames and seconds per timestamp token
FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH
TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}


# Audio

def load_audio(path):
    """Mono samples at 16 kHz, float32. Formats other than 16 kHz mono 16-bit WAV require PyAV."""
    path = str(path)
    if path.endswith(".wav"):
        with wave.open(path) as file:
            if (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLE_RATE, 1, 2):
                return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    return decode_with_av(path)


def decode_with_av(path):
    import av

    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    with av.open(path) as file:
        frames = [part for frame in file.decode(audio=0) for part in resampler.resample(frame)] + resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32) / 32768


def mel_filters(n_mels):
    """Triangular filters of equal area on Slaney's mel scale, [n_mels, 201]."""
    def hertz(mel):
        return np.where(mel < 15, 200 / 3 * mel, 1000 * np.exp(math.log(6.4) / 27 * (mel - 15)))

    edges = hertz(np.linspace(0, 15 + 27 * math.log(8) / math.log(6.4), n_mels + 2))
    bins = np.arange(N_FFT // 2 + 1) * SAMPLE_RATE / N_FFT
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]


def log_mel(samples, n_mels=80, padding=CHUNK_LENGTH * SAMPLE_RATE):
    """Log-mel spectrogram [frames, n_mels] of the samples and `padding` zeros after them, clamped to 8 (80 dB) below the maximum."""
    samples = np.concatenate([samples, np.zeros(padding)])
    padded = np.pad(samples, N_FFT // 2, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    count, filters = len(samples) // HOP_LENGTH, mel_filters(n_mels).T
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP_LENGTH][:count]
    blocks = (frames[i:i + FRAMES] * hann for i in range(0, count, FRAMES))
    powers = np.concatenate([np.abs(np.fft.rfft(block)) ** 2 @ filters for block in blocks])
    logs = np.log10(np.maximum(powers, 1e-10))
    return (np.maximum(logs, logs.max() - 8) + 4) / 4


def pad_or_trim(mel):
    """A window of FRAMES frames. Missing frames become 0, which differs from the value of silence."""
    mel = mel[:FRAMES]
    return np.pad(mel, ((0, FRAMES - len(mel)), (0, 0)))


# Arithmetic

def erf_table():
    """Taylor coefficients of erf around multiples of 1/32: its derivatives are Hermite polynomials times a Gaussian."""
    nodes = np.arange(-6 * 32, 6 * 32 + 1) / 32
    hermite, gaussian = [np.ones_like(nodes), 2 * nodes], 2 / math.sqrt(math.pi) * np.exp(-nodes**2)
    for n in range(1, 7):
        hermite.append(2 * nodes * hermite[n] - 2 * n * hermite[n - 1])
    terms = [(-1) ** n * hermite[n] * gaussian / math.factorial(n + 1) for n in range(7)]
    return [np.array([math.erf(x) for x in nodes]), *terms]


ERF = erf_table()


def erf(x):
    """erf with an error below 1e-14: the Taylor series is at most 1/64 from its center. Beyond 6, erf is exactly 1 in float64."""
    x = np.clip(x, -6, 6)
    index = np.rint(x * 32).astype(np.int32)
    offset, index = x - index / np.asarray(32, x.dtype), index + 6 * 32
    total = np.zeros_like(x)
    for coefficients in reversed(ERF):
        total = total * offset + coefficients.astype(x.dtype)[index]
    return total


def gelu(x):
    return x * (erf(x / np.asarray(math.sqrt(2), x.dtype)) + 1) / 2


def layer_norm(x, gamma, beta):
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + np.asarray(1e-5, x.dtype)) * gamma + beta


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


# Weights

class Reader:
    """Reads consecutive little-endian values."""

    def __init__(self, data):
        self.data, self.position = data, 0

    def read(self, kind):
        value, = struct.unpack_from("<" + kind, self.data, self.position)
        self.position += struct.calcsize("<" + kind)
        return value

    def text(self):
        """A string; its length includes a terminating zero."""
        length = self.read("H")
        self.position += length
        return self.data[self.position - length:self.position - 1].decode()

    def tensor(self):
        shape = [self.read("I") for _ in range(self.read("B"))]
        kind, size = TYPES[self.read("B")], self.read("I")
        self.position += size
        return np.frombuffer(self.data, kind, size // np.dtype(kind).itemsize, self.position - size).reshape(shape)


def read_model(path):
    """{name: tensor} of CTranslate2's model.bin, as stored; an alias has the tensor of its target."""
    file = Reader(Path(path).read_bytes())
    version, spec, revision = file.read("I"), file.text(), file.read("I")
    assert (version, spec, revision) == (6, "WhisperSpec", 3), (version, spec, revision)
    tensors = {file.text(): file.tensor() for _ in range(file.read("I"))}
    for _ in range(file.read("I")):
        alias, target = file.text(), file.text()
        tensors |= {alias + end: tensors[target + end] for end in ("", "_scale") if target + end in tensors}
    assert file.position == len(file.data)
    return tensors


def dequantize(tensors, dtype):
    """Yields (name, tensor). 8-bit tensors have a scale per row."""
    scaled = {name for name in tensors if name + "_scale" in tensors}
    for name, tensor in tensors.items():
        if name in scaled:
            scale = tensors[name + "_scale"].astype(dtype)
            yield name, tensor.astype(dtype) / scale.reshape(scale.shape + (1,) * (tensor.ndim - scale.ndim))
        elif tensor.ndim and not name.endswith("_scale"):
            yield name, tensor.astype(dtype)


# The network

class Whisper:
    """`encode` encodes a window of the spectrogram, `start` creates a decoder state for it, and `step` decodes tokens to logits."""

    def __init__(self, tensors, config, tokens, dtype=np.float32):
        self.weights = dict(dequantize(tensors, dtype))
        self.weights["decoder/projection/weight"] = self.weights["decoder/embeddings/weight"]  # an alias in the file
        self.config, self.tokens, self.dtype = config, tokens, dtype
        self.heads = {side: int(tensors[f"{side}/num_heads"]) for side in ("encoder", "decoder")}
        self.layers = {side: sum(name.startswith(f"{side}/layer_") and name.endswith("/ffn/linear_0/weight") for name in tensors)
                       for side in ("encoder", "decoder")}
        self.n_mels = self.weights["encoder/conv1/weight"].shape[1]
        self.n_text_ctx = len(self.weights["decoder/position_encodings/encodings"])
        # activation 3 is the exact GELU
        expected = {"activation": 3, "pre_norm": 1, "alibi": 0, "scale_embeddings": 0, "start_from_zero_embedding": 0}
        assert all(int(tensors[f"decoder/{name}"]) == value for name, value in expected.items())

    @classmethod
    def load(cls, folder, dtype=np.float32):
        folder = Path(folder)
        tensors, config = read_model(folder / "model.bin"), json.loads((folder / "config.json").read_text())
        tokens = Tokens(folder / "tokenizer.json", len(tensors["decoder/embeddings/weight"]))
        return cls(tensors, config, tokens, dtype)

    def matmul(self, x, name):
        """A matrix-vector product is ten times as fast as a matrix product with one row."""
        weight = self.weights[f"{name}/weight"]
        return (weight @ x[0])[None] if len(x) == 1 else x @ weight.T

    def linear(self, x, name):
        return self.matmul(x, name) + self.weights[f"{name}/bias"]

    def norm(self, x, name):
        return layer_norm(x, self.weights[f"{name}/gamma"], self.weights[f"{name}/beta"])

    def split_heads(self, x, side):
        """[positions, n_state] to [heads, positions, head_dim]"""
        return x.reshape(len(x), self.heads[side], -1).transpose(1, 0, 2)

    def attention(self, query, key, value, mask=0):
        """The attention output, and the scores before softmax."""
        scores = query @ key.transpose(0, 2, 1) / np.asarray(math.sqrt(query.shape[-1]), self.dtype) + mask
        mixed = softmax(scores) @ value
        return mixed.transpose(1, 0, 2).reshape(query.shape[1], -1), scores

    def feed_forward(self, x, layer):
        return self.linear(gelu(self.linear(self.norm(x, f"{layer}/ffn/layer_norm"), f"{layer}/ffn/linear_0")), f"{layer}/ffn/linear_1")

    def queries_keys_values(self, x, layer, side):
        joined = self.linear(self.norm(x, f"{layer}/self_attention/layer_norm"), f"{layer}/self_attention/linear_0")
        return (self.split_heads(part, side) for part in np.split(joined, 3, axis=-1))

    def convolve(self, x, name, stride):
        """1-D convolution with kernel size 3 and a padding of 1, followed by GELU."""
        weight, padded = self.weights[f"{name}/weight"], np.pad(x, ((1, 1), (0, 0)))
        parts = (padded[i:i + len(x)][::stride] @ weight[:, :, i].T for i in range(3))
        return gelu(sum(parts) + self.weights[f"{name}/bias"])

    def encode(self, mel):
        """[3000, n_mels] to [1500, n_state]"""
        x = self.convolve(self.convolve(mel.astype(self.dtype), "encoder/conv1", 1), "encoder/conv2", 2)
        x = x + self.weights["encoder/position_encodings/encodings"]
        for layer in (f"encoder/layer_{i}" for i in range(self.layers["encoder"])):
            attended, _ = self.attention(*self.queries_keys_values(x, layer, "encoder"))
            x = x + self.linear(attended, f"{layer}/self_attention/linear_1")
            x = x + self.feed_forward(x, layer)
        return self.norm(x, "encoder/layer_norm")

    def start(self, features):
        """A decoder state with the cross-attention keys and values of each layer and an empty self-attention cache."""
        joined = [self.linear(features, f"decoder/layer_{i}/attention/linear_1") for i in range(self.layers["decoder"])]
        cross_cache = [tuple(self.split_heads(part, "decoder") for part in np.split(kv, 2, axis=-1)) for kv in joined]
        return SimpleNamespace(cross_cache=cross_cache, self_cache=[None] * len(cross_cache), length=0)

    def step(self, state, ids):
        """Logits [ids, n_vocab] after each of the tokens, and the cross-attention scores [heads, ids, 1500] of each layer."""
        past, state.length = state.length, state.length + len(ids)
        x = self.weights["decoder/embeddings/weight"][ids] + self.weights["decoder/position_encodings/encodings"][past:state.length]
        future = np.arange(state.length) > past + np.arange(len(ids))[:, None]
        mask, scores = np.where(future, self.dtype(-np.inf), self.dtype(0)), []
        for index in range(self.layers["decoder"]):
            layer = f"decoder/layer_{index}"
            query, key, value = self.queries_keys_values(x, layer, "decoder")
            if past:
                key, value = (np.concatenate(pair, axis=1) for pair in zip(state.self_cache[index], (key, value)))
            state.self_cache[index] = key, value
            attended, _ = self.attention(query, key, value, mask)
            x = x + self.linear(attended, f"{layer}/self_attention/linear_1")
            query = self.split_heads(self.linear(self.norm(x, f"{layer}/attention/layer_norm"), f"{layer}/attention/linear_0"), "decoder")
            attended, cross_scores = self.attention(query, *state.cross_cache[index])
            scores.append(cross_scores)
            x = x + self.linear(attended, f"{layer}/attention/linear_2")
            x = x + self.feed_forward(x, layer)
        return self.matmul(self.norm(x, "decoder/layer_norm"), "decoder/projection"), scores

    def alignment_heads(self):
        """[(layer, head)] from the config; by default, all heads in the upper half of the layers."""
        layers = range(self.layers["decoder"] // 2, self.layers["decoder"])
        return self.config.get("alignment_heads") or list(itertools.product(layers, range(self.heads["decoder"])))


# Tokens

def byte_alphabet():
    """The mapping from characters to bytes of GPT-2's byte-level vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(rest)}


SYMBOLS = [*'"#()*+/:;<=>@[\\]^_`{|}~「」『』', *"<< >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪".split()]
NOTES = list("♩♪♫♬♭♮♯")
UNSPACED = {"zh", "ja", "th", "lo", "my", "yue"}


class Tokens:
    """The tokenizer and the ids of special tokens, named as in openai/whisper.

    English-only models have one text token less, and their prompts have neither a language nor a task token.
    """

    def __init__(self, path, n_vocab):
        self.tokenizer, alphabet = Tokenizer.from_file(str(path)), byte_alphabet()
        self.multilingual = n_vocab >= 51865
        self.eot, self.sot, self.translate, self.transcribe, self.sot_lm, self.sot_prev, self.no_timestamps = map(self.tokenizer.token_to_id, (
            "<|endoftext|>", "<|startoftranscript|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|notimestamps|>"))
        # some files call no_speech <|nocaptions|>, and those of English-only models do not list the timestamps
        self.no_speech, self.timestamp_begin = self.no_timestamps - 1, self.no_timestamps + 1
        self.languages = {self.tokenizer.id_to_token(i)[2:-2]: i for i in range(self.sot + 1, self.translate)}
        plain = (self.tokenizer.id_to_token(i) for i in range(self.eot))
        self.bytes = [bytes(alphabet[character] for character in token) for token in plain]

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        """The text without special tokens; invalid UTF-8 becomes U+FFFD."""
        return b"".join(self.bytes[i] for i in ids if i < self.eot).decode(errors="replace")

    def sot_sequence(self, language, task):
        if not self.multilingual:
            return [self.sot]
        return [self.sot, self.languages[language], self.transcribe if task == "transcribe" else self.translate]

    def non_speech_tokens(self):
        """Symbols that annotate sounds: the first token of " -", " '" and musical notes; other symbols if they are a single token."""
        found = {self.encode(" -")[0], self.encode(" '")[0]}
        for symbol in SYMBOLS + NOTES:
            ids = (self.encode(symbol), self.encode(" " + symbol))
            found |= {each[0] for each in ids if len(each) == 1 or symbol in NOTES}
        return found

    def suppress_tokens(self):
        return sorted(self.non_speech_tokens() | {self.transcribe, self.translate, self.sot, self.sot_prev, self.sot_lm, self.no_speech})

    def split_on_unicode(self, ids):
        """[(text, ids)] of the shortest runs of tokens that form complete characters."""
        whole, run, offset, parts = self.decode(ids), [], 0, []
        for token in ids:
            run.append(token)
            text = self.decode(run)
            if "\ufffd" not in text or whole[offset + text.index("\ufffd")] == "\ufffd":
                parts.append((text, run))
                run, offset = [], offset + len(text)
        return parts

    def split_to_words(self, ids, language):
        """[(text, ids)] of words. A word begins with a space; punctuation is a word by itself."""
        parts = self.split_on_unicode(ids)
        if language in UNSPACED:
            return parts
        words = []
        for text, run in parts:
            if text.startswith(" ") or text.strip() in string.punctuation or not words:
                words.append((text, run))
            else:
                words[-1] = words[-1][0] + text, words[-1][1] + run
        return words


# Decoding of one window

def apply_filters(logits, sampled, tokens, suppress_tokens, max_initial_timestamp=1.0):
    """A copy of the logits with -inf for tokens that may not follow those sampled so far, in the order of openai/whisper's filters."""
    logits = logits.astype(np.float64)
    if not sampled:
        logits[[*tokens.encode(" "), tokens.eot]] = -np.inf
    logits[suppress_tokens] = -np.inf
    logits[tokens.no_timestamps] = -np.inf
    last_is_timestamp = bool(sampled) and sampled[-1] >= tokens.timestamp_begin
    penultimate_is_timestamp = len(sampled) < 2 or sampled[-2] >= tokens.timestamp_begin
    if last_is_timestamp and penultimate_is_timestamp:
        logits[tokens.timestamp_begin:] = -np.inf
    elif last_is_timestamp:
        logits[:tokens.eot] = -np.inf
    if timestamps := [token for token in sampled if token >= tokens.timestamp_begin]:
        # a timestamp may end one segment and begin the next, but no segment may be empty
        minimum = timestamps[-1] if last_is_timestamp and not penultimate_is_timestamp else timestamps[-1] + 1
        logits[tokens.timestamp_begin:minimum] = -np.inf
    if not sampled:
        logits[:tokens.timestamp_begin] = -np.inf
        logits[tokens.timestamp_begin + round(max_initial_timestamp / TIME_PRECISION) + 1:] = -np.inf
    logs = log_softmax(logits)
    if np.logaddexp.reduce(logs[tokens.timestamp_begin:]) > logs[:tokens.timestamp_begin].max():
        logits[:tokens.timestamp_begin] = -np.inf
    return logits


def compression_ratio(text):
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def decode_window(model, features, sot_sequence, prompt):
    """Decodes greedily. Log-probabilities are those of the filtered distribution and include the end of text."""
    tokens, limit = model.tokens, model.n_text_ctx // 2
    prefix = [tokens.sot_prev, *prompt[-(limit - 1):]] if prompt else []
    ids, sampled, sum_logprob, suppress_tokens = prefix + sot_sequence, [], 0.0, tokens.suppress_tokens()
    state = model.start(features)
    logits, _ = model.step(state, ids)
    no_speech = softmax(logits[len(prefix)].astype(np.float64))[tokens.no_speech]
    for _ in range(limit):
        filtered = apply_filters(logits[-1], sampled, tokens, suppress_tokens)
        token = int(filtered.argmax())
        sum_logprob += log_softmax(filtered)[token]
        if token == tokens.eot:
            break
        sampled.append(token)
        if len(ids) + len(sampled) > model.n_text_ctx:
            break
        logits, _ = model.step(state, [token])
    text = tokens.decode(sampled).strip()
    return SimpleNamespace(tokens=sampled, text=text, avg_logprob=float(sum_logprob / (len(sampled) + 1)), no_speech_prob=float(no_speech),
                           compression_ratio=compression_ratio(text))


def detect_language(model, features):
    """{language code: probability}, from the logits after the start of transcript."""
    logits, _ = model.step(model.start(features), [model.tokens.sot])
    languages = model.tokens.languages
    return dict(zip(languages, softmax(logits[0, list(languages.values())].astype(np.float64)).tolist()))


# Words

def median_filter(x, width=7):
    half = width // 2
    if x.shape[-1] <= half:
        return x
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(half, half)], mode="reflect")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1), axis=-1)


def dtw_path(cost):
    """Dynamic time warping: the token and frame indices of the cheapest monotonic path through [tokens, frames].

    As in openai/whisper, sums are float32 and ties advance the frame. The cells of a diagonal are independent of each other."""
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf, np.float32)
    trace, total[0, 0] = np.full(total.shape, -1, np.int8), 0
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        diagonal_cost, token_cost, frame_cost = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        step = np.where((diagonal_cost < token_cost) & (diagonal_cost < frame_cost), 0,
                        np.where((token_cost < diagonal_cost) & (token_cost < frame_cost), 1, 2))
        total[i, j] = cost[i - 1, j - 1] + np.choose(step, (diagonal_cost, token_cost, frame_cost)).astype(np.float64)
        trace[i, j] = step
    trace[0, :], trace[:, 0] = 2, 1
    i, j, path = rows, columns, []
    while i or j:
        path.append((i - 1, j - 1))
        i, j = i - (trace[i, j] != 2), j - (trace[i, j] != 1)
    return np.array(path[::-1]).T


def token_times(model, scores, frames, skip):
    """The start time of each token, in seconds from the start of the window."""
    weights = np.stack([scores[layer][head] for layer, head in model.alignment_heads()]).astype(np.float64)
    weights = softmax(weights[:, :, :frames // INPUT_STRIDE])
    weights = (weights - weights.mean(-2, keepdims=True)) / weights.std(-2, keepdims=True)
    matrix = median_filter(weights).mean(0)[skip:-1]
    rows, columns = dtw_path(-matrix)
    return columns[np.diff(rows, prepend=-1) != 0] * TIME_PRECISION


def align(model, features, sot_sequence, text, frames, language):
    """The words of a window's text with their times and probabilities."""
    tokens = model.tokens
    if not text:
        return []
    logits, scores = model.step(model.start(features), [*sot_sequence, tokens.no_timestamps, *text, tokens.eot])
    probabilities = softmax(logits[len(sot_sequence):len(sot_sequence) + len(text), :tokens.eot].astype(np.float64))[np.arange(len(text)), text]
    # one more row than tokens: the first token starts at the row of <|notimestamps|>, and the last ends at its own row
    times = token_times(model, scores, frames, len(sot_sequence))
    words, first = [], 0
    for word, run in tokens.split_to_words(text, language):
        stop = first + len(run)
        words.append(SimpleNamespace(word=word, tokens=run, start=times[first], end=times[stop], probability=float(probabilities[first:stop].mean())))
        first = stop
    return words


def merge_punctuation(words, prepended="\"'“¿([{-", appended="\"'.。,，!！?？:：”)]}、"):
    """Merges punctuation marks into adjacent words; the merged words become empty."""
    following = len(words) - 1
    for i in range(len(words) - 2, -1, -1):
        left, right = words[i], words[following]
        if left.word.startswith(" ") and left.word.strip() in prepended:
            right.word, right.tokens, left.word, left.tokens = left.word + right.word, left.tokens + right.tokens, "", []
        else:
            following = i
    previous = 0
    for j in range(1, len(words)):
        left, right = words[previous], words[j]
        if not left.word.endswith(" ") and right.word in appended:
            left.word, left.tokens, right.word, right.tokens = left.word + right.word, left.tokens + right.tokens, "", []
        else:
            previous = j


def median_duration(words):
    """The median duration of words whose duration is not 0, at most 0.7 s."""
    durations = [word.end - word.start for word in words if word.end != word.start]
    return min(0.7, float(np.median(durations))) if durations else 0.0


def limit_sentence_boundaries(words, max_duration):
    """Limits the duration of words at sentence boundaries."""
    marks = ".。!！?？"
    for before, word in zip(words, words[1:]):
        if word.end - word.start > max_duration:
            if word.word in marks:
                word.end = word.start + max_duration
            elif before.word in marks:
                word.start = word.end - max_duration


def limit_segment_boundaries(segment, words, median, last_speech):
    """Limits the duration of the first and the last word of a segment; otherwise the words determine the times of the segment."""
    max_duration, first, last = 2 * median, words[0], words[-1]
    second = words[1] if len(words) > 1 else None
    if first["end"] - last_speech > 4 * median and (
            first["end"] - first["start"] > max_duration or second and second["end"] - first["start"] > 2 * max_duration):
        if second and second["end"] - second["start"] > max_duration:
            first["end"] = second["start"] = max(second["end"] / 2, second["end"] - max_duration)
        first["start"] = max(0, first["end"] - max_duration)
    if segment["start"] < first["end"] and segment["start"] - 0.5 > first["start"]:
        first["start"] = max(0, min(first["end"] - median, segment["start"]))
    else:
        segment["start"] = first["start"]
    if segment["end"] > last["start"] and segment["end"] + 0.5 < last["end"]:
        last["end"] = max(last["start"] + median, segment["end"])
    else:
        segment["end"] = last["end"]


def add_words(model, features, segments, sot_sequence, frames, language, last_speech):
    """Adds words with timestamps to each segment of a window."""
    texts = [[token for token in segment["tokens"] if token < model.tokens.eot] for segment in segments]
    words = align(model, features, sot_sequence, sum(texts, []), frames, language)
    median = median_duration(words)
    if median:
        limit_sentence_boundaries(words, 2 * median)
    merge_punctuation(words)
    offset, remaining = segments[0]["seek"] / FRAMES_PER_SECOND, iter(words)
    for segment, text in zip(segments, texts):
        segment["words"], count = [], 0
        while count < len(text) and (word := next(remaining, None)):
            count += len(word.tokens)
            if word.word:
                segment["words"].append({"word": word.word, "start": float(round(offset + word.start, 2)),
                                         "end": float(round(offset + word.end, 2)), "probability": word.probability})
        if segment["words"]:
            limit_segment_boundaries(segment, segment["words"], median, last_speech)
            last_speech = segment["end"]


# Whole recordings

def split_segments(tokens, sampled, frames):
    """[(start, end, tokens)] of a window in seconds, the number of frames to seek, and whether the text ends with a single timestamp."""
    is_timestamp = [token >= tokens.timestamp_begin for token in sampled]
    timestamp = lambda token: (token - tokens.timestamp_begin) * TIME_PRECISION
    single_timestamp_ending = is_timestamp[-2:] == [False, True]
    boundaries = [i + 1 for i in range(len(sampled) - 1) if is_timestamp[i] and is_timestamp[i + 1]]
    if not boundaries:
        timestamps = [token for token in sampled if token >= tokens.timestamp_begin]
        end = timestamp(timestamps[-1]) if timestamps and timestamps[-1] != tokens.timestamp_begin else frames / FRAMES_PER_SECOND
        return [(0.0, end, sampled)], frames, single_timestamp_ending
    if single_timestamp_ending:
        boundaries.append(len(sampled))
    runs = [sampled[a:b] for a, b in zip([0, *boundaries], boundaries)]
    seek_frames = frames if single_timestamp_ending else (runs[-1][-1] - tokens.timestamp_begin) * INPUT_STRIDE
    return [(timestamp(run[0]), timestamp(run[-1]), run) for run in runs], seek_frames, single_timestamp_ending


def is_silence(window):
    return window.no_speech_prob > 0.6 and window.avg_logprob <= -1


def needs_fallback(window):
    silent = window.no_speech_prob > 0.6 and window.avg_logprob < -1
    return not silent and (window.compression_ratio > 2.4 or window.avg_logprob < -1)


def clear_empty(segment):
    if segment["start"] == segment["end"] or not segment["text"].strip():
        segment |= {"text": "", "tokens": []} | ({"words": []} if "words" in segment else {})


def window_segments(model, window, seek, frames):
    """The segments of a window, the number of frames to seek, and whether the text ends with a single timestamp."""
    parts, seek_frames, single_timestamp_ending = split_segments(model.tokens, window.tokens, frames)
    statistics = {name: getattr(window, name) for name in ("avg_logprob", "compression_ratio", "no_speech_prob")}
    offset = seek / FRAMES_PER_SECOND
    return [{"seek": seek, "start": offset + start, "end": offset + end, "text": model.tokens.decode(run), "tokens": run,
             "temperature": 0.0, **statistics, "needs_fallback": needs_fallback(window)} for start, end, run in parts], seek_frames, single_timestamp_ending


def transcribe(model, samples, language=None, task="transcribe", words=False, prompt=None, condition_on_previous_text=True):
    """Transcribes like openai/whisper: text, language and segments. If the language was detected, "languages" has all probabilities."""
    tokens, result = model.tokens, {}
    mel = log_mel(samples, model.n_mels)
    count = len(mel) - FRAMES
    if not tokens.multilingual:
        language = "en"
    elif language is None:
        # unlike in decoding, the padding of a short recording is silence, not 0
        result["languages"] = detect_language(model, model.encode(pad_or_trim(mel)))
        language = max(result["languages"], key=result["languages"].get)
    sot_sequence, prompt = tokens.sot_sequence(language, task), tokens.encode(" " + prompt.strip()) if prompt else []
    all_tokens, segments, seek, last_speech, prompt_reset_since = list(prompt), [], 0, 0.0, 0
    while seek < count:
        frames, offset = min(FRAMES, count - seek), seek / FRAMES_PER_SECOND
        features = model.encode(pad_or_trim(mel[seek:seek + frames]))
        window = decode_window(model, features, sot_sequence, all_tokens[prompt_reset_since:])
        if is_silence(window):
            seek += frames
            continue
        found, seek_frames, single_timestamp_ending = window_segments(model, window, seek, frames)
        seek += seek_frames
        if words:
            add_words(model, features, found, sot_sequence, frames, language, last_speech)
            ends = [word["end"] for segment in found for word in segment["words"]]
            if ends and ends[-1] > offset and not single_timestamp_ending:
                seek = round(ends[-1] * FRAMES_PER_SECOND)
            last_speech = ends[-1] if ends else last_speech
        for segment in found:
            clear_empty(segment)
        segments += found
        all_tokens += [token for segment in found for token in segment["tokens"]]
        prompt_reset_since = prompt_reset_since if condition_on_previous_text else len(all_tokens)
    return {"text": tokens.decode(all_tokens[len(prompt):]), "language": language, **result, "segments": segments}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("audio", type=Path, nargs="+")
    parser.add_argument("--words", action="store_true")
    parser.add_argument("--language")
    parser.add_argument("--task", default="transcribe", choices=["transcribe", "translate"])
    parser.add_argument("--prompt")
    parser.add_argument("--float64", action="store_true")
    options = parser.parse_args()
    model = Whisper.load(options.folder, np.float64 if options.float64 else np.float32)
    for path in options.audio:
        result = transcribe(model, load_audio(path), options.language, options.task, options.words, options.prompt)
        json.dump({"file": path.name, **result}, sys.stdout)
        print(flush=True)


if __name__ == "__main__":
    main()
