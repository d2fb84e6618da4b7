#!/usr/bin/env python3
"""Word error rates on speech in three voices: a reader of LibriVox (Debian's pocketsphinx-testdata) and two of espeak-ng that
read src/models/calibration.txt; and the language of one sentence in seven languages.

    speech.py make                       writes WAV files and transcripts.json to target/speech
    speech.py wer HYPOTHESES.json        word error rate of {file: text}
    speech.py check MODEL REFERENCE      transcribes with target/release/tealight; REFERENCE is {file: text} of float32 decoding
    speech.py reference FOLDER OUTPUT    that, by faster-whisper (needs it installed)
"""

import json
import os
import re
import subprocess
import sys
import wave
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "target" / "speech"
LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
TEXTS = ROOT / "src" / "models" / "calibration.txt"
# voice, words a minute, every which line
VOICES = {"espeak-us": ("en-us", 150, 0), "espeak-gb": ("en-gb+f3", 140, 1)}
LINES = 70
# by espeak-ng's voice, such as float32 is sure of, which `reference` checks: every instruction set hears them
SURE_OF = {
    "en": "The weather will be fine tomorrow, so we want to walk along the river in the morning.",
    "fr+m3": "Bonjour, je voudrais une chambre pour deux personnes, avec une salle de bain, s'il vous plaît.",
    "es": "Mañana hará buen tiempo, por eso queremos caminar junto al río por la mañana.",
    "it": "Domani il tempo sarà bello, perciò vogliamo camminare lungo il fiume la mattina.",
    "ru+belinda": "Завтра будет хорошая погода, поэтому утром мы хотим погулять вдоль реки.",
    "tr+f2": "Yarın hava güzel olacak, bu yüzden sabah nehir boyunca yürümek istiyoruz.",
    "de": "Guten Tag, ich hätte gern ein Zimmer für zwei Personen mit Bad, bitte.",
}
# such as float32 takes for what they are with 0.3 to 0.5: AVX2's activations of 7 bits miss some, those of 8 bits none
BARELY = {
    "fr": "Il fera beau demain, nous voulons donc nous promener le long de la rivière le matin.",
    "ru": SURE_OF["ru+belinda"],
    "tr": SURE_OF["tr+f2"],
}
LANGUAGES = {"en": "english", "fr": "french", "es": "spanish", "it": "italian", "ru": "russian", "tr": "turkish", "de": "german"}
# the probability from which float32 counts as sure of a language
SURE = 0.8
# how much worse than float32 decoding, in words of a hundred
MARGIN = 0.3


def words(text):
    """Lower case, letters, digits and apostrophes."""
    return re.findall(r"[\w']+", text.lower().replace("\u2019", "'"))


def errors(truth, found):
    """Substitutions, insertions and deletions (Levenshtein)."""
    row = list(range(len(found) + 1))
    for i, a in enumerate(truth, 1):
        above, row[0] = row[0], i
        for j, b in enumerate(found, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (a != b))
    return row[-1]


def rate(truth, found):
    pairs = [(words(truth[name]), words(found[name])) for name in truth]
    return 100 * sum(errors(*pair) for pair in pairs) / sum(len(a) for a, _ in pairs)


def speak(voice, speed, text, path):
    subprocess.run(["espeak-ng", "-v", voice, "-s", str(speed), "-w", str(path), text], check=True)


def make():
    CORPUS.mkdir(parents=True, exist_ok=True)
    lines = [line.strip() for line in TEXTS.read_text().splitlines() if line.strip()]
    truth = {}
    for name, (voice, speed, first) in VOICES.items():
        text = " ".join(lines[first::2][:LINES])
        speak(voice, speed, text, CORPUS / f"{name}.wav")
        truth[f"{name}.wav"] = text
    for line in (LIBRIVOX / "transcription").read_text().splitlines():
        text, name = re.fullmatch(r"<s> (.*) </s> \((.*)\)", line).groups()
        data = (LIBRIVOX / f"{name}.wav").read_bytes()
        (CORPUS / f"{name}.wav").write_bytes(data)
        truth[f"{name}.wav"] = re.sub(r"\(\d\)", "", text)
    for voice, text in (SURE_OF | BARELY).items():
        speak(voice, 140, text, CORPUS / f"language-{voice}.wav")
    (CORPUS / "transcripts.json").write_text(json.dumps(truth, indent=1))
    seconds = 0
    for name in truth:
        with wave.open(str(CORPUS / name)) as file:
            seconds += file.getnframes() / file.getframerate()
    print(f"{len(truth)} recordings, {seconds / 60:.1f} minutes")


def transcribe(model, names, *options, env={}):
    """Whole replies of tealight."""
    command = [ROOT / "target" / "release" / "tealight", "transcribe", "--model", model, "--format", "verbose_json", *options]
    lines = subprocess.run(
        [*command, *(CORPUS / name for name in names)], env=os.environ | env, check=True, capture_output=True, text=True
    ).stdout
    return dict(zip(names, map(json.loads, lines.splitlines())))


def check(model, reference):
    truth = json.loads((CORPUS / "transcripts.json").read_text())
    found = {name: reply["text"] for name, reply in transcribe(model, list(truth), "--language", "en").items()}
    ours = rate(truth, found)
    print(f"{model}: word error rate {ours:.2f} %")
    theirs = rate(truth, json.loads(Path(reference).read_text()))
    print(f"{model}: in float32 {theirs:.2f} %", flush=True)
    failed = ours > theirs + MARGIN
    if not model.endswith(".en"):
        # What the portable set hears, every one with activations of 8 bits does.
        for isa, voices in ({}, SURE_OF), ({"TEALIGHT_ISA": "scalar"}, SURE_OF | BARELY):
            names = [f"language-{voice}.wav" for voice in voices]
            heard = {name: reply["language"] for name, reply in transcribe(model, names, env=isa).items()}
            print(f"{model}: languages {heard}")
            failed |= list(heard.values()) != [LANGUAGES[voice[:2]] for voice in voices]
    sys.exit(failed)


def reference(folder, output):
    from faster_whisper import WhisperModel, decode_audio

    model = WhisperModel(folder, device="cpu", compute_type="float32", cpu_threads=os.cpu_count())
    truth = json.loads((CORPUS / "transcripts.json").read_text())
    texts = {}
    for name in truth:
        segments, _ = model.transcribe(str(CORPUS / name), beam_size=1, language="en")
        texts[name] = "".join(segment.text for segment in segments)
    Path(output).write_text(json.dumps(texts, indent=1) + "\n")
    print(f"word error rate {rate(truth, texts):.2f} %")
    for voice in SURE_OF if model.model.is_multilingual else ():
        language, probability, _ = model.detect_language(decode_audio(str(CORPUS / f"language-{voice}.wav")))
        print(f"{voice}: {language}, {probability:.2f}")
        assert language == voice[:2] and probability >= SURE, f"float32 is not sure of {voice}"


def main():
    command, *rest = sys.argv[1:]
    if command == "make":
        make()
    elif command == "wer":
        truth = json.loads((CORPUS / "transcripts.json").read_text())
        print(f"word error rate {rate(truth, json.loads(Path(rest[0]).read_text())):.2f} %")
    elif command == "check":
        check(*rest)
    elif command == "reference":
        reference(*rest)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
