// The Transcribe tab: a recording, its transcript segment by segment, and a semantic search in the transcript.

const transcribeAction = new Action("transcribe-message", { stop: "transcribe-stop", progress: "transcribe-progress" });
const transcriptSearchAction = new Action("transcript-search-message");
// The chosen file, or the Blob of the microphone.
let recording = null;
let transcript = [];
// The segment after whose end playback stops.
let playedSegment = null;

function setRecording(file) {
  transcribeAction.abort();
  transcribeAction.showMessage("");
  clearTranscript();
  recording = file;
  const audio = $("audio");
  URL.revokeObjectURL(audio.src);
  audio.src = URL.createObjectURL(file);
  audio.hidden = false;
}

function transcriptionForm() {
  const form = new FormData();
  form.append("file", recording, recording.name ?? "recording");
  form.append("model", $("transcribe-model").value || "whisper-1");
  form.append("stream", "true");
  form.append("timestamp_granularities[]", "segment");
  if ($("language").value.trim()) form.append("language", $("language").value.trim());
  if ($("vad").checked) form.append("vad_filter", "true");
  return form;
}

async function transcribe(signal) {
  if (!recording) throw new Error("Choose a file or record one first.");
  const maxBytes = serverStatus?.limits?.audio_bytes;
  if (recording.size > maxBytes) {
    throw new Error(`The recording has ${formatBytes(recording.size)}; the server accepts at most ${formatBytes(maxBytes)}.`);
  }
  clearTranscript();
  transcribeAction.showMessage("Transcribing…");
  const start = performance.now();
  const route = $("translate").checked ? "v1/audio/translations" : "v1/audio/transcriptions";
  for await (const event of events(await post(route, transcriptionForm(), signal))) {
    if (event.type === "transcript.text.segment") onSegment(event);
  }
  const elapsed = formatMilliseconds(performance.now() - start);
  const last = transcript.at(-1);
  const summary = () => `${pluralize(transcript.length, "segment")}; ${last.end.toFixed(1)} s of speech in ${elapsed}.`;
  transcribeAction.showMessage(last ? summary() : "No speech detected.");
}

function onSegment(event) {
  const segment = { start: event.start, end: event.end, text: event.text.trim() };
  transcript.push(segment);
  $("segments").append(segmentItem(segment));
  $("transcript").hidden = false;
  const { duration } = $("audio");
  if (Number.isFinite(duration)) Object.assign($("transcribe-progress"), { max: duration, value: Math.min(segment.end, duration) });
}

function clearTranscript() {
  transcript = [];
  playedSegment = null;
  $("segments").replaceChildren();
  $("transcript-search-results").replaceChildren();
  transcriptSearchAction.abort();
  transcriptSearchAction.showMessage("");
  $("transcript").hidden = true;
}

function segmentItem(segment, ...more) {
  const range = `${formatClock(segment.start)} – ${formatClock(segment.end)}`;
  const button = element("button", { type: "button", "aria-label": `Play ${range}` }, `▶ ${range}`);
  on(button, "click", () => togglePlayback(segment));
  const item = element("li", {}, button, element("span", {}, segment.text), ...more);
  item.segment = segment;
  return item;
}

/** Plays a segment, or pauses if it is playing. */
async function togglePlayback(segment) {
  const audio = $("audio");
  if (playedSegment === segment && !audio.paused) return audio.pause();
  playedSegment = segment;
  audio.currentTime = segment.start;
  await audio.play().catch((error) => {
    if (error.name !== "AbortError") transcribeAction.showMessage("This browser cannot play the recording.", true);
  });
  pauseAtEnd();
}

/** Pauses at the end of the segment. It uses a timer because `timeupdate` events arrive only about four times per second. */
function pauseAtEnd() {
  const audio = $("audio");
  if (!playedSegment || audio.paused) return;
  const remaining = playedSegment.end - audio.currentTime;
  if (remaining <= 0) return audio.pause();
  setTimeout(pauseAtEnd, 1000 * Math.min(remaining / audio.playbackRate, 0.25));
}

/** Highlights the segments at the playback position. */
function showPlaying() {
  const { currentTime, paused } = $("audio");
  for (const item of document.querySelectorAll("#segments li, #transcript-search-results li")) {
    const { start, end } = item.segment;
    item.classList.toggle("playing", !paused && start <= currentTime && currentTime < end);
  }
}

/** Seeks to the end and back: a MediaRecorder file has an infinite duration until then. */
function determineDuration() {
  const audio = $("audio");
  if (audio.duration !== Infinity) return;
  on(audio, "durationchange", () => (audio.currentTime = 0), { once: true });
  audio.currentTime = Number.MAX_SAFE_INTEGER;
}

async function searchTranscript(signal) {
  transcriptSearchAction.showMessage("Searching…");
  const query = $("transcript-search-query").value;
  const [queryVector, ...vectors] = await embed([query, ...transcript.map((segment) => segment.text)], signal);
  const stems = queryStems(query);
  const items = topK(vectors.map((vector) => dot(vector, queryVector)), 5).map(({ index, score }) => {
    const item = segmentItem(transcript[index], element("span", { class: "score" }, score.toFixed(2)));
    item.children[1].replaceChildren(highlightWords(transcript[index].text, stems));
    return item;
  });
  $("transcript-search-results").replaceChildren(...items);
  transcriptSearchAction.showMessage(pluralize(items.length, "segment") + ", best match first.");
}

function saveTranscript(format) {
  const basename = (recording.name ?? "recording").replace(/\.[^.]*$/, "");
  download(`${basename}.${format}`, SUBTITLE_FORMATS[format](transcript), format === "vtt" ? "text/vtt" : "text/plain");
}

function startTranscribe() {
  on($("transcribe-form"), "submit", (event) => {
    event.preventDefault();
    transcribeAction.run(transcribe);
  });
  on($("audio-file"), "change", ({ target }) => {
    if (target.files[0]) setRecording(target.files[0]);
  });
  on($("transcript-search-form"), "submit", (event) => {
    event.preventDefault();
    transcriptSearchAction.run(searchTranscript);
  });
  on($("record"), "click", toggleRecording);
  on($("audio"), "loadedmetadata", determineDuration);
  for (const type of ["timeupdate", "pause", "playing", "seeked"]) on($("audio"), type, showPlaying);
  for (const button of document.querySelectorAll("[data-subtitles]")) {
    on(button, "click", () => saveTranscript(button.dataset.subtitles));
  }
}
