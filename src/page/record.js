// The microphone.

const MICROPHONE = {
  NotAllowedError: "The browser does not let this page use the microphone. Allow it beside the address, and try again.",
  NotFoundError: "There is no microphone.",
  NotReadableError: "The microphone is in use by something else.",
};

let recorder = null;

/** Begins to record, or ends it and transcribes. */
async function record() {
  if (recorder) return recorder.stop();
  try {
    // It is only there over https, and on the machine itself.
    if (!navigator.mediaDevices) throw new Error("A browser lets a page use the microphone over https only.");
    begin(await navigator.mediaDevices.getUserMedia({ audio: true }));
  } catch (error) {
    hearing.say(MICROPHONE[error.name] ?? error.message, true);
  }
}

function begin(stream) {
  const parts = [];
  recorder = new MediaRecorder(stream);
  on(recorder, "dataavailable", ({ data }) => parts.push(data));
  const end = showLevel(stream);
  on(recorder, "stop", () => {
    for (const track of stream.getTracks()) track.stop();
    end();
    takeRecording(new Blob(parts, { type: recorder.mimeType }));
    recorder = null;
    showRecording(false);
    hearing.run(transcribe);
  });
  recorder.start();
  showRecording(true);
}

function showRecording(isOn) {
  $("record").setAttribute("aria-pressed", isOn);
  $("record").textContent = isOn ? "Stop and transcribe" : "Record";
  $("record-state").hidden = !isOn;
  if (isOn) hearing.say("");
}

/** Shows how loud it is and for how long; returns how to end that. */
function showLevel(stream) {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  context.createMediaStreamSource(stream).connect(analyser);
  const [wave, start] = [new Float32Array(analyser.fftSize), performance.now()];
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(wave);
    $("record-level").value = Math.min(1, 4 * Math.sqrt(dot(wave, wave) / wave.length));
    $("record-time").textContent = clock((performance.now() - start) / 1000);
  }, 100);
  return () => {
    clearInterval(timer);
    context.close();
  };
}
