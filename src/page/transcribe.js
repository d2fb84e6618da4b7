// The tab Speak: a recording, what is said in it segment by segment, and what of that fits a query.

const hearing = new Action("speak-note", { stop: "speak-stop", progress: "speak-progress" });
const searching = new Action("said-note");
let recording = null;
let spoken = [];
// Of a segment that is played alone.
let until = null;

function takeRecording(file) {
  hearing.abort();
  hearing.say("");
  clearTranscript();
  recording = file;
  const audio = $("audio");
  URL.revokeObjectURL(audio.src);
  audio.src = URL.createObjectURL(file);
  audio.hidden = false;
}

function speakForm() {
  const form = new FormData();
  form.append("file", recording, recording.name ?? "recording");
  form.append("model", $("speak-model").value || "whisper-1");
  form.append("stream", "true");
  form.append("timestamp_granularities[]", "segment");
  if ($("language").value.trim()) form.append("language", $("language").value.trim());
  if ($("voices").checked) form.append("vad_filter", "true");
  return form;
}

async function transcribe(signal) {
  if (!recording) throw new Error("Choose a recording first, or record one.");
  const most = state?.limits?.audio_bytes;
  if (recording.size > most) throw new Error(`The recording has ${inBytes(recording.size)}, the function takes ${inBytes(most)}.`);
  clearTranscript();
  hearing.say("Listening…");
  const start = performance.now();
  const route = $("translate").checked ? "v1/audio/translations" : "v1/audio/transcriptions";
  for await (const event of events(await post(route, speakForm(), signal))) hear(event);
  const took = inTime(performance.now() - start);
  const last = spoken.at(-1);
  hearing.say(last ? `${count(spoken.length, "segment")}; ${last.end.toFixed(1)} s of speech in ${took}.` : "Nothing was said.");
}

function hear(event) {
  if (event.type !== "transcript.text.segment") return;
  const segment = { start: event.start, end: event.end, text: event.text.trim() };
  spoken.push(segment);
  $("segments").append(segmentItem(segment));
  $("transcript").hidden = false;
  const { duration } = $("audio");
  if (Number.isFinite(duration)) Object.assign($("speak-progress"), { max: duration, value: Math.min(segment.end, duration) });
}

function clearTranscript() {
  spoken = [];
  until = null;
  $("segments").replaceChildren();
  $("said").replaceChildren();
  searching.abort();
  searching.say("");
  $("transcript").hidden = true;
}

function segmentItem(segment, ...more) {
  const name = `${clock(segment.start)} – ${clock(segment.end)}`;
  const button = element("button", { type: "button", "aria-label": `Play ${name}` }, `▶ ${name}`);
  on(button, "click", () => play(segment));
  const item = element("li", {}, button, element("span", {}, segment.text), ...more);
  item.segment = segment;
  return item;
}

/** Plays a segment, or stops it. */
async function play(segment) {
  const audio = $("audio");
  if (until === segment && !audio.paused) return audio.pause();
  until = segment;
  audio.currentTime = segment.start;
  await audio.play().catch((error) => {
    if (error.name !== "AbortError") hearing.say("This browser cannot play the recording.", true);
  });
  stopAtEnd();
}

/** Looks again when the end should be there: events of the time come only four times a second. */
function stopAtEnd() {
  const audio = $("audio");
  if (!until || audio.paused) return;
  const left = until.end - audio.currentTime;
  if (left <= 0) return audio.pause();
  setTimeout(stopAtEnd, 1000 * Math.min(left / audio.playbackRate, 0.25));
}

function showPlaying() {
  const { currentTime, paused } = $("audio");
  for (const item of document.querySelectorAll("#segments li, #said li")) {
    const { start, end } = item.segment;
    item.classList.toggle("playing", !paused && start <= currentTime && currentTime < end);
  }
}

/** What a browser records has no length until it was sought to its end. */
function findLength() {
  const audio = $("audio");
  if (audio.duration !== Infinity) return;
  on(audio, "durationchange", () => (audio.currentTime = 0), { once: true });
  audio.currentTime = Number.MAX_SAFE_INTEGER;
}

async function searchSaid(signal) {
  searching.say("Searching…");
  const [wanted, ...vectors] = await embed([$("said-query").value, ...spoken.map((segment) => segment.text)], signal);
  const words = stems($("said-query").value);
  const items = best(vectors.map((vector) => dot(vector, wanted)), 5).map(({ at, score }) => {
    const item = segmentItem(spoken[at], element("span", { class: "score" }, score.toFixed(2)));
    item.children[1].replaceChildren(...marked(spoken[at].text, null, words));
    return item;
  });
  $("said").replaceChildren(...items);
  searching.say(count(items.length, "segment") + ", the best first.");
}

function saveSubtitles(kind) {
  const name = (recording.name ?? "recording").replace(/\.[^.]*$/, "");
  save(`${name}.${kind}`, SUBTITLES[kind](spoken), kind === "vtt" ? "text/vtt" : "text/plain");
}

function startSpeak() {
  on($("speak-form"), "submit", (event) => {
    event.preventDefault();
    hearing.run(transcribe);
  });
  on($("audio-file"), "change", ({ target }) => {
    if (target.files[0]) takeRecording(target.files[0]);
  });
  on($("said-form"), "submit", (event) => {
    event.preventDefault();
    searching.run(searchSaid);
  });
  on($("record"), "click", record);
  on($("audio"), "loadedmetadata", findLength);
  for (const type of ["timeupdate", "pause", "playing", "seeked"]) on($("audio"), type, showPlaying);
  for (const button of document.querySelectorAll("[data-subtitles]")) {
    on(button, "click", () => saveSubtitles(button.dataset.subtitles));
  }
}
